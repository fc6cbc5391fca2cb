"""Jobs whose storage fails at one call, or that are killed there: a sample of all calls (`make test-storage-faults`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.object_stores import find_binary
from tests.helpers.storage_faults import FAULTS, SCENARIOS, build

TRIALS = os.environ.get("BEAM_CIFAR_STORAGE_TRIALS", "16")
"""About so many for each scenario; "0" for all."""
GCS = find_binary("fake-gcs-server", "BEAM_CIFAR_FAKE_GCS")


@pytest.fixture(scope="module")
def library() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield build(Path(folder))


@pytest.mark.parametrize("scenario", [name for name, each in SCENARIOS.items() if each.on != "gs" or GCS])
def test_a_failed_call_or_a_kill_leaves_a_whole_output_and_the_rerun_is_as_undisturbed(scenario: str) -> None:
    command = [sys.executable, "-m", "tests.helpers.storage_faults", scenario, "--trials", TRIALS]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]


PROGRAM = """
import ctypes, os, sys
library, folder, number, fault = sys.argv[1:]
log = os.open(folder + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
ctypes.CDLL(library).arm(folder.encode(), ctypes.c_long(int(number)), int(fault), log)
file = os.path.join(folder, "file")
calls = [
    lambda: os.mkdir(file + ".d"),
    lambda: os.listdir(folder),
    lambda: open(file, "wb", buffering=0).close(),
    lambda: os.rename(file, file + "2"),
    lambda: os.link(file + "2", file),
    lambda: os.unlink(file + "2"),
    lambda: os.rmdir(file + ".d"),
    lambda: os.listdir(os.path.dirname(folder)),
]
for call in calls:
    try:
        call()
    except OSError as error:
        print(error.errno)
"""
CALLS = ["mkdir", "list", "list", "create", "close", "rename", "link", "unlink", "rmdir"]


@pytest.mark.parametrize("number", range(len(CALLS) + 1))
@pytest.mark.parametrize("fault", ["EIO", "killed before", "killed after"])
def test_the_library_lets_exactly_one_call_fail(number: int, fault: str, library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(library), str(folder), str(number), str(FAULTS[fault])]
    ran = subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True)
    lines = (tmp_path / "watched.log").read_text().splitlines()
    kinds = [line.lstrip("!").split(" ")[0] for line in lines]
    if number == 0:
        assert (ran.returncode, ran.stdout, kinds) == (0, "", CALLS)
        return
    assert kinds == CALLS[:number]
    assert [line.startswith("!") for line in lines] == [False] * (number - 1) + [True]
    if fault == "EIO":
        assert ran.returncode == 0
        assert ran.stdout.splitlines()[0] == str(FAULTS["EIO"])
    else:
        assert (ran.returncode, ran.stdout) == (-9, "")
