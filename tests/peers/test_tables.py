"""What readers of Parquet, and mlcroissant, find in what is written, with and without cards (`make test-peers`)."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import IO, Any, cast

import pyarrow.parquet as pq
import pytest

from tests.helpers.image_trees import batch, quickly, write_cifar
from tests.helpers.peers import attempt, found_by

READERS = ["pandas", "pyarrow", "polars", "polars, lazy", "duckdb"]
CLASSES = ["cat", "sea\nlion", "поезд"]


def read(reader: str, path: Path, cache: Path) -> Any:
    return found_by("tables.py", reader, path, CROISSANT_CACHE=str(cache))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_readers_of_parquet_find_every_row(reader: str, card: bool, cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "parquet", card=card, images_per_batch=200)
    place = tmp_path / "out" / "data" if card else tmp_path / "out"
    rows = [row for file in sorted((tmp_path / "out" / "data").iterdir()) for row in pq.read_table(file).to_pylist()]
    wanted = sorted([row["img"]["path"], row["label"], digest(row["img"]["bytes"])] for row in rows)
    assert len(wanted) > 200
    if reader == "duckdb":
        place = (place if card else place / "data") / "*.parquet"
    elif card:
        assert attempt("tables.py", reader, tmp_path / "out").returncode != 0  # what the pages say of these
    assert read(reader, place, tmp_path) == wanted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    batches = {
        "train": batch(["a.png", "b c.png", "кот.png"], [0, None, 2]),
        "te st": batch(["a.png", "x.y.png"], [1, 1], 3),
    }
    return write_cifar(tmp_path / "in", batches, CLASSES)


def test_croissant_has_every_image_and_label_of_parquet(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "parquet", card=True, subset_names="source", images_per_batch=2)
    wanted = [
        {
            "images/image": digest(row["img"]["bytes"]),
            "images/path": row["img"]["path"],
            "images/label": row["label"],
            "images/split": file.name.partition("-")[0],
        }
        for file in sorted((tmp_path / "out" / "data").iterdir())
        for row in pq.read_table(file).to_pylist()
    ]
    found = read("croissant", tmp_path / "out", tmp_path)
    assert found["images"] == wanted
    assert {row["images/split"] for row in wanted} == {"te_st", "train"}
    assert found["classes"] == [{"classes/id": at, "classes/name": name} for at, name in enumerate(CLASSES)]


def test_croissant_has_every_image_and_label_of_webdataset(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "webdataset", card=True, subset_names="source", images_per_batch=2)
    members = list[tuple[str, bytes]]()
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as shard:
            members += [(each.name, cast(IO[bytes], shard.extractfile(each)).read()) for each in shard]
    found = read("croissant", tmp_path / "out", tmp_path / "cache")
    assert {f"{row['images/key']}.png": row["images/image"] for row in found["images"]} == {
        name: digest(content) for name, content in members if name.endswith(".png")
    }
    assert {f"{row['labels/key']}.cls": row["labels/label"] for row in found["labels"]} == {
        name: int(content) for name, content in members if name.endswith(".cls")
    }
    assert (len(found["images"]), len(found["labels"])) == (5, 4)
    assert {row["images/split"] for row in found["images"]} == {"train", "te=20st"}


def test_superclasses_are_records_that_labels_refer_to(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", "parquet", card=True, limit=200)
    found = read("croissant", tmp_path / "out", tmp_path)
    parents = {row["classes/id"]: row["classes/superclass"] for row in found["classes"]}
    assert (len(parents), len(found["superclasses"])) == (100, 20)
    assert found["images"]
    assert all(row["images/coarse_label"] == parents[row["images/fine_label"]] for row in found["images"])
