"""Jobs in processes of their own, and what of them is still there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "BEAM_CIFAR_TEST_JOB"
"""Environment variable by which the processes of a job are found again, whoever started them."""


def start(arguments: Sequence[object], folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Starts a command in a folder; `processes_of` finds its descendants."""
    environment: Mapping[str, str] = {**os.environ, MARK: str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "beam_cifar", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def processes_of(folder: Path) -> list[int]:
    """The running processes of the commands that were started in a folder."""
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _belongs(pid, folder)]


def workers_of(folder: Path) -> list[int]:
    """The worker processes among them."""
    return [pid for pid in processes_of(folder) if b"beam_cifar.pipeline.worker" in _read(pid, "cmdline")]


def until(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _belongs(pid: int, folder: Path) -> bool:
    return f"{MARK}={folder}".encode() in _read(pid, "environ").split(b"\0")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or a zombie
        return b""
