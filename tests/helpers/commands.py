"""The command line, as the fixtures of `conftest.py` run it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Run = Callable[..., subprocess.CompletedProcess[str]]
"""In a process of its own: takes arguments, and options of `subprocess.run`."""

Command = Callable[..., tuple[int, str, str]]
"""In this process: exit code, stdout and stderr."""
