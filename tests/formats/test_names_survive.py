"""Odd names of subsets, classes and ids come back from every format, or a notice names what becomes of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beam_cifar import Dataset, DatasetItem, Image, Label, Summary
from beam_cifar.formats.registry import get_sink, readable, writable
from beam_cifar.jobs import serial
from tests.helpers.image_trees import picture, quickly

pytestmark = pytest.mark.usefixtures("without_runner")

NAMES = (
    # Dots, slashes, spaces, percent signs.
    ".x", "v1.0", "..", ".", "a..b", "b.", "a/b", "a b", "a%", "%2F", "%2E", "100%",
    # Underscores, and what systems leave behind.
    "_x", "__x", "lost+found", "__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini",
    # Names that mean something to one format or another.
    "train", "test", "val", "labels", "labels.txt", "labels.json", "meta", "batches.meta", "dataset_meta.json", "meta_train",
    "mnist_train", "synsets", "synsets.txt", "labelmap", "t10k", "train-images", "images", "annotations", "no_label", "data",
    "cat_train", "default", "README.md", "a-00000-of-00001", "x-000001", "x1",
    # Unicode, and 200 bytes.
    unicodedata.normalize("NFC", "café"), "é" * 100, "x" * 200,
)  # fmt: skip
FORMATS = [name for name in writable() if name in readable()]


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


def dataset(rows: list[tuple[str, str, str]], classes: list[str]) -> Dataset:
    """A picture for each (subset, class, id)."""
    return Dataset.from_iterable(
        [
            DatasetItem(
                item_id,
                subset,
                Image(np.ascontiguousarray(picture(at).transpose(1, 2, 0))),
                [Label(classes.index(name))] if name else [],
            )
            for at, (subset, name, item_id) in enumerate(rows)
        ],
        classes,
    )


def rows_of(folder: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Subset, class and id of every row, as a format reads them."""
    found = Dataset.import_from(str(folder), name)
    for item in found:
        yield item.subset, "" if item.label is None else found.categories.names[item.label], item.id


def kept(row: tuple[str, str, str], target: str) -> tuple[str, str, str]:
    """What a format can say of a row."""
    losses = get_sink(target).can.losses
    subset, name, item_id = row
    return (
        "default" if "subsets" in losses else subset,
        "" if "labels" in losses else name,
        ("" if "ids" in losses else item_id),
    )


def export(made: Dataset, folder: Path, target: str) -> Summary:
    made.filter("/item")  # a plan by rows names changes too
    return made.export(str(folder), target, save_images=True)


@pytest.mark.parametrize("target", FORMATS)
def test_subsets_come_back_or_a_notice_names_the_change(target: str, tmp_path: Path) -> None:
    naming = get_sink(target).subsets
    distinct = {naming.letters(name): name for name in NAMES}  # those that a format writes alike are refused together
    label = "" if target == "image_dir" else "cat"
    rows = [(name, label, f"i{at}") for at, name in enumerate(distinct.values())]
    summary = export(dataset(rows, ["cat"]), tmp_path / "out", target)
    told = {name for name in NAMES if any(f"subset {name!r} is written as" in notice for notice in summary.notices)}
    wanted = [
        kept((naming.letters(name) if name in told else name, label, item_id), target) for name, label, item_id in rows
    ]
    assert sorted(kept(row, target) for row in rows_of(tmp_path / "out", target)) == sorted(wanted)


@pytest.mark.parametrize("target", [name for name in FORMATS if name != "image_dir"])
def test_classes_come_back(target: str, tmp_path: Path) -> None:
    rows = [("train", name, f"i{at}") for at, name in enumerate(NAMES)]
    export(dataset(rows, list(NAMES)), tmp_path / "out", target)
    assert sorted(row[1] for row in rows_of(tmp_path / "out", target)) == sorted(NAMES)


@pytest.mark.parametrize("target", [name for name in FORMATS if "ids" not in get_sink(name).can.losses])
def test_ids_come_back(target: str, tmp_path: Path) -> None:
    rows = [("train", "" if target == "image_dir" else "cat", name) for name in NAMES]
    export(dataset(rows, ["cat"]), tmp_path / "out", target)
    assert sorted(row[2] for row in rows_of(tmp_path / "out", target)) == sorted(NAMES)


@pytest.mark.parametrize("source", [name for name in FORMATS if "ids" not in get_sink(name).can.losses])
def test_ids_with_folders_pass_from_every_format_to_class_folders(source: str, tmp_path: Path) -> None:
    label = "" if source == "image_dir" else "cat"
    export(dataset([("train", label, "x/a"), ("train", label, "y/a")], ["cat"]), tmp_path / "first", source)
    quickly(tmp_path / "first", tmp_path / "second", "imagenet")
    assert sorted(row[2] for row in rows_of(tmp_path / "second", "imagenet")) == ["x/a", "y/a"]


def test_a_name_that_is_cut_is_named_before_it_is_written(tmp_path: Path) -> None:
    long = "%" * 120
    for target in ("cifar", "imagenet_with_subset_dirs"):
        summary = export(dataset([(long, long, "1")], [long]), tmp_path / target, target)
        told = [notice for notice in summary.notices if repr(long) in notice]
        assert [notice.partition(" ")[0] for notice in told] == (
            ["subset"] if target == "cifar" else ["class", "subset"]
        )
