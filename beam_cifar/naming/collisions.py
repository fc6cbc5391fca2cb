"""Finds images that would get the same file name, from digests of names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def strict_names(
    folders: npt.NDArray[np.int64],
    names: npt.NDArray[np.uint64],
    ids: npt.NDArray[np.uint64],
    wholes: npt.NDArray[np.uint64],
) -> tuple[frozenset[int], tuple[int, int] | None]:
    """Finds names that several images in one folder would get.

    Args:
        folders: int64 `[N]`, the number of the folder of each image.
        names: uint64 `[N]`, the digests of their short names.
        ids: uint64 `[N]`, the digests of their ids.
        wholes: uint64 `[N]`, the digests of their whole ids as names.

    Returns:
        The digests of such names, and the positions of the first two images in one folder that have the same id too,
        so that no name can distinguish them; None if there are none.
    """
    order = np.lexsort((ids, names, folders))
    by_folder, by_name, by_id = folders[order], names[order], ids[order]
    same = (by_folder[1:] == by_folder[:-1]) & (by_name[1:] == by_name[:-1])
    twice = np.flatnonzero(same & (by_id[1:] == by_id[:-1]))
    strict = np.unique(by_name[1:][same])
    # The whole id of one image may be the short name of another, which must then use its whole id too, and so on.
    while len(strict) < len(grown := np.union1d(strict, np.intersect1d(wholes[np.isin(names, strict)], names))):
        strict = grown
    found = frozenset(strict.tolist())
    if not len(twice):
        return found, None
    first, second = sorted(order[twice[0] : twice[0] + 2].tolist())
    return found, (first, second)
