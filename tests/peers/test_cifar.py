"""What torchvision, Keras, Datumaro and Ultralytics find in the datasets written: run in their own environment (`make test-peers`)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import ConvertOptions, Summary, convert, make_sample
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.peers import attempt, found_by
from tests.helpers.reading import batch_names, cifar_rows, unpickled
from tests.peers.digest import Row, digest_rows, digest_values

READERS = ["torchvision", "keras", "datumaro"]
KINDS = ["cifar10", "cifar100"]
SPLITS = {"data_batch": "train", "test_batch": "test"}

Digests = dict[str, dict[str, Any]]


@dataclass
class Expected:
    """A dataset as it must look: rows as `cifar_rows` gives them, by subset, in order.

    Attributes:
        subsets: (file name, label, coarse label, pixels planar or None) of every row.
        classes: names of the classes.
        superclasses: names of the superclasses; empty for CIFAR-10.
        sizes: (H, W) of the rows by file name, where it is not 32 x 32.
    """

    subsets: dict[str, list[tuple[Any, ...]]]
    classes: list[str]
    superclasses: list[str]
    sizes: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, folder: Path) -> Expected:
        """What the files of a directory hold, by Python's own unpickler."""
        subsets = {name: cifar_rows(folder, [name]) for name in batch_names(folder)}
        if (folder / "batches.meta").exists():
            return cls(subsets, unpickled(folder / "batches.meta")["label_names"], [], {})
        meta = unpickled(folder / "meta")
        return cls(subsets, meta["fine_label_names"], meta["coarse_label_names"], {})

    def digests(self, reader: str) -> Digests:
        """What a reader must print for it."""
        if reader == "torchvision":
            return self._torchvision()
        return {name: getattr(self, f"_{reader}")(rows) for name, rows in self.subsets.items()}

    def _torchvision(self) -> Digests:
        splits: dict[str, list[tuple[Any, ...]]] = {}
        for name, rows in self.subsets.items():
            splits.setdefault("test" if name.startswith("test") else "train", []).extend(rows)
        return {name: self._rows(rows) | {"classes": self.classes} for name, rows in splits.items()}

    def _keras(self, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
        coarse = {"coarse": digest_values([row[2] for row in rows])} if self.superclasses else {}
        return self._rows(rows) | coarse

    def _datumaro(self, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
        # Datumaro knows a class' superclass only through rows, and has one table for all subsets.
        every = [row for rows in self.subsets.values() for row in rows if row[2] is not None]
        return {
            **self._rows(rows),
            "classes": self.classes,
            "parents": {self.classes[label]: self.superclasses[coarse] for _, label, coarse, _ in every},
            "names": digest_values([os.path.splitext(row[0])[0] for row in rows]),
        }

    def _rows(self, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
        return digest_rows(self._row(row) for row in rows)

    def _row(self, row: tuple[Any, ...]) -> Row:
        name, label, _, pixels = row
        if pixels is None:
            return label, None
        height, width = self.sizes.get(name, (32, 32))
        return label, np.frombuffer(pixels, np.uint8).reshape(3, height, width).transpose(1, 2, 0)


def read(reader: str, folder: Path) -> Digests:
    """What a reader finds in a directory."""
    # Ultralytics writes its settings beside the folder, and must not look for what is new.
    settings = {"YOLO_CONFIG_DIR": str(folder.parent), "YOLO_OFFLINE": "true"}
    digests: Digests = found_by("read.py", reader, folder, **settings)
    return digests


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest) -> Path:
    """A sample set of each kind."""
    path: Path = request.getfixturevalue(request.param)
    return path


def converted(source: Path, output: Path, **options: Any) -> Summary:
    return convert(ConvertOptions(str(source), str(output), "cifar", **{"save_images": True, "workers": 1, **options}))


def write_set(folder: Path, meta: dict[str, Any], batches: dict[str, dict[str, Any]], protocol: int = 4) -> Path:
    """A dataset as somebody's Python 3 script would write it."""
    folder.mkdir()
    meta_name = "meta" if "fine_label_names" in meta else "batches.meta"
    for name, content in {meta_name: meta, **batches}.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder


def python3_set(source: Path, folder: Path) -> Path:
    """The same dataset in a style that only torchvision and Datumaro read."""
    meta_name = "meta" if (source / "meta").exists() else "batches.meta"
    batches = {name: unpickled(source / name) for name in batch_names(source)}
    return write_set(folder, unpickled(source / meta_name), batches)


def noise(rows: int, height: int = 32, width: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(rows).integers(0, 256, (rows, 3 * height * width), dtype=np.uint8)


@pytest.mark.parametrize("reader", READERS)
def test_an_unchanged_set_reads_as_its_source(reader: str, source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "out")
    assert read(reader, tmp_path / "out") == Expected.of(source).digests(reader)


@pytest.mark.parametrize("reader", READERS)
def test_a_set_from_python_3_reads_as_its_source(reader: str, source: Path, tmp_path: Path) -> None:
    converted(python3_set(source, tmp_path / "source"), tmp_path / "out")
    # Every file is written anew here, not copied.
    assert read(reader, tmp_path / "out") == Expected.of(source).digests(reader)


@pytest.mark.parametrize("reader", READERS)
def test_packed_batches_hold_the_rows_of_their_split_in_order(reader: str, source: Path, tmp_path: Path) -> None:
    # Datumaro must find every class of CIFAR-100 in every file; see the test of what it refuses.
    size = 1003 if source.name == "cifar100" else 150
    converted(source, tmp_path / "out", images_per_batch=size)
    expected = Expected.of(source)
    packed: dict[str, list[tuple[Any, ...]]] = {}
    for split in ("data_batch", "train", "test_batch", "test"):
        names = [name for name in expected.subsets if name.rstrip("_0123456789") == split]
        rows = [row for name in names for row in expected.subsets[name]]
        files = [rows[at : at + size] for at in range(0, len(rows), size)]
        # A subset that fits into one file keeps its name.
        packed |= {split: rows} if len(files) == 1 else _numbered(split, files)
    expected.subsets = packed
    assert read(reader, tmp_path / "out") == expected.digests(reader)


@pytest.mark.parametrize("reader", READERS)
def test_selected_and_renamed_classes_of_cifar10(reader: str, cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", labels=("dog", "cat", "ship"), remaps=("dog:Собака", "ship:truck"))
    expected = Expected.of(cifar10)
    dog, cat, ship, truck = (expected.classes.index(name) for name in ("dog", "cat", "ship", "truck"))
    becomes = {dog: dog, cat: cat, ship: truck}
    expected.subsets = {
        name: [(file, becomes[label], coarse, pixels) for file, label, coarse, pixels in rows if label in becomes]
        for name, rows in expected.subsets.items()
    }
    expected.classes[dog] = "Собака"
    assert read(reader, tmp_path / "out") == expected.digests(reader)


@pytest.mark.parametrize("reader", READERS)
def test_a_selected_superclass_and_classes_moved_to_another(reader: str, cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", labels=("people",), remaps=("girl:tiger", "boy:мальчик"))
    expected = Expected.of(cifar100)
    people, carnivores = map(expected.superclasses.index, ("people", "large_carnivores"))
    girl, boy, tiger = map(expected.classes.index, ("girl", "boy", "tiger"))
    expected.subsets = {
        name: [
            (file, *((tiger, carnivores) if label == girl else (label, coarse)), pixels)
            for file, label, coarse, pixels in rows
            if coarse == people
        ]
        for name, rows in expected.subsets.items()
    }
    expected.classes[boy] = "мальчик"
    assert read(reader, tmp_path / "out") == expected.digests(reader)


@pytest.mark.parametrize("reader", READERS)
def test_names_of_any_language_and_rows_without_label(reader: str, tmp_path: Path) -> None:
    rows = {
        "data": noise(5),
        "labels": [1, None, 0, 2, None],
        "filenames": ["кошка 1.png", "b.png", "ёж.png", "猫.png", "na\u00efve.png"],
    }
    names = ["Кошка", "dog", "ähnlich"]
    source = write_set(tmp_path / "in", {"label_names": names}, {"обучение": rows, "test": rows}, protocol=5)
    converted(source, tmp_path / "out")
    assert read(reader, tmp_path / "out") == Expected.of(source).digests(reader)


def test_images_of_mixed_sizes_and_rows_without_image(tmp_path: Path) -> None:
    # Datumaro alone: torchvision and Keras reshape to 32 x 32.
    sizes = {"a.png": (32, 32), "b.png": (5, 9), "none.png": (32, 32), "c.png": (40, 1)}
    data = np.empty(4, dtype=object)
    data[:] = [None if "none" in name else noise(1, *size)[0] for name, size in sizes.items()]
    mixed = {"data": data, "labels": [0, None, 1, 1], "filenames": list(sizes), "image_sizes": list(sizes.values())}
    equal = {"data": noise(2, 8, 6), "labels": [1, 0], "filenames": ["d.png", "e.png"], "image_sizes": [(8, 6)] * 2}
    source = write_set(tmp_path / "in", {"label_names": ["x", "y"]}, {"mixed": mixed, "equal": equal})
    converted(source, tmp_path / "out")
    expected = Expected.of(source)
    expected.sizes = {**sizes, "d.png": (8, 6), "e.png": (8, 6)}
    assert read("datumaro", tmp_path / "out") == expected.digests("datumaro")


def test_labels_without_images(source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "out", save_images=False)
    expected = Expected.of(source)
    expected.subsets = {name: [(*row[:3], None) for row in rows] for name, rows in expected.subsets.items()}
    assert read("datumaro", tmp_path / "out") == expected.digests("datumaro")


def test_datumaro_refuses_a_cifar100_class_that_a_subset_lacks_and_a_notice_says_so(
    cifar100: Path, tmp_path: Path
) -> None:
    train = unpickled(cifar100 / "train")
    present = train["fine_labels"][0]
    batches = {"train": train, "test": _rows_where(unpickled(cifar100 / "test"), lambda label: label != present)}
    source = write_set(tmp_path / "in", unpickled(cifar100 / "meta"), batches)
    summary = converted(source, tmp_path / "out")
    # Its own doing: the same happens to the source, which it can read otherwise.
    for folder in (source, tmp_path / "out"):
        done = attempt("read.py", "datumaro", folder)
        assert done.returncode != 0
        assert "categor" in done.stderr.lower()
    assert any("Datumaro" in notice for notice in summary.notices), summary.notices


def folders_expected(source: Path, target: str) -> Digests:
    """What a reader must print for folders of images: rows in the order of their names, and label ids of the source."""
    expected = Expected.of(source)
    rows: dict[str, dict[str, Row]] = {}
    for name, found in expected.subsets.items():
        subset = SPLITS.get(name.rstrip("_0123456789"), name) if target == "yolo" else name
        for row in found:
            folder = "no_label" if row[1] is None else expected.classes[row[1]]
            path = f"{folder}/{os.path.splitext(row[0])[0]}"
            rows.setdefault("default" if target == "imagenet" else subset, {})[path] = expected._row(row)
    return {
        subset: {
            **digest_rows(named[name] for name in sorted(named)),
            "classes": expected.classes,
            "names": digest_values(sorted(named)),
        }
        for subset, named in rows.items()
    }


@pytest.mark.parametrize("reader", ["torchvision", "datumaro"])
@pytest.mark.parametrize("target", ["imagenet", "imagenet_with_subset_dirs"])
def test_folders_of_images_read_as_their_source(reader: str, target: str, source: Path, tmp_path: Path) -> None:
    convert(ConvertOptions(str(source), str(tmp_path / "out"), target, workers=1))
    assert read(f"{reader} {target}", tmp_path / "out") == folders_expected(source, target)


def test_ultralytics_finds_every_pixel_and_class_of_6000_images(tmp_path: Path) -> None:
    make_sample(str(tmp_path / "in"), images=6000)
    quickly(tmp_path / "in", tmp_path / "out", "yolo")
    found, wanted = read("ultralytics", tmp_path / "out"), folders_expected(tmp_path / "in", "yolo")
    assert {split: digests["rows"] for split, digests in found.items()} == {"train": 5000, "test": 1000}
    assert found == wanted


def test_ultralytics_finds_three_splits_without_images_of_some_classes_and_skips_small_images(tmp_path: Path) -> None:
    sizes = {"train/cat/a": (10, 12), "train/dog/b": (32, 32), "train/dog/small": (9, 40), "val/eel/c": (15, 11)}
    sizes |= {"test/cat/d": (16, 16), "test/eel/e": (20, 20)}
    gray = {name: picture(at, *size, channels=1) for at, (name, size) in enumerate(sizes.items())}
    quickly(
        write_tree(tmp_path / "in", {f"{name}.png": encoded(image) for name, image in gray.items()}),
        tmp_path / "out",
        "yolo",
    )
    classes = ["cat", "dog", "eel"]
    wanted = {}
    for split in ("train", "val", "test"):
        names = [name.partition("/")[2] for name in sorted(sizes) if name.startswith(split) and "small" not in name]
        rows = [
            (classes.index(name[:3]), np.repeat(gray[f"{split}/{name}"], 3, axis=0).transpose(1, 2, 0))
            for name in names
        ]
        wanted[split] = {**digest_rows(rows), "classes": classes, "names": digest_values(names)}
    assert read("ultralytics", tmp_path / "out") == wanted


@pytest.mark.parametrize("target", ["imagenet", "imagenet_with_subset_dirs"])
def test_datumaro_finds_unlabelled_images_and_names_of_any_language(target: str, tmp_path: Path) -> None:
    names = ["кошка 1.png", "b.png", "ёж.png", "猫.png", "na\u00efve.png"]
    rows = {
        subset: {"data": noise(5), "labels": [1, None, 0, 2, 1], "filenames": [f"{subset}{name}" for name in names]}
        for subset in ("обучение", "test")
    }
    source = write_set(tmp_path / "in", {"label_names": ["dog", "ähnlich", "Кошка"]}, rows)
    convert(ConvertOptions(str(source), str(tmp_path / "out"), target, workers=1))
    assert read(f"datumaro {target}", tmp_path / "out") == folders_expected(source, target)


def test_torchvision_and_datumaro_refuse_folders_of_classes_without_images_and_give_other_ids_without(
    cifar10: Path, tmp_path: Path
) -> None:
    options = {"labels": ("dog", "ship"), "workers": 1}
    kept = convert(ConvertOptions(str(cifar10), str(tmp_path / "kept"), "imagenet", keep_empty_classes=True, **options))  # type: ignore[arg-type]
    assert ["allow_empty=True is set, Datumaro rejects them" in notice for notice in kept.notices].count(True) == 1
    refusals = {"torchvision": "Found no valid file for the classes airplane", "datumaro": "DatasetNotFoundError"}
    for reader, refusal in refusals.items():
        done = attempt("read.py", f"{reader} imagenet", tmp_path / "kept")
        assert done.returncode != 0
        assert refusal in done.stderr
    summary = convert(ConvertOptions(str(cifar10), str(tmp_path / "left"), "imagenet", **options))  # type: ignore[arg-type]
    assert any("torchvision" in notice and "other label ids" in notice for notice in summary.notices)
    for reader in ("torchvision", "datumaro"):
        assert read(f"{reader} imagenet", tmp_path / "left")["default"]["classes"] == ["dog", "ship"]


def _numbered(split: str, files: list[list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    return {f"{split}_{number}": rows for number, rows in enumerate(files, 1)}


def _rows_where(batch: dict[str, Any], keep: Callable[[int], bool]) -> dict[str, Any]:
    rows = [row for row, label in enumerate(batch["fine_labels"]) if keep(label)]
    lists = {name: [batch[name][row] for row in rows] for name in ("filenames", "fine_labels", "coarse_labels")}
    return batch | lists | {"data": batch["data"][rows]}
