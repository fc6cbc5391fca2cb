"""Counts and duplicates, derived from the tallies of a dataset: pure functions on columns of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_cifar.analysis.tally import ENCODINGS, EXAMPLES, Rows
from beam_cifar.data.arrays import BoolArray, Int64Array
from beam_cifar.data.block import MAX_ROWS, BadRow
from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.formats.contract.types import Catalog, FileSummary
from beam_cifar.formats.registry import get_source

_CELLS = 1 << 20


@dataclass(frozen=True)
class Measured:
    """The measurements of a dataset after reading it once. Ids are available only inside `reading.measured`.

    Attributes:
        catalog: files and label table, as found.
        labels: the label table, with all superclasses found in the rows.
        summaries: summaries of the readable files, in order.
        rows: `beam_cifar.analysis.tally.ROW` `[N]`, by file and row.
        histograms: int64 `[S, 3, 256]`, how often R, G and B have each value in each subset.
        totals: for each subset, the order-independent sum of the digests of its items, modulo 2^128.
        rejected: the first unreadable rows.
        rejected_count: number of unreadable rows.
        broken: for each unreadable file, the reason.
        listed: how many examples of each kind to list.
    """

    catalog: Catalog
    labels: LabelTable
    summaries: tuple[FileSummary, ...]
    rows: Rows
    histograms: Int64Array
    totals: tuple[int, ...]
    rejected: tuple[BadRow, ...] = ()
    rejected_count: int = 0
    broken: tuple[str, ...] = ()
    listed: int = EXAMPLES

    @cached_property
    def subset_names(self) -> tuple[str, ...]:
        """Names of the subsets, in the order of the files."""
        return numbered_subsets(self.summaries)[0]

    @cached_property
    def subsets(self) -> Int64Array:
        """The index of the subset of each row: int64 `[N]`."""
        subsets: Int64Array = numbered_subsets(self.summaries)[1][self.rows["file"]]
        return subsets

    @property
    def pictured(self) -> BoolArray:
        """Which rows have an image: bool `[N]`."""
        return np.asarray(self.rows["channels"] > 0)

    def ids(self, positions: Sequence[int]) -> list[str]:
        """Returns the ids of the rows at some positions."""
        found: dict[int, str] = {}
        source = get_source(self.catalog.format)
        # Grouped by file, because opening one may mean unpacking it, and there by block, since there may be thousands.
        for file, members in by_key((int(self.rows["file"][at]), at) for at in dict.fromkeys(positions)).items():
            with source.open_rows(self.summaries[file].file, self.labels) as rows:
                numbers = ((int(self.rows["row"][at]), at) for at in members)
                for block in by_key((row // MAX_ROWS, (row, at)) for row, at in numbers).values():
                    first, last = min(block)[0], max(block)[0]
                    ids = rows.facts(first, last + 1, sizes=False).column("id")
                    found |= {at: ids[row - first].as_py() for row, at in block}
        return [found[at] for at in positions]

    def first_groups(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], int]]:
        """Yields the first rows of the first groups to list, and how many rows each group has altogether.

        There are no more groups once ten times as many rows are listed.
        """
        rows = 0
        for group in islice(groups, self.listed):
            yield group[: self.listed], len(group)
            rows += min(len(group), self.listed)
            if rows >= self.listed * EXAMPLES:
                return

    def class_counts(self) -> list[tuple[str, int]]:
        """Returns each class with its number of rows, in the order of the label table."""
        return list(zip(self.labels.names, rows_by_label(self.rows["label"], len(self.labels.names)), strict=False))

    def class_name(self, at: int) -> str | None:
        """Returns the class name of the row at a position; None without a label."""
        return self.labels.name(int(self.rows["label"][at]))


def numbered_subsets(summaries: Sequence[FileSummary]) -> tuple[tuple[str, ...], Int64Array]:
    """Returns the names of all subsets, in the order of the files, and the subset index of each file: int64 `[F]`."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(summary.file.subset, len(numbers)) for summary in summaries]
    return tuple(numbers), np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class Repeats:
    """Groups of rows with the same image, in the order of their first rows.

    Arguments of methods cover all rows of the dataset: `labels` `[N]` and `subsets`, int64 `[N]`.

    Attributes:
        positions: int64 `[M]`, positions of the rows, ascending within a group.
        starts: int64 `[G + 1]`, where each group starts in `positions`, and M.
    """

    positions: Int64Array
    starts: Int64Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    def group(self, number: int) -> list[int]:
        """Returns the positions of the rows of one group."""
        found: list[int] = self.positions[self.starts[number] : self.starts[number + 1]].tolist()
        return found

    @property
    def groups(self) -> Int64Array:
        """The group of each row: int64 `[M]`."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def conflicting(self, labels: npt.NDArray[Any]) -> Int64Array:
        """Returns the groups with different labels, ignoring unlabelled rows: int64, ascending."""
        found = labels[self.positions]
        return self._with_different(found, found != UNLABELLED)

    def leaking(self, subsets: Int64Array) -> Int64Array:
        """Returns the groups with rows of different subsets: int64, ascending."""
        found = subsets[self.positions]
        return self._with_different(found, np.ones(len(found), dtype=np.bool_))

    def within(self, subsets: Int64Array) -> Int64Array:
        """Returns the groups with several rows in one subset: int64, ascending."""
        pairs = np.stack([self.groups, subsets[self.positions]])
        found, counts = np.unique(pairs, axis=1, return_counts=True)
        return np.unique(found[0][counts > 1])

    def _with_different(self, values: npt.NDArray[Any], which: BoolArray) -> Int64Array:
        """Returns the groups with different values among the rows selected by `which`, bool `[M]`."""
        found, groups = values[which], self.groups[which]
        differs = (groups[1:] == groups[:-1]) & (found[1:] != found[:-1])
        return np.unique(groups[1:][differs])

    def shared(self, subsets: Int64Array, count: int) -> Int64Array:
        """Counts rows of subset j with an image also in subset i, of `count`: int64 `[S, S]`; diagonal: repeats."""
        made = np.zeros((count, count), dtype=np.int64)
        members = subsets[self.positions]
        # Some groups at a time: a table for all would have groups x subsets cells, millions times hundreds.
        step = max(1, _CELLS // max(1, count))
        for start in range(0, len(self), step):
            first, last = self.starts[start], self.starts[min(start + step, len(self))]
            met = np.zeros((min(step, len(self) - start), count), dtype=np.int64)
            # Not `met[...] += 1`, which adds 1 only once to a cell that occurs several times.
            np.add.at(met, (self.groups[first:last] - start, members[first:last]), 1)
            made += (met > 0).astype(np.int64).T @ met
            made[np.diag_indices(count)] -= (met > 0).sum(axis=0)
        return made


def repeats_of(rows: Rows) -> Repeats:
    """Finds the groups of rows with the same image, from `ROW` `[N]`."""
    pictured = np.flatnonzero(rows["channels"] > 0)
    halves = rows["digest"][pictured].T
    order = np.lexsort(halves)  # stable: rows with the same image stay in order
    same = np.logical_and.reduce([half[order][1:] == half[order][:-1] for half in halves])
    starts = np.concatenate([[True], ~same])[: len(order)]
    ends = np.concatenate([~same, [True]])[: len(order)]
    met = ~(starts & ends)
    positions, groups = pictured[order][met], np.cumsum(starts[met]) - 1
    if not len(positions):
        return Repeats(positions, np.zeros(1, dtype=np.int64))
    firsts = positions[starts[met]]
    place = np.empty(len(firsts), dtype=np.int64)
    place[np.argsort(firsts)] = np.arange(len(firsts))
    by = np.argsort(place[groups], kind="stable")
    counts = np.bincount(place[groups])
    return Repeats(positions[by], np.concatenate([[0], np.cumsum(counts)]))


def rows_by_label(labels: npt.NDArray[Any], classes: int) -> list[int]:
    """Returns the number of rows of each class, and finally of the unlabelled rows."""
    counted = np.bincount(labels.astype(np.int64) + 1, minlength=classes + 1).tolist()
    return [*counted[1:], counted[0]]


def size_counts(rows: Rows) -> list[tuple[int, int, int]]:
    """Returns (height, width, images) of each size found, ascending."""
    pictured = rows[rows["channels"] > 0]
    # Both sides packed into one number: `np.unique` is slow on rows of two columns.
    sizes = pictured["height"].astype(np.int64) << 32 | pictured["width"]
    found, counts = np.unique(sizes, return_counts=True)
    return [(size >> 32, size & 0xFFFFFFFF, n) for size, n in zip(found.tolist(), counts.tolist(), strict=True)]


def encoding_counts(rows: Rows) -> dict[str, int]:
    """Returns the number of images of each encoding found."""
    counts = np.bincount(rows["encoding"][rows["channels"] > 0], minlength=len(ENCODINGS)).tolist()
    return {name: n for name, n in zip(ENCODINGS, counts, strict=True) if n}


def channel_counts(rows: Rows) -> dict[str, int]:
    """Returns the number of images of each channel count found."""
    found, counts = np.unique(rows["channels"][rows["channels"] > 0], return_counts=True)
    return {str(channels): n for channels, n in zip(found.tolist(), counts.tolist(), strict=True)}
