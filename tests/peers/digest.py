"""What a peer saw, in a form small enough to compare between two interpreters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = tuple["int | None", "np.ndarray[Any, Any] | None"]


def digest_rows(rows: Iterable[Row]) -> dict[str, Any]:
    """Returns the number of rows, and a sha256 over labels, image sizes and pixels (uint8 [H, W, C], RGB) in order."""
    count, sha256 = 0, hashlib.sha256()
    for label, pixels in rows:
        count += 1
        if pixels is None:
            sha256.update(f"{label} no image\n".encode())
            continue
        if pixels.dtype != np.uint8:
            raise TypeError(f"pixels are {pixels.dtype}; expected uint8")
        sha256.update(f"{label} {pixels.shape}\n".encode())
        sha256.update(np.ascontiguousarray(pixels).data)
    return {"rows": count, "sha256": sha256.hexdigest()}


def digest_values(values: Sequence[object]) -> str:
    """Returns a sha256 over plain values in order."""
    return hashlib.sha256("\n".join(map(str, values)).encode()).hexdigest()
