"""Tar archives, plain and compressed: of CIFAR batches, and of WebDataset samples."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.hostile_files import Maker, files
from tests.helpers.image_trees import batch, encoded, picture

META = pickle.dumps({"label_names": ["cat", "dog"]}, 2)
BATCH = pickle.dumps(batch(["a.png", "b.png"], [0, 1]), 2)
MEMBERS = [("c/batches.meta", META), ("c/data_batch_1", BATCH)]
END = bytes(1024)


def member(name: str | bytes, data: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A member with its header; `fields` replace what the header would say."""
    raw = name.encode() if isinstance(name, str) else name
    head = bytearray(512)
    parts = {"name": (0, raw), "mode": (100, b"0000644\0"), "size": (124, b"%011o\0" % len(data)), "kind": (156, kind)}
    parts |= {"magic": (257, b"ustar\x0000"), "link": (157, b"")}
    places = {"name": 0, "size": 124, "link": 157, "magic": 257}
    for key, (at, value) in (parts | {key: (places[key], value) for key, value in fields.items()}).items():
        assert key
        head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    text = b""
    for key, value in records:
        size = len(key) + len(value) + 3
        while len(b"%d %s=%s\n" % (size, key, value)) != size:
            size += 1
        text += b"%d %s=%s\n" % (size, key, value)
    return member("pax", text, kind)


GOOD = b"".join(member(*each) for each in MEMBERS)


def tar(before: bytes = b"", after: bytes = b"", end: bytes = END) -> Maker:
    """Good members of a CIFAR archive with others around them."""
    return files({"c.tar": before + GOOD + after + end}, "c.tar")


def packed(data: bytes) -> Maker:
    return files({"c.tar.gz": data}, "c.tar.gz")


def linked(kind: bytes, target: str = "/etc/passwd") -> Maker:
    by = io.BytesIO()
    with tarfile.open(fileobj=by, mode="w") as archive:
        info = tarfile.TarInfo("c/data_batch_2")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return tar(before=by.getvalue()[:512])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


ZIPPED = gzip.compress(GOOD + END, mtime=0)


def gzip_bomb(folder: Path) -> Path:
    pack = zlib.compressobj(1, zlib.DEFLATED, 31)
    with open(folder / "c.tar.gz", "wb") as file:
        file.write(pack.compress(member("c/batches.meta", META) + member("c/data_batch_1", size=b"77777777777\0")))
        for _ in range(1300):
            file.write(pack.compress(bytes(1 << 20)))
        file.write(pack.flush())
    return folder / "c.tar.gz"


def shard(samples: Sequence[tuple[str, bytes]], **more: bytes) -> Maker:
    content = b"".join(member(name, data) for name, data in samples) + END
    return files({"train-000000.tar": content, **{name.replace("_", "."): data for name, data in more.items()}})


PNG = encoded(picture(1, 8, 8))
SAMPLES: dict[str, list[tuple[str, bytes]]] = {
    "label of 5,000 digits": [("a.png", PNG), ("a.cls", b"9" * 4000)],
    "label above 2**31": [("a.png", PNG), ("a.cls", b"99999999999")],
    "negative label": [("a.png", PNG), ("a.cls", b"-7")],
    "label is not UTF-8": [("a.png", PNG), ("a.cls", b"\xff\xfe")],
    "label of a megabyte": [("a.png", PNG), ("a.cls", b"1" * (1 << 20))],
    "JSON of 5,000 digits": [("a.png", PNG), ("a.json", b'{"label": ' + b"9" * 5000 + b"}")],
    "JSON nested": [("a.png", PNG), ("a.json", b"[" * 200_000)],
    "JSON with a label that is no number": [("a.png", PNG), ("a.json", b'{"label": 1.5}')],
    "JSON with an infinite label": [("a.png", PNG), ("a.json", b'{"label": Infinity}')],
    "JSON with a surrogate": [("a.png", PNG), ("a.json", b'{"label": "\\ud800"}')],
    "JSON with a surrogate id": [("a.png", PNG), ("a.json", b'{"id": "\\udfff", "label": 0}')],
    "JSON cut": [("a.png", PNG), ("a.json", b'{"label": ')],
    "JSON is not UTF-8": [("a.png", PNG), ("a.json", b'{"label": "\xff"}')],
    "JSON above its limit": [("a.png", PNG), ("a.json", b" " * (2 << 20))],
    "two images": [("a.png", PNG), ("a.jpg", PNG), ("a.cls", b"0")],
    "the same member twice": [("a.png", PNG), ("a.cls", b"0"), ("a.cls", b"1")],
    "samples apart": [("a.png", PNG), ("b.png", PNG), ("a.cls", b"0")],
    "an image of another kind": [("a.webp", PNG), ("a.png", b""), ("a.cls", b"0")],
    "an image without bytes": [("a.png", b""), ("a.cls", b"0")],
}
TABLES: dict[str, bytes] = {
    "labels.json cut": b'{"names": [',
    "labels.json nested": b"[" * 300_000,
    "labels.json of numbers": b'{"names": [1], "superclasses": [], "parents": [], "subsets": {}}',
    "labels.json with surrogates": b'{"names": ["\\ud800"], "superclasses": [], "parents": [], "subsets": {}}',
    "labels.json with parents outside": b'{"names": ["a"], "superclasses": ["b"], "parents": [7], "subsets": {}}',
    "labels.json of 5,000 digits": b'{"names": ["a"], "superclasses": [], "parents": ['
    + b"9" * 5000
    + b'],"subsets":{}}',
    "labels.json with subsets of numbers": b'{"names": ["a"], "superclasses": [], "parents": [], "subsets": {"a": 1}}',
}

HOSTILE: dict[str, Maker] = {
    "empty": files({"c.tar": b""}, "c.tar"),
    "zeros": files({"c.tar": bytes(10_240)}, "c.tar"),
    "text": files({"c.tar": b"this is no archive " * 100}, "c.tar"),
    "cut in a header": files({"c.tar": (GOOD + END)[:700]}, "c.tar"),
    "cut in a member": files({"c.tar": (GOOD + END)[:2000]}, "c.tar"),
    "without an end": tar(end=b""),
    "another archive after the end": tar(end=END + GOOD + END),
    "wrong checksum": files({"c.tar": flip(GOOD, 3) + END}, "c.tar"),
    "symbolic link": linked(tarfile.SYMTYPE),
    "hard link": linked(tarfile.LNKTYPE),
    "device": linked(tarfile.CHRTYPE),
    "block device": linked(tarfile.BLKTYPE),
    "pipe": linked(tarfile.FIFOTYPE),
    "GNU sparse file": linked(b"S"),
    "multi-volume": linked(b"M"),
    "unknown kind": linked(b"Z"),
    "pax sparse file": tar(before=pax((b"GNU.sparse.major", b"1")) + member("x")),
    "size of 5,000 digits": tar(before=pax((b"size", b"9" * 5000)) + member("x")),
    "size of 18 digits": tar(before=pax((b"size", b"9" * 18)) + member("x")),
    "negative size": tar(before=pax((b"size", b"-512")) + member("x")),
    "hexadecimal size": tar(before=pax((b"size", b"0x200")) + member("x")),
    "size with underscores": tar(before=pax((b"size", b"1_0")) + member("x")),
    "size in Arabic digits": tar(before=pax((b"size", "٣".encode())) + member("x")),
    "binary size of 2**80": tar(before=member("x", size=b"\x80" + b"\xff" * 11)),
    "negative binary size": tar(before=member("x", size=b"\xff" * 12)),
    "size of letters": tar(before=member("x", size=b"zzzzzzzzzzz\0")),
    "size beyond the end": tar(after=member("x", size=b"77777777777\0"), end=b""),
    "pax record of no length": tar(before=member("p", b"0 a=b\n", b"x") + member("x")),
    "pax record that is too long": tar(before=member("p", b"999 a=b\n", b"x") + member("x")),
    "pax record of 5,000 digits": tar(before=member("p", b"9" * 5000 + b" a=b\n", b"x") + member("x")),
    "pax record without an end": tar(before=member("p", b"6 a=b ", b"x") + member("x")),
    "pax header of 2 MB": tar(before=member("p", b"a" * (2 << 20), b"x") + member("x")),
    "name of 2 MB": tar(before=member("L", b"a" * (2 << 20), b"L") + member("x")),
    "name of 5,000 bytes": tar(before=member("L", b"a" * 5000, b"L") + member("x")),
    "name with NUL": tar(before=pax((b"path", b"a\0b")) + member("x")),
    "name twice": tar(after=GOOD),
    "20,000 members": tar(after=b"".join(member(f"c/x{number}.txt") for number in range(20_000))),
    "two datasets": tar(after=GOOD.replace(b"c/batches.meta", b"d/batches.meta")),
    "gzip: cut": packed(ZIPPED[: len(ZIPPED) // 2]),
    "gzip: without its last byte": packed(ZIPPED[:-1]),
    "gzip: without its trailer": packed(ZIPPED[:-8]),
    "gzip: wrong checksum": packed(flip(ZIPPED, len(ZIPPED) - 6)),
    "gzip: wrong size": packed(flip(ZIPPED, len(ZIPPED) - 2)),
    "gzip: a wrong byte": packed(flip(ZIPPED, len(ZIPPED) // 3)),
    "gzip: reserved block": packed(ZIPPED[:10] + b"\x07" + ZIPPED[11:]),
    "gzip: stored block that lies": packed(ZIPPED[:10] + b"\x01\xff\x00\xff\x00" + ZIPPED[15:]),
    "gzip: unknown method": packed(flip(ZIPPED, 2)),
    "gzip: reserved flags": packed(ZIPPED[:3] + b"\xe0" + ZIPPED[4:]),
    "gzip: name without an end": packed(ZIPPED[:3] + b"\x08" + ZIPPED[4:10] + b"a" * 100_000),
    "gzip: extra field beyond the end": packed(ZIPPED[:3] + b"\x04" + ZIPPED[4:10] + b"\xff\xff"),
    "gzip: header only": packed(ZIPPED[:10]),
    "gzip: magic only": packed(b"\x1f\x8b"),
    "gzip: text after the end": packed(ZIPPED + b"text that is not gzip"),
    "gzip: in gzip": packed(gzip.compress(ZIPPED)),
    "gzip: of nothing": packed(gzip.compress(b"")),
    "gzip: 50,000 empty members": packed(gzip.compress(b"", 1, mtime=0) * 50_000),
    "gzip: bzip2": packed(b"BZh91AY&SY" + bytes(100)),
    "gzip: bomb": gzip_bomb,
    **{f"shard: {name}": shard(samples) for name, samples in SAMPLES.items()},
    **{f"shard: {name}": shard([("a.png", PNG), ("a.cls", b"0")], labels_json=data) for name, data in TABLES.items()},
}
