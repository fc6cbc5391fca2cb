"""MNIST: IDX files, plain and compressed, and tables of comma-separated values."""

from __future__ import annotations

import gzip
import struct

from tests.helpers.hostile_files import IMAGES, Maker, files

PIXELS = IMAGES[..., 0].tobytes()
IMAGES_NAME, LABELS_NAME = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def images(magic: int = 2051, count: int = 3, height: int = 8, width: int = 8, pixels: bytes = PIXELS) -> bytes:
    return struct.pack(">IIII", magic, count, height, width) + pixels


def labels(magic: int = 2049, count: int = 3, values: bytes = b"\0\1\0") -> bytes:
    return struct.pack(">II", magic, count) + values


def pair(of_images: bytes = images(), of_labels: bytes = labels(), **more: bytes) -> Maker:
    return files({IMAGES_NAME: of_images, LABELS_NAME: of_labels, **{k.replace("_", "."): v for k, v in more.items()}})


def packed(of_images: bytes = gzip.compress(images()), of_labels: bytes = gzip.compress(labels())) -> Maker:
    return files({f"{IMAGES_NAME}.gz": of_images, f"{LABELS_NAME}.gz": of_labels})


def meta(text: bytes) -> Maker:
    return files({IMAGES_NAME: images(), LABELS_NAME: labels(), "train-meta.gz": gzip.compress(text)})


def utf32(*texts: str) -> bytes:
    return b"".join(text.ljust(32, "\0")[:32].encode("utf-32-le", "surrogatepass") for text in texts)


ZIPPED = gzip.compress(images(), mtime=0)

IDX: dict[str, Maker] = {
    "no bytes": pair(b""),
    "no bytes of labels": pair(of_labels=b""),
    "a header cut": pair(images()[:15]),
    "a header of labels cut": pair(of_labels=labels()[:7]),
    "magic of labels": pair(images(2049)),
    "magic of images": pair(of_labels=labels(2051)),
    "magic of floats": pair(images(0x0D03)),
    "magic of nothing": pair(images(0)),
    "a pixel too few": pair(images(pixels=PIXELS[:-1])),
    "a pixel too many": pair(images(pixels=PIXELS + b"\0")),
    "a label too few": pair(of_labels=labels(values=b"\0\1")),
    "a label too many": pair(of_labels=labels(values=b"\0\1\0\1")),
    "2**32 - 1 images": pair(images(count=2**32 - 1)),
    "2**32 - 1 labels": pair(of_labels=labels(count=2**32 - 1)),
    "2**32 - 1 rows": pair(images(height=2**32 - 1)),
    "2**32 - 1 columns": pair(images(width=2**32 - 1)),
    "sizes that overflow": pair(images(count=2**31, height=2**31, width=4, pixels=b"")),
    "no rows of pixels": pair(images(height=0, pixels=b"")),
    "no columns of pixels": pair(images(width=0, pixels=b"")),
    "no images of labels": pair(images(count=0, pixels=b"")),
    "fewer labels": pair(of_labels=labels(count=2, values=b"\0\1")),
    "more labels": pair(of_labels=labels(count=4, values=b"\0\1\0\1")),
    "little endian": pair(struct.pack("<IIII", 2051, 3, 8, 8) + PIXELS),
    "images as wide as a million": pair(images(height=1, width=1 << 20)),
    "names are not UTF-8": pair(labels_txt=b"a\n\xff\n"),
    "names with NUL": pair(labels_txt=b"a\n\0\n"),
    "an empty name": pair(labels_txt=b"a\n\nb\n"),
    "names in UTF-16": pair(labels_txt="a\nb\n".encode("utf-16")),
    "names of 100 MB": pair(labels_txt=b"a" * (100 << 20)),
    "gzip: cut": packed(ZIPPED[:-20]),
    "gzip: without its trailer": packed(ZIPPED[:-8]),
    "gzip: wrong checksum": packed(ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:]),
    "gzip: wrong size": packed(ZIPPED[:-4] + b"\0\0\0\0"),
    "gzip: labels cut": packed(of_labels=gzip.compress(labels())[:-9]),
    "gzip: not gzip": packed(images()),
    "gzip: no bytes": packed(b""),
    "gzip: one byte": packed(b"\x1f"),
    "gzip: header only": packed(ZIPPED[:10]),
    "gzip: reserved block": packed(ZIPPED[:10] + b"\x07" + ZIPPED[11:]),
    "gzip: text after the end": packed(ZIPPED + b"text"),
    "gzip: bomb": packed(gzip.compress(images(count=1 << 24, pixels=bytes(1100 << 20)), 1)),
    "meta: cut": meta(utf32("8", "8")[:-3] + b"x"),
    "meta: fewer rows": meta(utf32("8", "8")),
    "meta: negative sizes": meta(utf32("-8", "8") * 3),
    "meta: 32 digits": meta(utf32("9" * 32, "8") * 3),
    "meta: surrogates": meta(utf32("\ud800", "8", "8") * 3),
    "meta: beyond Unicode": meta(b"\xff" * (3 * 96 * 4)),
    "meta: not gzip": files({IMAGES_NAME: images(), LABELS_NAME: labels(), "train-meta.gz": b"text"}),
}

ROW = b"1" + b",7" * 64


def table(*lines: bytes, end: bytes = b"\n", **more: bytes) -> Maker:
    return files(
        {
            "mnist_train.csv": b"".join(line + end for line in lines),
            **{k.replace("__", "."): v for k, v in more.items()},
        }
    )


CELLS: dict[str, bytes] = {
    "256": b"256",
    "negative": b"-1",
    "5,000 digits": b"9" * 5000,
    "a float": b"1.5",
    "an exponent": b"1e2",
    "not a number": b"nan",
    "infinite": b"inf",
    "hexadecimal": b"0xff",
    "underscore": b"1_0",
    "quoted": b'"7"',
    "a quote without an end": b'"7',
    "a space": b" 7",
    "nothing": b"",
    "NUL": b"\0",
    "Arabic digits": "٣".encode(),
    "wide digits": "\uff17".encode(),
    "not UTF-8": b"\xff",
    "a formula": b"=1+1",
    "zeros before": b"0007",
    "a sign": b"+7",
    "a carriage return": b"7\r7",
    "an escape": b"\x1b[31m",
}
CSV: dict[str, Maker] = {
    **{f"a pixel: {name}": table(ROW, b"1," + cell + b",7" * 63) for name, cell in CELLS.items()},
    **{f"a label: {name}": table(ROW, cell + b",7" * 64) for name, cell in CELLS.items() if name != "256"},
    "a value more": table(ROW, ROW + b",7"),
    "a value less": table(ROW, ROW[:-2]),
    "an empty line": table(ROW, b"", ROW),
    "not a square": table(ROW + b",7"),
    "a label alone": table(b"1", b"2"),
    "a label above 65,535": table(b"70000" + b",7" * 64),
    "old Macintosh": table(ROW, ROW, end=b"\r"),
    "UTF-16": files({"mnist_train.csv": (ROW + b"\n").decode().encode("utf-16")}),
    "semicolons": table(ROW.replace(b",", b";")),
    "tabs": table(ROW.replace(b",", b"\t")),
    "a header of 99,999 x 99,999": table(b"label," + b"99999x99999," * 64, b"1" + b",7" * 65),
    "a line of 80 MB": table(b"1" + b",7" * (40 << 20)),
    "a line of 80 MB after the first": table(ROW, b"1" + b",7" * (40 << 20)),
    "a line without commas": table(ROW, b"7" * (8 << 20)),
    "compressed": files({"mnist_train.csv": gzip.compress(ROW)}),
    "sizes: zero": table(ROW, meta_train__csv=b"0,0\n"),
    "sizes: negative": table(ROW, meta_train__csv=b"-8,-8\n"),
    "sizes: 5,000 digits": table(ROW, meta_train__csv=b"9" * 5000 + b",8\n"),
    "sizes: another number of pixels": table(ROW, meta_train__csv=b"9,9\n"),
    "sizes: not UTF-8": table(ROW, meta_train__csv=b"\xff,8,8\n"),
    "sizes: more rows": table(ROW, meta_train__csv=b"8,8\n8,8\n"),
    "names: not UTF-8": table(ROW, labels__txt=b"a\n\xff\n"),
    "names: NUL": table(ROW, labels__txt=b"a\n\0\n"),
}
