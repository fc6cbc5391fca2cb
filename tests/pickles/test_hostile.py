"""Hostile pickles in a dataset: `info` refuses each with one line, runs nothing of it, and takes little time and memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import pickle_corpus as corpus
from tests.helpers.hostile import Run, hostile_runs

META = corpus.python2(2)({"label_names": ["cat", "dog"], "num_vis": 3072})
HOSTILE = {**corpus.BAD, **corpus.FLOODS}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in corpus.FLOODS)) for name in HOSTILE]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with hostile_runs() as found:
        yield found


def dataset(folder: Path, batch: bytes) -> Path:
    folder.mkdir()
    (folder / "batches.meta").write_bytes(META)
    (folder / "data_batch_1").write_bytes(batch)
    return folder


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, "cifar-10-batches-py")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_info_refuses_in_a_line(name: str, run: Run, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    folder = dataset(tmp_path / "in", HOSTILE[name](str(marker)))
    assert run("info", str(folder), marker=marker).faults() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.FLOODS)
def test_convert_refuses_floods_in_an_archive(name: str, run: Run, tmp_path: Path) -> None:
    archive = packed(dataset(tmp_path / "in", corpus.FLOODS[name]("")))
    command = ["-i", str(archive), "-o", str(tmp_path / "out"), "-f", "parquet", "--workers", "1"]
    assert run("convert", *command).faults() == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("opcode", [b"N", b")", b"]", b"K\x01", b"M\x00\x80", b"(", b"}"])
def test_150_mb_of_one_opcode_in_a_small_archive(opcode: bytes, run: Run, tmp_path: Path) -> None:
    archive = packed(
        dataset(tmp_path / "in", b"\x80\x02}(U\x06labels](" + opcode * (150_000_000 // len(opcode)) + b"eu.")
    )
    assert archive.stat().st_size < 1_000_000
    assert run("info", str(archive)).faults() == []
    found = run("detect", str(archive))
    assert (found.code, found.stderr) == (0, "")
    assert found.peak_kb < 300_000


def test_good_pickles_are_not_taken_for_hostile_ones(run: Run, tmp_path: Path) -> None:
    found = run("info", str(dataset(tmp_path / "in", corpus.styled(labels=[0, 1, 0, 1, 0]))))
    assert (found.code, found.stderr) == (0, "")


def test_there_are_160_kinds_of_hostile_pickles_and_no_two_are_alike() -> None:
    files = [make("/marker") for make in corpus.BAD.values()]
    assert len(set(files)) == len(files)
    assert len(files) >= 320
    assert len(corpus.FLOODS) >= 30
