"""What is read as what: trees as people have them, with what else lies there, and what detection answers."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format
from beam_cifar.planning.survey import find_catalog
from tests.helpers.image_trees import encoded, picture, write_tree

Tree = dict[str, bytes]
PNG, JPEG = encoded(picture(1, 8, 8)), encoded(picture(1, 8, 8), "JPEG")


def saved(save: Callable[..., object], *values: Any, **named: Any) -> bytes:
    """What a function writes to a file."""
    file = io.BytesIO()
    save(*values, file) if save is pq.write_table else save(file, *values, **named)
    return file.getvalue()


def below(folder: str, tree: Tree) -> Tree:
    """A tree one folder deeper."""
    return {f"{folder}/{name}": content for name, content in tree.items()}


def images(*names: str) -> Tree:
    """Images with some names."""
    return {name: JPEG if name.endswith("jpg") else PNG for name in names}


def tar(tree: Tree, mode: str = "w") -> bytes:
    """A tar file of a tree."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as packed:  # type: ignore[call-overload]
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


BATCH = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, 2)
NAMES = pickle.dumps({"label_names": ["cat", "dog"]}, 2)
CIFAR = below("cifar-10-batches-py", {"data_batch_1": BATCH, "test_batch": BATCH, "batches.meta": NAMES})
CIFAR_100 = below(
    "cifar-100-python",
    {"train": BATCH, "meta": pickle.dumps({"fine_label_names": ["cat"], "coarse_label_names": ["pet"]}, 2)},
)
MNIST = {
    "train-images-idx3-ubyte": struct.pack(">4i", 2051, 2, 28, 28) + bytes(2 * 784),
    "train-labels-idx1-ubyte": struct.pack(">2i", 2049, 2) + bytes(2),
}
HEADER = ",".join(["label", *(f"pixel{at}" for at in range(64))]) + "\n"
PIXELS = (HEADER + ",".join(["3"] * 65) + "\n").encode()
PARQUET = saved(
    pq.write_table, pa.table({"image": pa.array([{"bytes": PNG, "path": "1.png"}]), "label": pa.array([0])})
)
NO_IMAGES = saved(pq.write_table, pa.table({"a": [1]}))
NPZ = saved(np.savez, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2))
NPY = {"x_train.npy": saved(np.save, np.zeros((2, 8, 8, 3), np.uint8)), "y_train.npy": saved(np.save, np.arange(2))}
FEATURES = saved(np.save, np.zeros((2, 5)))
BINARY = {"data_batch_1.bin": bytes(3073), "batches.meta.txt": b"cat\ndog\n"}
CLASSES = images("cat/1.png", "cat/2.png", "dog/3.jpg")
SUBSETS = {**below("train", CLASSES), **below("test", CLASSES)}
LOOSE = images("1.png", "2.png")
KAGGLE = images("train/1.png", "train/2.png", "test/1.png") | {"trainLabels.csv": b"id,label\n1,frog\n2,cat\n"}
TINY = images("train/n01/images/n01_0.jpg", "val/images/val_0.jpg") | {
    "val/val_annotations.txt": b"val_0.jpg\tn01\t0\t0\t1\t1\n",
    "wnids.txt": b"n01\n",
}
CHALLENGE = images("ILSVRC/Data/CLS-LOC/train/n01/n01_0.JPEG", "ILSVRC/Data/CLS-LOC/val/val_0.JPEG") | {
    "LOC_synset_mapping.txt": b"n01 tench\n",
    "LOC_val_solution.csv": b"ImageId,PredictionString\nval_0,n01 0 0 1 1 \n",
}
SHARD = tar({"a.png": PNG, "a.cls": b"0"})

CVAT = b'<annotations><meta/><image id="0" name="1.png"/></annotations>'

FOUND: dict[str, tuple[Tree, str]] = {
    "class folders": (CLASSES, "imagenet"),
    "names in upper case": (images("cat/1.PNG", "dog/2.JPEG"), "imagenet"),
    "other kinds of images": ({"cat/1.gif": PNG, "dog/2.webp": PNG}, "imagenet"),
    "classes of one image": (images("cat/1.png", "dog/1.png"), "imagenet"),
    "classes and one loose image": ({**CLASSES, "sample.png": PNG}, "imagenet"),
    "classes and two loose images": ({**CLASSES, "a.png": PNG, "b.png": PNG}, "imagenet"),
    "classes in a folder": (below("pets", CLASSES), "imagenet_with_subset_dirs"),
    "classes with litter": (
        {**CLASSES, "__MACOSX/cat/._1.png": b"x", ".DS_Store": b"x", "cat/Thumbs.db": b"x", "@eaDir/x.png": PNG},
        "imagenet",
    ),
    "classes and what they were unpacked from": ({**CLASSES, "pets.tar": tar(CLASSES)}, "imagenet"),
    "classes and a .tar.gz of them": ({**CLASSES, "pets.tar.gz": tar(CLASSES, "w:gz")}, "imagenet"),
    "subsets of classes and a .tar of them": ({**SUBSETS, "pets.tar": tar(SUBSETS)}, "imagenet_with_subset_dirs"),
    "classes and a table that lists them": ({**CLASSES, "all.csv": b"path,label\ncat/1.png,cat\n"}, "image_csv"),
    "classes and sizes": ({**CLASSES, "sizes.csv": b"file,width\ncat/1.png,8\n"}, "imagenet"),
    "subsets of classes": (SUBSETS, "imagenet_with_subset_dirs"),
    "subsets and an image among them": ({**SUBSETS, "sample.png": PNG}, "imagenet_with_subset_dirs"),
    "subsets and an image in one": ({**SUBSETS, "train/sample.png": PNG}, "imagenet_with_subset_dirs"),
    "subsets and a few flat ones": ({**SUBSETS, **images("pred/1.png")}, "imagenet_with_subset_dirs"),
    "classes of train, and more test images without": (
        {**below("train", CLASSES), **images(*(f"test/{at}.png" for at in range(9)))},
        "imagenet_with_subset_dirs",
    ),
    "subsets with captions": (
        {**SUBSETS, "train/metadata.csv": b"file_name,text\ncat/1.png,x\n"},
        "imagenet_with_subset_dirs",
    ),
    "only images": (LOOSE, "image_dir"),
    "only images and a table of something else": ({**LOOSE, "log.csv": b"epoch,loss\n1,3\n"}, "image_dir"),
    "Kaggle": (KAGGLE, "image_csv"),
    "Kaggle and a form for answers": ({**KAGGLE, "sampleSubmission.csv": b"id,label\n1,cat\n"}, "image_csv"),
    "Kaggle and an empty table": ({**KAGGLE, "notes.csv": b""}, "image_csv"),
    "Kaggle and a table in Latin-1": ({**KAGGLE, "notes.csv": "größe\n1\n".encode("latin-1")}, "image_csv"),
    "a table of labels, and class names": (
        images("train_images/1.jpg", "test_images/2.jpg")
        | {"train.csv": b"image_id,label\n1.jpg,2\n", "names.json": b"{}"},
        "image_csv",
    ),
    "metadata in splits": (
        images("train/a.png", "test/b.png")
        | {
            "train/metadata.csv": b"file_name,label\na.png,cat\n",
            "test/metadata.jsonl": b'{"file_name":"b.png","label":"dog"}\n',
        },
        "image_csv",
    ),
    "Tiny ImageNet": (TINY, "tiny_imagenet"),
    "ImageNet of Kaggle": (CHALLENGE, "imagenet_kaggle"),
    "CIFAR": (CIFAR, "cifar"),
    "CIFAR and the archive it was in": ({**CIFAR, "cifar-10-python.tar.gz": tar(CIFAR, "w:gz")}, "cifar"),
    "CIFAR and a plain archive of it": ({**CIFAR, "cifar-10-python.tar": tar(CIFAR)}, "cifar"),
    "CIFAR and images of it": ({**CIFAR, **below("png", CLASSES)}, "cifar"),
    "CIFAR-100": (CIFAR_100, "cifar"),
    "binary CIFAR": (BINARY, "cifar_binary"),
    "binary CIFAR in its folder, with its page": (
        below("cifar-10-batches-bin", {**BINARY, "readme.html": b"x"}),
        "cifar_binary",
    ),
    "MNIST": (MNIST, "mnist"),
    "MNIST as torchvision has it": (below("MNIST/raw", MNIST), "mnist"),
    "MNIST and an empty table": ({**MNIST, "notes.csv": b""}, "mnist"),
    "MNIST as CSV": ({"train.csv": PIXELS}, "mnist_csv"),
    "MNIST as CSV, an empty table": ({"train.csv": PIXELS, "notes.csv": b""}, "mnist_csv"),
    "MNIST as CSV, and a form for answers": (
        {"train.csv": PIXELS, "test.csv": PIXELS, "sample_submission.csv": b"ImageId,Label\n1,0\n"},
        "mnist_csv",
    ),
    "Parquet": (below("data", {"train-00000-of-00001.parquet": PARQUET}) | {"README.md": b"#"}, "parquet"),
    "Parquet and a table": ({"train.parquet": PARQUET, "notes.csv": b"a,b\n1,2\n"}, "parquet"),
    "Parquet and features": ({"train.parquet": PARQUET, "features.npz": saved(np.savez, np.zeros((2, 5)))}, "parquet"),
    "npz": ({"train.npz": NPZ}, "npz"),
    "npz and features": ({"train.npz": NPZ, "features.npy": FEATURES}, "npz"),
    "npy": (NPY, "npy"),
    "npy and a table": ({**NPY, "notes.csv": b""}, "npy"),
    "WebDataset": ({"train-000000.tar": SHARD}, "webdataset"),
    "WebDataset and a table": ({"train-000000.tar": SHARD, "stats.csv": b""}, "webdataset"),
    "WebDataset and a folder": ({"train-000000.tar": SHARD, "logs/a.txt": b"x"}, "webdataset"),
    "CVAT": (below("images", LOOSE) | {"annotations.xml": CVAT}, "cvat"),
    "CVAT and a table": (below("images", LOOSE) | {"annotations.xml": CVAT, "notes.csv": b"a,b\n1,2\n"}, "cvat"),
    "WebDataset in folders": (below("train", {"0.tar": SHARD}) | below("val", {"0.tar": SHARD}), "webdataset"),
}

STRAY: dict[str, Tree] = {
    "README": {"README.md": b"# pets"},
    "text": {"notes.txt": b"cat 1\ndog 2\n"},
    "class names": {"classes.txt": b"cat\ndog\n"},
    "settings": {"config.json": b'{"a": 1}', "broken.json": b"{"},
    "empty table": {"notes.csv": b""},
    "empty metadata": {"metadata.csv": b"\n"},
    "empty JSON lines": {"log.jsonl": b""},
    "damaged JSON lines": {"log.jsonl": b"{"},
    "table in Latin-1": {"notes.csv": "name;größe\nä;1\n".encode("latin-1")},
    "table in UTF-16": {"notes.csv": "name,size\nx,1\n".encode("utf-16")},
    "damaged table": {"notes.csv": b'name,id\n"x,1\n'},
    "table of losses": {"results.csv": b"epoch,loss\n1,0.5\n"},
    "table of files": {"files.csv": b"filename,author\nreadme.md,me\n"},
    "long line": {"notes.csv": b"x" * 70_000},
    "features": {"features.npy": FEATURES, "broken.npy": b"x"},
    "table of Parquet": {"table.parquet": NO_IMAGES},
    "XML": {"a.xml": b"<a/>", "b.xml": b"<annotations>", "c.xml": b"not XML"},
    "archive": {"old.zip": b"PK\x05\x06" + bytes(18), "x.gz": b"\x1f\x8b"},
    "pickle": {"cache.pkl": pickle.dumps({})},
    "other binaries": {"x.bin": b"x", "x.mat": b"x"},
}

REFUSED: dict[str, tuple[Tree, tuple[str, ...]]] = {
    "two CIFARs": ({**CIFAR, **CIFAR_100}, ("several datasets", "pass the path of one")),
    "CIFAR and MNIST of torchvision": ({**CIFAR, **below("MNIST/raw", MNIST)}, ("cifar and mnist", "--input-format")),
    "npz and Parquet": ({"train.npz": NPZ, "train.parquet": PARQUET}, ("parquet and npz", "--input-format")),
    "npz and npy": ({"train.npz": NPZ, **NPY}, ("npz and npy", "--input-format")),
    "MNIST as CSV and classes": ({**CLASSES, "train.csv": PIXELS}, ("mnist_csv and imagenet", "--input-format")),
    "images of COCO": (
        images("images/1.png") | {"annotations/a.json": b"{}"},
        ("'images'", "--input-format image_dir"),
    ),
    "a list of other images": (images("images/1.png") | {"train.txt": b"2.png 0\n"}, ("train.txt", "--input-format")),
    "only splits": (images("train/1.png", "test/1.png"), ("'test', 'train'", "--input-format image_dir")),
    "a table of labels in Latin-1": (
        {**CLASSES, "labels.csv": "path,label\ncat/1.png,für\n".encode("latin-1")},
        ("labels.csv: line 2: is not UTF-8", "--input-format"),
    ),
    "a table of labels in UTF-16": (
        {**LOOSE, "labels.csv": "file,label\n1.png,x\n".encode("utf-16")},
        ("labels.csv: line 1: is not UTF-8", "--input-format"),
    ),
    "a damaged table of labels": ({**LOOSE, "a.csv": b'id,label\n"1,x\n'}, ("a.csv: line 2: is not", "--input-format")),
    "labels of other images": (
        {**LOOSE, "a.csv": b"id,label\nbob,3\n"},
        ("a.csv: no image", "--input-format image_dir"),
    ),
    "a damaged Parquet file": ({"train.parquet": b"PAR1"}, ("train.parquet: is damaged",)),
    "Parquet without images": ({"a.parquet": NO_IMAGES}, ("no known format", "its columns are 'a'", "--input-format")),
    "only text": ({"README.md": b"#"}, ("no known format", "1 .md", "--input-format")),
}


def answer(tree: Tree, place: Path) -> str | None:
    """The format of a tree, or the error of reading it."""
    folder = str(write_tree(place / "in", tree))
    try:
        found = detect_format(folder, str(place))
        find_catalog(folder, None, str(place))
    except InputError as error:
        return str(error)
    return found


@pytest.mark.parametrize("case", FOUND)
def test_trees_are_read_as_what_they_are(case: str, tmp_path: Path) -> None:
    tree, name = FOUND[case]
    assert answer(tree, tmp_path) == name


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name in ("imagenet", "imagenet_with_subset_dirs", "image_dir", "image_csv")
        for case in STRAY
        if (name, case) != ("image_dir", "table of files")  # which may be the table of these images
    ],
)
def test_a_stray_file_changes_nothing(name: str, case: str, tmp_path: Path) -> None:
    table = {"list.csv": b"file_name,label\n1.png,x\n2.png,y\n"}
    trees = {"imagenet": CLASSES, "imagenet_with_subset_dirs": SUBSETS, "image_dir": LOOSE, "image_csv": LOOSE | table}
    assert answer({**trees[name], **STRAY[case]}, tmp_path) == name


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_a_guess_is_refused_with_a_way_out(case: str, tmp_path: Path) -> None:
    tree, words = REFUSED[case]
    found = str(answer(tree, tmp_path))
    assert found.startswith(str(tmp_path / "in"))
    assert len(found.splitlines()) == 1
    for word in words:
        assert word in found


@pytest.mark.parametrize(("tree", "name"), [(SUBSETS, "imagenet_with_subset_dirs"), (TINY, "tiny_imagenet")])
def test_a_guess_names_the_folder_that_would_have_labels(tree: Tree, name: str, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", below("set", tree) | {"notes.md": b"two sets", "sketch.png": PNG})
    catalog = find_catalog(str(folder), None, str(tmp_path))
    assert catalog.format == "image_dir"
    hint = f"; {folder}/set alone would be read as {name} with its labels: pass that"
    assert [notice for notice in catalog.notices if notice.endswith(hint)]


def test_a_table_that_is_ignored_is_reported(tmp_path: Path) -> None:
    for name, tree, notice in (
        ("image_csv", {**KAGGLE, "notes.csv": b""}, "notes.csv: line 1: is empty; expected a header with names of columns; ignored"),
        ("imagenet", {**CLASSES, "notes.csv": b""}, "ignored 1 path other than images in a class folder, such as {}/notes.csv"),
        ("mnist_csv", {"train.csv": PIXELS, "notes.csv": b"a\n"}, "ignored 1 CSV file without pixels, such as {}/notes.csv"),
    ):  # fmt: skip
        folder = write_tree(tmp_path / name, tree)
        catalog = find_catalog(str(folder), None, str(tmp_path))
        assert any(notice.format(folder) in each for each in catalog.notices), catalog.notices
        assert "notes" not in " ".join(file.subset for file in catalog.files)
