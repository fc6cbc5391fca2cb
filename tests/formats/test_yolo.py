"""Folders for YOLO classification: what Ultralytics finds in them, and what is told or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beam_cifar.errors import InputError, UsageError
from beam_cifar.steps.base import Step
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import batch, encoded, folders, images, picture, quickly, write_cifar, write_tree

CLASSES = ("bird", "cat", "dog")
pytestmark = pytest.mark.usefixtures("without_runner")


def written(root: Path, *paths: str) -> Path:
    """A picture of its own at each path."""
    return write_tree(root, {path: encoded(picture(at, 8, 8)) for at, path in enumerate(paths)})


def ultralytics(root: Path) -> dict[str, dict[str, int]]:
    """The index of each image, as torchvision's ImageFolder numbers it: by the sorted folders of its split."""
    found: dict[str, dict[str, int]] = {}
    for split in sorted(path.name for path in root.iterdir()):
        names = sorted(path.name for path in (root / split).iterdir())
        found[split] = {
            path.name: names.index(path.parent.name) for path in sorted((root / split).rglob("*")) if path.is_file()
        }
    return found


def test_batches_become_splits_and_every_class_has_one_index_in_all_of_them(tmp_path: Path) -> None:
    batches = {
        "data_batch_1": batch(["a.png", "b.png"], [0, 1]),
        "data_batch_2": batch(["c.png"], [2], 1),
        "test_batch": batch(["d.png"], [2], 2),
    }
    source = write_cifar(tmp_path / "in", batches, CLASSES)
    summary = quickly(source, tmp_path / "out", "yolo")
    assert ultralytics(tmp_path / "out") == {"train": {"a.png": 0, "b.png": 1, "c.png": 2}, "test": {"d.png": 2}}
    assert images(tmp_path / "out")["test/dog/d.png"] == picture(2000).tobytes()
    assert {"test/bird", "test/cat"} <= folders(tmp_path / "out")
    assert not any("Ultralytics" in notice for notice in summary.notices)


@pytest.mark.parametrize(
    ("subset", "split"),
    [("default", "train"), ("Training", "train"), ("valid", "val"), ("validation", "val"), ("testing", "test")],
)
def test_other_words_for_a_split_are_replaced_and_told(subset: str, split: str, tmp_path: Path) -> None:
    source = written(tmp_path / "in", f"{subset}/bird/1.png", f"{subset}/cat/2.png")
    summary = quickly(source, tmp_path / "out", "yolo", input_format="imagenet_with_subset_dirs")
    assert ultralytics(tmp_path / "out") == {split: {"1.png": 0, "2.png": 1}}
    assert f"subset '{subset}' is written as '{split}', the name that readers look for" in summary.notices
    missing = {"train": "no folder val", "val": "no folder train", "test": "no folder train"}[split]
    assert any(f"there is {missing}, which Ultralytics needs" in notice for notice in summary.notices)


@pytest.mark.parametrize("steps", [(), (make_step("shuffle", {}),)], ids=["counts", "rows"])
@pytest.mark.parametrize(
    ("paths", "options", "said"),
    [
        (
            ["extra/cat/1.png"],
            {},
            r"^subset 'extra': readers look for train, val, test alone; .*'map_subsets -s extra:",
        ),
        (["train/cat/1.png", "default/cat/2.png"], {}, "would both become 'train'"),
        (["train/cat/1.png", "train/no_label/2.png"], {}, "label"),
        (["data_batch_1/cat/1.png"], {"subset_names": "source"}, "^subset 'data_batch_1': readers look for"),
    ],
)
def test_what_ultralytics_would_not_find_is_refused(
    paths: list[str], options: dict[str, Any], said: str, steps: tuple[Step, ...], tmp_path: Path
) -> None:
    source = written(tmp_path / "in", *paths)
    with pytest.raises((InputError, UsageError), match=said):
        quickly(source, tmp_path / "out", "yolo", input_format="imagenet_with_subset_dirs", steps=steps, **options)
    assert not (tmp_path / "out").exists()


def test_another_order_of_classes_is_told(tmp_path: Path) -> None:
    rows = {name: batch([f"{name}.png"], [0], 1) for name in ("train", "val")}
    source = write_cifar(tmp_path / "in", rows, ("dog", "cat"))
    notices = quickly(source, tmp_path / "out", "yolo").notices
    assert "classes are not in the order of their folder names: Ultralytics assigns other label ids" in notices
    assert ultralytics(tmp_path / "out") == {"train": {"train.png": 1}, "val": {"val.png": 1}}


def test_images_that_ultralytics_skips_become_png(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"train/cat/1.gif": encoded(picture(1, 8, 8, 1), "GIF")})
    quickly(source, tmp_path / "out", "yolo")
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["1.png"]


@pytest.mark.parametrize(("small", "said"), [(1, "1 image has"), (2, "2 images have"), (0, "")])
def test_images_that_ultralytics_finds_too_small_are_told(small: int, said: str, tmp_path: Path) -> None:
    sizes = [(9, 10), (10, 9)][:small] + [(10, 10)] * 2
    files = {f"train/cat/{at}.png": encoded(picture(at, *size)) for at, size in enumerate(sizes)}
    notices = quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "yolo").notices
    found = [notice for notice in notices if "pixels a side" in notice]
    assert [notice.partition(" fewer than 10 ")[0] for notice in found] == [said] * bool(said)
