"""Temporary folders: only their user may enter, and those of a killed process do not stay."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_cifar import make_sample, storage
from beam_cifar.jobs.clean import clean
from beam_cifar.storage.processes import here, started
from tests.helpers import ROOT


def name(host: str, boot: str, process: int, start: str) -> str:
    return f"beam_cifar-{host}-{boot}-{process}-{start}-abcd_123"


GONE = 2**22 + 1  # more than any process id
HOST, BOOT = here()
FOLDERS: dict[str, tuple[str, bool]] = {
    "this process": (name(HOST, BOOT, os.getpid(), started(os.getpid())), True),
    "a process that is gone": (name(HOST, BOOT, GONE, "5"), False),
    "a process whose id another one has now": (name(HOST, BOOT, os.getpid(), "5"), False),
    "before the last start of the machine": (name(HOST, "0" * 8, os.getpid(), started(os.getpid())), False),
    "another machine or container": (name("0" * 8, BOOT, GONE, "5"), True),
    "a system that does not say when a process started": (name(HOST, BOOT, GONE, ""), True),
    "a folder of somebody's own": ("beam_cifar-results-of-1-2-abcd_123", True),
    "a folder as Python names it": ("beam_cifar-abcd_123", True),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_only_folders_whose_process_is_gone_are_removed(case: str, tmp_path: Path) -> None:
    folder, stays = FOLDERS[case]
    (tmp_path / folder / "in").mkdir(parents=True)
    (tmp_path / folder / "in" / "file").write_text("data")
    storage.remove_abandoned(str(tmp_path))
    assert (tmp_path / folder).exists() == stays


def of_another_user(path: Path) -> None:
    path.mkdir()
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("kind", ["link", "file", "another user"])
def test_what_only_has_the_name_of_one_is_left_alone(kind: str, tmp_path: Path) -> None:
    if kind == "another user" and os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("data")
    path = tmp_path / FOLDERS["a process that is gone"][0]
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "victim"),
        "file": lambda: path.write_text("data"),
        "another user": lambda: of_another_user(path),
    }
    make[kind]()
    storage.remove_abandoned(str(tmp_path))
    assert os.path.lexists(path)
    assert (tmp_path / "victim" / "file").exists()


def test_only_this_user_may_enter_and_nothing_stays(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with storage.TemporaryFolder(tmp_path) as folder:
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    finally:
        os.umask(before)
    kept = storage.TemporaryFolder(tmp_path)
    assert os.path.isdir(kept.name)
    del kept
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_makes_temporary_files() -> None:
    importing = {
        path.name for path in (ROOT / "beam_cifar").rglob("*.py") if "import tempfile" in path.read_text("utf-8")
    }
    assert importing == {"temporary.py", "staging.py", "packed.py"}, "use storage.TemporaryFolder"


@pytest.mark.slow
def test_a_killed_job_leaves_only_folders_that_the_next_one_or_clean_removes(tmp_path: Path) -> None:
    make_sample(str(tmp_path / "in"), kind="cifar10", images=20_000, seed=0)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "beam_cifar", "convert", "-i", "in", "-f", "parquet", "-o", "out", "--workers=2"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(temporary.glob("beam_cifar-*")) and process.poll() is None:
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # Python itself tries out the folder with a file, in a worker process perhaps at the moment of the kill.
    left = [path.name for path in temporary.iterdir() if path.is_dir()]
    assert left
    assert all(f"-{process.pid}-" in each for each in left)
    storage.remove_abandoned(str(temporary))
    assert [path.name for path in temporary.iterdir() if path.is_dir()] == []
    clean(str(tmp_path / "out"))
