"""Writes MATLAB v5 files, from the description of the format."""

from __future__ import annotations

import struct
import zlib
from typing import Any

_TYPES = {
    "i1": (1, 8),
    "u1": (2, 9),
    "i2": (3, 10),
    "u2": (4, 11),
    "i4": (5, 12),
    "u4": (6, 13),
    "f4": (7, 7),
    "f8": (9, 6),
}


def header(order: str = "<", version: int = 0x0100, text: bytes = b"MATLAB 5.0 MAT-file") -> bytes:
    return text.ljust(124) + struct.pack(f"{order}H", version) + {"<": b"IM", ">": b"MI"}[order]


def part(kind: int, data: bytes, order: str = "<") -> bytes:
    """An element, in its tag if it fits."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(
    name: str, array: Any, order: str = "<", *, packed: bool = False, sides: Any = None, flags: int = 0
) -> bytes:
    """An array, column-major as MATLAB stores it; `sides` and `flags` say something else of it."""
    number, kind = _TYPES[array.dtype.str[1:]]
    shape = array.shape if sides is None else sides
    body = b"".join(
        (
            part(6, struct.pack(f"{order}II", flags or kind, 0), order),
            part(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
            part(1, name.encode(), order),
            part(number, array.astype(array.dtype.newbyteorder(order)).tobytes("F"), order),
        )
    )
    whole = struct.pack(f"{order}II", 14, len(body)) + body
    if not packed:
        return whole
    data = zlib.compress(whole)
    return struct.pack(f"{order}II", 15, len(data)) + data


def mat_file(order: str = "<", *, packed: bool = False, **arrays: Any) -> bytes:
    return header(order) + b"".join(matrix(name, array, order, packed=packed) for name, array in arrays.items())
