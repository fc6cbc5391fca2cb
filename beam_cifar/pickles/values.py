"""The values of a scanned pickle: plain values, and offsets in the file for everything large."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Value = Any
"""None, bool, int, float, bytes (also Python 2's str), str, or one of the classes below."""


# No `repr` for nodes: messages quote values, and the `repr` of a tree with many shared values would be huge.
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A value that others may refer to through the memo.

    Attributes:
        at: offset of the opcode that created it.
        depth: nesting depth, including itself.
        weight: bytes of what it holds, counting shared values once per reference.
        closed: whether it may no longer change, because it was fetched from the memo. This rules out cycles, and
            keeps `depth` and `weight` correct.
    """

    at: int
    depth: int = field(default=1, init=False)
    weight: int = field(default=0, init=False)
    closed: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False, repr=False)
class Container(Node):
    """A container; a run of small ints may be a single `IntRun` in `items`."""

    items: list[Value] = field(default_factory=list, init=False)


class ListValue(Container):
    """A list."""

    __slots__ = ()


class TupleValue(Container):
    """A tuple."""

    __slots__ = ()


class SetValue(Container):
    """A set or frozenset, which can occur only under a key that is ignored."""

    __slots__ = ()


class DictValue(Container):
    """A dictionary; `items` is key, value, key, value: nothing is hashed, so deeply nested keys are harmless."""

    __slots__ = ()

    def pairs(self) -> Iterator[tuple[Value, Value]]:
        """Yields each key with its value."""
        return zip(self.items[::2], self.items[1::2], strict=True)


@dataclass(slots=True, eq=False)
class IntRun:
    """`count` ints of 0..255 as `K<byte>` pairs at `offset`."""

    offset: int
    count: int


@dataclass(slots=True, eq=False, repr=False)
class GlobalValue(Node):
    """A global that the file may refer to, such as ('numpy', 'dtype'); never imported."""

    module: str
    name: str


@dataclass(slots=True, eq=False, repr=False)
class DtypeValue(Node):
    """The type of an array's elements.

    Attributes:
        kind: numpy's kind character: b, i, u, f, c, S, U or O.
        itemsize: bytes per element (0 for objects).
        order: '<' or '>', '' while unknown, '|' if not applicable.
    """

    kind: str
    itemsize: int
    order: str = field(init=False)

    def __post_init__(self) -> None:
        self.order = "|" if self.itemsize <= 1 or self.kind in "SO" else ""

    def __str__(self) -> str:
        """Returns numpy's short name for the type."""
        if self.kind == "O":
            return "object"
        return f"{self.order}{self.kind}{self.itemsize // 4 if self.kind == 'U' else self.itemsize}"


@dataclass(slots=True, eq=False)
class Inline:
    """A payload short enough to be kept in memory."""

    data: bytes

    @property
    def length(self) -> int:
        """Number of decoded bytes."""
        return len(self.data)


@dataclass(slots=True, eq=False)
class Span:
    """`length` bytes stored raw in the file."""

    offset: int
    length: int


class CodedSpan:
    """Bytes stored encoded in the file, from `offset` to `stop`.

    Attributes:
        coding: a key of `payload.DECODERS`.
        length: number of decoded bytes.
        starts: decoded position of each chunk; then `length`.
        offsets: file offset of each chunk; then `stop`.
    """

    __slots__ = ("coding", "length", "offset", "offsets", "starts", "stop")

    def __init__(self, coding: str, starts: array[int], offsets: array[int]) -> None:
        self.coding = coding
        self.starts = starts
        self.offsets = offsets
        self.offset = offsets[0]
        self.stop = offsets[-1]
        self.length = starts[-1]


@dataclass(slots=True, eq=False)
class TextSpan:
    """Long text that was not decoded yet: UTF-8, or protocol 0's escapes."""

    coding: str
    offset: int
    length: int


class IntPayload:
    """Bytes pickled as a list of ints, in chunks that are `K<byte>` pairs in the file or kept in memory.

    Attributes:
        starts: decoded position of each chunk; then the total length.
        offsets: file offset of each chunk, or -1 if kept in memory.
        kept: the bytes of chunks kept in memory, by index.
    """

    __slots__ = ("kept", "length", "offsets", "starts")

    def __init__(self, starts: array[int], offsets: array[int], kept: dict[int, bytes]) -> None:
        self.starts = starts
        self.offsets = offsets
        self.kept = kept
        self.length = starts[-1]


Payload = Inline | Span | CodedSpan | IntPayload


_UNSET = DtypeValue(0, "u", 1)  # one for all arrays: a batch of objects has thousands


@dataclass(slots=True, eq=False, repr=False)
class ArrayValue(Node):
    """A numpy array: `payload` for plain elements, `items` for objects; `built` once its state is set.

    `axes` are its axes in memory, from the slowest to the fastest: ascending in C order, descending in Fortran order.
    """

    built: bool = field(default=False, init=False)
    axes: tuple[int, ...] = field(default=(), init=False)
    shape: tuple[int, ...] = field(default=(), init=False)
    dtype: DtypeValue = field(default=_UNSET, init=False)
    payload: Payload | None = field(default=None, init=False)
    items: list[Value] = field(default_factory=list, init=False)

    @property
    def c_order(self) -> bool:
        """Whether elements are in C order."""
        return self.axes == tuple(range(len(self.axes)))


def weight_of(value: Value) -> int:
    """Returns how many bytes a value stands for, wherever it is referred to; 0 for numbers and the like."""
    if isinstance(value, Node):
        return value.weight
    return len(value) if isinstance(value, (bytes, str)) else getattr(value, "length", 0)
