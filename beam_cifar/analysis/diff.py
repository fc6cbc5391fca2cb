"""Compares two datasets of any format and lists their differences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from beam_cifar.analysis.derive import Measured
from beam_cifar.analysis.pairing import Keys, match
from beam_cifar.analysis.reading import measured
from beam_cifar.analysis.tally import MODULUS, Asked
from beam_cifar.data.arrays import BoolArray, Int64Array
from beam_cifar.data.labels import LabelTable
from beam_cifar.naming.subsets import split_name
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import BeamOptions

_T = TypeVar("_T")

MAX_LISTED = 10
"""Rows listed for each kind of difference."""
EVERYTHING = "(all)"
"""The name of the subset when all rows are compared together."""


@dataclass(frozen=True)
class Row:
    """One row of one side.

    Attributes:
        subset: name of the subset on that side.
        id: id of the item.
        label: class name; None without a label.
    """

    subset: str
    id: str
    label: str | None


@dataclass(frozen=True)
class Change:
    """A row of A and the row of B that it is compared with.

    Attributes:
        a: the row of A.
        b: the row of B.
        before: the value in A, as text.
        after: the value in B.
    """

    a: Row
    b: Row
    before: str
    after: str


@dataclass(frozen=True)
class Listed(Generic[_T]):
    """Rows found on one side only (`Row`), or rows of both sides that differ in one way (`Change`).

    Attributes:
        count: number of rows.
        first: the first `MAX_LISTED` of them.
    """

    count: int = 0
    first: tuple[_T, ...] = ()


@dataclass(frozen=True)
class SubsetComparison:
    """One subset of both sides. Rows that differ in several ways are in several of the lists.

    Attributes:
        name: name of the subset, or of the split if subsets are compared by split; `EVERYTHING` for all rows together.
        rows: number of rows in A and in B.
        digests: digests of A and B: 128 bits, hex, independent of the order of items.
        only_a: rows of A without a counterpart in B.
        only_b: rows of B without a counterpart in A.
        labels: rows with the same pixels, or else the same id, whose classes differ.
        pixels: rows with the same id and size whose pixels differ.
        sizes: rows with the same id whose sizes differ, or only one of which has an image.
        ids: rows with the same pixels whose ids differ, if ids are compared.
    """

    name: str
    rows: tuple[int, int]
    digests: tuple[str, str]
    only_a: Listed[Row] = Listed()
    only_b: Listed[Row] = Listed()
    labels: Listed[Change] = Listed()
    pixels: Listed[Change] = Listed()
    sizes: Listed[Change] = Listed()
    ids: Listed[Change] = Listed()

    @property
    def equal(self) -> bool:
        """Whether both sides have the same items."""
        return self.rows[0] == self.rows[1] and self.digests[0] == self.digests[1]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two datasets.

    Attributes:
        a: absolute path of the first.
        b: absolute path of the second.
        subsets: the comparison of each subset.
        tables: differences between the label tables, one line each.
        notices: differences that do not matter, and how subsets were compared.

    >>> from beam_cifar import compare
    >>> compare("cifar10", "cifar10").equal
    True
    """

    a: str
    b: str
    subsets: tuple[SubsetComparison, ...]
    tables: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def rows_equal(self) -> bool:
        """Whether all subsets have the same items."""
        return all(subset.equal for subset in self.subsets)

    @property
    def equal(self) -> bool:
        """Whether items and label tables are the same."""
        return self.rows_equal and not self.tables


def compare(
    a: str | os.PathLike[str] | Input,
    b: str | os.PathLike[str] | Input,
    *,
    ids: bool = False,
    whole: bool = False,
    workers: int | None = None,
    beam_options: BeamOptions = (),
) -> Comparison:
    """Compares two datasets by pixels, sizes and class names; the order of rows does not matter, nor the format.

    Args:
        a: path of a directory or archive, or an `Input`, which also has a format and subsets.
        b: the same for the other dataset.
        ids: also compare ids.
        whole: compare all rows together, ignoring subsets.
        workers: number of local workers; chosen automatically if None.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.

    Raises:
        BeamCifarError: a dataset cannot be read; the message is one line.

    >>> from beam_cifar import ConvertOptions, compare, convert
    >>> _ = convert(ConvertOptions("cifar10", "out", "parquet"))
    >>> compare("cifar10", "out").equal
    True
    """
    asked = Asked(ids=True, ids_count=ids)
    first, second = (each if isinstance(each, Input) else Input(os.fspath(each)) for each in (a, b))
    with (
        measured(first, asked, workers=workers, beam_options=beam_options) as found,
        measured(second, asked, workers=workers, beam_options=beam_options) as other,
    ):
        return compared(found, other, ids=ids, whole=whole)


def compared(a: Measured, b: Measured, *, ids: bool = False, whole: bool = False) -> Comparison:
    """Compares measured datasets, whose tallies have digests of ids, and include ids in item digests if `ids`."""
    pairs, notices = _subset_pairs(a, b, whole=whole)
    tables, unused = _table_differences(a, b)
    return Comparison(
        a=a.catalog.path,
        b=b.catalog.path,
        subsets=tuple(_compared(name, _Side(a, mine), _Side(b, theirs), ids=ids) for name, mine, theirs in pairs),
        tables=tuple(tables),
        notices=(*notices, *unused),
    )


def _subset_pairs(a: Measured, b: Measured, *, whole: bool) -> tuple[list[tuple[str, set[int], set[int]]], list[str]]:
    """Returns the subsets to compare, as (name, indices in A, indices in B), and notices."""
    sides = [{m.subset_names[subset]: {subset} for subset in np.unique(m.subsets).tolist()} for m in (a, b)]
    if whole:
        everything = [set().union(*side.values()) for side in sides]
        return [(EVERYTHING, everything[0], everything[1])], []
    notices = []
    if set(sides[0]) != set(sides[1]):
        folded = [_folded(side) for side in sides]
        if folded != sides:
            found = " and ".join(", ".join(side) or "none" for side in sides)
            notices.append(f"subsets are compared by split, because their names differ: {found}")
        sides = folded
        if set(folded[0]) != set(folded[1]):
            notices.append("some subsets are only on one side; compare all rows together with --whole")
    names = dict.fromkeys((*sides[0], *sides[1]))
    return [(name, sides[0].get(name, set()), sides[1].get(name, set())) for name in names], notices


def _folded(side: dict[str, set[int]]) -> dict[str, set[int]]:
    made: dict[str, set[int]] = {}
    for name, indices in side.items():
        made.setdefault(split_name(name), set()).update(indices)
    return made


class _Side:
    """One or more subsets of one side, compared as one."""

    def __init__(self, measured: Measured, subsets: set[int]) -> None:
        self._measured = measured
        self._positions = np.flatnonzero(np.isin(measured.subsets, sorted(subsets)))
        self.digest = sum(measured.totals[subset] for subset in subsets) % MODULUS

    def __len__(self) -> int:
        return len(self._positions)

    def keys(self, numbers: dict[str | None, int]) -> Keys:
        """Returns the keys by which rows are compared.

        Args:
            numbers: number of each class name, shared by both sides; new names are added.
        """
        everything = self._measured.rows
        rows = everything if len(self) == len(everything) else everything[self._positions]
        # An unlabelled row has label -1, which indexes the last entry.
        classes = [numbers.setdefault(name, len(numbers)) for name in (*self._measured.labels.names, None)]
        return {
            "image": (rows["digest"][:, 0], rows["digest"][:, 1], rows["channels"] > 0),
            "size": (rows["height"], rows["width"]),
            "class": (np.array(classes, dtype=np.int64)[rows["label"]],),
            "id": (rows["id"],),
        }

    def rows(self, which: Int64Array) -> list[Row]:
        """Returns some of its rows."""
        positions = self._positions[which].tolist()
        names, subsets = self._measured.subset_names, self._measured.subsets
        return [
            Row(names[subsets[at]], item_id, self._measured.class_name(at))
            for at, item_id in zip(positions, self._measured.ids(positions), strict=True)
        ]

    def with_words(self, which: Int64Array, what: str) -> tuple[list[Row], list[str]]:
        """Returns some of its rows, and as text their value of one of the `keys`."""
        found, numbers = self.rows(which), self._measured.rows[self._positions[which]]
        if what == "size":
            return found, [f"{row['height']} x {row['width']}" if row["channels"] else "no image" for row in numbers]
        if what == "image":
            return found, [row["digest"].tobytes().hex() for row in numbers]
        if what == "id":
            return found, [row.id for row in found]
        return found, ["no label" if row.label is None else row.label for row in found]


def _compared(name: str, a: _Side, b: _Side, *, ids: bool) -> SubsetComparison:
    """Sets equal rows aside, pairs similar rows of the rest, and lists how these differ."""
    made = SubsetComparison(name, (len(a), len(b)), (f"{a.digest:032x}", f"{b.digest:032x}"))
    if made.equal:
        return made
    numbers: dict[str | None, int] = {}
    keys = a.keys(numbers), b.keys(numbers)
    left = np.arange(len(a)), np.arange(len(b))
    # Among rows with equal pixels and class, those with the same id are matched first.
    for same in (("image", "class", "id"), ("image", "class"))[: 1 if ids else 2]:
        _, left = match(keys, left, same)
    pairs = []
    for alike in (("image", "id"), ("image",), ("id",)):
        found, left = match(keys, left, alike, pictured=alike == ("image",))
        pairs.append(found)
    paired = np.concatenate(pairs, axis=1)
    paired = paired[:, np.argsort(paired[0], kind="stable")]

    def differing(what: str) -> BoolArray:
        columns = zip(keys[0][what], keys[1][what], strict=True)
        return np.asarray(np.any([mine[paired[0]] != theirs[paired[1]] for mine, theirs in columns], axis=0))

    sizes = differing("size")
    return replace(
        made,
        only_a=_rows(a, left[0]),
        only_b=_rows(b, left[1]),
        labels=_changes(a, b, paired[:, differing("class")], "class"),
        pixels=_changes(a, b, paired[:, differing("image") & ~sizes], "image"),
        sizes=_changes(a, b, paired[:, sizes], "size"),
        ids=_changes(a, b, paired[:, differing("id")], "id") if ids else Listed(),
    )


def _rows(side: _Side, which: Int64Array) -> Listed[Row]:
    return Listed(len(which), tuple(side.rows(which[:MAX_LISTED])))


def _changes(a: _Side, b: _Side, pairs: Int64Array, what: str) -> Listed[Change]:
    """Lists the changes of some pairs, int64 `[2, M]`."""
    first, second = pairs[:, :MAX_LISTED]
    (rows, before), (others, after) = a.with_words(first, what), b.with_words(second, what)
    return Listed(pairs.shape[1], tuple(map(Change, rows, others, before, after)))


def _table_differences(a: Measured, b: Measured) -> tuple[list[str], list[str]]:
    """Returns the differences between two label tables, one line each, and those that do not matter."""
    differences: list[str] = []
    notices: list[str] = []
    for which, mine, theirs in (("A", a, b), ("B", b, a)):
        used, known = {name for name, count in mine.class_counts() if count}, set(theirs.labels.names)
        for name in dict.fromkeys(mine.labels.names):
            if name not in known:
                line = f"class {name!r} is only in {which}"
                (differences if name in used else notices).append(line if name in used else f"{line}, without rows")
    for what, first, second in (
        ("classes", a.labels.names, b.labels.names),
        ("superclasses", a.labels.coarse_names, b.labels.coarse_names),
    ):
        if sorted(set(first)) == sorted(first) and sorted(set(second)) == sorted(second):
            notices += _order_notices(what, first, second)
        elif sorted(first) != sorted(second):
            differences.append(f"{what}: different names repeat")
    if a.labels.has_superclasses and b.labels.has_superclasses:
        differences += _parent_differences(a.labels, b.labels)
    elif a.labels.has_superclasses or b.labels.has_superclasses:
        notices.append(f"only {'A' if a.labels.has_superclasses else 'B'} has superclasses")
    return differences, notices


def _order_notices(what: str, first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    """Reports common names in a different order, which does not matter: rows are compared by class name."""
    both = set(first) & set(second)
    mine, theirs = ([name for name in names if name in both] for names in (first, second))
    if mine != theirs:
        at = next(n for n, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
        yield f"{what} are numbered differently: {at} is {mine[at]!r} in A, {theirs[at]!r} in B"


def _parent_differences(a: LabelTable, b: LabelTable) -> Iterator[str]:
    """Reports classes whose superclass differs, ignoring superclasses that are unknown because a class has no rows."""
    theirs = dict(zip(b.names, b.parents, strict=True))
    for name, parent in zip(a.names, a.parents, strict=True):
        other = theirs.get(name)
        if parent is not None and other is not None and a.coarse_names[parent] != b.coarse_names[other]:
            yield f"class {name!r} has superclass {a.coarse_names[parent]!r} in A, {b.coarse_names[other]!r} in B"
