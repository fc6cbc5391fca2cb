"""Lance's datasets, read by the description of the format; tests/peers has what Lance itself finds."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_cifar.data.labels import LabelTable
from beam_cifar.data.schema import example_schema
from beam_cifar.formats import lance
from beam_cifar.formats.contract.types import ExportOptions, Shard, SinkOptions
from beam_cifar.formats.kit.protobuf import message, packed
from beam_cifar.formats.registry import get_sink
from tests.helpers.image_trees import batch, contents, decoded, picture, quickly, write_cifar
from tests.helpers.protobuf import parsed_fields

pytestmark = pytest.mark.usefixtures("without_runner")

MANIFEST = "_versions/18446744073709551614.manifest"


def numbers(data: bytes) -> list[int]:
    """A repeated field of integers, of which protobuf reads each as a field of its own."""
    found = parsed_fields(b"".join(b"\x08" + each for each in _varints(data)))
    return found.get(1, [])


def _varints(data: bytes) -> Iterator[bytes]:
    start = 0
    for at, byte in enumerate(data):
        if byte < 0x80:
            yield data[start : at + 1]
            start = at + 1


def manifest(folder: Path) -> tuple[list[tuple[str, str]], dict[str, Any], list[tuple[str, int, int]]]:
    """Columns with their types, the features, and the data files with rows and bytes."""
    data = (folder / MANIFEST).read_bytes()
    at, major, minor, magic = struct.unpack("<QHH4s", data[-16:])
    (size,) = struct.unpack_from("<I", data, at)
    assert (major, minor, magic, at + 4 + size) == (0, 2, b"LANC", len(data) - 16)
    found = parsed_fields(data[at + 4 : -16])
    assert (found[3], found[7]) == ([1], [b""])
    columns = [(field[2][0].decode(), field[5][0].decode()) for field in map(parsed_fields, found[1])]
    entry = parsed_fields(found[5][0])
    assert entry[1] == [b"huggingface"]
    files = []
    for number, fragment in enumerate(map(parsed_fields, found[2])):
        (file,) = map(parsed_fields, fragment[2])
        assert (fragment[1], numbers(file[2][0])) == ([number], list(range(len(columns))))
        files.append((file[1][0].decode(), fragment[4][0], file[6][0]))
    assert found[11] == [len(files) - 1]
    return columns, json.loads(entry[2][0])["info"]["features"], files


def columns_of(data: bytes) -> list[list[list[Any]]]:
    """The values of each page of each column of a data file."""
    _, table, last, count, columns, major, minor, magic = struct.unpack("<3Q2I2H4s", data[-40:])
    assert (count, major, minor, magic, last) == (1, 0, 3, b"LANC", table + 16 * columns)
    found = []
    for at, size in struct.iter_unpack("<2Q", data[table:last]):
        pages, first = [], 0
        for page in map(parsed_fields, parsed_fields(data[at : at + size]).get(2, [])):
            places = zip(numbers(page[1][0]), numbers(page[2][0]), strict=True)
            buffers = [data[start : start + length] for start, length in places]
            assert not any(start % 64 for start in numbers(page[1][0]))
            assert page[5] == [first]
            pages.append(list(values(parsed_fields(page[4][0])[2][0], buffers)))
            assert page[3] == [len(pages[-1])]
            first += len(pages[-1])
        found.append(pages)
    return found


def values(direct: bytes, buffers: list[bytes]) -> Iterator[Any]:
    name, encoding = (parsed_fields(parsed_fields(direct)[1][0])[number][0] for number in (1, 2))
    assert name == b"/lance.encodings.ArrayEncoding"
    kind = parsed_fields(encoding)
    if 6 in kind:
        (adjustment,) = parsed_fields(kind[6][0])[3]
        start = 0
        for end in np.frombuffer(buffers[0], "<u8").tolist():
            yield None if end >= adjustment else buffers[1][start:end]
            start = end % adjustment
    elif 1 in (nullable := parsed_fields(kind[2][0])):
        yield from np.frombuffer(buffers[0], "<i8").tolist()
    else:
        assert list(nullable) == [2]
        valid = np.unpackbits(np.frombuffer(buffers[0], np.uint8), bitorder="little")
        yield from (
            value if there else None
            for value, there in zip(np.frombuffer(buffers[1], "<i8").tolist(), valid, strict=False)
        )


def read(folder: Path) -> list[list[Any]]:
    """All columns of a dataset."""
    found: list[list[Any]] = []
    for name, rows, size in manifest(folder)[2]:
        data = (folder / "data" / name).read_bytes()
        columns = [[value for page in pages for value in page] for pages in columns_of(data)]
        assert (len(data), {len(column) for column in columns}) == (size, {rows})
        found = [before + column for before, column in zip(found or [[]] * len(columns), columns, strict=True)]
    return found


def test_a_subset_is_a_dataset_with_ids_pixels_labels_and_class_names(tmp_path: Path) -> None:
    batches = {
        "data_batch_1": batch(["a.png", "кот.png"], [1, 0]),
        "data_batch_2": batch(["c.png"], [None], 1),
        "test_batch": batch(["d.png"], [2], 2),
    }
    quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "lance")
    assert {*contents(tmp_path / "out")} == {
        f"{split}.lance/{name}" for split in ("train", "test") for name in (MANIFEST, "data/00000.lance")
    }
    ids, images, labels = read(tmp_path / "out" / "train.lance")
    assert (ids, labels) == ([b"a", "кот".encode(), b"c"], [1, 0, None])
    assert [decoded(image).tobytes() for image in images] == [picture(at).tobytes() for at in (0, 1, 1000)]
    columns, features, _ = manifest(tmp_path / "out" / "test.lance")
    assert columns == [("id", "string"), ("image", "large_binary"), ("label", "int64")]
    assert features == {"label": {"names": ["cat", "dog", "ship"], "_type": "ClassLabel"}}
    assert read(tmp_path / "out" / "test.lance")[2] == [2]


def test_files_are_fragments_in_order(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch([f"{row}.png" for row in range(5)], [0] * 5)})
    quickly(source, tmp_path / "out", "lance", images_per_batch=2)
    _, _, files = manifest(tmp_path / "out" / "train.lance")
    assert [(name, rows) for name, rows, _ in files] == [("00000.lance", 2), ("00001.lance", 2), ("00002.lance", 1)]
    assert read(tmp_path / "out" / "train.lance")[0] == [b"0", b"1", b"2", b"3", b"4"]


def rows_of(count: int) -> pa.Table:
    """Rows of which some lack an image or a label."""
    columns = {
        "id": [f"item {row}" for row in range(count)],
        "subset": ["train"] * count,
        "image": [None if row % 5 == 3 else b"x" * (7 * row) for row in range(count)],
        "encoding": ["png"] * count,
        "label": [None if row % 7 == 2 else row % 3 for row in range(count)],
        "filename": [""] * count,
    }
    table = {name: columns.get(name, [None] * count) for name in example_schema().names}
    return pa.table(table, schema=example_schema())


def written(table: pa.Table, block_rows: int) -> bytes:
    """The data file of a table that comes in blocks."""
    labels = LabelTable(("cat", "dog", "ship"), ("pet", "thing"), (0, 0, 1))
    shard = Shard(0, "train", "train.lance/data/00000.lance", len(table), len(table), None, True)
    part = get_sink("lance").open_part(file := io.BytesIO(), shard, len(table), SinkOptions(labels, ExportOptions()))
    for start in range(0, len(table), block_rows):
        part.append(table.slice(start, block_rows))
    part.close()
    return file.getvalue()


@pytest.mark.parametrize("page_bytes", [1, 500, 8 << 20])
def test_bytes_do_not_depend_on_blocks(page_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "PAGE_BYTES", page_bytes)
    table = rows_of(100)
    assert written(table, 7) == written(table, 100)
    columns = columns_of(written(table, 13))
    ids, images, labels, coarse = ([value for page in pages for value in page] for pages in columns)
    assert [each.decode() for each in ids] == table["id"].to_pylist()
    assert images == table["image"].to_pylist()
    assert labels == table["label"].to_pylist()
    assert coarse == [None if label is None else (0, 0, 1)[label] for label in labels]


def test_a_page_ends_with_the_row_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "PAGE_BYTES", 500)
    pages = columns_of(written(rows_of(100), 9))
    sizes = [[[8 + len(value or b"") for value in page] for page in column] for column in pages[:2]]
    assert all(sum(page) >= 500 > sum(page[:-1]) for column in sizes for page in column[:-1])
    assert [len(page) for page in pages[2]] == [63, 37]


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0, 0), (150, 150), (-1, (1 << 64) - 1), (b"", b""), (b"\xff" * 200, b"\xff" * 200), ("кот", "кот".encode())],
    ids=repr,
)
def test_protobuf_reads_the_fields_that_are_written(value: int | bytes | str, kept: int | bytes) -> None:
    assert parsed_fields(message((1, value), (1000, 7), (1, value))) == {1: [kept, kept], 1000: [7]}


def test_numbers_are_packed() -> None:
    assert numbers(packed([0, 127, 128, 1 << 40])) == [0, 127, 128, 1 << 40]
