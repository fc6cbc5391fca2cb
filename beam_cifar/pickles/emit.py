"""Encodes values as pickle opcodes, byte for byte as Python 2.7's cPickle does with protocol 2 where possible."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index

MAX_STRING = (1 << 31) - 1  # BINSTRING has a signed length
RUN = 1000  # list items per APPENDS in cPickle


class Opcodes:
    """Encodes values and numbers the memo entries of those that cPickle memoises.

    Attributes:
        memo: number of the last memo entry; cPickle counts from 1.
    """

    def __init__(self) -> None:
        self.memo = 0

    def put(self) -> bytes:
        """Returns a PUT to the next memo entry."""
        self.memo += 1
        return put(self.memo)

    def text(self, value: str) -> bytes:
        """Returns a str and its PUT."""
        return text(value) + self.put()


def put(number: int) -> bytes:
    """Returns a PUT to a memo entry."""
    return b"q%c" % number if number < 256 else b"r" + number.to_bytes(4, "little")


def get(number: int) -> bytes:
    """Returns a GET of a memo entry below 256."""
    return b"h%c" % number


def string_head(count: int) -> bytes:
    """Returns the opcode and length before the `count` bytes of a Python 2 str. Raises `ValueError` if too long."""
    if count > MAX_STRING:
        raise ValueError(f"array has {count} bytes; a Python 2 pickle supports at most {MAX_STRING}")
    return b"U%c" % count if count < 256 else b"T" + count.to_bytes(4, "little")


def text(value: str) -> bytes:
    """Returns ASCII text as a Python 2 str, other text as unicode, which all readers decode in the same way."""
    data = value.encode("utf-8")
    if value.isascii():
        return string_head(len(data)) + data
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value: int | None) -> bytes:
    """Returns an int of at most 8 bytes, or None."""
    if value is None:
        return b"N"
    value = index(value)
    if 0 <= value < 256:
        return b"K%c" % value
    if 0 <= value < 1 << 16:
        return b"M" + value.to_bytes(2, "little")
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    if -(1 << 63) <= value < 1 << 63:
        return b"I%d\n" % value
    raise ValueError(f"int {value} is out of range; expected at most 8 bytes")


def before_item(position: int, count: int) -> bytes:
    """Returns the opcode before item `position` of a list of `count` items, if any."""
    return b"(" if position % RUN == 0 and position + 1 < count else b""


def after_item(position: int, count: int) -> bytes:
    """Returns the opcode after item `position` of a list of `count` items: a last run of one uses APPEND."""
    last = position + 1 == count
    if last and position % RUN == 0:
        return b"a"
    return b"e" if last or position % RUN == RUN - 1 else b""


class ListBuffer:
    """The encoded items of a list of known length."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.added = 0
        self.data = bytearray()

    def extend(self, items: Iterable[bytes]) -> None:
        """Adds encoded items."""
        for item in items:
            self.data += before_item(self.added, self.count)
            self.data += item
            self.data += after_item(self.added, self.count)
            self.added += 1
