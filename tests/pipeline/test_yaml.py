"""Pipelines of Beam YAML, run by Beam's own command."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_cifar import ConvertOptions, convert
from beam_cifar.beam import labels_of, yaml_providers
from beam_cifar.errors import InputError
from tests.helpers import ROOT
from tests.helpers.reading import tree

pytest.importorskip("docstring_parser", reason="Beam YAML has other libraries in the oldest version")


def run(transforms: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a pipeline of YAML."""
    content = {
        "pipeline": {"type": "composite", "transforms": transforms},
        "providers": [{"include": yaml_providers()}],
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, "-m", "apache_beam.yaml.main", f"--yaml_pipeline_file={folder}/pipeline.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "--runner=FnApiRunner"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_pipeline_of_yaml_writes_what_the_command_line_writes(cifar10: Path, tmp_path: Path) -> None:
    expression = '/item[annotation/label="cat" or annotation/label="dog"]'
    data = str(cifar10)
    done = run(
        [
            {
                "type": "ReadImageDataset",
                "name": "Read",
                "config": {"path": [data], "error_handling": {"output": "bad"}},
            },
            {
                "type": "FilterImages",
                "name": "Pets",
                "input": "Read.good",
                "config": {"filter": expression, "labels": data},
            },
            {
                "type": "RemapLabels",
                "name": "Renamed",
                "input": "Pets",
                "config": {"renamings": {"cat": "pet", "dog": "pet"}, "labels": data},
            },
            {"type": "ResizeImages", "name": "Small", "input": "Renamed", "config": {"height": 16, "width": 12}},
            {
                # Its rows have their fields in another order.
                "type": "MapToFields",
                "name": "Rows",
                "input": "Small",
                "config": {
                    "fields": {
                        name: name
                        for name in (
                            *("order", "label", "filename", "image", "encoding", "width"),
                            *("height", "channels", "subset", "id"),
                        )
                    }
                },
            },
            {
                "type": "WriteImageDataset",
                "name": "Write",
                "input": "Rows",
                "config": {
                    "path": f"{tmp_path}/out",
                    "format": ["parquet", "imagenet"],
                    "labels": data,
                    "renamings": {"cat": "pet", "dog": "pet"},
                },
            },
            {"type": "LogForTesting", "name": "Told", "input": "Write"},
            {"type": "LogForTesting", "name": "Bad", "input": "Read.bad"},
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for target in ("parquet", "imagenet"):
        options = {"filter": expression, "remaps": ("cat:pet", "dog:pet"), "resize": (16, 12)}
        convert(ConvertOptions(data, str(tmp_path / target), target, **options))  # type: ignore[arg-type]
        assert tree(tmp_path / "out" / target) == tree(tmp_path / target)
        assert f'"format": "{target}", "manifest": "{tmp_path}/out/{target}.beam_cifar/manifest.json"' in done.stderr


def test_a_wrong_option_is_said_in_one_line(cifar10: Path, tmp_path: Path) -> None:
    read = {"type": "ReadImageDataset", "name": "Read", "config": {"path": str(cifar10)}}
    wrong = {**read, "config": {"path": f"{tmp_path}/nowhere"}}
    assert "nowhere: no such file or directory" in run([wrong], tmp_path).stderr
    write = {"path": f"{tmp_path}/out", "format": "parket", "labels": ["a"]}
    done = run([read, {"type": "WriteImageDataset", "input": "Read", "config": write}], tmp_path)
    assert "unknown output format 'parket'" in done.stderr


def test_labels_are_those_of_a_dataset_or_of_a_manifest(cifar10: Path, cifar100: Path, tmp_path: Path) -> None:
    for path in (cifar10, cifar100):
        convert(ConvertOptions(str(path), str(tmp_path / path.name), "parquet", workers=1))
        labels = labels_of(path)
        assert labels_of(tmp_path / f"{path.name}.beam_cifar" / "manifest.json") == labels
    assert labels_of(cifar100).has_superclasses
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not a manifest with labels"):
        labels_of(tmp_path / "manifest.json")


def test_the_pipeline_of_the_page_runs_with_its_command(cifar10_archive: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "pipeline.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    (command,) = re.findall(r"Run it with `python (.*?)`", page)
    (tmp_path / "cifar-10-python.tar.gz").symlink_to(cifar10_archive)
    (tmp_path / "dogs.yaml").write_text(block.replace("include: providers.yaml", f"include: {yaml_providers()}"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command.split()], cwd=tmp_path, env=environment, check=True, capture_output=True)
    for target in ("parquet", "imagenet"):
        options = {"filter": '/item[annotation/label="dog"]', "resize": (16, 16)}
        convert(ConvertOptions(str(cifar10_archive), str(tmp_path / target), target, **options))  # type: ignore[arg-type]
        assert tree(tmp_path / "small-dogs" / target) == tree(tmp_path / target)


def test_the_page_lists_what_each_transform_takes() -> None:
    page = (ROOT / "docs" / "how-to" / "pipeline.md").read_text(encoding="utf-8")
    for name, place in yaml.safe_load(Path(yaml_providers()).read_text())[0]["transforms"].items():
        module, _, function = place.rpartition(".")
        taken = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        [row] = re.findall(rf"^\| `{name}` \| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) - {"RemapLabels"} == set(taken)
