"""Dataset items in Python: an id, a subset, an image and a label."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.decode import decode_image, probe_whole_image
from beam_cifar.images.encodings import RAW
from beam_cifar.images.example import Example

DEFAULT_SUBSET = "default"

Categories: TypeAlias = "LabelTable | Iterable[str | tuple[str, str | None]] | None"
"""Classes: a `LabelTable`, class names, or pairs of class name and superclass."""


@dataclass(frozen=True)
class Label:
    """The class of an item.

    Attributes:
        label: index of the class.

    >>> from beam_cifar import DatasetItem, Label
    >>> DatasetItem("1", annotations=[Label(7)]).label
    7
    """

    label: int


class Image:
    """An image: pixels, or a file.

    Args:
        data: pixels, uint8 or integers from 0 to 255, `[H, W, 3]` in the order R, G, B, or `[H, W]` or `[H, W, 1]` for
            gray; or the bytes of a PNG or JPEG file; or a function that returns either. None reads the file `path`.
        path: name of the file, which need not exist if `data` is given.
        size: (height, width) in pixels, if known.

    >>> import numpy as np
    >>> from beam_cifar import Image
    >>> Image(np.zeros((32, 48, 3), np.uint8)).size
    (32, 48)
    """

    def __init__(
        self, data: Any = None, path: str | os.PathLike[str] = "", size: tuple[int, int] | None = None
    ) -> None:
        self._data, self.path, self._size = data, os.fspath(path), size

    @property
    def content(self) -> Any:
        """The pixels as given, or the bytes of the file. Raises `InputError` if it cannot be read."""
        if callable(self._data):
            return self._data()
        if self._data is not None:
            return self._data
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    @property
    def data(self) -> UInt8Array:
        """The pixels, uint8 `[H, W, 3]` in the order R, G, B, or `[H, W, 1]` for gray.

        Raises:
            InputError: the image is damaged, or has more than 8 bits per channel.
        """
        content = self.content
        if isinstance(content, (bytes, bytearray, memoryview)):
            return np.ascontiguousarray(decode_image(bytes(content), self.path or "image").transpose(1, 2, 0))
        return checked_pixels(content, self.path or "image")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if self._size is None:
            height, width = self.data.shape[:2]
            self._size = height, width
        return self._size

    def __repr__(self) -> str:
        return f"Image(path={self.path!r}, size={self._size})"


@dataclass(frozen=True)
class DatasetItem:
    """One image of a dataset, with its label.

    Attributes:
        id: unique within the subset; any object, converted with `str`.
        subset: any name.
        image: pixels, the path or bytes of a PNG or JPEG file, an `Image`, or None. Items from a `Dataset` have an
            `Image` that is read on access, or None.
        annotations: at most one label.

    >>> import numpy as np
    >>> from beam_cifar import Dataset, DatasetItem, Label
    >>> item = DatasetItem("night", "train", np.zeros((32, 32, 3), np.uint8), [Label(0)])
    >>> Dataset.from_iterable([item], ["dark"]).export("dark", "cifar", save_images=True).written
    1
    """

    id: Any
    subset: str = DEFAULT_SUBSET
    image: Any = None
    annotations: Sequence[Label] = ()

    @property
    def label(self) -> int | None:
        """Index of the class; None without a label."""
        return self.annotations[0].label if self.annotations else None


def item_key(item: DatasetItem) -> tuple[str, str]:
    """Returns the id and subset as text, the key of an item."""
    return str(item.id), DEFAULT_SUBSET if item.subset is None else str(item.subset)


def example_of(item: DatasetItem, labels: LabelTable) -> Example:
    """Converts an item to an example. Raises `InputError` for an image or label that an example cannot hold."""
    if not isinstance(item, DatasetItem):
        raise UsageError(f"expected a DatasetItem, found {type(item).__name__}")
    name = f"item {str(item.id)!r} of subset {item.subset!r}"
    item_id, subset = item_key(item)
    for text in (item_id, subset):
        if not is_unicode(text):
            raise InputError(f"{name}: not valid Unicode")
    if not item_id:
        raise InputError(f"{name}: the id is empty")
    if not subset:
        raise InputError(f"{name}: the subset name is empty")
    if item.image is None:
        return Example(item_id, subset, None, RAW, None, None, None, _label(item, labels, name), f"{item_id}.png")
    image, path = _image(item.image)
    filename = _filename(item_id, path)
    found = _label(item, labels, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        header = probe_whole_image(data, name)
        size = header.height, header.width, header.channels
        return Example(item_id, subset, data, header.encoding, *size, found, filename)
    pixels = checked_pixels(image, name)
    planar = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    height, width, channels = pixels.shape
    return Example(item_id, subset, planar.tobytes(), RAW, height, width, channels, found, filename)


def _image(given: Any) -> tuple[Any, str]:
    """Returns the pixels, or the bytes of a file, and the file name."""
    if isinstance(given, (str, os.PathLike)):
        given = Image(path=given)
    if isinstance(given, Image):
        return given.content, given.path
    return given, ""


def _filename(item_id: str, path: str) -> str:
    """Returns the name of the image file if it matches the id, and otherwise the id with the same extension."""
    name = os.path.basename(path)
    stem, extension = os.path.splitext(name)
    return name if stem and stem == item_id.rpartition("/")[2] else item_id + (extension or ".png")


def _label(item: DatasetItem, labels: LabelTable, name: str) -> int | None:
    annotations = item.annotations or ()
    if not isinstance(annotations, Sequence):
        raise InputError(f"{name}: annotations must be a list of labels, found {annotations!r}")
    if len(annotations) > 1:
        raise InputError(f"{name}: has {len(annotations)} labels; at most one is supported")
    if not annotations:
        return None
    label = annotations[0]
    number = label.label if isinstance(label, Label) else None
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise InputError(f"{name}: expected Label(number), found {label!r}")
    if not 0 <= number < len(labels.names):
        known = counted(len(labels.names), "category")
        raise InputError(f"{name}: label {number} is out of range; the dataset has {known}")
    return int(number)


def checked_pixels(given: Any, name: str) -> UInt8Array:
    """Returns pixels as uint8 `[H, W, C]`, with C 1 or 3.

    Raises:
        InputError: pixels that do not fit without loss: other shapes, fractions, values outside 0 to 255.
    """
    try:
        pixels = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}: image is not an array: {error}") from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InputError(f"{name}: image has shape {np.shape(given)}; expected H x W x 3 (R, G, B), H x W x 1 or H x W")
    if not (pixels.size and pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS):
        raise InputError(f"{name}: image is {pixels.shape[0]} x {pixels.shape[1]}; expected 1 to {MAX_PIXELS} pixels")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "uif":
        raise InputError(f"{name}: image has dtype {pixels.dtype}; expected uint8, or integers from 0 to 255")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):  # also refuses NaN
        raise InputError(f"{name}: image has values from {low} to {high}; expected 0 to 255")
    made = pixels.astype(np.uint8)
    if (made != pixels).any():
        raise InputError(f"{name}: image has fractional values, such as {pixels[made != pixels][0]}; expected integers")
    return made


def table_of_categories(given: Categories) -> LabelTable:
    """Returns the label table for some categories, with superclasses in order of first appearance.

    Raises:
        UsageError: a name that repeats, or is not a string.
    """
    if isinstance(given, LabelTable):
        for name, count in Counter(given.names).items():
            if count > 1:
                raise UsageError(f"categories: class {name!r} is given twice")
        return given
    if isinstance(given, str) or not isinstance(given, (Iterable, type(None))):
        raise UsageError(f"categories: expected a list of names, found {given!r}")
    names: list[str] = []
    parents: list[str] = []
    for each in given or ():
        pair = (each, None) if isinstance(each, str) else each
        name, parent = pair if isinstance(pair, tuple) and len(pair) == 2 else (None, None)
        if not isinstance(name, str) or not isinstance(parent, (str, type(None))):
            raise UsageError(f"categories: expected a name or (name, superclass), found {each!r}")
        if name in names:
            raise UsageError(f"categories: class {name!r} is given twice")
        names.append(name)
        parents.append(parent or "")
    coarse = tuple(dict.fromkeys(parent for parent in parents if parent))
    if not coarse:
        return LabelTable(tuple(names))
    return LabelTable(tuple(names), coarse, tuple(coarse.index(parent) if parent else None for parent in parents))
