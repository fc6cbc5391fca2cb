"""The same job gives the same bytes, whoever runs it and however often a bundle is repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from beam_cifar import ConvertOptions, convert
from beam_cifar.pickles.recognise import Meta
from beam_cifar.pickles.write import write_batch, write_meta
from beam_cifar.steps.registry import STEPS
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.random_jobs import (
    MODES,
    READERS,
    SERIAL,
    WRITERS,
    Fresh,
    Process,
    Runs,
    Sizes,
    Way,
    explained,
    make_job,
    make_surroundings,
    make_way,
)
from tests.helpers.reading import tree
from tests.helpers.soak import growth

ROWS = [1, 17, 999, 1000, 1001, 2500, 3, 0, 640, 1999, 5, 750]
RUNS: dict[str, tuple[int, list[str]]] = {
    "again": (1, []),
    "2 threads": (2, []),
    "4 threads": (4, []),
    "4 workers in memory": (4, ["--direct_running_mode=in_memory"]),
    "1 thread": (1, ["--direct_running_mode=multi_threading"]),
    "1 process": (1, ["--direct_running_mode=multi_processing"]),
    "2 processes": (2, ["--direct_running_mode=multi_processing"]),
    "every bundle twice": (1, ["--direct_runner_bundle_repeat=1"]),
    "every bundle twice, 2 threads": (2, ["--direct_runner_bundle_repeat=1"]),
}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve batches of very different sizes, one without rows."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(7)
    with (folder / "batches.meta").open("wb") as file:
        write_meta(file, Meta("cifar10", tuple("abcdefghij"), (), 1000, 3072))
    for number, rows in enumerate(ROWS, 1):
        pixels = rng.integers(0, 256, (rows, 3, 4, 4), dtype=np.uint8).repeat(8, axis=2).repeat(8, axis=3)
        with (folder / f"data_batch_{number}").open("wb") as file:
            write_batch(
                file,
                kind="cifar10",
                batch_label=f"training batch {number} of 12",
                labels=rng.integers(0, 10, rows).tolist(),
                coarse_labels=None,
                filenames=[f"{number}_{row}.png" for row in range(rows)],
                pixels=[pixels.tobytes()],
                rows=rows,
            )
    return folder


JOBS = {
    "parquet": {"output_format": "parquet", "labels": ("a", "c", "d", "e"), "remaps": ("c:d",), "images_per_batch": 700},
    "cifar": {"output_format": "cifar", "save_images": True, "images_per_batch": 900, "remaps": ("a:b",)},
    "copies": {"output_format": "cifar", "save_images": True},
}  # fmt: skip


def run(job: str, source: Path, output: Path, workers: int, flags: list[str]) -> dict[str, str]:
    convert(ConvertOptions(str(source), str(output), workers=workers, **JOBS[job]), flags)  # type: ignore[arg-type]
    manifest = output.with_name(output.name + ".beam_cifar")
    assert names_beside(output) == COMPLETE
    return tree(output) | {"manifest": tree(manifest)["manifest.json"]}


@pytest.fixture(scope="module")
def expected(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("expected")
    return {job: run(job, uneven, folder / job, 1, []) for job in JOBS}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "process" in name else name for name in RUNS]
)
def test_bytes_and_manifest_are_the_same(
    job: str, name: str, uneven: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    workers, flags = RUNS[name]
    assert run(job, uneven, tmp_path / "out", workers, flags) == expected[job]


def test_a_copy_of_the_input_elsewhere_gives_the_same_manifest(
    uneven: Path, expected: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    for path in uneven.iterdir():
        (tmp_path / "moved" / path.name).write_bytes(path.read_bytes())
    assert run("parquet", tmp_path / "moved", tmp_path / "elsewhere", 1, []) == expected["parquet"]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as runs:
        yield runs


@pytest.fixture(scope="module")
def processes(runs: Runs) -> Iterator[list[Process]]:
    """Two, born with other hash seeds, locales, time zones and umasks."""
    log = runs.folder / "log"
    with Process(make_surroundings(Random(1)), log) as first, Process(make_surroundings(Random(2)), log) as second:
        yield [first, second]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_random_job_writes_the_same_in_every_way(seed: int, runs: Runs, processes: list[Process]) -> None:
    job, rng = make_job(seed), Random(seed)
    first = (Way((SERIAL,)), processes[0])
    expected = runs.run(job, *first)
    others: list[tuple[Way, Process | Fresh]] = [(make_way(rng), processes[n % 2]) for n in range(3)]
    if seed % 4 == 0:
        others.append((make_way(rng, MODES), Fresh(make_surroundings(rng))))
    for other in others:
        if expected.differences(runs.run(job, *other)):
            pytest.fail(explained(job, runs, first, other))


def test_random_jobs_reach_every_format_and_transform() -> None:
    jobs = [make_job(seed) for seed in range(1000)]
    called = {group[1].split()[0] for job in jobs for group in job.options if group[0] == "--transform"}
    assert {job.target for job in jobs} == set(WRITERS)
    assert {f"cifar10-{name}" for name in READERS} <= {job.source for job in jobs}
    assert STEPS.keys() - called == {"remove_items"}  # takes ids, which differ from input to input


@pytest.mark.parametrize(
    ("grown", "size"),
    [
        ("", lambda job: Sizes(300 + min(job, 20), 10 + job % 2, 20 + job % 3)),
        ("rss", lambda job: Sizes(300 + job, 10, 20)),
        ("fds", lambda job: Sizes(300, 10 + job // 20, 20)),
        ("threads", lambda job: Sizes(300, 10, 20 + job // 20)),
    ],
)
def test_a_soak_finds_what_grows_with_the_jobs(grown: str, size: Callable[[int], Sizes]) -> None:
    assert [line.split()[0] for line in growth([size(job) for job in range(100)])] == [grown] * bool(grown)
