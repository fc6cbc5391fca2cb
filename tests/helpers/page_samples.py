"""Small datasets under the names that the pages give to theirs."""

from __future__ import annotations

import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from beam_cifar import make_sample
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.read_only import READ_ONLY
from tests.helpers.reading import cifar_rows

IMAGES = 60


def _archive(path: Path) -> None:
    kind = "cifar100" if "100" in path.name else "cifar10"
    make_sample(str(path), kind=kind, images=IMAGES, tar=True)


def _folders(path: Path) -> None:
    """Pictures of several sizes in folders of classes, one of which CIFAR-10 has too."""
    pictures = {
        f"{name}/{name}-{seed}.png": picture(seed, 40 + seed, 64) for name in ("cat", "hamster") for seed in (1, 2)
    }
    write_tree(path, {name: encoded(pixels) for name, pixels in pictures.items()})


def _downsampled(path: Path) -> None:
    side = int(path.name.removeprefix("Imagenet"))
    path.mkdir()
    for seed, name in enumerate(("train_data_batch_1", "val_data")):
        data = np.stack([picture(10 * seed + row, side, side).reshape(-1) for row in range(4)])
        (path / name).write_bytes(pickle.dumps({"data": data, "labels": [1, 2, 3, 1000]}, protocol=2))


def _mnist(path: Path) -> None:
    _converted(path, "mnist")
    for labels in path.glob("labels.txt"):
        labels.unlink()  # the digits have none


def _mnist_csv(path: Path) -> None:
    lines = [",".join(map(str, [row % 10, *picture(row, 28, 28, 1).reshape(-1)])) for row in range(10)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _mnist_npz(path: Path) -> None:
    x = np.stack([picture(row, 28, 28, 1)[0] for row in range(10)])
    y = np.arange(10, dtype=np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])


def _binary_archive(path: Path) -> None:
    _converted(path.with_name("cifar-10-batches-bin"), "cifar_binary")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(path.with_name("cifar-10-batches-bin"), "cifar-10-batches-bin")
    shutil.rmtree(path.with_name("cifar-10-batches-bin"))


def _train_npz(path: Path) -> None:
    _converted(path.parent, "npz", subset_names="split")


def _labels_csv(path: Path) -> None:
    """Other names for the images of the drawn test set."""
    source = path.with_name("drawn")
    make_sample(str(source), images=IMAGES)
    names = [name for name, *_ in cifar_rows(source, ["test_batch"])]
    rows = [f"{name},{('indoors', 'outdoors')[at % 2]}" for at, name in enumerate(names)]
    path.write_text("\n".join(["filename,name", *rows, ""]), encoding="utf-8")
    shutil.rmtree(source)


def _tiny(path: Path) -> None:
    files = {f"train/n{row}/images/n{row}_0.JPEG": encoded(picture(row, 64, 64), "JPEG") for row in range(3)}
    files |= {"val/images/val_0.JPEG": encoded(picture(4, 64, 64), "JPEG"), "wnids.txt": b"n2\nn0\nn1\n"}
    write_tree(path, files | {"val/val_annotations.txt": b"val_0.JPEG\tn1\t0\t0\t1\t1\n"})


def _kaggle(path: Path) -> None:
    files = {f"{split}/{row}.png": encoded(picture(row)) for split in ("train", "test") for row in (1, 2)}
    write_tree(path, files | {"trainLabels.csv": b"id,label\n1,frog\n2,truck\n"})


def _converted(path: Path, target: str, **options: str) -> None:
    """A drawn set in another format."""
    source = path.with_name("drawn")
    make_sample(str(source), images=IMAGES)
    quickly(source, path, target, resize=(28, 28) if target == "mnist" else None, **options)
    for left in (source, path.with_name(f"{path.name}.beam_cifar")):
        shutil.rmtree(left)


def _corrupted(path: Path) -> None:
    """Two of CIFAR-10-C's files, and the labels that all share."""
    path.mkdir()
    images = np.stack([picture(row).transpose(1, 2, 0) for row in range(10)])
    for name in ("fog", "snow"):
        np.save(path / f"{name}.npy", images)
    np.save(path / "labels.npy", np.arange(10) % 2)


def _stl10_archive(path: Path) -> None:
    folder = READ_ONLY["stl10"](path.with_name("stl10_binary"))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)


def _read_only(name: str) -> Callable[[Path], object]:
    return READ_ONLY[name]


SAMPLES: dict[str, Callable[[Path], object]] = {
    "cifar-10-python.tar.gz": _archive,
    "cifar-100-python.tar.gz": _archive,
    "cifar-10-binary.tar.gz": _binary_archive,
    "more-images": _folders,
    "photos": _folders,
    "Imagenet32": _downsampled,
    "Imagenet64": _downsampled,
    "tiny-imagenet-200": _tiny,
    "kaggle-cifar-10": _kaggle,
    "imagenet-of-kaggle": _read_only("imagenet_kaggle"),
    "MNIST/raw": _mnist,
    "mnist.npz": _mnist_npz,
    "mnist_train.csv": _mnist_csv,
    "OUT/train.npz": _train_npz,
    "labels.csv": _labels_csv,
    "CIFAR-10-C": _corrupted,
    "stl10_binary.tar.gz": _stl10_archive,
    "SVHN": _read_only("svhn"),
    "saved": _read_only("hf_arrow"),
    "mnist/3.0.1": _read_only("tfds"),
}
"""What makes each of them at a path, whose folder may be missing."""


def make_page_samples(folder: Path, code: str) -> None:
    """Makes those that some code names."""
    for name, make in SAMPLES.items():
        if name in code:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            make(folder / name)
