"""Checks many PNG files at once, if they are of the plainest kind, which has three chunks: IHDR, IDAT, IEND.

That is what most encoders write for a small image. Format facts are from the PNG specification (W3C, third edition),
section 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isal import isal_zlib

from beam_cifar.errors import InputError
from beam_cifar.images.header import PNG_END, PNG_START, probe_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_START: Final = PNG_START + b"\0\0\0\x0d"
_HEAD: Final = [("start", f"V{len(_START)}"), ("ihdr", "V21"), ("length", ">u4"), ("kind", "V4")]
"""The bytes before the pixels."""
_TAIL: Final = [("crc", ">u4"), ("iend", "V12")]
"""The bytes after the pixels."""


def plain_png_sizes(images: pa.Array) -> npt.NDArray[np.int32]:
    """Returns heights, widths and channels, int32 `[3, N]`; 0 for any image that is not such a file, whole.

    Args:
        images: `binary` array `[N]`.
    """
    import numpy as np

    sizes = np.zeros((3, len(images)), np.int32)
    _, offsets, values = images.buffers()
    if values is None:
        return sizes
    before, after = np.dtype(_HEAD), np.dtype(_TAIL)
    around = before.itemsize + after.itemsize
    data = np.frombuffer(values, np.uint8)
    edges = np.frombuffer(offsets, np.int32)[images.offset : images.offset + len(images) + 1].astype(np.int64)
    rows = np.flatnonzero(np.diff(edges) >= around)
    starts, ends = edges[:-1][rows], edges[1:][rows]
    head = data[starts[:, None] + np.arange(before.itemsize)].view(before)[:, 0]
    tail = data[ends[:, None] + np.arange(-after.itemsize, 0)].view(after)[:, 0]
    plain = (head["start"] == np.void(_START)) & (head["kind"] == np.void(b"IDAT")) & (tail["iend"] == np.void(PNG_END))
    plain &= head["length"] == ends - starts - around
    found = np.flatnonzero(plain)
    bodies = zip((starts[found] + before.itemsize - 4).tolist(), (ends[found] - after.itemsize).tolist(), strict=True)
    view = memoryview(values)
    crcs = np.fromiter(map(isal_zlib.crc32, (view[start:stop] for start, stop in bodies)), np.uint32, len(found))
    found = found[crcs == tail["crc"][found]]
    headers, which = np.unique(head["ihdr"][found], return_inverse=True)
    known = np.array([_size(_START + ihdr.tobytes()) for ihdr in headers], np.int32).reshape(-1, 3)
    sizes[:, rows[found]] = known[which].T
    return sizes


def have_pixels_first(images: pa.Array) -> npt.NDArray[np.bool_]:
    """Returns whether each image is a PNG file whose pixels follow its header, without metadata between: bool `[N]`.

    Args:
        images: `binary` array `[N]` without nulls.
    """
    import numpy as np

    found = np.zeros(len(images), np.bool_)
    _, offsets, values = images.buffers()
    if values is None:
        return found
    data, head = np.frombuffer(values, np.uint8), np.dtype(_HEAD)
    edges = np.frombuffer(offsets, np.int32)[images.offset : images.offset + len(images) + 1].astype(np.int64)
    rows = np.flatnonzero(np.diff(edges) >= head.itemsize)
    heads = data[edges[:-1][rows][:, None] + np.arange(head.itemsize)].view(head)[:, 0]
    found[rows] = (heads["start"] == np.void(_START)) & (heads["kind"] == np.void(b"IDAT"))
    return found


def _size(head: bytes) -> tuple[int, int, int]:
    try:
        header = probe_image(head, "")
    except InputError:
        return 0, 0, 0
    return header.height, header.width, header.channels
