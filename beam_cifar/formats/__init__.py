"""The registry: the one place where a format is listed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_cifar.labels import unknown_name

if TYPE_CHECKING:
    from beam_cifar.formats.base import Format


@dataclass(frozen=True)
class Entry:
    """A format as lists and help texts show it; its module is imported when it is used.

    Attributes:
        target: "module:class" within this package.
        title: one line for people.
        reads: whether it can be converted from.
        writes: whether it can be converted to.
    """

    target: str
    title: str
    reads: bool
    writes: bool


FORMATS: dict[str, Entry] = {
    "cifar": Entry("cifar:CifarFormat", "CIFAR-10 and CIFAR-100, python version, also in .tar and .tar.gz", True, True),
    "parquet": Entry(
        "parquet:ParquetFormat", "Parquet with PNG images, as Hugging Face datasets reads it", False, True
    ),
}


def get_format(name: str, *, for_reading: bool = False) -> Format:
    """The format of that name.

    Raises:
        UsageError: no such format, or it cannot be read (or written).
    """
    usable = [known for known, entry in FORMATS.items() if (entry.reads if for_reading else entry.writes)]
    if name not in usable:
        raise unknown_name("input format" if for_reading else "output format", name, usable)
    module, _, attribute = FORMATS[name].target.partition(":")
    made: Format = getattr(importlib.import_module(f"beam_cifar.formats.{module}"), attribute)()
    return made


def detect_format(path: str, index_dir: str) -> str | None:
    """The name of the format that a directory or archive is in, or None; archive indexes go to `index_dir`."""
    for name, entry in FORMATS.items():
        if entry.reads and get_format(name, for_reading=True).detect(path, index_dir):
            return name
    return None
