"""Makes images that 8-bit gray or RGB cannot hold into PNG files that it can, as the options of a job say.

The new file keeps the orientation of the old one, and nothing else but pixels. Format facts are from the PNG
specification (W3C, third edition), sections 11.2 and 11.3.2.1 (tRNS).
"""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from beam_cifar.images.decode import damage_named, has_clear_pixels, open_image, without_orientation
from beam_cifar.images.encodings import OTHERS
from beam_cifar.images.header import ImageHeader, probe_image
from beam_cifar.images.options import ImageOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

_ORIENTATION: Final = 0x0112
# What unpacks the low bytes of a PNG file's big-endian samples: Pillow's own, for the high ones, is "RGB;16B".
_LOW_BYTES: Final = {"RGB": "RGB;16L", "RGBA": "RGBA;16L"}


def as_read(header: ImageHeader, options: ImageOptions) -> ImageHeader:
    """Returns the header of an image as it will be after `conformed`, as far as its size and channels."""
    if options.rgb:
        header = replace(header, channels=3)
    return header.unturned() if options.exif == "keep" else header


def conformed(
    data: bytes, header: ImageHeader, name: str, options: ImageOptions, passing: tuple[str, ...] = ()
) -> tuple[bytes, ImageHeader]:
    """Returns an image as the options want it, and its header; the same bytes if nothing is to be done.

    Args:
        data: the whole file.
        header: its header.
        name: display name used in messages.
        options: what is to be done.
        passing: encodings that are written as they are, so that files keep their orientation for those who show them.

    Raises:
        InputError: the file is damaged.
    """
    if options.changes_pixels and _is_concerned(header, options):
        with damage_named(header.encoding, name):
            image = _changed(data, header, name, options)
            if image is not None:
                data = _as_png(image, header.orientation)
                header = probe_image(data, name)
    if options.exif != "keep" or header.orientation == 1:
        return data, header
    if header.encoding in passing:
        return data, header.unturned()
    if header.encoding in OTHERS:
        with damage_named(header.encoding, name):
            data = _as_png(open_image(data, header, name), 1)
        return data, probe_image(data, name)
    return without_orientation(data, header, name), header.unturned()


def _is_concerned(header: ImageHeader, options: ImageOptions) -> bool:
    """Returns whether an image may need new pixels, from its header alone: most need no look into them."""
    transparent = header.has_alpha and bool(options.alpha or options.rgb)
    return bool(header.refusal) or transparent or (options.rgb and header.channels == 1)


def _changed(data: bytes, header: ImageHeader, name: str, options: ImageOptions) -> Image.Image | None:
    """Returns an image of 8 bits per sample with new pixels, None if it needs none or no option allows it."""
    made: Image.Image | None = None
    image: Image.Image = open_image(data, header, name)
    if header.depth > 8:
        if not options.depth or not _is_scalable(header):
            return _as_rgb(image) if options.rgb else None
        image = made = _shallow(data, header, name, options.depth)
    if options.alpha and has_clear_pixels(image):
        image = made = _flattened(image, options.alpha)
    convert = options.rgb and (image.mode not in ("RGB", "P") or image.has_transparency_data)
    return _as_rgb(image) if convert or (options.cmyk and image.mode == "CMYK") else made


def _is_scalable(header: ImageHeader) -> bool:
    """Returns whether all bits of the samples can be had: Pillow keeps the high byte of a TIFF file's colours."""
    return header.depth == 16 and (header.encoding == "png" or header.channels == 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image.info.pop("transparency", None)  # it changes no colour, but Pillow warns of a palette that has some
    return image.convert("RGB")


def _shallow(data: bytes, header: ImageHeader, name: str, depth: str) -> Image.Image:
    """Returns an image of 16 bits per sample with 8, as L, LA, RGB or RGBA; opacity is always scaled."""
    import numpy as np
    from PIL import Image as Images

    samples, clear = _samples(data, header, name)
    values = np.arange(1 << 16)
    scaled = ((values * 2 + 257) // 514).astype(np.uint8)
    table = np.minimum(values, 255).astype(np.uint8) if depth == "clip" else scaled
    # Row by row: looking up takes eight bytes a sample.
    shallow = np.stack([table[row] for row in samples])
    if samples.shape[2] in (2, 4):
        shallow[..., -1] = [scaled[row] for row in samples[..., -1]]
    elif clear is not None:
        opaque = (samples != np.asarray(clear)).any(axis=2, keepdims=True)
        shallow = np.concatenate([shallow, opaque.astype(np.uint8) * np.uint8(255)], axis=2)
    return Images.fromarray(shallow[..., 0] if shallow.shape[2] == 1 else shallow)


def _samples(
    data: bytes, header: ImageHeader, name: str
) -> tuple[npt.NDArray[np.uint16], int | tuple[int, ...] | None]:
    """Returns the samples of an image of 16 bits each, uint16 `[H, W, C]`, and which of them are clear (tRNS), if any.

    Pillow keeps only the high bytes of all but plain gray, so the file is decoded in ways that show the low ones.
    """
    import numpy as np

    image = open_image(data, header, name)
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[..., None], clear
    if header.channels == 1:  # gray with alpha: four bytes a pixel, as RGBA of 8 bits has
        pairs = np.asarray(open_image(_as_rgba(data), header, name))
        return pairs.view(">u2").astype(np.uint16), None
    other = open_image(data, header, name)
    other.tile = [tile._replace(args=_LOW_BYTES[image.mode]) for tile in other.tile]
    both = np.stack([np.asarray(image), np.asarray(other)], axis=-1)
    return both.view(">u2")[..., 0].astype(np.uint16), clear


def _as_rgba(data: bytes) -> bytes:
    """Returns a PNG file whose header says RGBA of 8 bits: colour type 6."""
    header = data[12:24] + bytes((8, 6)) + data[26:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def _flattened(image: Image.Image, ground: str) -> Image.Image:
    """Returns an image, L or RGB, without its transparency, or on a background."""
    from PIL import Image as Images

    whole = image.convert("RGBA")
    colours = whole.getchannel("R") if image.mode in ("1", "L", "LA") else whole.convert("RGB")
    if ground == "drop":
        return colours
    made = Images.new(colours.mode, colours.size, ground)
    made.paste(colours, mask=whole.getchannel("A"))
    return made


def _as_png(image: Image.Image, orientation: int) -> bytes:
    """Returns a PNG file of the pixels and the orientation."""
    import numpy as np
    from PIL import Image as Images

    file, exif = io.BytesIO(), Images.Exif()
    if orientation != 1:
        exif[_ORIENTATION] = orientation
    # A new image: Pillow would write what it knows of the old one, such as its transparent colour.
    Images.fromarray(np.asarray(image)).save(file, "PNG", exif=exif)
    return file.getvalue()
