"""Steps that move items to other subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from beam_cifar.data.arrays import Int64Array
from beam_cifar.data.row_table import View
from beam_cifar.naming.subsets import subsets_meant
from beam_cifar.steps.base import Step, StepContext, option, pair, share
from beam_cifar.steps.chance import keys, permutation, seed_option

Splits = Sequence[tuple[str, float]]

_ROUNDING = 1e-9
"""Tolerance of a ratio times a count: how far below an integer the product may be and still count as it."""


def _splits_option(*default: tuple[str, float]) -> Any:
    about = "name and ratio of a subset; all ratios must sum to 1"
    return option("-s", "--subset", many=True, default=default, parse=share, metavar="NAME:RATIO", help=about)


class _Moving(Step, columns=("id", "filename")):
    """A step that may move items from several subsets into one, where their ids must differ."""

    moves_ids: ClassVar[bool] = True


@dataclass(frozen=True)
class MapSubsets(_Moving, named="map_subsets"):
    """Renames subsets, all at once; subsets given the same name are merged."""

    mapping: tuple[tuple[str, str], ...] = option(
        "-s", "--subset", many=True, parse=pair, metavar="SRC:DST", help="rename a subset; an empty DST means 'default'"
    )

    def check(self) -> None:
        refuse_two_targets(self, self.mapping)

    def apply(self, view: View, context: StepContext) -> View:
        targets: dict[str, str] = {}
        for source, target in sorted(self.mapping, key=lambda each: each[0] in view.subset_names):
            targets |= dict.fromkeys(subsets_meant(source, view.subset_names), target)
        names = [targets.get(name, name) or "default" for name in view.subset_names]
        return view.with_subsets(view.subsets, names)


@dataclass(frozen=True)
class RandomSplit(_Moving, named="random_split"):
    """Splits all items into new subsets at random, whatever their subset was; their order does not change."""

    splits: tuple[tuple[str, float], ...] = _splits_option(("train", 0.67), ("test", 0.33))
    seed: int = seed_option()

    def check(self) -> None:
        check_splits(self, self.splits)

    def apply(self, view: View, context: StepContext) -> View:
        subsets = np.empty(len(view), dtype=np.int32)
        sizes = split_sizes(len(view), self.splits)
        subsets[permutation(self.seed, self.name, len(view))] = np.repeat(np.arange(len(sizes)), sizes)
        return replace(view, subsets=subsets, subset_names=tuple(name for name, _ in self.splits))


@dataclass(frozen=True)
class Split(_Moving, named="split"):
    """Splits all items into new subsets at random, with the same ratios in every class; their order does not change.

    Every class and every subset is within one item of its exact ratio. Unlabelled items are split like a class.
    """

    splits: tuple[tuple[str, float], ...] = _splits_option(("train", 0.5), ("val", 0.2), ("test", 0.3))
    seed: int = seed_option()
    task: str = option("-t", "--task", default="classification", help="kind of task; the default is the only one")

    def check(self) -> None:
        if self.task != "classification":
            reason = "items have one label each, and no boxes, masks or identities to split by"
            raise self.refuse(f"--task must be 'classification', found {self.task!r}: {reason}")
        check_splits(self, self.splits)

    def apply(self, view: View, context: StepContext) -> View:
        _, classes, counts = np.unique(view.labels, return_inverse=True, return_counts=True)
        sizes = class_sizes(counts, self.splits)
        # Class by class, and random within each.
        order = np.lexsort((keys(self.seed, self.name, len(view)), classes.reshape(-1)))
        subsets = np.empty(len(view), dtype=np.int32)
        subsets[order] = np.repeat(np.tile(np.arange(len(self.splits)), len(counts)), sizes.reshape(-1))
        return replace(view, subsets=subsets, subset_names=tuple(name for name, _ in self.splits))


def refuse_two_targets(step: Step, mapping: Sequence[tuple[str, str]]) -> None:
    """Refuses a mapping that gives one name two new names. Raises `UsageError`."""
    targets: dict[str, str] = {}
    for source, target in mapping:
        if targets.setdefault(source, target) != target:
            raise step.refuse(f"{source!r} is given two new names, {targets[source]!r} and {target!r}")


def check_splits(step: Step, splits: Splits) -> None:
    """Refuses invalid subset names and ratios. Raises `UsageError`."""
    names = [name for name, _ in splits]
    for at, (name, part) in enumerate(splits):
        if not name:
            raise step.refuse(f"the subset with ratio {part} has no name; expected NAME:RATIO")
        if name in names[:at]:
            raise step.refuse(f"subset {name!r} is given twice")
        if not 0 <= part <= 1:
            raise step.refuse(f"the ratio of subset {name!r} must be from 0 to 1, found {part}")
    total = sum(part for _, part in splits)
    if abs(total - 1) > 1e-7:
        raise step.refuse(f"ratios must sum to 1, found {total:.9g}: {splits_text(splits)}")


def splits_text(splits: Splits) -> str:
    """The splits in command-line form."""
    return ", ".join(f"{name}:{part:g}" for name, part in splits) or "none"


def split_sizes(count: int, splits: Splits) -> Int64Array:
    """Rows of each split, int64 `[S]`: any first few together get their joint ratio of `count`, rounded down."""
    ends = np.floor(_ends(splits) * count + _ROUNDING).astype(np.int64)
    return np.diff(ends, prepend=0)


def class_sizes(counts: Int64Array, splits: Splits) -> Int64Array:
    """Rows of each class and split: int64 `[C, S]`.

    Each is its ratio of the class, rounded down, or one more; the totals of the splits are those of `split_sizes`. Rows
    left over by rounding down go, class by class, to the splits that lack most, at most one row of a class to each.
    This works out for any 0/1 matrix with given row and column sums (H. J. Ryser, "Combinatorial properties of
    matrices of zeros and ones", 1957).

    Args:
        counts: int64 `[C]`, rows of each class.
        splits: names and ratios.
    """
    exact = counts[:, None] * np.diff(_ends(splits), prepend=0)
    sizes: Int64Array = np.floor(exact + _ROUNDING).astype(np.int64)
    lacking = split_sizes(int(counts.sum()), splits) - sizes.sum(axis=0)
    remainders = (exact - sizes).round(9)
    for row, left in enumerate(counts - sizes.sum(axis=1)):
        # Ties go to the split that lost most of this class to rounding.
        chosen = np.lexsort((-remainders[row], -lacking))[:left]
        sizes[row, chosen] += 1
        lacking[chosen] -= 1
    return sizes


def _ends(splits: Splits) -> npt.NDArray[np.float64]:
    """The cumulative ratio at the end of each split, float64 `[S]`; the last one is 1."""
    ends = np.cumsum([part for _, part in splits])
    # A sum of floats such as 0.1 ten times is a little less than 1, and would lose the last row.
    ends[-1:] = 1
    return ends
