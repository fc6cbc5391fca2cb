"""Dataset cards and Croissant files: what they say is what was written, and they are read by `datasets`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import Dataset
from tests.helpers.image_trees import batch, contents, quickly, write_cifar
from tests.helpers.reading import cifar_rows

pytestmark = pytest.mark.usefixtures("without_runner")
CARDS = {"README.md", "croissant.json"}
LOAD = """
import hashlib, json, sys
import datasets, numpy
print(json.dumps({
    name: [[row["cls"], hashlib.sha256(numpy.asarray(row["png"]).transpose(2, 0, 1).tobytes()).hexdigest()] for row in split]
    for name, split in datasets.load_dataset(sys.argv[1]).items()
}))
"""


def said(folder: Path) -> dict[str, Any]:
    """The Croissant file of a folder."""
    found: dict[str, Any] = json.loads((folder / "croissant.json").read_bytes())
    return found


@pytest.mark.parametrize("target", ["parquet", "webdataset"])
def test_cards_are_written_if_asked_for_and_are_the_same_bytes_each_time(
    target: str, cifar100: Path, tmp_path: Path
) -> None:
    for name, card in (("plain", False), ("once", True), ("twice", True)):
        quickly(cifar100, tmp_path / name, target, card=card, images_per_batch=150)
    plain, once = contents(tmp_path / "plain"), contents(tmp_path / "once")
    assert once.keys() - plain.keys() == CARDS
    assert {name: once[name] for name in plain} == plain
    assert contents(tmp_path / "twice") == once
    assert str(tmp_path).encode() not in b"".join(once.values())


@pytest.mark.parametrize("target", ["parquet", "webdataset"])
def test_nothing_is_said_that_is_not_known(target: str, cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", target, card=True)
    known = {"@context", "@type", "conformsTo", "description", "distribution", "name", "recordSet"}
    assert said(tmp_path / "out").keys() == known


def test_shards_have_their_digests(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "webdataset", card=True, images_per_batch=100)
    found = {each["contentUrl"]: each["sha256"] for each in said(tmp_path / "out")["distribution"] if "sha256" in each}
    shards = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").glob("*.tar")}
    assert found == shards
    assert len(shards) > 2


def test_classes_without_a_superclass_or_none_at_all_are_valid(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png"], [None])}, [])
    quickly(source, tmp_path / "out", "parquet", card=True)
    (images,) = said(tmp_path / "out")["recordSet"]
    assert "references" not in json.dumps(images)


def test_datasets_finds_the_shards_of_each_subset_by_the_card(tmp_path: Path) -> None:
    names = {"train": "train", "train-1": "train_1", "train 1": "train_1_", "日": "subset_"}
    batches = {name: batch([f"{name}.png", "x.png"], [at % 2, 1], 9 * at) for at, name in enumerate(names)}
    source = write_cifar(tmp_path / "in", batches)
    quickly(source, tmp_path / "out", "webdataset", card=True, subset_names="source", images_per_batch=1)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rows = {
        name: [[label, hashlib.sha256(pixels).hexdigest()] for _, label, _, pixels in cifar_rows(source, [name])]
        for name in names
    }
    assert sorted(found) == sorted(names.values())
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, rows.values()))
    assert found["train"] == rows["train"]


@pytest.mark.parametrize(("text", "names"), [("# mine\n", {"README.md"}), ("---\nlicense: mit\n---\n", CARDS)])
def test_saving_in_place_rewrites_cards_but_no_other_text(text: str, names: set[str], tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    quickly(source, tmp_path / "out", "webdataset")
    (tmp_path / "out" / "README.md").write_text(text)
    dataset = Dataset.import_from(str(tmp_path / "out"))
    dataset.filter('/item[id="a"]')
    dataset.save()
    assert contents(tmp_path / "out").keys() == {"labels.json", "train-000000.tar", *names}
    assert ((tmp_path / "out" / "README.md").read_text() == text) == (names != CARDS)
