"""Datasets for TensorFlow Datasets, read by protobuf, pyarrow, Beam and struct; by TFDS itself in tests/peers."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from apache_beam.io.tfrecordio import _TFRecordUtil
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.kit.tf_example import framed, serialized_example
from beam_cifar.formats.tfds import write as tfds
from tests.helpers.image_trees import (
    batch,
    contents,
    decoded,
    encoded,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows, unpickled

TARGETS = ["tfds_parquet", "tfds_array_record", "tfds_tfrecord"]
CLASSES = ("sea lion", "never used", "поезд, синий")

Row = dict[str, bytes | int]


def example_class() -> Any:
    """`tf.train.Example`, as feature.proto and example.proto of TensorFlow describe it."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = {"bytes": 12, "float": 2, "int64": 3}
    for kind, number in kinds.items():
        values = file.message_type.add(name=f"{kind.capitalize()}List").field.add(name="value", number=1, label=3)
        values.type = number
        values.options.packed = kind != "bytes"
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(kinds, 1):
        feature.field.add(
            name=f"{kind}_list", number=number, label=1, type=11, type_name=f".t.{kind.capitalize()}List", oneof_index=0
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    entry.field.add(name="value", number=2, label=1, type=11, type_name=".t.Feature")
    features.field.add(name="feature", number=1, label=3, type=11, type_name=".t.Features.FeatureEntry")
    file.message_type.add(name="Example").field.add(
        name="features", number=1, label=1, type=11, type_name=".t.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = example_class()


def parsed(data: bytes) -> Row:
    """The features of a serialized example by protobuf itself; each has one value."""
    message = EXAMPLE.FromString(data)
    found: Row = {}
    for name, feature in message.features.feature.items():
        (found[name],) = getattr(feature, feature.WhichOneof("kind")).value
    return found


def records(path: Path) -> list[bytes]:
    """The serialized examples of a file; Beam's reader checks all checksums."""
    if ".parquet" in path.name:
        table = pq.read_table(pa_file(path))
        assert table.column_names == ["data"]
        return [value.as_py() for value in table.column(0)]
    if ".array_record" in path.name:
        return list(chunked_records(path.read_bytes()))
    file, found = io.BytesIO(path.read_bytes()), []
    while (record := _TFRecordUtil.read_record(file)) is not None:
        found.append(record)
    return found


def chunked_records(data: bytes) -> Iterator[bytes]:
    """The records of an ArrayRecord file: of chunks with one, which are not compressed."""
    stream = b"".join(data[block + 24 : block + (1 << 16)] for block in range(0, len(data), 1 << 16))
    while stream:
        size, _, kind, unpacked = struct.unpack_from("<8x4Q", stream)
        if kind == ord("r") | 1 << 8:
            yield stream[40 + size - unpacked : 40 + size]
        stream = stream[40 + size :]


def pa_file(path: Path) -> io.BytesIO:
    return io.BytesIO(path.read_bytes())


def split_rows(output: Path, split: str) -> list[Row]:
    paths = sorted(path for path in output.iterdir() if path.name.startswith(f"dataset-{split}."))
    return [parsed(record) for path in paths for record in records(path)]


def info(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "dataset_info.json").read_bytes())
    return found


def feature(output: Path, name: str) -> dict[str, Any]:
    content = json.loads((output / "features.json").read_bytes())["content"]["features"][name]
    (found,) = (value for key, value in content.items() if key != "pythonClassName")
    return dict(found)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [[f"{subset}{row} ж.png" for row in range(4)] for subset in "abc"]
    batches = [batch(names[number], [0, None, 2, 0], number) for number in range(3)]
    named = dict(zip(["data_batch_1", "data_batch_2", "test_batch"], batches, strict=True))
    return write_cifar(tmp_path_factory.mktemp("source") / "in", named, CLASSES)


def expected_rows(source: Path, subsets: list[str]) -> list[tuple[Any, ...]]:
    return [
        (name.removesuffix(".png").encode(), -1 if label is None else label, pixels)
        for name, label, _, pixels in cifar_rows(source, subsets)
    ]


def found_rows(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(row["id"], row["label"], decoded(row["image"]).tobytes()) for row in rows]  # type: ignore[arg-type]


# --- the wire format ------------------------------------------------------------------------------------------------

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.dictionaries(st.text(max_size=300), st.binary(max_size=400) | INT64, max_size=5))
def test_protobuf_reads_what_was_written(features: Row) -> None:
    assert parsed(serialized_example(features)) == features


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_lengths_of_any_size_are_read(size: int) -> None:
    features: Row = {"coarse_label": 7, "id": "ж".encode(), "image": b"x" * size, "label": -1}
    data = serialized_example(features)
    assert parsed(data) == features
    assert EXAMPLE.FromString(data).SerializeToString(deterministic=True) == data


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_records_have_masked_checksums_of_length_and_data() -> None:
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)

    assert crc32c(b"123456789") == 0xE3069283
    length = struct.pack("<Q", 9)
    expected = length + masked(length) + b"123456789" + masked(b"123456789")
    assert framed([b"123456789", b"123456789"]) == expected * 2


# --- the dataset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_every_row_is_an_example_of_its_split_in_order(target: str, source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", target)
    train, test = (split_rows(tmp_path / "out", split) for split in ("train", "test"))
    assert found_rows(train) == expected_rows(source, ["data_batch_1", "data_batch_2"])
    assert found_rows(test) == expected_rows(source, ["test_batch"])
    assert {tuple(sorted(row)) for row in train} == {("id", "image", "label")}


@pytest.mark.parametrize("target", TARGETS)
def test_the_catalog_is_what_tfds_would_write(target: str, source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", target, images_per_batch=3)
    kind = target.partition("_")[2]
    counts = {"train": [3, 3, 2], "test": [3, 1]}
    assert set(contents(tmp_path / "out")) == {
        *("features.json", "dataset_info.json", "label.labels.txt"),
        *(
            f"dataset-{split}.{kind}-{number:05d}-of-{len(rows):05d}"
            for split, rows in counts.items()
            for number in range(len(rows))
        ),
    }
    found = info(tmp_path / "out")
    assert (found["name"], found["version"], found["fileFormat"]) == ("dataset", "1.0.0", kind)
    for split in found["splits"]:
        files = [p for p in (tmp_path / "out").iterdir() if p.name.startswith(f"dataset-{split['name']}.")]
        assert split["shardLengths"] == [str(len(records(path))) for path in sorted(files)]
        assert split["shardLengths"] == list(map(str, counts[split["name"]]))
        assert split["numBytes"] == str(sum(len(record) for path in files for record in records(path)))
    assert (tmp_path / "out" / "label.labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)
    assert feature(tmp_path / "out", "label") == {"numClasses": "3"}
    shape = {"dimensions": ["32", "32", "3"]}
    assert feature(tmp_path / "out", "image") == {"shape": shape, "dtype": "uint8", "encodingFormat": "png"}


@pytest.mark.parametrize("target", TARGETS)
def test_superclasses_are_a_label_of_every_row(target: str, cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", target)
    rows, test = split_rows(tmp_path / "out", "test"), unpickled(cifar100 / "test")
    assert [(row["label"], row["coarse_label"]) for row in rows] == list(
        zip(test["fine_labels"], test["coarse_labels"], strict=True)
    )
    meta = unpickled(cifar100 / "meta")
    for name, key in {"label": "fine_label_names", "coarse_label": "coarse_label_names"}.items():
        assert (tmp_path / "out" / f"{name}.labels.txt").read_text().splitlines() == meta[key]
        assert feature(tmp_path / "out", name) == {"numClasses": str(len(meta[key]))}


def test_images_that_are_files_pass_through_and_what_they_share_is_told(tmp_path: Path) -> None:
    png, jpeg, gray = encoded(picture(1)), encoded(picture(2), "JPEG"), encoded(picture(3, channels=1))
    wide = encoded(picture(4, 32, 40))
    told = {}
    sets = {
        "png": [png],
        "jpeg": [jpeg, jpeg],
        "both": [png, jpeg],
        "gray": [gray],
        "some gray": [gray, png],
        "wide": [png, wide],
    }
    for name, files in sets.items():
        tree = write_tree(tmp_path / name, {f"cat/{number}.png": data for number, data in enumerate(files)})
        quickly(tree, tmp_path / f"{name} out", "tfds_parquet")
        assert [row["image"] for row in split_rows(tmp_path / f"{name} out", "default")] == files
        image = feature(tmp_path / f"{name} out", "image")
        told[name] = (" ".join(image["shape"]["dimensions"]), image.get("encodingFormat"))
    assert told == {
        "png": ("32 32 3", "png"),
        "jpeg": ("32 32 3", "jpeg"),
        "both": ("32 32 3", None),
        "gray": ("32 32 1", "png"),
        "some gray": ("32 32 3", "png"),
        "wide": ("32 -1 3", "png"),
    }


def test_pixels_become_jpeg_on_request(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "tfds_tfrecord", image_ext=".jpg")
    assert feature(tmp_path / "out", "image")["encodingFormat"] == "jpeg"
    assert all(row["image"][:2] == b"\xff\xd8" for row in split_rows(tmp_path / "out", "test"))  # type: ignore[index]


@pytest.mark.parametrize("target", TARGETS)
def test_two_runs_write_the_same_bytes(target: str, source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        quickly(source, tmp_path / name, target)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_row_groups_end_at_rows_whatever_blocks_come(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_cifar.formats.kit.splits.ROW_GROUP_ROWS", 3)
    quickly(source, tmp_path / "out", "tfds_parquet")
    found = pq.ParquetFile(pa_file(tmp_path / "out" / "dataset-train.parquet-00000-of-00001")).metadata
    assert [found.row_group(number).num_rows for number in range(found.num_row_groups)] == [3, 3, 2]
    assert found.row_group(0).column(0).compression == "UNCOMPRESSED"


def test_splits_have_letters_that_readers_take_and_say_how_they_were_called(tmp_path: Path) -> None:
    names = ["обучение 1", "my-split", "___"]
    source = write_cifar(tmp_path / "in", {name: batch(["a.png"], [0], seed) for seed, name in enumerate(names)})
    (source / "___").rename(source / "жж")  # CIFAR's reader leaves out names that start with an underscore
    quickly(source, tmp_path / "out", "tfds_parquet")
    splits = [split["name"] for split in info(tmp_path / "out")["splits"]]
    assert sorted(splits) == ["_________1", "my_split", "split__"]
    assert all(re.fullmatch(r"\w+", name, re.ASCII) and re.search("[a-z0-9]", name) for name in splits)
    assert manifest(tmp_path / "out")["renamed"]["subsets"] == {
        "_________1": "обучение 1",
        "my_split": "my-split",
        "split__": "жж",
    }


def test_a_split_without_rows_is_left_out_with_a_notice(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png"], [0]), "test": batch(["b.png"], [1])})
    summary = quickly(source, tmp_path / "out", "tfds_parquet", labels=("cat",))
    assert [split["name"] for split in info(tmp_path / "out")["splits"]] == ["train"]
    assert any("'test'" in notice and "not written" in notice for notice in summary.notices)


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_subset_called_all_is_refused(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"all": batch(["a.png"], [0])})
    with pytest.raises(UsageError, match="a split cannot be called 'all'"):
        quickly(source, tmp_path / "out", "tfds_parquet")


def test_subsets_that_would_become_one_split_are_refused(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"a b": batch(["a.png"], [0]), "a-b": batch(["b.png"], [0])})
    with pytest.raises(UsageError, match="'a b' and 'a-b' would both become 'a_b'|'a-b' and 'a b' would both"):
        quickly(source, tmp_path / "out", "tfds_parquet")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("cat", " dog"), "class ' dog' cannot be written as a line of text"),
        (("cat", ""), "class '' cannot be written as a line"),
        (("cat", "d\nog"), r"class 'd\\nog' cannot be written as a line"),
        (("cat", "d\rog"), r"class 'd\\rog' cannot be written as a line"),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_class_names_that_a_list_cannot_hold_are_refused(
    target: str, classes: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    source = write_cifar(tmp_path / "in", {"a": batch(["a.png"], [0])}, classes)
    with pytest.raises(UsageError, match=words):
        quickly(source, tmp_path / "out", target)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    # Folders whose names differ only in how they are escaped.
    labels = LabelTable(("cat", "dog", "cat"))
    with pytest.raises(UsageError, match="two classes are named 'cat'"):
        tfds.TfdsParquetSink().check_labels(labels)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", [{}, {"filter": "/item"}])
def test_rows_without_image_are_refused(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"a": {"data": [], "labels": [0], "filenames": ["a.png"]}})
    with pytest.raises(InputError, match="no image.* tfds_"):
        quickly(source, tmp_path / "out", target, **options)
    assert not (tmp_path / "out").exists()


def test_a_wrong_extension_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--image-ext \.bmp"):
        quickly(source, tmp_path / "out", "tfds_parquet", image_ext=".bmp")
