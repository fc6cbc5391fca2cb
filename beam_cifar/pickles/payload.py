"""Decodes payloads block by block: array bytes that a pickle holds raw, as text, as escapes or as ints."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import BinaryIO

from beam_cifar.errors import PickleError
from beam_cifar.pickles.source import read_exact
from beam_cifar.pickles.values import CodedSpan, Inline, IntPayload, Payload, Span

DECODED_BYTES = 1 << 18
"""Encoded bytes that are decoded at a time: a reader that wants one row of many decodes no more than this."""


def _cut_escape(chunk: bytes) -> int:
    """Returns where to cut so that no escape of Python 2's repr is split."""
    last = chunk.rfind(b"\\", max(0, len(chunk) - 4))
    if last < 0:
        return len(chunk)
    run = last + 1 - len(chunk[: last + 1].rstrip(b"\\"))
    if run % 2 == 0:  # `last` closes a pair
        return len(chunk)
    size = 4 if chunk[last + 1 : last + 2] == b"x" else 2
    return len(chunk) if last + size <= len(chunk) else last


def _decode_escape(chunk: bytes) -> bytes:
    plain = chunk.replace(b"\\\\", b"__")
    known = sum(map(plain.count, (b"\\x", b"\\'", b'\\"', b"\\n", b"\\r", b"\\t")))
    if plain.count(b"\\") != known:  # also keeps the codec from warning
        raise ValueError("an escape that Python 2 never writes")
    return chunk.decode("unicode_escape").encode("latin-1")


def _cut_uescape(chunk: bytes) -> int:
    last = chunk.rfind(b"\\", max(0, len(chunk) - 10))
    if last < 0:
        return len(chunk)
    size = 10 if chunk[last + 1 : last + 2] == b"U" else 6
    return len(chunk) if last + size <= len(chunk) else last


def decode_uescape(chunk: bytes) -> str:
    """Decodes protocol 0's text, which holds a backslash only at the start of a Unicode escape."""
    if chunk.count(b"\\") != chunk.count(b"\\u") + chunk.count(b"\\U"):
        raise ValueError("a backslash that starts no \\u escape")
    return chunk.decode("raw_unicode_escape")


def _cut_utf8(chunk: bytes) -> int:
    # Characters up to U+00FF take two bytes at most.
    return len(chunk) - 1 if chunk[-1] >= 0xC0 else len(chunk)


DECODERS: dict[str, tuple[Callable[[bytes], int], Callable[[bytes], bytes]]] = {
    "escape": (_cut_escape, _decode_escape),
    "uescape": (_cut_uescape, lambda chunk: decode_uescape(chunk).encode("latin-1")),
    "utf-8": (_cut_utf8, lambda chunk: chunk.decode("utf-8").encode("latin-1")),
}
"""Per coding: where to cut a block, and how to decode a whole one."""


def decode(coding: str, chunk: bytes, name: str, offset: int) -> bytes:
    """Decodes a short payload, or a block of a long one."""
    try:
        return DECODERS[coding][1](chunk)
    except UnicodeEncodeError as error:
        raise PickleError(name, offset, "bytes as text hold a character above U+00FF; expected Latin-1") from error
    except ValueError as error:
        raise PickleError(name, offset, f"bytes as text cannot be decoded ({coding})") from error


def index_coded(file: BinaryIO, name: str, coding: str, offset: int, size: int) -> CodedSpan:
    """Decodes `size` bytes at `offset` once, to learn their decoded length and a starting point per block."""
    starts, offsets = array("q"), array("q")
    position, stop = 0, offset + size
    cut = DECODERS[coding][0]
    while offset < stop:
        chunk = read_exact(file, name, offset, min(DECODED_BYTES, stop - offset))
        if offset + len(chunk) < stop:
            chunk = chunk[: cut(chunk)]
        starts.append(position)
        offsets.append(offset)
        position += len(decode(coding, chunk, name, offset))
        offset += len(chunk)
    starts.append(position)
    offsets.append(stop)
    return CodedSpan(coding, starts, offsets)


class PayloadReader:
    """Reads ranges of a payload; remembers the last block, so that rising ranges decode each block once."""

    def __init__(self, file: BinaryIO, name: str, payload: Payload) -> None:
        self._file = file
        self._name = name
        self._payload = payload
        self._index = -1
        self._block = b""

    def read(self, start: int, stop: int) -> bytes:
        """Returns the decoded bytes `start` to `stop`, which must lie in the payload."""
        payload = self._payload
        if isinstance(payload, Span):
            return read_exact(self._file, self._name, payload.offset + start, stop - start)
        if isinstance(payload, Inline):
            return payload.data[start:stop]
        if start >= stop:
            return b""
        index = bisect_right(payload.starts, start) - 1
        parts = []
        while start < stop:
            base, end = payload.starts[index], payload.starts[index + 1]
            parts.append(self._load(payload, index)[start - base : stop - base])
            start = end
            index += 1
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def _load(self, payload: CodedSpan | IntPayload, index: int) -> bytes:
        if index != self._index:
            offset, expected = payload.offsets[index], payload.starts[index + 1] - payload.starts[index]
            if isinstance(payload, CodedSpan):
                chunk = read_exact(self._file, self._name, offset, payload.offsets[index + 1] - offset)
                block = decode(payload.coding, chunk, self._name, offset)
            elif offset < 0:
                block = payload.kept[index]
            else:
                block = read_exact(self._file, self._name, offset, 2 * expected)[1::2]
            if len(block) != expected:
                raise PickleError(self._name, offset, "the file has changed since it was scanned")
            self._index, self._block = index, block
        return self._block


def spans_of(payload: Payload) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of every part of the file that holds the payload."""
    if isinstance(payload, Span):
        yield payload.offset, payload.offset + payload.length
    elif isinstance(payload, CodedSpan):
        yield payload.offset, payload.stop
    elif isinstance(payload, IntPayload):
        for index, offset in enumerate(payload.offsets):
            if offset >= 0:
                yield offset, offset + 2 * (payload.starts[index + 1] - payload.starts[index])
