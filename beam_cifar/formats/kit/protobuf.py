"""Protocol buffers' wire format, for the few messages that are written without a compiled schema.

Facts: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Field: TypeAlias = "tuple[int, int | bytes | str]"
"""Number and value of a field: an integer, or what is written with its length: bytes, text, another message."""


def message(*fields: Field) -> bytes:
    r"""Returns a message of some fields; a negative integer is written as its 64-bit two's complement.

    >>> from beam_cifar.formats.kit.protobuf import message
    >>> message((1, 150), (2, "a cat"))
    b'\x08\x96\x01\x12\x05a cat'
    """
    pieces = []
    for number, value in fields:
        if isinstance(value, int):
            pieces += [varint(number << 3), varint(value & 0xFFFFFFFFFFFFFFFF)]
        else:
            data = value.encode() if isinstance(value, str) else value
            pieces += [varint(number << 3 | 2), varint(len(data)), data]
    return b"".join(pieces)


def packed(numbers: Iterable[int]) -> bytes:
    r"""Returns the value of a repeated field of integers.

    >>> from beam_cifar.formats.kit.protobuf import packed
    >>> packed([1, 150])
    b'\x01\x96\x01'
    """
    return b"".join(map(varint, numbers))


def varint(value: int) -> bytes:
    r"""Returns a varint: seven bits per byte, lowest first; all bytes but the last have the high bit set.

    >>> from beam_cifar.formats.kit.protobuf import varint
    >>> varint(150)
    b'\x96\x01'
    """
    made = bytearray()
    while value > 0x7F:
        made.append(0x80 | (value & 0x7F))
        value >>= 7
    made.append(value)
    return bytes(made)
