"""Buffered reading of a seekable file: small values are read from memory, large ones skipped by seeking."""

from __future__ import annotations

from typing import BinaryIO, NoReturn

from beam_cifar.data.text import counted
from beam_cifar.errors import PickleError

FREE_BYTES = 1 << 27
"""Memory that the values of any file may take; half of its size on disk is added for large ones."""

_FIRST_WINDOW = 1 << 13  # after a seek: most of what follows may be skipped again
_LAST_WINDOW = 1 << 18


def shorten(value: object, limit: int = 80) -> str:
    """Returns `repr(value)` on one line, shortened to `limit` characters for use in messages."""
    if isinstance(value, (bytes, str)):
        value = value[:limit]
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_exact(file: BinaryIO, name: str, offset: int, count: int) -> bytes:
    """Returns the `count` bytes at `offset`. Raises `PickleError` if the file ends earlier."""
    file.seek(offset)
    data = file.read(count)
    while len(data) < count:  # an unbuffered file may return fewer bytes
        more = file.read(count - len(data))
        if not more:
            raise PickleError(name, offset, f"truncated: expected {counted(count, 'byte')}, found {len(data):,}")
        data += more
    return data


class PickleFile:
    """A file with a read position, for the opcode machine.

    Attributes:
        buf: the bytes in memory; `buf[pos]` is the next one. Fast loops use both directly.
        size: size of the file in bytes.
        memory_left: bytes of memory that further values may take.
        at: offset of the current opcode, for errors.
        crlf: whether lines end with CR LF, as in a text-mode copy of protocol 0 on Windows; None before the first line.
        last: the last short byte string that was read on its own; its bytes are at `last_offset`.
    """

    __slots__ = (
        "_base",
        "_window",
        "at",
        "buf",
        "crlf",
        "file",
        "last",
        "last_offset",
        "memory_left",
        "name",
        "pos",
        "size",
    )

    def __init__(self, file: BinaryIO, name: str, stored: int | None = None) -> None:
        self.file, self.name = file, name
        self.size = file.seek(0, 2)
        self.buf = self.last = b""
        self.crlf: bool | None = None
        self.pos = self.at = self.last_offset = self._base = 0
        self.memory_left = FREE_BYTES + (self.size if stored is None else min(self.size, stored)) // 2
        self._window = _FIRST_WINDOW

    @property
    def offset(self) -> int:
        """Offset of the next byte in the file."""
        return self._base + self.pos

    @property
    def left(self) -> int:
        """Number of bytes left in the file."""
        return self.size - self._base - self.pos

    def refuse(self, reason: str) -> NoReturn:
        """Raises `PickleError` at the current opcode."""
        raise PickleError(self.name, self.at, reason)

    def charge(self, nbytes: int) -> None:
        """Counts the memory that a value takes, and refuses a file whose values take too much.

        Everything is charged for what it becomes: a list of one byte in the file takes 200 bytes, a name that the memo
        repeats at two bytes each is as long every time. A CIFAR batch of 10,000 rows is charged 5 MB.
        """
        self.memory_left -= nbytes
        if self.memory_left < 0:
            self.refuse(f"its values take more memory than a CIFAR file of {self.size} bytes needs; refused as a bomb")

    def _check_left(self, need: int) -> None:
        if need > self.left:
            self.refuse(
                f"truncated: the opcode needs {counted(need, 'byte')}, but only {counted(self.left, 'is', 'are')} left"
            )

    def fill(self, need: int) -> None:
        """Makes at least `need` bytes available in `buf` after `pos`."""
        self._check_left(need)
        rest = self.buf[self.pos :]
        self._base = self.offset
        start = self._base + len(rest)
        count = min(max(need - len(rest), self._window), self.size - start)
        self._window = min(self._window * 2, _LAST_WINDOW)
        self.buf = rest + read_exact(self.file, self.name, start, count)
        self.pos = 0

    def take(self, count: int) -> bytes:
        """Returns the next `count` bytes; meant for small counts."""
        if self.pos + count > len(self.buf):
            self.fill(count)
        self.pos += count
        return self.buf[self.pos - count : self.pos]

    def number(self, count: int) -> int:
        """Returns the next `count` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(count), "little")

    def skip(self, count: int) -> None:
        """Skips `count` bytes without reading those that are not in memory."""
        self._check_left(count)
        if self.pos + count <= len(self.buf):
            self.pos += count
            return
        self._base = self.offset + count
        self.buf = b""
        self.pos = 0
        self._window = _FIRST_WINDOW

    @property
    def newline_bytes(self) -> int:
        """Number of bytes that end a line, once one was found."""
        return 2 if self.crlf else 1

    def find_newline(self) -> int:
        """Returns the number of bytes before the next newline; a long line is streamed, not kept in memory."""
        found = self.buf.find(b"\n", self.pos)
        if found >= 0:
            return self._before_newline(found - self.pos, self.buf[max(self.pos, found - 1) : found])
        start, last = self._base + len(self.buf), self.buf[self.pos :][-1:]
        while start < self.size:
            block = read_exact(self.file, self.name, start, min(_LAST_WINDOW, self.size - start))
            found = block.find(b"\n")
            if found >= 0:
                return self._before_newline(start + found - self.offset, block[found - 1 : found] if found else last)
            start, last = start + len(block), block[-1:]
        self.refuse(f"truncated: no end of line in the {counted(self.left, 'byte')} left")

    def _before_newline(self, count: int, last: bytes) -> int:
        """Returns the length of a line of `count` bytes before LF, of which `last` is the last one."""
        if self.crlf is None:
            self.crlf = last == b"\r"
        if not self.crlf:
            return count
        if last != b"\r":
            self.refuse("line ends with LF; expected CR LF, as those before it")
        return count - 1

    def line(self, limit: int) -> bytes:
        """Returns the next line without its newline. Refuses a line longer than `limit` bytes."""
        count = self.find_newline()
        if count > limit:
            self.refuse(f"line of {count} bytes; expected at most {limit}")
        return self.take(count + self.newline_bytes)[:count]
