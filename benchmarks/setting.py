"""Describes the machine and the versions that figures were measured with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from works import PEERS_PYTHON

OURS = ("beam_cifar", "apache-beam", "numpy", "pillow", "pyarrow", "isal", "datasets")
PEERS = ("datumaro", "numpy", "pillow", "opencv-python-headless")

VERSIONS = """
import platform, sys
from importlib.metadata import PackageNotFoundError, version
found = []
for name in sys.argv[1:]:
    try:
        found.append(f"{name} {version(name)}")
    except PackageNotFoundError:
        found.append(f"no {name}")
print(f"Python {platform.python_version()}:", ", ".join(found))
"""


def describe(with_peers: bool) -> list[str]:
    """Returns lines with the machine, its cores and load, and the versions of all programs involved."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    lines = [
        f"{platform.machine()}, {_cpu()}, {cores} cores, {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"load {load:.2f} at the start",
        _versions(sys.executable, OURS),
    ]
    if with_peers:
        lines.append(f"peers: {_versions(PEERS_PYTHON, PEERS)}")
        lines.append(_output("cp", "--version").partition("\n")[0])
    return lines


def _cpu() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return model[1] if model else "unknown CPU"


def _versions(python: str, names: tuple[str, ...]) -> str:
    # In a subprocess: the environment may be another one, and this process must stay small; see `measure`.
    return _output(python, "-c", VERSIONS, *names).strip()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
