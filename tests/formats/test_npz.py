"""NumPy's `.npz`: what `numpy.load` finds in files written, what is read of others', and what is refused."""

from __future__ import annotations

import io
import itertools
import pickle
import random
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset, ExportOptions, LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Shard, SinkOptions
from beam_cifar.formats.kit import npy
from beam_cifar.formats.npz.read import NpzSource
from beam_cifar.formats.npz.write import NpzSink
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.storage import StagedFile
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.hostile_files.npy import zipped
from tests.helpers.image_trees import (
    batch,
    contents,
    encoded,
    manifest,
    picture,
    quickly,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows, unpickled

Arrays = dict[str, Any]


def loaded(path: Path) -> Arrays:
    """All arrays of a file by NumPy's own reader, which refuses pickles."""
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def ids_of(arrays: Arrays) -> list[str]:
    """As the page says it is done."""
    text, ends = arrays["ids"].tobytes(), arrays["ids_offsets"]
    return [text[start:stop].decode() for start, stop in itertools.pairwise(ends)]


def interleaved(planar: bytes, size: tuple[int, int] = (32, 32)) -> Any:
    return np.frombuffer(planar, np.uint8).reshape(3, *size).transpose(1, 2, 0)


def write_npz(path: Path, packed: bool = False, **arrays: Any) -> Path:
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


def rows_of(path: Path, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a dataset by subset, as CIFAR batches hold them."""
    quickly(path, folder, "cifar", save_images=True)
    return {name: cifar_rows(folder, [name]) for name in manifest(folder)["subsets"]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [["a.png", "b.png", "ёж 1.png", "d,e.png"], ["f.png", "g.png"]]
    batches = {"data_batch_1": batch(names[0], [2, None, 0, 2]), "обучение": batch(names[1], [0, 2], 1)}
    classes = ("sea lion", "never, used", "жук\nлиния", " both ", "")
    return write_cifar(tmp_path_factory.mktemp("source") / "in", batches, classes)


# --- written --------------------------------------------------------------------------------------------------------


def test_numpy_finds_images_labels_names_and_ids(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "npz")
    assert set(contents(tmp_path / "out")) == {"data_batch_1.npz", "обучение.npz"}
    for subset in ("data_batch_1", "обучение"):
        found, rows = loaded(tmp_path / "out" / f"{subset}.npz"), cifar_rows(source, [subset])
        assert list(found) == ["images", "labels", "label_names", "ids", "ids_offsets"]
        assert found["images"].dtype == np.uint8
        assert np.array_equal(found["images"], np.stack([interleaved(row[3]) for row in rows]))
        assert found["labels"].dtype == np.int64
        assert found["labels"].tolist() == [-1 if row[1] is None else row[1] for row in rows]
        assert found["label_names"].tolist() == ["sea lion", "never, used", "жук\nлиния", " both ", ""]
        assert [f"{name}.png" for name in ids_of(found)] == [row[0] for row in rows]


def test_all_that_cifar_says_survives_the_way_there_and_back(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "npz", "npz")
    found = rows_of(tmp_path / "npz", tmp_path / "back")
    assert found == {name: cifar_rows(source, [name]) for name in ("data_batch_1", "обучение")}
    assert (
        unpickled(tmp_path / "back" / "batches.meta")["label_names"]
        == loaded(tmp_path / "npz" / "data_batch_1.npz")["label_names"].tolist()
    )


def test_superclasses_survive_and_are_arrays(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "npz", "npz")
    found, meta = loaded(tmp_path / "npz" / "test.npz"), unpickled(cifar100 / "meta")
    assert found["coarse_names"].tolist() == meta["coarse_label_names"]
    test = unpickled(cifar100 / "test")
    assert found["parents"][found["labels"]].tolist() == test["coarse_labels"]
    assert rows_of(tmp_path / "npz", tmp_path / "back")["test"] == cifar_rows(cifar100, ["test"])


def test_a_file_made_of_many_parts_has_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(source, tmp_path / "one", "npz")
    set_part_bytes(monkeypatch, "npz", 3072)
    quickly(source, tmp_path / "many", "npz")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_members_are_stored_and_have_no_time(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "npz")
    with zipfile.ZipFile(tmp_path / "out" / "data_batch_1.npz") as archive:
        assert archive.testzip() is None
        kinds = {(info.compress_type, info.date_time, info.create_system) for info in archive.infolist()}
    assert kinds == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0), 3)}


def test_a_subset_without_rows_is_a_file_without_rows(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"a": batch(["x.png"], [0]), "b": batch(["y.png"], [1])})
    quickly(source, tmp_path / "out", "npz", labels=("cat",))
    assert loaded(tmp_path / "out" / "b.npz")["images"].shape[0] == 0
    assert {name: len(rows) for name, rows in rows_of(tmp_path / "out", tmp_path / "back").items()} == {"a": 1, "b": 0}


def test_one_long_id_makes_no_other_longer(tmp_path: Path) -> None:
    names = [f"{row}.png" for row in range(50)] + ["x" * 4000 + ".png"]
    quickly(write_cifar(tmp_path / "in", {"a": batch(names, [0] * 51)}), tmp_path / "out", "npz")
    assert (tmp_path / "out" / "a.npz").stat().st_size < 51 * 3072 + 30_000
    assert ids_of(loaded(tmp_path / "out" / "a.npz"))[-1] == "x" * 4000


def test_subsets_that_are_no_file_names_are_encoded_and_told(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"a:b": batch(["x.png"], [0])})
    quickly(source, tmp_path / "out", "npz")
    assert set(contents(tmp_path / "out")) == {"a%3Ab.npz"}
    assert manifest(tmp_path / "out")["renamed"] == {"subsets": {"a%3Ab.npz": "a:b"}}
    assert [item.subset for item in Dataset.import_from(tmp_path / "out")] == ["a:b"]


def test_images_of_another_size_than_cifar(tmp_path: Path) -> None:
    data = np.stack([picture(row, 5, 7).reshape(-1) for row in range(3)])
    rows = {"data": data, "image_sizes": [(5, 7)] * 3, "labels": [0, 1, 2], "filenames": ["a.png", "b.png", "c.png"]}
    quickly(write_cifar(tmp_path / "in", {"a": rows}), tmp_path / "out", "npz")
    assert np.array_equal(loaded(tmp_path / "out" / "a.npz")["images"], data.reshape(3, 3, 5, 7).transpose(0, 2, 3, 1))


def test_mixed_sizes_are_refused_unless_resized(tmp_path: Path) -> None:
    data = np.empty(2, dtype=object)
    data[:] = [picture(1, 8, 8).reshape(-1), picture(2, 9, 7).reshape(-1)]
    rows = {"data": data, "image_sizes": [(8, 8), (9, 7)], "labels": [0, 1], "filenames": ["a.png", "b.png"]}
    source = write_cifar(tmp_path / "in", {"a": rows})
    with pytest.raises(UsageError, match="images differ in size, but npz needs one size; pass --resize"):
        quickly(source, tmp_path / "out", "npz")
    quickly(source, tmp_path / "out", "npz", resize=(6, 6))
    assert loaded(tmp_path / "out" / "a.npz")["images"].shape == (2, 6, 6, 3)


def test_rows_without_image_are_refused(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"a": {"data": [], "labels": [0], "filenames": ["a.png"]}})
    with pytest.raises(InputError, match="no image, but npz needs one for every row"):
        quickly(source, tmp_path / "out", "npz")


def test_gray_and_jpeg_files_become_pixels_of_three_channels(tmp_path: Path) -> None:
    gray, jpeg = picture(1, 6, 9, channels=1), encoded(picture(2, 6, 9), "JPEG")
    quickly(
        write_tree(tmp_path / "in", {"cat/a.png": encoded(gray), "cat/b.jpg": jpeg, "no_label/c.jpg": jpeg}),
        tmp_path / "out",
        "npz",
    )
    found = loaded(tmp_path / "out" / "default.npz")
    assert np.array_equal(found["images"][0], np.repeat(gray[0][:, :, None], 3, axis=2))
    assert found["images"].shape == (3, 6, 9, 3)
    assert found["labels"].tolist() == [0, 0, -1]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"image_ext": ".png"}, "--image-ext .png: npz stores pixels"), ({"images_per_batch": 2}, "one file per subset")],
)
def test_options_about_files_and_batches_are_refused(options: Arrays, words: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        quickly(source, tmp_path / "out", "npz", **options)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(("cat", "dog\0"), "has a trailing NUL"), (("cat", *map(str, range(9000)), "x" * 4000), "has 4000 characters")],
)
def test_class_names_that_arrays_of_text_cannot_hold_are_refused(
    classes: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    source = write_cifar(tmp_path / "in", {"a": batch(["x.png"], [0])}, classes)
    with pytest.raises(UsageError, match=words):
        quickly(source, tmp_path / "out", "npz")


@pytest.mark.parametrize(("rows", "extra"), [(1000, b""), (2_000_000, b"\x01\x00\x10\x00" + bytes(16))])
def test_only_files_beyond_2_gib_get_the_fields_for_that(rows: int, extra: bytes, tmp_path: Path) -> None:
    shard = Shard(0, "a", "a.npz", rows, rows, (32, 32), True)
    with StagedFile(str(tmp_path / "a.npz"), str(tmp_path / "scratch")) as file:
        NpzSink().open_part(file, shard, rows, SinkOptions(LabelTable(("cat",)), ExportOptions()))
        head = next((tmp_path / "scratch").iterdir()).read_bytes()
    # APPNOTE 4.5.3: the extra field 1 holds both sizes in 64 bits, here zero, since a descriptor follows the data.
    name, length = struct.unpack("<HH", head[26:30])
    assert head[30 + name :][:length] == extra
    # Nothing is left of an abandoned part.
    assert not list((tmp_path / "scratch").iterdir())


# --- read -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_keras_files_are_read_from_gray_images_and_plain_labels(packed: bool, tmp_path: Path) -> None:
    pixels = np.stack([picture(row, 28, 28, channels=1)[0] for row in range(5)])
    arrays = {"x_test": pixels[3:], "y_test": np.array([1, 0], np.uint8), "x_train": pixels[:3], "y_train": [2, 9, 0]}
    path = write_npz(tmp_path / "mnist.npz", packed, **arrays)
    assert detect_format(str(path), str(tmp_path)) == "npz"
    found = rows_of(path, tmp_path / "out")
    assert list(found) == ["train", "test"]
    assert [(row[0], row[1]) for row in found["train"]] == [("train_0.png", 2), ("train_1.png", 9), ("train_2.png", 0)]
    assert found["test"][1] == ("test_1.png", 0, None, pixels[4].tobytes() * 3)
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == [str(number) for number in range(10)]


def test_medmnist_files_are_read_with_labels_in_a_column(tmp_path: Path) -> None:
    images = {name: np.stack([picture(row, 28, 28).transpose(1, 2, 0) for row in range(3)]) for name in ("val", "test")}
    images["train"] = images["val"][::-1]
    arrays = {f"{name}_images": pixels for name, pixels in images.items()}
    arrays |= {f"{name}_labels": np.array([[1], [0], [10]], np.uint8) for name in images}
    found = rows_of(write_npz(tmp_path / "pathmnist.npz", True, **arrays), tmp_path / "out")
    assert list(found) == ["train", "val", "test"]
    assert [row[1] for row in found["val"]] == [1, 0, 10]
    assert np.array_equal(interleaved(found["train"][0][3], (28, 28)), images["train"][0])
    names = unpickled(tmp_path / "out" / "batches.meta")["label_names"]
    assert names == [str(number) for number in range(11)]


def test_a_directory_of_files_is_a_subset_each_and_labels_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = np.zeros((2, 4, 4, 1), np.uint8)
    write_npz(tmp_path / "in" / "b10.npz", images=images, labels=np.array([1, -1], ">i2"))
    write_npz(tmp_path / "in" / "b9.npz", images=images + 1)
    found = rows_of(tmp_path / "in", tmp_path / "out")
    assert {name: [row[1] for row in rows] for name, rows in found.items()} == {"b9": [None, None], "b10": [1, None]}


def test_ids_may_be_an_array_of_text_and_repeated_ones_are_told(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    path = write_npz(tmp_path / "a.npz", images=images, ids=np.array(["кот", "x", "x"]), label_names=np.array([b"a"]))
    summary = quickly(path, tmp_path / "out", "cifar", save_images=True)
    assert [row[0] for row in cifar_rows(tmp_path / "out", ["a"])] == ["кот.png", "x.png", "x_2.png"]
    assert any("earlier row" in notice for notice in summary.notices)


def test_a_look_at_rows_reads_only_these(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", images=np.zeros((8000, 40, 40, 3), np.uint8), labels=np.arange(8000) % 7)
    source = NpzSource()
    tracemalloc.start()
    try:
        catalog = source.describe(str(path), str(tmp_path))
        with source.open_rows(catalog.files[0], catalog.labels) as rows:
            assert rows.take([5, 6, 7999]).column("label").to_pylist() == [5, 6, 5]
            assert len(rows.table(7000, 7100)) == 100
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_what_is_compressed_is_unpacked_once(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", True, images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))
    first = NpzSource().describe(str(path), str(tmp_path / "index"))
    times = {each: each.stat().st_mtime_ns for each in (tmp_path / "index").iterdir()}
    assert len(times) == 2
    assert NpzSource().describe(str(path), str(tmp_path / "index")) == first
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "index").iterdir()} == times


def test_jobs_leave_nothing_of_what_they_unpacked(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", True, images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))
    quickly(path, tmp_path / "out", "cifar")
    assert names_beside(tmp_path / "out") == COMPLETE


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 6, 5), dtype=np.uint8)
NUMBERS = np.array([2, 0, 1], np.uint8)


@pytest.mark.parametrize(
    ("names", "subset"),
    [
        (("X_train", "y_train"), "train"),
        (("train_X", "train_y"), "train"),
        (("train-data", "train-target"), "train"),
        (("imgs", "labels"), "any"),
        (("x", "y"), "any"),
        (("data", "label"), "any"),
        (("faces", "who"), "any"),
        (("arr_0", "arr_1"), "any"),
    ],
)
def test_arrays_are_found_by_the_names_that_people_use_and_else_by_shape(
    names: tuple[str, str], subset: str, tmp_path: Path
) -> None:
    arrays: dict[str, Any] = dict(zip(names, (PIXELS, NUMBERS), strict=True))
    path = write_npz(tmp_path / "any.npz", **arrays)
    assert detect_format(str(path), str(tmp_path)) == "npz"
    found = rows_of(path, tmp_path / "out")
    assert {name: [(row[1], row[3]) for row in rows] for name, rows in found.items()} == {
        subset: [(label, image.tobytes() * 3) for label, image in zip(NUMBERS, PIXELS, strict=True)]
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("files", "subsets"),
    [
        (("kmnist-{}-imgs", "kmnist-{}-labels"), ("train", "test")),
        (("{}_images", "{}_labels"), ("train", "test")),
        (("x_{}", "y_{}"), ("train", "test")),
        (("labels-of-{}-images", "labels-of-{}-labels"), ("train", "test")),
    ],
)
def test_images_and_labels_may_be_files_with_one_array_each(
    files: tuple[str, str], subsets: tuple[str, ...], packed: bool, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for at, subset in enumerate(subsets):
        for name, array in zip(files, (PIXELS + at, NUMBERS[:, None]), strict=True):
            (np.savez_compressed if packed else np.savez)(source / f"{name.format(subset)}.npz", array)
    assert detect_format(str(source), str(tmp_path)) == "npz"
    found = rows_of(source, tmp_path / "out")
    assert {name: [row[1] for row in rows] for name, rows in found.items()} == {name: [2, 0, 1] for name in subsets}
    for at, subset in enumerate(subsets):
        assert [row[3] for row in found[subset]] == [image.tobytes() * 3 for image in PIXELS + at]


def test_splits_of_two_datasets_keep_their_whole_names(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("kmnist", "k49"):
        np.savez(tmp_path / "in" / f"{name}-train-imgs.npz", PIXELS)
        np.savez(tmp_path / "in" / f"{name}-train-labels.npz", NUMBERS)
    assert set(rows_of(tmp_path / "in", tmp_path / "out")) == {"kmnist-train", "k49-train"}


@pytest.mark.parametrize(
    ("arrays", "notice"),
    [
        ({"images": PIXELS, "ages": NUMBERS}, ".npz: no labels found; arrays not read: ages"),
        ({"x_train": PIXELS, "y_train": NUMBERS, "m": NUMBERS}, ".npz:x_train: arrays not read: m"),
        ({"images": PIXELS, "labels": NUMBERS, "y": NUMBERS}, ".npz: arrays not read: y"),
        (
            {"faces": PIXELS, "who": NUMBERS, "when": NUMBERS / 2},
            ".npz:faces: no array has a usual name; images and labels found by shape: faces, who; arrays not read: when",
        ),
    ],
)
def test_arrays_that_are_not_read_and_missing_labels_are_told(arrays: Arrays, notice: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", **arrays)
    assert [each.removeprefix(str(tmp_path / "a")) for each in NpzSource().describe(str(path), "").notices] == [notice]


def test_a_subset_called_like_labels_is_a_subset(tmp_path: Path) -> None:
    for name in ("labels", "y_train"):
        folder = tmp_path / name
        folder.mkdir()
        write_npz(folder / f"{name}.npz", images=PIXELS, labels=NUMBERS)
        assert detect_format(str(folder), str(tmp_path)) == "npz"
        assert list(rows_of(folder, tmp_path / f"out-{name}")) == [name]


# --- refused --------------------------------------------------------------------------------------------------------

IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


def npz_bytes(packed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy_with(header: str, data: bytes = b"") -> bytes:
    """A `.npy` with a header as somebody may write it."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def twice() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("images.npy", npy_with("{}"))
    return buffer.getvalue()


def with_long_directory() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20):
            info = zipfile.ZipInfo(f"{number}.npy")
            info.comment = b"x" * 60_000
            archive.writestr(info, b"")
    return buffer.getvalue()


def with_flag(data: bytes) -> bytes:
    """Every member is said to be encrypted."""
    at = data.index(b"PK\x01\x02")
    return data[: at + 8] + b"\x01" + data[at + 9 :]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def pickled_labels() -> bytes:
    labels = np.empty(3, dtype=object)
    labels[:] = [Evil()] * 3
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros(3), allow_pickle=False)
    head = npy_with("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }")
    images = io.BytesIO()
    np.lib.format.write_array(images, IMAGES)
    return zipped(images=images.getvalue(), labels=head + pickle.dumps(labels))


PLAIN = npz_bytes(images=IMAGES, labels=np.arange(3))
IDS: Arrays = {"images": IMAGES, "ids": np.frombuffer(b"abc", np.uint8)}
BAD: dict[str, tuple[bytes, str]] = {
    "a side of 9,000 hexadecimal digits": (
        zipped(images=npy_with(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (0x{'f' * 9000}, 4), }}")),
        "each from 0 to 2\\^63",
    ),
    "200 sides": (
        zipped(images=npy_with(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(1 << 62,) * 200}, }}")),
        "200 dimensions; expected at most 64",
    ),
    "python objects": (pickled_labels(), "dtype object .* never does"),
    "images as objects": (
        zipped(images=npy_with("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }")),
        "unpickling",
    ),
    "floats": (npz_bytes(images=IMAGES / 2), "dtype float64 .* expected uint8 .*convert floats from 0 to 1 with"),
    "fortran order": (npz_bytes(images=np.asfortranarray(IMAGES)), "expected C order"),
    "four channels": (npz_bytes(images=np.zeros((3, 4, 4, 4), np.uint8)), "expected uint8 N x H x W x 3"),
    "too large": (npz_bytes(images=np.zeros((0, 5), np.uint8)), r"shape \(0, 5\); expected uint8"),
    "cut short": (PLAIN[:-30], "is damaged, or not an .npz file"),
    "no zip": (b"\x93NUMPY" * 50, "is damaged, or not an .npz file"),
    "empty": (b"", "is damaged, or not an .npz file"),
    "too few labels": (npz_bytes(images=IMAGES, labels=[1, 2]), "one integer for each of 3 images"),
    "several labels": (
        npz_bytes(images=IMAGES, labels=np.array([[1, 0], [0, 0], [1, 1]])),
        r"images; row 1 has 0 of 2 classes, so these are several labels per image, .* only one is supported \(save a",
    ),
    "several labels, transposed": (
        npz_bytes(images=IMAGES, labels=np.asfortranarray([[1, 0], [1, 1], [0, 1]])),
        "row 1 has 2 of 2 classes, so these are several labels",
    ),
    "labels of two kinds": (npz_bytes(images=IMAGES, labels=[[1, 7], [0, 3], [1, 2]]), "for each of 3 images$"),
    "probabilities": (npz_bytes(images=IMAGES, labels=np.full((3, 2), 0.5)), "for each of 3 images$"),
    "two arrays of images": (
        npz_bytes(arr_0=IMAGES, arr_1=IMAGES, arr_2=[1, 2, 3]),
        "arrays found: arr_0, arr_1, arr_2",
    ),
    "float labels": (npz_bytes(images=IMAGES, labels=[0, 1, 0.5]), "labels: row 2 is 0.5; expected integers, because"),
    "a name outside": (
        npz_bytes(images=IMAGES, labels=np.array(["a", "b", "c"]), label_names=np.array(["a", "b"])),
        "label 'c' is not in the label table; expected one of its names",
    ),
    "names and numbers": (
        npz_bytes(x_train=IMAGES, y_train=np.array(["a", "b", "c"]), x_test=IMAGES, y_test=[0, 1, 2]),
        "x_test: labels are numbers, but names in .*:x_train; convert one at a time",
    ),
    "huge labels": (npz_bytes(images=IMAGES, labels=np.full(3, 2**63, np.uint64)), "at most 63 bits"),
    "many classes": (npz_bytes(images=IMAGES, labels=[0, 1, 2**40]), "label 1099511627776; at most 100000"),
    "label outside": (
        npz_bytes(images=IMAGES, labels=[0, 1, 2], label_names=np.array(["a", "b"])),
        "row 2: label 2 is outside the label table, which has 0 to 1",
    ),
    "negative label": (npz_bytes(images=IMAGES, labels=[0, -2, 2]), "row 1: label -2 is outside"),
    "shape of another size": (
        zipped(images=npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 4, 4, 3), }", b"x")),
        "takes 479999999952 bytes, but the file has 1",
    ),
    "negative shape": (
        zipped(images=npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -4, 4), }", b"x" * 16)),
        r"shape has 3 dimensions; .* each from 0 to 2\^63",
    ),
    "many dimensions": (
        zipped(
            images=npy_with(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 40 + ', '}{'9, ' * 60}), }}")
        ),
        r"shape has 61 dimensions; .* each from 0 to 2\^63",
    ),
    "structured": (
        zipped(
            images=npy_with(str({"descr": [(f"f{n}", "<i8") for n in range(300)], "fortran_order": False, "shape": ()}))
        ),
        "has dtype .{80} and shape .*expected plain numbers",
    ),
    "name of two lines": (zipped(**{"x_train\nx": npy_with("{}")}), r"array name 'x_train\\nx' has unprintable"),
    "nested header": (zipped(images=npy_with("(" * 9000)), "is not a valid .npy array"),
    "header of code": (zipped(images=npy_with("__import__('os').abort()")), "is not a valid .npy array"),
    "long header": (zipped(images=npy_with(" " * 60_000 + "{}")), "is not a valid .npy array"),
    "later version": (zipped(images=b"\x93NUMPY\x03\x00" + bytes(20)), "format version .3, 0."),
    "no images": (npz_bytes(weights=IMAGES), "arrays found: weights; expected 'images'"),
    "name twice": (twice(), "contains 'images.npy' twice"),
    "long directory": (with_long_directory(), "the zip directory is 1[0-9]{6} bytes; at most 1048576 are supported"),
    "encrypted": (with_flag(PLAIN), "images.npy: is encrypted"),
    "damaged when packed": (flipped(npz_bytes(True, images=IMAGES + 7), 80), "is damaged, or not an .npz file"),
    "directory does not fit": (flipped(PLAIN, 0), "Bad magic number for file header"),
    "ids without offsets": (npz_bytes(**IDS), "ids_offsets: is missing"),
    "falling offsets": (npz_bytes(**IDS, ids_offsets=[0, 2, 1, 3]), "must increase from 0 to 3"),
    "offsets beyond": (npz_bytes(**IDS, ids_offsets=[0, 1, 2, 2**40]), "must increase from 0 to 3"),
    "ids of no text": (
        npz_bytes(images=IMAGES, ids=np.full(3, 255, np.uint8), ids_offsets=[0, 1, 2, 3]),
        "is not valid UTF-8",
    ),
    "names of no text": (
        npz_bytes(images=IMAGES, label_names=np.array([0x7FFFFFFF], "<u4").view("<U1")),
        "text that is not valid Unicode",
    ),
    "wrong parents": (
        npz_bytes(images=IMAGES, label_names=np.array(["a"]), coarse_names=np.array(["b"]), parents=[7]),
        "'parents' must have 1 value from -1 to 0",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("arrays", "numbers", "names", "told"),
    [
        ({"y": np.array([2.0, 0.0, 1.0])}, [2, 0, 1], ["0", "1", "2"], "labels are floats with whole values"),
        ({"y": np.eye(4)[[3, 0, 1]]}, [3, 0, 1], list("0123"), "labels are rows with one 1, taken for the class of its column"),
        ({"y": np.array([b"dog", b"ant", b"dog"])}, [1, 0, 1], ["ant", "dog"], ""),
        ({"y": np.array(["b", "a", "b"]), "label_names": np.array(["c", "b", "a"])}, [1, 2, 1], ["c", "b", "a"], ""),
    ],
)  # fmt: skip
def test_labels_are_read_as_people_save_them(
    arrays: Arrays, numbers: list[int], names: list[str], told: str, packed: bool, tmp_path: Path
) -> None:
    path = write_npz(tmp_path / "a.npz", packed, x=IMAGES, **arrays)
    catalog = NpzSource().describe(str(path), str(tmp_path))
    assert list(catalog.labels.names) == names
    assert catalog.notices == ((f"{path}:x: {told}",) if told else ())
    assert [row[1] for row in rows_of(path, tmp_path / "out")["a"]] == numbers


@pytest.mark.parametrize("kind", BAD)
def test_damaged_and_hostile_files_are_refused_with_file_and_reason(kind: str, tmp_path: Path) -> None:
    data, words = BAD[kind]
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        quickly(tmp_path / "bad.npz", tmp_path / "out", "cifar", input_format="npz")
    assert "bad.npz" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "a.npz", True, images=np.zeros((400, 32, 32, 3), np.uint8))
    monkeypatch.setattr(npy, "RATIO_FREE_BYTES", 1 << 16)
    with pytest.raises(InputError, match="images.npy: unpacks to 1228928 bytes, more than 100 times"):
        NpzSource().describe(str(tmp_path / "a.npz"), str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_many_bad_rows_are_told_as_one_line(tmp_path: Path) -> None:
    images, labels = np.zeros((20_000, 1, 1, 3), np.uint8), np.full(20_000, 5)
    path = write_npz(tmp_path / "a.npz", images=images, labels=labels, label_names=np.array(["a"]))
    with pytest.raises(InputError, match=r"row 0: label 5 .* 0 to 0 \(and 19999 more bad rows\)"):
        quickly(path, tmp_path / "out", "cifar")


def test_two_files_with_one_subset_or_other_classes_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    for name in ("mnist", "fashion"):
        write_npz(tmp_path / "a" / f"{name}.npz", x_train=IMAGES, y_train=np.arange(3))
        write_npz(tmp_path / "b" / f"{name}.npz", images=IMAGES, label_names=np.array([name]))
    with pytest.raises(InputError, match="mnist.npz:x_train: subset 'train' is already in .*fashion.npz:x_train"):
        quickly(tmp_path / "a", tmp_path / "out", "cifar")
    with pytest.raises(InputError, match="mnist.npz: classes differ from .*fashion.npz"):
        quickly(tmp_path / "b", tmp_path / "out", "cifar")


@pytest.mark.parametrize(
    "files", [{"a.npz": npz_bytes(weights=IMAGES)}, {"a.npy": PLAIN}, {"cat/a.npz": PLAIN}, {"README": b""}]
)
def test_other_directories_are_not_taken_for_it(files: dict[str, bytes], tmp_path: Path) -> None:
    assert not NpzSource().looks_right(str(write_tree(tmp_path / "in", files)), str(tmp_path))


@pytest.mark.parametrize("packed", [False, True])
def test_files_with_random_damage_are_read_or_refused_but_never_fail_otherwise(packed: bool, tmp_path: Path) -> None:
    ids: Arrays = {"ids": np.frombuffer(b"abc", np.uint8), "ids_offsets": np.arange(4)}
    good, chance = npz_bytes(packed, images=IMAGES, labels=np.arange(3), **ids), random.Random(7)
    source, refused = NpzSource(), 0
    for number in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path = tmp_path / f"{number}.npz"
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        try:
            catalog = source.describe(str(path), str(tmp_path / "index"))
            with source.open_rows(catalog.files[0], catalog.labels) as rows:
                assert len(rows.facts(0, rows.rows)) == rows.rows
                rows.table(0, rows.rows)
        except InputError:
            refused += 1
    assert 50 < refused < 150


def test_a_label_that_differs_from_its_checksum_is_refused(tmp_path: Path) -> None:
    labels = np.arange(1000, 1040)
    path = write_npz(tmp_path / "a.npz", images=np.zeros((40, 2, 2, 3), np.uint8), labels=labels)
    path.write_bytes(flipped(path.read_bytes(), path.read_bytes().index(labels.tobytes())))
    with pytest.raises(InputError, match="a.npz:labels.npy: does not match its checksum; the file is damaged"):
        NpzSource().describe(str(path), str(tmp_path))


def test_more_rows_than_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "FREE_ROWS", 1000)
    path = write_npz(tmp_path / "a.npz", True, images=np.zeros((100_000, 1, 1, 1), np.uint8))
    with pytest.raises(InputError, match=r"a.npz: declares 100000 rows in \d+ bytes; refused as a decompression bomb"):
        NpzSource().describe(str(path), str(tmp_path))


def test_a_directory_that_renames_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([1, 0]))
    content = (tmp_path / "train.npz").read_bytes()
    at = content.rindex(b"labels.npy")
    (tmp_path / "train.npz").write_bytes(content[:at] + b"lapels.npy" + content[at + 10 :])
    with pytest.raises(InputError, match=r"train\.npz.*differ"):
        get_source("npz").describe(str(tmp_path), str(tmp_path))
