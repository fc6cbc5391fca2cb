"""A real Flink cluster for tests: what deploy/flink/cluster.sh starts, seen from Python.

    with clusters.running() as cluster:
        run("convert", "-i", source, "-f", "parquet", "-o", out, *cluster.flags(parallelism=2))

`running` takes the cluster that `BEAM_CIFAR_CLUSTER` names, or starts one; `started` always starts one of its own, with
settings of cluster.sh by name, such as `CLUSTER_RESTART_ATTEMPTS=0`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

SCRIPT = ROOT / "deploy" / "flink" / "cluster.sh"
VARIABLE = "BEAM_CIFAR_CLUSTER"
"""The environment variable that names the run directory of a cluster, which may run already."""

PORTS = ("CLUSTER_REST_PORT", "CLUSTER_RPC_PORT", "CLUSTER_JOB_PORT", "CLUSTER_ARTIFACT_PORT")
ENDED = ("FINISHED", "CANCELED", "FAILED")


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        folder: its run directory.
        job_endpoint: of Beam's job server, HOST:PORT.
        flink_master: Flink's REST interface, HOST:PORT.
        boot: what starts a worker.
        job_server_jar: for `--runner=FlinkRunner`.
    """

    folder: Path
    job_endpoint: str
    flink_master: str
    boot: str
    job_server_jar: str

    @classmethod
    def of(cls, folder: Path) -> Cluster:
        """The cluster with a run directory."""
        facts = json.loads((folder / "cluster.json").read_text())
        return cls(folder, facts["job_endpoint"], facts["flink_master"], facts["boot"], facts["job_server_jar"])

    def flags(self, parallelism: int = 2, boot: str = "", env: dict[str, str] | None = None) -> list[str]:
        """What `beam-cifar convert` needs to run on it; `boot` is another program, `env` what workers find set."""
        return [
            "--runner=PortableRunner",
            f"--job_endpoint={self.job_endpoint}",
            f"--flink_master={self.flink_master}",
            *self.worker_flags(parallelism, boot, env),
        ]

    def flink_runner_flags(self, parallelism: int = 2) -> list[str]:
        """The same by Beam's FlinkRunner, which starts a job server of its own."""
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.flink_master}",
            f"--flink_job_server_jar={self.job_server_jar}",
            *self.worker_flags(parallelism),
        ]

    def worker_flags(self, parallelism: int = 2, boot: str = "", env: dict[str, str] | None = None) -> list[str]:
        """The part that both runners share."""
        config = {"command": boot or self.boot, **({"env": env} if env else {})}
        return [
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps(config)}",
            "--environment_cache_millis=1500",
            "--execution_mode_for_batch=BATCH",
            f"--parallelism={parallelism}",
        ]

    def rest(self, path: str) -> Any:
        """What Flink's REST interface says, such as `rest("/jobs/overview")`."""
        with urllib.request.urlopen(f"http://{self.flink_master}{path}", timeout=20) as answer:
            return json.load(answer)

    def jobs(self) -> dict[str, str]:
        """State by job id, of all jobs since the start, the newest first."""
        found = sorted(self.rest("/jobs/overview")["jobs"], key=lambda job: -job["start-time"])
        return {job["jid"]: job["state"] for job in found}

    def active_jobs(self) -> list[str]:
        """Ids of the jobs that have not ended."""
        return [job for job, state in self.jobs().items() if state not in ENDED]

    def cancel_all(self) -> None:
        """Ends all jobs."""
        for job in self.active_jobs():
            request = urllib.request.Request(f"http://{self.flink_master}/jobs/{job}?mode=cancel", method="PATCH")
            urllib.request.urlopen(request, timeout=20).close()

    def taskmanagers(self) -> dict[str, int]:
        """Process ids of the TaskManagers by name, such as `taskmanager-1`."""
        return {path.stem: int(path.read_text().split()[0]) for path in sorted(self.folder.glob("taskmanager-*.pid"))}

    def workers(self) -> list[int]:
        """Process ids of Beam's workers, Python all, whoever their parents are by now."""
        mark = b"BEAM_CIFAR_CLUSTER_ID=" + (self.folder / "id").read_bytes().strip()
        return [pid for pid in marked(mark) if b"sdk_worker_main" in _read(pid, "cmdline")]

    def stop(self) -> subprocess.CompletedProcess[str]:
        """Stops it, which whoever has started it does by itself."""
        return script("stop", {**os.environ, "CLUSTER_RUN": str(self.folder)})

    def log(self, name: str) -> str:
        """The log of `jobmanager`, `taskmanager-1` or `job-server`."""
        return (self.folder / "log" / f"{name}.log").read_text(errors="replace")


@contextmanager
def running(**settings: object) -> Iterator[Cluster]:
    """The cluster that the variable names if it runs; otherwise one for as long as it is needed, in that folder."""
    folder = os.environ.get(VARIABLE)
    if folder and (Path(folder) / "cluster.json").exists():
        yield Cluster.of(Path(folder))
    else:
        with started(Path(folder) if folder else None, **settings) as cluster:
            yield cluster


@contextmanager
def started(folder: Path | None = None, **settings: object) -> Iterator[Cluster]:
    """Starts a cluster of its own on free ports, and stops it; its folder is removed unless it is given."""
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beam-cifar-cluster-")))
        told = {"CLUSTER_RUN": str(place), **dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))}
        environment = {**os.environ, **told, **{name: str(value) for name, value in settings.items()}}
        stack.callback(script, "stop", environment)
        done = script("start", environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        yield Cluster.of(place)


def script(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs cluster.sh."""
    return subprocess.run([SCRIPT, command], env=environment, capture_output=True, text=True, timeout=900, check=False)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition returns as soon as that is true; its last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def marked(mark: bytes) -> list[int]:
    """Ids of the processes that have `NAME=VALUE` in their environment."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if mark in _read(pid, "environ").split(b"\0")]


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
