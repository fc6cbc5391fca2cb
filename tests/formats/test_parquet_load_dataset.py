"""Hugging Face `datasets` opens the Parquet output, with its default checks, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import ConvertOptions, convert
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import encoded, picture, quickly, write_tree
from tests.helpers.reading import batch_names, cifar_rows

LOAD = """
import hashlib, json, sys
import datasets, numpy
found = {}
for name, split in datasets.load_dataset(sys.argv[1]).items():
    labels = [column for column in split.column_names if column != "img"]
    rows = [
        [*(row[column] for column in labels), hashlib.sha256(numpy.asarray(row["img"]).transpose(2, 0, 1).tobytes()).hexdigest()]
        for row in split
    ]
    found[name] = {"rows": rows, "names": {column: split.features[column].names for column in labels}}
print(json.dumps(found))
"""


def loaded(path: Path, home: Path) -> dict[str, Any]:
    """What `datasets` finds in a folder: the rows and class names of each split."""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize(("kind", "renamed"), [("cifar10", "dog:Собака: \"a\" 'b'\n#"), ("cifar100", "rose:rosé")])
def test_load_dataset_gives_the_same_pixels_and_labels(
    kind: str, renamed: str, card: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    convert(
        ConvertOptions(
            str(source), str(tmp_path / "out"), "parquet", remaps=(renamed,), images_per_batch=400, card=card
        )
    )
    assert (tmp_path / "out" / "README.md").exists() == card
    found = loaded(tmp_path / "out", tmp_path / "home")
    for split, stem in {"train": ("data_batch", "train"), "test": ("test",)}.items():
        names = [name for name in batch_names(source) if name.startswith(stem)]
        expected = [
            [*([label] if kind == "cifar10" else [label, coarse]), hashlib.sha256(pixels).hexdigest()]
            for _, label, coarse, pixels in cifar_rows(source, names)
        ]
        assert found[split]["rows"] == expected
    old, _, new = renamed.partition(":")
    column = "label" if kind == "cifar10" else "fine_label"
    assert new in found["train"]["names"][column]
    assert old not in found["train"]["names"][column]


def test_every_split_is_found_by_its_name(tmp_path: Path) -> None:
    changed = {
        ".val": "subset_val",
        "_x": "subset_x",
        "a.b": "a.b",
        "a..c": "a__c",
        "dev set": "dev_set",
        "日": "subset_",
    }
    names = {**changed, "train": "train", "default": "default", "data_batch_1": "data_batch_1"}
    files = {f"{at}/{word}/{word}.png": encoded(picture(at)) for at in range(len(names)) for word in ("cat", "dog")}
    step = make_step("map_subsets", {"mapping": {str(at): name for at, name in enumerate(names)}})
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "out", "parquet", steps=(step,), subset_names="source")
    found = loaded(tmp_path / "out", tmp_path / "home")
    assert set(found) == set(names.values())
    assert {tuple(label for label, _ in split["rows"]) for split in found.values()} == {(0, 1)}
    assert all(split["names"] == {"label": ["cat", "dog"]} for split in found.values())
