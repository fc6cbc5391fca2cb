"""The files of the genuine CIFAR datasets, from any dataset with the subsets train and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import BeamCifarError, Dataset
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, tree, unpickled

GENUINE = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]

PLANNERS: dict[str, dict[str, Any]] = {"counts": {}, "rows": {"steps": (make_step("map_subsets", {"mapping": {}}),)}}


def made(folder: Path, sizes: dict[str, int]) -> Path:
    """A dataset with these subsets."""
    found = {name: [f"{name}_{row}.png" for row in range(rows)] for name, rows in sizes.items()}
    batches = {
        name: batch(names, [row % 3 for row in range(len(names))], at) for at, (name, names) in enumerate(found.items())
    }
    return write_cifar(folder, batches, ["cat", "dog", "ship"])


def genuine(source: Path, output: Path, **options: Any) -> Any:
    return quickly(source, output, "cifar", save_images=True, layout="genuine", **options)


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("between", ["parquet", "webdataset", "imagenet_with_subset_dirs"])
def test_cifar10_comes_back_in_its_batches(between: str, planner: str, tmp_path: Path) -> None:
    source = made(tmp_path / "in", dict.fromkeys(GENUINE, 6))
    quickly(source, tmp_path / "between", between, subset_names="split")
    summary = genuine(tmp_path / "between", tmp_path / "out", **PLANNERS[planner])
    assert batch_names(tmp_path / "out") == GENUINE
    assert summary.subsets == dict.fromkeys(summary.subsets, 6)
    assert summary.notices == ()
    for split in (GENUINE[:5], GENUINE[5:]):
        found, expected = (cifar_rows(path, split) for path in (tmp_path / "out", source))
        assert found == expected or (between.startswith("imagenet") and sorted(found) == sorted(expected))
    labels = [unpickled(tmp_path / "out" / name)["batch_label"] for name in GENUINE]
    assert labels == [*(f"training batch {number} of 5" for number in range(1, 6)), "testing batch 1 of 1"]
    assert unpickled(tmp_path / "out" / "batches.meta")["num_cases_per_batch"] == 6


@pytest.mark.parametrize("planner", PLANNERS)
def test_unequal_batches_are_packed_anew(planner: str, tmp_path: Path) -> None:
    source = made(tmp_path / "in", {"data_batch_1": 11, "data_batch_2": 12, "test_batch": 4})
    summary = genuine(source, tmp_path / "out", **PLANNERS[planner])
    assert summary.subsets == dict(zip(GENUINE, (5, 5, 5, 5, 3, 4), strict=True))
    assert cifar_rows(tmp_path / "out", GENUINE[:5]) == cifar_rows(source, ["data_batch_1", "data_batch_2"])
    assert [n for n in summary.notices if "data_batch_5 has 3 images and the other batches 5" in n] == list(
        summary.notices
    )
    again = genuine(tmp_path / "out", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    assert again.notices == summary.notices


def test_cifar100_has_train_and_test(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "parquet", "parquet")
    genuine(tmp_path / "parquet", tmp_path / "out")
    assert set(batch_names(tmp_path / "out")) == {"train", "test"}
    for name in ("train", "test"):
        assert cifar_rows(tmp_path / "out", [name]) == cifar_rows(cifar100, [name])
    assert (tmp_path / "out" / "meta").exists()


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"train": 10}, {}, "found the subsets 'train'; expected train and test"),
        ({"test_batch": 10}, {}, "found the subsets 'test'; expected train and test"),
        ({"train": 10, "test": 1, "val": 2}, {}, "found the subsets 'test', 'train', 'val'; expected train and test"),
        ({"train": 11, "test": 2}, {}, "train has 11 images, which do not fill 5 batches of 3"),
        ({"train": 3, "test": 2}, {}, "train has 3 images, which do not fill 5 batches of 1"),
        ({"train": 5, "test": 2}, {"images_per_batch": 5}, "--layout decides the files"),
        ({"train": 5, "test": 2}, {"subset_names": "source"}, "--layout decides the files"),
        ({"train": 5, "test": 2}, {"layout": "own"}, "--layout must be one of genuine, found 'own'"),
        ({"train": 5, "test": 2}, {"target": "parquet"}, "--layout: parquet has only one layout"),
    ],
)
@pytest.mark.parametrize("planner", PLANNERS)
def test_what_does_not_fit_is_refused(
    sizes: dict[str, int], options: dict[str, Any], message: str, planner: str, tmp_path: Path
) -> None:
    source = made(tmp_path / "in", sizes)
    asked = {"target": "cifar", "layout": "genuine", **options, **PLANNERS[planner]}
    with pytest.raises(BeamCifarError, match=message) as caught:
        quickly(source, tmp_path / "out", **asked)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("planner", PLANNERS)
def test_images_of_other_sizes_which_loaders_would_misread_are_reported(planner: str, tmp_path: Path) -> None:
    pictures = {f"{s}/cat/{s}{at}.png": encoded(picture(at, 16, 16)) for s in ("train", "test") for at in range(5)}
    source = write_tree(tmp_path / "in", pictures)
    (notice,) = genuine(source, tmp_path / "out", **PLANNERS[planner]).notices
    assert "has images that are not 32 x 32: loaders of the genuine datasets fail" in notice
    assert notice.endswith("pass --resize 32x32")
    assert genuine(source, tmp_path / "same", resize=(32, 32), **PLANNERS[planner]).notices == ()


def test_saving_in_place_fills_the_batches_again(tmp_path: Path) -> None:
    """Files of the same name and size hold other rows when one is removed before them."""
    source = made(tmp_path / "in", {"train": 24, "test": 2})
    rows = cifar_rows(source, ["train"])
    dataset = Dataset.import_from(source)
    dataset.export(tmp_path / "out", "cifar", save_images=True, layout="genuine")
    reopened = next(item for item in dataset if item.id == "train_0")
    dataset.remove(reopened.id, reopened.subset).save()
    found = cifar_rows(tmp_path / "out", GENUINE[:5])
    assert found == rows[1:]
    assert [len(unpickled(tmp_path / "out" / name)["filenames"]) for name in GENUINE] == [5, 5, 5, 5, 3, 2]
    assert np.asarray(unpickled(tmp_path / "out" / "test_batch")["data"]).shape == (2, 3072)
