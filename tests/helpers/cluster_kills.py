"""Jobs on a Flink cluster of which a part is killed: a worker, a TaskManager, or the launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.clusters import Cluster, wait_for
from tests.helpers.faults import accounts
from tests.helpers.kills import SECONDS, Case, Work, end, finish

RESTARTED_AFTER = 5.0
"""Seconds until whoever looks after a TaskManager starts another one."""


def kill_worker(cluster: Cluster) -> None:
    """Kills one of the workers that run."""
    workers = wait_for(cluster.workers)
    assert workers, "no worker runs"
    with suppress(ProcessLookupError):
        os.kill(workers[0], signal.SIGKILL)


def kill_taskmanager(cluster: Cluster) -> None:
    """Kills a TaskManager, and starts another one some seconds later, as whoever looks after it would."""
    pid = cluster.taskmanagers()["taskmanager-1"]
    command = _strings(pid, "cmdline")
    environment = dict(entry.partition("=")[::2] for entry in _strings(pid, "environ"))
    started_by = cluster.folder / "taskmanager-1.pid"
    os.kill(pid, signal.SIGKILL)
    time.sleep(RESTARTED_AFTER)
    with open(cluster.folder / "log" / "taskmanager-1.log", "ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    _STARTED.append(process)
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    started_by.write_text(f"{process.pid} {stat[19]}\n")  # cluster.sh stops it as its own


# `cluster.sh` ends them; to forget one that runs would be a warning.
_STARTED: list[subprocess.Popen[bytes]] = []


def _strings(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_bytes().decode().rstrip("\0").split("\0")


ON_THE_CLUSTER: dict[str, Callable[[Cluster], None]] = {"a worker": kill_worker, "a TaskManager": kill_taskmanager}
LAUNCHER = "the launcher"
LAUNCHER_AND_JOB = "the launcher, and then its job is cancelled"
KINDS = (*ON_THE_CLUSTER, LAUNCHER, LAUNCHER_AND_JOB)


@dataclass(frozen=True)
class Survival:
    """A job that lost something, and came to its end.

    Attributes:
        parts: that were finished when it did.
        end: how it ended.
    """

    parts: int
    end: str


def cluster_work(cluster: Cluster) -> Work:
    """The job that runs on a cluster."""
    return Work("folder", ("-f", "parquet", "--images-per-batch", "500", *cluster.flags()))


def survive(kind: str, cluster: Cluster, case: Case, parts: int) -> Survival:
    """Kills something when so many parts are finished, and checks that the output ends as undisturbed."""
    output = case.fresh("out")
    process = case.start(output)
    try:
        wait_for(lambda: (cluster.workers() and len(accounts(output)) >= parts) or process.poll() is not None, SECONDS)
        finished = len(accounts(output))
        assert process.poll() is None, case.said()
        if kind in ON_THE_CLUSTER:
            ON_THE_CLUSTER[kind](cluster)
            assert process.wait(SECONDS) == 0, case.said()
            finish(case, output)
            return Survival(finished, "the job ended by itself")
    finally:
        end(process)
    if kind == LAUNCHER_AND_JOB:
        cancel(cluster)
    assert wait_for(lambda: not cluster.active_jobs(), SECONDS), "the job on the cluster does not end"
    said = finish(case, output)
    if "an earlier run already finished this job" in said:
        return Survival(finished, "the job ended by itself, and --resume found it done")
    assert "already finished" in said, said
    return Survival(finished, "--resume made what was missing")


def cancel(cluster: Cluster) -> None:
    """Has Flink cancel the jobs that run."""
    for job in cluster.active_jobs():
        request = urllib.request.Request(f"http://{cluster.flink_master}/jobs/{job}?mode=cancel", method="PATCH")
        urllib.request.urlopen(request, timeout=20).close()
