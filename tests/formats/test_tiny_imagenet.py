"""Tiny ImageNet: what is read is what its files say, and what does not fit them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
LINES = b"val_0.JPEG\tn2\t0\t0\t1\t1\r\nval_1.JPEG\tn1\t0\t0\t1\t1\r\n"
TEXTS = {
    "wnids.txt": b"n2\nn1\nn3\n",
    "words.txt": b"n0\tentity\nn1\tgoldfish, Carassius auratus\nn2\tcrane\nn3\tcrane\n",
    "val/val_annotations.txt": LINES,
    "train/n1/n1_boxes.txt": b"n1_0.JPEG\t0\t0\t1\t1\n",
}
IMAGES = (
    "train/n1/images/n1_10.JPEG",
    "train/n1/images/n1_9.JPEG",
    "train/n2/images/n2_0.JPEG",
    "val/images/val_0.JPEG",
    "val/images/val_1.JPEG",
    "test/images/test_0.JPEG",
)


def written(folder: Path, images: tuple[str, ...] = IMAGES, **texts: bytes) -> Path:
    """A dataset of gray-ish JPEG files, each with a picture of its own."""
    files = {name: encoded(picture(seed), "JPEG") for seed, name in enumerate(images)}
    return write_tree(folder, files | TEXTS | texts)


def labels(folder: Path, output: Path) -> dict[str, list[tuple[str, int | None]]]:
    quickly(folder, output, "cifar", save_images=True)
    return {
        subset: [(row[0], row[1]) for row in cifar_rows(output, [subset])]
        for subset in ("train", "val", "test")
        if (output / subset).exists()
    }


def test_labels_names_and_subsets_are_those_of_its_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    assert detect_format(str(folder), str(tmp_path)) == "tiny_imagenet"
    assert labels(folder, tmp_path / "out") == {
        "train": [("n1_9.JPEG", 1), ("n1_10.JPEG", 1), ("n2_0.JPEG", 0)],
        "val": [("val_0.JPEG", 0), ("val_1.JPEG", 1)],
        "test": [("test_0.JPEG", None)],
    }
    names = ["n2", "goldfish, Carassius auratus", "n3"]  # two cranes
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == names


def test_val_may_have_folders_of_classes_and_words_may_be_missing(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ("train/n1/a.JPEG", "val/n2/b.JPEG", "val/n3/images/c.JPEG"))
    for name in ("words.txt", "val/val_annotations.txt"):
        (folder / name).unlink()
    found = labels(folder, tmp_path / "out")
    assert found == {"train": [("a.JPEG", 1)], "val": [("b.JPEG", 0), ("c.JPEG", 2)]}
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["n2", "n1", "n3"]


def test_missing_images_and_images_without_a_line_are_in_notices(tmp_path: Path) -> None:
    texts = {"val/val_annotations.txt": LINES + b"gone.JPEG\tn3\t0\t0\t1\t1\n"}
    folder = written(tmp_path / "in", (*IMAGES, "val/images/extra.JPEG"), **texts)
    notices = get_source("tiny_imagenet").describe(str(folder), "").notices
    shown = folder / "val" / "val_annotations.txt"
    assert notices == (
        f"{shown}: 1 row without an image, such as 'gone.JPEG', which is not found",
        f"{shown}: ignored 1 image that no row names, such as 'extra.JPEG'",
    )


@pytest.mark.parametrize(
    ("texts", "images", "reason"),
    [
        ({"wnids.txt": b"n2\nn1\nn2\n"}, IMAGES, r"wnids\.txt: 'n2' is on lines 1 and 3"),
        ({"wnids.txt": b"n2\n\nn1\n"}, IMAGES, r"wnids\.txt: line 2: found ''; expected one name per line"),
        ({"wnids.txt": b"n2\nn\xff\n"}, IMAGES, r"wnids\.txt: is not UTF-8"),
        ({"wnids.txt": b""}, IMAGES, r"train: row 0: is in folder 'n1', which is not a class in wnids\.txt"),
        ({"words.txt": b"n1\t\xff\n"}, IMAGES, r"words\.txt: line 1: is not UTF-8"),
        ({}, ("train/n9/images/x.JPEG",), r"train: row 0: is in folder 'n9'"),
        ({}, ("train/x.JPEG",), r"train: row 0: is in folder ''"),
        (
            {"val/val_annotations.txt": b"val_0.JPEG n1\n"},
            IMAGES,
            r"annotations\.txt: row 0: class is ''; expected a tab",
        ),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn7\n"}, IMAGES, r"annotations\.txt: row 0: class is 'n7'"),
        ({"val/val_annotations.txt": b"\tn1\n"}, IMAGES, r"annotations\.txt: row 0: has no file name"),
        ({"val/val_annotations.txt": b"../../x.JPEG\tn1\n"}, IMAGES, r"row 0: image path .* leaves the image folder"),
        (
            {"val/val_annotations.txt": LINES + b"val_1.JPEG\tn2\n"},
            IMAGES,
            r"row 2: image 'val_1.JPEG' also has another",
        ),
        ({"val/val_annotations.txt": b"\xff\xfe\t\n"}, IMAGES, r"annotations\.txt: line 1: is not UTF-8"),
        ({"val/val_annotations.txt": b"a" * 70_000}, IMAGES, r"annotations\.txt: line 1: is longer than"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_row(
    texts: dict[str, bytes], images: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "in", images, **texts)
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "cifar", save_images=True)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_annotations_that_are_missing_do_not_make_images_unlabelled(tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(InputError, match=r"val: row 0: has no label, because val/val_annotations\.txt is missing"):
        quickly(folder, tmp_path / "out", "cifar")
