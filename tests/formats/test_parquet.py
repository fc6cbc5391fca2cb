"""Parquet files read: those of this project, of Hugging Face datasets, of pandas and of others, and what is refused."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar import BeamCifarError, ExportOptions, LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import FileSummary, Shard, ShardResult, SinkOptions, Wanted
from beam_cifar.formats.parquet.columns import dictionary_bytes
from beam_cifar.formats.parquet.read import ParquetSource
from beam_cifar.formats.parquet.write import ParquetSink
from beam_cifar.formats.registry import detect_format
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, contents, decoded, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, ids, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pictures(count: int, kind: str = "PNG", first: int = 0) -> list[bytes]:
    return [encoded(picture(first + row), kind) for row in range(count)]


def features(**columns: Any) -> dict[str, str]:
    """The metadata that datasets writes."""
    kinds = {
        name: {"_type": "Image"} if names is None else {"_type": "ClassLabel", "names": names}
        for name, names in columns.items()
    }
    return {"huggingface": json.dumps({"info": {"features": kinds}})}


def write(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None, **options: Any) -> Path:
    """A file by pyarrow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    return path


def structs(images: Sequence[bytes | None], paths: Sequence[str | None] | None = None) -> pa.Array:
    names: Sequence[str | None] = paths or [None] * len(images)
    values = [
        None if image is None else {"bytes": image, "path": path} for image, path in zip(images, names, strict=True)
    ]
    return pa.array(values, IMAGE)


def found(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What the reader finds: id, file name, class name and image of every row by subset."""
    catalog = ParquetSource().describe(str(path), "")
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for file in catalog.files:
        with ParquetSource().open_rows(file, catalog.labels) as reader:
            assert not reader.bad_rows
            for row in reader.table(0, reader.rows).to_pylist():
                name = None if row["label"] is None else catalog.labels.names[row["label"]]
                rows.setdefault(file.subset, []).append((row["id"], row["filename"], name, row["image"]))
    return rows


def summaries(path: Path, wanted: Wanted = Wanted()) -> list[FileSummary]:  # noqa: B008
    catalog = ParquetSource().describe(str(path), "")
    return [scan(ParquetSource(), file, catalog.labels, wanted) for file in catalog.files]


# --- round trips ----------------------------------------------------------------------------------------------------


def test_cifar10_and_back(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "there", "parquet", subset_names="source")
    assert detect_format(str(tmp_path / "there"), "") == "parquet"
    quickly(tmp_path / "there", tmp_path / "back", "cifar", save_images=True)
    assert batch_names(tmp_path / "back") == batch_names(cifar10)
    assert cifar_rows(tmp_path / "back") == cifar_rows(cifar10)
    assert unpickled(tmp_path / "back" / "batches.meta") == unpickled(cifar10 / "batches.meta")


def test_cifar100_in_several_files_and_back(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "there", "parquet", images_per_batch=500)
    assert len(list((tmp_path / "there" / "data").iterdir())) > 4
    quickly(tmp_path / "there", tmp_path / "back", "cifar", save_images=True)
    assert cifar_rows(tmp_path / "back") == cifar_rows(cifar100)
    assert unpickled(tmp_path / "back" / "meta") == unpickled(cifar100 / "meta")


def test_superclasses_of_classes_without_rows_survive(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "there", "parquet", labels=("people",), remaps=("baby:Baby",))
    before = ParquetSource().describe(str(tmp_path / "there"), "").labels
    assert len(before.names) == 100
    assert None not in before.parents
    assert before.coarse_names[before.parents[before.names.index("Baby")] or 0] == "people"
    assert before.coarse_names[before.parents[before.names.index("tank")] or 0] == "vehicles_2"


def test_hostile_names_rows_without_image_or_label_and_their_ids_survive(tmp_path: Path) -> None:
    classes = ["Кошка", "a, b", "line\nbreak", "unused", " \"quoted': #x", "\u2028", "-"]
    names = ["a/b.png", "none.jpg", "кошка 1.png", "no label.png", "..x.png", "/abs/x.png", "x.png.png"]
    rows = batch(names, [0, 1, 2, None, 4, 5, 6])
    rows["data"] = np.array([*rows["data"], None], dtype=object)[:-1]
    rows["data"][1] = None
    source = write_cifar(tmp_path / "in", {"train": rows, "other.set": batch(["z.png"], [6])}, classes)
    quickly(source, tmp_path / "there", "parquet")
    quickly(tmp_path / "there", tmp_path / "back", "cifar", save_images=True)
    assert unpickled(tmp_path / "back" / "batches.meta")["label_names"] == classes
    stems = ["a/b", "none", "кошка 1", "no label", "..x", "/abs/x", "x.png"]
    assert [row[0] for row in found(tmp_path / "there")["train"]] == stems
    assert [row[1:] for row in cifar_rows(tmp_path / "back", ["train"])] == [
        row[1:] for row in cifar_rows(source, ["train"])
    ]
    assert [row[0] for row in cifar_rows(tmp_path / "back", ["train"])] == [f"{stem}.png" for stem in stems]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_folder_of_images_comes_back_byte_for_byte(kind: str, tmp_path: Path) -> None:
    extensions = {"PNG": [".png", ".PNG"], "JPEG": [".jpg", ".jpeg", ".JPG"]}[kind]
    files = {
        f"{subset}/{name}/{number}{extension}": encoded(picture(7 * number + at, 20 + number, 30, channels), kind)
        for subset in ("train", "test")
        for at, (name, channels) in enumerate([("cat", 3), ("dog", 1), ("no_label", 3)])
        for number, extension in enumerate(extensions)
    }
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "there", "parquet")
    quickly(tmp_path / "there", tmp_path / "back", "imagenet_with_subset_dirs")
    assert contents(tmp_path / "back") == files


def test_parts_of_a_file_are_read_in_any_order(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "parquet")
    catalog = ParquetSource().describe(str(tmp_path / "out"), "")
    train = next(file for file in catalog.files if file.subset == "train")
    with ParquetSource().open_rows(train, catalog.labels) as reader:
        whole = reader.table(0, reader.rows)
        assert whole.num_rows == 1003
        for start, stop in [(900, 1003), (0, 10), (10, 11), (500, 1001), (999, 1002), (3, 3)]:
            assert reader.table(start, stop).equals(whole.slice(start, stop - start))
        rows = [0, 7, 8, 9, 400, 999, 1000, 1002]
        assert reader.take(rows).equals(whole.take(rows))
        assert reader.facts(995, 1003).equals(whole.slice(995).select(reader.facts(0, 0).column_names))
        assert reader.row_bytes(0, 1003, decoded=True) == 3072


def test_shuffled_and_split_rows_hold_the_same_images(cifar10: Path, tmp_path: Path) -> None:
    from beam_cifar import Dataset

    quickly(cifar10, tmp_path / "out", "parquet")
    shuffled = Dataset.import_from(tmp_path / "out")
    shuffled = shuffled.transform("random_split", splits=[("a", 0.5), ("b", 0.5)], seed=3)
    shuffled.export(tmp_path / "split", "cifar", save_images=True)
    expected = {row[0]: row[1:] for row in cifar_rows(cifar10)}
    rows = cifar_rows(tmp_path / "split", ["a", "b"])
    assert len(rows) == 1203
    assert {row[0]: row[1:] for row in rows} == expected


# --- files by others ------------------------------------------------------------------------------------------------


def test_what_datasets_writes_and_pushes(tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped]
    from PIL import Image

    images = pictures(6)
    values = {
        "photo": [{"bytes": image, "path": f"{n}.png"} for n, image in enumerate(images)],
        "kind": [2, 0, 1, -1, None, 2],
    }
    kinds = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["b", "a", "c"])})
    made = datasets.Dataset.from_dict(values, features=kinds)
    made.to_parquet(tmp_path / "set" / "train-00000-of-00002-0123456789abcdef.parquet")
    made.select([1]).to_parquet(tmp_path / "set" / "validation-00000-of-00001.parquet")
    rows = found(tmp_path / "set")
    assert rows["train"] == [
        (str(n), f"{n}.png", name, images[n]) for n, name in enumerate(["c", "b", "a", None, None, "c"])
    ]
    assert rows["validation"] == [("1", "1.png", "b", images[1])]
    # Images that datasets makes itself have no path.
    plain = datasets.Dataset.from_dict({"image": [Image.new("L", (3, 2), 7)]})
    plain.cast_column("image", datasets.Image()).to_parquet(tmp_path / "gray.parquet")
    [(name, _, label, image)] = found(tmp_path / "gray.parquet")["gray"]
    assert (name, label, decoded(image).tolist()) == ("gray_0", None, [[[7] * 3] * 2])


def test_cifar100_as_it_is_on_the_hub(tmp_path: Path) -> None:
    fine, coarse = ["apple", "bear", "unused"], ["fruit", "carnivore"]
    meta = features(img=None, fine_label=fine, coarse_label=coarse)
    columns = {"img": structs(pictures(3)), "fine_label": [1, 0, 1], "coarse_label": [1, 0, 1]}
    write(tmp_path / "set" / "cifar100" / "train-00000-of-00001.parquet", columns, meta)
    source = ParquetSource()
    catalog = source.describe(str(tmp_path / "set"), "")
    assert catalog.labels == LabelTable(tuple(fine), tuple(coarse), (None, None, None))
    assert scan(source, catalog.files[0], catalog.labels, Wanted()).parents == {0: (0, 1), 1: (1, 0)}
    columns["coarse_label"] = [1, 0, 0]
    write(tmp_path / "set" / "cifar100" / "train-00000-of-00001.parquet", columns, meta)
    with pytest.raises(InputError, match="'bear' has superclass"):
        summaries(tmp_path / "set")


def test_what_pandas_and_others_write_without_metadata(tmp_path: Path) -> None:
    import pandas as pd  # type: ignore[import-untyped]

    images = pictures(4)
    frame = pd.DataFrame({"image": images, "label": ["dog", "cat", None, "dog"], "id": [10, 11, 12, 13], "n": range(4)})
    frame.to_parquet(tmp_path / "dogs.parquet")
    assert found(tmp_path / "dogs.parquet")["dogs"] == [
        (str(10 + n), f"{10 + n}.png", name, images[n]) for n, name in enumerate(["dog", "cat", None, "dog"])
    ]
    frame["label"] = pd.Categorical(["b", "a", "c", "a"])
    frame.drop(columns="id").to_parquet(tmp_path / "kinds.parquet")
    assert [row[:3:2] for row in found(tmp_path / "kinds.parquet")["kinds"]] == [
        (f"kinds_{n}", name) for n, name in enumerate("baca")
    ]
    frame["label"] = [2, None, 0, 2]
    frame.to_parquet(tmp_path / "gaps.parquet")
    assert [row[2] for row in found(tmp_path / "gaps.parquet")["gaps"]] == ["2", None, "0", "2"]
    assert ParquetSource().describe(str(tmp_path / "gaps.parquet"), "").labels.names == ("0", "1", "2")


@pytest.mark.parametrize(
    "kind", ["binary", "large_binary", "binary_view", "dictionary", "struct of views", "large names", "no path"]
)
def test_every_arrow_type_of_images_and_names(kind: str, tmp_path: Path) -> None:
    images = [*pictures(2), None, *pictures(1)]
    label = pa.array(["x", "y", None, "x"])
    names = ["a.png", "b.png", "c.png", "d.png"]
    column = {
        "binary": pa.array(images),
        "large_binary": pa.array(images, pa.large_binary()),
        "binary_view": pa.array(images, pa.binary_view()),
        "dictionary": pa.array(images).dictionary_encode(),
        "struct of views": pa.StructArray.from_arrays([pa.array(images, pa.binary_view())], ["bytes"]),
        "large names": pa.array(
            [image and {"bytes": image, "path": name} for image, name in zip(images, names, strict=True)],
            pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
        ),
        "no path": pa.array([image and {"bytes": image} for image in images], pa.struct([("bytes", pa.binary())])),
    }[kind]
    if kind == "large names":
        label = label.cast(pa.large_string())
    if kind == "dictionary":
        label = label.dictionary_encode()
    if kind == "binary_view":
        label = label.cast(pa.string_view())
    path = write(tmp_path / "x.parquet", {"pixels": column, "label": label}, row_group_size=4 if "view" in kind else 3)
    rows = found(path)["x"]
    assert [row[2:] for row in rows] == list(zip(["x", "y", None, "x"], images, strict=True))
    assert [row[0] for row in rows] == (
        ["a", "b", "x_2", "d"] if kind == "large names" else [f"x_{n}" for n in range(4)]
    )
    [summary] = summaries(path, Wanted(sizes=True))
    assert (summary.rows, summary.images, summary.size, summary.pixel_bytes) == (4, 3, None, 3 * 3072)


def test_rows_without_image_are_counted_where_the_footer_does_not(tmp_path: Path) -> None:
    columns = {"image": pa.array([*pictures(2), None]), "label": [0, 1, 1]}
    path = write(tmp_path / "x.parquet", columns, write_statistics=False)
    assert [summary.images for summary in summaries(path)] == [2]
    assert "1 of 3 rows has no image" in quickly(path, tmp_path / "out", "parquet").notices


def test_subsets_are_named_by_files_or_folders(tmp_path: Path) -> None:
    layouts = {
        "data/train-00000-of-00002.parquet": "train",
        "data/train-00001-of-00002.parquet": "train",
        "data/my.split-00000-of-00001.parquet": "my.split",
        "plain_text/test/0000.parquet": "test",
        "dev/part-0.parquet": "dev",
        "holdout_01.parquet": "holdout",
        "007.parquet": "default",
    }
    for number, name in enumerate(layouts):
        write(tmp_path / "set" / name, {"image": pictures(1, first=number), "label": [0]})
    (tmp_path / "set" / "notes.txt").write_text("no data")
    files = ParquetSource().describe(str(tmp_path / "set"), "").files
    assert {file.name: file.subset for file in files} == layouts
    assert [file.name for file in files] == sorted(layouts, key=lambda name: (name[0] != "0", name))
    for name, subset in layouts.items():
        alone = ParquetSource().describe(str(tmp_path / "set" / name), "").files
        assert [file.subset for file in alone] == [{"test": "default", "dev": "default"}.get(subset, subset)]


def test_names_that_repeat_get_the_name_of_their_file_or_a_number(tmp_path: Path) -> None:
    for shard in range(2):
        columns = {"image": structs(pictures(3), ["0.png", "1.png", "1.png"]), "label": [0, 0, 0]}
        write(tmp_path / "set" / f"train-0000{shard}-of-00002.parquet", columns)
    assert [row[0] for row in found(tmp_path / "set")["train"]] == [
        f"train-0000{shard}-of-00002/{name}" for shard in range(2) for name in ("0", "1", "1_2")
    ]
    assert [summary.duplicates for summary in summaries(tmp_path / "set")] == [1, 1]
    quickly(tmp_path / "set", tmp_path / "out")
    assert len(contents(tmp_path / "out")) == 6


def test_ids_are_paths_then_keys_then_numbers(tmp_path: Path) -> None:
    paths = ["a/b.JPG", "/home/me/c.png", r"C:\pictures\d.jpeg", "e.f", ".png"]
    columns = {"image": structs(pictures(6), [*paths, None]), "__key__": ["k0", "k1", "k2", "k3", "k4", None]}
    rows = found(write(tmp_path / "x.parquet", columns))["x"]
    assert [row[:2] for row in rows] == [
        ("a/b", "a/b.JPG"),
        ("c", "c.png"),
        ("d", "d.jpeg"),
        ("e.f", "e.f"),
        ("k4", ".png"),
        ("x_5", "x_5.png"),
    ]


def test_class_names_are_taken_from_the_card(tmp_path: Path) -> None:
    card = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': "line\\nbreak"
          '2': 'it''s'
  splits: []
---
"""
    write(tmp_path / "set" / "train.parquet", {"image": pictures(2), "label": [1, 0]})
    (tmp_path / "set" / "README.md").write_text(card)
    assert ParquetSource().describe(str(tmp_path / "set"), "").labels.names == ("cat", "line\nbreak", "it's")


def test_the_marked_column_of_images_is_taken_among_several(tmp_path: Path) -> None:
    columns = {"thumbnail": structs(pictures(1)), "photo": structs(pictures(1, first=5)), "label": [0]}
    path = write(tmp_path / "x.parquet", columns, features(photo=None, label=["a"]))
    assert found(path)["x"][0][3] == pictures(1, first=5)[0]
    with pytest.raises(InputError, match="'thumbnail', 'photo' may all contain images"):
        found(write(path, columns))
    assert found(write(path, {**columns, "img": structs(pictures(1, first=7))}))["x"][0][3] == pictures(1, first=7)[0]


COLUMNS: dict[str, tuple[dict[str, Any], list[str | None], str]] = {
    "as the hub makes it of WebDataset": (
        {"jpg": structs(pictures(2, "JPEG"), ["a.jpg", "b.jpg"]), "cls": [1, 0], "__key__": ["a", "b"], "__url__": ["u"] * 2},
        ["1", "0"],
        "",
    ),
    "text": ({"image": structs(pictures(2)), "category": ["x", "y"]}, ["x", "y"], ""),
    "large text": ({"image": pictures(2), "Class": pa.array(["x", "y"], pa.large_string())}, ["x", "y"], ""),
    "whole floats": ({"picture": pictures(2), "y": [1.0, None]}, ["1", None], ""),
    "two names": ({"image": pictures(2), "category": ["x", "y"], "label": [1, 0]}, ["1", "0"], "labels are from column 'label'; not used: 'category'"),
    "an only column": ({"image": pictures(2), "taste": ["x", "y"], "image_id": [7, 8]}, ["x", "y"], "labels are from column 'taste', the only one of integers or text beside the images; not used: 'image_id'"),
    "other images and subsets": ({"image": pictures(2), "mask": pictures(2), "label": [1, 0], "Split": ["train", "test"]}, ["1", "0"], "labels are from column 'label'; not used: 'mask', 'Split'"),
    "two other columns": ({"image": pictures(2), "a": [1, 2], "b": ["x", "y"]}, [None] * 2, "no labels found; columns not used: 'a', 'b'"),
    "a caption": ({"image": pictures(2), "caption": ["x", "y"], "flag": [True, False]}, [None] * 2, "no labels found; columns not used: 'caption', 'flag'"),
    "nothing else": ({"image": pictures(2)}, [None] * 2, "no labels found"),
    "flattened columns": ({"image.bytes": pictures(2), "image.path": ["p/a.png", "b.png"], "label": [0, 1]}, ["0", "1"], ""),
    "a binary column that has no images": ({"photo": pictures(2), "hash": [b"12", b"34"], "label": [1, 0]}, ["1", "0"], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_found_by_name_then_by_type_and_a_guess_is_told(name: str, tmp_path: Path) -> None:
    columns, labels, notice = COLUMNS[name]
    path = write(tmp_path / "x.parquet", columns)
    assert [row[2] for row in found(path)["x"]] == labels
    assert ParquetSource().describe(str(path), "").notices == ((notice,) if notice else ())
    if name == "flattened columns":
        assert [row[:2] for row in found(path)["x"]] == [("p/a", "p/a.png"), ("b", "b.png")]


def test_files_with_different_columns_of_labels(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.parquet", {"image": pictures(1), "label": [1]})
    write(tmp_path / "a" / "test.parquet", {"image": pictures(1), "id": [1]})
    assert ParquetSource().describe(str(tmp_path / "a"), "").notices == ("test.parquet: no labels found",)
    write(tmp_path / "a" / "test.parquet", {"image": pictures(1), "n": [1]})
    with pytest.raises(InputError, match=r"column 'n' in test.parquet and 'label' in train.parquet; name the column"):
        ParquetSource().describe(str(tmp_path / "a"), "")


def test_a_large_row_group_is_read_in_batches(tmp_path: Path) -> None:
    images = [row.to_bytes(2, "big") * 10_000 for row in range(3000)]
    path = write(tmp_path / "x.parquet", {"image": pa.array(images), "label": [0] * 3000}, use_dictionary=False)
    catalog = ParquetSource().describe(str(path), "")
    with ParquetSource().open_rows(catalog.files[0], catalog.labels) as reader:
        before = pa.total_allocated_bytes()
        for at in (0, 100, 2900):
            assert reader._images([(at, at + 100)]).to_pylist() == images[at : at + 100]  # type: ignore[attr-defined]
            assert pa.total_allocated_bytes() - before < 40 << 20


def test_ids_differ_also_where_our_own_files_repeat_names(tmp_path: Path) -> None:
    """Batches that become one split may have the same names, and be in several files."""
    batches = {f"data_batch_{n}": batch(["a.png", "b.png"], [0, 1], seed=n) for n in (1, 2)}
    quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "parquet", images_per_batch=2)
    assert ids(ParquetSource(), tmp_path / "out") == [f"train-0000{n}-of-00002/{name}" for n in (0, 1) for name in "ab"]


def test_texts_that_unpack_from_next_to_nothing_are_refused(tmp_path: Path) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 4000]))
    write(tmp_path / "x.parquet", {"image": pa.nulls(100_000, pa.binary()), "label": names}, compression="zstd")
    with pytest.raises(InputError, match="x.parquet: row .* refused as a decompression bomb"):
        ParquetSource().describe(str(tmp_path), "")


# Older Arrow keeps each unpacked page reserved.
@pytest.mark.address_space(12)
def test_images_that_unpack_from_next_to_nothing_are_looked_at_piece_by_piece(tmp_path: Path) -> None:
    # A PNG of 1 MB that zstd packs to some bytes: far more than a thousand to one.
    image = encoded(picture(1))[:33] + bytes(1 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array([image]))
    path = write(tmp_path / "x.parquet", {"image": column}, dictionary_pagesize_limit=8 << 20, compression="zstd")
    catalog = ParquetSource().describe(str(path), "")
    with ParquetSource().open_rows(catalog.files[0], catalog.labels) as rows:
        before = pa.total_allocated_bytes()
        rows.facts(0, 1000)
        assert pa.total_allocated_bytes() - before < 200 << 20
        with pytest.raises(InputError, match="row 0: dictionary-encoded images .* bomb"):
            rows.table(0, 1000)


def test_what_our_metadata_says_of_rows_that_are_not_there_counts_for_nothing(tmp_path: Path) -> None:
    own = {"beam_cifar": json.dumps({"paths": {"5": "x", "-1": "x", "y": "x"}})}
    write(tmp_path / "x.parquet", {"image": pictures(2), "label": [0, 0]}, own)
    assert summaries(tmp_path)[0].images == 2


def test_a_page_that_differs_from_its_checksum_is_refused(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 9, 5000)
    table = {"image": pa.nulls(5000, pa.binary()), "label": labels}
    path = write(tmp_path / "x.parquet", table, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    at = data.index(labels[:100].tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(InputError, match=r"x.parquet: is damaged.*(?i:crc|checksum)"):
        summaries(tmp_path)


def test_an_image_that_a_dictionary_repeats_does_not_fill_the_memory(tmp_path: Path) -> None:
    # 2,000 rows of 1 MB each in a file of 1 MB.
    image = encoded(np.random.default_rng(1).integers(0, 256, (3, 600, 600), dtype=np.uint8))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([image]))
    path = write(tmp_path / "x.parquet", {"image": column}, dictionary_pagesize_limit=8 << 20, compression="zstd")
    assert path.stat().st_size < 2 << 20
    catalog = ParquetSource().describe(str(path), "")
    with ParquetSource().open_rows(catalog.files[0], catalog.labels) as reader:
        before = pa.total_allocated_bytes()
        table = reader.table(1000, 1003)
        assert table.column("image").to_pylist() == [image] * 3
        assert pa.total_allocated_bytes() - before < 256 << 20


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_a_dictionary_page_says_its_size_and_a_false_one_fills_no_memory(codec: str, tmp_path: Path) -> None:
    image = encoded(picture(1))[:33] + bytes(1 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array([image]))
    path = write(tmp_path / "x.parquet", {"image": column}, dictionary_pagesize_limit=8 << 20, compression=codec)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    with path.open("rb") as stream:
        size = dictionary_bytes(chunk, stream)
    assert size == (None if codec == "none" else 4 + len(image))  # PLAIN: each value after its length

    data = bytearray(path.read_bytes())
    at = chunk.dictionary_page_offset + 3
    data[at : at + 4] = b"\x82\x80\x80\x00"  # one byte, which is less than there is
    path.write_bytes(data)
    catalog = ParquetSource().describe(str(path), "")
    with ParquetSource().open_rows(catalog.files[0], catalog.labels) as rows:
        before = pa.total_allocated_bytes()
        with pytest.raises(InputError) if codec != "none" else nullcontext():
            rows.facts(0, 1000)
        assert pa.total_allocated_bytes() - before < 200 << 20


def test_nothing_else_is_taken_for_parquet(cifar10: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"cat/1.png": pictures(1)[0], "dog/2.png": pictures(1)[0]})
    write(tree / "metadata.parquet", {"file_name": ["cat/1.png", "dog/2.png"], "label": [0, 1]})
    assert not ParquetSource().looks_right(str(tree), "")
    assert not ParquetSource().looks_right(str(cifar10), "")
    assert detect_format(str(tree), "") == "imagenet"
    (tmp_path / "fake.parquet").write_bytes(b"x")
    assert detect_format(str(tmp_path / "fake.parquet"), "") == "parquet"  # which says what is wrong


# --- refused --------------------------------------------------------------------------------------------------------


def good(path: Path, **options: Any) -> bytes:
    columns = {"image": structs(pictures(40), [f"{n}.png" for n in range(40)]), "label": [0, 1] * 20}
    settings: dict[str, Any] = {"row_group_size": 10, "compression": "none", **options}
    return write(path, columns, features(image=None, label=["a", "b"]), **settings).read_bytes()


def changed(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at + len(more) :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "is damaged, or not a Parquet file"),
    "text": (lambda data: b"id,label\n" * 100, "is damaged, or not a Parquet file"),
    "cut short": (lambda data: data[: len(data) // 2], "is damaged, or not a Parquet file"),
    "without its footer": (lambda data: data[:-300] + data[-8:], "is damaged, or not a Parquet file"),
    "a footer of any size": (
        lambda data: data[:-8] + b"\xff\xff\xff\x7f" + data[-4:],
        "is damaged, or not a Parquet file",
    ),
    "zeros at the start": (lambda data: changed(data, 0, bytes(60)), r"(row group 0|train\.parquet): is damaged"),
    "an image": (lambda data: changed(data, data.index(pictures(12)[11]), b"P6 1"), "row 11: starts with bytes 50 36"),
    "a cut image": (lambda data: changed(data, data.index(pictures(30)[29]) + 60, bytes(40)), "row 29: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_with_its_place(damage: str, tmp_path: Path) -> None:
    change, reason = DAMAGES[damage]
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.parquet"
    path.write_bytes(change(good(path)))
    with pytest.raises(InputError, match=reason) as raised:
        quickly(tmp_path / "set", tmp_path / "out", "cifar")
    assert "train.parquet" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_any_changed_byte_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    data = good(path)
    rng = np.random.default_rng(4)
    places = [*rng.integers(0, len(data), 30), *rng.integers(len(data) - 1500, len(data), 90)]
    for at in places:
        path.write_bytes(changed(data, int(at), bytes([data[at] ^ int(rng.integers(1, 256))])))
        if refusal := refused(path):
            assert "train.parquet" in refusal
            assert "\n" not in refusal


def refused(path: Path) -> str:
    try:
        catalog = ParquetSource().describe(str(path), "")
        with ParquetSource().open_rows(catalog.files[0], catalog.labels) as reader:
            reader.table(0, reader.rows)
    except BeamCifarError as error:
        return str(error)
    return ""


TABLES: dict[str, tuple[dict[str, Any], dict[str, str] | None, str]] = {
    "no images": ({"label": [1], "text": ["a"]}, None, "has no column of encoded images.*'label', 'text'"),
    "two columns of one path": (
        {"image": pa.array([{"bytes": b"", "path": "a"}], IMAGE), "image.bytes": [1]},
        None,
        "has no column of encoded images.*'image', 'image.bytes'",
    ),
    "a path in place of an image": (
        {"image": pa.array([{"bytes": None, "path": "/etc/passwd"}], IMAGE)},
        None,
        "1 row has no bytes in 'image.bytes', and some have only a path",
    ),
    "two columns of classes": (
        {"image": pictures(1), "kind": [0], "sort": [0]},
        features(image=None, kind=["a"], sort=["b"]),
        "'kind', 'sort' are all class labels",
    ),
    "a label that is no whole number": ({"image": pictures(2), "label": [1.0, 0.5]}, None, "column 'label' has 0.5"),
    "a list of labels": (
        {"image": pictures(1), "label": [[0]]},
        None,
        "column 'label' is list<.*: several labels for an image.*drop the column",
    ),
    "a label of true": ({"image": pictures(1), "label": [True]}, None, "column 'label' is bool; expected"),
    "a long class name": ({"image": pictures(1), "label": ["x" * 5000]}, None, "'label': text of 5000 bytes"),
    "too many classes": ({"image": pictures(1), "label": [10**12]}, None, "more than 100000 classes"),
    "names that are no texts": ({"image": pictures(1), "label": [0]}, features(label=[1, 2]), "must be a list of"),
    "a cut WebP image": ({"image": [b"RIFF\0\0\0\0WEBPVP8 "], "label": [0]}, None, "row 0: damaged: not a valid WEBP"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    columns, metadata, reason = TABLES[name]
    path = write(tmp_path / "train.parquet", columns, metadata)
    with pytest.raises(InputError, match=reason) as raised:
        quickly(path, tmp_path / "out", "cifar", input_format="parquet", save_images=True)
    assert "train.parquet" in str(raised.value)


def test_labels_outside_the_table_are_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": pictures(3), "label": [0, 5, -2]}, features(label=["a", "b"]))
    [summary] = summaries(path)
    assert summary.bad_count == 2
    assert [str(bad).split(": ", 1)[1] for bad in summary.bad_rows] == [
        "row 1: label 5 is outside the label table, which has 2 classes (0 to 1)",
        "row 2: label -2 is outside the label table, which has 2 classes (0 to 1)",
    ]
    with pytest.raises(InputError, match="row 1: label 5 is outside"):
        quickly(path, tmp_path / "out", "cifar")


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    columns = {"image": pictures(1), "label": [0]}
    write(tmp_path / "a" / "train.parquet", columns, features(label=["x", "y"]))
    write(tmp_path / "a" / "test.parquet", columns, features(label=["y", "x"]))
    with pytest.raises(InputError, match="train.parquet: class names differ from those in test.parquet"):
        ParquetSource().describe(str(tmp_path / "a"), "")
    for name in ("small", "large"):
        write(tmp_path / "b" / name / "train-00000-of-00001.parquet", columns)
    with pytest.raises(InputError, match="'train' is in 'large' and 'small'"):
        ParquetSource().describe(str(tmp_path / "b"), "")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no \.parquet files"):
        ParquetSource().describe(str(tmp_path / "none"), "")


def test_a_file_that_changes_in_between_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    good(path)
    catalog = ParquetSource().describe(str(path), "")
    good(path, row_group_size=7)
    with pytest.raises(InputError, match="changed while it was being converted"):
        scan(ParquetSource(), catalog.files[0], catalog.labels, Wanted())


def test_shards_that_are_missing_are_told(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch([f"{n}.png" for n in range(6)], [0] * 6)})
    quickly(source, tmp_path / "out", "parquet", images_per_batch=2)
    (tmp_path / "out" / "data" / "train-00001-of-00003.parquet").unlink()
    summary = quickly(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)
    assert summary.written == 4
    assert "'data/train' has 2 of its 3 shards; rows of the missing ones are not read" in summary.notices


def test_a_footer_does_not_outlive_its_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": pictures(6), "label": [0] * 6}, row_group_size=2)
    catalog = ParquetSource().describe(str(path), "")
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with ParquetSource().open_rows(catalog.files[0], catalog.labels) as rows:
                assert len(rows.table(0, 6)) == 6
            del rows
        assert not [each for each in gc.get_objects() if isinstance(each, pq.FileMetaData)]
    finally:
        gc.enable()


@pytest.mark.parametrize("read", ["pandas", "pyarrow"])
def test_the_folder_is_one_table(read: str, tmp_path: Path) -> None:
    names = ("train/a/1", "train/b/2", "%5Fx/a/3", "日/b/4")  # the third is "_x", escaped
    source = write_tree(tmp_path / "in", {f"{name}.png": encoded(picture(at)) for at, name in enumerate(names)})
    quickly(source, tmp_path / "out", "parquet")
    if read == "pandas":
        rows = pytest.importorskip("pandas").read_parquet(tmp_path / "out").to_dict("records")
    else:
        rows = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["img"]["path"]: (row["label"], row["img"]["bytes"]) for row in rows} == {
        f"{name[-1]}.png": ("ab".index(name[-3]), encoded(picture(at))) for at, name in enumerate(names)
    }


def test_a_card_is_written_where_file_numbers_have_more_than_five_digits() -> None:
    sink = ParquetSink()

    def finished(count: int, *, card: bool = False) -> tuple[list[str], list[str]]:
        shard = Shard(0, "train", sink.shard_path("train", 0, count), 1, 1, None, has_images=True)
        options = SinkOptions(LabelTable(("cat",)), ExportOptions(card=card))
        results = [ShardResult(shard, 1, {0}, {"num_bytes": 1}, "")]
        return list(sink.finish(options, results)), list(sink.result_notices(options, results))

    assert finished(99_999) == ([], [])
    assert finished(1, card=True) == (["README.md", "croissant.json"], [])
    files, (notice,) = finished(100_000)
    assert files == ["README.md"]
    assert "data/train-00000-of-100000.parquet" in notice
