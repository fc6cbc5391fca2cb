"""SVHN's MATLAB files: which pixels and digits are read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError
from beam_cifar.formats.kit import matlab
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import quickly, write_tree
from tests.helpers.matlab import header, mat_file, matrix, part

pytestmark = pytest.mark.usefixtures("without_runner")

ROWS = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 7, 5, 3), dtype=np.uint8)
X = PIXELS.transpose(1, 2, 3, 0)
Y = np.array([[1], [10], [9], [3], [10], [2]], np.uint8)
DIGITS = [1, 0, 9, 3, 0, 2]


def check(path: Path, folder: Path, subset: str = "train", rows: int = ROWS) -> None:
    quickly(path, folder, "npz")
    with np.load(folder / f"{subset}.npz") as found:
        assert np.array_equal(found["images"], PIXELS[:rows])
        assert found["labels"].tolist() == DIGITS[:rows]
        assert found["label_names"].tolist() == list("0123456789")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("labels", ["u1", "i4", "u2"])
def test_images_and_digits_are_those_in_the_arrays(labels: str, packed: bool, order: str, tmp_path: Path) -> None:
    data = mat_file(order, packed=packed, other=np.ones((2, 2)), X=X, y=Y.astype(labels))
    source = write_tree(tmp_path / "in", {"train_32x32.mat": data, "extra_32x32.mat": data, "readme": b""})
    assert detect_format(str(source), str(tmp_path)) == "svhn"
    check(source, tmp_path / "out")
    check(source / "extra_32x32.mat", tmp_path / "one", "extra")


@pytest.mark.parametrize("rows", [1, 3])
def test_few_labels_are_in_their_tag(rows: int, tmp_path: Path) -> None:
    images = X[..., 0] if rows == 1 else X[..., :rows]
    source = write_tree(tmp_path / "in", {"test_32x32.mat": mat_file(X=images, y=Y[:rows])})
    check(source, tmp_path / "out", "test", rows)


def test_a_label_outside_1_to_10_is_a_bad_row(tmp_path: Path) -> None:
    labels = Y.copy()
    labels[2] = 0
    source = write_tree(tmp_path / "in", {"train_32x32.mat": mat_file(X=X, y=labels)})
    with pytest.raises(InputError, match="train_32x32.mat: row 2: label 0 is outside .* 1 to 10"):
        quickly(source, tmp_path / "out", "npz")


def test_scipy_writes_what_is_read(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.io")
    for packed in (False, True):
        folder = tmp_path / str(packed)
        folder.mkdir()
        scipy.savemat(folder / "train_32x32.mat", {"X": X, "y": Y}, do_compression=packed)
        check(folder, tmp_path / f"out-{packed}")


GOOD = mat_file(X=X, y=Y)
PACKED = mat_file(packed=True, X=X, y=Y)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "32x32.mat: "),
    "no header": (b"text" * 50, "is not a MATLAB 5 file; expected one saved with -v7 or older"),
    "version 7.3": (header(version=0x0200, text=b"MATLAB 7.3 MAT-file") + bytes(400), "is a MATLAB 7.3 file .HDF5."),
    "no arrays": (header(), "has no array 'X'"),
    "no labels": (mat_file(X=X), "has no array 'y'"),
    "cut": (GOOD[:-100], "has an element of type 14 and [0-9]+ bytes"),
    "cut tag": (GOOD + b"123", "too short"),
    "cut when packed": (PACKED[:-100], "has an element of type 15"),
    "damaged when packed": (PACKED[:200] + bytes(40) + PACKED[240:], "cannot be parsed|damaged"),
    "another element": (GOOD + part(2, bytes(16)), "has an element of type 2 and 16 bytes"),
    "twice": (GOOD + matrix("y", Y), "y: occurs twice"),
    "other counts": (mat_file(X=X, y=Y[1:]), "y: has .* expected one integer for each of 6 images"),
    "float labels": (mat_file(X=X, y=Y / 2), "y: has dtype float64 .* expected integers"),
    "float images": (mat_file(X=X / 2, y=Y), "X: has dtype float64 .* expected uint8 H x W x 3 x N"),
    "images in another order": (mat_file(X=PIXELS, y=Y), r"X: has .* expected uint8 H x W x 3 x N"),
    "sides of another size": (
        header() + matrix("X", X, sides=(7, 5, 3, 2**31 - 1)) + matrix("y", Y),
        r"X: an array of u1 and sides \(7, 5, 3, 2147483647\) takes 225485782935 bytes, but the file has 630",
    ),
    "sides below zero": (header() + matrix("X", X, sides=(-7, -5, 3, ROWS)), r"X: has sides \(-7, -5, 3, 6\)"),
    "complex": (header() + matrix("X", X, flags=0x0809), "X: is not an array of real numbers"),
    "a struct": (header() + matrix("X", X, flags=2), "X: is not an array of real numbers"),
    "many arrays": (header() + matrix("z", Y) * 101, "has more than 100 arrays"),
    "a long name": (header() + matrix("x" * 5000, Y), "flags, sides or name of an array have 5,000 bytes"),
    "more after the array": (
        header()
        + (lambda data: data[:4] + (len(data) + 8).to_bytes(4, "little") + data[8:] + bytes(16))(matrix("X", X)),
        "X: its element does not end after the array",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_and_hostile_files_are_refused_in_a_line(case: str, tmp_path: Path) -> None:
    data, reason = BAD[case]
    source = write_tree(tmp_path / "in", {"train_32x32.mat": data})
    with pytest.raises(InputError, match=reason) as caught:
        quickly(source, tmp_path / "out", "npz")
    assert "train_32x32.mat" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "RATIO_FREE_BYTES", 1 << 16)
    data = mat_file(packed=True, X=np.zeros((32, 32, 3, 100), np.uint8), y=np.ones((100, 1), np.uint8))
    source = write_tree(tmp_path / "in", {"train_32x32.mat": data})
    with pytest.raises(InputError, match="X: unpacks to 307200 bytes, more than 100 times"):
        Dataset.import_from(source)


@pytest.mark.parametrize("packed", [False, True])
def test_files_with_random_damage_are_read_or_refused_but_never_fail_otherwise(packed: bool, tmp_path: Path) -> None:
    good, chance = mat_file(packed=packed, X=X, y=Y), np.random.default_rng(7)
    for number in range(150):
        data = bytearray(good)
        for at in chance.integers(0, len(data) if packed else 250, 2):
            data[at] = chance.choice([0, 1, 127, 128, 255])
        (tmp_path / "train_32x32.mat").write_bytes(data)
        try:
            found = matlab.unpack_matrices(str(tmp_path / "train_32x32.mat"), str(tmp_path / str(number)), ("X", "y"))
        except InputError:
            continue
        assert set(found) <= {"X", "y"}


def test_other_directories_are_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("train.mat", "imagelabels.mat", "train_32x32.txt"):
        assert detect_format(str(write_tree(tmp_path / name, {name: GOOD})), str(tmp_path)) is None
