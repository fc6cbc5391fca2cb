"""Job folders that come from somebody else: nothing in them is followed, and reading leaves them alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, convert
from beam_cifar.errors import OutputError
from beam_cifar.jobs.clean import clean
from beam_cifar.storage import recover
from tests.helpers.image_trees import batch, write_cifar

VICTIM = b"what nobody may touch\n"

PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "a lock that is a symbolic link": lambda folder, victim: (folder / "lock").symlink_to(victim),
    "a lock that is a hard link": lambda folder, victim: os.link(victim, folder / "lock"),
    "a lock that is a pipe": lambda folder, victim: os.mkfifo(folder / "lock"),
    "an index elsewhere": lambda folder, victim: (folder / "index").symlink_to(victim.parent),
    "a manifest elsewhere": lambda folder, victim: (folder / "manifest.json").symlink_to(victim),
    "a pending manifest elsewhere": lambda folder, victim: (folder / "manifest.pending.json").symlink_to(victim),
    "a replaced output elsewhere": lambda folder, victim: (folder / "replaced").symlink_to(victim.parent),
    "staged files elsewhere": lambda folder, victim: (folder / ("work-" + "0" * 16)).symlink_to(victim.parent),
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of everything that a job may touch."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "victim"
    path.write_bytes(VICTIM)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("command", ["convert", "clean", "recover"])
def test_nothing_planted_in_a_job_folder_is_followed(
    plant: Callable[[Path, Path], None], command: str, victim: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", tmp_path / "out.beam_cifar"
    folder.mkdir()
    (folder / "replaced").mkdir()
    if plant is PLANTED["a replaced output elsewhere"]:
        (folder / "replaced").rmdir()
    plant(folder, victim)
    before = names(folder)
    if command == "recover":
        recover(str(out))
    elif command == "clean":
        with pytest.raises(OutputError, match=r"out\.beam_cifar/.*; remove it$"):
            clean(str(out))
    else:
        source = write_cifar(tmp_path / "in", {"train": batch(["a"], [0])})
        with pytest.raises(OutputError, match=r"out\.beam_cifar/.*; remove it$"):
            convert(ConvertOptions(str(source), str(out), "parquet"))
    assert (victim.read_bytes(), names(victim.parent)) == (VICTIM, ["victim"])
    assert (names(folder), os.path.lexists(out)) == (before, False)


def test_a_job_folder_that_is_a_link_is_refused(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "out.beam_cifar").symlink_to(victim.parent)
    with pytest.raises(OutputError, match="is a symbolic link, which no job creates; remove it"):
        clean(str(tmp_path / "out"))
    assert names(victim.parent) == ["victim"]


def test_reading_restores_nothing_in_a_job_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set.beam_cifar" / "replaced").mkdir(parents=True)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    recover(str(tmp_path / "set"))
    assert names(tmp_path) == ["set.beam_cifar"]
    monkeypatch.undo()
    recover(str(tmp_path / "set"))
    assert names(tmp_path) == ["set"]
