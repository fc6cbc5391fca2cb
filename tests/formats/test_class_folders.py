"""Folders of classes as people have them: names that look alike, numbers, and what systems leave behind."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from beam_cifar import validate
from beam_cifar.formats.registry import get_source
from beam_cifar.jobs import serial
from beam_cifar.naming.components import alike_names
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import encoded, picture, quickly, write_tree

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


def folder(root: Path, *paths: str) -> Path:
    """A picture of its own at each path."""
    return write_tree(root, {path: encoded(picture(at, 8, 8)) for at, path in enumerate(paths)})


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([NFC, "tea", NFD], rf"classes 'caf\\xe9' and 'cafe\\u0301' differ .* --remap '{NFD}:{NFC}'$"),
        ([NFD, NFC], rf"classes 'caf\\xe9' and 'cafe\\u0301' differ .* --remap '{NFD}:{NFC}'$"),
        (["Cat", "cat", "CAT"], r"classes 'Cat' and 'cat' differ .* --remap 'cat:Cat'$"),
        (["A", "B", "a", "b"], r"2 groups of classes, such as 'A' and 'a', differ .* --remap 'a:A'$"),
        (["a b", "A b"], r"--remap 'A b:a b'$"),
    ],
)
def test_class_names_that_differ_only_in_form_or_case_are_one_notice(names: list[str], shown: str) -> None:
    (notice,) = alike_names(names)
    assert re.search(shown, notice), notice


def test_classes_that_all_differ_are_no_notice() -> None:
    assert alike_names(["cat", "cats", "café", "cafe"]) == []


@pytest.mark.parametrize("steps", [False, True], ids=["counts", "rows"])
def test_a_class_in_two_forms_is_told_by_every_command_until_it_is_joined(steps: bool, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", f"train/{NFC}/1.png", f"test/{NFD}/2.png", "train/tea/3.png")
    told = quickly(source, tmp_path / "out", "npz", steps=(make_step("reindex", {}),) if steps else ()).notices
    assert [notice for notice in told if "Unicode form" in notice] == alike_names([NFC, NFD])
    assert alike_names([NFC, NFD])[0] in validate(str(source)).findings[0].examples
    joined = quickly(source, tmp_path / "joined", "npz", remaps=(f"{NFD}:{NFC}",))
    assert not any("Unicode form" in notice for notice in joined.notices)
    assert joined.labels[NFC] == 2


@pytest.mark.parametrize(
    ("names", "order", "told"),
    [
        (["0", "1", "2", "10"], ["0", "1", "2", "10"], True),
        (["10", "9", "100"], ["9", "10", "100"], True),
        (["00", "01", "10"], ["00", "01", "10"], False),
        (["1", "2", "10", "x"], ["1", "10", "2", "x"], False),
    ],
)
@pytest.mark.parametrize("top", ["", "train/"], ids=["imagenet", "imagenet_with_subset_dirs"])
def test_numbered_class_folders_are_in_the_order_of_numbers(
    top: str, names: list[str], order: list[str], told: bool, tmp_path: Path
) -> None:
    source = folder(tmp_path / "in", *(f"{top}{name}/i{name}.png" for name in names), f"{top}no_label/u.png")
    found = get_source("imagenet_with_subset_dirs" if top else "imagenet").describe(str(source), "")
    assert list(found.labels.names) == order
    assert any("class folders are numbers" in notice for notice in found.notices) == told
