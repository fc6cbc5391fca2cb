"""A format of another package: the example is installed, found by its entry point, detected, and converted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.image_trees import picture

EXAMPLE = ROOT / "examples" / "birds_format"
BIRDS = ("001.Albatross", "002.Auklet")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What programs need to find the installed package."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(EXAMPLE, folder / "source")  # setuptools builds in the folder that it is given
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(folder / "installed"),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install, folder / "source"], check=True)
    path = os.pathsep.join([str(folder / "installed"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    folder = tmp_path / "birds"
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number in range(1, 7):
        bird = BIRDS[number % 2]
        path = f"{bird}/bird_{number}.jpg"
        (folder / "images" / bird).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, 9, 7).transpose(1, 2, 0)).save(folder / "images" / path)
        for name, text in zip(lists, (path, BIRDS.index(bird) + 1, int(number < 5)), strict=True):
            lists[name].append(f"{number} {text}\n")
    lists["classes"] = [f"{number} {bird}\n" for number, bird in enumerate(BIRDS, 1)]
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder


def program(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_is_listed_detected_and_converted(environment: dict[str, str], birds: Path, tmp_path: Path) -> None:
    module = ("-m", "beam_cifar")
    assert "birds" in program(environment, *module, "formats").stdout
    assert program(environment, *module, "detect", birds).stdout == "birds\n"
    for number, flags in enumerate(([], ["-if", "birds", "--workers", "2"])):
        done = program(environment, *module, "convert", "-i", birds, "-f", "npz", "-o", tmp_path / f"{number}", *flags)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{number}" / "train.npz") as found:
            assert found["label_names"].tolist() == list(BIRDS)
            assert found["labels"].tolist() == [1, 0, 1, 0]
            for row, bird in ((0, "002.Auklet/bird_1"), (3, "001.Albatross/bird_4")):
                expected = np.asarray(Image.open(birds / "images" / f"{bird}.jpg"))
                assert (found["images"][row] == expected).all()
        with np.load(tmp_path / f"{number}" / "test.npz") as found:
            assert found["labels"].tolist() == [1, 0]


def test_it_keeps_the_contract(environment: dict[str, str], birds: Path) -> None:
    check = "import sys; from beam_cifar.testing import check_source; check_source('birds', sys.argv[1])"
    assert program(environment, "-c", check, birds).returncode == 0


def test_a_line_that_is_wrong_is_one_line(environment: dict[str, str], birds: Path) -> None:
    (birds / "classes.txt").write_text("1 001.Albatross\nAuklet\n")
    done = program(environment, "-m", "beam_cifar", "info", birds)
    assert done.returncode == 3
    line = f"{birds}/classes.txt: line 2: is 'Auklet'; expected a new number and a text"
    assert done.stderr == f"beam-cifar: error: {line}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FORMAT = 1", "is int, expected a beam_cifar.formats.registry.Format"),
        ("import nothing_there", "cannot be loaded: No module named 'nothing_there'"),
    ],
)
def test_a_package_that_is_wrong_is_named(
    text: str, expected: str, environment: dict[str, str], birds: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(Path(environment["PYTHONPATH"].split(os.pathsep)[0]), installed)
    (installed / "birds_format" / "__init__.py").write_text(text)
    broken = {**environment, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    done = program(broken, "-m", "beam_cifar", "info", birds)
    assert done.returncode == 2
    assert done.stderr.startswith("beam-cifar: error: format 'birds' of package birds-format (birds_format:FORMAT): ")
    assert expected in done.stderr
