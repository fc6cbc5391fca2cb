"""What is learned by reading a whole file is learned once a job, and changes nothing in the output."""

from __future__ import annotations

import doctest
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import pyarrow as pa
import pytest

from beam_cifar import ConvertOptions, Dataset, convert, make_sample, storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract import indexes
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import forget
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.webdataset import rows
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import Job, prepare
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.steps.base import Step
from beam_cifar.steps.order import Shuffle
from beam_cifar.storage.tar import tar_members
from tests.helpers import ROOT
from tests.helpers.image_trees import contents, quickly
from tests.helpers.reading import tree

STEPS: dict[str, tuple[Step, ...]] = {"plain": (), "shuffled": (Shuffle(),)}
FORMATS: dict[str, dict[str, Any]] = {
    "coco": {},
    "cvat": {},
    "datumaro": {},
    "imagenet": {},
    "imagenet_with_subset_dirs": {},
    "imagenet_txt": {},
    "image_dir": {},
    "voc_classification": {},
    "mnist_csv": {},
    "open_images": {},
    "parquet": {"images_per_batch": 20},
    "tfds_parquet": {"images_per_batch": 20},
    "tfds_array_record": {"images_per_batch": 20},
    "tfds_tfrecord": {"images_per_batch": 20},
    "webdataset": {"images_per_batch": 20},
}
"""Formats that are indexed, and how a dataset with several files is written."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A dataset of 120 images in each format."""
    place = tmp_path_factory.mktemp("sets")
    make_sample(str(place / "cifar"), images=120)

    def made(name: str) -> Path:
        if not (place / name).exists():
            quickly(place / "cifar", place / name, name, **FORMATS[name], save_images=True)
        return place / name

    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 shards of 5 images."""
    place = tmp_path_factory.mktemp("shards")
    make_sample(str(place / "cifar"), images=120)
    quickly(place / "cifar", place / "set", "webdataset", images_per_batch=5)
    return place / "set"


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of any size are indexed."""
    monkeypatch.setattr(indexes, "MIN_BYTES", 0)


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many tar headers of each shard are read."""
    read = Counter[str]()

    def counted(stream: BinaryIO, size: int, shown: str) -> Iterator[tuple[str, int, int]]:
        for member in tar_members(stream, size, shown):
            read[shown] += 1
            yield member

    monkeypatch.setattr(rows, "tar_members", counted)
    return read


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("start", ["without a runner", "two workers"])
@pytest.mark.parametrize("steps", STEPS)
def test_every_tar_header_is_read_once_a_job(
    steps: str, start: str, shards: Path, members: Counter[str], tmp_path: Path
) -> None:
    options = {"steps": STEPS[steps], "images_per_batch": 6}
    if start == "two workers":
        convert(ConvertOptions(str(shards), str(tmp_path / "out"), "parquet", workers=2, **options))  # type: ignore[arg-type]
    else:
        quickly(shards, tmp_path / "out", "parquet", **options)
    assert members == {str(path): 15 for path in shards.rglob("*.tar")}
    assert len(members) == 24
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "out.beam_cifar").iterdir()) == [
        "inputs",
        "manifest.json",
    ]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", FORMATS)
def test_each_file_is_indexed_once_and_the_output_is_the_same(
    name: str, steps: str, sets: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str, small: int) -> dict[str, bytes]:
        monkeypatch.setattr(indexes, "MIN_BYTES", small)
        quickly(sets(name), tmp_path / folder / "out", "webdataset", steps=STEPS[steps], images_per_batch=16)
        return contents(tmp_path / folder)

    with mock.patch("beam_cifar.storage.store_table", wraps=storage.store_table) as stored:
        plain = run("plain", 1 << 40)
        assert not stored.called
        made = run("indexed", 0)
    paths = [call.args[0] for call in stored.call_args_list]
    assert len(paths) == len(set(paths)) > 0
    assert made == plain


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_indexes_are_made_again(name: str, sets: Callable[[str], Path], tmp_path: Path) -> None:
    found = list[Path]()

    def run(job: Job, _: object) -> None:
        forget()  # as in another process
        for path in Path(job.folder.index).glob("rows-*"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            found.append(path)
        serial.run(job)
        assert all(storage.stored_table(str(path)) for path in found)

    with mock.patch("beam_cifar.pipeline.convert.start", run):
        convert(ConvertOptions(str(sets(name)), str(tmp_path / "out"), "webdataset"))
    quickly(sets(name), tmp_path / "undisturbed", "webdataset")
    assert found
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_another_process_maps_what_was_stored(tmp_path: Path) -> None:
    make_sample(str(tmp_path / "cifar"), images=600)
    quickly(tmp_path / "cifar", tmp_path / "set", "webdataset", subset_names="split")
    assert min(path.stat().st_size for path in (tmp_path / "set").rglob("train*.tar")) > indexes.MIN_BYTES
    code = """
import pickle, sys
from beam_cifar.formats.webdataset import rows
from beam_cifar.jobs import read_part
rows.tar_members = None
tasks, settings = pickle.load(sys.stdin.buffer)
print(sum(len(block.table) for task in tasks for block in read_part.read_task(task, settings)))
"""
    options = ConvertOptions(str(tmp_path / "set"), str(tmp_path / "out"), "parquet", subsets=("train",))
    with prepare(options) as job:
        asked = pickle.dumps((job.plan.tasks, SourceSettings.of(job.plan)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], input=asked, capture_output=True, check=True, env=environment
        )
    assert done.stdout.split() == [b"500"]
    assert not (tmp_path / "out.beam_cifar").exists()


@pytest.mark.usefixtures("any_size")
def test_a_job_does_not_read_again_what_its_process_knows(
    sets: Callable[[str], Path], members: Counter[str], tmp_path: Path
) -> None:
    source = sets("webdataset")
    forget()
    for _ in range(3):
        assert len(Dataset.import_from(str(source))) == 120
    options = ConvertOptions(str(source), str(tmp_path / "out"), "parquet")
    with prepare(options) as job:
        assert {file.index_dir for file in job.plan.files} == {job.folder.index}
    assert set(members.values()) == {60}


# --- the decorator --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> SourceFile:
    (tmp_path / "set").write_bytes(b"abc\n" * 3)
    (tmp_path / "index").mkdir()
    blob = storage.whole_file(str(tmp_path / "set"))
    return SourceFile("set", "train", "set", blob, index_dir=str(tmp_path / "index"))


def lengths(version: str = "1") -> tuple[Callable[[SourceFile], pa.Table], list[str]]:
    """An indexed function, and the files that it has read."""
    read = list[str]()

    @indexed(version)
    def lines(file: SourceFile) -> pa.Table:
        read.append(file.name)
        with storage.open_blob(file.blob, file.shown) as stream:
            found = [len(line) for line in stream]
        if 3 in found:
            raise InputError("set: row 0: is short")
        return pa.table({"length": found}).replace_schema_metadata({"facts": "more"})

    return lines, read


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestFinder().find(indexed, "indexed", globs={})[0]
    assert len(example.examples) > 4
    assert not doctest.DocTestRunner().run(example).failed


@pytest.mark.usefixtures("any_size")
def test_a_table_is_shared_by_the_datasets_of_a_job(file: SourceFile) -> None:
    lines, read = lengths()
    for other in (file, file.__class__(**{**vars(file), "source": 1, "id_prefix": "b/"})):
        table = lines(other)
        assert table.column("length").to_pylist() == [4, 4, 4]
        assert table.schema.metadata[b"facts"] == b"more"
    assert read == ["set"]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("what", ["another version", "another file's index", "an index of other columns"])
def test_an_index_of_something_else_is_not_used(what: str, file: SourceFile, tmp_path: Path) -> None:
    lines, read = lengths()
    lines(file)
    (path,) = (tmp_path / "index").iterdir()
    if what == "another version":
        lines, read = lengths("2")
    elif what == "another file's index":
        other = SourceFile(**{**vars(file), "name": "other"})
        lines(other)
        (planted,) = set((tmp_path / "index").iterdir()) - {path}
        planted.rename(path)
        read.clear()
    else:
        storage.store_table(str(path), pa.table({"other": [1]}))
        read.clear()
    assert lines(file).column("length").to_pylist() == [4, 4, 4]
    assert read == ["set"]
    lines(file)
    assert read == ["set"]


@pytest.mark.usefixtures("any_size")
def test_a_file_that_has_changed_since_is_refused_as_if_it_was_read(file: SourceFile, tmp_path: Path) -> None:
    lines, _ = lengths()
    lines(file)
    (tmp_path / "set").write_bytes(b"other\n")
    with pytest.raises(InputError, match="^set: the file changed while it was being converted"):
        lines(file)


@pytest.mark.usefixtures("any_size")
def test_an_error_in_the_input_is_not_stored(file: SourceFile, tmp_path: Path) -> None:
    lines, read = lengths()
    (tmp_path / "set").write_bytes(b"ab\n")
    short = SourceFile(**{**vars(file), "blob": storage.whole_file(str(tmp_path / "set"))})
    for _ in range(2):
        with pytest.raises(InputError, match="row 0: is short"):
            lines(short)
    assert len(read) == 2
    assert not list((tmp_path / "index").iterdir())


@pytest.mark.parametrize("why", ["a small file", "no folder", "the folder is gone"])
def test_without_an_index_every_call_reads(
    why: str, file: SourceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, read = lengths()
    if why != "a small file":
        monkeypatch.setattr(indexes, "MIN_BYTES", 0)
    if why == "no folder":
        file = SourceFile(**{**vars(file), "index_dir": ""})
    if why == "the folder is gone":
        (tmp_path / "index").rmdir()
    assert [len(lines(file)) for _ in range(2)] == [3, 3]
    assert len(read) == 2
    assert not list(tmp_path.glob("index/*"))
