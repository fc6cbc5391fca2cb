"""A window over a seekable file: small reads are served from memory, large ones are skipped by seek."""

from __future__ import annotations

from typing import BinaryIO, NoReturn

from beam_cifar.errors import PickleError

_FIRST_WINDOW = 1 << 13  # after a jump: little is known to be wanted
_LAST_WINDOW = 1 << 18


def shorten(value: object, limit: int = 80) -> str:
    """Returns `repr(value)` on one line and at most `limit` characters, to be echoed in a message."""
    if isinstance(value, (bytes, str)):
        value = value[:limit]
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_exact(file: BinaryIO, name: str, offset: int, count: int) -> bytes:
    """Returns the `count` bytes at `offset`. Raises `PickleError`: the file ends earlier."""
    file.seek(offset)
    data = file.read(count)
    while len(data) < count:  # a raw file may answer in parts
        more = file.read(count - len(data))
        if not more:
            raise PickleError(name, offset, f"truncated: {count} bytes expected, {len(data)} read")
        data += more
    return data


class PickleFile:
    """The bytes of one file with a position, as the opcode machine wants them.

    Attributes:
        buf: the bytes in memory; `buf[pos]` is the next one. Fast loops use both directly.
        size: of the file, in bytes.
        at: the offset that an error names: of the opcode being read.
        last: the latest short byte string that was read on its own, and the offset of its bytes.
    """

    __slots__ = ("_base", "_window", "_work_left", "at", "buf", "file", "last", "last_offset", "name", "pos", "size")

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.size = file.seek(0, 2)
        self.buf = self.last = b""
        self.pos = self.at = self.last_offset = self._base = 0
        self._work_left = 2 * self.size + (1 << 16)
        self._window = _FIRST_WINDOW

    @property
    def offset(self) -> int:
        """The offset of the next byte in the file."""
        return self._base + self.pos

    @property
    def left(self) -> int:
        """How many bytes the file still has."""
        return self.size - self._base - self.pos

    def refuse(self, reason: str) -> NoReturn:
        """Raises `PickleError` at the opcode being read."""
        raise PickleError(self.name, self.at, reason)

    def charge(self, work: int) -> None:
        """Counts work that one value of the file causes.

        Each value is used once, unless the memo repeats it; so the work for all is bounded by the file's size.
        """
        self._work_left -= work
        if self._work_left < 0:
            self.refuse("refers to the same values so often that reading them takes more work than the file is long")

    def _check_left(self, need: int) -> None:
        if need > self.left:
            self.refuse(f"truncated: the opcode needs {need} bytes, {self.left} left")

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
        """Returns the next `count` bytes, of which there are few."""
        if self.pos + count > len(self.buf):
            self.fill(count)
        self.pos += count
        return self.buf[self.pos - count : self.pos]

    def number(self, count: int) -> int:
        """Returns the next `count` bytes as an unsigned little-endian number."""
        return int.from_bytes(self.take(count), "little")

    def skip(self, count: int) -> None:
        """Moves over `count` bytes without reading those that are not in memory."""
        self._check_left(count)
        if self.pos + count <= len(self.buf):
            self.pos += count
            return
        self._base = self.offset + count
        self.buf = b""
        self.pos = 0
        self._window = _FIRST_WINDOW

    def find_newline(self) -> int:
        """Returns how many bytes lie before the next newline, streaming over a long line."""
        found = self.buf.find(b"\n", self.pos)
        if found >= 0:
            return found - self.pos
        start = self._base + len(self.buf)
        while start < self.size:
            block = read_exact(self.file, self.name, start, min(_LAST_WINDOW, self.size - start))
            found = block.find(b"\n")
            if found >= 0:
                return start + found - self.offset
            start += len(block)
        self.refuse(f"truncated: no end of line in the {self.left} bytes left")

    def line(self, limit: int) -> bytes:
        """Returns the next line, without its newline; one longer than `limit` bytes is refused."""
        count = self.find_newline()
        if count > limit:
            self.refuse(f"a line of {count} bytes; at most {limit} expected")
        return self.take(count + 1)[:-1]
