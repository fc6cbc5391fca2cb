"""The programs of the page about users' own pipelines, each run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, convert
from beam_cifar.beam import yaml_providers
from tests.helpers import ROOT
from tests.helpers.reading import cifar_rows, tree

PAGE = (ROOT / "docs" / "how-to" / "pipeline.md").read_text(encoding="utf-8")
PROGRAMS = {
    section.partition("\n")[0]: block
    for section in PAGE.split("\n## ")[1:]
    for block in re.findall(r"```python\n(.*?)```", section, re.S)
}


@pytest.fixture
def folder(cifar10: Path, cifar10_archive: Path, tmp_path: Path) -> Path:
    """A folder with all that the programs read."""
    (tmp_path / "cifar-10-python.tar.gz").symlink_to(cifar10_archive)
    names = [name for name, *_ in cifar_rows(cifar10, ["test_batch"])]
    rows = [f"{name},{('indoors', 'outdoors')[at % 2]}\n" for at, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("".join(["filename,name\n", *rows]))
    return tmp_path


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def program(folder: Path, name: str) -> str:
    (folder / "program.py").write_text(PROGRAMS[name])
    return run(folder, "program.py")


def test_every_program_of_the_page_has_a_test_here() -> None:
    tested = re.findall(r'program\(folder, "(.*?)"\)', Path(__file__).read_text(encoding="utf-8"))
    assert sorted(tested) == sorted(PROGRAMS)


def test_counts(folder: Path, cifar10: Path) -> None:
    rows = [label for _, label, *_ in cifar_rows(cifar10)]
    assert f"('dog', {rows.count(5)})" in program(folder, "Count")


def test_changed_pixels(folder: Path, cifar10: Path) -> None:
    program(folder, "Change pixels")
    dogs = [name for name, label, *_ in cifar_rows(cifar10) if label == 5]
    convert(ConvertOptions(str(folder / "flipped-dogs"), str(folder / "back"), "cifar", save_images=True))
    found = {name: pixels for name, _, _, pixels in cifar_rows(folder / "back", ["train", "test"])}
    flipped = {
        name: b"".join(pixels[at : at + 32][::-1] for at in range(0, 3072, 32))
        for name, label, _, pixels in cifar_rows(cifar10)
        if label == 5
    }
    assert len(found) == len(dogs)
    assert sorted(found.values()) == sorted(flipped.values())


def test_a_joined_table(folder: Path) -> None:
    program(folder, "Join a table")
    assert {name: len(list((folder / "places" / name).iterdir())) for name in ("indoors", "outdoors")} == {
        "indoors": 100,
        "outdoors": 100,
    }


def test_rows_set_aside_and_several_formats(folder: Path) -> None:
    said = program(folder, "Set bad rows aside, write several formats")
    assert "both/parquet: 1203 images" in said
    assert "both/webdataset: 1203 images" in said
    assert [path.read_text() for path in folder.glob("bad-examples.txt*")] == [""]


def test_paths_that_come_late(folder: Path) -> None:
    said = program(folder, "Paths that come late")
    assert "1203" in said
    assert "nowhere: no such file or directory" in said


def test_a_test_of_a_pipeline(folder: Path) -> None:
    program(folder, "Test it")


def test_yaml(folder: Path) -> None:
    pytest.importorskip("docstring_parser", reason="Beam YAML has other libraries in the oldest version")
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (folder / "dogs.yaml").write_text(block.replace("include: providers.yaml", f"include: {yaml_providers()}"))
    (command,) = re.findall(r"Run it with `python (.*?)`", PAGE)
    run(folder, *command.split())
    archive, small = (
        str(folder / "cifar-10-python.tar.gz"),
        {"filter": '/item[annotation/label="dog"]', "resize": (16, 16)},
    )
    for target in ("parquet", "imagenet"):
        convert(ConvertOptions(archive, str(folder / target), target, **small))  # type: ignore[arg-type]
        assert tree(folder / "small-dogs" / target) == tree(folder / target)
