"""Hugging Face `datasets` opens the Parquet output, with its default checks, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, convert
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


@pytest.mark.parametrize(("kind", "renamed"), [("cifar10", "dog:Собака: \"a\" 'b'\n#"), ("cifar100", "rose:rosé")])
def test_load_dataset_gives_the_same_pixels_and_labels(
    kind: str, renamed: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import hashlib

    source: Path = request.getfixturevalue(kind)
    convert(ConvertOptions(str(source), str(tmp_path / "out"), "parquet", remaps=(renamed,), images_per_batch=400))
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
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
