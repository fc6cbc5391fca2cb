"""What a scanned pickle consists of: plain values, and places in the file for everything large."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Value = Any
"""None, bool, int, float, bytes (also Python 2's str), str, or one of the classes below."""


# Classes of nodes have no `repr`: messages quote values, and that of a tree which refers to itself often is long.
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A value that others may refer to through the memo.

    Attributes:
        at: offset of the opcode that made it.
        depth: levels of containers below it, itself included.
        weight: elements below it, each counted as often as it is referred to.
        closed: a value that was fetched from the memo no longer changes. So no cycle can come about, and `depth`
            and `weight` stay true.
    """

    at: int
    depth: int = field(default=1, init=False)
    weight: int = field(default=1, init=False)
    closed: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False, repr=False)
class Container(Node):
    """Holds `items`; a run of small ints may stand in it as one `IntRun`."""

    items: list[Value] = field(default_factory=list, init=False)


class ListValue(Container):
    """A list."""

    __slots__ = ()


class TupleValue(Container):
    """A tuple."""

    __slots__ = ()


class SetValue(Container):
    """A set or frozenset, which only a skipped key can hold."""

    __slots__ = ()


class DictValue(Container):
    """A dictionary; `items` holds key, value, key, value: nothing is hashed, so nested keys can do no harm."""

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
    """A name that the file may mention, such as ('numpy', 'dtype'); never imported."""

    module: str
    name: str


@dataclass(slots=True, eq=False, repr=False)
class DtypeValue(Node):
    """The type of an array's elements.

    Attributes:
        kind: numpy's letter: b, i, u, f, c, S, U or O.
        itemsize: bytes of one element (0 for objects).
        order: '<', '>', or '' while unknown; '|' where it does not matter.
    """

    kind: str
    itemsize: int
    order: str = field(init=False)

    def __post_init__(self) -> None:
        self.order = "|" if self.itemsize <= 1 or self.kind in "SO" else ""

    def __str__(self) -> str:
        """Returns numpy's short name."""
        if self.kind == "O":
            return "object"
        return f"{self.order}{self.kind}{self.itemsize // 4 if self.kind == 'U' else self.itemsize}"


@dataclass(slots=True, eq=False)
class Inline:
    """A payload so short that it is kept."""

    data: bytes

    @property
    def length(self) -> int:
        """The decoded bytes."""
        return len(self.data)


@dataclass(slots=True, eq=False)
class Span:
    """`length` bytes that lie in the file as they are."""

    offset: int
    length: int


class CodedSpan:
    """Bytes that lie in the file encoded, from `offset` to `stop`.

    Attributes:
        coding: a key of `payload.DECODERS`.
        length: of the decoded bytes.
        starts: decoded position at which each block starts; then `length`.
        offsets: file offset at which each block starts; then `stop`.
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
    """Long text that was not looked at yet: UTF-8, or protocol 0's escapes."""

    coding: str
    offset: int
    size: int


class IntPayload:
    """Bytes that were pickled as a list of ints: the pieces lie in the file as `K<byte>` pairs, or are kept.

    Attributes:
        starts: decoded position at which each piece starts; then the length.
        offsets: file offset of each piece, or -1.
        kept: the bytes of the pieces without offset, by index.
    """

    __slots__ = ("kept", "length", "offsets", "starts")

    def __init__(self, starts: array[int], offsets: array[int], kept: dict[int, bytes]) -> None:
        self.starts = starts
        self.offsets = offsets
        self.kept = kept
        self.length = starts[-1]


Payload = Inline | Span | CodedSpan | IntPayload


@dataclass(slots=True, eq=False, repr=False)
class ArrayValue(Node):
    """A numpy array: `payload` for plain elements, `items` for objects; `built` once its state is known."""

    built: bool = field(default=False, init=False)
    fortran: bool = field(default=False, init=False)
    shape: tuple[int, ...] = field(default=(), init=False)
    dtype: DtypeValue = field(default_factory=lambda: DtypeValue(0, "u", 1), init=False)
    payload: Payload | None = field(default=None, init=False)
    items: list[Value] = field(default_factory=list, init=False)


NODES_IN_LISTS = frozenset({ListValue, TupleValue, SetValue, DictValue, ArrayValue})
"""The types whose depth and weight count for what holds them."""
