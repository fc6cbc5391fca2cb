"""Open Images with labels of whole images: the CSV files as Python's own reader finds them, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import UsageError
from beam_cifar.formats.open_images import OpenImagesSink
from tests.helpers.image_trees import batch, contents, images, picture, quickly, write_cifar

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
