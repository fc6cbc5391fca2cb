"""Type aliases for arrays; NumPy itself is imported for type checking only."""

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
"""Start of each value in a buffer, then the end of the last one."""


def are_images(pixels: UInt8Array) -> bool:
    """Returns whether an array is uint8 `[N, C, H, W]` with one channel (gray) or three."""
    return pixels.dtype == "uint8" and pixels.ndim == 4 and pixels.shape[1] in (1, 3)


def refuse_other_than_images(pixels: UInt8Array, name: str, most: int) -> None:
    """Raises `ValueError` unless `pixels` are images with sides from 1 to `most`, the limit of the format `name`."""
    if not are_images(pixels):
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}; expected uint8 [N, C, H, W] with C 1 or 3")
    if not all(1 <= side <= most for side in pixels.shape[2:]):
        raise ValueError(f"images are {pixels.shape[2]} x {pixels.shape[3]}; {name} supports sides from 1 to {most}")


def narrow(offsets: npt.NDArray[np.int64]) -> Offsets:
    """Returns offsets as int32, as Arrow's `binary` type needs them, or unchanged if the data exceed 2 GiB."""
    return offsets if offsets[-1] > 2**31 - 1 else offsets.astype("int32")
