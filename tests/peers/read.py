"""Prints what another project's reader finds in a directory: `read.py READER DIR`, with a reader of `READERS`.

Runs in the environment of `requirements.txt`, never in this package's own. The output is one JSON object: for each
subset its digest (see `digest.py`), and the class names, superclasses and file names as far as the reader has them.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch_stub
from digest import Row, digest_rows, digest_values

Digests = dict[str, dict[str, Any]]


def batch_names(folder: Path) -> list[str]:
    """The files without extension but the meta file, in natural order."""
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.suffix and path.name != "meta"]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def read_torchvision(folder: Path) -> Digests:
    """Through `CIFAR10` or `CIFAR100` with other files listed, as people subclass them for sets of their own."""
    cifar = torch_stub.torchvision_datasets("cifar")
    stock = cifar.CIFAR100 if (folder / "meta").exists() else cifar.CIFAR10
    names = batch_names(folder)

    class Own(stock):  # type: ignore[misc, valid-type]
        base_folder = folder.name
        train_list = [[name, None] for name in names if not name.startswith("test")]  # noqa: RUF012
        test_list = [[name, None] for name in names if name.startswith("test")]  # noqa: RUF012
        meta = {**stock.meta, "md5": None}  # noqa: RUF012

    digests = {}
    for subset, listed in (("train", Own.train_list), ("test", Own.test_list)):
        if listed:
            found = Own(folder.parent, train=subset == "train")
            rows = ((label, np.asarray(image)) for image, label in (found[i] for i in range(len(found))))
            digests[subset] = {**digest_rows(rows), "classes": found.classes}
    return digests


def read_keras(folder: Path) -> Digests:
    """Through `load_batch`, which knows no names; its `load_data` differs in that it downloads the genuine archive."""
    load_batch = torch_stub.keras_cifar().load_batch
    digests = {}
    for name in batch_names(folder):
        keys = ("fine_labels", "coarse_labels") if (folder / "meta").exists() else ("labels",)
        loaded = [load_batch(str(folder / name), key) for key in keys]
        pixels, labels = loaded[0]
        digests[name] = digest_rows(zip(labels, pixels.transpose(0, 2, 3, 1), strict=True))
        if len(keys) == 2:
            digests[name]["coarse"] = digest_values(loaded[1][1])
    return digests


def read_datumaro(folder: Path) -> Digests:
    """Through `Dataset.import_from`."""
    import datumaro  # type: ignore[import-not-found]

    dataset = datumaro.Dataset.import_from(str(folder), "cifar")
    classes = dataset.categories()[datumaro.AnnotationType.label]
    digests = {}
    for name, subset in dataset.subsets().items():
        items = list(subset)
        digests[name] = {
            **digest_rows(_datumaro_rows(items)),
            "classes": [item.name for item in classes],
            "parents": {item.name: item.parent for item in classes if item.parent},
            "names": digest_values([item.id for item in items]),
        }
    return digests


def _datumaro_rows(items: list[Any]) -> Iterator[Row]:
    for item in items:
        labels = [annotation.label for annotation in item.annotations]
        yield labels[0] if labels else None, item.media.data if item.media is not None else None


def read_torchvision_folder(folder: Path) -> Digests:
    """Through `ImageFolder`, which gives the folders of a directory ids in order."""
    found = torch_stub.torchvision_datasets("folder").ImageFolder(folder)
    rows = {
        Path(path).relative_to(folder).with_suffix("").as_posix(): (label, np.asarray(found[number][0]))
        for number, (path, label) in enumerate(found.samples)
    }
    return {"default": _named_rows(rows, found.classes)}


def read_torchvision_subsets(folder: Path) -> Digests:
    """Through an `ImageFolder` for each subset, as its users do."""
    folders = (path for path in folder.iterdir() if path.name != "README.md")  # which is there for datasets
    return {path.name: read_torchvision_folder(path)["default"] for path in folders}


def read_ultralytics(folder: Path) -> Digests:
    """Through `check_cls_dataset` and `ClassificationDataset`, as its training does."""
    data, utils = torch_stub.ultralytics(), importlib.import_module("ultralytics.utils")
    splits = data.utils.check_cls_dataset(folder)
    classes = list(splits["names"].values())
    digests = {}
    for split in ("train", "val", "test"):
        if splits[split] is not None:
            found = data.ClassificationDataset(str(splits[split]), utils.DEFAULT_CFG, prefix=split)
            rows = {
                Path(sample[0]).relative_to(splits[split]).with_suffix("").as_posix(): (
                    row["cls"],
                    np.asarray(row["img"]),
                )
                for sample, row in zip(found.samples, found, strict=True)
            }
            digests[split] = _named_rows(rows, classes)
    return digests


def read_datumaro_folders(folder: Path, format_name: str) -> Digests:
    """Through `Dataset.import_from`; items are called `<class>:<file name>`, in the order of the disk."""
    import datumaro
    from datumaro.util.image import IMAGE_COLOR_CHANNEL, ImageColorChannel  # type: ignore[import-not-found]

    dataset = datumaro.Dataset.import_from(str(folder), format_name)
    classes = [item.name for item in dataset.categories()[datumaro.AnnotationType.label]]
    # OpenCV's order of channels is the default.
    IMAGE_COLOR_CHANNEL.set(ImageColorChannel.COLOR_RGB)
    return {
        name: _named_rows({item.id.replace(":", "/", 1): row for item, row in _with_rows(list(subset))}, classes)
        for name, subset in dataset.subsets().items()
    }


def _with_rows(items: list[Any]) -> Iterator[tuple[Any, Row]]:
    yield from zip(items, _datumaro_rows(items), strict=True)


def _named_rows(rows: dict[str, Row], classes: list[str]) -> dict[str, Any]:
    """The digest of rows in the order of their names."""
    names = sorted(rows)
    return {**digest_rows(rows[name] for name in names), "classes": classes, "names": digest_values(names)}


def read_torchvision_arrays(folder: Path, module: str, name: str, subsets: dict[str, dict[str, Any]]) -> Digests:
    """Through one of its classes for files of arrays, whose files must be those of certain checksums, if it has any."""
    stock = getattr(torch_stub.torchvision_datasets(module), name)

    class Own(stock):  # type: ignore[misc, valid-type]
        def _check_integrity(self) -> bool:
            return True

    Own.__name__ = name  # MNIST's classes look into a folder of this name
    digests = {}
    for subset, options in subsets.items():
        found = Own(folder, **options)
        digests[subset] = digest_rows(_shown_row(*found[at]) for at in range(len(found)))
    return digests


def read_medmnist(folder: Path) -> Digests:
    """Through `PathMNIST` and `PneumoniaMNIST`, whichever is there; they know how many images the genuine files have."""
    module, digests = torch_stub.medmnist(), {}
    stock = module.PathMNIST if (folder / "pathmnist.npz").exists() else module.PneumoniaMNIST
    for subset in ("train", "val", "test"):
        found = stock(split=subset, root=str(folder))
        digests[subset] = digest_rows(_shown_row(*found[at]) for at in range(len(found.imgs)))
    return digests


def _shown_row(image: Any, label: Any) -> Row:
    """A row with the channel that gray images have here."""
    pixels = np.asarray(image)
    return np.asarray(label).item(), pixels if pixels.ndim == 3 else pixels[..., None]


SPLITS = {"train": {"split": "train"}, "test": {"split": "test"}}
HALVES = {"train": {"train": True}, "test": {"train": False}}
LETTERS = {f"emnist-letters-{name}": {"split": "letters", **half} for name, half in HALVES.items()}
QMNIST = {f"qmnist-{name}": half for name, half in HALVES.items()}
READERS = {
    "torchvision mnist": partial(read_torchvision_arrays, module="mnist", name="MNIST", subsets=HALVES),
    "torchvision fashion": partial(read_torchvision_arrays, module="mnist", name="FashionMNIST", subsets=HALVES),
    "torchvision qmnist": partial(read_torchvision_arrays, module="mnist", name="QMNIST", subsets=QMNIST),
    "torchvision emnist": partial(read_torchvision_arrays, module="mnist", name="EMNIST", subsets=LETTERS),
    "torchvision stl10": partial(
        read_torchvision_arrays, module="stl10", name="STL10", subsets={**SPLITS, "unlabeled": {"split": "unlabeled"}}
    ),
    "torchvision svhn": partial(
        read_torchvision_arrays, module="svhn", name="SVHN", subsets={**SPLITS, "extra": {"split": "extra"}}
    ),
    "medmnist": read_medmnist,
    "torchvision": read_torchvision,
    "keras": read_keras,
    "datumaro": read_datumaro,
    "torchvision imagenet": read_torchvision_folder,
    "torchvision imagenet_with_subset_dirs": read_torchvision_subsets,
    "ultralytics": read_ultralytics,
    "datumaro imagenet": partial(read_datumaro_folders, format_name="imagenet"),
    "datumaro imagenet_with_subset_dirs": partial(read_datumaro_folders, format_name="imagenet_with_subset_dirs"),
}

if __name__ == "__main__":
    # Some of them print what they do.
    with redirect_stdout(sys.stderr):
        found = READERS[sys.argv[1]](Path(sys.argv[2]).resolve())
    json.dump(found, sys.stdout)
