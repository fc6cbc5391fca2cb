"""Wall time and peak memory of a whole process."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One finished process.

    Attributes:
        seconds: wall time from its start to its end.
        cpu_seconds: time on any core, in it and in the kernel for it.
        peak_mb: the most memory it held (VmHWM), in 10**6 bytes.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(command: Sequence[str]) -> Run:
    """Runs a command to its end.

    Linux counts what the parent held when it started the process, too: call this from a small process, which has not
    imported numpy, Arrow or Beam.

    Raises:
        RuntimeError: the command failed; with its exit code (below 0: a signal) and the last line of its errors.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        # Popen must not wait for a process that is gone.
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise RuntimeError(f"exit code {process.returncode}: {lines[-1]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)
