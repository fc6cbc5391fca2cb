"""Object stores as files and folders, and jobs whose inputs and outputs lie in them; on every real server there is."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from _pytest.mark.structures import ParameterSet

from beam_cifar import ConvertOptions, convert, make_sample, storage
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from beam_cifar.jobs import serial
from beam_cifar.jobs.clean import clean
from beam_cifar.jobs.prepare import Job
from beam_cifar.pipeline import stores as store_options
from beam_cifar.storage import client as clients
from beam_cifar.storage import lock, objects
from tests.helpers import ROOT
from tests.helpers.commands import Command
from tests.helpers.counting_proxy import CountingProxy
from tests.helpers.image_trees import contents, quickly
from tests.helpers.object_stores import EXACT, S3Server, Server

NAMES = [
    *(
        "plain",
        "two words",
        "100%",
        "%2F",
        "a+b",
        "x#y",
        "q?r=1",
        "a&b",
        'it\'s "so"',
        "semi;colon",
        "über",
        "日本/画像",
    ),
    *("deep/er/still", "x" * 200 + "/" + "y" * 200, "trailing ", "UPPER", "tilde~", "a=b,c@d:e", "<tag>"),
]
LARGE = random.Random(1).randbytes(3 << 20)


@pytest.fixture
def s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with reached(s3, monkeypatch):
        yield s3


class reached:  # noqa: N801 (used as a function)
    """While entered, this process finds a store by its environment."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)

    def __enter__(self) -> None:
        store_options.use_options()

    def __exit__(self, *_: object) -> None:
        store_options.use_options()


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket that this process finds."""
    with reached(server, monkeypatch):
        yield server.make_bucket()


@pytest.fixture
def proxied(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, CountingProxy]]:
    """An empty bucket that this process finds through a proxy."""
    made = server.make_bucket()
    with server.behind_proxy() as (front, proxy), reached(front, monkeypatch):
        yield made, proxy


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


# The layer.


@pytest.mark.slow
def test_any_name_is_written_found_listed_read_copied_and_removed(server: Server, bucket: str) -> None:
    urls = {name: f"{bucket}/set/{name}" for name in NAMES}
    for name, url in urls.items():
        assert objects.find(url) is None
        assert objects.write(url, name.encode())
    assert server.listing(f"{bucket}/set") == {name: len(name.encode()) for name in sorted(NAMES)}
    assert [entry.name for entry in objects.tree(f"{bucket}/set")] == sorted(NAMES, key=str.encode)
    for entry in storage.list_tree(f"{bucket}/set"):
        assert entry.path == urls[entry.name]
        assert objects.find(entry.path) == storage.Entry(
            entry.name.rpartition("/")[2], entry.path, False, entry.size, entry.mtime, entry.identity
        )
        assert storage.read_whole(entry.path) == entry.name.encode()
        assert server.get(entry.path) == entry.name.encode()
        with storage.open_file(entry.path) as file:
            assert file.read() == entry.name.encode()
    objects.copy_tree(f"{bucket}/set", f"{bucket}/copy of it")
    assert server.listing(f"{bucket}/copy of it") == server.listing(f"{bucket}/set")
    assert server.get(f"{bucket}/copy of it/%2F") == b"%2F"
    assert objects.remove(urls.values()) == len(NAMES)
    assert server.listing(f"{bucket}/set") == {}


def test_folders_are_what_lies_below_a_name(server: Server, bucket: str) -> None:
    for name in ("a/b/1", "a/b/2", "a/c", "a.x", "ab/1", "a/empty"):
        server.put(f"{bucket}/{name}", b"" if name == "a/empty" else b"123")
    kinds = {entry.name: (entry.is_folder, entry.size) for entry in storage.list_folder(f"{bucket}/a")}
    assert kinds == {"b": (True, 0), "c": (False, 3), "empty": (False, 0)}
    assert {entry.name for entry in storage.list_folder(bucket)} == {"a", "a.x", "ab"}
    assert dict(storage.file_sizes(f"{bucket}/a")) == {"b/1": 3, "b/2": 3, "c": 3, "empty": 0}
    assert [storage.is_folder(f"{bucket}/{name}") for name in ("a", "a/b", "a/c", "no")] == [True, True, False, False]
    assert not storage.exists(f"{bucket}/n")
    assert storage.read_whole(f"{bucket}/a/empty") == b""
    with storage.open_file(f"{bucket}/a/empty") as file:
        assert file.read() == b""
    with pytest.raises(FileNotFoundError):
        storage.list_folder(f"{bucket}/none")
    assert storage.names_in(f"{bucket}/none") == []
    assert storage.has_file(f"{bucket}/a", lambda name: name == "c")
    assert not storage.has_file(f"{bucket}/a", lambda name: name == "b")


def test_objects_for_empty_folders_are_not_seen(server: Server, bucket: str) -> None:
    """Consoles make them when somebody clicks "new folder"."""
    for name in ("set/", "set/train/", "set/train/1", "set/.hidden/x", "set/train/.DS_Store", "new/"):
        server.put(f"{bucket}/{name}", b"")
    assert {entry.name for entry in storage.list_folder(f"{bucket}/set")} == {"train"}
    assert {entry.name for entry in storage.list_folder(f"{bucket}/set/train")} == {"1"}
    assert {entry.name for entry in storage.list_tree(f"{bucket}/set")} == {"train/1"}
    assert storage.list_folder(f"{bucket}/new") == []
    assert not storage.is_occupied(f"{bucket}/new")
    assert storage.is_occupied(f"{bucket}/set")


@pytest.mark.slow
def test_more_than_a_page_is_listed_in_order(s3: S3Server) -> None:
    """moto gives 100 a page; MinIO 1,000."""
    bucket = s3.make_bucket()
    names = [f"{number:04}" for number in range(105 if s3.name == "moto" else 1005)]
    for _ in storage.concurrently(lambda name: objects.write(f"{bucket}/many/{name}", b"x"), names):
        pass
    assert [entry.name for entry in objects.tree(f"{bucket}/many")] == names
    assert [entry.name for entry in objects.entries(f"{bucket}/many")] == names


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 300_001])
def test_a_reader_reads_what_a_file_would(size: int, server: Server, bucket: str) -> None:
    data, chance = LARGE[:size], random.Random(size)
    server.put(f"{bucket}/k", data)
    stamp = storage.stamp(f"{bucket}/k")
    reader, memory = objects.ObjectReader(f"{bucket}/k", stamp), io.BytesIO(data)
    for _ in range(60):
        step = chance.randrange(7)
        count = chance.choice((0, 1, 7, 1000, 65_536, 70_000, size))
        if step == 0:
            offset = chance.randrange(size + 10)
            assert reader.seek(offset) == memory.seek(offset)
        elif step == 1:
            offset = chance.randrange(-min(size, 70_000), 10)
            assert reader.seek(offset, io.SEEK_END) == memory.seek(offset, io.SEEK_END)
        elif step == 2:
            offset = chance.randrange(-min(reader.tell(), 3), 100)
            assert reader.seek(offset, io.SEEK_CUR) == memory.seek(offset, io.SEEK_CUR)
        elif step == 3:
            into, expected = bytearray(count), bytearray(count)
            assert reader.readinto(into) == memory.readinto(expected)
            assert into == expected
        elif step == 4:
            found = reader.read1(count)
            assert found == memory.read(len(found))
            assert found or not count or reader.tell() >= size
        else:
            assert reader.read(count) == memory.read(count)
        assert reader.tell() == memory.tell()
    reader.seek(0)
    assert reader.read() == data
    assert reader.read() == reader.read1() == b""
    with pytest.raises(OSError, match="negative"):
        reader.seek(-1)


@pytest.mark.slow
def test_readers_of_other_libraries_read_objects(server: Server, bucket: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    import rapidgzip

    members = {f"{number}.bin": LARGE[number * 1000 : number * 90_000] for number in range(1, 8)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    server.put(f"{bucket}/z.zip", packed.getvalue())
    with storage.open_file(f"{bucket}/z.zip") as file, zipfile.ZipFile(file) as found:
        assert {name: found.read(name) for name in reversed(found.namelist())} == members
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    server.put(f"{bucket}/t.tar.gz", packed.getvalue())
    with storage.open_file(f"{bucket}/t.tar.gz") as file, tarfile.open(fileobj=file) as unpacked:
        assert {name: unpacked.extractfile(name).read() for name in reversed(unpacked.getnames())} == members  # type: ignore[union-attr]
    with storage.open_file(f"{bucket}/t.tar.gz") as file:
        stream = rapidgzip.RapidgzipFile(file, parallelization=4)
        stream.seek(1536)
        assert stream.read(100) == members["1.bin"][1024:1124]
        stream.seek(0)
        with tarfile.open(fileobj=stream) as unpacked:
            assert len(unpacked.getnames()) == 7
        stream.close()
    table = pa.table({"n": list(range(50_000)), "b": [LARGE[n : n + 20] for n in range(50_000)]})
    pq.write_table(table, tmp_path / "p", row_group_size=1000)
    server.put(f"{bucket}/p", (tmp_path / "p").read_bytes())
    with storage.open_arrow(f"{bucket}/p") as arrow:
        assert pq.ParquetFile(arrow).read_row_group(3) == table.slice(3000, 1000)
    with storage.mapped(storage.whole_file(f"{bucket}/p"), "p") as arrow:
        assert pq.read_table(arrow) == table
    with io.BufferedReader(storage.open_file(f"{bucket}/z.zip")) as file:  # type: ignore[type-var]
        assert file.read(10) == server.get(f"{bucket}/z.zip")[:10]


def test_little_more_is_asked_for_than_is_read(proxied: tuple[str, CountingProxy], server: Server) -> None:
    bucket, proxy = proxied
    url = f"{bucket}/k"
    server.put(url, LARGE)
    reader = objects.ObjectReader(url)
    proxy.reset()
    # Jumps: a window each.
    for at in range(0, len(LARGE), 500_000):
        reader.seek(at)
        reader.read(10)
    assert received(proxy) <= 7 * (64 << 10)
    assert len(proxy.requests) == 7
    # One long read: what was asked for, in one request.
    proxy.reset()
    reader.seek(1000)
    reader.read(1_000_000)
    assert (received(proxy), len(proxy.requests)) == (1_000_000, 1)
    # In order, however little at a time: each byte once, in few requests.
    proxy.reset()
    reader = objects.ObjectReader(url)
    while reader.read(997):
        pass
    ranged = [request for request in proxy.requests if request.range]
    assert sum(request.received for request in ranged) == len(LARGE)
    assert len(ranged) <= 10


def received(proxy: CountingProxy) -> int:
    return sum(request.received for request in proxy.requests if request.method == "GET")


def test_an_object_that_was_replaced_is_refused(server: Server, bucket: str) -> None:
    url = f"{bucket}/k"
    server.put(url, LARGE)
    blob = storage.whole_file(url)
    with objects.ObjectReader(url) as reader:
        assert reader.read(10) == LARGE[:10]
        server.put(url, LARGE[::-1])
        assert reader.read(10) == LARGE[10:20]  # what was read ahead is of the first one
        reader.seek(1_000_000)
        with pytest.raises(clients.ChangedError):
            reader.read(10)
    with (
        pytest.raises(InputError, match=r"^set/k: the file changed while it was being converted; run the job again$"),
        storage.open_blob(blob, "set/k"),
    ):
        pytest.fail("opened")


@pytest.mark.parametrize("late", [False, True])
def test_an_object_that_was_removed_is_told(late: bool, server: Server, bucket: str) -> None:
    url = f"{bucket}/k"
    server.put(url, LARGE)
    blob = storage.whole_file(url)
    if not late:
        server.delete(url)
    with pytest.raises(InputError, match=r"^k: cannot be read: no such object$"), storage.open_blob(blob, "k") as file:
        server.delete(url)
        file.seek(1_000_000)
        file.read(10)


def test_a_file_that_a_list_named_is_compared_with_it(server: Server, bucket: str) -> None:
    for name in "abc":
        server.put(f"{bucket}/set/{name}", name.encode())
    entries = storage.list_folder(f"{bucket}/set")
    assert sorted(storage.read_all_listed(entries)) == [b"a", b"b", b"c"]
    server.put(f"{bucket}/set/b", b"x")
    with pytest.raises(InputError, match="set/b: the file changed"):
        storage.read_all_listed(entries)


def test_a_write_may_ask_what_is_there(server: Server, bucket: str) -> None:
    url = f"{bucket}/dir/k"
    assert not objects.write(url, b"0", replaces="1234" if server.scheme == "gs" else '"0"')
    assert objects.write(url, b"1", replaces="")
    assert not objects.write(url, b"2", replaces="")
    first = objects.fetch_if_any(url)
    assert first is not None
    assert first[0] == b"1"
    assert objects.write(url, b"3", replaces=first[1].tag)
    assert not objects.write(url, b"4", replaces=first[1].tag)
    # An answer may be lost: what did it is not refused when it is asked again.
    assert objects.write(url, b"3", replaces="")
    assert server.get(url) == b"3"
    objects.remove([url])
    assert objects.fetch_if_any(url) is None


@pytest.mark.parametrize("server", EXACT, indirect=True)
def test_of_many_that_write_at_once_one_wins(server: Server, bucket: str) -> None:
    for attempt in range(5):
        url = f"{bucket}/{attempt}"
        won = list(storage.concurrently(lambda n: objects.write(url, b"%d" % n, replaces=""), range(8)))  # noqa: B023
        assert won.count(True) == 1
        assert server.get(url) == b"%d" % won.index(True)


def test_calls_at_once_keep_their_order_nest_and_stop_at_an_error() -> None:
    def slow(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number

    def nested(number: int) -> list[int]:
        return list(storage.concurrently(slow, range(number)))

    assert list(storage.concurrently(slow, iter(range(40)))) == list(range(40))
    assert list(storage.concurrently(nested, range(20))) == [list(range(n)) for n in range(20)]
    assert list(storage.concurrently(slow, [])) == []
    called: list[int] = []

    def failing(number: int) -> int:
        called.append(number)
        if number == 5:
            raise ValueError(number)
        time.sleep(0.01)
        return number

    found = storage.concurrently(failing, range(5000))
    with pytest.raises(ValueError, match="5"):
        list(found)
    assert len(called) < 200
    threads = threading.active_count()
    taken = storage.concurrently(slow, range(5000))
    assert next(taken) == 0
    taken.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_any_number_of_objects_is_removed(proxied: tuple[str, CountingProxy], server: Server) -> None:
    bucket, proxy = proxied
    urls = [f"{bucket}/n {number}" for number in range(1500)]
    for place in (0, 999, 1000, 1499):
        server.put(urls[place], b"x")
    server.put(f"{bucket}/other", b"x")
    proxy.reset()
    assert objects.remove(iter(urls)) == 1500
    assert server.listing(bucket) == {"other": 1}
    if server.scheme == "s3":
        assert [request.method for request in proxy.requests if request.method == "POST"] == ["POST", "POST"]
    assert objects.remove([]) == 0
    storage.remove_tree(f"{bucket}/none")


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 16 << 20, (16 << 20) + 1])
def test_files_of_any_size_are_uploaded(size: int, proxied: tuple[str, CountingProxy], server: Server) -> None:
    bucket, proxy = proxied
    data = (LARGE * 6)[:size]
    proxy.reset()
    objects.upload(f"{bucket}/k", io.BytesIO(data), size)
    methods = [request.method for request in proxy.requests]
    assert server.get(f"{bucket}/k") == data
    if server.scheme == "s3":
        assert methods == (["PUT"] if size < 16 << 20 else ["POST", *["PUT"] * -(-size // (8 << 20)), "POST"])
        assert list(objects.pending([bucket + "/k"])) == []


def test_uploads_that_were_not_ended_are_found_and_given_up(s3: S3Server) -> None:
    bucket = s3.make_bucket()
    for key in ("out/a b", "out/deep/c", "out.x/d", "outer", "z/out/e"):
        place = {"Bucket": bucket.removeprefix("s3://"), "Key": key}
        upload = s3.client().create_multipart_upload(**place)["UploadId"]
        s3.client().upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")
    found = list(objects.pending([f"{bucket}/out"]))
    assert sorted(url for url, _ in found) == [f"{bucket}/out/a b", f"{bucket}/out/deep/c"]
    for url, upload in found:
        objects.abort(url, upload)
    assert s3.pending_uploads(bucket) == ["out.x/d", "outer", "z/out/e"]


def test_a_staged_file_is_an_object_once_it_is_committed(server: Server, bucket: str) -> None:
    with storage.StagedFile(f"{bucket}/k", "") as file:
        file.write(b"lost")
    assert server.listing(bucket) == {}
    with storage.StagedFile(f"{bucket}/k", "") as file:
        file.write(LARGE)
        assert server.listing(bucket) == {}
        file.commit()
    assert server.get(f"{bucket}/k") == LARGE
    with storage.StagedFile(f"{bucket}/l", "", storage.Guard(f"{bucket}/right to write")) as file:
        file.write(b"late")
        with pytest.raises(JobError, match="another job took over the output"):
            file.commit()
    assert server.listing(bucket) == {"k": len(LARGE)}


# Jobs.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """303 images in the genuine layout, and the same in an archive."""
    folder = tmp_path_factory.mktemp("small")
    make_sample(str(folder / "set"), kind="cifar10", images=303, seed=1)
    make_sample(str(folder / "set.tar.gz"), kind="cifar10", images=303, seed=1, tar=True)
    return folder


FORMATS = {
    "parquet": {},
    "cifar": {"save_images": True},
    "imagenet": {"limit": 12},
    "npz": {},
    "mnist": {"labels": ("cat", "dog")},
    "webdataset": {"subsets": ("test_batch",)},
    "tfds_parquet": {},
}
JOBS: dict[str, dict[str, Any]] = {
    "filter": {"filter": '/item[annotation/label="dog" or image/width>40]'},
    "remap": {"remaps": ("cat:dog",), "labels": ("cat", "dog")},
    "split": {"steps": "random_split -s train:.8 -s test:.2 --seed 3"},
}


def job(source: object, output: object, **options: Any) -> ConvertOptions:
    from beam_cifar.cli.parser import Parser
    from beam_cifar.steps.registry import parse_call

    steps = (parse_call(options.pop("steps"), Parser),) if "steps" in options else ()
    target = options.pop("target", "parquet")
    return ConvertOptions(str(source), str(output), target, workers=1, steps=steps, **options)


def plainly(options: ConvertOptions, on_start: Callable[[Job], object] = lambda job: None) -> None:
    """A job without a runner."""
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        convert(options, on_start=on_start)


def check_equal(server: Server, url: str, local: Path, tmp_path: Path) -> None:
    """The output at a URL is that of a local job, its manifest too; nothing else is left but a note of its inputs."""
    for suffix in ("", ".beam_cifar"):
        found = tmp_path / f"found{time.monotonic_ns()}"
        server.download_tree(url + suffix, found)
        both = [contents(folder) for folder in (found, local.with_name(local.name + suffix))]
        assert both[0].keys() == both[1].keys()
        assert both[0] == {**both[1], **{name: both[0][name] for name in both[0] if name.startswith("inputs-")}}
    if isinstance(server, S3Server):
        assert server.pending_uploads(url) == []


@pytest.mark.parametrize(
    "target", [slow(name) if name in ("webdataset", "tfds_parquet", "mnist") else name for name in FORMATS]
)
def test_a_job_in_a_store_writes_what_a_local_one_does(
    target: str, server: Server, bucket: str, small: Path, tmp_path: Path
) -> None:
    options = {"target": target, **FORMATS[target]}  # type: ignore[dict-item]
    plainly(job(small / "set", tmp_path / "right", **options))
    server.upload_tree(small / "set", f"{bucket}/in/set")
    plainly(job(f"{bucket}/in/set", f"{bucket}/out/right", **options))
    check_equal(server, f"{bucket}/out/right", tmp_path / "right", tmp_path)


# Readers of one packed archive, several at a time, reserve 6.3 GB of addresses, and rapidgzip crashes without.
@pytest.mark.address_space(12)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("set", "filter"),
        slow("set", "remap"),
        slow("set", "split"),
        slow("set.tar.gz", "remap"),
        ("set.tar.gz", "split"),
    ],
)
def test_what_is_done_to_rows_is_done_in_a_store(
    kind: str, name: str, server: Server, bucket: str, small: Path, tmp_path: Path
) -> None:
    plainly(job(small / name, tmp_path / "right", **JOBS[kind]))
    if name == "set":
        server.upload_tree(small / name, f"{bucket}/{name}")
    else:
        server.put(f"{bucket}/{name}", (small / name).read_bytes())
    plainly(job(f"{bucket}/{name}", f"{bucket}/out", **JOBS[kind]))
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["parquet", slow("imagenet")])
def test_files_and_objects_can_be_on_either_side(
    target: str, server: Server, bucket: str, small: Path, tmp_path: Path
) -> None:
    options = {"target": target, **FORMATS[target]}  # type: ignore[dict-item]
    plainly(job(small / "set", tmp_path / "right", **options))
    plainly(job(small / "set", f"{bucket}/out/", **options))
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)
    server.upload_tree(small / "set", f"{bucket}/set")
    plainly(job(f"{bucket}/set/", tmp_path / "here", **options))
    assert contents(tmp_path / "here") == contents(tmp_path / "right")
    here, right = (contents(tmp_path / f"{name}.beam_cifar") for name in ("here", "right"))
    assert here.keys() == right.keys()
    assert all(here[name] == right[name] for name in here if not name.startswith("inputs-"))  # versions of objects


@pytest.mark.slow
def test_sets_of_both_kinds_are_merged(server: Server, bucket: str, small: Path, tmp_path: Path) -> None:
    from beam_cifar.options import Input

    make_sample(str(tmp_path / "other"), kind="cifar10", images=100, seed=2)
    server.upload_tree(tmp_path / "other", f"{bucket}/other")
    for other, output in ((tmp_path / "other", tmp_path / "right"), (f"{bucket}/other", f"{bucket}/out")):
        plainly(job(small / "set", output, merged=(Input(str(other)),), on_clash="suffix"))
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)


@pytest.mark.slow
def test_a_real_runner_writes_the_same_with_flags_alone(
    server: Server, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, and nothing in the environment where there are flags."""
    for name in server.environment if server.scheme == "s3" else ():
        if name.startswith(("AWS_ACCESS", "AWS_SECRET", "AWS_ENDPOINT")):
            monkeypatch.delenv(name, raising=False)
    if server.scheme == "gs":
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
    bucket = server.make_bucket()
    server.upload_tree(small / "set", f"{bucket}/set")
    quickly(small / "set", tmp_path / "right", "parquet")
    try:
        summary = convert(ConvertOptions(f"{bucket}/set", f"{bucket}/out", "parquet", workers=2), server.beam_flags)
    finally:
        store_options.use_options()
    assert (summary.output, summary.written) == (f"{bucket}/out", 303)
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)


@pytest.mark.slow
def test_other_commands_read_stores(server: Server, bucket: str, small: Path, tmp_path: Path, command: Command) -> None:
    server.upload_tree(small / "set", f"{bucket}/set")
    plainly(job(f"{bucket}/set", f"{bucket}/out"))
    code, out, err = command("info", f"{bucket}/set")
    assert (code, "CIFAR-10" in out, err) == (0, True, "")
    code, out, err = command("detect", f"{bucket}/out")
    assert (code, "parquet" in out, err) == (0, True, "")
    code, out, err = command("diff", f"{bucket}/set", f"{bucket}/out")
    assert (code, err) == (0, ""), out
    code, out, err = command("diff", f"{bucket}/out", small / "set")
    assert (code, err) == (0, ""), out
    code, out, err = command("clean", f"{bucket}/out")
    assert (code, out, err) == (0, f"nothing to clean at {bucket}/out\n", "")


@pytest.mark.slow
def test_commands_with_a_pipeline_read_stores(server: Server, bucket: str, small: Path, command: Command) -> None:
    server.upload_tree(small / "set", f"{bucket}/set")
    for verb in ("stats", "validate"):
        here, there = (command(verb, place, "--workers", 1, "--json") for place in (small / "set", f"{bucket}/set"))
        assert here[0] == there[0] == 0, there[2]
        assert there[1].replace(bucket, str(small)) == here[1]


# Outputs that exist.


@pytest.mark.slow
def test_an_output_that_exists_is_refused(server: Server, bucket: str, small: Path, command: Command) -> None:
    server.put(f"{bucket}/out/precious", b"data")
    for output in (f"{bucket}/out", f"{bucket}/out/"):
        code, _, err = command("convert", "-i", small / "set", "-f", "parquet", "-o", output)
        assert (code, err.count("\n")) == (4, 1)
        assert f"{bucket}/out: exists and is not empty; pass --overwrite" in err
    code, _, err = command(
        "convert", "-i", small / "set", "-f", "parquet", "-o", f"{bucket}/out/precious", "--overwrite"
    )
    assert (code, "exists and is not a directory" in err) == (4, True)
    assert server.listing(bucket) == {"out/precious": 4}


@pytest.mark.slow
def test_an_output_is_replaced_whole(server: Server, bucket: str, small: Path, tmp_path: Path) -> None:
    plainly(job(small / "set", tmp_path / "right", labels=("dog",)))
    plainly(job(small / "set", f"{bucket}/out", target="cifar", save_images=True))
    server.put(f"{bucket}/out/z/leftover", b"of somebody")
    server.put(f"{bucket}/out.x/precious", b"data")
    plainly(job(small / "set", f"{bucket}/out", labels=("dog",), overwrite=True))
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)
    assert server.get(f"{bucket}/out.x/precious") == b"data"


@pytest.mark.slow
def test_a_folder_that_was_made_by_hand_is_written_to(server: Server, bucket: str, small: Path, tmp_path: Path) -> None:
    server.put(f"{bucket}/out/", b"")
    plainly(job(small / "set", tmp_path / "right"))
    plainly(job(small / "set", f"{bucket}/out"))
    server.delete(f"{bucket}/out/")
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)


@pytest.mark.slow
def test_an_input_that_changes_ends_the_job_and_leaves_the_old_output(
    server: Server, bucket: str, small: Path, tmp_path: Path
) -> None:
    server.upload_tree(small / "set", f"{bucket}/set")
    for output, before in ((f"{bucket}/old", True), (f"{bucket}/new", False)):
        if before:
            plainly(job(small / "set", output))
        old = everything(server, bucket)

        def change(_: object) -> None:
            server.put(f"{bucket}/set/data_batch_3", (small / "set/data_batch_3").read_bytes()[::-1])

        with pytest.raises(InputError, match=r"set/data_batch_3: the file changed while it was being converted"):
            plainly(job(f"{bucket}/set", output, overwrite=before), change)
        server.put(f"{bucket}/set/data_batch_3", (small / "set/data_batch_3").read_bytes())
        assert everything(server, bucket) == old


def everything(server: Server, bucket: str) -> dict[str, bytes]:
    return {name: server.get(f"{bucket}/{name}") for name in server.listing(bucket)}


@pytest.mark.slow
def test_a_manifest_without_its_output_does_not_vouch_for_the_next_one(
    server: Server, bucket: str, small: Path, tmp_path: Path
) -> None:
    """Somebody removed the output, and not the folder beside it."""
    plainly(job(small / "set", tmp_path / "right"))
    plainly(job(small / "set", f"{bucket}/out", target="npz"))
    storage.remove_tree(f"{bucket}/out")
    seen: list[dict[str, int]] = []
    plainly(job(small / "set", f"{bucket}/out"), lambda _: seen.append(server.listing(f"{bucket}/out.beam_cifar")))
    assert "manifest.json" not in seen[0]
    check_equal(server, f"{bucket}/out", tmp_path / "right", tmp_path)


# Refusals: one line each.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "output", "code", "said"),
    [
        ("{bucket}/none", "{bucket}/out", 3, "{bucket}/none: no such file or directory"),
        ("{bucket}/empty", "{bucket}/out", 3, "{bucket}/empty: the directory is empty"),
        ("{bucket}/text", "{bucket}/out", 3, "{bucket}/text: no known format"),
        ("{scheme}://no-such-bucket-9/x", "{bucket}/out", 1, "bucket 'no-such-bucket-9' does not exist"),
        ("{bucket}/set", "{scheme}://no-such-bucket-9/x", 1, "bucket 'no-such-bucket-9' does not exist"),
        ("{bucket}/set", "{bucket}", 2, "the output '{bucket}' is a whole bucket"),
        ("{bucket}/set", "{bucket}/", 2, "the output '{bucket}' is a whole bucket"),
        ("{bucket}/set", "{bucket}/set", 2, "is the input itself"),
        ("{bucket}/set", "{bucket}/set/out", 2, "is inside the input"),
        ("{bucket}/set/sub", "{bucket}/set", 2, "is inside the output"),
        ("{bucket}/set.beam_cifar/x", "{bucket}/set", 2, "in the staging directory of '{bucket}/set'"),
        ("{bucket}", "{bucket}/out", 2, "is inside the input"),
        ("{bucket}/set", "{bucket}/a//b", 2, "a component that is empty, '.' or '..'"),
        ("{bucket}/../x", "{bucket}/out", 2, "a component that is empty, '.' or '..'"),
        ("{scheme}:///x", "{bucket}/out", 2, "'' is not a valid bucket name"),
        ("{scheme}://A_b!/x", "{bucket}/out", 2, "'A_b!' is not a valid bucket name"),
        ("https://host/x", "{bucket}/out", 2, "https:// is not supported; use s3://, gs://"),
        ("{bucket}/set", "hdfs://x/y", 2, "hdfs:// is not supported"),
    ],
)
def test_a_wrong_place_is_one_line(
    source: str, output: str, code: int, said: str, server: Server, bucket: str, small: Path, command: Command
) -> None:
    server.upload_tree(small / "set", f"{bucket}/set")
    server.put(f"{bucket}/empty/", b"")
    server.put(f"{bucket}/text/readme", b"text")
    before = server.listing(bucket)
    names = {"bucket": bucket, "scheme": server.scheme}
    found = command("convert", "-i", source.format(**names), "-f", "parquet", "-o", output.format(**names))
    assert found[0] == code, found[2]
    assert found[1:] == ("", found[2])
    assert said.format(**names) in found[2]
    assert found[2].count("\n") == 1
    assert server.listing(bucket) == before


@pytest.mark.slow
@pytest.mark.stores
@pytest.mark.parametrize("flags", [["--s3_secret_access_key=wrong"], ["--s3_access_key_id=nobody"]])
def test_wrong_credentials_are_one_line(
    flags: list[str], minio_server: S3Server, small: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = minio_server.make_bucket()
    minio_server.upload_tree(small / "set", f"{bucket}/set")
    with reached(minio_server, monkeypatch):
        code, _, err = command(
            "convert", "-i", small / "set", "-f", "parquet", "-o", f"{bucket}/out", *minio_server.beam_flags, *flags
        )
        assert (code, err.count("\n")) == (1, 1), err
        assert "access denied" in err
        assert "wrong" not in err
        code, _, err = command(
            "convert", "-i", f"{bucket}/set", "-f", "parquet", "-o", f"{bucket}/out", *minio_server.beam_flags, *flags
        )
        assert (code, err.count("\n")) == (1, 1), err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "flags", "said"),
    [
        ({}, ["--s3_endpoint_url=nonsense"], "nonsense"),
        slow({"AWS_PROFILE": "nobody"}, [], "nobody"),
        slow({}, ["--s3_access_key_id=a"], "credentials"),
        slow({"AWS_ENDPOINT_URL": "ftp://127.0.0.1:1"}, [], ""),
        slow({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, [], "credentials"),
    ],
)
def test_wrong_settings_are_one_line(
    environment: dict[str, str], flags: list[str], said: str, moto_server: S3Server, small: Path, tmp_path: Path
) -> None:
    variables = {**moto_server.programs_environment(), "PYTHONPATH": str(ROOT), **environment}
    variables = {name: value for name, value in variables.items() if value}
    arguments = ["convert", "-i", str(small / "set"), "-f", "parquet", "-o", "s3://bucket/out", *flags]
    ran = subprocess.run(
        [sys.executable, "-m", "beam_cifar", *arguments],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode in (1, 2), ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert said in ran.stderr


@pytest.mark.parametrize(("scheme", "library", "extra"), [("s3", "boto3", "aws"), ("gs", "google.cloud", "gcp")])
def test_a_library_that_is_missing_is_named(
    scheme: str, library: str, extra: str, small: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.startswith((library, "beam_cifar.storage.s3", "beam_cifar.storage.gcs"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    store_options.use_options()
    code, _, err = command("convert", "-i", small / "set", "-f", "parquet", "-o", f"{scheme}://bucket/out")
    store_options.use_options()
    assert code == 2
    assert f"{scheme}:// needs a library that is not installed ({library}" in err
    assert err.endswith(f"pip install 'beam_cifar[{extra}]'\n")


# Who holds an output.


def folder_of(bucket: str) -> storage.JobFolder:
    return storage.JobFolder(f"{bucket}/out")


def forged(bucket: str, **changed: object) -> None:
    """Leaves a lock of another job: of this process, with some facts changed."""
    content = json.loads(lock._ObjectLock(folder_of(bucket))._content())
    objects.write(f"{bucket}/out.beam_cifar/lock", json.dumps({**content, **changed}).encode())


@pytest.mark.slow
def test_a_second_job_is_refused_and_told_who_writes(
    server: Server, bucket: str, small: Path, command: Command, tmp_path: Path
) -> None:
    arguments = ("convert", "-i", small / "set", "-f", "parquet", "-o", f"{bucket}/out")
    with storage.hold(folder_of(bucket)):
        for more in ((), ("--overwrite",), ("--resume",)):
            code, _, err = command(*arguments, *more)
            assert (code, err.count("\n")) == (4, 1)
            assert f"{bucket}/out: another job (process " in err
        code, _, err = command("clean", f"{bucket}/out")
        assert (code, "another job (process" in err) == (4, True)
        assert list(server.listing(bucket)) == ["out.beam_cifar/lock"]
    assert server.listing(bucket) == {}
    assert command(*arguments)[0] == 0


@pytest.mark.slow
def test_a_holder_that_was_killed_here_is_followed_at_once(server: Server, bucket: str) -> None:
    program = (
        "import sys, os; from beam_cifar import storage; from beam_cifar.pipeline import stores as store_options\n"
        "storage.hold(storage.JobFolder(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    environment = {**server.programs_environment(), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program, f"{bucket}/out"], env=environment, timeout=60, capture_output=True
    )
    assert ran.returncode == -9, ran.stderr
    assert list(server.listing(bucket)) == ["out.beam_cifar/lock"]
    with storage.hold(folder_of(bucket)):
        pass
    assert server.listing(bucket) == {}


def test_a_lock_is_renewed_and_runs_out(server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.05)
    path = f"{bucket}/out.beam_cifar/lock"
    with storage.hold(folder_of(bucket)):
        first = server.get(path)
        until = time.monotonic() + 20
        while server.get(path) == first and time.monotonic() < until:
            time.sleep(0.02)
        assert json.loads(server.get(path))["renewed"] > json.loads(first)["renewed"]
        with pytest.raises(OutputError, match="is writing to it"), storage.hold(folder_of(bucket)):
            pytest.fail("held twice")
    elsewhere = {"host": "elsewhere", "process": 1, "token": "x"}
    forged(bucket, **elsewhere)
    with (
        pytest.raises(OutputError, match=r"process 1 on elsewhere, seen 0 s ago\).*try again in (90|89) s"),
        storage.hold(folder_of(bucket)),
    ):
        pytest.fail("held twice")
    forged(bucket, **elsewhere, renewed=time.time() - 100)
    with storage.hold(folder_of(bucket)):
        pass


def test_a_lock_of_a_live_process_of_another_machine_with_our_name_is_respected(server: Server, bucket: str) -> None:
    """Names of machines are not unique: containers, and machines named by an image."""
    content = json.loads(lock._ObjectLock(folder_of(bucket))._content())
    forged(bucket, machine="another boot of another machine", process=2**22 + 1, started="1")
    assert content["host"]
    with pytest.raises(OutputError, match="is writing to it"), storage.hold(folder_of(bucket)):
        pytest.fail("taken from a live job")


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe garbage",
        b"[]",
        b"null",
        b'{"renewed": "yesterday"}',
        b'{"renewed": null, "host": 5, "process": [], "token": {}}',
        b'{"renewed": NaN}',
        b'{"renewed": 1e400}',
        b'{"renewed": 99999999999}',
        b'{"renewed": 0, "process": "../../etc/passwd"}',
        b"[" * 100_000,
    ],
    ids=range(11),
)
def test_a_damaged_lock_holds_for_a_while_and_no_longer(
    content: bytes, server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{bucket}/out.beam_cifar/lock"
    server.put(path, content)
    monkeypatch.setattr(lock, "HELD_FOR", 2.5)
    until = time.monotonic() + 20
    while True:
        try:
            with storage.hold(folder_of(bucket)):
                break
        except OutputError as error:
            if "is writing to it" not in str(error):
                raise
            assert time.monotonic() < until
            time.sleep(0.2)
    assert server.listing(bucket) == {}


@pytest.mark.parametrize("server", EXACT, indirect=True)
def test_of_jobs_that_begin_at_once_one_wins(server: Server, bucket: str) -> None:
    for round_ in range(20):
        folder, ready, leave = storage.JobFolder(f"{bucket}/{round_}"), threading.Barrier(2), threading.Event()
        if round_ % 2:  # one that nobody holds any more
            objects.write(f"{folder.path}/lock", b'{"renewed": 1}')
        results: list[str] = []

        def begin(folder=folder, ready=ready, leave=leave, results=results) -> None:  # type: ignore[no-untyped-def]
            ready.wait()
            try:
                with storage.hold(folder):
                    results.append("held")
                    leave.wait(20)
            except OutputError:
                results.append("refused")
            if len(results) == 2:
                leave.set()

        threads = [threading.Thread(target=begin) for _ in range(2)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(results) < 2 and time.monotonic() < until:
            time.sleep(0.005)
        leave.set()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["held", "refused"]
    assert server.listing(bucket) == {}


def test_a_job_that_lost_its_output_writes_no_more(server: Server, bucket: str, small: Path) -> None:
    """It stood still for long, as on a machine that slept: another one has cleaned up."""

    def take(_: object) -> None:
        forged(bucket, host="elsewhere", renewed=time.time() - 1000)
        assert clean(f"{bucket}/out").found

    with pytest.raises(JobError, match="another job took over the output"):
        plainly(job(small / "set", f"{bucket}/out"), take)
    assert not server.listing(f"{bucket}/out")


def test_usage_errors_come_before_any_request(moto_server: S3Server, small: Path) -> None:
    with pytest.raises(UsageError, match="is not a valid bucket name"):
        convert(job(small / "set", "s3://UPPER/x"))
