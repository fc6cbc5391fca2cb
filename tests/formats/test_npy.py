"""NumPy's `.npy` files: which are images, which are their labels, and what is told or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError
from beam_cifar.formats.npy import NpySource
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import quickly

pytestmark = pytest.mark.usefixtures("without_runner")

Arrays = dict[str, Any]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 1, 3], np.int32)
NUMBERED = "{path}: .npy files have no class names; classes are named by number"


def write_arrays(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def read_rows(path: Path, folder: Path) -> dict[str, list[tuple[Any, Any]]]:
    """Labels and pixels of each subset."""
    quickly(path, folder, "npz")
    found = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as arrays:
            found[file.stem] = rows_of(arrays["images"], arrays["labels"])
    return found


def rows_of(images: Any, labels: Any) -> list[tuple[Any, Any]]:
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    return [(int(label), image.tobytes()) for label, image in zip(labels, images, strict=True)]


@pytest.mark.parametrize(
    ("names", "subset"),
    [
        (("cifar10.1_v6_data", "cifar10.1_v6_labels"), "cifar10.1_v6"),
        (("x_train", "y_train"), "train"),
        (("X_test", "Y_test"), "test"),
        (("train_images", "train_labels"), "train"),
        (("images", "labels"), "images"),
        (("data", "targets"), "data"),
        (("cifar102-test-imgs", "cifar102-test-labels"), "test"),
        (("fog", "labels"), "fog"),
    ],
)
@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., 0]])
def test_images_and_labels_are_matched_by_name(
    images: Any, names: tuple[str, str], subset: str, tmp_path: Path
) -> None:
    source = write_arrays(tmp_path / "in", **dict(zip(names, (images, LABELS), strict=True)))
    assert detect_format(str(source), str(tmp_path)) == "npy"
    assert read_rows(source, tmp_path / "out") == {subset: rows_of(images, LABELS)}
    catalog = NpySource().describe(str(source), "")
    assert catalog.notices == (NUMBERED.format(path=source),)
    assert catalog.labels.names == ("0", "1", "2", "3")


FLOATS = "labels are floats with whole values"
ONE_HOT = "labels are rows with one 1, taken for the class of its column"
NUMBERS = "labels are texts of whole numbers"
KINDS: dict[str, tuple[Any, list[int], list[str], str]] = {
    "floats": (np.array([1.0, 0.0, 2.0, -1.0]), [1, 0, 2, -1], ["0", "1", "2"], FLOATS),
    "half floats, N x 1": (np.array([[1], [0], [2], [1]], np.float16), [1, 0, 2, 1], ["0", "1", "2"], FLOATS),
    "one-hot": (np.eye(5, dtype=int)[[3, 0, 1, 3]], [3, 0, 1, 3], ["0", "1", "2", "3", "4"], ONE_HOT),
    "one-hot floats by column": (np.asfortranarray(np.eye(4)[[3, 0, 1, 3]]), [3, 0, 1, 3], ["0", "1", "2", "3"], ONE_HOT),
    "one-hot truths": (np.eye(4, dtype=bool), [0, 1, 2, 3], ["0", "1", "2", "3"], ONE_HOT),
    "texts": (np.array(["dog", "жук", "cat", "dog"]), [1, 2, 0, 1], ["cat", "dog", "жук"], ""),
    "big-endian texts": (np.array(["dog", "ant", "cat", "dog"], ">U9"), [2, 0, 1, 2], ["ant", "cat", "dog"], ""),
    "bytes": (np.array([[b"dog"], [b"cat"], [b"dog"], [b""]]), [1, 0, 1, -1], ["cat", "dog"], "1 label is empty, and is none"),
    "texts of numbers": (np.array(["10", "2", "0", "10"]), [10, 2, 0, 10], list(map(str, range(11))), NUMBERS),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_read_as_people_save_them_and_a_guess_is_told(kind: str, tmp_path: Path) -> None:
    saved, numbers, names, told = KINDS[kind]
    source = write_arrays(tmp_path / "in", x_train=IMAGES, y_train=saved)
    catalog = NpySource().describe(str(source), "")
    assert list(catalog.labels.names) == names
    assert [notice for notice in catalog.notices if "class names" not in notice] == (
        [f"{source}/y_train.npy: {told}"] if told else []
    )
    assert read_rows(source, tmp_path / "out") == {"train": rows_of(IMAGES, numbers)}


def test_names_of_classes_are_those_of_all_files(tmp_path: Path) -> None:
    texts = {"y_train": np.array(list("cbcb")), "y_test": np.array(list("abba"))}
    source = write_arrays(tmp_path / "in", x_train=IMAGES, x_test=IMAGES, **texts)
    assert NpySource().describe(str(source), "").labels.names == ("a", "b", "c")
    assert read_rows(source, tmp_path / "out") == {
        "train": rows_of(IMAGES, [2, 1, 2, 1]),
        "test": rows_of(IMAGES, [0, 1, 1, 0]),
    }


def test_a_file_of_labels_is_that_of_every_file_of_images(tmp_path: Path) -> None:
    noisy, foggy = np.tile(IMAGES, (5, 1, 1, 1)), 255 - np.tile(IMAGES, (5, 1, 1, 1))
    labels = np.tile(LABELS, 5)
    source = write_arrays(tmp_path / "in", gaussian_noise=noisy, fog=foggy, labels=labels, mean=IMAGES[0])
    assert read_rows(source, tmp_path / "out") == {
        "fog": rows_of(foggy, labels),
        "gaussian_noise": rows_of(noisy, labels),
    }
    assert NpySource().describe(str(source), "").notices == (
        NUMBERED.format(path=source),
        f"{source}/labels.npy: has the labels of 2 files of images, fog.npy to gaussian_noise.npy",
        f"{source}: arrays not read: mean.npy",
    )
    only = source / "gaussian_noise.npy"
    assert detect_format(str(only), str(tmp_path)) == "npy"
    assert read_rows(only, tmp_path / "one") == {"gaussian_noise": rows_of(noisy, labels)}


def test_missing_labels_are_told(tmp_path: Path) -> None:
    source = write_arrays(tmp_path / "in", x_train=IMAGES)
    assert read_rows(source, tmp_path / "out") == {"train": rows_of(IMAGES, [-1] * 4)}
    assert NpySource().describe(str(source), "").notices == (
        NUMBERED.format(path=source),
        f"{source}/x_train.npy: no labels found; expected a file such as labels.npy beside it",
    )


def test_any_row_is_read_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 2, 3, 3), dtype=np.uint8)
    source = write_arrays(tmp_path / "in", x=images, y=np.arange(3000) % 7)
    catalog = NpySource().describe(str(source), "")
    with NpySource().open_rows(catalog.files[0], catalog.labels) as rows:
        taken = rows.take([7, 8, 2999])
        assert taken.column("image").to_pylist() == [images[row].transpose(2, 0, 1).tobytes() for row in (7, 8, 2999)]
        assert taken.column("label").to_pylist() == [0, 1, 3]
        assert taken.column("id").to_pylist() == ["x_7", "x_8", "x_2999"]


REFUSED: dict[str, tuple[Arrays, str]] = {
    "other counts": ({"x": IMAGES, "y": LABELS[1:]}, "y.npy: has .* expected one integer for each of 4 images$"),
    "other counts, shared": ({"fog": IMAGES, "labels": LABELS[1:]}, "labels.npy: has .* for each of 4 images$"),
    "probabilities": (
        {"x": IMAGES, "y": np.full((4, 2), 0.5)},
        "y.npy: has .* expected one integer for each of 4 images$",
    ),
    "several labels": ({"x": IMAGES, "y": np.ones((4, 2), int)}, "y.npy: has .* row 0 has 2 of 2 classes"),
    "halves": (
        {"x": IMAGES, "y": LABELS / 2},
        "y.npy: row 0 is 1.5; expected integers, because each is the number of a",
    ),
    "no number": ({"x": IMAGES, "y": np.array([0, 1, np.nan, 2])}, "y.npy: row 2 is nan; expected integers"),
    "infinity": (
        {"x": IMAGES, "y": np.array([0, 1, 2, -np.inf], np.float32)},
        "y.npy: row 3 is -inf; expected integers",
    ),
    "huge": ({"x": IMAGES, "y": np.full(4, "1e400", np.longdouble)}, "y.npy: row 0 is inf; expected integers"),
    "times": ({"x": IMAGES, "y": LABELS.astype("M8[s]")}, "y.npy: has dtype datetime.* expected integers"),
    "texts of other counts": ({"x": IMAGES, "y": np.array(["a", "b"])}, "y.npy: has .* for each of 4 images$"),
    "no Unicode": ({"x": IMAGES, "y": np.array([b"\xff"] * 4)}, "y.npy: contains text that is not valid Unicode"),
    "texts and numbers": (
        {"x_train": IMAGES, "y_train": np.array(list("abca")), "x_test": IMAGES, "y_test": LABELS},
        "x_test.npy: labels are numbers, but names in .*x_train.npy; convert one at a time",
    ),
    "floats": ({"x": IMAGES / 255, "y": LABELS}, r"x.npy: has .* expected uint8 .*\(convert floats"),
    "planar": ({"x": IMAGES.transpose(0, 3, 1, 2).copy(), "y": LABELS}, "x.npy: has .* expected uint8 N x H x W x 3"),
    "fortran": ({"x": np.asfortranarray(IMAGES), "y": LABELS}, "x.npy: has .* expected C order"),
    "negative": ({"x": IMAGES, "y": LABELS - 2}, "x.npy: row 1: label -2 is outside"),
    "many classes": ({"x": IMAGES, "y": LABELS * 10**8}, "x.npy: has label 300000000; at most 100000 classes"),
    "labels alone": ({"labels": LABELS}, "no arrays of images found; expected x_train.npy and y_train.npy, or"),
    "other arrays": ({"weights": LABELS}, "no arrays of images found"),
    "two of a subset": (
        {"a_train_images": IMAGES, "train": IMAGES, "labels": LABELS},
        "subset 'train' is also in 'a_train_images.npy'; move one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case: str, tmp_path: Path) -> None:
    arrays, reason = REFUSED[case]
    source = write_arrays(tmp_path / "in", **arrays)
    with pytest.raises(InputError, match=reason) as caught:
        quickly(source, tmp_path / "out", "cifar", input_format="npy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:9], lambda _: b""]
)
@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_damaged_files_are_refused_by_name(name: str, damage: Any, tmp_path: Path) -> None:
    source = write_arrays(tmp_path / "in", x_train=IMAGES, y_train=LABELS)
    (source / f"{name}.npy").write_bytes(damage((source / f"{name}.npy").read_bytes()))
    with pytest.raises(InputError, match=f"{name}.npy: "):
        Dataset.import_from(source, "npy")


@pytest.mark.parametrize("arrays", [{"labels": LABELS}, {"features": IMAGES / 2}, {"x": LABELS}, {"weights": IMAGES}])
def test_other_directories_are_not_taken_for_it(arrays: Arrays, tmp_path: Path) -> None:
    assert not NpySource().looks_right(str(write_arrays(tmp_path / "in", **arrays)), "")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    source = write_arrays(tmp_path / "in", x=IMAGES, y=np.array([1, None, 2, 3], dtype=object))
    with pytest.raises(InputError, match="y.npy: has dtype object .* would need unpickling"):
        Dataset.import_from(source)


def test_files_of_one_class_each_are_read_as_quick_draw_has_them(tmp_path: Path) -> None:
    rows = {name: IMAGES.reshape(-1)[: count * 64].reshape(count, 64) for name, count in (("cat", 2), ("bee", 3))}
    folder = write_arrays(tmp_path / "in", **{f"full_numpy_bitmap_{name}": array for name, array in rows.items()})
    assert detect_format(str(folder), "") == "npy"
    catalog = NpySource().describe(str(folder), "")
    assert catalog.labels.names == ("bee", "cat")
    assert catalog.notices == (
        f"{folder}: each array has the images of a class, which has the name of the file (a guess: there are no labels, and "
        "all rows have 64 values)",
    )
    images = np.concatenate([rows["bee"], rows["cat"]]).reshape(-1, 8, 8)
    assert read_rows(folder, tmp_path / "out") == {"default": rows_of(images, [0, 0, 0, 1, 1])}
    ids = [item.id for item in Dataset.import_from(str(folder), "npy")]
    assert sorted(ids) == ["bee_0", "bee_1", "bee_2", "cat_0", "cat_1"]


@pytest.mark.parametrize("array", [np.zeros((2, 63), np.uint8), np.zeros((2, 64)), np.zeros((2, 49), np.uint8)])
def test_arrays_that_are_not_images_are_no_classes(array: Any, tmp_path: Path) -> None:
    assert detect_format(str(write_arrays(tmp_path / "in", cat=array, dog=array)), "") is None
