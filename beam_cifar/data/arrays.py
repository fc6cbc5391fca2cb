"""Names of the arrays that functions take and return; NumPy itself is only imported by checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

UInt8Array: TypeAlias = "npt.NDArray[np.uint8]"
Int32Array: TypeAlias = "npt.NDArray[np.int32]"
Int64Array: TypeAlias = "npt.NDArray[np.int64]"
UInt64Array: TypeAlias = "npt.NDArray[np.uint64]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"
Offsets: TypeAlias = "npt.NDArray[np.int32] | npt.NDArray[np.int64]"
"""Where each value in a buffer starts, and the end of the last."""
