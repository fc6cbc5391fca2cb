"""Runs commands on files from strangers, each in a process of its own, and measures what they took.

The processes are forks of one that has imported the package, so that each takes milliseconds and not a second:

    with hostile_runs() as run:
        found = run("info", str(path), marker=marker)
        assert found.code == 3 and found.peak_kb < 300_000 and not found.marker

`python -m tests.helpers.hostile` is the process that forks: a line of JSON in and one out for each command.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

ADDRESS_SPACE = 6 << 30
"""Bytes of RLIMIT_AS: far above what is allowed, so that a file that takes too much is measured and does no harm."""

PEAK_KB = 300_000
SECONDS = 10.0
_DEADLINE = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of one command.

    Attributes:
        code: its exit code; that of a signal is negative.
        stderr: what it wrote there.
        peak_kb: the largest resident size of it or of a process that it started, with what the forking one had imported.
        seconds: wall time.
        marker: whether the file exists whose appearance shows that code of the file was run.
    """

    code: int
    stderr: str
    peak_kb: int
    seconds: float
    marker: bool

    def faults(self) -> list[str]:
        """What is wrong with how a bad file was refused: nothing if by one line, exit code 3, and within the limits."""
        found = {
            f"exit code {self.code}": self.code != 3,
            f"stderr {self.stderr[-300:]!r}": len(self.stderr.splitlines()) != 1 or "Traceback" in self.stderr,
            f"{self.peak_kb} KB": self.peak_kb > PEAK_KB,
            f"{self.seconds:.1f} s": self.seconds > SECONDS,
            "code was run": self.marker,
        }
        return [what for what, wrong in found.items() if wrong]


Run = Callable[..., Outcome]
"""Takes the arguments of `beam-cifar`; `marker`, `cwd` and `seconds`, after which it is killed, are options."""


@contextmanager
def hostile_runs(*late: str, address_space: int = ADDRESS_SPACE) -> Iterator[Run]:
    """What runs a command, while it lasts; `late` names further modules that are imported once, such as Beam's."""
    command = [sys.executable, "-m", "tests.helpers.hostile", *late]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        wanted, answers = process.stdin, process.stdout

        def run(
            *arguments: str, marker: Path | None = None, cwd: Path | None = None, seconds: float = _DEADLINE
        ) -> Outcome:
            asked = {"arguments": arguments, "cwd": str(cwd or "/"), "seconds": seconds, "space": address_space}
            wanted.write(json.dumps(asked) + "\n")
            wanted.flush()
            answer = json.loads(answers.readline())
            return Outcome(**answer, marker=marker is not None and marker.exists())

        try:
            yield run
        finally:
            process.stdin.close()


def _serve(late: Sequence[str]) -> None:
    from beam_cifar.cli.main import main

    for name in late:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as stderr:
            sys.stdout.flush()
            begun = time.monotonic()
            pid = os.fork()
            if pid == 0:
                os.setsid()
                _be(asked, stderr.fileno(), main)
            used, status = _wait(pid, asked["seconds"])
            seconds = time.monotonic() - begun
            stderr.seek(0)
            text = stderr.read(1 << 16).decode("utf-8", "replace")
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "stderr": text,
            "peak_kb": used.ru_maxrss,
            "seconds": seconds,
        }
        print(json.dumps(answer), flush=True)


def _wait(pid: int, seconds: float) -> tuple[resource.struct_rusage, int]:
    """Waits for a process, and ends it with all that it started when its time is over."""
    ended = os.pidfd_open(pid)
    try:
        select.select([ended], [], [], seconds)
    finally:
        os.close(ended)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # also what it left behind; does not change how it ended
    _, status, used = os.wait4(pid, 0)
    return used, status


def _be(asked: dict[str, Any], stderr: int, main: Callable[[list[str]], int]) -> None:
    """Is the command until its end."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, stream in enumerate((nothing, nothing, stderr)):
            os.dup2(stream, number)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        resource.setrlimit(resource.RLIMIT_AS, (asked["space"], asked["space"]))
        os.chdir(asked["cwd"])
        sys.argv = ["beam-cifar", *asked["arguments"]]
        code = main(asked["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])
