"""Job folders that come from somebody else: nothing in them is followed, and reading leaves them alone."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, Dataset, convert
from beam_cifar.errors import BeamCifarError, InputError, OutputError
from beam_cifar.jobs.clean import clean
from beam_cifar.storage import recover
from tests.helpers.commands import Command
from tests.helpers.image_trees import batch, killed, quickly, write_cifar

VICTIM = b"what nobody may touch\n"

PLANTED: dict[str, Callable[[Path, Path], object]] = {
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
    plant: Callable[[Path, Path], object], command: str, victim: Path, tmp_path: Path
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with its job folder, as `set`."""
    folder = tmp_path_factory.mktemp("plain")
    write_cifar(folder / "in", {"train": batch(["a", "b"], [0, 1])})
    quickly(folder / "in", folder / "set", "imagenet")
    return folder


def set_aside(source: Path, output: Path) -> None:
    """Makes an output that was set aside by a job that was killed before it replaced it; a copy would not count."""
    quickly(source, output, "imagenet")
    for step in itertools.count(1):
        if not output.exists():
            return
        assert killed(step, ConvertOptions(str(source), str(output), "parquet", overwrite=True)) == 9


def listing(folder: Path, victim: Path, path: str) -> None:
    """A list of files, and a manifest that refers to it, which lead to the victim."""
    (folder / f"files-{'0' * 16}.jsonl").write_text(json.dumps({"path": path, "bytes": 25, "sha256": sha256(victim)}))
    shard = {"path": "", "listing": f"files-{'0' * 16}.jsonl"}
    (folder / "manifest.pending.json").write_text(json.dumps({"files": [], "shards": [shard]}))
    (folder / "manifest.json").unlink()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def chown(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, 12345, 12345, follow_symlinks=False)


def writable(folder: Path) -> None:
    folder.chmod(0o777)
    os.mkfifo(folder / "lock")


def list_in_a_pipe(folder: Path, victim: Path) -> None:
    listing(folder, victim, "a")
    replace(folder / f"files-{'0' * 16}.jsonl", os.mkfifo)


def job_of_pipes_and_links(folder: Path, victim: Path) -> None:
    work = folder / ("work-" + "0" * 16)
    (work / "accounts").mkdir(parents=True)
    os.mkfifo(work / "begun.json")
    (work / "accounts" / "000000-000000.json").symlink_to(victim)
    (work / "rows.arrow").symlink_to(victim)


def from_archive(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


BESIDE: dict[str, Callable[[Path, Path], object]] = {
    **PLANTED,
    "a manifest elsewhere": lambda folder, victim: replace(folder / "manifest.json", lambda it: it.symlink_to(victim)),
    "a manifest that is a pipe": lambda folder, victim: replace(folder / "manifest.json", os.mkfifo),
    "a manifest that never ends": lambda folder, victim: replace(
        folder / "manifest.json", lambda it: it.symlink_to("/dev/zero")
    ),
    "a manifest of another user": lambda folder, victim: chown(folder / "manifest.json"),
    "a folder of another user": lambda folder, victim: chown(folder),
    "a folder that anybody can write to": lambda folder, victim: writable(folder),
    "a list with ..": lambda folder, victim: listing(folder, victim, "../home/victim"),
    "a list with an absolute path": lambda folder, victim: listing(folder, victim, str(victim)),
    "a list that is a pipe": list_in_a_pipe,
    "a replaced output": lambda folder, victim: (folder / "replaced").mkdir(),
    "a job of pipes and links": job_of_pipes_and_links,
}

READING: dict[str, Callable[[str], tuple[str, ...]]] = {
    "info": lambda path: ("info", path),
    "detect": lambda path: ("detect", path),
    "diff": lambda path: ("diff", path, path, "--workers", "1"),
    "convert": lambda path: ("convert", "-i", path, "-f", "parquet", "-o", f"{path}-out", "--workers", "1"),
    "report": lambda path: ("report", path, "-o", f"{path}.html", "--workers", "1"),
}


def everything(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that lies in a folder, by the facts that any change of it changes."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


RUNNING = ("diff", "convert", "report")
QUICK = ("a lock that is a symbolic link", "a manifest that is a pipe", "a folder of another user", "a list with ..")
CASES = [
    pytest.param(
        verb, plant, id=f"{verb}-{name}", marks=[] if verb not in RUNNING or name in QUICK else pytest.mark.slow
    )
    for verb in (*READING, "import_from")
    for name, plant in BESIDE.items()
]


@pytest.mark.parametrize(("verb", "plant"), CASES)
def test_reading_changes_nothing_beside_a_dataset(
    verb: str, plant: Callable[[Path, Path], object], plain: Path, victim: Path, tmp_path: Path, command: Command
) -> None:
    for name in ("set", "set.beam_cifar"):
        shutil.copytree(plain / name, tmp_path / name)
    plant(tmp_path / "set.beam_cifar", victim)
    before = everything(tmp_path / "set.beam_cifar"), everything(tmp_path / "home")
    if verb == "import_from":
        assert len(Dataset.import_from(tmp_path / "set")) == 2
    else:
        code, out, err = command(*READING[verb](str(tmp_path / "set")))
        assert code == 0 or (verb == "report" and code == 3 and "manifest.json: " in err), err
        assert VICTIM.decode().strip() not in out + err
    assert (everything(tmp_path / "set.beam_cifar"), everything(tmp_path / "home")) == before
    page = tmp_path / "set.html"
    assert not page.exists() or VICTIM.decode().strip() not in page.read_text()


ASIDE: dict[str, tuple[Callable[[Path], object], bool]] = {
    "this user's job": (lambda folder: None, True),
    "another user": (chown, False),
    "anybody": (lambda folder: folder.chmod(0o777), False),
    "another user, in part": (lambda folder: chown(next(folder.glob("work-*"))), False),
    "an archive": (from_archive, False),
    "nobody knows": (lambda folder: next(folder.glob("work-*/begun.json")).unlink(), False),
    "a job, and somebody": (lambda folder: (folder / "manifest.json").symlink_to("/etc/passwd"), False),
}


@pytest.mark.parametrize("who", ASIDE)
def test_reading_restores_only_what_a_job_of_this_user_set_aside(who: str, plain: Path, tmp_path: Path) -> None:
    set_aside(plain / "in", tmp_path / "set")
    plant, restores = ASIDE[who]
    plant(tmp_path / "set.beam_cifar")
    before = everything(tmp_path / "set.beam_cifar")
    if restores:
        assert len(Dataset.import_from(tmp_path / "set")) == 2
    else:
        with pytest.raises(InputError, match="no such file or directory"):
            Dataset.import_from(tmp_path / "set")
        after = everything(tmp_path / "set.beam_cifar")
        if who == "a job, and somebody":  # a user may take, and remove, the lock of an own job that was killed
            own = {str(tmp_path / "set.beam_cifar"), str(tmp_path / "set.beam_cifar" / "lock")}
            before, after = ({path: each[path] for path in each.keys() - own} for each in (before, after))
        assert after == before


@pytest.mark.parametrize("plant", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("verb", ["convert", "overwrite", "resume", "clean"])
def test_writing_follows_nothing_beside_an_output(
    plant: Callable[[Path, Path], object], verb: str, plain: Path, victim: Path, tmp_path: Path
) -> None:
    """Refused in one line, or done; never a change of what is elsewhere."""
    for name in ("set", "set.beam_cifar"):
        shutil.copytree(plain / name, tmp_path / name)
    plant(tmp_path / "set.beam_cifar", victim)
    before = everything(tmp_path / "home")
    with suppress(BeamCifarError):
        if verb == "clean":
            clean(str(tmp_path / "set"))
        else:
            quickly(plain / "in", tmp_path / "set", overwrite=verb == "overwrite", resume=verb == "resume")
    left = everything(tmp_path / "home")
    assert {path: facts[:4] for path, facts in left.items()} == {path: facts[:4] for path, facts in before.items()}
    assert victim.read_bytes() == VICTIM
