"""Names of folders and files that mean subsets, or images of any class, and are no classes."""

from __future__ import annotations

import re
from typing import Final

SPLITS: Final = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Words for splits, and the split that each means."""

NOT_CLASSES: Final = frozenset(
    {*SPLITS, "images", "image", "imgs", "img", "jpg", "jpeg", "jpegs", "png", "pngs", "photos", "data", "all"}
    | {"annotations", "labels", "masks"}
)
"""Names of folders, in lower case, that say nothing about the class of the images in them, see `is_no_class`."""

SUBSET_COLUMNS: Final = ("split", "subset", "usage", "partition", "ml_use", "is_valid", "is_val")
"""Names of columns of subsets in tables, in lower case, best first; fastai has the last ones, of true and false."""

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def split_word(name: str) -> str:
    """Returns the first word for a split in a name, in lower case; "" if there is none.

    >>> from beam_cifar.formats.kit.subset_names import split_word
    >>> split_word("trainLabels.csv"), split_word("VAL"), split_word("valid_images"), split_word("trains")
    ('train', 'val', 'valid', '')
    """
    return next((word for word in map(str.lower, _WORD.findall(name)) if word in SPLITS), "")


def is_no_class(name: str) -> bool:
    """Returns whether a folder's name says nothing about the class of the images in it.

    >>> from beam_cifar.formats.kit.subset_names import is_no_class
    >>> is_no_class("images"), is_no_class("test1"), is_no_class("seg_train"), is_no_class("cat")
    (True, True, True, False)
    """
    return name.lower() in NOT_CLASSES or bool(split_word(name))
