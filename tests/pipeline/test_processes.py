"""Worker processes and their launcher watch each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from beam_cifar import make_sample
from tests.helpers.faults import snapshot
from tests.helpers.processes import processes_of, start, until, workers_of

FLAGS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
JOB = ("convert", "-i", "in", "-f", "imagenet", "-o", "out", *FLAGS)
pytestmark = pytest.mark.slow


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    make_sample(str(tmp_path / "in"), kind="cifar10", images=10_000, seed=0)
    return tmp_path


def written(folder: Path) -> list[Path]:
    return list(folder.glob("out.beam_cifar/work-*/tree/*"))


def test_workers_end_with_a_launcher_that_is_killed(sample: Path) -> None:
    with start(JOB, sample) as launcher:
        assert until(lambda: written(sample))
        assert len(workers_of(sample)) == 2
        launcher.kill()
    assert until(lambda: not processes_of(sample), 2)
    before = snapshot(sample)
    assert not until(lambda: snapshot(sample) != before, 1)


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, ", probably because memory ran out; use fewer --workers"), (signal.SIGSEGV, "")],
)
@pytest.mark.parametrize("moment", ["starting", "writing"])
def test_a_worker_that_is_killed_ends_the_job_with_one_line(
    moment: str, number: signal.Signals, why: str, sample: Path
) -> None:
    with start(JOB, sample) as launcher:
        try:
            assert until(lambda: written(sample) if moment == "writing" else workers_of(sample))
            os.kill(workers_of(sample)[-1], number)
            output, errors = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
    line = f"beam-cifar: error: a worker process was killed by signal {number}{why}"
    assert (launcher.returncode, output) == (1, "")
    assert [each for each in errors.splitlines() if not each.startswith("beam-cifar: note: ")] == [line]
    assert not processes_of(sample)
    assert os.listdir(sample) == ["in"]


def test_the_first_worker_that_is_killed_is_named_while_the_others_are_stopped(sample: Path) -> None:
    with start(JOB, sample) as launcher:
        try:
            assert until(lambda: written(sample))
            first, second = workers_of(sample)
            os.kill(first, signal.SIGSTOP)
            os.kill(second, signal.SIGABRT)
            _, errors = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
    assert errors.endswith("beam-cifar: error: a worker process was killed by signal 6\n")
    assert errors.count("error") == 1
    assert not processes_of(sample)
