"""Finds files that may have the labels of images, in forms that no reader knows, so that messages name them."""

from __future__ import annotations

from typing import Final

from beam_cifar import storage
from beam_cifar.formats.kit.subset_names import is_no_class
from beam_cifar.naming.ids import natural_key

ENDS: Final = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".lst", ".xml", ".mat", ".xlsx")
PAGES: Final = ("readme", "license", "licence", "classes.", "requirements")
"""Starts of the names of those that have none, in lower case."""

MAX_LOOKED_AT: Final = 1000
"""Maximum number of entries of a folder that are looked at."""


def label_files(path: str) -> list[str]:
    """Returns the names of the files in a folder, and in folders of it that are no classes, that may have labels."""
    folders = [path, *(folder for folder in storage.folders_in(path) if is_no_class(storage.name_of(folder)))]
    names = [name for folder in folders for name in storage.first_names(folder, MAX_LOOKED_AT)[0]]
    return sorted(filter(is_label_file, names), key=natural_key)


def is_label_file(name: str) -> bool:
    """Returns whether a file may have labels, by its name.

    >>> from beam_cifar.formats.kit.label_files import is_label_file
    >>> is_label_file("imagelabels.mat"), is_label_file("README.txt"), is_label_file("1.png")
    (True, False, False)
    """
    return name.lower().endswith(ENDS) and not name.lower().startswith(PAGES)
