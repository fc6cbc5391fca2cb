"""Files of arrays that we read: torchvision and MedMNIST find the same in them (`make test-peers`)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import encoded, picture, write_tree
from tests.helpers.matlab import mat_file
from tests.helpers.peers import found_by
from tests.peers.digest import Row, digest_rows

Digests = dict[str, dict[str, Any]]
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """A file of MNIST's kind, from the description of the format."""
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    head = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(folder: Path, names: tuple[str, str], labels: str = "labels-idx1-ubyte", first: int = 0) -> Path:
    """Two subsets of files of images and of labels."""
    files: dict[str, bytes] = {}
    for seed, name in enumerate(names):
        numbers = (np.arange(7, dtype=np.uint8) + seed) % 5 + first
        # QMNIST's rows: the class, then series, writer and others.
        rows = np.hstack([numbers[:, None], noise(7, 7)]).astype(np.int32) if labels.endswith("-int") else numbers
        files |= {f"{name}-images-idx3-ubyte": idx(noise(7, 28, 28)), f"{name}-{labels}": idx(rows)}
    return write_tree(folder, files)


def write_stl10(folder: Path) -> Path:
    labels = {"train_y.bin": bytes([1, 10, 5, 2]), "test_y.bin": bytes([10, 3])}
    images = {"train_X.bin": 4, "test_X.bin": 2, "unlabeled_X.bin": 3}
    files = {name: noise(rows, 3, 96, 96).tobytes() for name, rows in images.items()}
    return write_tree(folder / "stl10_binary", files | labels) and folder


def write_svhn(folder: Path) -> Path:
    files = {
        f"{name}_32x32.mat": mat_file(packed=True, X=noise(32, 32, 3, 6), y=np.array([[1], [10], [9], [3], [10], [2]], np.uint8))
        for name in ("train", "test", "extra")
    }  # fmt: skip
    return write_tree(folder, files)


def write_medmnist(folder: Path, name: str, *channels: int) -> Path:
    folder.mkdir()
    arrays: dict[str, Any] = {}
    for rows, split in enumerate(("train", "val", "test"), 3):
        arrays |= {
            f"{split}_images": noise(rows, 28, 28, *channels),
            f"{split}_labels": RNG.integers(0, 2, (rows, 1), np.uint8),
        }
    np.savez_compressed(folder / name, **arrays)
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "torchvision mnist": lambda folder: write_idx(folder / "MNIST" / "raw", ("train", "t10k")),
    "torchvision fashion": lambda folder: write_idx(folder / "FashionMNIST" / "raw", ("train", "t10k")),
    "torchvision qmnist": lambda folder: write_idx(
        folder / "QMNIST" / "raw", ("qmnist-train", "qmnist-test"), "labels-idx2-int"
    ),
    "torchvision emnist": lambda folder: write_idx(
        folder / "EMNIST" / "raw", ("emnist-letters-train", "emnist-letters-test"), first=1
    ),
    "torchvision stl10": write_stl10,
    "torchvision svhn": write_svhn,
    "medmnist": lambda folder: write_medmnist(folder, "pathmnist.npz", 3),
    "medmnist, gray": lambda folder: write_medmnist(folder, "pneumoniamnist.npz"),
}
FORMATS = {"torchvision stl10": "stl10", "torchvision svhn": "svhn", "medmnist": "npz", "medmnist, gray": "npz"}


def found_here(folder: Path) -> Digests:
    subsets: dict[str, list[Row]] = {}
    for item in Dataset.import_from(folder):
        assert item.image is not None
        subsets.setdefault(item.subset, []).append((-1 if item.label is None else item.label, item.image.data))
    return {name: digest_rows(rows) for name, rows in subsets.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_we_find_what_its_own_reader_finds(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "in")
    assert detect_format(str(tmp_path / "in"), str(tmp_path)) == FORMATS.get(layout, "mnist")
    assert found_here(tmp_path / "in") == found_by("read.py", layout.partition(",")[0], tmp_path / "in")


def test_classes_of_kaggles_imagenet_have_the_numbers_that_torchvision_gives_folders(tmp_path: Path) -> None:
    data = "ILSVRC/Data/CLS-LOC"
    images = {
        f"{split}/n0{row % 3}/{row}.JPEG": encoded(picture(row)) for split in ("train", "val") for row in range(6)
    }
    mapping = b"n00 tench, Tinca tinca\nn01 crane\nn02 crane\n"
    folder = write_tree(
        tmp_path / "in",
        {f"{data}/{name}": image for name, image in images.items()} | {"LOC_synset_mapping.txt": mapping},
    )
    peer = found_by("read.py", "torchvision imagenet_with_subset_dirs", folder / data)
    assert found_here(folder) == {
        name: {key: digests[key] for key in ("rows", "sha256")} for name, digests in peer.items()
    }
