"""Kaggle's ImageNet: what is read is what its files say, and what does not fit them is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
DATA = "ILSVRC/Data/CLS-LOC"
VAL, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
HEADER = b"ImageId,PredictionString\n"
LINES = HEADER + b"val_2,n02 83 5 200 111 \r\nval_1,n03 1 2 3 4 n03 9 9 20 20 \r\n"
TEXTS = {
    MAPPING: b"n01 tench, Tinca tinca\nn02 crane\nn03 great white shark\nn04 crane\n",
    VAL: LINES,
    "LOC_train_solution.csv": HEADER + b"n02_9,n02 0 0 1 1 \n",
    "LOC_sample_submission.csv": HEADER + b"test_1,n01 0 0 1 1 \n",
    "ILSVRC/ImageSets/CLS-LOC/train_cls.txt": b"n01/n01_10 1\n",
    "ILSVRC/Annotations/CLS-LOC/val/val_1.xml": b"<annotation/>",
}
IMAGES = ("train/n01/n01_10.JPEG", "train/n01/n01_9.JPEG", "train/n03/n03_1.JPEG", "val/val_1.JPEG", "val/val_2.JPEG")
TEST = "test/test_1.JPEG"


def written(folder: Path, images: tuple[str, ...] = IMAGES, texts: dict[str, bytes] | None = None) -> Path:
    """A dataset of JPEG files, each with a picture of its own."""
    files = {f"{DATA}/{name}": encoded(picture(seed), "JPEG") for seed, name in enumerate(images)}
    return write_tree(folder, files | TEXTS | (texts or {}))


def labels(folder: Path, output: Path) -> dict[str, list[tuple[str, int | None]]]:
    quickly(folder, output, "cifar", save_images=True)
    return {
        subset: [(row[0], row[1]) for row in cifar_rows(output, [subset])]
        for subset in ("train", "val", "test")
        if (output / subset).exists()
    }


def test_labels_names_and_subsets_are_those_of_its_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", (*IMAGES, TEST))
    assert detect_format(str(folder), str(tmp_path)) == "imagenet_kaggle"
    assert labels(folder, tmp_path / "out") == {
        "train": [("n01_9.JPEG", 0), ("n01_10.JPEG", 0), ("n03_1.JPEG", 2)],
        "val": [("val_2.JPEG", 1), ("val_1.JPEG", 2)],
        "test": [("test_1.JPEG", None)],
    }
    names = ["tench, Tinca tinca", "n02", "great white shark", "n04"]  # two cranes
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == names


def test_it_may_be_called_imagenet(tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    found, own = (get_source(name).describe(str(folder), str(tmp_path)) for name in ("imagenet", "imagenet_kaggle"))
    assert found == own


def test_pixels_are_those_of_the_named_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    quickly(folder, tmp_path / "out", "imagenet_with_subset_dirs")
    source, copy = folder / DATA / "val" / "val_1.JPEG", tmp_path / "out" / "val" / "great white shark" / "val_1.JPEG"
    assert copy.read_bytes() == source.read_bytes()


def test_val_may_have_folders_of_classes_beside_the_list(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ("train/n01/a.JPEG", "val/n03/val_1.JPEG", "val/n02/val_2.JPEG"))
    found = labels(folder, tmp_path / "out")
    assert found == {"train": [("a.JPEG", 0)], "val": [("val_2.JPEG", 1), ("val_1.JPEG", 2)]}


def test_a_subset_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert labels(written(tmp_path / "in", ("train/n02/a.JPEG",)), tmp_path / "out") == {"train": [("a.JPEG", 1)]}


def test_missing_images_and_images_without_a_line_are_in_notices(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", (*IMAGES, "val/extra.JPEG"), {VAL: LINES + b"gone,n01 0 0 1 1 \n"})
    assert get_source("imagenet_kaggle").describe(str(folder), "").notices == (
        f"{folder}/{VAL}: 1 row without an image, such as 'gone.JPEG', which is not found",
        f"{folder}/{VAL}: ignored 1 image that no row names, such as 'extra.JPEG'",
    )


@pytest.mark.parametrize(
    ("texts", "images", "reason"),
    [
        ({MAPPING: b"n01 a\nn02 b\nn01 c\n"}, IMAGES, rf"{MAPPING}: 'n01' is on lines 1 and 3; remove one"),
        ({MAPPING: b"n01 a\n\nn02 b\n"}, IMAGES, rf"{MAPPING}: line 2: found ''; expected one name per line"),
        ({MAPPING: b"n01 \xff\n"}, IMAGES, rf"{MAPPING}: is not UTF-8"),
        ({}, ("train/n09/x.JPEG",), rf"train: row 0: is in folder 'n09', which is not a class in {MAPPING}"),
        ({}, ("train/x.JPEG",), r"train: row 0: is in folder ''"),
        ({VAL: HEADER + b"val_1,n07 0 0 1 1\n"}, IMAGES, rf"{VAL}: row 0: class is 'n07'; expected a comma"),
        ({VAL: HEADER + b"val_1;n01 0 0 1 1\n"}, IMAGES, rf"{VAL}: row 0: class is ''; expected a comma"),
        ({VAL: HEADER + b"val_1,n01 0 0 1 1 n02 0 0 1 1\n"}, IMAGES, rf"{VAL}: row 0: class is 'n01 n02'"),
        ({VAL: HEADER + b",n01 0 0 1 1\n"}, IMAGES, rf"{VAL}: row 0: has no file name; expected one before the first"),
        ({VAL: HEADER + b"../../x,n01 0 0 1 1\n"}, IMAGES, r"row 0: image path .* leaves the image folder"),
        ({VAL: LINES + b"val_1,n01 0 0 1 1\n"}, IMAGES, r"row 2: image 'val_1.JPEG' also has another class"),
        ({VAL: b"\xff\xfe\n"}, IMAGES, rf"{VAL}: line 1: is not UTF-8"),
        ({VAL: b"a" * 70_000}, IMAGES, rf"{VAL}: line 1: is longer than"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_row(
    texts: dict[str, bytes], images: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "in", images, texts)
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "cifar", save_images=True)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (VAL, rf"val: row 0: has no label, because {VAL} is missing; restore it"),
        (MAPPING, f"has no {MAPPING}; restore"),
    ],
)
def test_a_file_that_is_missing_does_not_make_images_unlabelled(name: str, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in")
    (folder / name).unlink()
    with pytest.raises(InputError, match=reason):
        quickly(folder, tmp_path / "out", "cifar")


def tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("path", ["in", "in/ILSVRC2012_img_train.tar", "classes"])
def test_the_official_tar_of_tars_is_refused_with_how_to_unpack_it(path: str, tmp_path: Path) -> None:
    classes = {f"n0000000{row}.tar": tar({f"n{row}_1.JPEG": encoded(picture(row), "JPEG")}) for row in range(2)}
    write_tree(tmp_path / "classes", classes)
    val = tar({"ILSVRC2012_val_00000001.JPEG": encoded(picture(3), "JPEG")})
    write_tree(tmp_path / "in", {"ILSVRC2012_img_train.tar": tar(classes), "ILSVRC2012_img_val.tar": val})
    with pytest.raises(InputError, match=r"unpack each into a folder of its name, such as n01440764.tar into n0144"):
        quickly(tmp_path / path, tmp_path / "out", "parquet")
