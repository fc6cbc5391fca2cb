"""What is written is the one style, loads everywhere, and reads back."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from beam_cifar.formats.cifar.facts import CIFAR10_NAMES, CIFAR100_NAMES, CIFAR100_SUPERCLASSES
from beam_cifar.pickles.recognise import Meta, read_batch, read_meta
from beam_cifar.pickles.write import BatchWriter, write_batch, write_meta

TEXT = {"latin1": str, "bytes": bytes}  # as for the genuine files, ASCII cannot hold pixels


Size = tuple[int, int]


class OnlyWrite:
    """A sink that can do nothing else."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.parts.append(bytes(data))

    def getvalue(self) -> bytes:
        return b"".join(self.parts)


def make(
    rows: int,
    *,
    size: Size | None = (32, 32),
    kind: str = "cifar10",
    images: bool = True,
    sizes: Sequence[Size | None] | None = None,
    step: int = 700,
) -> tuple[bytes, list[bytes | None]]:
    """Returns a file by `BatchWriter`, and the images in it."""
    sink = OnlyWrite()
    writer = BatchWriter(sink, rows=rows, kind=kind, batch_label="training batch 1 of 5", size=size, images=images)
    all_sizes = sizes or [size or (32, 32)] * rows
    pixels = [
        item and bytes((row + at) % 256 for at in range(3 * item[0] * item[1])) for row, item in enumerate(all_sizes)
    ]
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        count = part.stop - start
        writer.append(
            pixels[part] if images else None,
            [row % 10 if row % 3 else None for row in range(part.start, part.stop)],
            [1] * count if kind == "cifar100" else None,
            [f"имя{row}" if row % 5 == 0 else f"name{row}" for row in range(part.start, part.stop)],
            all_sizes[part] if size is None and images else None,
        )
    writer.close()
    return sink.getvalue(), pixels


MIXED = [(2, 3), None, (32, 32), (1, 1), None, (32, 32), (5, 4)]
STANDARD_OR_NONE = [(32, 32), None, (32, 32), None, None, (32, 32)]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"rows": 0},
        {"rows": 1},
        {"rows": 2, "size": (1, 1)},
        {"rows": 999, "size": (1, 2)},
        {"rows": 1000, "size": (2, 1)},
        {"rows": 1001, "size": (2, 2)},
        {"rows": 2001, "size": (1, 1), "step": 1},
        {"rows": 0, "size": None},
        {"rows": 7, "size": None, "sizes": MIXED},
        {"rows": 6, "size": None, "sizes": STANDARD_OR_NONE},
        {"rows": 1400, "size": None, "sizes": MIXED * 200},
        {"rows": 1, "size": None, "sizes": [None]},
        {"rows": 5, "images": False},
        {"rows": 0, "images": False},
    ],
    ids=str,
)
def test_written_batches_read_back(kind: str, arguments: dict[str, Any]) -> None:
    data, pixels = make(kind=kind, **arguments)
    rows = arguments["rows"]
    batch = read_batch(io.BytesIO(data), "x")
    assert (batch.rows, batch.kind, batch.python2_style) == (rows, kind, True)
    assert batch.labels == tuple(row % 10 if row % 3 else None for row in range(rows))
    assert batch.coarse_labels == ((1,) * rows if kind == "cifar100" else None)
    assert batch.filenames == tuple(f"имя{row}" if row % 5 == 0 else f"name{row}" for row in range(rows))
    assert batch.batch_label == "training batch 1 of 5"
    if arguments.get("images", True) and rows:
        assert batch.images is not None
        assert batch.images.read(io.BytesIO(data), 0, rows)[0] == b"".join(item for item in pixels if item)
        assert batch.images.missing == pixels.count(None)
    elif rows:
        assert batch.images is None


@pytest.mark.parametrize("encoding", TEXT)
@pytest.mark.parametrize("size", [(32, 32), (2, 2), None])
def test_pickle_loads_what_is_written(size: Size | None, encoding: str) -> None:
    sizes = MIXED if size is None else None
    data, pixels = make(7, size=size, sizes=sizes)
    text = TEXT[encoding]
    loaded = {key if text is str else key.decode(): item for key, item in pickle.loads(data, encoding=encoding).items()}
    assert list(loaded)[:4] == ["data", "batch_label", "labels", "filenames"]
    assert ("image_sizes" in loaded) is (size != (32, 32))
    assert {type(name) for name in loaded["filenames"]} == {text, str}
    assert loaded["labels"] == [None, 1, 2, None, 4, 5, None]
    assert len(loaded["data"]) == 7
    for row, expected in zip(loaded["data"], pixels, strict=True):
        assert (row is None) is (expected is None)
        assert row is None or (row.dtype == np.uint8 and row.tobytes() == expected)


def test_image_sizes_are_left_out_when_every_image_is_standard() -> None:
    data, _ = make(6, size=None, sizes=STANDARD_OR_NONE)
    assert "image_sizes" not in pickle.loads(data, encoding="latin1")


def test_a_row_without_image_gets_the_standard_size() -> None:
    data, _ = make(7, size=None, sizes=MIXED)
    assert pickle.loads(data, encoding="latin1")["image_sizes"] == [size or (32, 32) for size in MIXED]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("size", [(32, 32), (3, 5)])
def test_write_batch_keeps_the_order_of_the_genuine_keys(kind: str, size: Size) -> None:
    sink = OnlyWrite()
    pixels = bytes(range(45)) * 2 if size == (3, 5) else bytes(range(256)) * 24
    coarse = [4, 5] if kind == "cifar100" else None
    write_batch(
        sink,
        kind=kind,
        batch_label="testing batch 1 of 1",
        labels=[1, 99999],
        coarse_labels=coarse,
        filenames=["a.png", "b.png"],
        pixels=[pixels[:50], pixels[50:]],
        rows=2,
        size=size,
    )
    genuine = {
        "cifar10": ["batch_label", "labels", "data", "filenames"],
        "cifar100": ["filenames", "batch_label", "fine_labels", "coarse_labels", "data"],
    }
    assert list(pickle.loads(sink.getvalue(), encoding="latin1"))[: len(genuine[kind])] == genuine[kind]
    batch = read_batch(io.BytesIO(sink.getvalue()), "x")
    assert (batch.labels, batch.coarse_labels) == ((1, 99999), coarse and tuple(coarse))
    assert batch.python2_style
    assert batch.images is not None
    assert batch.images.size == size
    assert batch.images.read(io.BytesIO(sink.getvalue()), 0, 2)[0] == pixels


def test_a_batch_of_ten_thousand_is_as_long_as_the_genuine_ones() -> None:
    sink = OnlyWrite()
    names = [f"automobile_s_{row:06}.png" for row in range(10_000)]
    write_batch(
        sink,
        kind="cifar10",
        batch_label="training batch 1 of 5",
        labels=[row % 10 for row in range(10_000)],
        coarse_labels=None,
        filenames=names,
        pixels=[bytes(3072 * 100)] * 100,
        rows=10_000,
    )
    length = len(sink.getvalue())
    assert abs(length / 31_035_704 - 1) < 0.001  # data_batch_1


def test_meta_files_are_the_genuine_bytes() -> None:
    cases = {
        "5ff9c542aee3614f3951f8cda6e48888": Meta("cifar10", tuple(CIFAR10_NAMES), (), 10000, 3072),
        "7973b15100ade9c7d40fb424638fde48": Meta(
            "cifar100", tuple(CIFAR100_NAMES), tuple(CIFAR100_SUPERCLASSES), None, None
        ),
    }
    for md5, meta in cases.items():
        file = io.BytesIO()
        write_meta(file, meta)
        assert hashlib.md5(file.getvalue()).hexdigest() == md5
        assert read_meta(file, "meta") == meta


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_meta_files_of_any_length_read_back(kind: str, count: int) -> None:
    names = tuple(f"класс {number}" if number % 2 else f"class {number}" for number in range(count))
    coarse = ("animals",) if kind == "cifar100" else ()
    meta = Meta(kind, names, coarse, None, None)
    file = io.BytesIO()
    write_meta(file, meta)
    assert read_meta(file, "meta") == meta
    assert next(iter(pickle.loads(file.getvalue()).values())) == list(names)


def writer(**changes: Any) -> BatchWriter:
    return BatchWriter(OnlyWrite(), **{"rows": 2, "kind": "cifar10", "batch_label": "x", "size": (1, 1), **changes})


BAD_CALLS: dict[str, Callable[[], object]] = {
    "unknown_kind": lambda: writer(kind="mnist"),
    "payload_over_2_gib": lambda: writer(rows=700_000, size=(32, 32)),
    "no_pixels_in_size": lambda: writer(size=(0, 5)),
    "row_over_2_gib": lambda: writer(size=(2**16, 2**16)),
    "too_few_rows": lambda: writer().close(),
    "too_many_rows": lambda: writer().append(bytes(9), [1] * 3, None, ["a"] * 3),
    "too_few_pixels": lambda: writer().append(bytes(5), [1] * 2, None, ["a"] * 2),
    "too_few_labels": lambda: writer().append(bytes(6), [1], None, ["a"] * 2),
    "coarse_labels_for_cifar10": lambda: writer().append(bytes(6), [1] * 2, [1] * 2, ["a"] * 2),
    "no_coarse_labels_for_cifar100": lambda: writer(kind="cifar100").append(bytes(6), [1] * 2, None, ["a"] * 2),
    "missing_image_in_uniform_batch": lambda: writer().append([bytes(3), None], [1] * 2, None, ["a"] * 2),
    "no_sizes": lambda: writer(size=None).append([bytes(3)] * 2, [1] * 2, None, ["a"] * 2),
    "size_without_image": lambda: writer(size=None).append([None] * 2, [1] * 2, None, ["a"] * 2, [(1, 1)] * 2),
    "image_without_size": lambda: writer(size=None).append([bytes(3)] * 2, [1] * 2, None, ["a"] * 2, [None] * 2),
    "pixels_without_images": lambda: writer(images=False).append([bytes(3)] * 2, [1] * 2, None, ["a"] * 2),
    "label_of_9_bytes": lambda: writer().append(bytes(6), [2**63, 1], None, ["a"] * 2),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_wrong_calls_are_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        BAD_CALLS[name]()


def test_pixels_may_come_as_one_block_for_rows_of_several_sizes() -> None:
    sink = OnlyWrite()
    made = BatchWriter(sink, rows=3, kind="cifar10", batch_label="x", size=None)
    made.append(bytes(range(9)), [1, 2, 3], None, ["a", "b", "c"], [(1, 1), None, (2, 1)])
    made.close()
    batch = read_batch(io.BytesIO(sink.getvalue()), "x")
    assert batch.images is not None
    assert batch.images.read(io.BytesIO(sink.getvalue()), 0, 3) == (bytes(range(9)), [3, None, 6])
