"""Downsampled ImageNet: pickles and `.npz` files as its authors' scripts write them."""

from __future__ import annotations

import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.downsampled_imagenet import DownsampledImagenetSource
from beam_cifar.formats.imagenet import class_folders
from beam_cifar.formats.registry import detect_format
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, contents, images, manifest, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import cifar_rows, unpickled

NAMES = "n02119789 1 kit_fox\nn02012849 2 crane\nn03126707 3 crane\nn02110185 1000 Siberian_husky\n"
FEW = "n02119789 1 kit_fox\nn02012849 2 crane\nn03126707 3 crane\n"


def rows(count: int, seed: int = 0, side: int = 16, **more: Any) -> dict[str, Any]:
    """What one file holds."""
    data = np.stack([picture(100 * seed + row, side, side).reshape(-1) for row in range(count)])
    return {"data": data, "labels": [row % 3 + 1 for row in range(count)], **more}


def write_set(folder: Path, files: dict[str, dict[str, Any]], names: str = "", protocol: int = 2) -> Path:
    """A dataset as the scripts write it, with Python 3's pickler."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    if names:
        (folder / "map_clsloc.txt").write_text(names, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Any]]:
    """Batches 1, 2 and 10, and the validation set."""
    found = {f"train_data_batch_{number}": rows(4, number) for number in (1, 2, 10)}
    for content in found.values():
        content["mean"] = content["data"].mean(axis=0)
    return {**found, "val_data": rows(5, 99)}


@pytest.fixture(scope="module")
def source(files: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("source") / "in", files, FEW)


def test_rows_labels_and_names_are_read_in_natural_order(
    source: Path, files: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert detect_format(str(source), str(tmp_path)) == "downsampled_imagenet"
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    assert list(manifest(tmp_path / "out")["subsets"]) == [*files]
    for name, content in files.items():
        pixels = [row.tobytes() for row in content["data"]]
        labels = [label - 1 for label in content["labels"]]
        names = [f"{name}_{row}.png" for row in range(len(labels))]
        assert cifar_rows(tmp_path / "out", [name]) == list(zip(names, labels, [None] * 5, pixels, strict=False))
    # Two of ImageNet's classes are called crane, two maillot.
    names = unpickled(tmp_path / "out" / "batches.meta")["label_names"]
    assert names == ["kit_fox", "crane_n02012849", "crane_n03126707"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("as_array", [False, True])
def test_every_protocol_and_both_kinds_of_labels_are_read_alike(protocol: int, as_array: bool, tmp_path: Path) -> None:
    content = rows(4)
    content["mean"] = content["data"].mean(axis=0)
    labels = [1, 300, 1000, 70]
    content["labels"] = np.array(labels) if as_array else labels
    source = write_set(tmp_path / "in", {"train_data_batch_1": content}, protocol=protocol)
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    found = cifar_rows(tmp_path / "out")
    assert [row[1] for row in found] == [0, 299, 999, 69]
    assert b"".join(row[3] for row in found) == content["data"].tobytes()


def test_without_names_classes_are_called_by_numbers_that_sort(tmp_path: Path) -> None:
    source = write_set(tmp_path / "in", {"val_data": rows(3)})
    quickly(source, tmp_path / "out", "cifar")
    names = unpickled(tmp_path / "out" / "batches.meta")["label_names"]
    assert names == [f"{number:04d}" for number in range(1, 1001)]
    assert names == sorted(names)


def test_folders_are_called_as_the_classes(source: Path, files: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "imagenet")
    folders = class_folders(DownsampledImagenetSource().describe(str(source), "").labels)
    assert images(tmp_path / "out") == {
        f"{folders[label - 1]}/{name}_{row}.png": content["data"][row].tobytes()
        for name, content in files.items()
        for row, label in enumerate(content["labels"])
    }


def test_batches_belong_to_the_splits_train_and_val(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "split", "cifar", subset_names="split", save_images=True)
    assert manifest(tmp_path / "split")["subsets"] == {"train": 12, "val": 5}
    quickly(source, tmp_path / "parquet", "parquet")
    assert manifest(tmp_path / "parquet")["subsets"] == {"train": 12, "val": 5}
    quickly(source, tmp_path / "val", "cifar", subsets=("val",))
    assert manifest(tmp_path / "val")["subsets"] == {"val_data": 5}
    with pytest.raises(UsageError, match="unknown subset 'test'; known: 'train_data_batch_1', 'train_data_batch_2'"):
        quickly(source, tmp_path / "test", "cifar", subsets=("test",))


@pytest.mark.parametrize("packed", [False, True])
def test_npz_files_hold_the_same(packed: bool, source: Path, files: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (np.savez_compressed if packed else np.savez)(tmp_path / "in" / f"{name}.npz", **content)
    (tmp_path / "in" / "map_clsloc.txt").write_text(FEW)
    for name, path in {"pickles": source, "npz": tmp_path / "in"}.items():
        quickly(path, tmp_path / name, "cifar", save_images=True)
    assert contents(tmp_path / "npz") == contents(tmp_path / "pickles")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_archives_are_read_as_they_are(kind: str, source: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / f"all.{kind}", "w:gz" if kind.endswith("gz") else "w") as archive:
        archive.add(source, "Imagenet16")
    quickly(tmp_path / f"all.{kind}", tmp_path / "from archive", "cifar", save_images=True)
    quickly(source, tmp_path / "from folder", "cifar", save_images=True)
    assert contents(tmp_path / "from archive") == contents(tmp_path / "from folder")


def test_folders_of_the_downloads_are_read_together(files: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    train = {name: content for name, content in files.items() if name != "val_data"}
    write_set(tmp_path / "in" / "Imagenet16_train", train)
    write_set(tmp_path / "in" / "Imagenet16_val", {"val_data": files["val_data"]})
    quickly(tmp_path / "in", tmp_path / "out", "cifar")
    assert manifest(tmp_path / "out")["subsets"] == {name: len(content["labels"]) for name, content in files.items()}


def test_no_pixels_are_read_for_a_summary_and_few_for_few_rows(tmp_path: Path) -> None:
    data = np.zeros((4000, 3 * 64 * 64), np.uint8)
    content = {"data": data, "labels": list(range(1, 1001)) * 4, "mean": np.zeros(3 * 64 * 64)}
    folder = write_set(tmp_path / "in", {"train_data_batch_1": content})
    del data, content
    source = DownsampledImagenetSource()
    tracemalloc.start()
    try:
        catalog = source.describe(str(folder), str(tmp_path))
        summary = scan(source, catalog.files[0], catalog.labels, Wanted(sizes=True))
        with source.open_rows(catalog.files[0], catalog.labels) as found:
            assert found.take([0, 3999]).column("label").to_pylist() == [0, 999]
            assert found.table(1000, 1050).column("height").to_pylist() == [64] * 50
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (summary.rows, summary.size, summary.image_bytes) == (4000, (64, 64), 4000 * 3 * 64 * 64)
    assert peak < 4 << 20


# --- refused --------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch ran",)


def changed(**changes: Any) -> bytes:
    """A file of three rows with some keys changed; `...` drops one."""
    content = {**rows(3), **changes}
    return pickle.dumps({key: value for key, value in content.items() if value is not ...}, protocol=2)


BAD: dict[str, tuple[bytes, str]] = {
    "label 0": (changed(labels=[1, 0, 2]), "row 1: label 0 is outside the label table, which has 1 to 1000"),
    "label 1001": (changed(labels=[1, 2, 1001]), "row 2: label 1001 is outside"),
    "a class name": (changed(labels=[1, 2, "cat"]), "row 2: label is 'cat'; expected a number"),
    "no label": (changed(labels=[1, None, 2]), "row 1: label is None"),
    "labels missing": (changed(labels=...), "has no 'labels'"),
    "fine labels": (changed(labels=..., fine_labels=[1, 2, 3]), "has no 'labels'"),
    "two labels": (changed(labels=[1, 2]), "'labels' has 2 entries, but 'data' has 3 rows"),
    "images missing": (changed(data=...), "'data' is missing or of mixed sizes"),
    "no square": (changed(data=np.zeros((3, 3 * 15), np.uint8)), "45 bytes; expected 3 x S x S"),
    "floats": (changed(data=np.zeros((3, 12))), "dtype <f8; expected uint8"),
    "a call in mean": (changed(mean=Evil()), "calls posix.system; expected only"),
    "a call in an array": (changed(mean=np.array([Evil()])), "calls posix.system"),
    "a list": (pickle.dumps([1, 2]), "contains a list; expected a dictionary"),
    "cut short": (changed()[:-40], "truncated|ends with"),
    "no pickle": (b"PK\x03\x04" + bytes(50), "not a pickle but a zip archive"),
    "empty": (b"", "the file is empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_and_hostile_files_are_refused_with_file_and_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, words = BAD[kind]
    write_tree(tmp_path / "in", {"train_data_batch_1": changed(), "train_data_batch_2": data})
    with pytest.raises(InputError, match=words) as caught:
        quickly(tmp_path / "in", tmp_path / "out", "cifar")
    assert "in/train_data_batch_2: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"n01 1 fox\nn02 one crane\n", "line 2: found 'n02 one crane'; expected <wnid> <number> <name>"),
        (b"n01 1 fox\nn02 1 crane\n", "line 2: found 'n02 1 crane'"),
        (NAMES.encode(), "class numbers must be 1 to 4, each exactly once"),
        (b"n01 1 \xff\n", "is not valid UTF-8"),
        (b"\n" * ((1 << 20) + 1), "1048577 bytes; at most 1048576 are supported"),
    ],
)
def test_a_damaged_list_of_names_is_refused(text: bytes, words: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"val_data": changed(), "map_clsloc.txt": text})
    with pytest.raises(InputError, match=words) as caught:
        quickly(tmp_path / "in", tmp_path / "out", "cifar")
    assert "in/map_clsloc.txt: " in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"data": np.zeros((3, 12), np.uint8)}, "arrays found: data; expected 'data' and 'labels'"),
        ({"data": np.zeros((3, 13), np.uint8), "labels": [1, 2, 3]}, "expected uint8 N x 3.S.S in C order"),
        ({"data": np.zeros((3, 12)), "labels": [1, 2, 3]}, "dtype float64"),
        ({"data": np.zeros((3, 12), np.uint8), "labels": [1, 2]}, "one integer for each of 3 images"),
        ({"data": np.zeros((3, 12), np.uint8), "labels": [1, 2, 0]}, "row 2: label 0 is outside"),
    ],
)
def test_npz_files_of_another_shape_are_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "val_data.npz", **arrays)
    with pytest.raises(InputError, match=words):
        quickly(tmp_path, tmp_path.with_name(tmp_path.name + "_out"), "cifar", input_format="downsampled_imagenet")


def test_the_same_rows_in_two_files_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "in", {"val_data": rows(3)})
    np.savez(tmp_path / "in" / "val_data.npz", **rows(3))
    with pytest.raises(InputError, match="val_data.npz: .*in/val_data has the same rows"):
        quickly(tmp_path / "in", tmp_path / "out", "cifar")


def test_npz_files_in_an_archive_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "val_data.npz", **rows(3))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "val_data.npz", "val_data.npz")
    with pytest.raises(InputError, match="files in an archive; unpack it"):
        quickly(tmp_path / "a.tar", tmp_path / "out", "cifar")


def test_other_data_sets_are_not_taken_for_it(tmp_path: Path) -> None:
    cifar = write_cifar(tmp_path / "cifar", {"train_data_batch_1": batch(["a.png"], [0])})
    tree = write_tree(tmp_path / "tree", {"val_data/a.png": b"", "other/val_data": changed(), "val_data.txt": b""})
    source = DownsampledImagenetSource()
    assert not any(source.looks_right(str(path), str(tmp_path)) for path in (cifar, tree, tmp_path))
    assert detect_format(str(cifar), str(tmp_path)) == "cifar"
