"""A split stands for all its batches wherever a subset is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beam_cifar.errors import UsageError
from beam_cifar.naming.subsets import subsets_meant
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import batch, quickly, write_cifar

BATCHES = ["data_batch_1", "data_batch_2", "test_batch"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three batches of two images; the second image of each is the same."""
    batches = {name: batch([f"{name}a.png", f"{name}b.png"], [0, 1], at) for at, name in enumerate(BATCHES)}
    for content in batches.values():
        content["data"][1] = 7
    return write_cifar(tmp_path_factory.mktemp("split") / "in", batches)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("train", BATCHES, BATCHES[:2]),
        ("test", BATCHES, BATCHES[2:]),
        ("data_batch_2", BATCHES, BATCHES[1:2]),
        ("train", ["train", "data_batch_1", "x"], ["train", "data_batch_1"]),
        ("val", ["train_data_batch_1", "val_data"], ["val_data"]),
    ],
)
def test_a_name_means_a_subset_and_the_batches_of_a_split(name: str, known: list[str], meant: list[str]) -> None:
    assert subsets_meant(name, known) == meant


def test_an_unknown_name_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(UsageError, match="unknown subset 'trian'; did you mean 'train'"):
        subsets_meant("trian", BATCHES)


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ('/item[subset="train"]', BATCHES[:2]),
        ("/item['train' = subset]", BATCHES[:2]),
        ('/item[subset!="train"]', BATCHES[2:]),
        ('/item[not(subset = "train")]', BATCHES[2:]),
        ('/item/subset[text()="test"]', BATCHES[2:]),
        ('/item[subset="test" or subset="data_batch_2"]', BATCHES[1:]),
        ('/item[subset="train" and subset!="data_batch_2"]', BATCHES[:1]),
        ('/item[starts-with(subset, "data_batch")]', BATCHES[:2]),
        ('/item[subset="test_batch"]', BATCHES[2:]),
    ],
)
@pytest.mark.parametrize("steps", [False, True], ids=["counts", "rows"])
def test_filters_take_a_split_for_its_batches(
    expression: str, kept: list[str], steps: bool, source: Path, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"steps": (make_step("reindex", {}),)} if steps else {}
    summary = quickly(source, tmp_path / "out", "npz", filter=expression, **more)
    assert {name for name, rows in summary.subsets.items() if rows} == set(kept)


@pytest.mark.parametrize(
    ("name", "options", "subsets"),
    [
        ("dedupe", {}, {"data_batch_1": 1, "data_batch_2": 1, "test_batch": 2}),
        ("dedupe", {"prefer": ["train"]}, {"data_batch_1": 2, "data_batch_2": 1, "test_batch": 1}),
        ("dedupe", {"prefer": ["data_batch_2"]}, {"data_batch_1": 1, "data_batch_2": 2, "test_batch": 1}),
        ("map_subsets", {"mapping": [("train", "x")]}, {"x": 4, "test_batch": 2}),
        ("map_subsets", {"mapping": [("data_batch_2", "y"), ("train", "x")]}, {"x": 2, "y": 2, "test_batch": 2}),
        ("remove_items", {"ids": [("test_batcha", "test")]}, {"data_batch_1": 2, "data_batch_2": 2, "test_batch": 1}),
    ],
)
def test_transforms_take_a_split_for_its_batches(
    name: str, options: dict[str, Any], subsets: dict[str, int], source: Path, tmp_path: Path
) -> None:
    found = quickly(source, tmp_path / "out", "npz", steps=(make_step(name, options),))
    assert {each: rows for each, rows in found.subsets.items() if rows} == subsets


def test_a_sample_of_a_split_is_taken_from_all_its_batches(source: Path, tmp_path: Path) -> None:
    step = make_step("random_sampler", {"subset": "train", "count": 1})
    found = quickly(source, tmp_path / "out", "npz", steps=(step,))
    assert found.written == 3
    assert found.subsets["test_batch"] == 2


def test_dedupe_says_which_side_lost(source: Path, tmp_path: Path) -> None:
    (notice,) = quickly(source, tmp_path / "out", "npz", steps=(make_step("dedupe", {}),)).notices
    assert notice.endswith(
        "2 of an item in another (1 of 'data_batch_1' to 'test_batch', 1 of 'data_batch_2' to 'test_batch')"
    )
