"""Ids of rows: natural order, and making them unique."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

_HASHED_BYTES: Final = 1 << 17


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Returns a key for natural order: data_batch_2 before data_batch_10; a01 and a1, equal so far, by their text."""
    parts = re.split(r"([0-9]+)", name)
    # Compared by length and digits, because some numbers are too long for int().
    digits = [part.lstrip("0") if at % 2 else part for at, part in enumerate(parts)]
    return [(0, len(part), part) if at % 2 else (1, 0, part) for at, part in enumerate(digits)], name


def natural_bytes(name: str) -> bytes:
    """Returns bytes that sort like `natural_key`, for Arrow: texts end in 00 01, numbers are 02, length, digits."""
    made = []
    for at, part in enumerate(re.split(r"([0-9]+)", name)):
        if at % 2:
            digits = part.lstrip("0").encode()
            made += [b"\2", len(digits).to_bytes(4, "big"), digits]
        else:
            made += [part.encode().replace(b"\0", b"\0\xff"), b"\0\1"]
    return b"".join([*made, b"\1", name.encode()])


def unique_ids(ids: Sequence[str]) -> tuple[list[str], int]:
    """Adds the first free suffix _2, _3, ... to every repetition of an id.

    Returns:
        The ids, and the number of ids changed.
    """
    made = list(ids)
    taken, repeated = set(made), 0
    if len(taken) == len(made):
        return made, 0
    following: dict[str, int] = {}
    for row, name in enumerate(made):
        if name not in following:
            following[name] = 2
            continue
        while f"{name}_{following[name]}" in taken:
            following[name] += 1
        made[row] = f"{name}_{following[name]}"
        taken.add(made[row])
        repeated += 1
    return made, repeated


def unique_texts(ids: pa.Array) -> tuple[pa.Array, int]:
    """`unique_ids` for a `string` array without nulls."""
    import pyarrow as pa

    if not _may_repeat(ids):
        return ids, 0
    made, repeated = unique_ids(ids.to_pylist())
    return (pa.array(made, pa.string()), repeated) if repeated else (ids, 0)


def _may_repeat(texts: pa.Array) -> bool:
    """Returns whether a text occurs twice; wrongly True only if two hashes of 64 bits are equal.

    Arrow's `count_distinct` holds some 200 bytes for each text, this 8.
    """
    import numpy as np
    import pyarrow.compute as pc

    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    # Multilinear hashes: the sum of a text's bytes, each multiplied by a random number for its place.
    factors = np.random.default_rng(0).integers(1 << 64, size=longest, dtype=np.uint64)
    hashes = np.empty(len(texts), np.uint64)
    step = max(1, _HASHED_BYTES // max(1, longest))
    for at in range(0, len(texts), step):
        part = texts.slice(at, step)
        _, offsets, values = part.buffers()
        edges = np.frombuffer(offsets, np.int32)[part.offset : part.offset + len(part) + 1]
        found = np.frombuffer(values or b"", np.uint8)[edges[0] : edges[-1]]
        edges = edges - edges[0]
        places = np.arange(len(found)) - np.repeat(edges[:-1], np.diff(edges))
        sums = np.zeros(len(found) + 1, np.uint64)
        np.cumsum((found.astype(np.uint64) + np.uint64(1)) * factors[places], out=sums[1:])
        hashes[at : at + len(part)] = np.diff(sums[edges])
    hashes.sort()
    return bool((hashes[1:] == hashes[:-1]).any())
