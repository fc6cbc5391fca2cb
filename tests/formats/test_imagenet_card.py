"""`datasets.load_dataset` finds every image of class folders in its split, whatever words are in names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from beam_cifar import Dataset
from beam_cifar.data.labels import LabelTable
from beam_cifar.formats.imagenet import ImagenetWithSubsetDirsSink, class_folders, subset_folder
from beam_cifar.formats.kit.cards import literal
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import contents, encoded, picture, quickly, write_tree

LAYOUTS = ["imagenet", "imagenet_with_subset_dirs"]
# Paths of classes and images, and whether a card is needed.
TREES = [
    (["cat/a.png", "dog/b.png"], False),
    (["cat/a.png", "train/b.png", "test set/c.png"], True),
    (["cat/train_1.png", "dog/a-test.png", "dog/b.png"], True),
    (["data/x-00000-of-00001.png", "dog/b.png"], True),
    (["training/a.png"], True),
]
LOAD = """
import json, os, sys
import datasets
found = {path: {} for path in sys.argv[1:]}
for path in found:
    for name, split in datasets.load_dataset(path).items():
        names = split.features["label"].names
        paths = split.cast_column("image", datasets.Image(decode=False))
        found[path][name] = sorted([names[row["label"]], os.path.basename(row["image"]["path"])] for row in paths)
print(json.dumps(list(found.values())))
"""

# Paths of subsets, classes and images; and the splits of the subsets, where a card is needed.
CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    "a class named train": (
        ["train/cat/a.png", "train/train/b.png", "test/cat/c.png", "test/train/d.png"],
        {"train": "train", "test": "test"},
    ),
    "a word in a class": (["train/cat/a.png", "test/test_tube/b.png"], {"train": "train", "test": "test"}),
    "subsets that are no words": (
        ["data_batch_1/cat/a.png", "data_batch_1/dog/b.png", "test_batch/cat/c.png"],
        {"data_batch_1": "data_batch_1", "test_batch": "test_batch"},
    ),
    "two words for one split": (["train/cat/a.png", "training/dog/b.png"], {"train": "train", "training": "training"}),
    "patterns and quotes": (
        ["a%2Fb/cat/e.png", "t[0-9] 'a'#{b}/cat/a.png", "t1 'a'#{b}/dog/b.png", "-]![/cat/c.png", "日本/cat/d.png"],
        {
            "a%2Fb": "a_b",
            "t[0-9] 'a'#{b}": "t_0_9___a___b_",
            "t1 'a'#{b}": "t1__a___b_",
            "-]![": "subset____",
            "日本": "subset__",
        },
    ),
    "names that become one, and all": (
        ["a b/cat/a.png", "a+b/dog/b.png", "all/cat/c.png"],
        {"a b": "a_b", "a+b": "a_b_2", "all": "all_2"},
    ),
    "words in ids of another subset": (
        ["extra/cat/train_1.png", "extra/dog/b.png", "train/cat/test_1.png"],
        {"extra": "extra", "train": "train"},
    ),
    "usual subsets": (
        ["train/cat/test_1.png", "train/dog/a.png", "val/cat/b.png", "val/dog/a.png", "test/dog/c.png"],
        {},
    ),
    "one subset": (["default/cat/a.png", "default/dog/b.png"], {}),
}


Rows = dict[str, list[list[str]]]


def loaded(paths: Iterable[Path], home: Path) -> list[Rows]:
    """What `datasets` finds in each folder: class and file name of each image in each split."""
    pytest.importorskip("datasets")
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: list[Rows] = json.loads(done.stdout.splitlines()[-1])
    return found


def written(paths: list[str], layout: str, root: Path) -> tuple[bool, list[str]]:
    """Converts images at some paths; returns whether there is a card, and the notices about it."""
    files = {path: encoded(picture(at, 8, 8)) for at, path in enumerate(paths)}
    source = write_tree(root / "in", files)
    notices = quickly(source, root / "plain", "imagenet", input_format=layout).notices if layout == "imagenet" else ()
    assert "README.md" not in contents(root / "plain")
    asked = quickly(source, root / root.name, layout, input_format=layout, card=layout == "imagenet").notices
    assert not [notice for notice in asked if "README.md" in notice]
    found = contents(root / root.name)
    card = found.pop("README.md", None) is not None
    assert found == files
    return card, [notice for notice in notices if "README.md" in notice]


def test_every_image_is_in_its_split_once(tmp_path: Path) -> None:
    wanted: dict[Path, Rows] = {}
    usual = {"train": "train", "val": "validation", "test": "test", "default": "train"}
    for at, (case, (paths, splits)) in enumerate(CASES.items()):
        root = tmp_path / f"set{at}"  # its name is part of the key of the cache of datasets
        assert written(paths, "imagenet_with_subset_dirs", root) == (bool(splits), []), case
        rows: Rows = {}
        for subset, *rest in (path.split("/") for path in paths):
            rows.setdefault((splits or usual)[subset], []).append(rest)
        wanted[root / root.name] = {split: sorted(found) for split, found in rows.items()}
    assert loaded(wanted, tmp_path / "home") == list(wanted.values())


def test_every_image_of_one_tree_is_found_once(tmp_path: Path) -> None:
    wanted: dict[Path, Rows] = {}
    for at, (paths, card) in enumerate(TREES):
        root = tmp_path / f"set{at}"  # its name is part of the key of the cache of datasets
        made, notices = written(paths, "imagenet", root)
        assert made == card, paths
        assert ["--card writes a README.md" in notice for notice in notices] == [True] * card
        wanted[root / root.name] = {"train": sorted(path.split("/") for path in paths)}
    assert loaded(wanted, tmp_path / "home") == list(wanted.values())


@pytest.mark.parametrize("target", LAYOUTS)
def test_our_readers_do_not_mind_the_card(target: str, tmp_path: Path) -> None:
    source = write_tree(
        tmp_path / "in",
        {
            f"{subset}/{name}/{subset}.png": encoded(picture(1))
            for subset in ("train", "extra")
            for name in ("cat", "testing")
        },
    )
    quickly(source, tmp_path / "out", target, card=True)
    assert (tmp_path / "out" / "README.md").is_file()
    assert detect_format(str(tmp_path / "out"), "") == target
    catalog = get_source(target).describe(str(tmp_path / "out"), "")
    assert catalog.labels.names == ("cat", "testing")
    assert catalog.notices == ()
    assert len(list(Dataset.import_from(str(tmp_path / "out")))) == 4


def test_no_folder_has_the_name_of_the_card() -> None:
    table = LabelTable(("README.md", "readme.md", "ReadMe.MD", "no_label"))
    folders = class_folders(table)
    assert len({folder.lower() for folder in folders} - {"readme.md", "no_label"}) == 4
    assert subset_folder("Readme.md") == "%52eadme.md"
    assert ImagenetWithSubsetDirsSink.subsets.written("README.md") == "%52EADME.md"


@pytest.mark.parametrize(("name", "pattern"), [("a[b]", "a[[]b]"), ("a*?", "a[*][?]"), ("a{b}!", "a{b}!")])
def test_a_pattern_matches_its_name_alone(name: str, pattern: str) -> None:
    assert literal(name) == pattern
