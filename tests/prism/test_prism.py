"""The same job on Prism, Beam's own portable runner; BEAM_CIFAR_PRISM names its binary."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from beam_cifar import make_sample
from tests.helpers import clusters
from tests.helpers.clusters import wait_for
from tests.helpers.commands import Run
from tests.helpers.reading import tree

MARK = "BEAM_CIFAR_TEST"
"""A variable by which the processes of a test are known."""
JOBS = {"parquet": ("-f", "parquet"), "cifar": ("-f", "cifar", "--", "--save-images")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "cifar10"
    make_sample(str(path), kind="cifar10", images=6_000, seed=1)
    return path


def prism_flags() -> list[str]:
    return ["--runner=PrismRunner", f"--prism_location={os.environ['BEAM_CIFAR_PRISM']}"]


def engines(mark: Path) -> list[int]:
    """Process ids of Prism, started with a mark."""
    return [pid for pid in clusters.marked(f"{MARK}={mark}".encode()) if is_prism(pid)]


def is_prism(pid: int) -> bool:
    with suppress(OSError):
        return "prism" in Path(f"/proc/{pid}/exe").readlink().name
    return False


def arguments(source: Path, out: Path, what: tuple[str, ...], flags: list[str]) -> list[str]:
    end = what.index("--") if "--" in what else len(what)
    return ["convert", "-i", str(source), "-o", str(out), *what[:end], *flags, *what[end:]]


@pytest.mark.parametrize("job", JOBS)
def test_files_equal_those_of_a_local_run(job: str, sample: Path, run: Run, tmp_path: Path) -> None:
    for name, flags in {"local": [], "prism": prism_flags()}.items():
        done = run(*arguments(sample, tmp_path / name, JOBS[job], flags))
        assert done.returncode == 0, done.stderr
    assert len(tree(tmp_path / "local")) >= 2
    assert tree(tmp_path / "prism") == tree(tmp_path / "local")
    assert tree(tmp_path / "prism.beam_cifar") == tree(tmp_path / "local.beam_cifar")


def test_a_damaged_image_comes_back_as_its_line(sample: Path, run: Run, tmp_path: Path) -> None:
    assert run("convert", "-i", sample, "-f", "imagenet", "-o", "folder").returncode == 0
    image = sorted((tmp_path / "folder").rglob("*.png"))[3000]
    image.write_bytes(image.read_bytes()[:200])
    done = run(*arguments(tmp_path / "folder", tmp_path / "out", JOBS["cifar"], prism_flags()))
    lines = [line for line in done.stderr.splitlines() if not line.startswith("beam-cifar: note:")]
    assert done.returncode == 3, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("beam-cifar: error: ")
    assert image.name in lines[0]
    assert "truncated" in lines[0]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_job_and_prism_and_leaves_nothing(
    number: signal.Signals, sample: Path, tmp_path: Path
) -> None:
    command = arguments(sample, tmp_path / "out", ("-f", "imagenet", "--resize", "128x128"), prism_flags())
    with subprocess.Popen(
        [sys.executable, "-m", "beam_cifar", *command],
        env={**os.environ, MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert wait_for(lambda: list(tmp_path.glob("out.beam_cifar/work-*/tree/*")))
            assert engines(tmp_path)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "beam-cifar: error: interrupted"
    assert wait_for(lambda: not engines(tmp_path), 10) is True
    assert not list(tmp_path.glob("out*"))
