"""What rows have and an output lacks is reported once, by every planner, and --strict refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_cifar.errors import UsageError
from beam_cifar.formats.registry import get_sink, writable
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import encoded, picture, quickly, write_tree

SOURCES: dict[str, dict[str, Any]] = {
    "all": {"subsets": ("train", "test"), "classes": ("cat", "dog")},
    "one subset": {"subsets": ("train",), "classes": ("cat", "dog")},
    "batches of one split": {"subsets": ("data_batch_1", "data_batch_2"), "classes": ("cat", "dog")},
    "without labels": {"subsets": ("train",), "classes": ("no_label",)},
}

LOST = {
    ("all", "cifar"): ["pixels"],
    ("all", "parquet"): [],
    ("all", "webdataset"): [],
    ("all", "mnist"): ["colour", "ids"],
    ("all", "cifar_binary"): ["ids"],
    ("all", "voc_classification"): ["jpeg"],
    ("all", "imagenet"): ["subsets"],
    ("all", "imagenet_with_subset_dirs"): [],
    ("all", "image_dir"): ["labels", "subsets"],
    ("one subset", "imagenet"): [],
    ("one subset", "image_dir"): ["labels"],
    ("batches of one split", "imagenet"): [],
    ("without labels", "image_dir"): [],
    ("superclasses", "imagenet"): ["subsets", "superclasses"],
    ("superclasses", "parquet"): [],
    ("mnist", "mnist_csv"): [],
    ("mnist", "parquet"): [],
    ("mnist", "image_dir"): ["labels"],
}

OPTIONS: dict[str, dict[str, Any]] = {"cifar_binary": {"resize": (32, 32)}, "mnist": {"resize": (8, 8)}}


def made(name: str, folder: Path, cifar100: Path) -> Path:
    if name == "superclasses":
        return cifar100
    if name == "mnist":
        quickly(made("one subset", folder, cifar100), folder / "mnist", "mnist")
        return folder / "mnist"
    subsets, classes = SOURCES[name].values()
    files = {f"{s}/{c}/{s}{c}.png": encoded(picture(len(s), 8, 8)) for s in subsets for c in classes}
    return write_tree(folder / "in", files)


@pytest.mark.parametrize("planner", ["counts", "rows"])
@pytest.mark.parametrize(("source", "target"), LOST)
def test_an_output_says_what_it_lacks_of_what_the_rows_have(
    source: str, target: str, planner: str, cifar100: Path, tmp_path: Path
) -> None:
    lost = LOST[source, target]
    given = made(source, tmp_path, cifar100)
    options = OPTIONS.get(target, {}) | ({"steps": (make_step("shuffle", {}),)} if planner == "rows" else {})
    summary = quickly(given, tmp_path / "out", target, **options)
    assert list(summary.losses) == lost
    assert len([notice for notice in summary.notices if f"{target} output has no" in notice]) == bool(lost)
    assert json.loads((tmp_path / "out.beam_cifar" / "manifest.json").read_text())["losses"] == lost
    before = sorted(tmp_path.iterdir())
    if lost:
        with pytest.raises(UsageError, match=f"--strict: {target} output has no .*; nothing was written"):
            quickly(given, tmp_path / "strict", target, strict=True, **options)
        assert sorted(tmp_path.iterdir()) == before
    else:
        assert quickly(given, tmp_path / "strict", target, strict=True, **options).written == summary.written


def test_what_was_asked_for_is_not_lost(tmp_path: Path, cifar100: Path) -> None:
    source = made("all", tmp_path, cifar100)
    asked: dict[str, dict[str, Any]] = {
        "cifar": {"save_images": True},
        "voc_classification": {"image_ext": ".png"},
        "imagenet": {"subsets": ("test",)},
    }
    for target, options in asked.items():
        assert quickly(source, tmp_path / target, target, strict=True, **options).losses == ()


def test_only_formats_with_optional_pixels_write_none() -> None:
    assert [name for name in writable() if not get_sink(name).can.needs_images] == ["cifar"]
