"""How images lie: as pixels or files, which encodings there are, and which extensions they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from beam_cifar.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {"png": (".png",), "jpeg": (".jpg", ".jpeg")}
"""Extensions of each encoding, in lower case; the first one is what we write."""

RAW: Final = "raw"
"""Pixels, uint8 C x H x W; as something that a writer asks for: of three channels."""

GRAY: Final = "gray"
"""What a writer asks for that takes pixels of one channel: they lie in blocks as "raw"."""

_KNOWN: Final = frozenset(extension for known in EXTENSIONS.values() for extension in known)


def are_pixels(encodings: Sequence[str]) -> bool:
    """Whether images reach a writer of these encodings as pixels."""
    return RAW in encodings or GRAY in encodings


def file_encodings(image_ext: str | None) -> tuple[str, ...]:
    """The encodings that an extension allows, the preferred one first; all for None. Raises `UsageError`."""
    if image_ext is None:
        return tuple(EXTENSIONS)
    for encoding, extensions in EXTENSIONS.items():
        if image_ext.lower() in extensions:
            return (encoding,)
    known = ", ".join(extension for extensions in EXTENSIONS.values() for extension in extensions)
    raise UsageError(f"--image-ext {image_ext}: images are written as one of {known}")


def is_image_name(name: str) -> bool:
    """Whether a file is named as an image of a known encoding."""
    return _extension(name).lower() in _KNOWN


def file_extensions(table: pa.Table, image_ext: str | None) -> list[str]:
    """The extension of each example's file: the one asked for, or the one found if it fits, or that of the encoding."""
    if image_ext is not None:
        return [image_ext] * len(table)
    encodings, names = (table.column(name).to_pylist() for name in ("encoding", "filename"))
    return [_fitting(_extension(name), encoding) for name, encoding in zip(names, encodings, strict=True)]


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return dot + extension if stem else ""


def _fitting(extension: str, encoding: str) -> str:
    known = EXTENSIONS.get(encoding, (".png",))
    return extension if extension.lower() in known else known[0]
