"""A run's permission to write: whoever is left of a job that ended can never write again, whatever jobs follow."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from beam_cifar import storage
from beam_cifar.errors import JobError


def staged(place: Path, guard: storage.Guard) -> storage.StagedFile:
    return storage.StagedFile(str(place / "out" / "file"), str(place / "scratch"), guard)


def folder_of(place: Path, guard: storage.Guard) -> storage.StagedFolder:
    return storage.StagedFolder(str(place / "out"), str(place / "listing"), str(place / "scratch"), guard)


def link(place: Path, guard: storage.Guard) -> Callable[[], object]:
    (place / "source").write_bytes(b"old")
    return lambda: storage.stage_link(str(place / "source"), str(place / "out" / "link"), str(place / "scratch"), guard)


def publish(place: Path, guard: storage.Guard) -> Callable[[], object]:
    folder = storage.JobFolder(str(place / "out"), "job", run=guard.run)
    Path(folder.tree).mkdir(parents=True)
    return lambda: storage.publish_tree(folder, b"{}", overwrite=False)


WRITES: dict[str, Callable[[Path, storage.Guard], Callable[[], object]]] = {
    "opening a file": lambda place, guard: lambda: staged(place, guard),
    "writing to a file": lambda place, guard: partial(staged(place, guard).write, b"new"),
    "committing a file": lambda place, guard: staged(place, guard).commit,
    "opening a folder": lambda place, guard: lambda: folder_of(place, guard),
    "adding to a folder": lambda place, guard: partial(folder_of(place, guard).add, [("a", "b.png", b"new", {})]),
    "committing a folder": lambda place, guard: folder_of(place, guard).commit,
    "linking a file": link,
    "publishing": publish,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_run_that_ended_never_writes_again_and_others_do(
    write: Callable[[Path, storage.Guard], Callable[[], object]], tmp_path: Path
) -> None:
    old, new, other = (storage.Guard(run=uuid.uuid4().hex) for _ in range(3))
    (tmp_path / "old").mkdir()
    late = write(tmp_path / "old", pickle.loads(pickle.dumps(old)))
    old.end()
    before = sorted(tmp_path.rglob("*"))
    for guard in (new, other):
        (tmp_path / guard.run).mkdir()
        write(tmp_path / guard.run, guard)()
        guard.end()
        with pytest.raises(JobError, match="interrupted"):
            late()
    assert sorted((tmp_path / "old").rglob("*")) == [path for path in before if path != tmp_path / "old"]


def test_a_run_ends_when_its_last_write_is_done() -> None:
    guard, other = storage.Guard(run="one"), storage.Guard(run="two")
    inside, leave = threading.Event(), threading.Event()
    steps = []

    def write() -> None:
        with guard.writing():
            inside.set()
            leave.wait()
            steps.append("written")

    def end() -> None:
        guard.end()
        steps.append("ended")

    writer, ender = threading.Thread(target=write), threading.Thread(target=end)
    writer.start()
    inside.wait()
    with other.writing():
        ender.start()
        while True:  # until `end` has begun: from then on nothing new is written
            try:
                guard.refuse_ended()
            except JobError:
                break
        leave.set()
        ender.join()
    writer.join()
    assert steps == ["written", "ended"]


def test_files_of_no_job_are_always_written(tmp_path: Path) -> None:
    storage.Guard().end()
    storage.write_whole(str(tmp_path / "file"), b"content", str(tmp_path))
    assert (tmp_path / "file").read_bytes() == b"content"
