"""Sample sets and the command line, for all tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from image_trees import run_plainly

from beam_cifar.samples.make import make_sample

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,203 images in the genuine layout: five batches and a test batch, none of a round size."""
    return _sample(tmp_path_factory, "cifar10", 1203)


@pytest.fixture(scope="session")
def cifar100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,407 images: `train` and `test`."""
    return _sample(tmp_path_factory, "cifar100", 2407)


@pytest.fixture(scope="session")
def cifar10_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as `cifar10`, as a `.tar.gz`."""
    path = tmp_path_factory.mktemp("archive") / "cifar-10-python.tar.gz"
    make_sample(str(path), kind="cifar10", images=1203, seed=1, tar=True)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line in a process of its own, in `tmp_path`."""

    def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "beam_cifar", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return command


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs the command line in this process: exit code, stdout and stderr."""
    from beam_cifar.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _sample(factory: pytest.TempPathFactory, kind: str, images: int) -> Path:
    path = factory.mktemp(kind) / kind
    make_sample(str(path), kind=kind, images=images, seed=1)
    return path


@pytest.fixture
def beam() -> None:
    """Asks for a real run of the job, where `without_runner` is used."""


@pytest.fixture
def without_runner(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs jobs plainly where the job itself is not the point."""
    if "beam" in request.fixturenames:
        yield
        return
    with mock.patch("beam_cifar.pipeline.start", run_plainly):
        yield
