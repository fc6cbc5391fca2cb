"""Converts scanned values to the columns of a batch (labels, names, sizes) and refuses anything of another shape."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import NoReturn

from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.errors import PickleError
from beam_cifar.pickles.arrays import kind_of
from beam_cifar.pickles.payload import PayloadReader, decode_uescape
from beam_cifar.pickles.rows import Size
from beam_cifar.pickles.scan import INT64, Scan, expand_ints
from beam_cifar.pickles.source import read_exact, shorten
from beam_cifar.pickles.values import (
    ArrayValue,
    CodedSpan,
    Container,
    DictValue,
    IntRun,
    ListValue,
    Span,
    TextSpan,
    TupleValue,
    Value,
)

MAX_STRING_BYTES = 1 << 12  # the longest path that Linux knows
# Bytes of memory for what columns become, measured: 300,000 rows without images take 170 MB while they are converted.
_NUMBER, _COMMON, _SIZE, _ROW, _CLASS = 64, 128, 512, 400, 1400
_INT_CODES = {("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "q"}


class Columns:
    """Reads the values of one scanned file; errors name the key."""

    def __init__(self, scan: Scan) -> None:
        self.scan, self.name, self.file = scan, scan.source.name, scan.source.file
        # The memo can repeat a value at two bytes each, so each is decoded only once.
        self._texts: dict[int, str] = {}
        self._sizes: dict[Size, Size] = {}

    def refuse(self, value: Value, reason: str) -> NoReturn:
        """Raises `PickleError` at the offset of `value` if known, else of the whole dictionary."""
        offset = getattr(value, "at", getattr(value, "offset", getattr(self.scan.value, "at", 0)))
        raise PickleError(self.name, offset, reason)

    def charge(self, value: Value, nbytes: int) -> None:
        """Counts the memory that a column takes, before it is made; see `PickleFile.charge`."""
        self.scan.source.at = getattr(value, "at", self.scan.source.at)
        self.scan.source.charge(nbytes)

    def charge_text(self, value: Value, nbytes: int, count: int = 1) -> None:
        """Counts `count` names of `nbytes` in all, with the ids made of them; long ones take most in Beam's blocks."""
        self.charge(value, 2 * nbytes + 8 * max(0, nbytes - _COMMON * count))

    def charge_all(self, *, rows: int = 0, classes: int = 0) -> None:
        """Counts what readers make of each row or class besides its label or name: ids, records of bad rows."""
        self.charge(self.scan.value, _ROW * rows + _CLASS * classes)

    def fields(self) -> dict[str, Value]:
        """Returns the dictionary in the file, with keys as text."""
        top = self.scan.value
        if type(top) is not DictValue:
            self.refuse(top, f"contains a {kind_of(top)}; expected a dictionary")
        found: dict[str, Value] = {}
        for key, value in top.pairs():
            if type(key) not in (bytes, str, Span, TextSpan, CodedSpan):
                self.refuse(key, f"dictionary key is a {kind_of(key)}; expected text")
            text = self.text(key, "dictionary key")
            if text in found:
                self.refuse(top, f"key {shorten(text)} occurs twice")
            found[text] = value
        return found

    def text(self, value: Value, what: str) -> str:
        """Returns text; bytes must be UTF-8."""
        found = value if type(value) is str else self._texts.get(id(value))
        if found is None:
            found = self._texts[id(value)] = self._decoded(value, what)
        self.charge_text(value, sys.getsizeof(found))
        return found

    def _decoded(self, value: Value, what: str) -> str:
        data = value if type(value) is bytes else self._long_text(value, what)
        try:
            if type(value) is TextSpan and value.coding == "uescape":
                return decode_uescape(data)
            return data.decode("utf-8")
        except ValueError:
            self.refuse(value, f"{what} is not valid UTF-8: {shorten(data)}")

    def _long_text(self, value: Value, what: str) -> bytes:
        if type(value) not in (Span, TextSpan, CodedSpan):
            self.refuse(value, f"{what} is a {kind_of(value)}; expected text")
        size = value.length
        if size > MAX_STRING_BYTES:
            self.refuse(value, f"{what} is {size} bytes long; expected at most {MAX_STRING_BYTES}")
        if type(value) is TextSpan:
            return read_exact(self.file, self.name, value.offset, size)
        return PayloadReader(self.file, self.name, value).read(0, size)

    def items(self, value: Value, key: str) -> list[Value]:
        """Returns the items of a list, a tuple or a 1-D object array."""
        objects = type(value) is ArrayValue and value.built and value.dtype.kind == "O" and len(value.shape) == 1
        if not objects and type(value) not in (ListValue, TupleValue):
            self.refuse(value, f"'{key}' is {self.describe(value)}; expected a list")
        items: list[Value] = value.items
        return expand_ints(self.scan.source, items) if any(type(item) is IntRun for item in items) else items

    def describe(self, value: Value) -> str:
        """Returns a short description of a value, for messages."""
        if type(value) is not ArrayValue:
            return f"a {kind_of(value)}"
        if not value.built:
            return "an array without a state"
        return f"an array of dtype {value.dtype} and shape {shorten(value.shape)}"

    def labels(self, value: Value, key: str) -> tuple[int | str | None, ...]:
        """Returns labels: an int as found, a class name as text, or None for an unlabelled row."""
        if self._is_int_column(value):
            labels: list[Value] = self._int_array(value)
        elif self._is_text_array(value):
            return self.names(value, key)
        else:
            labels = self.items(value, key)
        types = set(map(type, labels))
        if types - {int, type(None)}:
            labels = [self._label(label, key, row) for row, label in enumerate(labels)]
        numbers = [label for label in labels if type(label) is int]
        if numbers and not (min(numbers) in INT64 and max(numbers) in INT64):
            self.refuse(value, f"'{key}' has an int of more than 8 bytes: {max(numbers, key=abs)}")
        return tuple(labels)

    def _is_int_column(self, value: Value) -> bool:
        """Returns whether a value is an array of ints, [N] or [N, 1]."""
        ints = type(value) is ArrayValue and value.built and value.dtype.kind in "iu"
        return ints and len(value.shape) in (1, 2) and value.shape[1:] in ((), (1,))

    def _label(self, label: Value, key: str, row: int) -> int | str | None:
        if label is None or type(label) is int:
            return label
        if type(label) in (ListValue, TupleValue) and len(label.items) == 1 and type(label.items[0]) is int:
            return int(label.items[0])
        if type(label) in (bool, float) or isinstance(label, Container):
            shown = kind_of(label) if isinstance(label, Container) else label
            self.refuse(label, f"'{key}' entry {row} is {shown}; expected an int, a class name or None")
        if type(label) is ArrayValue and label.built and label.shape in ((), (1,)) and label.dtype.kind in "iu":
            return self._int_array(label)[0]
        return self.text(label, f"'{key}' entry {row}")

    def coarse_labels(self, value: Value, key: str) -> tuple[int | None, ...]:
        """Returns superclass numbers, None for a row without one."""
        found: list[int | None] = []
        for row, label in enumerate(self.labels(value, key)):
            if isinstance(label, str):
                self.refuse(value, f"'{key}' entry {row} is {shorten(label)}; expected an int or None")
            found.append(label)
        return tuple(found)

    def names(self, value: Value, key: str) -> tuple[str, ...]:
        """Returns a column of text."""
        if self._is_text_array(value):
            return tuple(self._text_array(value, key))
        items = self.items(value, key)
        types = set(map(type, items))
        if types == {str}:
            self.charge_text(value, sum(map(sys.getsizeof, items)), len(items))
            return tuple(items)
        if types <= {bytes}:
            self.charge_text(value, sum(map(len, items)) + _NUMBER * len(items), len(items))
            # Decoding all at once is far faster than one by one; NUL does not occur in real names.
            joined = b"\0".join(items)
            if items and joined.count(b"\0") == len(items) - 1 and joined.isascii():
                return tuple(joined.decode("ascii").split("\0"))
        return tuple(self.text(item, f"'{key}' entry {row}") for row, item in enumerate(items))

    def optional_int(self, value: Value, key: str) -> int | None:
        """Returns an int or None."""
        if value is not None and type(value) is not int:
            self.refuse(value, f"'{key}' is {self.describe(value)}; expected an int")
        return value

    def sizes(self, value: Value, key: str) -> Sequence[Size | None]:
        """Returns (height, width) per row, None for a row without an image."""
        if type(value) is ArrayValue and value.built and value.dtype.kind in "iu" and value.shape[1:] == (2,):
            numbers = self._int_array(value)
            half = len(numbers) // 2
            self.charge(value, _NUMBER * half)
            pairs = zip(numbers[:half], numbers[half:], strict=True)
            if value.c_order:
                pairs = zip(numbers[::2], numbers[1::2], strict=True)
            return [self._size(value, list(pair), key, row) for row, pair in enumerate(pairs)]
        return [self._size(item, self._pair(item), key, row) for row, item in enumerate(self.items(value, key))]

    def _pair(self, item: Value) -> list[Value]:
        if type(item) is ArrayValue and item.built and item.dtype.kind in "iu" and item.shape == (2,):
            return self._int_array(item)
        return item.items if type(item) in (ListValue, TupleValue) else [] if item is not None else [None]

    def _size(self, item: Value, pair: list[Value], key: str, row: int) -> Size | None:
        if pair == [None]:
            return None
        if len(pair) != 2 or not all(type(side) is int for side in pair):
            self.refuse(item, f"'{key}' entry {row} is not a pair of ints (height, width)")
        height, width = pair
        if height < 1 or width < 1 or height * width > MAX_PIXELS:
            self.refuse(item, f"'{key}' entry {row} is {height} x {width}; expected 1 to {MAX_PIXELS} pixels")
        if (height, width) not in self._sizes:
            self.charge(item, _SIZE)
        return self._sizes.setdefault((height, width), (height, width))

    def _int_array(self, value: ArrayValue) -> list[int]:
        dtype, payload = value.dtype, value.payload
        if payload is None:
            self.refuse(value, "array has no data")
        self.charge(value, _NUMBER * (payload.length // dtype.itemsize))
        code = _INT_CODES["i", dtype.itemsize]
        numbers = array(code if dtype.kind == "i" else code.upper())
        numbers.frombytes(PayloadReader(self.file, self.name, payload).read(0, payload.length))
        if (dtype.order == ">") != (sys.byteorder == "big") and dtype.itemsize > 1:
            numbers.byteswap()
        return numbers.tolist()

    def _is_text_array(self, value: Value) -> bool:
        return type(value) is ArrayValue and value.built and value.dtype.kind in "SU" and len(value.shape) == 1

    def _text_array(self, value: ArrayValue, key: str) -> list[str]:
        dtype, payload = value.dtype, value.payload
        if payload is None or dtype.itemsize > MAX_STRING_BYTES:
            self.refuse(value, f"'{key}' is {self.describe(value)}; expected names of at most {MAX_STRING_BYTES} bytes")
        self.charge_text(value, payload.length + _NUMBER * value.shape[0], value.shape[0])
        data = PayloadReader(self.file, self.name, payload).read(0, payload.length)
        coding = {"S": "utf-8", "U": "utf-32-be" if dtype.order == ">" else "utf-32-le"}[dtype.kind]
        cells = (data[start : start + dtype.itemsize] for start in range(0, len(data), dtype.itemsize))
        try:
            return [(cell.rstrip(b"\0") if coding == "utf-8" else cell).decode(coding).rstrip("\0") for cell in cells]
        except UnicodeDecodeError:
            self.refuse(value, f"'{key}' has text that is not valid {'UTF-8' if dtype.kind == 'S' else 'Unicode'}")
