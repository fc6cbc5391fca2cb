"""Four times the images are four times the work, for every reader and writer, in every order.

Seconds mean nothing at this size; rows, bytes and files are counted where they are read and written. The same cases at
their usual sizes: `make bench BENCH=growth`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from beam_cifar import storage
from beam_cifar.data.block import Block
from beam_cifar.formats.registry import readable, writable
from beam_cifar.jobs import write_part
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.planning.plan import Task
from beam_cifar.storage.staging import StagedFile
from beam_cifar.storage.tar import tar_members
from tests.helpers.counted_work import Jobs, grown
from tests.helpers.growth_cases import CASES, LAYOUTS, Case

UNEVEN: dict[str, str] = {
    "read parquet, many files: half": "among many files more parts begin within a row group; as many as of all rows"
}
"""Cases whose work per image depends on where their parts begin, but is bounded: `moves.WORTH` times the rows."""


def marks(case: Case) -> list[pytest.MarkDecorator]:
    known = UNEVEN.get(case.name)
    return [pytest.mark.slow, *([pytest.mark.xfail(reason=known, raises=AssertionError, strict=True)] if known else [])]


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("case", [pytest.param(case, marks=marks(case), id=case.name) for case in CASES])
def test_the_work_per_image_does_not_grow(case: Case, jobs: Jobs, tmp_path: Path) -> None:
    once, more = jobs.growth(case, tmp_path)
    assert not grown(once, more), (once, more)


def test_every_format_is_read_and_written() -> None:
    assert {layout.partition(",")[0] for layout in LAYOUTS} == set(readable())
    assert {case.target for case in CASES if not case.reads} == set(writable())
    assert UNEVEN.keys() <= {case.name for case in CASES}


Extra = Callable[[Sequence[Task], SourceSettings, Path], object]


def read_earlier_tasks(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    for task in done:
        collections.deque(read_task(task, settings), 0)


def open_every_file(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    for file in settings.files:
        with storage.open_blob(file.blob, file.shown):
            pass


def read_every_file(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    for file in settings.files:
        with storage.open_blob(file.blob, file.shown) as stream:
            while stream.read(1 << 20):
                pass


def list_every_shard(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    for file in settings.files:
        with storage.open_blob(file.blob, file.shown) as stream:
            collections.deque(tar_members(stream, file.blob.size, file.shown), 0)


def write_earlier_rows(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    with StagedFile(str(folder / "spill"), str(folder)) as file:
        file.write(bytes(1000 * sum(task.rows for task in done)))
        file.commit()


def read_all_chosen_rows(done: Sequence[Task], settings: SourceSettings, folder: Path) -> None:
    with storage.open_file(settings.chosen) as file:
        file.read()


BROKEN: dict[str, tuple[Extra, str, set[str]]] = {
    "rows of other tasks are read": (read_earlier_tasks, "read npz: plain", {"rows", "read", "most", "opened"}),
    "row groups are decoded again": (
        read_earlier_tasks,
        "read parquet: plain",
        {"rows", "decoded", "read", "most", "opened"},
    ),
    "shards are listed again": (list_every_shard, "read webdataset: plain", {"decoded", "read", "most"}),
    "files are opened by each task": (open_every_file, "read cifar, many files: plain", {"opened"}),
    "bytes are read by each task": (read_every_file, "read cifar: plain", {"read", "most"}),
    "archives are unpacked by each task": (read_every_file, "read cifar, .tar.gz: plain", {"read", "most"}),
    "unpacked files are read by each task": (read_every_file, "read cifar, .tar.gz: shuffle", {"again"}),
    "lists of images are read by each task": (read_every_file, "read datumaro: plain", {"most", "read"}),
    "rows are written again": (write_earlier_rows, "write cifar: plain", {"written"}),
    "rows of all parts are looked at": (read_all_chosen_rows, "write cifar: shuffle", {"again"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "name", "kinds"), BROKEN.values(), ids=BROKEN)
def test_work_that_each_task_does_for_all_rows_is_seen(
    extra: Extra, name: str, kinds: set[str], jobs: Jobs, tmp_path: Path
) -> None:
    def broken() -> Any:
        done: list[Task] = []

        def with_extra_work(task: Task, settings: SourceSettings) -> Iterator[Block]:
            extra(done, settings, tmp_path)
            done.append(task)
            return read_task(task, settings)

        return with_extra_work

    case = next(case for case in CASES if case.name == name)
    works = []
    for times in (1, 4):
        jobs.source(case, times)  # made without the extra work
        with mock.patch.object(write_part, "read_task", broken()):
            works.append(jobs.work(case, times, tmp_path))
    assert kinds <= grown(*works).keys(), works
