"""Zip archives: the container of `.npz`, damaged, lying or too large."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.helpers.hostile_files import LABELS, Maker, files
from tests.helpers.hostile_files.npy import npy, saved, zipped

GOOD = zipped(images=npy(), labels=saved(LABELS))
END = GOOD.rindex(b"PK\5\6")
DIRECTORY = GOOD.index(b"PK\1\2")


def changed(at: int, data: bytes) -> Maker:
    """The good archive with other bytes from `at` on."""
    return files({"train.npz": GOOD[:at] + data + GOOD[at + len(data) :]})


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def long(value: int) -> bytes:
    return struct.pack("<I", value)


def written(write: Callable[[zipfile.ZipFile], object], method: int = zipfile.ZIP_STORED) -> Maker:
    """An archive by `zipfile`, with whatever `write` adds to good members."""

    def make(folder: Path) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("images.npy", npy())
            archive.writestr("labels.npy", saved(LABELS))
            write(archive)
        (folder / "train.npz").write_bytes(file.getvalue())

    return make


def twice(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("images.npy")
    archive.filelist.append(archive.filelist[0])
    archive.NameToInfo[info.filename] = archive.filelist[0]


def many(archive: zipfile.ZipFile) -> None:
    for number in range(40):
        archive.writestr("n" * 60_000 + str(number), b"")


def bomb(size: int) -> Maker:
    """A member that unpacks to `size` zeros."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "train.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("images.npy", "w", force_zip64=True) as member:
                head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size >> 6}, 8, 8), }}"
                member.write(npy(head, b""))
                for _ in range(size >> 20):
                    member.write(bytes(1 << 20))
            archive.writestr("labels.npy", saved(LABELS))

    return make


HOSTILE: dict[str, Maker] = {
    "empty": files({"train.npz": b""}),
    "one byte": files({"train.npz": b"P"}),
    "text": files({"train.npz": b"this is no archive" * 40}),
    "a plain array": files({"train.npz": npy()}),
    "no members": files({"train.npz": b"PK\5\6" + bytes(18)}),
    "cut in half": files({"train.npz": GOOD[: len(GOOD) // 2]}),
    "without its last byte": files({"train.npz": GOOD[:-1]}),
    "without its directory": files({"train.npz": GOOD[:DIRECTORY]}),
    "end only": files({"train.npz": GOOD[END:]}),
    "directory only": files({"train.npz": GOOD[DIRECTORY:]}),
    "data after the end": files({"train.npz": GOOD + bytes(100_000)}),
    "many disks": changed(END + 4, short(7)),
    "65,535 members": changed(END + 8, short(65_535) * 2),
    "no members, it says": changed(END + 8, short(0) * 2),
    "directory of 4 GiB": changed(END + 12, long(2**32 - 2)),
    "directory of nothing": changed(END + 12, long(0)),
    "directory beyond the end": changed(END + 16, long(2**31)),
    "comment of 65,535 bytes": changed(END + 20, short(65_535)),
    "zip64 without a locator": changed(END + 16, long(2**32 - 1)),
    "wrong signature in the directory": changed(DIRECTORY, b"PK\7\7"),
    "version 255 needed": changed(DIRECTORY + 6, short(255)),
    "encrypted": changed(DIRECTORY + 8, short(1)),
    "strongly encrypted": changed(DIRECTORY + 8, short(0x41)),
    "patch": changed(DIRECTORY + 8, short(0x20)),
    "imploded": changed(DIRECTORY + 10, short(6)),
    "unknown method": changed(DIRECTORY + 10, short(99)),
    "deflated, it says": changed(DIRECTORY + 10, short(8)),
    "packed size of 4 GiB": changed(DIRECTORY + 20, long(2**32 - 2)),
    "packed size of nothing": changed(DIRECTORY + 20, long(0)),
    "size of 4 GiB": changed(DIRECTORY + 24, long(2**32 - 2)),
    "size of nothing": changed(DIRECTORY + 24, long(0)),
    "zip64 size without a field": changed(DIRECTORY + 24, long(2**32 - 1)),
    "name of 65,535 bytes": changed(DIRECTORY + 28, short(65_535)),
    "extra field of 65,535 bytes": changed(DIRECTORY + 30, short(65_535)),
    "member before the file": changed(DIRECTORY + 42, long(2**32 - 3)),
    "member in the directory": changed(DIRECTORY + 42, long(DIRECTORY)),
    "members share their bytes": changed(GOOD.rindex(b"PK\1\2") + 42, long(0)),
    "another name in the member": changed(30, b"other_"),
    "another method in the member": changed(8, short(12)),
    "member without a signature": changed(0, b"XXXX"),
    "name that leaves the folder": written(lambda a: a.writestr("../../../x\n.npy", b"")),
    "name with an escape": written(lambda a: a.writestr("\x1b[31m.npy", b"")),
    "name twice": written(twice),
    "wrong checksum of labels": changed(GOOD.rindex(b"PK\1\2") + 16, long(7)),
    "bzip2": written(lambda a: None, zipfile.ZIP_BZIP2),
    "lzma": written(lambda a: None, zipfile.ZIP_LZMA),
    "directory over a megabyte": written(many),
    "bomb": bomb(1200 << 20),
    "bomb that lies about its size": files(
        {
            "train.npz": (
                lambda packed: b"PK\3\4" + struct.pack("<5H3I2H", 20, 0, 8, 0, 0, 0, len(packed), 700, 10, 0)
                + b"images.npy" + packed
                + b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, 0, 8, 0, 0, 0, len(packed), 700, 10, 0, 0, 0, 0, 0, 0)
                + b"images.npy"
                + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 1, 1, 56, 40 + len(packed), 0)
            )(zlib.compress(bytes(64 << 20), 9)[2:-4])
        }
    ),
}  # fmt: skip
