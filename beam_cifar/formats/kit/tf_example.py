"""Serialized `tf.Example` messages and TFRecord framing, without TensorFlow.

Facts: https://protobuf.dev/programming-guides/encoding, `feature.proto` and `example.proto` of TensorFlow, and
https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

from beam_cifar.formats.kit.protobuf import varint

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
# Tags: field number times 8, plus 2 for a length-prefixed value. Number 1: `Example.features`, `Features.feature`, the
# key of an entry in that map, `Feature.bytes_list`, `BytesList.value` and `Int64List.value` (packed). Number 2: the
# value of a map entry. Number 3: `Feature.int64_list`.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
_MASK_DELTA = 0xA282EAD8
# Wire types, and the sizes of those of a fixed size.
_VARINT, _SIZED = 0, 2
_FIXED = {1: 8, 5: 4}


def serialized_example(features: Mapping[str, bytes | int]) -> bytes:
    """Returns a `tf.Example` whose features have one value each, in the given order.

    Args:
        features: bytes, or a 64-bit integer, by name.
    """
    entries = (
        _integer_entry(name, value) if isinstance(value, int) else _bytes_entry(name, value)
        for name, value in features.items()
    )
    return _field(_FIRST, b"".join(entries))


def framed(records: Iterable[bytes]) -> bytes:
    """Returns records as in a TFRecord file: length and data of each, both followed by a masked CRC-32C."""
    import google_crc32c

    pieces = []
    for record in records:
        length = _LENGTH.pack(len(record))
        pieces += [length, _masked(google_crc32c.value(length)), record, _masked(google_crc32c.value(record))]
    return b"".join(pieces)


class Value(NamedTuple):
    """The value of a feature: bytes, by where they are in the message, or an integer.

    Attributes:
        start: position of the first byte.
        stop: position after the last byte.
        number: the integer; None for bytes.
    """

    start: int = 0
    stop: int = 0
    number: int | None = None


def example_values(record: bytes, names: Collection[str]) -> dict[str, Value]:
    """Returns the values of some features of a serialized `tf.Example`; those without a value are left out.

    Args:
        record: the message.
        names: names of features.

    Raises:
        ValueError: it is damaged, or one of the features has several values, or floats.

    >>> from beam_cifar.formats.kit.tf_example import example_values, serialized_example
    >>> record = serialized_example({"label": 3, "image": b"pixels"})
    >>> found = example_values(record, ["label", "image"])
    >>> found["label"].number, record[found["image"].start : found["image"].stop]
    (3, b'pixels')
    """
    found: dict[str, Value] = {}
    for features in _messages(record, 0, len(record), 1):
        for start, stop in _messages(record, *features, 1):
            first, last = _last(record, start, stop, 1)
            if first < last and (name := record[first:last].decode()) in names:
                found.pop(name, None)  # as in protobuf, the last entry of a map counts
                value = _value(record, *_last(record, start, stop, 2), name)
                if value is not None:
                    found[name] = value
    return found


def read_framed(stream: BinaryIO, size: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields offset and data of each record of a TFRecord file, all checksums checked.

    Args:
        stream: the file, at its start.
        size: its size in bytes.
        max_bytes: maximum size of a record.

    Raises:
        ValueError: it is damaged, or has a record that is too large.
    """
    import google_crc32c

    offset = 0
    while offset < size:
        head = stream.read(12)
        if len(head) < 12 or _masked(google_crc32c.value(head[:8])) != head[8:]:
            raise ValueError(f"no record begins at byte {offset}: its length does not have the right checksum")
        length = _LENGTH.unpack_from(head)[0]
        if length > max_bytes:
            raise ValueError(f"the record at byte {offset} has {length} bytes; at most {max_bytes} are supported")
        record, crc = stream.read(length), stream.read(4)
        if len(record) < length or _masked(google_crc32c.value(record)) != crc:
            raise ValueError(f"the record at byte {offset} is cut, or does not have the right checksum")
        yield offset + 12, record
        offset += 16 + length


def _value(record: bytes, start: int, stop: int, name: str) -> Value | None:
    """Returns the only value in the message `Feature`."""
    texts = (place for each in _messages(record, start, stop, 1) for place in _messages(record, *each, 1))
    numbers = (number for each in _messages(record, start, stop, 3) for number in _integers(record, *each))
    found = chain((Value(*place) for place in texts), (Value(number=number) for number in numbers))
    values = list(islice(found, 2))  # there may be millions
    if len(values) > 1 or any(True for _ in _messages(record, start, stop, 2)):
        kind = "several values" if len(values) > 1 else "floats"
        raise ValueError(f"feature {name[:80]!r} has {kind}; expected one of bytes, or one integer")
    return values[0] if values else None


def _integers(record: bytes, start: int, stop: int) -> Iterator[int]:
    """Yields the values of the message `Int64List`, packed or not."""
    for number, kind, first, last in _fields(record, start, stop):
        while number == 1 and kind in (_VARINT, _SIZED) and first < last:
            value, first = read_varint(record, first, last)
            yield value - (1 << 64) if value >> 63 else value


def _last(record: bytes, start: int, stop: int, wanted: int) -> tuple[int, int]:
    """Returns where the last of these values is, which is the one that counts; (0, 0) if there is none."""
    found = 0, 0
    for place in _messages(record, start, stop, wanted):
        found = place
    return found


def _messages(record: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yields where the values with a length of a field of a message are."""
    return (
        (first, last) for number, kind, first, last in _fields(record, start, stop) if (number, kind) == (wanted, 2)
    )


def _fields(record: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields number, wire type, start and stop of the value of each field of a message. Raises `ValueError`."""
    while start < stop:
        tag, start = read_varint(record, start, stop)
        kind = tag & 7
        if kind == _VARINT:
            last = read_varint(record, start, stop)[1]
        elif kind == _SIZED:
            length, start = read_varint(record, start, stop)
            last = start + length
        elif kind in _FIXED:
            last = start + _FIXED[kind]
        else:
            raise ValueError(f"it has a field of wire type {kind}, which is not valid in a tf.Example")
        if last > stop:
            raise ValueError("it is not a valid tf.Example: a value is longer than its message")
        yield tag >> 3, kind, start, last
        start = last


def read_varint(record: bytes, start: int, stop: int) -> tuple[int, int]:
    """Returns a varint of at most 64 bits, and where it ends."""
    value = 0
    for at in range(start, min(stop, start + 10)):
        value |= (record[at] & 0x7F) << 7 * (at - start)
        if record[at] < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + 1
    raise ValueError("it is not a valid tf.Example: a number has no end")


def _masked(crc: int) -> bytes:
    return _CRC.pack((((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)


def _bytes_entry(name: str, value: bytes) -> bytes:
    return _entry(name, _field(_FIRST, _field(_FIRST, value)))


@functools.lru_cache(maxsize=4096)
def _integer_entry(name: str, value: int) -> bytes:
    # A negative number takes ten bytes: protobuf encodes its 64-bit two's complement.
    return _entry(name, _field(_THIRD, _field(_FIRST, varint(value & 0xFFFFFFFFFFFFFFFF))))


def _entry(name: str, feature: bytes) -> bytes:
    """Returns one entry of the feature map."""
    return _field(_FIRST, _field(_FIRST, name.encode()) + _field(_SECOND, feature))


def _field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, varint(len(value)), value))
