"""Folders of images with lists: what Datumaro finds in ours, and what we find in Datumaro's (`make test-peers`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from beam_cifar import make_sample
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.peers import found_by
from tests.helpers.reading import batch_names, cifar_rows, unpickled

LISTED = ["imagenet_txt", "voc_classification", "datumaro", "coco", "cvat", "open_images"]
CLASSES = ["cat", "sea lion", "поезд"]

Found = dict[str, Any]
Peer = Callable[[str, str, Path], Found]


@pytest.fixture(scope="session")
def datumaro() -> Peer:
    """Reads or writes a directory through Datumaro; without its environment these tests fail."""
    return partial(found_by, "folders.py")


def digest(pixels: np.ndarray[Any, Any]) -> list[Any]:
    """Shape and digest of an image, planar, as Datumaro's script prints it."""
    interleaved = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return [list(interleaved.shape), hashlib.sha256(interleaved.tobytes()).hexdigest()]


def rows_of(folder: Path) -> dict[str, dict[str, list[Any]]]:
    """The rows of a CIFAR directory as Datumaro's script prints items."""
    coarse = (folder / "meta").exists()
    meta = unpickled(folder / ("meta" if coarse else "batches.meta"))
    classes = meta["fine_label_names" if coarse else "label_names"]
    found: dict[str, dict[str, list[Any]]] = {}
    for subset in batch_names(folder):
        sizes = unpickled(folder / subset).get("image_sizes")
        for row, (name, label, _, pixels) in enumerate(cifar_rows(folder, [subset])):
            size = tuple(sizes[row]) if sizes is not None else (32, 32)
            image = np.frombuffer(pixels, np.uint8).reshape(3, *size)
            class_name = None if label is None else classes[label]
            found.setdefault(subset, {})[name.rpartition(".")[0]] = [class_name, *digest(image)]
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two subsets with folders, spaces and letters of other scripts in ids, and rows without label."""
    train = ["a.png", "b c.png", "d/e f.png", "кот 1.png", "猫.png", "no label.png"]
    batches = {
        "train": batch(train, [0, 1, 2, 1, 0, None]),
        "test": batch(["v1.png", "v 2.png", "x.y.png"], [2, 0, 1], 3),
    }
    return write_cifar(tmp_path / "in", batches, CLASSES)


@pytest.mark.parametrize("target", LISTED)
def test_datumaro_finds_every_item_that_we_write(target: str, source: Path, tmp_path: Path, datumaro: Peer) -> None:
    quickly(source, tmp_path / "out", target, image_ext=".png")
    found = datumaro("read", target, tmp_path / "out")
    assert found["items"] == rows_of(source)
    assert found["classes"] == CLASSES


@pytest.mark.parametrize("target", LISTED)
def test_we_find_every_item_that_datumaro_writes(target: str, tmp_path: Path, datumaro: Peer) -> None:
    wanted = datumaro("write", target, tmp_path / "theirs")
    quickly(tmp_path / "theirs", tmp_path / "back", "cifar", save_images=True, input_format=target)
    assert rows_of(tmp_path / "back") == wanted["items"]
    added = ["background"] if target == "voc_classification" else []  # by Datumaro's exporter
    assert unpickled(tmp_path / "back" / "batches.meta")["label_names"] == [*added, *wanted["classes"]]


def test_datumaro_finds_every_pixel_and_tag_of_6000_images(tmp_path: Path, datumaro: Peer) -> None:
    make_sample(str(tmp_path / "in"), images=6000)
    quickly(tmp_path / "in", tmp_path / "out", "cvat")
    found, wanted = datumaro("read", "cvat", tmp_path / "out")["items"], rows_of(tmp_path / "in")
    assert sum(map(len, wanted.values())) == 6000
    assert found == wanted


def test_we_find_what_datumaro_finds_in_a_project_of_cvat(tmp_path: Path, datumaro: Peer) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    subsets = "".join(f"<task><subset>{name}</subset></task>" for name in ("Train", "val"))
    rows = [("Train", "a", 0), ("val", "b c", 2), ("Train", "d/кот", 1), ("val", "e", None)]
    shown = "".join(
        f'<image id="{at}" name="{name}.png" subset="{subset}" width="32" height="32">'
        + ("" if label is None else f'<tag label="{CLASSES[label]}" source="manual"></tag>')
        + "</image>"
        for at, (subset, name, label) in enumerate(rows)
    )
    meta = f"<meta><project><tasks>{subsets}</tasks><labels>{labels}</labels></project></meta>"
    files = {"annotations.xml": f"<annotations><version>1.1</version>{meta}{shown}</annotations>".encode()}
    files |= {f"images/{subset}/{name}.png": encoded(picture(at)) for at, (subset, name, _) in enumerate(rows)}
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    found = datumaro("read", "cvat", source)["items"]
    assert sum(map(len, found.values())) == 4
    assert rows_of(tmp_path / "out") == found


@pytest.mark.parametrize("target", LISTED)
def test_what_datumaro_writes_is_detected(target: str, tmp_path: Path, datumaro: Peer) -> None:
    datumaro("write", target, tmp_path / "theirs")
    summary = quickly(tmp_path / "theirs", tmp_path / "back", "cifar")
    assert summary.read == 7


def test_datumaro_finds_the_images_of_a_folder_by_their_names(tmp_path: Path, datumaro: Peer) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b c.png", "кот.png"], [0, 1, 2])}, CLASSES)
    quickly(source, tmp_path / "out", "image_dir")
    wanted = {name: [None, *row[1:]] for name, row in rows_of(source)["train"].items()}
    assert datumaro("read", "image_dir", tmp_path / "out")["items"] == {"default": wanted}


def test_we_find_the_images_of_a_folder_that_datumaro_writes(tmp_path: Path, datumaro: Peer) -> None:
    wanted = datumaro("write", "image_dir", tmp_path / "theirs")["items"]
    quickly(tmp_path / "theirs", tmp_path / "back", "cifar", save_images=True, input_format="image_dir")
    every = {name: [None, *row[1:]] for found in wanted.values() for name, row in found.items()}
    assert rows_of(tmp_path / "back") == {"default": every}


def test_datumaro_has_our_superclasses_as_parents_and_gives_them_back(
    cifar100: Path, tmp_path: Path, datumaro: Peer
) -> None:
    quickly(cifar100, tmp_path / "out", "datumaro", filter="/item[image]", limit=300)
    meta = unpickled(cifar100 / "meta")
    found = datumaro("read", "datumaro", tmp_path / "out")
    assert found["classes"] == meta["fine_label_names"]
    parents = {
        meta["fine_label_names"][fine]: meta["coarse_label_names"][coarse]
        for _, fine, coarse, _ in cifar_rows(cifar100)
    }
    assert found["parents"] == parents


def test_datumaro_finds_subsets_and_classes_whose_names_hold_an_underscore(tmp_path: Path, datumaro: Peer) -> None:
    batches = {"data_batch_1": batch(["a.png", "b.png"], [0, 1]), "test_batch": batch(["c.png"], [1], 2)}
    source = write_cifar(tmp_path / "in", batches, ["sea_lion", "sea"])
    quickly(source, tmp_path / "out", "voc_classification", image_ext=".png")
    found = datumaro("read", "voc_classification", tmp_path / "out")["items"]
    # Its importer takes lists without `_` alone.
    assert {name.replace("%5F", "_"): rows for name, rows in found.items()} == rows_of(source)


@pytest.mark.parametrize("target", LISTED)
def test_datumaro_finds_names_that_no_path_holds_in_their_written_form(
    target: str, tmp_path: Path, datumaro: Peer
) -> None:
    up = "up" if target == "datumaro" else "../x"  # which Datumaro refuses as an id, and only this format has as it is
    names = ["a.png/b", "a", "#1", up, "\u00a0x\u3000", "50%", 'say "x"', "A", "tab\tx"]
    classes = ["100%", "CON", "con", "a,b"]
    rows = batch([f"{name}.png" for name in names], [None, 0, 1, 2, 3, 0, 1, 2, 3])
    source = write_cifar(tmp_path / "in", {"té st": rows}, classes)
    quickly(source, tmp_path / "out", target, image_ext=".png")
    found = datumaro("read", target, tmp_path / "out")
    assert [unquote(name) for name in found["classes"]] == classes
    written = {unquote(name): row for name, row in found["items"]["té st"].items()}
    decoded = {name: [row[0] and unquote(row[0]), *row[1:]] for name, row in written.items()}
    assert decoded == rows_of(source)["té st"]
