"""How images are read that 8-bit gray or RGB cannot hold as they are, or that are stored on their side."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from beam_cifar.errors import UsageError

CHOICES: Final = {
    "exif": ("apply", "keep"),
    "alpha": ("drop", "white", "black"),
    "depth": ("scale", "clip"),
    "cmyk": ("convert",),
}
"""The values of each option, besides None."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are read. Images that need no change keep their bytes wherever they are written as files.

    Attributes:
        exif: "apply" turns pixels upright by the EXIF orientation when they are decoded; "keep" leaves them as stored.
        alpha: what becomes of transparent pixels: "drop" ignores the transparency, "white" and "black" put the image on
            a background of that colour; None refuses to decode them.
        depth: what becomes of 16 bits per sample: "scale" divides by 257 and rounds, "clip" takes at most 255; None
            refuses to decode them.
        cmyk: "convert" makes CMYK RGB as Pillow does, without a colour profile; None refuses to decode it.
        rgb: convert whatever is not 8-bit RGB, gray as well, as Pillow's `convert("RGB")` does; the options above come
            first.

    Raises:
        UsageError: invalid value.

    >>> from beam_cifar import ImageOptions
    >>> ImageOptions(alpha="white").meaning()
    {'alpha': 'white'}
    """

    exif: str = "apply"
    alpha: str | None = None
    depth: str | None = None
    cmyk: str | None = None
    rgb: bool = False

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known and (value is not None or name == "exif"):
                raise UsageError(f"--{name} must be one of {', '.join(known)}, found {value!r}")
        if not isinstance(self.rgb, bool):
            raise UsageError(f"rgb must be True or False, found {self.rgb!r}")

    @property
    def changes_pixels(self) -> bool:
        """Whether an image may get new pixels, and so a new file."""
        return bool(self.alpha or self.depth or self.cmyk or self.rgb)

    def meaning(self) -> dict[str, Any]:
        """The options that differ from their default, by name, as JSON values."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


AS_STORED: Final = ImageOptions()
"""The default: no image gets new pixels."""
