"""What 8-bit gray or RGB cannot hold, and EXIF orientation, compared with Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.conform import conformed
from beam_cifar.images.header import probe_image
from beam_cifar.images.options import ImageOptions
from tests.helpers.pillow_images import encoded, exif, read

RNG = np.random.default_rng(5)
RGBA = Image.fromarray(RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8))
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def deep_png(samples: Any, colour: int, extra: bytes = b"") -> bytes:
    """A PNG file of big-endian uint16 [H, W, C], unfiltered, with more chunks before its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_are_turned_as_pillow_turns_them(kind: str, orientation: int) -> None:
    data = encoded(RGBA.convert("RGB"), kind, exif=exif(orientation))
    whole = Image.open(io.BytesIO(data))
    assert (read(data) == np.asarray(ImageOps.exif_transpose(whole))).all()
    assert (read(data, exif="keep") == np.asarray(whole)).all()
    assert probe_image(data, "x").orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "value", "expected"), [(3, 6, 6), (4, 8, 8), (1, 3, 3), (2, 6, None), (3, 9, 1)])
def test_orientation_has_either_byte_order_and_several_types(
    order: str, kind: int, value: int, expected: int | None
) -> None:
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(
        {1: "B", 4: f"{order}I"}.get(kind, f"{order}H"), value
    )
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 1) + entry.ljust(12, b"\0") + bytes(4)
    data = encoded(RGBA.convert("RGB"), "JPEG", exif=b"Exif\0\0" + block)
    assert probe_image(data, "x").orientation == (expected or 1)
    assert read(data).shape[0] == (7 if expected in (6, 8) else 5)


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"nonsense" * 3])
def test_damaged_exif_has_no_orientation(block: bytes) -> None:
    data = encoded(RGBA.convert("RGB"), "JPEG", exif=b"Exif\0\0" + block)
    assert probe_image(data, "x").orientation == 1


def test_xmp_tells_the_orientation_where_exif_does_not() -> None:
    data = encoded(RGBA.convert("RGB"), "JPEG", xmp=b'<x tiff:Orientation="6"/>')
    assert (read(data) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()


PROFILE = "\nexif\n      26\n" + b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".hex() + "\n"


@pytest.mark.parametrize("damage", ["", "odd", "cut"])
@pytest.mark.parametrize("packed", [False, True], ids=["tEXt", "zTXt"])
def test_imagemagick_writes_exif_as_the_text_of_a_png_file(packed: bool, damage: str) -> None:
    told = PngInfo()
    told.add_text("Raw profile type exif", {"": PROFILE, "odd": PROFILE + "4", "cut": "\nexif\n"}[damage], zip=packed)
    data = encoded(RGBA.convert("RGB"), pnginfo=told)
    whole = Image.open(io.BytesIO(data))
    expected = np.asarray(whole if damage else ImageOps.exif_transpose(whole))
    assert (read(data) == expected).all()
    assert expected.shape == ((5, 7, 3) if damage else (7, 5, 3))


def test_exif_of_a_png_file_counts_before_its_xmp() -> None:
    told = PngInfo()
    told.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    image = RGBA.convert("RGB")
    assert read(encoded(image, pnginfo=told)).shape == (7, 5, 3)
    both = read(encoded(image, pnginfo=told, exif=exif(3)))
    assert (both == np.asarray(image)[::-1, ::-1]).all()


def test_images_that_need_no_change_keep_their_bytes() -> None:
    every = ImageOptions(alpha="white", depth="scale", cmyk="convert", rgb=True)
    for data in (encoded(RGBA.convert("RGB")), encoded(RGBA.convert("RGB"), "JPEG", exif=exif(6))):
        assert conformed(data, probe_image(data, "x"), "x", every)[0] is data
    gray = encoded(RGBA.convert("L"))
    assert conformed(gray, probe_image(gray, "x"), "x", ImageOptions(alpha="white", depth="scale"))[0] is gray
    turned = encoded(RGBA.convert("RGB"), "JPEG", exif=exif(6))
    kept, header = conformed(turned, probe_image(turned, "x"), "x", ImageOptions(exif="keep"), ("jpeg",))
    assert kept is turned
    assert (header.height, header.width) == (5, 7)


MODES = {
    "1": encoded(RGBA.convert("1")),
    "L": encoded(RGBA.convert("L")),
    "LA": encoded(RGBA.convert("LA")),
    "P": encoded(RGBA.convert("RGB").quantize(9)),
    "P with transparency": encoded(RGBA.convert("RGB").quantize(9), transparency=b"\x00\x80\xff"),
    "L with transparency": encoded(Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)), transparency=3),
    "RGB": encoded(RGBA.convert("RGB")),
    "RGBA": encoded(RGBA),
    "I;16": encoded(Image.fromarray(DEEP)),
    "LA of 16 bits": deep_png(np.dstack([DEEP, DEEP[::-1]]), 4),
    "RGB of 16 bits": deep_png(np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]]), 2),
    "RGBA of 16 bits": deep_png(np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1], DEEP]), 6),
    "CMYK": encoded(Image.fromarray(np.asarray(RGBA), "CMYK"), "JPEG"),
    "YCbCr": encoded(RGBA.convert("RGB"), "JPEG"),
    "gray JPEG": encoded(RGBA.convert("L"), "JPEG"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of Pillow, here
@pytest.mark.parametrize("mode", MODES)
def test_rgb_is_what_pillow_converts_to(mode: str) -> None:
    assert (read(MODES[mode], rgb=True) == np.asarray(Image.open(io.BytesIO(MODES[mode])).convert("RGB"))).all()


@pytest.mark.parametrize(
    ("mode", "flag"),
    [(mode, "--alpha") for mode in ("LA", "P with transparency", "L with transparency", "RGBA")]
    + [(mode, "--depth") for mode in ("I;16", "LA of 16 bits", "RGB of 16 bits", "RGBA of 16 bits")]
    + [("CMYK", "--cmyk convert")],
)
def test_by_default_they_are_refused_with_the_flag_that_helps(mode: str, flag: str) -> None:
    with pytest.raises(InputError, match=f"^x: .* pass {flag}"):
        read(MODES[mode])


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("ground", ["white", "black"])
@pytest.mark.parametrize("mode", ["LA", "P with transparency", "L with transparency", "RGBA"])
def test_transparent_pixels_go_onto_a_background(mode: str, ground: str) -> None:
    whole = Image.open(io.BytesIO(MODES[mode])).convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", whole.size, ground), whole).convert("RGB")
    made = read(MODES[mode], alpha=ground)
    assert made.shape[2] == (1 if mode.startswith("L") else 3)
    assert abs(made.astype(int) - np.asarray(expected)).max() <= 1
    dropped = Image.open(io.BytesIO(MODES[mode])).convert("RGB")
    assert (read(MODES[mode], alpha="drop") == np.asarray(dropped)).all()


def test_sixteen_bits_are_scaled_or_clipped() -> None:
    colours = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    for mode, samples in (("I;16", DEEP[..., None]), ("RGB of 16 bits", colours)):
        assert (read(MODES[mode], depth="scale") == np.floor(samples / 257 + 0.5)).all()
        assert (read(MODES[mode], depth="clip") == np.minimum(samples, 255)).all()
    both = read(MODES["RGBA of 16 bits"], depth="scale", alpha="drop")
    assert (both == np.floor(colours / 257 + 0.5)).all()
    assert (read(MODES["LA of 16 bits"], depth="scale", alpha="drop")[..., 0] == np.floor(DEEP / 257 + 0.5)).all()


def test_a_clear_value_of_sixteen_bits_is_transparent() -> None:
    value = struct.pack(">H", DEEP[2, 3])
    data = deep_png(
        DEEP[..., None], 0, struct.pack(">I", 2) + b"tRNS" + value + struct.pack(">I", zlib.crc32(b"tRNS" + value))
    )
    with pytest.raises(InputError, match="pass --alpha"):
        read(data, depth="scale")
    expected = np.where(DEEP[2, 3] == DEEP, 255, np.floor(DEEP / 257 + 0.5))
    assert (read(data, depth="scale", alpha="white")[..., 0] == expected).all()


def test_new_pixels_keep_the_orientation() -> None:
    data = encoded(RGBA, exif=exif(6))
    whole = Image.open(io.BytesIO(data))
    assert (read(data, alpha="drop") == np.asarray(ImageOps.exif_transpose(whole).convert("RGB"))).all()
    assert (read(data, alpha="drop", exif="keep") == np.asarray(whole.convert("RGB"))).all()


@pytest.mark.parametrize("wrong", [{"exif": None}, {"exif": "no"}, {"alpha": "red"}, {"depth": 8}, {"cmyk": True}])
def test_unknown_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^--{next(iter(wrong))} must be one of "):
        ImageOptions(**wrong)
