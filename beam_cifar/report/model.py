"""The contents of the page, without HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from beam_cifar.analysis.stats import Stats

TILE_SIDE: Final = 64
"""Maximum pixels of the longer side of a picture on the page; larger images are scaled down."""
MAX_SHEETS: Final = 1000


@dataclass(frozen=True)
class Tile:
    """A picture on the page.

    Attributes:
        id: id of the item.
        subset: subset of the item.
        height: height of the image in the dataset, in pixels.
        width: width of the image in the dataset, in pixels.
        source: a data URI; empty if the image did not fit on the page.
    """

    id: str
    subset: str
    height: int = 0
    width: int = 0
    source: str = ""

    @property
    def small(self) -> bool:
        """Whether the picture is shown at full resolution."""
        return max(self.height, self.width) <= TILE_SIDE


@dataclass(frozen=True)
class Sheet:
    """The pictures of a class.

    Attributes:
        label: number of the class, -1 for unlabelled rows.
        images: total number of images in the class.
        tiles: the selected pictures.
    """

    label: int
    images: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Balance:
    """What happened to the rows of a subset.

    Attributes:
        read: rows read from the source.
        written: rows written to the output.
        filtered: rows excluded by the selection.
        quarantined: rows excluded as damaged.
    """

    read: int
    written: int
    filtered: int
    quarantined: int

    @property
    def holds(self) -> bool:
        """Whether the counts add up: read = written + filtered + quarantined."""
        return self.read == self.written + self.filtered + self.quarantined


@dataclass(frozen=True)
class Provenance:
    """How an output was made, from its manifest.

    Attributes:
        version: version of beam-cifar that wrote it.
        source: title of the source dataset.
        options: options of the job that differ from their default, as text.
        balances: the balance of each subset.
        total: the balance of the whole job.
        unlabelled: rows that lost their label.
        renamed: changed names, as (name written, original name, kind of name).
        notices: notices of the job.
        lost_files: input files that the job set aside, because it could not read them.
    """

    version: str
    source: str
    options: tuple[tuple[str, str], ...]
    balances: Mapping[str, Balance]
    total: Balance
    unlabelled: int
    renamed: tuple[tuple[str, str, str], ...]
    notices: tuple[str, ...]
    lost_files: int = 0


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        stats: statistics of the dataset.
        name: last component of its path.
        title: page title.
        sheets: pictures in the order of the label table, unlabelled rows last.
        duplicates: a picture for each listed group of duplicates, if available.
        provenance: how the dataset was made, if it is an output of beam-cifar.
        provenance_error: why that is unknown although it is an output of beam-cifar.
        partial: whether only some subsets were read.
    """

    stats: Stats
    name: str
    title: str
    sheets: tuple[Sheet, ...] = ()
    duplicates: tuple[Tile, ...] = ()
    provenance: Provenance | None = None
    provenance_error: str = ""
    partial: bool = False
