"""Reads payloads (the bytes of arrays), which a pickle stores raw, as text, as escapes or as ints, chunk by chunk."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import BinaryIO

from beam_cifar.errors import PickleError
from beam_cifar.pickles.source import read_exact
from beam_cifar.pickles.values import CodedSpan, Inline, IntPayload, Payload, Span

DECODED_BYTES = 1 << 18
"""Encoded bytes decoded at a time: reading a single row decodes no more than this."""


def _cut_escape(chunk: bytes) -> int:
    """Returns where to cut a chunk so that no escape of Python 2's repr is split."""
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
    if plain.count(b"\\") != known:  # the codec would only warn about invalid escapes
        raise ValueError("unsupported escape, which Python 2 never writes")
    return chunk.decode("unicode_escape").encode("latin-1")


def _cut_uescape(chunk: bytes) -> int:
    last = chunk.rfind(b"\\", max(0, len(chunk) - 10))
    if last < 0:
        return len(chunk)
    size = 10 if chunk[last + 1 : last + 2] == b"U" else 6
    return len(chunk) if last + size <= len(chunk) else last


def decode_uescape(chunk: bytes) -> str:
    """Decodes protocol 0 text, in which every backslash starts a Unicode escape."""
    if chunk.count(b"\\") != chunk.count(b"\\u") + chunk.count(b"\\U"):
        raise ValueError("backslash that does not start a \\u escape")
    return chunk.decode("raw_unicode_escape")


def _cut_utf8(chunk: bytes) -> int:
    # Only characters up to U+00FF occur, which take at most two bytes.
    return len(chunk) - 1 if chunk[-1] >= 0xC0 else len(chunk)


DECODERS: dict[str, tuple[Callable[[bytes], int], Callable[[bytes], bytes]]] = {
    "escape": (_cut_escape, _decode_escape),
    "uescape": (_cut_uescape, lambda chunk: decode_uescape(chunk).encode("latin-1")),
    "utf-8": (_cut_utf8, lambda chunk: chunk.decode("utf-8").encode("latin-1")),
}
"""By coding: a function that returns where to cut a chunk, and one that decodes it."""


def decode(coding: str, chunk: bytes, name: str, offset: int) -> bytes:
    """Decodes a short payload, or a chunk of a long one."""
    try:
        return DECODERS[coding][1](chunk)
    except UnicodeEncodeError as error:
        raise PickleError(name, offset, "bytes as text have a character above U+00FF; expected Latin-1") from error
    except ValueError as error:
        raise PickleError(name, offset, f"bytes as text cannot be decoded ({coding})") from error


def index_coded(file: BinaryIO, name: str, coding: str, offset: int, size: int) -> CodedSpan:
    """Decodes `size` bytes at `offset` once, to find their decoded length and where each chunk starts."""
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
    """Reads ranges of a payload; keeps the last chunk, so that ascending ranges decode each chunk once."""

    def __init__(self, file: BinaryIO, name: str, payload: Payload) -> None:
        self._file = file
        self._name = name
        self._payload = payload
        self._index = -1
        self._block = b""

    def read(self, start: int, stop: int) -> bytes:
        """Returns the decoded bytes `start` to `stop`, which must be within the payload."""
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
                raise PickleError(self._name, offset, "the file changed after it was scanned; run the job again")
            self._index, self._block = index, block
        return self._block


def spans_of(payload: Payload) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of every range of the file that contains bytes of the payload."""
    if isinstance(payload, Span):
        yield payload.offset, payload.offset + payload.length
    elif isinstance(payload, CodedSpan):
        yield payload.offset, payload.stop
    elif isinstance(payload, IntPayload):
        for index, offset in enumerate(payload.offsets):
            if offset >= 0:
                yield offset, offset + 2 * (payload.starts[index + 1] - payload.starts[index])
