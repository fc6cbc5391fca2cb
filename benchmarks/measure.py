"""Measures wall time and peak memory of a whole process."""

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
        seconds: wall time from start to end.
        cpu_seconds: user and system time on all cores.
        peak_mb: peak memory (VmHWM), in 10**6 bytes.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(command: Sequence[str]) -> Run:
    """Runs a command and returns its measurements.

    Linux includes the memory of the parent at the time of the fork: call this from a small process that has not
    imported numpy, Arrow or Beam.

    Raises:
        RuntimeError: the command failed; the message has its exit code (negative: a signal) and last error line.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        # `wait4` has reaped the process, so Popen must not wait for it.
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise RuntimeError(f"exit code {process.returncode}: {lines[-1]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)
