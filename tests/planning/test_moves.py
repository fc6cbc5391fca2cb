"""When rows are moved before they are written, and where to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from beam_cifar.data.labels import LabelTable
from beam_cifar.data.row_table import View
from beam_cifar.formats.contract.types import DIRECT, SEQUENTIAL, FileSummary, RowAccess, SourceFile
from beam_cifar.planning import moves
from beam_cifar.planning.cut import reading_tasks
from beam_cifar.planning.moves import bucket, bucket_ends, rereads
from beam_cifar.planning.plan import ChosenRows, Moves, Segment, Task
from beam_cifar.storage import Blob

GROUPS = RowAccess(tuple(range(0, 6000, 500)))
BYTES = 1000


def summary(access: RowAccess, rows: int = 6000) -> FileSummary:
    file = SourceFile("a", "train", "a", Blob("a", 0, 1, (1, 1, 1)))
    chunks = tuple({0: min(1000, rows - at)} for at in range(0, rows, 1000))
    return FileSummary(file, rows, chunks, rows, rows * BYTES, 0, None, access=access)


def chosen(*parts: np.ndarray, files: int = 1, rows: int = 6000) -> ChosenRows:
    none = np.zeros(files * rows, dtype=np.int32)
    numbers = np.tile(np.arange(rows, dtype=np.int32), files)
    view = View(
        files=np.repeat(np.arange(files, dtype=np.int32), rows),
        rows=numbers,
        labels=none,
        subsets=none,
        subset_names=("train",),
        table=LabelTable(("cat",)),
    )
    return ChosenRows(view, parts)


def in_parts(order: np.ndarray, rows: int = 500) -> list[np.ndarray]:
    return np.split(order, range(rows, len(order), rows))


def moves_of(parts: Sequence[np.ndarray], *accesses: RowAccess, written: Collection[int] | None = None) -> Moves:
    rows = chosen(*parts, files=len(accesses))
    written = range(len(parts)) if written is None else written
    return moves.moves_of(rows, written, [summary(access) for access in accesses], [BYTES] * len(accesses))


SHUFFLED = np.random.default_rng(1).permutation(6000)


def test_buckets_follow_each_other_and_hold_so_many_bytes() -> None:
    files = np.array([0, 0, 1, 1, 0, 0], dtype=np.int32)
    assert bucket_ends(files, [40, 60], 100).tolist() == [3, 4, 6]
    assert bucket_ends(files, [1000, 1000], 100).tolist() == [1, 2, 3, 4, 5, 6]
    assert bucket_ends(files[:0], [40, 60], 100).tolist() == []


@pytest.mark.parametrize(
    ("access", "order", "moved"),
    [
        (DIRECT, SHUFFLED, False),
        (GROUPS, SHUFFLED, True),
        (SEQUENTIAL, SHUFFLED, True),
        (GROUPS, np.arange(6000), False),  # each part reads a group of its own
        (GROUPS, np.arange(6000)[::2], False),
        (SEQUENTIAL, np.arange(6000), True),  # each part reads all rows before its own
        (GROUPS, np.arange(6000).reshape(12, 500).T.ravel(), True),
    ],
)
def test_rows_are_moved_where_parts_would_read_others_rows_again(
    access: RowAccess, order: np.ndarray, moved: bool
) -> None:
    assert bool(moves_of(in_parts(order), access).spills) is moved


def test_every_row_is_moved_once_to_the_part_that_writes_it() -> None:
    parts = in_parts(SHUFFLED)
    with mock.patch.object(moves, "SPILL_BYTES", 1_000_000), mock.patch.object(moves, "BUCKET_BYTES", 100_000):
        found = moves_of(parts, GROUPS)
    assert sum(spill.rows for spill in found.spills) == len(found.rows) == 6000
    assert [spill.number for spill in found.spills] == [0, 1, 2, 3, 4, 5]  # whole groups of 500 rows, at least 910
    expected = {
        int(row): bucket(part, at // 100) for part, rows in enumerate(parts) for at, row in enumerate(rows.tolist())
    }
    start = 0
    for spill, batch in zip(found.spills, found.batches(), strict=True):
        rows = batch.column("row").to_numpy()
        assert (np.diff(rows) > 0).all()
        assert rows.tolist() == found.rows[start : start + spill.rows].tolist()
        assert batch.column("bucket").to_pylist() == [expected[row] for row in rows.tolist()]
        assert start % 500 == 0  # spills end with a group
        start += spill.rows


def test_a_row_that_is_written_twice_is_moved_twice() -> None:
    found = moves_of(in_parts(np.concatenate([SHUFFLED, SHUFFLED[:700]])), GROUPS)
    assert Counter(found.rows.tolist()) == Counter([*range(6000), *SHUFFLED[:700].tolist()])


def test_only_rows_of_files_that_need_it_are_moved() -> None:
    order = np.random.default_rng(1).permutation(12000)
    found = moves_of(in_parts(order), DIRECT, GROUPS)
    assert {spill.file for spill in found.spills} == {1}
    assert sorted(found.rows.tolist()) == list(range(6000))


def test_files_that_are_read_once_stay_where_they_are() -> None:
    order = np.concatenate([np.arange(6000), 6000 + SHUFFLED])
    found = moves_of(in_parts(order), GROUPS, GROUPS)
    assert {spill.file for spill in found.spills} == {1}
    assert len(found.rows) == 6000


def test_rows_of_parts_that_are_copied_are_not_moved() -> None:
    found = moves_of(in_parts(SHUFFLED), GROUPS, written={1, 3, 4})
    assert sorted(found.rows) == sorted(np.concatenate([in_parts(SHUFFLED)[part] for part in (1, 3, 4)]))
    assert {key >> 32 for key in found.buckets.tolist()} == {1, 3, 4}
    assert not moves_of(in_parts(SHUFFLED), GROUPS, written=()).spills


def test_rows_of_a_bucket_are_limited_where_images_seem_small() -> None:
    files = np.zeros(40_000, dtype=np.int32)
    assert bucket_ends(files, [3], 16 << 20).tolist() == [16_009, 32_018, 40_000]


def test_a_plan_by_counts_says_whether_its_tasks_read_rows_again() -> None:
    def tasks(rows: int) -> list[Task]:
        return [Task(0, at, rows, (Segment(0, at * rows, at * rows + rows, 0, rows),)) for at in range(6000 // rows)]

    assert not rereads(tasks(500), [summary(GROUPS)])
    assert not rereads(tasks(1000), [summary(GROUPS)])
    assert not rereads(tasks(500), [summary(DIRECT)])
    assert rereads(tasks(500), [summary(SEQUENTIAL)])
    assert not rereads(tasks(6000), [summary(SEQUENTIAL)])
    assert not rereads([replace(task, copy=True) for task in tasks(500)], [summary(SEQUENTIAL)])


@pytest.mark.parametrize(
    ("starts", "cuts"),
    [
        ((), [0, 2000, 4000, 6000, 8000]),
        (tuple(range(0, 9500, 500)), [0, 2000, 4000, 6000, 8000]),
        (tuple(range(0, 9500, 3000)), [0, 3000, 6000, 9000]),
        ((0, 4300), [0, 5000]),
        ((0,), [0]),
    ],
)
def test_tasks_that_only_read_start_near_a_group(starts: tuple[int, ...], cuts: list[int]) -> None:
    with mock.patch("beam_cifar.planning.cut.READ_BYTES", 2000 * BYTES):
        tasks = reading_tasks([summary(RowAccess(starts), 9500)])
    assert [task.segments[0].start for task in tasks] == cuts
    assert [task.segments[0].stop for task in tasks] == [*cuts[1:], 9500]
    assert sum(task.rows for task in tasks) == 9500
