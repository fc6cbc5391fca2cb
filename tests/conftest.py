"""Suites that are left out unless asked for, and the sample sets and the command line, for all tests."""

from __future__ import annotations

import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

# Its plug-in would import it at the very end, where Python 3.11 fails to compile it after some jobs of Beam
# ("AST constructor recursion depth mismatch").
import hypothesis  # noqa: F401
import pytest

from beam_cifar import make_sample
from beam_cifar.jobs import serial
from tests.helpers import ROOT
from tests.helpers.commands import Command, Run
from tests.helpers.suites import SUITES

# Programs keep ignoring what their caller ignores; a shell's background jobs ignore Ctrl-C, and under `nohup` SIGHUP.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# A job gone wrong must fail, and not take the machine with it: a test process was once at 18.8 GB.
ADDRESS_SPACE = 12  # GB
# What these start reserves far more than it uses: Chromium terabytes, Java a quarter of the machine's memory at once,
# TensorFlow and PyTorch some GB each; `large` maps files of several GB and measures memory itself.
UNLIMITED = ("browser", "cluster", "faults", "large", "peers", "storage_faults")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Limits what a test, and each process that it starts, may add to the address space of this process."""
    if sys.platform != "linux":  # others do not keep to it, or refuse it
        return
    soft = most = resource.getrlimit(resource.RLIMIT_AS)[1]
    if not any(item.get_closest_marker(name) for name in UNLIMITED):
        marker = item.get_closest_marker("address_space")
        # Added, because addresses once reserved stay so: rapidgzip keeps 256 MB a thread, Arrow 1 GB, malloc 64 MB a
        # thread, which came to 8.3 GB in one process that used 300 MB.
        soft = _address_space() + ((marker.args[0] if marker else ADDRESS_SPACE) << 30)
    if most != resource.RLIM_INFINITY:
        soft = min(soft, most)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("suites", "tests that are left out unless asked for")
    for name, what in SUITES.items():
        group.addoption(
            f"--{name}", action="store_true", help=f"also run what {what} (make test-{name.replace('_', '-')})"
        )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "address_space(gigabytes): how much a test may add to the address space")
    for name, what in SUITES.items():
        config.addinivalue_line("markers", f"{name}: {what} (make test-{name.replace('_', '-')})")


def pytest_itemcollected(item: pytest.Item) -> None:
    room = item.path.relative_to(ROOT / "tests").parts[0]
    if room in SUITES:
        item.add_marker(room)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests of suites that nobody asked for; an expression after `-m` asks for what it says."""
    if config.option.markexpr:
        return
    folder = config.invocation_params.dir
    places = [(folder / argument.partition("::")[0]).resolve() for argument in config.args]
    asked = {
        name
        for name in SUITES
        if config.getoption(name) or any(place.is_relative_to(ROOT / "tests" / name) for place in places)
    }
    left = [item for item in items if not {mark.name for mark in item.iter_markers()} & SUITES.keys() <= asked]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


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

    def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "beam_cifar", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )

    return command


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command line in this process: exit code, stdout and stderr."""
    from beam_cifar.cli.main import main

    before = logging.root.manager.disable

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    yield run
    logging.disable(before)  # a program ends then, and leaves it disabled


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
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        yield
