"""What Lance's own library, and `datasets` with it, find in the datasets written (`make test-peers`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import make_sample
from beam_cifar.formats import lance
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.peers import found_by, splits_of
from tests.helpers.reading import unpickled
from tests.peers.digest import digest_rows, digest_values

CLASSES = ("sea lion", "never used", "поезд, синий")


def found(command: str, folder: Path, *more: Path) -> Any:
    return found_by("read_lance.py", command, folder, *more)


def some(rows: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: rows[key] for key in ("rows", "sha256", "ids", *keys)}


def test_six_thousand_images_have_their_pixels_labels_and_ids(tmp_path: Path) -> None:
    source = tmp_path / "in"
    make_sample(str(source), images=6000)
    quickly(source, tmp_path / "out", "lance", images_per_batch=1900)
    rows, wanted = found("read", tmp_path / "out"), splits_of(source)
    assert {name: some(each) for name, each in rows.items()} == {
        f"{split}.lance": each for split, each in wanted.items()
    }
    assert [rows[f"{split}.lance"]["fragments"] for split in ("train", "test")] == [[1900, 1900, 1200], [1000]]
    names = {"label": unpickled(source / "batches.meta")["label_names"]}
    assert all(each["names"] == names for each in rows.values())
    assert found("datasets", tmp_path / "out", tmp_path / "cache") == {
        split: {**each, "names": names} for split, each in wanted.items()
    }


@pytest.mark.parametrize("page_bytes", [1, 5000, lance.PAGE_BYTES])
def test_superclasses_are_a_column_whatever_the_pages(
    page_bytes: int, cifar100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "PAGE_BYTES", page_bytes)
    quickly(cifar100, tmp_path / "out", "lance")
    rows, meta = found("read", tmp_path / "out"), unpickled(cifar100 / "meta")
    assert {name: some(each, "coarse_label") for name, each in rows.items()} == {
        f"{split}.lance": each for split, each in splits_of(cifar100).items()
    }
    names = {"fine_label": meta["fine_label_names"], "coarse_label": meta["coarse_label_names"]}
    assert all(each["names"] == names for each in rows.values())


def test_unlabelled_rows_are_null_and_names_are_of_any_language(tmp_path: Path) -> None:
    rows = batch(["кошка 1.png", "b.png", "ёж.png"], [2, None, 0])
    source = write_cifar(tmp_path / "in", {"data_batch_1": rows, "обучение 1%": rows}, CLASSES)
    quickly(source, tmp_path / "out", "lance")
    read, wanted = found("read", tmp_path / "out"), splits_of(source)
    assert [some(each) for _, each in sorted(read.items())] == [wanted["train"], wanted["обучение 1%"]]
    assert all(each["names"] == {"label": list(CLASSES)} for each in read.values())


def test_rows_without_an_image_are_null(tmp_path: Path) -> None:
    images = {f"train/{name}.png": encoded(picture(seed, 5, 4 + seed)) for seed, name in enumerate("abc")}
    items = [
        {"id": name, "annotations": [{"type": "label", "label_id": at % 2}], "image": {"path": f"{name}.png"}}
        for at, name in enumerate("abcd")
    ]
    listed = {"categories": {"label": {"labels": [{"name": "cat"}, {"name": "dog"}]}}, "items": items}
    files = {f"images/{name}": image for name, image in images.items()}
    source = write_tree(tmp_path / "in", files | {"annotations/train.json": json.dumps(listed).encode()})
    quickly(source, tmp_path / "out", "lance")
    pixels = [picture(seed, 5, 4 + seed).transpose(1, 2, 0) for seed in range(3)]
    wanted = digest_rows([(at % 2, image) for at, image in enumerate([*pixels, None])])
    assert some(found("read", tmp_path / "out")["train.lance"]) == {**wanted, "ids": digest_values(list("abcd"))}


def test_lance_changes_what_is_written(tmp_path: Path) -> None:
    source = write_cifar(
        tmp_path / "in", {"train": batch([f"{row}.png" for row in range(5)], [0, 1, 2, None, 2])}, CLASSES
    )
    quickly(source, tmp_path / "out", "lance", images_per_batch=2)
    assert found("change", tmp_path / "out") == {
        "train.lance": {"labels": [0, 2, None, 2, 0, 2], "twice": [0, 4, None, 4, 0, 4], "found": ["4"], "fragments": 1}
    }
