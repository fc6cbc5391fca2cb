"""Datasets that TFDS prepared, read: its files, and those of our own writers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar import Dataset, compare
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.array_record import ArrayRecordWriter
from beam_cifar.formats.kit.tf_example import example_values, framed, serialized_example
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
PYTHON = "tensorflow_datasets.core.features."
CLASS = {"pythonClassName": f"{PYTHON}class_label_feature.ClassLabel", "classLabel": {"numClasses": "3"}}
IMAGE = {
    "pythonClassName": f"{PYTHON}image_feature.Image",
    "image": {"shape": {"dimensions": ["32", "32", "3"]}, "dtype": "uint8", "encodingFormat": "png"},
}
TEXT = {"pythonClassName": f"{PYTHON}text_feature.Text", "text": {}}
NAMES = b"cat\ndog\nsea lion\n"


def example(row: int, **more: bytes | int) -> bytes:
    return serialized_example({"image": encoded(picture(row)), "label": row % 3, **more})


def parquet(records: list[bytes | None]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"data": pa.array(records, pa.binary())}), sink)
    return bytes(sink.getvalue())


def array_record(records: list[bytes]) -> bytes:
    writer = ArrayRecordWriter(file := io.BytesIO())
    writer.append(records)
    writer.close()
    return file.getvalue()


FILES: dict[str, Callable[[list[Any]], bytes]] = {"tfrecord": framed, "parquet": parquet, "array_record": array_record}


def prepared(
    folder: Path,
    files: dict[str, list[bytes]],
    features: dict[str, Any] | None = None,
    kind: str = "tfrecord",
    form: str = "now",
    **info: Any,
) -> Path:
    """A version directory with a file for each split, as TFDS names them."""
    content = {"features": {"image": IMAGE, "label": CLASS} if features is None else features}
    described = {
        "now": {"pythonClassName": f"{PYTHON}features_dict.FeaturesDict", "featuresDict": content},
        "object": {"type": f"{PYTHON}features_dict.FeaturesDict", "content": content},
        "text": {"type": f"{PYTHON}features_dict.FeaturesDict", "content": json.dumps(content)},
    }[form]
    splits = [{"name": name, "shardLengths": [str(len(rows))], "numBytes": "1"} for name, rows in files.items()]
    written = {f"mnist-{name}.{kind}-00000-of-00001": FILES[kind](rows) for name, rows in files.items()}
    texts: dict[str, Any] = {
        "features.json": described,
        "dataset_info.json": {"name": "mnist", "version": "3.0.1", "fileFormat": kind, "splits": splits, **info},
    }
    return write_tree(
        folder, {**written, "label.labels.txt": NAMES, **{at: json.dumps(each).encode() for at, each in texts.items()}}
    )


@pytest.mark.parametrize("kind", FILES)
def test_pixels_labels_and_splits_are_read(kind: str, tmp_path: Path) -> None:
    rows = {"train": [example(row) for row in range(5)], "test": [example(row) for row in range(5, 8)]}
    source = prepared(tmp_path / "mnist" / "3.0.1", rows, kind=kind)
    for path in (source, source.parent):
        assert detect_format(str(path), str(tmp_path)) == "tfds"
    quickly(source.parent, tmp_path / "out", "cifar", save_images=True)
    for split, numbers in {"train": range(5), "test": range(5, 8)}.items():
        assert cifar_rows(tmp_path / "out", [split]) == [
            (f"mnist-{split}-00000-of-00001_{at}.png", row % 3, None, picture(row).tobytes())
            for at, row in enumerate(numbers)
        ]
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["cat", "dog", "sea lion"]


@pytest.mark.parametrize("form", ["now", "object", "text"])
def test_features_are_read_as_every_version_of_tfds_writes_them(form: str, tmp_path: Path) -> None:
    """`from_json` of TFDS 4.9 reads all three."""
    source = prepared(tmp_path / "in", {"train": GOOD}, form=form)
    found = Dataset.import_from(source)
    assert list(found.categories.names) == ["cat", "dog", "sea lion"]
    assert [item.label for item in found] == [0, 1, 2]


@pytest.mark.parametrize("target", ["tfds_parquet", "tfds_array_record", "tfds_tfrecord"])
def test_what_our_writers_wrote_comes_back(target: str, tmp_path: Path) -> None:
    batches = {
        name: batch([f"{name} ж{row}.png" for row in range(9)], [0, None, 2, 1, 0, 2, 2, 1, 0], seed)
        for seed, name in enumerate(("train", "test"))
    }
    source = write_cifar(tmp_path / "in", batches, ("dog", "cat", "поезд, синий"))
    quickly(source, tmp_path / "out", target, images_per_batch=4)
    found = compare(str(source), str(tmp_path / "out"))
    assert found.equal, found
    assert all(subset.ids is not None and not subset.ids.count for subset in found.subsets)


@pytest.mark.parametrize("kind", FILES)
def test_superclasses_and_file_names_are_read(kind: str, tmp_path: Path) -> None:
    features = {"coarse_label": CLASS, "file_name": TEXT, "image": IMAGE, "label": CLASS, "other": {"tensor": {}}}
    rows = [example(row, coarse_label=2 - row % 3, file_name=b"n01_%d.JPEG" % row, other=7) for row in range(4)]
    source = prepared(tmp_path / "in", {"train": rows}, features, kind)
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    assert [row[:3] for row in cifar_rows(tmp_path / "out", ["train"])] == [
        (f"n01_{row}.JPEG", row % 3, 2 - row % 3) for row in range(4)
    ]


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    source = prepared(tmp_path / "in", {"train": [example(0)]})
    (source / "label.labels.txt").unlink()
    assert list(Dataset.import_from(str(source)).categories.names) == ["0", "1", "2"]


def test_values_are_found_whatever_their_order_and_form() -> None:
    packed = serialized_example({"label": -1, "image": b"x" * 300})
    found = example_values(packed, ["label", "image"])
    assert found["label"].number == -1
    assert packed[found["image"].start : found["image"].stop] == b"x" * 300
    # An unpacked integer, an unknown field of four bytes, and an entry that comes twice.
    for feature, number in ((b"\x1a\x02\x08\x05", 5), (b"\x1a\x03\x0a\x01\x07", 7)):
        body = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature + b"\x25\1\2\3\4"
        entry = b"\x0a" + bytes([len(body)]) + body
        twice = entry + entry
        assert example_values(b"\x0a" + bytes([len(twice)]) + twice, ["a"])["a"].number == number


GOOD = [example(row) for row in range(3)]
DATA = framed(GOOD)


def _with(features: dict[str, Any]) -> Callable[[Path], object]:
    return lambda path: prepared(path, {"train": GOOD}, features)


def _file(data: bytes) -> Callable[[Path], object]:
    return lambda path: (prepared(path, {"train": GOOD}) / "mnist-train.tfrecord-00000-of-00001").write_bytes(data)


def _image(**changed: Any) -> dict[str, Any]:
    return {"image": {**IMAGE, "image": {**IMAGE["image"], **changed}}, "label": CLASS}  # type: ignore[dict-item]


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut in a record": (_file(DATA[:-9]), "is cut, or does not have the right checksum"),
    "cut after a record": (_file(framed(GOOD[:2])), "has 2 rows, but dataset_info.json says 3; restore the file"),
    "a changed byte": (_file(DATA[:50] + b"?" + DATA[51:]), "the record at byte 0 is cut, or does not have the right"),
    "a changed length": (_file(b"\xff" + DATA[1:]), "no record begins at byte 0: its length does not have the right"),
    "an empty file": (_file(b""), "has 0 rows, but dataset_info.json says 3"),
    "not an example": (
        lambda path: prepared(path, {"train": [b"\x0a\xff\x01"]}),
        "row 0: it is not a valid tf.Example",
    ),
    "a group": (lambda path: prepared(path, {"train": [b"\x0b\x0c"]}), "row 0: it has a field of wire type 3"),
    "text as a label": (
        lambda path: prepared(path, {"train": [GOOD[0], serialized_example({"label": b"cat"})]}),
        "row 1: feature 'label' has bytes; features.json says that it is an integer",
    ),
    "a number as an image": (
        lambda path: prepared(path, {"train": [serialized_example({"image": 7})]}),
        "row 0: feature 'image' has an integer; features.json says that it is bytes",
    ),
    "null in Parquet": (
        lambda path: (
            prepared(path, {"train": GOOD}, kind="parquet") / "mnist-train.parquet-00000-of-00001"
        ).write_bytes(parquet([None])),
        "is null; expected an example",
    ),
    "a changed byte of ArrayRecord": (
        lambda path: (
            prepared(path, {"train": GOOD}, kind="array_record") / "mnist-train.array_record-00000-of-00001"
        ).write_bytes(array_record(GOOD).replace(b"IDAT", b"IDAt", 1)),
        "cannot be parsed: the chunk at byte 64 does not have the right hash; it is damaged",
    ),
    "an ArrayRecord file that is cut": (
        lambda path: (
            prepared(path, {"train": GOOD}, kind="array_record") / "mnist-train.array_record-00000-of-00001"
        ).write_bytes(array_record(GOOD)[:-9]),
        "cannot be parsed: it has 131,063 bytes; expected two or more blocks of 65,536 bytes",
    ),
    "another column": (
        lambda path: pq.write_table(
            pa.table({"x": [1]}), prepared(path, {"train": GOOD}, kind="parquet") / "mnist-train.parquet-00000-of-00001"
        ),
        "has no column 'data' of type binary; restore the file",
    ),
    "features that are cut": (
        lambda path: (prepared(path, {"train": GOOD}) / "features.json").write_text('{"content": "{\\"features\\": "}'),
        "features.json: 'content': is not valid JSON",
    ),
    "no features": (
        lambda path: (prepared(path, {"train": GOOD}) / "features.json").write_text("{}"),
        "features.json: has no features in 'featuresDict' or 'content'; expected those that TFDS 4.5 or later writes",
    ),
    "images of floats": (_with(_image(dtype="float32")), "has the type 'float32'; expected uint8 or uint16"),
    "no images": (_with({"label": CLASS}), "has no column of encoded images"),
    "many labels": (
        _with({"image": IMAGE, "label": {"sequence": {"feature": CLASS}}}),
        "several labels for an image, but only one is supported",
    ),
    "too few names": (
        lambda path: (prepared(path, {"train": GOOD}) / "label.labels.txt").write_text("cat\n"),
        "'label' has 3 classes, but label.labels.txt has 1 name;",
    ),
    "another file format": (
        lambda path: prepared(path, {"train": GOOD}, fileFormat="riegeli"),
        "'fileFormat' is 'riegeli'; expected one of tfrecord, parquet, array_record: convert",
    ),
    "a path as a template": (
        lambda path: prepared(
            path, {}, splits=[{"name": "train", "shardLengths": ["1"], "filepathTemplate": "../{SPLIT}"}]
        ),
        "'filepathTemplate' gives '../train'; expected the name of a file beside it",
    ),
    "a line feed in a split": (
        lambda path: prepared(path, {}, splits=[{"name": "a\nb", "shardLengths": ["1"]}]),
        r"'filepathTemplate' gives 'mnist-a\nb.tfrecord-00000-of-00001'; expected the name of a file beside it",
    ),
    "a missing shard": (
        lambda path: (prepared(path, {"train": GOOD}) / "mnist-train.tfrecord-00000-of-00001").unlink(),
        "mnist-train.tfrecord-00000-of-00001: cannot be read: No such file",
    ),
    "no splits": (lambda path: prepared(path, {}), "dataset_info.json: has no splits with rows"),
    "odd lengths": (
        lambda path: prepared(path, {}, splits=[{"name": "train", "shardLengths": [-1]}]),
        "'shardLengths' has '-1'; expected numbers of rows",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(kind: str, tmp_path: Path) -> None:
    make, said = WRONG[kind]
    make(tmp_path / "in")
    with pytest.raises(InputError) as error:
        quickly(tmp_path / "in", tmp_path / "out", "npz", input_format="tfds")
    assert said in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "in"))
    assert len(str(error.value).splitlines()) == 1


def test_every_changed_byte_of_an_example_is_read_or_refused() -> None:
    record = serialized_example({"id": b"a", "image": b"pixels", "label": 3})
    for at in range(len(record)):
        for new in range(256):
            changed = record[:at] + bytes([new]) + record[at + 1 :]
            try:
                found = example_values(changed, ["id", "image", "label"])
            except ValueError:  # bytes that are not UTF-8 among them
                continue
            assert all(value.stop <= len(record) for value in found.values())


def test_an_example_of_many_values_is_refused_without_holding_them() -> None:
    values = b"\x1a" + _length(2_000_004) + b"\x0a" + _length(1_999_999) + bytes(1_999_999)
    entry = b"\x0a\x05label\x12" + _length(len(values)) + values
    features = b"\x0a" + _length(len(entry)) + entry
    with pytest.raises(ValueError, match="feature 'label' has several values"):
        example_values(b"\x0a" + _length(len(features)) + features, ["label"])


def _length(value: int) -> bytes:
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14 & 127 | 128, value >> 21])
