"""Hugging Face datasets as `save_to_disk` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import encoded, picture, quickly
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
NAMES = ["cat", "dog", "sea lion"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema([("image", IMAGE), ("label", pa.int64())])


def images(rows: range, **more: Any) -> list[dict[str, Any]]:
    return [{"bytes": encoded(picture(row)), "path": f"{row}.png", **more} for row in rows]


def stream(table: pa.Table, rows: int = 2, **options: Any) -> bytes:
    """A table as a stream, in batches of so many rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytes(sink.getvalue())


def save(folder: Path, files: dict[str, bytes], features: dict[str, Any] | None = None, **state: Any) -> Path:
    """One `Dataset`, as `save_to_disk` writes it."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = {"_data_files": [{"filename": name} for name in files], "_split": None, **state}
    (folder / "state.json").write_text(json.dumps(listed))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or FEATURES}))
    return folder


def save_splits(folder: Path) -> Path:
    """A `DatasetDict` with two files in `train`, and one row without a label."""
    for seed, (split, count) in enumerate({"train": 2, "test": 1}.items()):
        tables = [
            pa.table([images(range(at := 10 * seed + 5 * shard, at + 5)), [0, 1, 2, 1, 0]], schema=SCHEMA)
            for shard in range(count)
        ]
        save(folder / split, {f"data-{at:05}-of-{count:05}.arrow": stream(table) for at, table in enumerate(tables)})
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder


def one(folder: Path, table: pa.Table, features: dict[str, Any] | None = None, **options: Any) -> Path:
    return save(folder, {"data-00000-of-00001.arrow": stream(table, **options)}, features)


def test_pixels_labels_and_names_are_read(tmp_path: Path) -> None:
    source = save_splits(tmp_path / "in")
    assert detect_format(str(source), str(tmp_path)) == "hf_arrow"
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    for subset, rows in {"train": range(10), "test": range(10, 15)}.items():
        wanted = [(f"{row}.png", [0, 1, 2, 1, 0][row % 5], picture(row).tobytes()) for row in rows]
        found = [(name, label, pixels) for name, label, _, pixels in cifar_rows(tmp_path / "out", [subset])]
        assert found == wanted
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == NAMES


def test_what_datasets_itself_saves_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    pictures = [image.fromarray(picture(row).transpose(1, 2, 0)) for row in range(7)]
    made = datasets.Dataset.from_dict({"img": pictures, "label": [0, 1, 2, 0, 1, 2, -1]}, features=features)
    datasets.DatasetDict(train=made, test=made.select([4, 2])).save_to_disk(
        tmp_path / "in", num_shards={"train": 3, "test": 1}
    )
    quickly(tmp_path / "in", tmp_path / "out", "cifar", save_images=True)
    train = cifar_rows(tmp_path / "out", ["train"])
    assert [(row[1], row[3]) for row in train] == [
        (label, picture(row).tobytes()) for row, label in enumerate([0, 1, 2, 0, 1, 2, None])
    ]
    assert [(row[1], row[3]) for row in cifar_rows(tmp_path / "out", ["test"])] == [
        (1, picture(4).tobytes()),
        (2, picture(2).tobytes()),
    ]
    made.save_to_disk(tmp_path / "alone")
    assert list(Dataset.import_from(str(tmp_path / "alone")).subsets) == ["default"]


def test_the_cache_that_datasets_itself_fills_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    made = datasets.Dataset.from_dict({"img": images(range(7)), "label": [0, 1, 2, 0, 1, 2, -1]}, features=features)
    for name, rows in {"train-0": range(4), "train-1": range(4, 7), "test-0": [5, 2]}.items():
        made.select(rows).to_parquet(tmp_path / "parquet" / f"{name}.parquet")
    cache = tmp_path / "cache"
    builder = datasets.load_dataset_builder(str(tmp_path / "parquet"), cache_dir=str(cache))
    builder.download_and_prepare(max_shard_size=1, num_proc=1)
    folder = Path(builder.cache_dir)
    assert {path.name for path in folder.glob("*.arrow")} >= {
        "parquet-test.arrow",
        "parquet-train-00001-of-00002.arrow",
    }
    builder.as_dataset()["test"].map(lambda row: row, load_from_cache_file=False)
    assert list(folder.glob("cache-*.arrow"))
    (folder.parent / "0123.incomplete").mkdir()
    expected = {
        "train": [(label, picture(row).tobytes()) for row, label in enumerate([0, 1, 2, 0, 1, 2, None])],
        "test": [(2, picture(5).tobytes()), (2, picture(2).tobytes())],
    }
    for at, source in enumerate((folder, folder.parents[2])):
        assert detect_format(str(source), str(tmp_path)) == "hf_arrow"
        quickly(source, tmp_path / f"out{at}", "cifar", save_images=True)
        for subset, wanted in expected.items():
            assert [(row[1], row[3]) for row in cifar_rows(tmp_path / f"out{at}", [subset])] == wanted
        assert unpickled(tmp_path / f"out{at}" / "batches.meta")["label_names"] == NAMES


SHARDS = [f"pets-train-{number:05}-of-00002.arrow" for number in range(2)]
CACHED: dict[str, tuple[list[str], object, str]] = {
    "a lost shard": (SHARDS[:1], {"train": {}}, r"file 2 of 2 of split 'train' is missing; load it again"),
    "a lost split": (SHARDS, {"train": {}, "test": {}}, r"file 1 of 1 of split 'test' is missing"),
    "two names": (["a-train.arrow", "b-train.arrow"], {"train": {}}, r"b-train.arrow: another file has these rows of split"),
    "other counts": ([*SHARDS, "pets-train-00002-of-00003.arrow"], {"train": {}}, r"00003.arrow: another file has these rows"),
    "no splits": (SHARDS, None, r"dataset_info.json: 'splits' is 'None'; expected an object of splits: restore the file"),
    "a list of splits": (SHARDS, ["train"], r"dataset_info.json: 'splits' is"),
}  # fmt: skip


@pytest.mark.parametrize("case", CACHED)
def test_a_cache_that_is_not_complete_is_one_line(case: str, tmp_path: Path) -> None:
    names, splits, reason = CACHED[case]
    table = pa.table([images(range(2)), [1, 0]], schema=SCHEMA)
    source = save(tmp_path / "in", {name: stream(table) for name in names})
    (source / "state.json").unlink()
    (source / "dataset_info.json").write_text(json.dumps({"features": FEATURES, "splits": splits}))
    with pytest.raises(InputError, match=reason) as caught:
        quickly(source, tmp_path / "out", "cifar", save_images=True)
    assert "\n" not in str(caught.value)


TABLES: dict[str, tuple[pa.Table, dict[str, Any], list[str | None]]] = {
    "large_binary": (
        pa.table({"image": pa.array([encoded(picture(0)), encoded(picture(1))], pa.large_binary()), "label": [1, 0]}),
        {"label": {"names": ["a", "b"], "_type": "ClassLabel"}},
        ["b", "a"],
    ),
    "superclasses": (
        pa.table([images(range(2)), [1, 0], [0, 1]], names=["img", "fine_label", "coarse_label"]),
        {
            "img": {"_type": "Image"},
            "fine_label": {"names": ["a", "b"], "_type": "ClassLabel"},
            "coarse_label": {"names": ["x", "y"], "_type": "ClassLabel"},
        },
        ["b", "a"],
    ),
    "text labels": (pa.table([images(range(2)), ["dog", None]], names=["image", "label"]), {}, ["dog", None]),
    "no class names": (pa.table([images(range(2)), [2, 0]], names=["image", "label"]), {}, ["2", "0"]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_columns_are_found_as_in_parquet(kind: str, tmp_path: Path) -> None:
    table, features, labels = TABLES[kind]
    source = one(tmp_path / "in", table, features or {"other": {}})
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    meta = unpickled(tmp_path / "out" / ("meta" if kind == "superclasses" else "batches.meta"))
    names = meta["fine_label_names" if kind == "superclasses" else "label_names"]
    rows = cifar_rows(tmp_path / "out", ["default"])
    assert [None if row[1] is None else names[row[1]] for row in rows] == labels
    assert [row[3] for row in rows] == [picture(at).tobytes() for at in range(2)]
    assert [row[2] for row in rows] == ([0, 1] if kind == "superclasses" else [None, None])


def test_files_that_the_state_does_not_list_are_not_read(tmp_path: Path) -> None:
    source = save_splits(tmp_path / "in")
    (source / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"left by map")
    assert len(Dataset.import_from(str(source))) == 15


def _table(**columns: Any) -> pa.Table:
    return pa.table({"image": pa.array(images(range(4)), IMAGE), "label": [0, 1, 0, 1], **columns})


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


GOOD = stream(_table())
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut in a batch": (
        lambda path: save(path, {"a.arrow": GOOD[: len(GOOD) // 2]}),
        "a.arrow: is damaged, or not an Arrow stream: Expected to be able to read",
    ),
    "cut after a batch": (
        lambda path: save(path, {"a.arrow": GOOD[:-8]}),
        f"a.arrow: the stream ends at byte {len(GOOD) - 8} of {len(GOOD) - 8}; expected the mark of its end",
    ),
    "two streams": (lambda path: save(path, {"a.arrow": GOOD + GOOD}), f"the stream ends at byte {len(GOOD) - 8} of"),
    "not Arrow": (lambda path: save(path, {"a.arrow": b"\xff\xff\xff\xff\x10\0\0\0" + bytes(99)}), "is damaged"),
    "empty": (lambda path: save(path, {"a.arrow": b""}), "a.arrow: "),
    "compressed": (lambda path: one(path, _table(), compression="zstd"), "has compressed data at byte"),
    "dictionary": (
        lambda path: one(path, _table(label=pa.array([*"abab"]).dictionary_encode())),
        "has a dictionary message at byte",
    ),
    "only paths": (
        lambda path: one(path, _table(image=pa.array([{"bytes": None, "path": "x.png"}] * 4, IMAGE))),
        "4 rows have no bytes in 'image.bytes', and some have only a path; save the file again with images embedded",
    ),
    "no images": (lambda path: one(path, pa.table({"label": [1]})), "has no column of encoded images"),
    "two columns of one path": (
        lambda path: one(path, _table(**{"image.bytes": pa.array([1] * 4)})),
        "has no column of encoded images",
    ),
    "a path in the state": (
        lambda path: save(path, {"a.arrow": GOOD}, _data_files=[{"filename": "../a.arrow"}]),
        "state.json: '_data_files' has '../a.arrow'; expected names of files or folders beside it",
    ),
    "a line feed in the state": (
        lambda path: save(path, {"a.arrow": GOOD}, _data_files=[{"filename": "a\nb.arrow"}]),
        r"state.json: '_data_files' has 'a\nb.arrow'; expected names of files or folders beside it",
    ),
    "no list in the state": (
        lambda path: save(path, {"a.arrow": GOOD}, _data_files=7),
        "state.json: '_data_files' is '7'; expected a list of names",
    ),
    "indices": (
        lambda path: save(path, {"a.arrow": GOOD}, _indices_data_files=[{"filename": "i.arrow"}]),
        "state.json: rows are selected by a file of indices",
    ),
    "a missing file": (
        lambda path: (save(path, {"a.arrow": GOOD, "b.arrow": GOOD}) / "b.arrow").unlink(),
        "b.arrow: cannot be read: No such file",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_line(kind: str, tmp_path: Path) -> None:
    make, said = WRONG[kind]
    make(tmp_path / "in")
    with pytest.raises(InputError) as error:
        quickly(tmp_path / "in", tmp_path / "out", "npz", input_format="hf_arrow")
    assert said in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "in"))
    assert len(str(error.value).splitlines()) == 1


def test_every_changed_byte_of_the_heads_is_read_or_refused(tmp_path: Path) -> None:
    """Offsets, lengths and counts of a damaged stream never lead outside the file."""
    first = GOOD.index(b"\x89PNG")
    for at in range(0, first, 3):
        for new in (b"\xff", b"\x7f", bytes([GOOD[at] ^ 4])):
            folder = save(tmp_path / f"{at}-{new.hex()}", {"a.arrow": _patched(GOOD, at, new)})
            said = ""
            try:
                assert len(Dataset.import_from(str(folder), "hf_arrow")) <= len(GOOD)
            except InputError as error:
                said = str(error)
            assert len(said.splitlines()) <= 1
