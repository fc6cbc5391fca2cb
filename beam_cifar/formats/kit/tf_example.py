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
# Tags: the number of a field times 8, and 2 for a value with its length before it. `Example.features`,
# `Features.feature`, key and value of an entry of that map, `BytesList.value` and `Int64List.value` (packed), and
# `Feature.bytes_list` have the first or second number; `Feature.int64_list` has the third.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
_MASK_DELTA = 0xA282EAD8


def serialized_example(features: Mapping[str, bytes | int]) -> bytes:
    """A `tf.Example` whose features have one value each, in the order given.

    Args:
        features: bytes, or an integer of 64 bits.
    """
    entries = (
        _integer_entry(name, value) if isinstance(value, int) else _bytes_entry(name, value)
        for name, value in features.items()
    )
    return _field(_FIRST, b"".join(entries))


def framed(records: Iterable[bytes]) -> bytes:
    """Records as they lie in a TFRecord file: each its length and data, with a masked CRC-32C behind both."""
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
    # Ten bytes for a negative number: its two's complement of 64 bits.
    return _entry(name, _field(_THIRD, _field(_FIRST, _varint(value & 0xFFFFFFFFFFFFFFFF))))


def _entry(name: str, feature: bytes) -> bytes:
    """One entry of the map of features."""
    return _field(_FIRST, _field(_FIRST, name.encode()) + _field(_SECOND, feature))


def _field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, _varint(len(value)), value))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last with the high bit set."""
    made = bytearray()
    while value > 0x7F:
        made.append(0x80 | (value & 0x7F))
        value >>= 7
    made.append(value)
    return bytes(made)
