"""Pairs the rows of two datasets by equal keys: pure functions on columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from beam_cifar.data.arrays import Int64Array

Keys: TypeAlias = Mapping[str, tuple[npt.NDArray[Any], ...]]
"""Columns `[N]` by name; the first of each is a digest, and the last of "image" says whether a row has one."""
PART_ROWS = 1 << 16
"""Rows of each side compared at a time, approximately: comparing takes ten times their memory."""


def match(
    keys: tuple[Keys, Keys], left: tuple[Int64Array, Int64Array], by: Sequence[str], *, pictured: bool = False
) -> tuple[Int64Array, tuple[Int64Array, Int64Array]]:
    """Pairs rows with equal keys, the n-th of one side with the n-th of the other.

    Args:
        keys: the keys of both sides.
        left: positions of the unpaired rows of each side, ascending.
        by: names of the keys that must be equal, "image" or "id" first.
        pictured: pair only rows with an image.

    Returns:
        The positions of the rows of each pair, int64 `[2, M]`, and the positions still unpaired, ascending.
    """
    sides = [which[side["image"][-1][which]] if pictured else which for side, which in zip(keys, left, strict=True)]
    # The first column is a digest: rows with equal keys have the same remainder.
    parts = 1 + max(map(len, sides)) // PART_ROWS
    remainders = [side[by[0]][0][which] % parts for side, which in zip(keys, sides, strict=True)]
    found = []
    for part in range(parts):
        mine, theirs = (which[rest == part] for which, rest in zip(sides, remainders, strict=True))
        first, second = pair_up(_columns(keys[0], by, mine), _columns(keys[1], by, theirs))
        found.append((mine[first], theirs[second]))
    pairs = np.stack([np.concatenate(halves) for halves in zip(*found, strict=True)])
    rest = [np.setdiff1d(which, half, assume_unique=True) for which, half in zip(left, pairs, strict=True)]
    return pairs, (rest[0], rest[1])


def _columns(side: Keys, names: Sequence[str], which: Int64Array) -> list[npt.NDArray[Any]]:
    return [column[which] for name in names for column in side[name]]


def pair_up(first: Sequence[npt.NDArray[Any]], second: Sequence[npt.NDArray[Any]]) -> tuple[Int64Array, Int64Array]:
    """Pairs rows that are equal in all columns, the n-th of the first side with the n-th of the second.

    Args:
        first: columns `[N]`.
        second: the same number of columns, `[M]`.

    Returns:
        The positions of the two rows of each pair, in the first and in the second side.
    """
    count = len(first[0])
    columns = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    order = np.lexsort(columns)  # stable: of equal rows, those of the first side come first, in order
    if not len(order):
        return order, order
    changes = np.logical_or.reduce([column[order][1:] != column[order][:-1] for column in columns])
    groups = np.concatenate([[0], np.cumsum(changes)])
    of_second = order >= count
    starts = np.flatnonzero(np.concatenate([[True], changes]))
    sizes = np.bincount(groups)
    seconds = np.bincount(groups, weights=of_second).astype(np.int64)
    firsts = sizes - seconds
    rank = np.arange(len(order)) - starts[groups] - np.where(of_second, firsts[groups], 0)
    met = rank < np.minimum(firsts, seconds)[groups]
    return order[met & ~of_second], order[met & of_second] - count
