"""Parquet files: damaged bytes, hostile metadata, and columns that are not what they say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.hostile_files import Maker, files
from tests.helpers.image_trees import encoded, picture

PNG = encoded(picture(1, 8, 8))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAME = "train-00000-of-00001.parquet"
CLASSES = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def features(label: Any = None, **more: Any) -> bytes:
    label = CLASSES if label is None else label
    return json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label, **more}}}).encode()


def table(metadata: dict[bytes, bytes] | None = None, **columns: Any) -> pa.Table:
    found = {
        "image": pa.array([{"bytes": PNG, "path": f"{row}.png"} for row in "ab"], IMAGE),
        "label": pa.array([0, 1], pa.int64()),
        **columns,
    }
    whole = pa.table({name: column for name, column in found.items() if column is not None})
    return whole.replace_schema_metadata({b"huggingface": features()} if metadata is None else metadata)


def written(of: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(of, file, **options)
    return file.getvalue()


def columns(**changes: Any) -> Maker:
    return files({NAME: written(table(**changes))})


def described(value: bytes, key: bytes = b"huggingface") -> Maker:
    return files({NAME: written(table({b"huggingface": features(), key: value}))})


def lazily(make: Callable[[], bytes]) -> Maker:
    """A file that is large, and so made only when it is needed."""

    def maker(folder: Path) -> None:
        (folder / NAME).write_bytes(make())

    return maker


GOOD = written(table())
SIZE = int.from_bytes(GOOD[-8:-4], "little")
START = len(GOOD) - 8 - SIZE


def flipped(at: int) -> Maker:
    return files({NAME: GOOD[:at] + bytes([GOOD[at] ^ 0xFF]) + GOOD[at + 1 :]})


def nested(depth: int) -> pa.DataType:
    found = pa.int8()
    for _ in range(depth):
        found = pa.list_(found)
    return found


def images(of: list[Any], kind: Any = IMAGE) -> pa.Array:
    return pa.array(of, kind)


HUGE = b"9" * 5000
METADATA: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "nested objects": b'{"info":' * 100_000,
    "cut": features()[:-5],
    "not UTF-8": features().replace(b"cat", b"c\xfft"),
    "5,000 digits": b'{"info": ' + HUGE + b"}",
    "not a number": b'{"info": NaN}',
    "a list": b"[]",
    "info is a list": b'{"info": []}',
    "features are text": b'{"info": {"features": "x"}}',
    "a feature is text": b'{"info": {"features": {"label": "x", "image": "y"}}}',
    "names of numbers": features({"_type": "ClassLabel", "names": [1, 2]}),
    "names are text": features({"_type": "ClassLabel", "names": "catdog"}),
    "names with surrogates": features({"_type": "ClassLabel", "names": ["\ud800", "b"]}),
    "names nested": features({"_type": "ClassLabel", "names": [[["a"]]]}),
    "a million names": features({"_type": "ClassLabel", "names": ["a"] * 1_000_000}),
    "30 MB of empty lists": b"[" + b"[]," * (10 << 20) + b"[]]",
}
OWN: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "cut": b"{",
    "5,000 digits": b'{"parents": [' + HUGE + b"]}",
    "parents outside": b'{"parents": [7, 7], "coarse_names": ["x"]}',
    "text": b'"x"',
    "not UTF-8": b"\xff",
    "paths of numbers": b'{"paths": {"0": 7}}',
    "paths by names": b'{"paths": {"x": "y"}}',
}
HOSTILE: dict[str, Maker] = {
    "no bytes": files({NAME: b""}),
    "magic only": files({NAME: b"PAR1"}),
    "twice the magic": files({NAME: b"PAR1PAR1"}),
    "text": files({NAME: b"this is no Parquet file" * 50}),
    "cut in half": files({NAME: GOOD[: len(GOOD) // 2]}),
    "without its last byte": files({NAME: GOOD[:-1]}),
    "encrypted": files({NAME: GOOD[:-4] + b"PARE"}),
    "footer of 2 GiB": files({NAME: GOOD[:-8] + b"\xff\xff\xff\x7f" + GOOD[-4:]}),
    "footer of 4 GiB": files({NAME: GOOD[:-8] + b"\xff\xff\xff\xff" + GOOD[-4:]}),
    "footer of no bytes": files({NAME: GOOD[:-8] + bytes(4) + GOOD[-4:]}),
    "footer cut": files({NAME: GOOD[:-8] + (SIZE // 2).to_bytes(4, "little") + GOOD[-4:]}),
    "footer of zeros": files({NAME: GOOD[:START] + bytes(SIZE) + GOOD[-8:]}),
    "footer of ones": files({NAME: GOOD[:START] + b"\xff" * SIZE + GOOD[-8:]}),
    "pages of zeros": files({NAME: b"PAR1" + bytes(START - 4) + GOOD[START:]}),
    "pages of ones": files({NAME: b"PAR1" + b"\xff" * (START - 4) + GOOD[START:]}),
    "pages are missing": files({NAME: b"PAR1" + GOOD[START:]}),
    **{f"a wrong byte in the footer, {at}": flipped(START + at) for at in range(0, min(SIZE, 260), 10)},
    **{f"a wrong byte in pages, {at}": flipped(4 + at) for at in range(0, 60, 6)},
    **{f"features: {name}": described(value) for name, value in METADATA.items()},
    **{f"own metadata: {name}": described(value, b"beam_cifar") for name, value in OWN.items()},
    # Arrow ends the process when it is asked for the footer's entry of such a column, or for all entries.
    "labels that may be missing are said to be required": files({NAME: GOOD.replace(b"\x02\x18\x05label", b"\x00\x18\x05label")}),
    "labels of unknown repetition": files({NAME: GOOD.replace(b"\x02\x18\x05label", b"\x03\x18\x05label")}),
    "images of unknown repetition": files({NAME: GOOD.replace(b"\x02\x18\x05bytes", b"\x03\x18\x05bytes")}),
    "no images": columns(image=None),
    "images of numbers": columns(image=pa.array([1, 2])),
    "images of lists": columns(image=pa.array([[1], [2]])),
    "images that are paths": columns(image=images([{"bytes": None, "path": "/etc/passwd"}] * 2)),
    "images of text": columns(image=images([{"bytes": b"x", "path": "a.png"}] * 2)),
    "images of no bytes": columns(image=images([{"bytes": b"", "path": "a.png"}] * 2)),
    "two columns of images": columns(img=images([{"bytes": PNG, "path": None}] * 2)),
    "paths of 1 MB": columns(image=images([{"bytes": PNG, "path": "a" * (1 << 20)}] * 2)),
    "labels outside": columns(label=pa.array([0, 7])),
    "labels below": columns(label=pa.array([0, -7])),
    "labels of 2**63": columns(label=pa.array([0, 2**64 - 1], pa.uint64())),
    "labels of halves": columns(label=pa.array([0.0, 0.5])),
    "labels above all": columns(label=pa.array([0.0, 1e300])),
    "labels infinite": columns(label=pa.array([0.0, float("inf")])),
    "labels of 5,000 digits": columns(label=pa.array(["0", "9" * 5000])),
    "labels of lists": columns(label=pa.array([[0], [1]])),
    "labels nested": columns(label=pa.array([None, None], nested(60))),
    "labels of 1 MB": columns(label=pa.array(["a", "b" * (1 << 20)])),
    "a text repeated a million times": lazily(
        lambda: written(
            table(
                image=pa.DictionaryArray.from_arrays(
                    pa.array([0] * 300_000, pa.int32()), pa.array([PNG * 2000], pa.binary())
                ),
                label=pa.array([0] * 300_000),
            )
        )
    ),
    "an image of 200 MB of zeros": lazily(
        lambda: written(
            table(image=images([{"bytes": bytes(200 << 20), "path": "a.png"}] * 2)), compression="zstd"
        )
    ),
    "10 million rows without an image": lazily(
        lambda: written(
            table(
                image=pa.nulls(10_000_000, pa.binary()), label=pa.nulls(10_000_000, pa.int64())
            ),
            compression="zstd",
        )
    ),
}  # fmt: skip
