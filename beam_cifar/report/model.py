"""What is on the page, before it is HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from beam_cifar.analysis.stats import Stats

TILE_SIDE: Final = 64
"""Pixels of the longer side of a picture on the page; a larger image is scaled down."""
MAX_SHEETS: Final = 1000


@dataclass(frozen=True)
class Tile:
    """A picture on the page.

    Attributes:
        id: of its item.
        subset: of its item.
        height: in pixels, of the image in the dataset.
        width: the same.
        source: a data URI; empty where the image did not fit on the page.
    """

    id: str
    subset: str
    height: int = 0
    width: int = 0
    source: str = ""

    @property
    def small(self) -> bool:
        """Whether the picture has every pixel of the image."""
        return max(self.height, self.width) <= TILE_SIDE


@dataclass(frozen=True)
class Sheet:
    """Some pictures of a class.

    Attributes:
        label: of the class, -1 for the unlabelled.
        images: that it has in all.
        tiles: those picked.
    """

    label: int
    images: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Balance:
    """What became of the rows of a subset.

    Attributes:
        read: from the source.
        written: to the output.
        filtered: left out because they were not asked for.
        quarantined: left out because they are damaged.
    """

    read: int
    written: int
    filtered: int
    quarantined: int

    @property
    def holds(self) -> bool:
        """Whether the rows read are those written and left out."""
        return self.read == self.written + self.filtered + self.quarantined


@dataclass(frozen=True)
class Provenance:
    """How an output was made, from its manifest.

    Attributes:
        version: of the program that made it.
        source: title of what it was made from.
        options: of the job, other than the usual ones, as text.
        balances: by subset.
        total: of all.
        unlabelled: rows that lost their label.
        renamed: for each name that had to change: what was written, the name, and what it is of.
        notices: of the job.
    """

    version: str
    source: str
    options: tuple[tuple[str, str], ...]
    balances: Mapping[str, Balance]
    total: Balance
    unlabelled: int
    renamed: tuple[tuple[str, str, str], ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        stats: of the dataset.
        name: the last component of its path.
        title: of the page.
        sheets: in the order of the label table, the unlabelled last.
        duplicates: the picture of each of the first groups of duplicates, as far as there is one.
        provenance: how it was made, if it is an output of this program.
        provenance_error: why that is not known of an output of this program.
        partial: whether only some subsets were looked at.
    """

    stats: Stats
    name: str
    title: str
    sheets: tuple[Sheet, ...] = ()
    duplicates: tuple[Tile, ...] = ()
    provenance: Provenance | None = None
    provenance_error: str = ""
    partial: bool = False
