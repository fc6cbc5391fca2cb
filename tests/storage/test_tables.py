"""Tables in the index folder of a job: whole and from this job, or as if they were not there."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_cifar import ConvertOptions, make_sample
from beam_cifar.formats.contract import indexes
from beam_cifar.formats.contract.source import forget
from beam_cifar.formats.webdataset import rows
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import Job
from beam_cifar.pipeline import convert, stores
from beam_cifar.storage import store_table, stored_table
from tests.helpers.image_trees import quickly
from tests.helpers.object_stores import S3Server

TABLE = pa.table({"id": ["a", "b", None], "row": [3, 1, 2]}).replace_schema_metadata({"facts": "[1]"})


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_name("victim"))
    path.symlink_to(path.with_name("victim"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: cut(path, 0),
    "shorter than its digest": lambda path: cut(path, 20),
    "cut in the middle": lambda path: cut(path, 300),
    "cut by a byte": lambda path: cut(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "its start": lambda path: flip(path, 0),
    "an offset": lambda path: flip(path, path.stat().st_size // 2),
    "its digest": lambda path: flip(path, -1),
    "another program's": lambda path: path.write_bytes(b"ARROW1"),
    "a link": link,
    "a pipe": pipe,
    "a folder": folder,
    "where anybody can write": lambda path: path.parent.chmod(0o777),
}


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.arrow")
    store_table(path, TABLE)
    assert stored_table(path).equals(TABLE, check_metadata=True)  # type: ignore[union-attr]
    assert os.listdir(tmp_path) == ["rows.arrow"]


def test_a_table_of_several_chunks_is_one_chunk_when_it_comes_back(tmp_path: Path) -> None:
    store_table(str(tmp_path / "rows.arrow"), pa.concat_tables([TABLE, TABLE]))
    found = stored_table(str(tmp_path / "rows.arrow"))
    assert found is not None
    assert (found.column("row").num_chunks, len(found)) == (1, 6)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_or_not_ours_is_not_there(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    store_table(str(path), TABLE)
    DAMAGE[damage](path)
    assert stored_table(str(path)) is None


@pytest.mark.parametrize("mode", [0o500, 0o777, None], ids=["not ours to write", "anybody's", "missing"])
def test_nothing_is_written_where_it_would_not_be_trusted(mode: int | None, tmp_path: Path) -> None:
    place = tmp_path / "index"
    if mode is not None:
        place.mkdir()
        place.chmod(mode)
    store_table(str(place / "rows.arrow"), TABLE)
    assert place.exists() == (mode is not None)
    if mode == 0o777 or (mode is not None and os.geteuid()):  # root may write anywhere
        assert not os.listdir(place)


def test_a_table_that_does_not_fit_on_the_disk_is_left_out(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        store_table(str(tmp_path / "rows.arrow"), TABLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_a_table_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "rows.arrow").symlink_to(tmp_path / "victim")
    store_table(str(tmp_path / "rows.arrow"), TABLE)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert stored_table(str(tmp_path / "rows.arrow")) is not None


@pytest.fixture
def moto(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    stores.use_options()
    yield moto_server
    stores.use_options()


def test_a_table_can_be_an_object(moto: S3Server) -> None:
    url = f"{moto.make_bucket()}/out.beam_cifar/index/rows.arrow"
    assert stored_table(url) is None
    store_table(url, TABLE)
    assert stored_table(url).equals(TABLE, check_metadata=True)  # type: ignore[union-attr]
    moto.put(url, moto.get(url)[:-40])
    assert stored_table(url) is None


def test_a_job_stores_indexes_beside_an_output_in_a_bucket_and_removes_them(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sample(str(tmp_path / "set"), images=60)
    quickly(tmp_path / "set", tmp_path / "shards", "webdataset", images_per_batch=10)
    monkeypatch.setattr(indexes, "MIN_BYTES", 0)
    output, stored = f"{moto.make_bucket()}/out", list[dict[str, int]]()

    def run(job: Job, _: object) -> None:
        forget()  # as in another process
        with monkeypatch.context() as patched:
            patched.setattr(rows, "tar_members", None)  # what is not in the indexes cannot be read
            serial.run(job)
        stored.append(moto.listing(f"{output}.beam_cifar/index"))

    with monkeypatch.context() as patched:
        patched.setattr(convert, "start", run)
        convert.convert(ConvertOptions(str(tmp_path / "shards"), output, "parquet"))
    assert len(stored[0]) == len(list(tmp_path.rglob("*.tar"))) == 6
    assert sorted(moto.listing(f"{output}.beam_cifar"))[-1] == "manifest.json"
    assert not moto.listing(f"{output}.beam_cifar/index")
