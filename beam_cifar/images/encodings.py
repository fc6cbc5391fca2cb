"""Image encodings: raw pixels or image files, and the file extensions of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from beam_cifar.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif")}
"""Extensions of each encoding that is written, in lower case; the first one is used for writing."""

OTHERS: Final[dict[str, tuple[str, ...]]] = {
    "webp": (".webp",),
    "gif": (".gif",),
    "bmp": (".bmp",),
    "tiff": (".tif", ".tiff"),
}
"""Extensions of each encoding that is read only; such files pass through where readers of a format take them."""

ENCODED: Final = {**EXTENSIONS, **OTHERS}
"""Extensions of all encodings of image files."""

RAW: Final = "raw"
"""Pixels, uint8 C x H x W; requested by a sink, it means three channels."""

GRAY: Final = "gray"
"""Requested by a sink that writes pixels of one channel; in blocks they are "raw"."""

_KNOWN: Final = frozenset(extension for known in ENCODED.values() for extension in known)


def are_pixels(encodings: Sequence[str]) -> bool:
    """Returns whether a sink with these encodings gets images as pixels."""
    return RAW in encodings or GRAY in encodings


def file_encodings(image_ext: str | None) -> tuple[str, ...]:
    """Returns the encodings for an extension, the preferred one first; None means all. Raises `UsageError`."""
    if image_ext is None:
        return tuple(EXTENSIONS)
    for encoding, extensions in EXTENSIONS.items():
        if image_ext.lower() in extensions:
            return (encoding,)
    known = ", ".join(extension for extensions in EXTENSIONS.values() for extension in extensions)
    raise UsageError(f"--image-ext {image_ext}: not a supported extension; expected one of {known}")


def is_image_name(name: str) -> bool:
    """Returns whether a file name has the extension of a known encoding."""
    return _extension(name).lower() in _KNOWN


def file_extensions(table: pa.Table, image_ext: str | None) -> list[str]:
    """Returns the file extension for each example: `image_ext`, else the one found if it fits, else the default."""
    if image_ext is not None:
        return [image_ext] * len(table)
    encodings, names = (table.column(name).to_pylist() for name in ("encoding", "filename"))
    return [_fitting(_extension(name), encoding) for name, encoding in zip(names, encodings, strict=True)]


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return dot + extension if stem else ""


def _fitting(extension: str, encoding: str) -> str:
    known = ENCODED.get(encoding, (".png",))
    return extension if extension.lower() in known else known[0]
