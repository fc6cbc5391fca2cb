"""Names of folders and files that mean subsets, or images of any class, and are no classes."""

from __future__ import annotations

import re
from typing import Final

SPLITS: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Words for splits, and the split that each means."""

NOT_CLASSES: Final = frozenset({*SPLITS, "images", "img", "data", "all"})
"""Names of folders, in lower case, that say nothing about the class of the images in them."""

SUBSET_COLUMNS: Final = ("split", "subset", "usage", "partition")
"""Names of columns of subsets in tables, in lower case, best first."""

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def split_word(name: str) -> str:
    """Returns the first word for a split in a name, in lower case; "" if there is none.

    >>> from beam_cifar.formats.kit.subset_names import split_word
    >>> split_word("trainLabels.csv"), split_word("VAL"), split_word("valid_images"), split_word("trains")
    ('train', 'val', 'valid', '')
    """
    return next((word for word in map(str.lower, _WORD.findall(name)) if word in SPLITS), "")
