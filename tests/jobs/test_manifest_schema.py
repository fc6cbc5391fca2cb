"""Every kind of manifest is what `manifest.schema.json` says, and the page about it has every field."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from beam_cifar import Dataset, Example, LabelTable, WriteExamples
from beam_cifar.jobs.manifest import MANIFEST_VERSION
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import make_runner, pipeline_options
from beam_cifar.steps.registry import make_step
from tests.helpers import ROOT
from tests.helpers.image_trees import batch, manifest, quickly, write_cifar, write_tree

SCHEMA: dict[str, Any] = json.loads(files("beam_cifar").joinpath("manifest.schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")


def check(found: dict[str, Any]) -> dict[str, Any]:
    """Refuses a manifest that is not what the schema says."""
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(SCHEMA)
    assert not [f"{list(error.path)}: {error.message[:200]}" for error in validator(SCHEMA).iter_errors(found)]
    assert next(iter(found)) == "manifest_version"
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = {"a": batch(["1.png", "2.png"], [0, 1]), "b:c": batch(["3.png"], [None], seed=1)}
    return write_cifar(tmp_path / "in", rows, ("cat", "no/dog"))


def test_files_of_many_rows(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "npz", subsets=("a",), remaps=("cat:dog",))
    assert set(check(manifest(tmp_path / "out"))["shards"][0]) == {"path", "subset", "rows", "bytes", "sha256"}


def test_a_file_for_every_image_and_names_that_change(source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "imagenet_with_subset_dirs")
    found = check(manifest(tmp_path / "out"))
    assert found["renamed"] == {"classes": {"no%2Fdog": "no/dog"}, "subsets": {"b%3Ac": "b:c"}}
    assert {"files", "listing"} <= set(found["shards"][0])


def test_rows_chosen_one_by_one(source: Path, tmp_path: Path) -> None:
    steps = (make_step("remap_labels", {"mapping": [("cat", "bird")]}),)
    quickly(source, tmp_path / "out", "parquet", steps=steps, merged=(Input(str(source)),), on_clash="suffix")
    assert check(manifest(tmp_path / "out"))["options"]["merged"]


def test_files_that_stay_where_a_set_is_saved_in_place(source: Path, tmp_path: Path) -> None:
    write_tree(source, {"readme.html": b"x"})
    Dataset.import_from(source).remove("1", "a").save()
    entry = check(manifest(source))["files"][-1]
    assert (entry["path"], entry["foreign"]) == ("readme.html", True)


def test_a_pipeline_of_ones_own(tmp_path: Path) -> None:
    made = [Example("1", "train", bytes(12), "raw", 2, 2, 3, 0, "1.png")]
    options = pipeline_options((), 1)
    with beam.Pipeline(runner=make_runner(options), options=options) as line:
        examples = line | beam.Create(made).with_output_types(Example)
        _ = examples | WriteExamples(str(tmp_path / "out"), "npz", LabelTable(("a",)))
    assert "job" not in check(manifest(tmp_path / "out"))


def test_the_page_has_every_field_of_the_schema() -> None:
    assert SCHEMA["properties"]["manifest_version"]["const"] == MANIFEST_VERSION
    assert [name for name in SCHEMA["properties"] if f"\n| `{name}` |" not in PAGE] == []
    objects = [each.get("items", each) for each in SCHEMA["properties"].values()]
    assert {name for each in objects for name in each.get("properties", {}) if f"`{name}`" not in PAGE} == {
        "output_format"
    }
