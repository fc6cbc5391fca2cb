"""ArrayRecord files, which Grain and TFDS read at random, without their library: one record in each chunk.

Facts: `doc/riegeli_records_file_format.md` of https://github.com/google/riegeli, and `cpp/layout.proto` and
`cpp/array_record_writer.cc` of https://github.com/google/array_record, 0.8.6.

A file is a stream of chunks, cut into blocks of 64 KiB that begin with a header of 24 bytes. Positions here are those
in the stream, without these headers; a chunk has 40 bytes before its data. After the chunks of records come a chunk
that lists them, and in the last block one that says where that is.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa

from beam_cifar.data.text import counted
from beam_cifar.formats.kit.highway_hash import highway_hashes
from beam_cifar.formats.kit.protobuf import varint
from beam_cifar.formats.kit.tf_example import read_varint
from beam_cifar.storage.archives import MAX_RATIO, RATIO_FREE_BYTES

BLOCK: Final = 1 << 16
_BLOCK_HEAD: Final = 24
_USABLE: Final = BLOCK - _BLOCK_HEAD
_HASH: Final = struct.Struct("<Q")
# After the hash: size of the data, hash of the data, type and number of records, size of the records.
_CHUNK_HEAD: Final = struct.Struct("<4Q")
_HEAD_BYTES: Final = _HASH.size + _CHUNK_HEAD.size
_DISTANCES: Final = struct.Struct("<2Q")
_SIGNATURE, _RECORDS, _PADDING = b"srp"
_CODECS: Final = {ord("z"): "zstd", ord("b"): "brotli"}
_MAGIC: Final = 0x71930E704FDAE05E
_OPTIONS: Final = b"group_size:1,transpose:false,pad_to_block_boundary:false,uncompressed,max_parallelism:1"
# Chunks whose hashes are computed together.
_TOGETHER, _TOGETHER_BYTES = 256, 8 << 20


class ArrayRecordWriter:
    """Writes records, each in an uncompressed chunk of its own; the bytes are those of the library itself.

    Args:
        file: the output file.

    >>> import io
    >>> from beam_cifar.formats.kit.array_record import ArrayRecordWriter, read_array_record
    >>> writer = ArrayRecordWriter(file := io.BytesIO())
    >>> writer.append([b"a cat", b"a dog"])
    >>> writer.close()
    >>> list(read_array_record(file, len(file.getvalue()), 1000))
    [(64, b'a cat'), (112, b'a dog')]
    """

    def __init__(self, file: Any) -> None:
        self._file, self._at = file, 0
        self._places, self._sizes = array("Q"), array("Q")
        self._write(_chunks(_SIGNATURE, [(0, 0, b"")]))

    def append(self, records: Sequence[bytes]) -> None:
        """Appends records."""
        chunks = _record_chunks([[record] for record in records])
        self._places.extend(map(_place, [*accumulate(map(len, chunks), initial=self._at)][:-1]))
        self._sizes.extend(map(len, records))
        self._write(chunks)

    def close(self) -> None:
        """Writes the list of chunks; the underlying file stays open."""
        footer, count = _place(self._at), len(self._places)
        about = _numbers(1, count, count) + b"\x22" + varint(len(_OPTIONS)) + _OPTIONS
        places = (_numbers(*place, 1) for place in zip(self._places, self._sizes, strict=True))
        self._write(_record_chunks([[b"\x0a" + varint(len(about)) + about, *places]]))
        self._pad()
        self._write(_record_chunks([[_numbers(footer, _MAGIC)] * 3]))
        self._pad()

    def _pad(self) -> None:
        """Fills the block; where the head of a chunk does not fit, the next one too."""
        left = -self._at % _USABLE
        if left:
            size = (left if left >= _HEAD_BYTES else left + _USABLE) - _HEAD_BYTES
            self._write(_chunks(_PADDING, [(0, 0, bytes(size))]))

    def _write(self, chunks: Sequence[bytes]) -> None:
        """Writes chunks, and the headers of the blocks that begin at or in them."""
        ends = [*accumulate(map(len, chunks), initial=self._at)]
        cuts = range(-(-self._at // _USABLE) * _USABLE, ends[-1], _USABLE)
        heads = []
        for cut in cuts:
            chunk = bisect_right(ends, cut)
            heads.append(_DISTANCES.pack(_place(cut) - _place(ends[chunk - 1]), _place(ends[chunk]) - _place(cut)))
        stream, at = memoryview(b"".join(chunks)), 0
        for cut, head in zip(cuts, _hashed(heads), strict=True):
            self._file.write(stream[at : cut - self._at])
            self._file.write(head)
            at = cut - self._at
        self._file.write(stream[at:])
        self._at = ends[-1]


def read_array_record(stream: BinaryIO, size: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields position and data of each record of a file; the hashes of all chunks are checked.

    Args:
        stream: the file.
        size: its size in bytes.
        max_bytes: maximum size of a record.

    Raises:
        ValueError: it is damaged, has a record that is too large, or chunks of several records.
    """
    unpacked, limit = 0, max(4 * RATIO_FREE_BYTES, MAX_RATIO * size)
    stop = _end_of_records(stream, size)
    for chunks in _batches(stream, size // BLOCK * _USABLE, max_bytes):
        _check_hashes(chunks)
        for chunk in chunks:
            if chunk.records and chunk.at < stop:
                record = _record(chunk, max_bytes)
                unpacked += len(record)
                if unpacked > limit:
                    raise ValueError(
                        f"records unpack to more than {limit} bytes, at least {MAX_RATIO} times the size of the file; "
                        "refused as a decompression bomb"
                    )
                yield chunk.at, record


def array_record_at(stream: BinaryIO, at: int, max_bytes: int) -> bytes:
    """Returns the record at a position that `read_array_record` gave, not checked again. Raises `ValueError`."""
    return _record(_read_chunk(stream, at, max_bytes + BLOCK), max_bytes)


class _Chunk(NamedTuple):
    """A chunk.

    Attributes:
        at: its position.
        head: its first 40 bytes.
        data: what follows them.
    """

    at: int
    head: bytes
    data: bytes

    @property
    def where(self) -> str:
        return f"the chunk at byte {_place(self.at)}"

    @property
    def records(self) -> int:
        return int.from_bytes(self.head[25:32], "little")

    @property
    def unpacked(self) -> int:
        return int.from_bytes(self.head[32:], "little")


def _batches(stream: BinaryIO, stop: int, max_bytes: int) -> Iterator[list[_Chunk]]:
    """Yields the chunks before a position, some at a time, not yet checked."""
    at, held, chunks = 0, 0, list[_Chunk]()
    while at < stop:
        try:
            chunks.append(_read_chunk(stream, at, min(max_bytes + BLOCK, stop - at - _HEAD_BYTES)))
        except ValueError:
            yield chunks  # the hash of an earlier one says whether its size was wrong
            raise
        held += len(chunks[-1].data)
        at += _HEAD_BYTES + len(chunks[-1].data)
        if len(chunks) == _TOGETHER or held >= _TOGETHER_BYTES:
            yield chunks
            held, chunks = 0, []
    yield chunks


def _end_of_records(stream: BinaryIO, size: int) -> int:
    """Returns the position of the list of chunks, which a chunk in the last block says three times."""
    last = size // BLOCK * _USABLE - _USABLE
    if size % BLOCK or last <= 0:
        raise ValueError(f"it has {counted(size, 'byte')}; expected two or more blocks of {BLOCK:,} bytes")
    chunk = _read_chunk(stream, last, _USABLE)
    _check_hashes([chunk])
    said = chunk.data[len(chunk.data) - chunk.unpacked // 3 :]
    if not said.startswith(b"\x08") or not said.endswith(b"\x10" + varint(_MAGIC)):
        raise ValueError("it does not end as an ArrayRecord file does")
    block, rest = divmod(read_varint(said, 1, len(said))[0], BLOCK)
    found = block * _USABLE + max(0, rest - _BLOCK_HEAD)
    if found > last:
        raise ValueError(f"its list of chunks should begin at byte {_place(found)}, after its end")
    return found


def _read_chunk(stream: BinaryIO, at: int, limit: int) -> _Chunk:
    """Returns a chunk. Raises `ValueError` if it has more than `limit` bytes of data."""
    head = _read(stream, at, _HEAD_BYTES)
    size = _HASH.unpack_from(head, 8)[0]
    if size > limit:
        raise ValueError(f"the chunk at byte {_place(at)} has {size} bytes; expected at most {limit}")
    return _Chunk(at, head, _read(stream, at + _HEAD_BYTES, size))


def _read(stream: BinaryIO, at: int, size: int) -> bytes:
    """Returns bytes of the stream, without the headers of blocks."""
    first = at // _USABLE * BLOCK + at % _USABLE + _BLOCK_HEAD
    stream.seek(first)
    wanted = max(0, _place(at + size) - first)
    data = stream.read(wanted)
    if len(data) < wanted:
        raise ValueError(f"it is cut after byte {first + len(data)}")
    left = BLOCK - first % BLOCK
    rest = (data[begin + _BLOCK_HEAD : begin + BLOCK] for begin in range(left, len(data), BLOCK))
    return b"".join((data[:left], *rest))


def _check_hashes(chunks: Sequence[_Chunk]) -> None:
    heads = highway_hashes([chunk.head[_HASH.size :] for chunk in chunks])
    data = highway_hashes([chunk.data for chunk in chunks])
    for chunk, *found in zip(chunks, heads, data, strict=True):
        if found != [_HASH.unpack_from(chunk.head, at)[0] for at in (0, 16)]:
            raise ValueError(f"{chunk.where} does not have the right hash")


def _record(chunk: _Chunk, max_bytes: int) -> bytes:
    """Returns the only record of a chunk."""
    if chunk.head[24] != _RECORDS or chunk.records != 1 or not chunk.data:
        raise ValueError(
            f"{chunk.where} has {counted(chunk.records, 'record')} of the kind {chr(chunk.head[24])!r}; expected one "
            "of the kind 'r', as TFDS and Grain write them: write the file again with group_size:1"
        )
    if chunk.unpacked > max_bytes:
        raise ValueError(f"{chunk.where} unpacks to {chunk.unpacked} bytes; at most {max_bytes} are supported")
    sizes, at = read_varint(chunk.data, 1, len(chunk.data))
    values = chunk.data[at + sizes :]
    if chunk.data[0]:
        values = _unpacked(chunk, values)
    if len(values) != chunk.unpacked:
        raise ValueError(f"{chunk.where} has a record of other than the {chunk.unpacked} bytes that its head says")
    return values


def _unpacked(chunk: _Chunk, values: bytes) -> bytes:
    """Returns the compressed bytes of a chunk, and at most one more than there should be."""
    if chunk.data[0] not in _CODECS:
        raise ValueError(
            f"{chunk.where} has the compression {chr(chunk.data[0])!r}; expected one of {', '.join(_CODECS.values())}"
        )
    start = read_varint(values, 0, len(values))[1]
    try:
        with pa.CompressedInputStream(pa.BufferReader(values[start:]), _CODECS[chunk.data[0]]) as stream:
            return bytes(stream.read(chunk.unpacked + 1))
    except OSError as error:
        raise ValueError(f"{chunk.where} cannot be unpacked: {error}") from error


def _record_chunks(groups: Iterable[Sequence[bytes]]) -> list[bytes]:
    """Returns a chunk for each group of records."""
    return _chunks(_RECORDS, [(len(group), sum(map(len, group)), _simple(group)) for group in groups])


def _simple(records: Sequence[bytes]) -> bytes:
    sizes = b"".join(varint(len(record)) for record in records)
    return b"".join((b"\0", varint(len(sizes)), sizes, *records))


def _chunks(kind: int, contents: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    """Returns chunks of a number of records, their size, and data."""
    hashes = highway_hashes([data for *_, data in contents])
    heads = [
        _CHUNK_HEAD.pack(len(data), hashed, kind | count << 8, size)
        for (count, size, data), hashed in zip(contents, hashes, strict=True)
    ]
    return [head + data for head, (*_, data) in zip(_hashed(heads), contents, strict=True)]


def _hashed(heads: Sequence[bytes]) -> list[bytes]:
    """Returns heads of chunks or blocks, with the hash that they begin with."""
    return [_HASH.pack(hashed) + head for hashed, head in zip(highway_hashes(heads), heads, strict=True)]


def _numbers(*values: int) -> bytes:
    """Returns a message of protobuf whose fields are integers, numbered from 1."""
    return b"".join(bytes([number << 3]) + varint(value) for number, value in enumerate(values, 1))


def _place(at: int) -> int:
    """Returns the byte of the file where a chunk begins or ends that does so at a position of the stream."""
    block, rest = divmod(at, _USABLE)
    return block * BLOCK + (_BLOCK_HEAD + rest if rest else 0)
