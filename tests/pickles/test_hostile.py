"""Hostile pickles in a dataset: `info` refuses each with one line, runs nothing of it, and takes little time and memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_cifar.errors import InputError
from beam_cifar.planning import survey
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


def test_an_archive_of_many_small_batches_is_refused_by_the_sum_of_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "FREE_ROWS", 5000)
    folder = dataset(tmp_path / "in", b"")
    for number in range(1, 4):
        (folder / f"data_batch_{number}").write_bytes(corpus.value(labels=[1] * 2000, data=[], filenames=...)(""))
    assert sum(file.rows for file in survey.survey(str(folder), None, (), str(tmp_path)).summaries) == 6000
    with pytest.raises(InputError, match="in.tar.gz: has at least 6000 rows in [0-9]{3} bytes; refused as a bomb"):
        survey.survey(str(packed(folder)), None, (), str(tmp_path))


NAMES_IN_JSON = {
    "digits": (b'{"labels": [' + b"1" * 5000 + b"]}", "cannot be read as JSON"),
    "nesting": (b"[" * 100_000, "cannot be read as JSON"),
    "bytes": (b'{"labels": ["\xff"]}', "cannot be read as JSON"),
    "end": (b'{"labels": [', "is not valid JSON"),
    "size": (b'{"labels": [' + b"[]," * 1_500_000 + b"[]]}", "at most 4194304 are supported"),
    "lists": (b'{"labels": [' + b"[]," * 1_300_000 + b"[]]}", "expected {"),
    "numbers": (b'{"labels": [1, 2]}', "expected {"),
    "twice": (b'{"labels": ["a", "a"]}', "lists a class name twice"),
    "ids": (b'{"label_map": {"0": "a", "7": "b"}}', "ids in 'label_map' must be 0 to 1"),
    "surrogate": (b'{"labels": ["\\ud800"]}', "not valid Unicode"),
}


@pytest.mark.parametrize("name", NAMES_IN_JSON)
def test_class_names_in_hostile_json_are_refused_in_a_line(name: str, run: Run, tmp_path: Path) -> None:
    content, words = NAMES_IN_JSON[name]
    folder = dataset(tmp_path / "in", corpus.styled())
    (folder / "dataset_meta.json").write_bytes(content)
    found = run("info", str(folder))
    assert found.faults() == []
    assert words in found.stderr


def test_good_pickles_are_not_taken_for_hostile_ones(run: Run, tmp_path: Path) -> None:
    found = run("info", str(dataset(tmp_path / "in", corpus.styled(labels=[0, 1, 0, 1, 0]))))
    assert (found.code, found.stderr) == (0, "")


def test_there_are_160_kinds_of_hostile_pickles_and_no_two_are_alike() -> None:
    files = [make("/marker") for make in corpus.BAD.values()]
    assert len(set(files)) == len(files)
    assert len(files) >= 320
    assert len(corpus.FLOODS) >= 30
