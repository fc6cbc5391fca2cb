"""Open Images with labels of whole images: the CSV files as Python's own reader finds them, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.open_images import OpenImagesSink
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import batch, contents, encoded, images, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    names = ["a.png", "d/e, f.png", 'q"\n.png', "=1.png"]
    batches = {"train": batch(names, [1, 2, 0, None]), "test-1": batch(["b.png"], [0], 4)}
    classes = ["猫", 'a "b", c', "sea\nlion"]
    quickly(write_cifar(tmp_path / "in", batches, classes), tmp_path / "out", "open_images")
    folder = tmp_path / "out" / "annotations"
    with (folder / "class-descriptions.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [[name, name] for name in classes]
    found = table(folder / "train-images-with-rotation.csv")
    assert [(row["ImageID"], row["Subset"], row["Rotation"], len(row)) for row in found] == [
        (name, "train", "", 12) for name in ("a", "d/e, f", "q%22%0A", "=1")
    ]
    assert table(folder / "train-annotations-human-imagelabels.csv") == [
        {"ImageID": name, "Source": "verification", "LabelName": classes[label], "Confidence": "1"}
        for name, label in (("a", 1), ("d/e, f", 2), ("q%22%0A", 0))
    ]
    assert [row["ImageID"] for row in table(folder / "test-1-images-with-rotation.csv")] == ["b"]
    assert images(tmp_path / "out" / "images") == {
        "train/a.png": picture(0).tobytes(),
        "train/d/e, f.png": picture(1).tobytes(),
        "train/q%22%0A.png": picture(2).tobytes(),
        "train/=1.png": picture(3).tobytes(),
        "test-1/b.png": picture(4000).tobytes(),
    }
    assert len(contents(tmp_path / "out")) == 10


def test_an_id_in_two_subsets_is_refused_because_readers_look_for_it_in_all(tmp_path: Path) -> None:
    batches = {"train": batch(["x/a.png"], [0]), "test": batch(["x/a.png"], [1], 1)}
    with pytest.raises(UsageError, match=r"would become the same file.*--subset"):
        quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "open_images")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("cat", "cat"), ("cat", ""), ("cat", "\ud800")])
def test_classes_that_readers_cannot_tell_apart_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="which Datumaro refuses"):
        OpenImagesSink().check_labels(LabelTable(names))


def test_a_long_name_of_a_subset_is_one_name_of_files_and_folder(tmp_path: Path) -> None:
    quickly(write_cifar(tmp_path / "in", {"x" * 248: batch(["a.png"], [0])}), tmp_path / "out", "open_images")
    (name,) = [path.name for path in (tmp_path / "out" / "images").iterdir()]
    (row,) = table(tmp_path / "out" / "annotations" / f"{name}-images-with-rotation.csv")
    assert (row["ImageID"], row["Subset"]) == ("a", name)


# --- reading --------------------------------------------------------------------------------------------------------

CLASSES = "/m/1,Cat\n/m/2,Sea lion\n/m/3,Cat\n"
IMAGES = {f"images/train/{name}.jpg": encoded(picture(row), "JPEG") for row, name in enumerate("abc")}
TRAIN = "ImageID,Subset\na,train\nb,train\nc,train\n"
LABELS = (
    "ImageID,Source,LabelName,Confidence\n"
    "a,verification,/m/2,1\na,verification,/m/1,0\nb,crowdsource-verification,/m/1,1.0\nb,verification,/m/1,1\n"
)
PUBLISHED = {
    "oidv7-class-descriptions.csv": f"LabelName,DisplayName\n{CLASSES}",
    "oidv6-train-images-with-labels-with-rotation.csv": TRAIN,
    "oidv7-train-annotations-human-imagelabels.csv": LABELS,
    "validation-images-with-rotation.csv": "ImageID,Subset\nv,validation\nw,validation\n",
    "oidv7-val-annotations-human-imagelabels.csv": ("Confidence,LabelName,ImageID\n1,/m/3,v\n1,/m/3,w\n1,/m/2,gone\n"),
    "oidv7-test-annotations-human-imagelabels.csv": "ImageID,LabelName,Confidence\nt,/m/2,1\nt,/m/1,0\nu,/m/1,0\n",
    "oidv7-class-descriptions-boxable.csv": "/m/9,Box\n",
    "validation-annotations-bbox.csv": "ImageID\n",
}
"""Files as the project publishes them; of the validation images one was fetched, and the test images are below images/."""


def tree(folder: Path, texts: dict[str, str], files: dict[str, bytes]) -> Path:
    return write_tree(folder, files | {f"annotations/{name}": text.encode() for name, text in texts.items()})


def lists(listed: str, labels: str) -> dict[str, str]:
    """The files of a set with one subset."""
    return {
        "class-descriptions.csv": CLASSES,
        "train-images-with-rotation.csv": listed,
        "train-annotations-human-imagelabels.csv": labels,
    }


def rows_of(folder: Path) -> dict[str, list[tuple[str, str | None, bool]]]:
    """(file name, class, whether there are pixels) of the rows of a CIFAR directory, by subset."""
    names = unpickled(folder / "batches.meta")["label_names"]
    return {
        subset: [
            (name, None if label is None else names[label], pixels is not None)
            for name, label, _, pixels in cifar_rows(folder, [subset])
        ]
        for subset in batch_names(folder)
    }


def test_the_files_as_published_are_read(tmp_path: Path) -> None:
    others = {f"images/{name}.png": encoded(picture(9)) for name in ("validation/v", "t", "u", "extra")}
    source = tree(tmp_path / "in", PUBLISHED, {**IMAGES, **others})
    assert detect_format(str(source), str(tmp_path)) == "open_images"
    catalog = get_source("open_images").describe(str(source), str(tmp_path))
    assert catalog.notices == (
        f"{source}: 1 row without an image, such as 'w', which is not found",
        f"{source}: ignored 1 image that no row names, such as 'extra.png'",
        f"{source}/annotations/validation-images-with-rotation.csv: ignored 1 label of images that are not listed",
    )
    quickly(source, tmp_path / "out", "cifar", save_images=True)
    assert rows_of(tmp_path / "out") == {
        "train": [("a.jpg", "Sea lion", True), ("b.jpg", "/m/1", True), ("c.jpg", None, True)],
        "validation": [("v.png", "/m/3", True), ("w", "/m/3", False)],
        "test": [("t.png", "Sea lion", True), ("u.png", None, True)],
    }


DAMAGED = {
    "no list of classes": ("class-descriptions.csv", None, "expected one class-descriptions.csv"),
    "a class without a name": ("class-descriptions.csv", "/m/1\n", "line 1: found '/m/1'"),
    "a class twice": ("class-descriptions.csv", "/m/1,x\n/m/1,y\n", "line 2: found '/m/1,y'"),
    "no column of ids": ("train-images-with-rotation.csv", "id\na\n", "no column 'ImageID'"),
    "an empty list": ("train-images-with-rotation.csv", "", "no column 'ImageID'"),
    "a short row": ("train-images-with-rotation.csv", "ImageID,Subset\na\n", "line 2: has 1 value; expected 2"),
    "an open quote": ("train-images-with-rotation.csv", 'ImageID\n"a\n', "not valid CSV"),
    "bytes that are no text": ("train-images-with-rotation.csv", "ImageID\n\udcff\n", "not UTF-8"),
    "a confidence that is no number": (
        "train-annotations-human-imagelabels.csv",
        LABELS.replace(",1.0", ",high"),
        "Confidence is 'high'; expected a number from 0 to 1",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_list_is_refused_with_its_line(kind: str, tmp_path: Path) -> None:
    name, text, message = DAMAGED[kind]
    source = tree(tmp_path / "in", lists(TRAIN, LABELS), IMAGES)
    path = source / "annotations" / name
    path.unlink()
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        quickly(source, tmp_path / "out", "parquet", input_format="open_images")


BAD_ROWS = {
    "two labels": (TRAIN, f"{LABELS}b,verification,/m/2,1\n", r"row 1: has labels '/m/[12]' and '/m/[12]'"),
    "an unknown label": (TRAIN, LABELS.replace("/m/2", "/m/7"), "row 0: LabelName is '/m/7'; expected the id"),
    "an id twice": (f"{TRAIN}a,train\n", LABELS, "row 3: ImageID is 'a'; expected one that no other line has"),
    "an id that is empty": (f'{TRAIN}"",train\n', LABELS, "row 3: ImageID is ''; expected one"),
    "a path out of the folder": (f"{TRAIN}../../x,train\n", LABELS, "row 3: image path '../../x' leaves the image"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_refused_and_the_others_are_kept(kind: str, tmp_path: Path) -> None:
    listed, labels, message = BAD_ROWS[kind]
    other = {"test-images-with-rotation.csv": "ImageID\n"}
    source = tree(tmp_path / "in", lists(listed, labels) | other, IMAGES)
    with pytest.raises(InputError, match=message):
        quickly(source, tmp_path / "out", "cifar", save_images=True)
    quickly(source, tmp_path / "out", "cifar", save_images=True, on_error="quarantine", max_errors="50%")
    rows = rows_of(tmp_path / "out")["train"]
    assert len(rows) == listed.count("\n") - 2
    assert {row for row in rows if row[0] != "b.jpg"} <= {("a.jpg", "Sea lion", True), ("c.jpg", None, True)}
