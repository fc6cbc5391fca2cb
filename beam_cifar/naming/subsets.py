"""What the names of subsets mean: batches of a split, and series of numbered files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from beam_cifar.data.labels import unknown_name


def series_name(subset: str) -> str:
    """Returns the series of a numbered subset: "data_batch" for `data_batch_1`; other names are returned unchanged."""
    return re.sub(r"_\d+$", "", subset)


def split_name(subset: str) -> str:
    """Returns the split of a batch: CIFAR's `data_batch_*` is "train", `test_batch` is "test".

    Downsampled ImageNet calls its batches `train_data_batch_*` ("train") and `val_data` ("val").
    """
    if subset.startswith(("data_batch", "train_data_batch")):
        return "train"
    if subset.startswith("test_batch"):
        return "test"
    return "val" if subset == "val_data" else subset


def subsets_meant(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known subsets that a name stands for: one with that name, and all batches of a split.

    Raises:
        UsageError: none of them is.

    >>> from beam_cifar.naming.subsets import subsets_meant
    >>> subsets_meant("train", ["data_batch_1", "data_batch_2", "test_batch"])
    ['data_batch_1', 'data_batch_2']
    """
    names = list(known)
    found = [each for each in names if name in (each, split_name(each))]
    if not found:
        raise unknown_name("subset", name, with_splits(names))
    return found


def with_splits(subsets: Sequence[str]) -> list[str]:
    """Returns names of subsets, and those of the splits that they are batches of."""
    return list(dict.fromkeys((*subsets, *map(split_name, subsets))))
