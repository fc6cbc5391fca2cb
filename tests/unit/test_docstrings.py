"""Every public name has an example, and each of them does what it says."""

from __future__ import annotations

import doctest
import inspect
import shutil
from pathlib import Path

import pytest

import beam_cifar

NAMES = [name for name in beam_cifar.__all__ if not name.startswith("__")]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "cifar10"
    beam_cifar.make_sample(str(path), images=60)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(
    name: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sample, tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(beam_cifar, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert not runner.run(example, out=said.append).failed, "".join(said)
