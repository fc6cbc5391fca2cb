"""STL-10's binary version: pixels stored by columns, labels from 1, and unlabelled images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import quickly, write_tree

pytestmark = pytest.mark.usefixtures("without_runner")

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 96, 96, 3), dtype=np.uint8)
STORED = [pixels.transpose(2, 1, 0).tobytes() for pixels in PIXELS]
NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
Files = dict[str, bytes]
GOOD: Files = {
    "train_X.bin": b"".join(STORED[:3]),
    "train_y.bin": bytes([2, 10, 1]),
    "test_X.bin": b"".join(STORED[3:5]),
    "test_y.bin": bytes([5, 5]),
    "unlabeled_X.bin": b"".join(STORED[5:]),
    "class_names.txt": "".join(f"{name}\n" for name in NAMES).encode(),
    "fold_indices.txt": b"0 1 2\n",
}


def check(source: Path, folder: Path) -> None:
    assert detect_format(str(source), str(folder)) == "stl10"
    quickly(source, folder / "out", "npz")
    expected = {"train": (0, 3, [1, 9, 0]), "test": (3, 5, [4, 4]), "unlabeled": (5, 7, [-1, -1])}
    for subset, (start, stop, labels) in expected.items():
        with np.load(folder / "out" / f"{subset}.npz") as found:
            assert np.array_equal(found["images"], PIXELS[start:stop])
            assert found["labels"].tolist() == labels
            assert tuple(found["label_names"]) == NAMES


@pytest.mark.parametrize("folder", ["", "stl10_binary"])
def test_all_subsets_are_read_from_a_directory_or_one_deeper(folder: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "in" / folder, GOOD)
    check(tmp_path / "in", tmp_path)


def test_the_archive_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in GOOD.items():
            info = tarfile.TarInfo(f"stl10_binary/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    check(path, tmp_path)


def test_classes_without_names_are_numbers_and_what_is_not_read_is_told(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {name: data for name, data in GOOD.items() if name != "class_names.txt"})
    catalog = get_source("stl10").describe(str(source), str(tmp_path))
    assert catalog.labels.names == tuple(map(str, range(1, 11)))
    assert catalog.notices == (
        f"{source}: no class_names.txt found; classes are named by number, 1 to 10",
        f"{source}/fold_indices.txt: is not read; its folds are row numbers of the training images",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_X.bin": GOOD["train_X.bin"][:-1]}, "train_X.bin: has 82943 bytes, 27647 more than 2 images"),
        ({"train_y.bin": b"12"}, "train_X.bin: has 3 images but .*train_y.bin has 2 labels; expected equal counts"),
        ({"train_y.bin": bytes([1, 0, 2])}, "train_X.bin: row 1: label 0 is outside .* 1 to 10"),
        ({"test_y.bin": bytes([11, 1])}, "test_X.bin: row 0: label 11 is outside .* 1 to 10"),
        ({"train_y.bin": None}, "train_X.bin: has no labels; expected train_y.bin beside it"),
        ({"class_names.txt": b"a\nb\n"}, "class_names.txt: has 2 names; expected 10"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, bytes | None], reason: str, tmp_path: Path) -> None:
    files = {name: data for name, data in (GOOD | changes).items() if data is not None}
    source = write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match=reason):
        quickly(source, tmp_path / "out", "npz")


def test_an_empty_directory_is_refused_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files such as train_X.bin and train_y.bin found"):
        Dataset.import_from(tmp_path, "stl10")
