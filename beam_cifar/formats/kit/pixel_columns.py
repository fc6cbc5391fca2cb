"""Finds the columns of labels and pixels in a CSV file, from its header and first row.

Layouts are those of Kaggle and OpenML: `label,pixel0,...` (MNIST, Fashion-MNIST), `pixel1,...,class` (OpenML's
mnist_784), `pixel0000,...,label` (HAM10000's hmnist files; three channels of a pixel together), `pixel0,...` without
labels (MNIST's test.csv), and `emotion,pixels,Usage` (FER2013: all pixels in one column, separated by spaces).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.label_columns import by_rank, is_no_label, label_rank, listed
from beam_cifar.formats.kit.subset_names import SUBSET_COLUMNS

MAX_COLUMNS: Final = 1 << 21
"""Maximum number of names in a header: they are in memory at once."""

MIN_PIXELS: Final = 64
"""Least pixels of an image that are detected by what is in a file: with fewer it could be any table."""

_PACKED: Final = "pixels"
_OWN_LABELS: Final = ("emotion",)
_SIZED: Final = re.compile(r".*?([0-9]{1,5})x([0-9]{1,5})", re.DOTALL)


@dataclass(frozen=True)
class PixelColumns:
    """What the values of each line are.

    Attributes:
        columns: columns per line; 0 if there are no rows.
        first: column of the first pixel.
        pixels: number of pixel values.
        packed: whether the pixels are in one column, separated by spaces.
        label: column of labels, -1 for none.
        subset: column of subsets, -1 for none.
        size: (height, width); None if the pixels are not those of a square image and no header has the size.
        channels: 1, or 3 where each pixel has red, green and blue together.
        has_header: whether the columns have names.
        notices: what was guessed, and columns that are not used.
        delimiter: what separates values in the file; here they are given with commas.
    """

    columns: int = 0
    first: int = 0
    pixels: int = 0
    packed: bool = False
    label: int = -1
    subset: int = -1
    size: tuple[int, int] | None = None
    channels: int = 1
    has_header: bool = False
    notices: tuple[str, ...] = ()
    delimiter: str = ","

    @property
    def values(self) -> int:
        """Values per line, where those in one column count one by one."""
        return self.columns - 1 + self.pixels if self.packed else self.columns

    def value(self, column: int) -> int:
        """Returns which value of a line is in a column other than of pixels."""
        return column + self.values - self.columns if column > self.first else column

    @property
    def width(self) -> int:
        """Number of columns of pixels."""
        return 1 if self.packed else self.pixels

    def text(self, line: bytes, column: int) -> bytes:
        """Returns what a line has in a column other than of pixels."""
        if column < self.first:
            return line.split(b",", column + 1)[column]
        return line.rsplit(b",", self.columns - column)[column - self.columns]

    @property
    def others(self) -> int:
        """Number of columns without pixels."""
        return self.values - self.pixels


def pixel_columns(header: bytes, row: bytes, shown: str) -> PixelColumns:
    """Returns the columns of a file.

    Args:
        header: its first line if that has names, else empty.
        row: its first line of values; empty for none.
        shown: display name of the file, used in messages.

    Raises:
        InputError: the columns are not labels and pixels, or it is unclear which ones are.

    >>> from beam_cifar.formats.kit.pixel_columns import pixel_columns
    >>> found = pixel_columns(b"p1,p2,p3,p4,class", b"0,9,9,0,7", "table.csv")
    >>> found.label, found.first, found.pixels, found.size
    (4, 0, 4, (2, 2))
    """
    if not row:
        return PixelColumns()
    count = row.count(b",") + 1
    if not header:
        size, channels = _shape(count - 1)
        if (size is None or channels == 3) and _shape(count)[0]:
            raise InputError(
                f"{shown}: has {counted(count, 'value')} per line; expected a label and the pixels of a square image: "
                "they may be pixels without a label, add a header such as 'pixel0,pixel1,...'"
            )
        return PixelColumns(count, 1, count - 1, False, 0, -1, size, channels, False, _told(size, channels))
    if header.count(b",") >= MAX_COLUMNS:
        raise InputError(f"{shown}: header has more than {MAX_COLUMNS} names, the supported maximum; remove that line")
    names = [name.strip().strip('"').strip() for name in header.decode("utf-8", "replace").split(",")]
    if names[-1].lower() == _PACKED:  # a name for all of them
        names += names[-1:] * (min(count, MAX_COLUMNS) - len(names))
    if len(names) != count:
        raise InputError(
            f"{shown}: header has {counted(len(names), 'name')}, row 0 has {counted(count, 'value')}; expected "
            "one name for each value"
        )
    at = [number for number, name in enumerate(names) if name.lower() == _PACKED]
    packed = row.split(b",", at[0] + 1)[at[0]] if at else b""
    if b" " in packed:
        return _described(names, at[0], 1, packed.count(b" ") + 1, shown)
    first, stop = _block(names, shown)
    return _described(names, first, stop - first, stop - first, shown)


def _described(names: Sequence[str], first: int, width: int, pixels: int, shown: str) -> PixelColumns:
    """Returns the columns of a file with a header, given those of its pixels."""
    others = [number for number in range(len(names)) if not first <= number < first + width]
    subset = next((number for number in others if names[number].lower() in SUBSET_COLUMNS), -1)
    others = [number for number in others if number != subset]
    label = _label(names, others, shown)
    unused = [names[number] for number in others if number != label]
    sure = label < 0 or label_rank(names[label]) >= 0 or names[label].lower() in _OWN_LABELS
    notices = [] if sure else [f"labels are from column {names[label]!r}, the only one beside the pixels"]
    if label < 0:
        notices.append("no labels found" + (f"; columns not used: {listed(unused)}" if unused else ""))
    elif unused:
        notices.append(f"columns not used: {listed(unused)}")
    sized = _SIZED.fullmatch(names[first + width - 1])
    size, channels = _shape(pixels)
    if sized and int(sized[1]) * int(sized[2]) == pixels:
        size, channels = (int(sized[1]), int(sized[2])), 1
    packed = width == 1 and pixels > 1
    notices += _told(size, channels)
    return PixelColumns(len(names), first, pixels, packed, label, subset, size, channels, True, tuple(notices))


def _block(names: Sequence[str], shown: str) -> tuple[int, int]:
    """Returns the first column of pixels and the one after the last: names with numbers, else all but the labels."""
    pixels = [
        n for n, name in enumerate(names) if name[-1:].isdigit() and label_rank(name) < 0 and not is_no_label(name)
    ]
    if not pixels and (len(names) > MIN_PIXELS or names[-1].lower() == _PACKED):
        at = names.index((by_rank(names) or names)[0])
        pixels = [number for number in range(len(names)) if number != at]
    if not pixels or pixels[-1] - pixels[0] + 1 != len(pixels):
        raise InputError(
            f"{shown}: columns are {listed(names)}; expected a column of labels before or after all columns of pixels"
        )
    return pixels[0], pixels[-1] + 1


def _label(names: Sequence[str], others: Sequence[int], shown: str) -> int:
    """Returns the column of labels: by name, else the only one whose name may be that of labels; -1 for none."""
    named = sorted((number for number in others if label_rank(names[number]) >= 0), key=lambda n: label_rank(names[n]))
    found = named[:1] or [number for number in others if names[number].lower() in _OWN_LABELS][:1]
    found = found or [number for number in others if not is_no_label(names[number])]
    if len(found) > 1:
        shown_names = listed([names[number] for number in found])
        raise InputError(f"{shown}: columns {shown_names} may all be labels; name the column of labels 'label'")
    return found[0] if found else -1


def _shape(pixels: int) -> tuple[tuple[int, int] | None, int]:
    """Returns (height, width) of a square image, None if it is not square, and its number of channels.

    No number of pixels is both: 3 is not a square.
    """
    for channels in (1, 3):
        side = math.isqrt(pixels // channels)
        if side and channels * side * side == pixels:
            return (side, side), channels
    return None, 1


def _told(size: tuple[int, int] | None, channels: int) -> tuple[str, ...]:
    if channels == 1 or size is None:
        return ()
    return (
        f"{3 * size[0] * size[1]} values per row are read as {size[0]} x {size[1]} pixels with red, green and blue of "
        "each pixel together (channels last)",
    )
