"""Changes files where a parser looks: opcodes of a pickle, fields of tar and zip, chunks of PNG, tokens of text.

What a checksum protects is changed and given its new checksum, or the parser would stop there and see no more.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickletools
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_cifar.formats.kit.tf_example import framed

LARGEST = 1 << 16
"""Bytes of a mutant: what is wrong with a parser shows in small files, and they are quick."""

Mutator = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 4095, 4096, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"9" * 5000,
    b"0x10",
    b"1_0",
    "٣".encode(),
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
    b"../",
)


def plain(data: bytes, random: Random) -> bytes:
    """Changes bytes without knowing what they are."""
    at = random.randrange(len(data) + 1)
    size = min(random.choice((1, 1, 2, 4, 8, 16, 64)), len(data) - at)
    piece = data[at : at + size]
    kind = random.randrange(9)
    if kind == 0 and data:
        flipped = bytearray(data)
        flipped[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + piece * random.choice((2, 3, 17, 1000, 4000)) + data[at + size :]
    if kind == 3:
        return data[:at] + random.randbytes(size) + data[at + size :]
    if kind == 4:
        width = random.choice((1, 2, 4, 8))
        number = random.choice(_NUMBERS) % (1 << 8 * width)
        return data[:at] + number.to_bytes(width, random.choice(("little", "big"))) + data[at + width :]
    if kind == 5:
        return data[:at] + random.choice(_TEXTS) + data[at + random.choice((0, size)) :]
    if kind == 6:
        return data[:at]
    if kind == 7:
        other = random.randrange(len(data) + 1)
        return data[:at] + data[other : other + size * 8] + data[at:]
    return data[:at] + piece[::-1] + data[at + size :]


_OPCODES = tuple(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
_BITS = (
    *(
        b"N",
        b")",
        b"]",
        b"}",
        b"(",
        b"t",
        b"e",
        b"u",
        b"a",
        b"s",
        b"R",
        b"b",
        b"0",
        b"2",
        b"1",
        b"h\x01",
        b"q\x01",
        b"\x94",
    ),
    *(
        b"K\x00",
        b"J\xff\xff\xff\x7f",
        b"J\xff\xff\xff\xff",
        b"\x8a\x08" + b"\xff" * 8,
        b"I01\n",
        b"L5L\n",
        b"G" + b"\x7f\xf0" * 4,
    ),
    *(
        b"U\x01b",
        b"X\x02\x00\x00\x00\xd0\xb6",
        b"cnumpy\ndtype\n",
        b"c_codecs\nencode\n",
        b"\x85",
        b"\x86",
        b"\x87",
        b"h\x00",
    ),
    *(b"T\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"\x95" + bytes(8), b"I" + b"9" * 5000 + b"\n", b"K\x01K\x03\x86"),
)


def opcodes(data: bytes, random: Random) -> bytes:
    """Changes a pickle by whole opcodes."""
    starts: list[int] = []
    with suppress(Exception):  # what follows the last is no pickle any more
        starts.extend(place for _, _, place in pickletools.genops(data) if place is not None)
    if len(starts) < 2 or random.random() < 0.3:
        return plain(data, random)
    parts = [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]
    at = random.randrange(len(parts))
    kind = random.randrange(7)
    if kind == 0:
        del parts[at : at + random.choice((1, 1, 2, 5))]
    elif kind == 1:
        parts.insert(at, random.choice(_BITS))
    elif kind == 2:
        parts[at] = random.choice(_BITS)
    elif kind == 3:
        parts[at] = random.choice(_OPCODES) + parts[at][1:]
    elif kind == 4:
        parts[at:at] = parts[at : at + random.randrange(1, 9)] * random.choice((1, 1, 2, 40, 1000))
    elif kind == 5:
        other = random.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    else:
        parts[at] = parts[at][:1] + plain(parts[at][1:], random)
    return b"".join(parts)


_FIELDS = ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 6), (345, 155))
_TYPES = b"\x00012345678LKxgSVDMNX"


def tar(data: bytes, random: Random) -> bytes:
    """Changes a field of a header of a tar file, and its checksum."""
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads or random.random() < 0.4:
        return plain(data, random)
    at = random.choice(heads)
    head = bytearray(data[at : at + 512])
    start, size = random.choice(_FIELDS)
    if start == 156:
        head[156] = random.choice(_TYPES)
    else:
        digits = b"%o" % random.choice(_NUMBERS)
        made = random.choice(
            (digits, b"\x80" + struct.pack(">Q", random.choice(_NUMBERS)).rjust(size - 1, b"\0"), b"-1", b"")
        )
        head[start : start + size] = plain(made, random)[:size].ljust(size, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % (sum(head) & 0o777777)
    return data[:at] + bytes(head) + data[at + 512 :]


def zipped(data: bytes, random: Random) -> bytes:
    """Changes a field of a local header, of the directory or of its end in a zip file."""
    found = [(data.find(sign, random.randrange(len(data) + 1)), size) for sign, size in _RECORDS]
    found = [(at, size) for at, size in found if at >= 0]
    if not found or random.random() < 0.3:
        return plain(data, random)
    at, size = random.choice(found)
    place, width = at + random.randrange(4, size), random.choice((1, 2, 4))
    number = random.choice((*_NUMBERS, len(data), at)) % (1 << 8 * width)
    return data[:place] + number.to_bytes(width, "little") + data[place + width :]


_RECORDS = ((b"PK\3\4", 30), (b"PK\1\2", 46), (b"PK\5\6", 22))


def png(data: bytes, random: Random) -> bytes:
    """Changes a chunk of a PNG file, and its checksum."""
    at, chunks = 8, []
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks or data[:1] != b"\x89" or random.random() < 0.3:
        return plain(data, random)
    place = random.randrange(len(chunks))
    kind, body = chunks[place]
    change = random.randrange(4)
    if change == 0:
        chunks.insert(place, (random.choice((kind, b"PLTE", b"tRNS", b"IDAT", b"acTL", b"IHDR")), body))
    elif change == 1 and kind == b"IDAT":
        chunks[place] = (kind, zlib.compress(plain(b"\0" * random.choice((10, 100, 3000)), random)))
    else:
        chunks[place] = (kind, plain(body, random))
    pieces = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:8] + b"".join(pieces)


def archive(data: bytes, random: Random) -> bytes:
    """Changes a zip or tar file."""
    return (zipped if data.startswith(b"PK") else tar)(data, random)


def after(mark: bytes, size: int) -> Mutator:
    """Returns a mutator of so many bytes from a mark on, which has the fields of what follows; at times of others."""

    def mutate(data: bytes, random: Random) -> bytes:
        places = [found.start() for found in re.finditer(re.escape(mark), data)]
        if not places or random.random() < 0.2:
            return plain(data, random)
        at = random.choice(places)
        return data[:at] + plain(data[at : at + size], random) + data[at + size :]

    return mutate


def matlab(data: bytes, random: Random) -> bytes:
    """Changes the head of an array in a MATLAB file, and packs or stores it again."""
    at, elements = 128, list[bytes]()
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        element = data[at : at + 8 + size]
        with suppress(zlib.error):
            element = zlib.decompressobj().decompress(element[8:], LARGEST) if kind == 15 else element
        elements.append(element)
        at += 8 + size
    if not elements or random.random() < 0.2:
        return plain(data, random)
    place = random.randrange(len(elements))
    elements[place] = plain(elements[place][:80], random) + elements[place][80:]
    if random.random() < 0.2:
        elements.append(random.choice(elements))
    if random.random() < 0.5:
        return data[:128] + b"".join(elements)
    return data[:128] + b"".join(struct.pack("<II", 15, len(p)) + p for p in map(zlib.compress, elements))


def message(data: bytes, random: Random) -> bytes:
    """Changes a field of a protobuf message, or of one within it, and the lengths around it."""
    fields, at = list[tuple[int, bytes]](), 0
    with suppress(IndexError):  # what follows is no field
        while at < len(data):
            tag, start = _varint(data, at)
            size, end = _varint(data, start)
            start, at = (end, end + size) if tag & 7 == 2 else (start, start + _FIXED.get(tag & 7, end - start))
            fields.append((tag, data[start:at]))
    if not fields or random.random() < 0.2:
        return plain(data, random)
    place, change = random.randrange(len(fields)), random.randrange(8)
    tag, body = fields[place]
    if change == 0:
        fields.insert(random.randrange(len(fields)), fields[place])
    elif change == 1:
        del fields[place]
    elif change == 2:
        fields[place] = random.randrange(1, 5) << 3 | random.choice((0, 1, 2, 5)), body
    else:
        fields[place] = tag, (message if tag & 7 == 2 else plain)(body, random)
    return b"".join(_varint_of(tag) + (_varint_of(len(body)) if tag & 7 == 2 else b"") + body for tag, body in fields)


_FIXED = {1: 8, 5: 4}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 0x7F:
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _varint_of(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes((*made, value))


def tfrecord(data: bytes, random: Random) -> bytes:
    """Changes a record of a TFRecord file, and its checksums."""
    at, records = 0, list[bytes]()
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        records.append(data[at + 12 : at + 12 + size])
        at += 16 + size
    if not records or random.random() < 0.1:
        return plain(data, random)
    place, change = random.randrange(len(records)), random.randrange(10)
    if change == 0:
        records.insert(place, random.choice(records))
    elif change == 1:
        del records[place]
    else:
        records[place] = message(records[place], random)
    return framed(records)


def words(*tokens: bytes) -> Mutator:
    """Returns a mutator of text that also puts tokens of a language into it."""

    def mutate(data: bytes, random: Random) -> bytes:
        if random.random() < 0.5:
            return plain(data, random)
        at = random.randrange(len(data) + 1)
        token = random.choice(tokens)
        token *= min(random.choice((1, 1, 1, 2, 30, 2000)), LARGEST // len(token))
        return data[:at] + token + data[at + random.choice((0, 0, 1, len(token))) :]

    return mutate


json_words = words(
    *b'[ ] { } , : " "" null true NaN -1 1.5 1e400 \\ud800 \\u0000 {"a":'.split(), b"9" * 5000, b"[[", b"\xef\xbb\xbf"
)


def arrow(data: bytes, random: Random) -> bytes:
    """Changes a column of an Arrow stream, or bytes of its messages."""
    return _table(data, random, pa.ipc.open_stream, pa.ipc.new_stream) or _in_messages(data, random)


def parquet(data: bytes, random: Random) -> bytes:
    """Changes a column of a Parquet file, or its bytes."""
    return _table(data, random, pq.ParquetFile, pq.ParquetWriter) or plain(data, random)


_in_messages = after(b"\xff\xff\xff\xff", 700)


def _table(data: bytes, random: Random, reader: Callable[[Any], Any], writer: Callable[[Any, Any], Any]) -> bytes:
    """Returns a file with another column; at times, and if its own cannot be read or written, nothing."""
    sink = io.BytesIO()
    if random.random() < 0.5:
        return b""
    with suppress(Exception):
        file = reader(pa.BufferReader(data))
        table = file.read_all() if hasattr(file, "read_all") else file.read()
        names, columns = table.column_names, table.columns
        place, change, model = random.randrange(len(names)), random.randrange(3), random.choice(_COLUMNS)
        made = pa.array([random.choice(model).as_py() for _ in range(table.num_rows)], model.type)
        taken = slice(place, place + random.randrange(2))
        columns[taken], names[taken] = (
            [made if change < 2 else columns[place]],
            [random.choice((names[place], *_NAMES))],
        )
        facts = {key: json_words(value, random) for key, value in (table.schema.metadata or {}).items()}
        table = pa.table(columns, names, random.choice((facts, table.schema.metadata)))
        with writer(sink, table.schema) as target:
            target.write_table(table, random.choice((1, 3, 1000)))
        return sink.getvalue()
    return b""


_NAMES = (
    "img",
    "image",
    "label",
    "coarse_label",
    "fine_label",
    "id",
    "img.bytes",
    "bytes",
    "path",
    "split",
    "",
    "a\nb",
)
_TEXT = ["cat", None, "", "a/b.png", "x" * 5000, "a\nb", "../c", "\0"]
_IMAGES = [None, b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9", b"GIF89a\1\0\1\0"]
_COLUMNS: tuple[Any, ...] = (
    *(pa.array([0, 1, 3, None], kind) for kind in (pa.int8(), pa.int64(), pa.float32(), pa.duration("s"), pa.date32())),
    *(pa.array([2**63, None, 2**64 - 1], pa.uint64()), pa.array([math.nan, math.inf, -1e300, 0.5]), pa.nulls(3)),
    *(pa.array([True, None]), pa.array([Decimal("1.5"), None]), pa.array([[1, 2], [], None]), pa.array([{}, None])),
    *(pa.array(_TEXT, kind) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *(pa.array(_IMAGES, kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    *(pa.array(values).dictionary_encode() for values in (_TEXT, _IMAGES, [1, None])),
    *(pa.array([b"abcd", None], pa.binary(4)), pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))),
    *(pa.array([_IMAGES, [], None]), pa.array([[{"bytes": each} for each in _IMAGES], None])),
    pa.array([{"bytes": image, "path": text} for image, text in zip(_IMAGES, _TEXT, strict=False)]),
    pa.array([{"path": "a", "bytes": 1}, None]),
)
"""Values of a column, of every kind."""


def account(data: bytes, random: Random) -> bytes:
    """Changes the account of a part, and its digest."""
    try:
        facts, _ = json.loads(data)
        changed = json_words(facts.encode(), random).decode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return json_words(data, random)
    if random.random() < 0.2:
        return json_words(data, random)
    return json.dumps([changed, hashlib.sha256(changed.encode()).hexdigest()]).encode()


def of_file(mutators: Sequence[Mutator]) -> Mutator:
    """Returns the mutator for "number of a file, content": each file has its own."""

    def mutate(data: bytes, random: Random) -> bytes:
        number = data[0] if data else 0
        return data[:1] + mutators[number % len(mutators)](data[1:], random)

    return mutate


def mutated(data: bytes, random: Random, mutator: Mutator) -> bytes:
    """Returns a file after one to four changes."""
    for _ in range(random.choice((1, 1, 2, 4))):
        data = mutator(data, random)[:LARGEST]
    return data
