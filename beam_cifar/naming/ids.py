"""Ids of rows: natural order, and making them unique."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


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
    """`unique_ids` for a `string` array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.count_distinct(ids, mode="all").as_py() == len(ids):
        return ids, 0
    made, repeated = unique_ids(ids.to_pylist())
    return pa.array(made, pa.string()), repeated
