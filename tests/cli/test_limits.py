"""Where threads or address space are scarce, a command does its work or ends with one line: never by a signal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beam_cifar import make_sample

MANY_FLAGS = "+dac_override,+dac_read_search"
NOBODY = 65533
"""A user without processes: limits on their number do not count for root."""

LIMITS = [
    *(f"ulimit -v {kilobytes}" for kilobytes in (150_000, 500_000, 1_000_000, 1_100_000, 2_000_000, 4_000_000)),
    *(f"ulimit -u {count}" for count in (1, 2, 4, 8, 30)),
]
COMMANDS = [
    "info a.tar.gz",
    "detect a.tar.gz",
    "convert -i a.tar.gz -f parquet -o out --overwrite --workers 1",
    "convert -i a.tar.gz -f parquet -o out --overwrite --workers 2",
    "report a.tar.gz -o page --overwrite --workers 1",
]
DATASET = "from beam_cifar import Dataset; print(len(Dataset.import_from('a.tar.gz')))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("limits")
    make_sample(str(made / "a.tar.gz"), kind="cifar10", images=300, seed=0, tar=True)
    (made / "nobody").mkdir(mode=0o777)  # outputs of another user are refused
    (made / "nobody" / "a.tar.gz").symlink_to(made / "a.tar.gz")
    if os.geteuid() == 0:
        os.chown(made / "nobody", NOBODY, -1)
    return made


def limited(limit: str, program: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'{limit}; exec "$@"', "-", sys.executable, *program]
    if "-u" in limit:
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv")
        caps = f"--inh-caps={MANY_FLAGS}", f"--ambient-caps={MANY_FLAGS}"
        command = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", *caps, *command]
        folder = folder / "nobody"
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_command_does_its_work_or_ends_with_one_line(limit: str, command: str, folder: Path) -> None:
    done = limited(limit, ["-m", "beam_cifar", *command.split()], folder)
    notes = [line for line in done.stderr.splitlines() if not line.startswith("beam-cifar: note:")]
    assert (done.returncode, len(notes)) in ((0, 0), (1, 1)), done.stderr
    assert done.returncode == 0 or "(ulimit -" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS[2:6])
def test_an_archive_is_read_as_without_limits(limit: str, folder: Path) -> None:
    done = limited(limit, ["-c", DATASET], folder)
    assert (done.returncode, done.stdout) == (0, "300\n"), done.stderr


@pytest.mark.slow
def test_what_is_written_within_limits_is_the_same(folder: Path) -> None:
    for limit, name in (("true", "free"), ("ulimit -v 2000000", "tight")):
        command = f"convert -i a.tar.gz -f parquet -o {name} --workers 1"
        done = limited(limit, ["-m", "beam_cifar", *command.split()], folder)
        assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in sorted((folder / "free").rglob("*.parquet"))] == [
        path.read_bytes() for path in sorted((folder / "tight").rglob("*.parquet"))
    ]
