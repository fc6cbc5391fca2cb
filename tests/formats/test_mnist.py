"""MNIST's own format: what is written byte for byte, what is read, and what is refused."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset, storage
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan
from beam_cifar.storage import archives
from tests.helpers.gray import CLASSES, gray, read_back
from tests.helpers.image_trees import (
    Pixels,
    batch,
    contents,
    converted,
    manifest,
    picture,
    quickly,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def idx_images(images: Pixels, count: int | None = None) -> bytes:
    """A file of images, uint8 [N, H, W]."""
    return struct.pack(">IIII", 2051, len(images) if count is None else count, *images.shape[1:]) + images.tobytes()


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">II", 2049, len(labels)) + bytes(labels)


def noise(rows: int, height: int = 28, width: int = 28, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (rows, height, width), dtype=np.uint8)


def write_mnist(folder: Path, images: Pixels, labels: list[int], subset: str = "train") -> Path:
    """A subset as torchvision leaves it, not packed."""
    files = {f"{subset}-images-idx3-ubyte": idx_images(images), f"{subset}-labels-idx1-ubyte": idx_labels(labels)}
    return write_tree(folder, files)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Two training batches and a test batch, with a class that has no rows."""
    batches = {
        name: batch([f"{name}{row}.png" for row in range(rows)], [(row + seed) % 3 for row in range(rows)], seed)
        for seed, (name, rows) in enumerate({"data_batch_1": 5, "data_batch_2": 4, "test_batch": 3}.items())
    }
    return write_cifar(tmp_path / "cifar", batches, CLASSES)


def test_files_are_what_the_format_says(cifar: Path, tmp_path: Path, beam: None) -> None:
    summary = converted(cifar, tmp_path / "out", "mnist")
    files = contents(tmp_path / "out")
    assert set(files) == {f"{name}.gz" for name in ("train-meta", "test-meta")} | {"labels.txt"} | {
        f"{name}-{kind}-ubyte.gz" for name in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }
    batches = {"train": ["data_batch_1", "data_batch_2"], "t10k": ["test_batch"]}
    for name, subsets in batches.items():
        rows = cifar_rows(cifar, subsets)
        images = np.stack([gray(row[3]) for row in rows])
        assert gzip.decompress(files[f"{name}-images-idx3-ubyte.gz"]) == idx_images(images)
        assert gzip.decompress(files[f"{name}-labels-idx1-ubyte.gz"]) == idx_labels([row[1] for row in rows])
    assert files["labels.txt"].decode() == "".join(f"{name}\n" for name in CLASSES)
    assert summary.subsets == {"train": 9, "test": 3}
    assert any("gray" in notice for notice in summary.notices)


def test_gzip_files_are_one_member_without_time_and_name(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist")
    for name, content in contents(tmp_path / "out").items():
        if name.endswith(".gz"):
            assert content[:8] == b"\x1f\x8b\x08\0\0\0\0\0"
            assert int.from_bytes(content[-4:], "little") == len(gzip.decompress(content))


def test_sizes_beside_are_what_datumaro_reads(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist")
    meta = np.frombuffer(gzip.decompress((tmp_path / "out/train-meta.gz").read_bytes()), dtype="<U32")
    assert meta.reshape(9, 2).tolist() == [["32", "32"]] * 9
    converted(cifar, tmp_path / "small", "mnist", resize=(28, 28))
    assert not any("meta" in name for name in contents(tmp_path / "small"))


def test_a_round_trip_keeps_all_but_colour_and_ids(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist")
    rows = read_back(tmp_path / "out", tmp_path)
    batches = {"test": ["test_batch"], "train": ["data_batch_1", "data_batch_2"]}
    expected = [
        (f"{name}_{number}.png", row[1], gray(row[3]).tobytes())
        for name, subsets in batches.items()
        for number, row in enumerate(cifar_rows(cifar, subsets))
    ]
    assert rows == expected
    assert tuple(unpickled(tmp_path / "back/batches.meta")["label_names"]) == CLASSES
    converted(tmp_path / "out", tmp_path / "again", "mnist")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_parts_make_the_same_files(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(cifar, tmp_path / "one", "mnist")
    set_part_bytes(monkeypatch, "mnist", 2 * 3072)
    converted(cifar, tmp_path / "many", "mnist")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_superclasses_are_lost_and_classes_stay(cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", "mnist", limit=50)
    names = unpickled(cifar100 / "meta")["fine_label_names"]
    assert (tmp_path / "out/labels.txt").read_text().splitlines() == names


def test_a_subset_without_rows_keeps_its_files(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist", filter="/item[subset='data_batch_1']")
    images = gzip.decompress((tmp_path / "out/t10k-images-idx3-ubyte.gz").read_bytes())
    assert images == struct.pack(">IIII", 2051, 0, 28, 28)
    assert Dataset.import_from(tmp_path / "out").categories.names == CLASSES
    found = get_source("mnist").describe(str(tmp_path / "out"), str(tmp_path))
    assert [file.subset for file in found.files] == ["test", "train"]


@pytest.mark.parametrize("name", ["t10k", "my set", "T-shirts", "ночь"])
def test_subset_names_survive(name: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {name: batch(["a.png"], [0])})
    converted(source, tmp_path / "out", "mnist")
    found = get_source("mnist").describe(str(tmp_path / "out"), str(tmp_path))
    assert [file.subset for file in found.files] == ["test" if name == "t10k" else name]
    assert manifest(tmp_path / "out")["renamed"].get("subsets") == ({"test": "t10k"} if name == "t10k" else None)


def test_names_that_no_file_can_have_are_escaped(tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(2), [0, 1], "a%2Fb%3F")
    converted(source, tmp_path / "out", "mnist")
    assert "a%2Fb%3F-images-idx3-ubyte.gz" in contents(tmp_path / "out")
    found = get_source("mnist").describe(str(tmp_path / "out"), str(tmp_path))
    assert [file.subset for file in found.files] == ["a/b?"]


@pytest.mark.parametrize("other", ["test", "test_batch", "T10K"])
def test_t10k_does_not_meet_the_test_subset(other: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"t10k": batch(["a.png"], [0]), other: batch(["b.png"], [1])})
    with pytest.raises(UsageError, match=r"would both become 'test'"):
        converted(source, tmp_path / "out", "mnist")


# --- reading what others made ---


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_genuine_files_are_read_packed_or_not(dot: str, packed: bool, tmp_path: Path) -> None:
    images, labels = noise(7), [3, 1, 4, 1, 5, 9, 2]
    files = {f"t10k-images{dot}idx3-ubyte": idx_images(images), f"t10k-labels{dot}idx1-ubyte": idx_labels(labels)}
    made = {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files
    source = write_tree(tmp_path / "in", made)
    assert detect_format(str(source), str(tmp_path)) == "mnist"
    expected = [(f"test_{row}.png", label, images[row].tobytes()) for row, label in enumerate(labels)]
    assert read_back(source, tmp_path) == expected
    assert unpickled(tmp_path / "back/batches.meta")["label_names"] == [str(number) for number in range(10)]


def test_of_a_file_that_is_there_twice_the_unpacked_one_is_read(tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(2), [0, 1])
    write_tree(source, {"train-images-idx3-ubyte.gz": b"damaged", "train-labels-idx1-ubyte.gz": b"damaged"})
    assert [row[1] for row in read_back(source, tmp_path)] == [0, 1]


@pytest.mark.parametrize(("largest", "classes"), [(3, 10), (61, 62), (255, 256)])
def test_without_names_classes_are_numbers_up_to_the_largest(largest: int, classes: int, tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(2), [0, largest])
    write_mnist(source, noise(1), [1], "test")
    assert Dataset.import_from(source).categories.names == tuple(map(str, range(classes)))


@pytest.mark.parametrize("folder", ["MNIST", "MNIST/raw", "a/b"])
def test_files_are_found_one_or_two_folders_down(folder: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "in" / folder, noise(2), [0, 7])
    write_tree(tmp_path / "in", {"read.me": b"", "other/x.txt": b""})
    assert detect_format(str(tmp_path / "in"), str(tmp_path)) == "mnist"
    assert read_back(tmp_path / "in", tmp_path) == [
        (f"train_{row}.png", label, noise(2)[row].tobytes()) for row, label in enumerate([0, 7])
    ]


@pytest.mark.parametrize("plain", [False, True])
def test_files_in_folders_of_their_names_are_read_as_kaggle_has_them(plain: bool, tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(2), [0, 7])
    for path in list(source.iterdir()):
        data = path.read_bytes()
        path.unlink()
        (source / path.name).mkdir()
        (source / path.name / path.name).write_bytes(data)
        if plain:
            (source / path.name.replace("-idx", ".idx")).write_bytes(data)
    assert detect_format(str(source), str(tmp_path)) == "mnist"
    assert [row[1:] for row in read_back(source, tmp_path)] == [
        (label, noise(2)[row].tobytes()) for row, label in enumerate([0, 7])
    ]


def test_two_datasets_in_folders_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path / "in" / name / "raw", noise(2), [0, 7])
    with pytest.raises(InputError, match=r"several datasets \(.*FashionMNIST/raw, .*MNIST/raw\); pass the path of one"):
        Dataset.import_from(tmp_path / "in")


@pytest.mark.parametrize("really", [False, True])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_first_bytes_say_whether_a_file_is_gzip(end: str, really: bool, tmp_path: Path) -> None:
    files = {f"{name}{end}": gzip.compress(data) if really else data for name, data in GOOD.items()}
    source = write_tree(tmp_path / "in", files)
    assert [row[2] for row in read_back(source, tmp_path)] == [image.tobytes() for image in noise(4)]


@pytest.mark.parametrize("name", ["train_{}.bin", "train-{}", "train.{}.gz", "train-{}.idx"])
@pytest.mark.parametrize("change", [bytes, gzip.compress])
def test_files_of_other_names_are_found_by_magic_number(
    name: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    files = {name.format("images"): change(GOOD[IMAGES]), name.format("labels"): change(GOOD[LABELS])}
    source = write_tree(tmp_path / "in", {**files, "x_images": b"", "y-labels": b"text"})
    assert detect_format(str(source), str(tmp_path)) == "mnist"
    assert [row[1] for row in read_back(source, tmp_path)] == [0, 1, 2, 3]
    assert not get_source("mnist").looks_right(str(write_tree(tmp_path / "no", dict.fromkeys(files, b"text"))), "")


def idx_table(labels: list[int], columns: int = 8) -> bytes:
    """QMNIST's labels: the class, then the writer and others."""
    rows = np.array([[label, *range(1000, 999 + columns)] for label in labels], ">i4")
    return struct.pack(">III", 3074, *rows.shape) + rows.tobytes()


TABLE = "qmnist-train-labels-idx2-int"


@pytest.mark.parametrize("packed", [False, True])
def test_of_the_labels_of_qmnist_the_class_is_read_and_the_rest_told(packed: bool, tmp_path: Path) -> None:
    labels = [row % 10 for row in range(70_000)]  # more than are read at once
    files = {"qmnist-train-images-idx3-ubyte": idx_images(noise(70_000, 1, 1)), TABLE: idx_table(labels)}
    made = {f"{name}.gz": gzip.compress(data, 1) for name, data in files.items()} if packed else files
    source = write_tree(tmp_path / "in", made)
    catalog = get_source("mnist").describe(str(source), str(tmp_path))
    assert catalog.notices == (
        f"{source}/{TABLE}{'.gz' if packed else ''}: only the first number of each row, the class, is read",
    )
    assert catalog.unread == "further columns of labels"
    with get_source("mnist").open_rows(catalog.files[0], catalog.labels) as rows:
        assert (rows.file.subset, list(rows.labels)) == ("qmnist-train", labels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (idx_table([3, -1]), "row 1: label is -1; expected 0 to 99999"),
        (idx_table([3, 2**31 - 1]), "row 1: label is 2147483647; expected 0 to 99999"),
        (idx_table([3, 1])[:-1], "header says 2 labels of 8 numbers, but 63 bytes"),
        (struct.pack(">III", 3074, 2, 0), "header says 2 labels of 0 numbers, but 0 bytes"),
        (struct.pack(">III", 3074, 2**32 - 1, 2**32 - 1), "header says 4,294,967,295 labels of 4,294,967,295 numbers"),
        (struct.pack(">II", 3074, 2), "is 8 bytes; expected a header of 12"),
    ],
)
def test_damaged_labels_of_qmnist_are_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"qmnist-train-images-idx3-ubyte": idx_images(noise(2)), TABLE: data})
    with pytest.raises(InputError, match=f"{TABLE}: {reason}"):
        Dataset.import_from(source)


def test_emnist_is_read_as_stored_and_its_ways_are_told(tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in" / "gzip", noise(3), [1, 26, 2], "emnist-letters-train")
    catalog = get_source("mnist").describe(str(tmp_path / "in"), str(tmp_path))
    assert catalog.notices == (
        f"{source}: emnist-letters stores images transposed (rows and columns swapped); pixels are kept as stored",
        f"{source}: emnist-letters numbers its letters from 1 (A is 1), so class '0' has no images; labels are kept",
    )
    assert read_back(tmp_path / "in", tmp_path) == [
        (f"emnist-letters-train_{row}.png", label, noise(3)[row].tobytes()) for row, label in enumerate([1, 26, 2])
    ]
    write_mnist(source, noise(3), [1, 26, 2], "emnist-balanced-train")
    with pytest.raises(
        InputError, match="several datasets .emnist-balanced, emnist-letters., in which one label means"
    ):
        Dataset.import_from(source)


def meta(rows: list[list[str]]) -> bytes:
    """Datumaro's meta file."""
    return gzip.compress(np.array(rows, dtype="<U32").tobytes())


def datumaro(folder: Path, images: list[Pixels], labels: list[int], more: dict[str, bytes]) -> Path:
    """A subset as Datumaro 1.13 writes it: the count is one of bytes, the size always 28 x 28."""
    data = b"".join(image.tobytes() for image in images)
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(struct.pack(">IIII", 2051, len(data), 28, 28) + data),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx_labels(labels)),
        "labels.txt": b"cat\ndog\n",
    }
    return write_tree(folder, files | more)


def test_files_of_datumaro_give_ids_sizes_and_unlabelled_rows(tmp_path: Path) -> None:
    images = [noise(1)[0], noise(1, 10, 20)[0], noise(1, 5, 5)[0]]
    rows = [["имя/x", "28", "28"], ["b", "10", "20"], ["c", "5", "5"]]
    source = datumaro(tmp_path / "in", images, [0, 255, 1], {"train-meta.gz": meta(rows)})
    items = list(Dataset.import_from(source))
    assert [(item.id, item.label) for item in items] == [("имя/x", 0), ("b", None), ("c", 1)]
    for item, image in zip(items, images, strict=True):
        assert np.array_equal(item.image.data.reshape(image.shape), image)


@pytest.mark.parametrize("columns", [1, 2])
def test_files_of_datumaro_may_tell_only_ids_or_sizes(columns: int, tmp_path: Path) -> None:
    images = list(noise(2, 28, 28) if columns == 1 else noise(2, 8, 4))
    rows = [["a"], ["b"]] if columns == 1 else [["8", "4"]] * 2
    source = datumaro(tmp_path / "in", images, [0, 1], {"train-meta.gz": meta(rows)})
    found = read_back(source, tmp_path)
    assert [row[0] for row in found] == (["a.png", "b.png"] if columns == 1 else ["train_0.png", "train_1.png"])
    assert [row[2] for row in found] == [image.tobytes() for image in images]


def test_a_row_without_image_in_a_meta_file_has_none(tmp_path: Path) -> None:
    images = [noise(1)[0], noise(1, 5, 5)[0]]
    rows = [["28", "28"], ["0", "0"], ["5", "5"]]
    source = datumaro(tmp_path / "in", images, [0, 1, 1], {"train-meta.gz": meta(rows)})
    assert [item.image is None for item in Dataset.import_from(source)] == [False, True, False]
    with pytest.raises(InputError, match=r"1 row has no image"):
        converted(source, tmp_path / "out", "mnist", resize=(28, 28))


def test_a_label_outside_the_names_is_a_bad_row(tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(3), [0, 2, 1])
    write_tree(source, {"labels.txt": b"cat\r\ndog\r\n\r\n"})
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte: row 1: label 2 is outside .* 2 classes \(0 to 1\)"):
        converted(source, tmp_path / "out", "cifar")


def test_rows_are_read_alone(tmp_path: Path) -> None:
    images = noise(3000, 4, 6)
    source = write_mnist(tmp_path / "in", images, [row % 10 for row in range(3000)])
    catalog = get_source("mnist").describe(str(source), "")
    with get_source("mnist").open_rows(catalog.files[0], catalog.labels) as rows:
        assert rows.row_bytes(0, 10, decoded=False) == 24
        for start, stop in ((0, 1), (1234, 1239), (2999, 3000), (5, 5)):
            table = rows.table(start, stop)
            assert table.column("image").to_pylist() == [image.tobytes() for image in images[start:stop]]
        taken = rows.take([7, 8, 2500])
        assert taken.column("image").to_pylist() == [images[row].tobytes() for row in (7, 8, 2500)]
        assert taken.column("id").to_pylist() == ["train_7", "train_8", "train_2500"]
        assert taken.column("channels").to_pylist() == [1, 1, 1]


def test_the_summary_knows_size_and_bytes_without_pixels(tmp_path: Path) -> None:
    source = write_mnist(tmp_path / "in", noise(5, 4, 6), [0, 1, 2, 3, 3])
    catalog = get_source("mnist").describe(str(source), "")
    summary = scan(get_source("mnist"), catalog.files[0], catalog.labels, Wanted())
    assert (summary.rows, summary.images, summary.size) == (5, 5, (4, 6))
    assert (summary.image_bytes, summary.pixel_bytes) == (120, 360)
    assert summary.chunks == ({0: 1, 1: 1, 2: 1, 3: 2},)


Files = dict[str, bytes]
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
GOOD = {IMAGES: idx_images(noise(4)), LABELS: idx_labels([0, 1, 2, 3])}


def without(files: Files, name: str) -> Files:
    return {key: data for key, data in files.items() if key != name}


def packed(data: bytes, change: Callable[[bytes], bytes] = bytes) -> Files:
    return without(GOOD, IMAGES) | {f"{IMAGES}.gz": change(gzip.compress(data))}


DAMAGED: dict[str, tuple[Files, str]] = {
    "images of another magic": (GOOD | {IMAGES: GOOD[LABELS] + bytes(20)}, rf"{IMAGES}: magic number is 2049; expected 2051"),
    "labels of another magic": (GOOD | {LABELS: GOOD[IMAGES]}, rf"{LABELS}: magic number is 2051; expected 2049"),
    "empty images": (GOOD | {IMAGES: b""}, rf"{IMAGES}: is 0 bytes; expected a header of 16"),
    "cut labels": (GOOD | {LABELS: GOOD[LABELS][:-1]}, rf"{LABELS}: header says 4 labels, but 3 bytes"),
    "cut images": (GOOD | {IMAGES: GOOD[IMAGES][:-1]}, rf"{IMAGES}: header says 4 images of 28 x 28, but 3,135 bytes"),
    "more after the images": (GOOD | {IMAGES: GOOD[IMAGES] + b"x"}, rf"{IMAGES}: header says 4 images of 28 x 28, but 3,137"),
    "fewer images than labels": (GOOD | {IMAGES: idx_images(noise(3))}, rf"{IMAGES}: has 3 images but .*{LABELS} has 4 labels"),
    "absurd sizes": (GOOD | {IMAGES: struct.pack(">IIII", 2051, 4, 2**31, 2**31)}, rf"{IMAGES}: header says 4 images of 2147483648"),
    "images of nothing": (GOOD | {IMAGES: struct.pack(">IIII", 2051, 4, 0, 28)}, rf"{IMAGES}: images are 0 x 28"),
    "too wide": (
        {IMAGES: struct.pack(">IIII", 2051, 1, 1, 70000) + bytes(70000), LABELS: idx_labels([0])},
        rf"{IMAGES}: images are 1 x 70000",
    ),
    "no labels": (without(GOOD, LABELS), rf"{IMAGES}: has no matching labels"),
    "no images": (without(GOOD, IMAGES), rf"{LABELS}: has no matching images"),
    "a name that is blank": (GOOD | {"labels.txt": b"a\n \nb\n"}, r"labels.txt: line 2: found ' '"),
    "names that are no text": (GOOD | {"labels.txt": b"\xff\xfe"}, r"labels.txt: is not UTF-8"),
    "two test subsets": (
        GOOD | {name.replace("train", to): data for name, data in GOOD.items() for to in ("test", "t10k")},
        r"test-images-idx3-ubyte: subset 'test' is also in 't10k-images-idx3-ubyte'",
    ),
    "meta file of another length": (GOOD | {"train-meta.gz": gzip.compress(bytes(100))}, r"train-meta.gz: is 100 bytes"),
    "meta file without numbers": (GOOD | {"train-meta.gz": meta([["a", "b"]] * 4)}, r"train-meta.gz: contains a height or width that is not a number"),
    "meta file with a size below zero": (GOOD | {"train-meta.gz": meta([["-1", "-784"]] * 4)}, r"train-meta.gz: contains the image size -1 x -784"),
    "meta file that is no text": (GOOD | {"train-meta.gz": gzip.compress(b"\xff" * 512)}, r"train-meta.gz: contains a name that is not valid"),
    "not gzip": (packed(b"", lambda data: b"plain"), r"idx3-ubyte.gz: is 5 bytes; expected a header of 16"),
    "cut gzip": (packed(GOOD[IMAGES], lambda data: data[:-400]), r"idx3-ubyte.gz: the file is truncated or damaged"),
    "wrong checksum": (packed(GOOD[IMAGES], lambda data: data[:-8] + bytes(4) + data[-4:]), r"idx3-ubyte.gz: the file is truncated or damaged"),
    "something after gzip": (packed(GOOD[IMAGES], lambda data: data + b"garbage"), r"idx3-ubyte.gz: the file is truncated or damaged"),
    "empty gzip": (packed(b""), r"idx3-ubyte.gz: is 0 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    files, reason = DAMAGED[case]
    source = write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "cifar")
    assert not (tmp_path / "out").exists()


def test_other_directories_are_not_detected(cifar: Path, tmp_path: Path) -> None:
    looks_right = get_source("mnist").looks_right
    assert not looks_right(str(cifar), "")
    assert not looks_right(str(write_tree(tmp_path / "a", {"train-images.csv": b"", "images-idx3-ubyte": b""})), "")
    assert not looks_right(
        str(write_tree(tmp_path / "b", {"train-images-idx3-ubyte/train-images-idx3-ubyte": b""})), ""
    )


# --- what is refused in writing ---


def test_images_of_several_sizes_are_refused_with_a_hint(tmp_path: Path) -> None:
    data = np.empty(2, dtype=object)
    data[:] = [picture(0).reshape(-1), picture(1, 8, 8).reshape(-1)]
    content = {"data": data, "labels": [0, 1], "filenames": ["a.png", "b.png"], "image_sizes": [(32, 32), (8, 8)]}
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": content})
    with pytest.raises(UsageError, match=r"train-images.*images differ in size, but mnist needs one size.*--resize"):
        converted(source, tmp_path / "out", "mnist")
    converted(source, tmp_path / "out", "mnist", resize=(8, 8))


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (batch(["a.png", "b.png"], [0, None]), {}, r"data_batch_1: 1 row has no label"),
        ({"labels": [0], "filenames": ["a.png"], "data": []}, {}, r"data_batch_1: 1 row has no image"),
        (
            batch(["a.png", "b.png"], [0, 1]),
            {"filter": "/item/annotation[label='cat']", "filter_mode": "annotations"},
            r"1 row has no label",
        ),
    ],
)
def test_rows_without_image_or_label_are_refused(
    content: dict[str, Any], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": content})
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "mnist", **options)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("a\nb",), r"class 'a\\nb' cannot be written as a line"),
        (("a", ""), r"class '' cannot be written as a line"),
        (("\ufeffa",), r"cannot be written as a line"),
        (tuple(map(str, range(257))), r"257 classes: mnist supports at most 256"),
    ],
)
def test_class_names_that_cannot_be_kept_are_refused(classes: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": batch(["a.png"], [0])}, classes)
    with pytest.raises(UsageError, match=reason):
        converted(source, tmp_path / "out", "mnist")


def test_packing_batches_is_refused(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--images-per-batch: mnist"):
        converted(cifar, tmp_path / "out", "mnist", images_per_batch=2)


def test_what_datumaro_reads_differently_is_said(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"a-b": batch(["a.png"], [255])}, tuple(map(str, range(256))))
    notices = converted(source, tmp_path / "out", "mnist").notices
    assert any("'-' in their names" in notice for notice in notices)
    assert any("class 255" in notice for notice in notices)
    assert [row[1] for row in read_back(tmp_path / "out", tmp_path)] == [255]


def test_a_set_can_be_saved_in_its_place(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist")
    before = gzip.decompress((tmp_path / "out/train-images-idx3-ubyte.gz").read_bytes())
    data = Dataset.import_from(tmp_path / "out")
    data.remove("test_1", "test").save(workers=1)
    after = contents(tmp_path / "out")
    assert gzip.decompress(after["train-images-idx3-ubyte.gz"]) == before
    assert len(gzip.decompress(after["t10k-labels-idx1-ubyte.gz"])) == 8 + 2
    assert not [name for name in os.listdir() if name.endswith(".index")]


# --- plain .gz files, by seek ---


def unpacked(path: Path, folder: Path) -> bytes:
    with storage.open_blob(archives.gzip_blob(str(path), str(folder)), "it") as stream:
        return stream.read()


@pytest.mark.parametrize("members", [1, 3])
def test_gz_files_are_read_by_seek(members: int, tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 8, 1 << 20, dtype=np.uint8).tobytes()
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(data, 1) * members)
    blob = archives.gzip_blob(str(path), str(tmp_path))
    assert (blob.offset, blob.size) == (0, members * len(data))
    with storage.open_blob(blob, "a.gz") as stream:
        for at in (999_999, 5, len(data) * members - 10):
            stream.seek(at)
            assert stream.read(10) == (data * members)[at : at + 10]


def test_an_index_that_is_gone_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"some bytes"))
    os.unlink(archives.gzip_blob(str(path), str(tmp_path)).index)
    assert unpacked(path, tmp_path) == b"some bytes"


def test_a_changed_gz_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    for content in (b"one", b"another"):
        path.write_bytes(gzip.compress(content))
        assert unpacked(path, tmp_path) == content


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1 << 20)
    source = write_tree(tmp_path / "in", packed(idx_images(np.zeros((10_000, 28, 28), np.uint8))))
    with pytest.raises(InputError, match=r"idx3-ubyte.gz: decompresses to more than 1048576 bytes.*decompression bomb"):
        converted(source, tmp_path / "out", "cifar")


@pytest.mark.parametrize("cut", [1, 6, 500])
def test_a_cut_last_member_is_noticed(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    data = np.random.default_rng(1).bytes(5000)
    path.write_bytes((gzip.compress(data) * 2)[:-cut])
    with pytest.raises(InputError, match=r"a.gz: the file is truncated or damaged"):
        archives.gzip_blob(str(path), str(tmp_path))


def test_messages_name_the_files_where_they_were_found(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {f"{name}.gz": gzip.compress(data) for name, data in GOOD.items()})
    (source / f"{LABELS}.gz").write_bytes(gzip.compress(GOOD[LABELS] + b"x"))
    (source / "labels.txt").write_bytes(b"a\nb\nc\nd\n")
    with pytest.raises(InputError, match=rf"{source}/{LABELS}.gz: header says 4 labels, but 5 bytes"):
        list(Dataset.import_from(source))


def test_bytes_do_not_depend_on_how_many_parts_a_file_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch([f"{n}.png" for n in range(40)], [0] * 40)})
    monkeypatch.setattr("beam_cifar.storage.files.COPY_BYTES", 5000)
    made = []
    for part_bytes in (16 << 20, 7 * 3072):
        set_part_bytes(monkeypatch, "mnist", part_bytes)
        quickly(source, tmp_path / str(part_bytes), "mnist")
        made.append(contents(tmp_path / str(part_bytes)))
    assert made[0] == made[1]
