"""WebP, GIF, BMP and TIFF files: their headers and pixels, compared with Pillow."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from beam_cifar.errors import InputError
from beam_cifar.images.decode import decode_image, probe_whole_image
from beam_cifar.images.header import probe_image
from beam_cifar.images.other_headers import has_more_frames
from tests.helpers.pillow_images import encoded, exif, read

RNG = np.random.default_rng(8)
RGBA = Image.fromarray(RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8))
RGB, GRAY = RGBA.convert("RGB"), RGBA.convert("L")
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def as_rgb(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


PLAIN = {
    "WebP": ("webp", encoded(RGB, "WEBP")),
    "WebP without loss": ("webp", encoded(RGB, "WEBP", lossless=True)),
    "WebP with opaque alpha": ("webp", encoded(RGB.convert("RGBA"), "WEBP", lossless=True, exif=exif(1))),
    "GIF": ("gif", encoded(RGB, "GIF")),
    "gray GIF": ("gif", encoded(GRAY, "GIF")),
    "BMP": ("bmp", encoded(RGB, "BMP")),
    "gray BMP": ("bmp", encoded(GRAY, "BMP")),
    "BMP with a palette": ("bmp", encoded(RGB.quantize(9), "BMP")),
    "BMP of one bit": ("bmp", encoded(RGB.convert("1"), "BMP")),
    "BMP of 32 bits, of which 24 are shown": ("bmp", encoded(RGBA, "BMP")),
    "TIFF": ("tiff", encoded(RGB, "TIFF")),
    "compressed TIFF": ("tiff", encoded(RGB, "TIFF", compression="tiff_lzw")),
    "JPEG in TIFF": ("tiff", encoded(RGB, "TIFF", compression="jpeg")),
    "gray TIFF": ("tiff", encoded(GRAY, "TIFF")),
    "TIFF of one bit": ("tiff", encoded(RGB.convert("1"), "TIFF")),
    "TIFF with a palette": ("tiff", encoded(RGB.quantize(9), "TIFF")),
}
REFUSED = {
    "WebP with alpha": ("--alpha", encoded(RGBA, "WEBP", lossless=True)),
    "lossy WebP with alpha": ("--alpha", encoded(RGBA, "WEBP")),
    "GIF with a clear colour": ("--alpha", encoded(RGB.quantize(9), "GIF", transparency=0)),
    "TIFF with alpha": ("--alpha", encoded(RGBA, "TIFF")),
    "gray TIFF with alpha": ("--alpha", encoded(RGBA.convert("LA"), "TIFF")),
    "TIFF of 16 bits": ("--depth", encoded(Image.fromarray(DEEP), "TIFF")),
    "TIFF of 32 bits": ("--rgb", encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF")),
    "TIFF of floats": ("--rgb", encoded(Image.fromarray(DEEP.astype(np.float32)), "TIFF")),
    "CMYK TIFF": ("--cmyk", encoded(Image.fromarray(np.asarray(RGBA), "CMYK"), "TIFF")),
}


@pytest.mark.parametrize("name", PLAIN)
def test_pixels_are_those_that_pillow_shows(name: str) -> None:
    encoding, data = PLAIN[name]
    header = probe_image(data, "x")
    assert (header.encoding, header.height, header.width, header.refusal) == (encoding, 5, 7, "")
    assert (np.broadcast_to(read(data), (5, 7, 3)) == as_rgb(data)).all()
    assert (read(data, rgb=True) == as_rgb(data)).all()
    assert header.channels == (1 if name in ("gray TIFF", "TIFF of one bit") else 3)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", REFUSED)
def test_what_rgb_cannot_hold_is_refused_with_the_flag_that_helps(name: str) -> None:
    flag, data = REFUSED[name]
    with pytest.raises(InputError, match=f"^x: .* pass {flag}"):
        read(data)
    assert (read(data, rgb=True) == as_rgb(data)).all()
    options: dict[str, str] = {"--alpha": "drop", "--depth": "scale", "--cmyk": "convert"}
    if flag in options:
        made = read(data, **{flag[2:]: options[flag]})
        expected = np.floor(DEEP[..., None] / 257 + 0.5) if flag == "--depth" else as_rgb(data)
        assert (np.broadcast_to(made, (5, 7, 3)) == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "compressed TIFF"])
def test_pixels_are_turned_as_pillow_turns_them(kind: str, orientation: int) -> None:
    more = {"compression": "tiff_lzw"} if " " in kind else {"lossless": True}
    data = encoded(RGB, kind.split()[-1], exif=exif(orientation), **more)
    assert probe_image(data, "x").orientation == orientation
    assert (read(data) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()
    assert (read(data, exif="keep") == np.asarray(RGB)).all()


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "TIFF"])
def test_the_first_frame_is_read(kind: str) -> None:
    data = encoded(RGB, kind, save_all=True, append_images=[RGB.rotate(180)])
    assert has_more_frames(data)
    assert not has_more_frames(encoded(RGB, kind))
    assert (read(data) == as_rgb(data)).all()


@pytest.mark.parametrize("name", [*PLAIN, *REFUSED])
def test_damage_is_one_line_and_truncation_is_noticed(name: str) -> None:
    data = {**PLAIN, **REFUSED}[name][1]
    rng = np.random.default_rng(1)
    for size in range(2, len(data), max(1, len(data) // 40)):
        with suppress(InputError):  # the last bytes may be metadata or padding
            assert decode_image(data[:size], "x").shape[1:] == (5, 7)
    with pytest.raises(InputError, match="^x: "):
        probe_whole_image(data[: len(data) // 2], "x")
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 120), 3):
            changed[place] = rng.integers(0, 256)
        for function in (probe_whole_image, decode_image):
            assert "\n" not in refusal(function, bytes(changed))


def refusal(function: Any, data: bytes) -> str:
    try:
        function(data, "x")
    except InputError as error:
        return str(error)
    return ""


def test_a_bomb_is_refused_by_its_header() -> None:
    for data in (
        b"GIF89a\xff\xff\xff\xff" + bytes(20),
        b"BM" + bytes(12) + b"\x28\0\0\0\0\0\1\0\0\0\1\0\1\0\x18\0" + bytes(30),
    ):
        with pytest.raises(InputError, match="^x: size is .* expected 1 to "):
            decode_image(data, "x")
