"""Serialized `tf.Example` messages and TFRecord framing, without TensorFlow.

Facts: https://protobuf.dev/programming-guides/encoding, `feature.proto` and `example.proto` of TensorFlow, and
https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
# Tags: field number times 8, plus 2 for a length-prefixed value. Number 1: `Example.features`, `Features.feature`, the
# key of an entry in that map, `Feature.bytes_list`, `BytesList.value` and `Int64List.value` (packed). Number 2: the
# value of a map entry. Number 3: `Feature.int64_list`.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
_MASK_DELTA = 0xA282EAD8


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


def _masked(crc: int) -> bytes:
    return _CRC.pack((((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF)


def _bytes_entry(name: str, value: bytes) -> bytes:
    return _entry(name, _field(_FIRST, _field(_FIRST, value)))


@functools.lru_cache(maxsize=4096)
def _integer_entry(name: str, value: int) -> bytes:
    # A negative number takes ten bytes: protobuf encodes its 64-bit two's complement.
    return _entry(name, _field(_THIRD, _field(_FIRST, _varint(value & 0xFFFFFFFFFFFFFFFF))))


def _entry(name: str, feature: bytes) -> bytes:
    """Returns one entry of the feature map."""
    return _field(_FIRST, _field(_FIRST, name.encode()) + _field(_SECOND, feature))


def _field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, _varint(len(value)), value))


def _varint(value: int) -> bytes:
    """Returns a varint: seven bits per byte, lowest first; all bytes but the last have the high bit set."""
    made = bytearray()
    while value > 0x7F:
        made.append(0x80 | (value & 0x7F))
        value >>= 7
    made.append(value)
    return bytes(made)
