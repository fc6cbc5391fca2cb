"""Images that Pillow writes, and their pixels as a job reads them."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from beam_cifar.images.conform import as_read, conformed
from beam_cifar.images.decode import decode_image, probe_whole_image
from beam_cifar.images.header import probe_image
from beam_cifar.images.options import ImageOptions


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def read(data: bytes, **options: Any) -> Any:
    """The pixels [H, W, C] of an image as a job reads it; checks that the header alone says their size."""
    asked = ImageOptions(**options)
    made, header = conformed(data, probe_whole_image(data, "x"), "x", asked)
    pixels = decode_image(made, "x")
    before = as_read(probe_image(io.BytesIO(data), "x"), asked)
    shape = (before.channels, before.height, before.width)
    assert pixels.shape == shape == (header.channels, header.height, header.width)
    assert made == conformed(data, probe_whole_image(data, "x"), "x", asked)[0]
    return pixels.transpose(1, 2, 0)
