"""The list of the items that `dedupe` removes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions
from beam_cifar.dataset.project import Project
from beam_cifar.errors import OutputError, UsageError
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import contents, encoded, manifest, picture, quickly, write_tree

PICTURES = {"train/cat/a.png": 1, "train/cat/b.png": 1, "train/dog/c.png": 2, "test/dog/d.png": 2, "test/cat/e.png": 3}


def rows(path: Path) -> list[tuple[dict[str, str], dict[str, str]]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(set(row) == {"removed", "kept", "digest"} and len(row["digest"]) == 32 for row in found)
    return [(row["removed"], row["kept"]) for row in found]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "in", {path: encoded(picture(seed, 8, 8)) for path, seed in PICTURES.items()})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [(("train", "b"), ("train", "a")), (("train", "c"), ("test", "d"))]),
        ({"scope": "subset"}, [(("train", "b"), ("train", "a"))]),
        ({"prefer": ["train"]}, [(("test", "d"), ("train", "c")), (("train", "b"), ("train", "a"))]),
    ],
)
def test_every_removed_item_is_listed_with_the_one_kept(
    options: dict[str, object], wanted: list[tuple[tuple[str, str], tuple[str, str]]], source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "removed.jsonl"
    quickly(source, tmp_path / "out", "npz", steps=(make_step("dedupe", {**options, "list_to": str(path)}),))
    assert rows(path) == [tuple({"subset": subset, "id": item} for subset, item in pair) for pair in wanted]


def test_the_list_is_in_no_manifest_and_no_key_but_in_projects(source: Path, tmp_path: Path) -> None:
    asked, plain = make_step("dedupe", {"list_to": str(tmp_path / "x.jsonl")}), make_step("dedupe", {})
    quickly(source, tmp_path / "a", steps=(asked,))
    quickly(source, tmp_path / "b", steps=(plain,))
    assert manifest(tmp_path / "a") == manifest(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first, second = (ConvertOptions("in", "out", "npz", steps=(step,)).meaning() for step in (asked, plain))
    assert first == second
    assert "x.jsonl" in Project("p", steps=(asked,)).text(str(tmp_path))


def test_a_list_is_left_if_equal_and_refused_if_other(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "removed.jsonl"
    step = make_step("dedupe", {"list_to": str(path)})
    for name in "ab":
        quickly(source, tmp_path / name, "npz", steps=(step,))
    path.write_text("mine\n")
    with pytest.raises(OutputError, match=r"removed\.jsonl: already exists with other content; remove it"):
        quickly(source, tmp_path / "c", "npz", steps=(step,))
    assert path.read_text() == "mine\n"
    assert {each.name for each in tmp_path.iterdir()} >= {"a", "b", "in", "removed.jsonl"}
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("path", ["", "s3://bucket/x.jsonl", "/"])
def test_what_is_no_local_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="--list"):
        make_step("dedupe", {"list_to": path})
