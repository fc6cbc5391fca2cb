"""Small datasets in formats that are only read, each by its name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.matlab import mat_file

CLASSES = ("dog", "cat", "sea lion", "поезд")


def write_downsampled(folder: Path) -> Path:
    folder.mkdir()
    for seed, name in enumerate(("train_data_batch_1", "train_data_batch_2", "val_data")):
        data = np.stack([picture(50 * seed + row, 16, 16).reshape(-1) for row in range(5)])
        content: dict[str, Any] = {"data": data, "labels": [1, 2, 3, 1, 3]}
        if name != "val_data":
            content["mean"] = data.mean(axis=0)
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "map_clsloc.txt").write_text("n1 1 cat\nn2 2 dog\nn3 3 ship\n")
    return folder


def write_tiny(folder: Path) -> Path:
    """Tiny ImageNet without `test`, whose images have no labels."""
    files = {f"train/n{row % 3}/images/n{row % 3}_{row}.JPEG": encoded(picture(row), "JPEG") for row in range(6)}
    files |= {f"val/images/val_{row}.JPEG": encoded(picture(row + 9), "JPEG") for row in range(3)}
    lines = "".join(f"val_{row}.JPEG\tn{2 - row}\t0\t0\t31\t31\n" for row in range(3))
    texts = {"val/val_annotations.txt": lines, "wnids.txt": "n2\nn0\nn1\n", "words.txt": "n0\tcat\nn1\tdog, wolf\n"}
    return write_tree(folder, files | {name: text.encode() for name, text in texts.items()})


def write_kaggle_imagenet(folder: Path) -> Path:
    """Kaggle's ImageNet without `test`, whose images have no labels."""
    data = "ILSVRC/Data/CLS-LOC"
    files = {f"{data}/train/n{row % 3}/n{row % 3}_{row}.JPEG": encoded(picture(row), "JPEG") for row in range(6)}
    files |= {f"{data}/val/val_{row}.JPEG": encoded(picture(row + 9), "JPEG") for row in range(3)}
    lines = "".join(f"val_{row},n{2 - row} 0 0 31 31 \n" for row in range(3))
    texts = {"LOC_val_solution.csv": f"ImageId,PredictionString\n{lines}"}
    texts["LOC_synset_mapping.txt"] = "n0 cat\nn1 dog, wolf\nn2 ship\n"
    return write_tree(folder, files | {name: text.encode() for name, text in texts.items()})


def write_npy(folder: Path) -> Path:
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        images = np.stack([picture(50 * seed + row).transpose(1, 2, 0) for row in range(6)])
        np.save(folder / f"x_{name}.npy", images)
        np.save(folder / f"y_{name}.npy", np.arange(6) % 4)
    return folder


def write_table(folder: Path) -> Path:
    """Kaggle's layout of CIFAR-10, with a column of subsets."""
    files = {f"images/{row}.png": encoded(picture(row)) for row in range(6)}
    lines = "".join(f"{row},{('cat', 'dog', 'sea lion')[row % 3]},{('train', 'test')[row // 4]}\n" for row in range(6))
    return write_tree(folder, files | {"labels.csv": f"id,label,split\n{lines}".encode()})


def write_stl10(folder: Path) -> Path:
    images = np.stack([picture(row, 96, 96).transpose(0, 2, 1) for row in range(4)])
    files = {"train_X.bin": images[:3].tobytes(), "train_y.bin": bytes([1, 10, 2])}
    return write_tree(folder, {**files, "test_X.bin": images[3:].tobytes(), "test_y.bin": bytes([3])})


def write_svhn(folder: Path) -> Path:
    images = np.stack([picture(row).transpose(1, 2, 0) for row in range(6)]).transpose(1, 2, 3, 0)
    data = mat_file(packed=True, X=images, y=np.array([[1], [10], [9], [3], [10], [2]], np.uint8))
    return write_tree(folder, {"train_32x32.mat": data, "test_32x32.mat": data})


def write_hf_arrow(folder: Path) -> Path:
    """A `DatasetDict`, as `save_to_disk` of `datasets` writes it."""
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}
    files = {"dataset_dict.json": json.dumps({"splits": ["train", "test"]}).encode()}
    for seed, split in enumerate(("train", "test")):
        images = [{"bytes": encoded(picture(9 * seed + row)), "path": f"{split}{row}.png"} for row in range(6)]
        table, stream = pa.table({"img": images, "label": [row % 4 for row in range(6)]}), pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        files[f"{split}/data-00000-of-00001.arrow"] = bytes(stream.getvalue())
        files[f"{split}/state.json"] = json.dumps(state).encode()
        files[f"{split}/dataset_info.json"] = json.dumps({"features": features}).encode()
    return write_tree(folder, files)


def write_tfds(folder: Path) -> Path:
    batches = {
        name: batch([f"{name}{row}.png" for row in range(6)], [row % 4 for row in range(6)])
        for name in ("train", "test")
    }
    quickly(write_cifar(folder.with_name("of_tfds"), batches, CLASSES), folder, "tfds_tfrecord")
    return folder


READ_ONLY = {
    "downsampled_imagenet": write_downsampled,
    "hf_arrow": write_hf_arrow,
    "image_csv": write_table,
    "imagenet_kaggle": write_kaggle_imagenet,
    "npy": write_npy,
    "tiny_imagenet": write_tiny,
    "stl10": write_stl10,
    "svhn": write_svhn,
    "tfds": write_tfds,
}
