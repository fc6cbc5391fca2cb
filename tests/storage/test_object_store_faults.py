"""Object stores that refuse, stall and break off, and jobs that are killed at each of their writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from unittest import mock

import pytest

from beam_cifar import ConvertOptions, convert, make_sample, storage
from beam_cifar.errors import InputError, JobError
from beam_cifar.jobs import serial
from beam_cifar.jobs.clean import clean
from beam_cifar.jobs.prepare import Job
from beam_cifar.pipeline import stores as store_options
from tests.helpers import ROOT
from tests.helpers.counting_proxy import CountingProxy, Fault
from tests.helpers.image_trees import contents
from tests.helpers.object_stores import S3Server, Server

pytestmark = pytest.mark.slow

# Runs one job without a runner: a process that can be killed at any request.
PROGRAM = """
import sys
from unittest import mock
from beam_cifar import ConvertOptions, convert
from beam_cifar.jobs import serial
source, output, target, overwrite, resume = sys.argv[1:]
limit = 12 if target == "imagenet" else None
with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
    convert(ConvertOptions(source, output, target, workers=1, limit=limit, overwrite=overwrite == "True", resume=resume == "True"))
"""


@pytest.fixture
def proxied(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, CountingProxy]]:
    """An empty bucket that this process finds through a proxy."""
    made = server.make_bucket()
    with server.behind_proxy() as (front, proxy):
        for name, value in front.environment.items():
            monkeypatch.setenv(name, value)
        store_options.use_options()
        yield made, proxy
    store_options.use_options()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer attempts and shorter waits than in earnest, where a store is given half a minute."""
    from botocore.config import Config

    from beam_cifar.storage import s3

    short = Config(connect_timeout=2, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 3})
    monkeypatch.setattr(s3, "CONFIG", short)
    monkeypatch.setattr(s3, "READ_ATTEMPTS", 2)
    if "google.cloud" in sys.modules or os.environ.get("STORAGE_EMULATOR_HOST"):
        from beam_cifar.storage import gcs

        monkeypatch.setattr(gcs, "CALL", {"timeout": (2, 1), "retry": gcs.CALL["retry"].with_timeout(2)})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "set"
    make_sample(str(folder), kind="cifar10", images=120, seed=1)
    return folder


@pytest.fixture(scope="module")
def right(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Outputs of local jobs and their manifests, by format."""
    found = {}
    for target in ("parquet", "imagenet", "cifar"):
        output = tmp_path_factory.mktemp("right") / "out"
        plainly(small, output, target)
        found[target] = without_notes(
            {
                f"{folder}/{name}": data
                for folder in ("out", "out.beam_cifar")
                for name, data in contents(output.with_name(folder)).items()
            }
        )
    return found


def plainly(source: object, output: object, target: str = "parquet", **options: object) -> None:
    """A job without a runner."""
    on_start = options.pop("on_start", lambda job: None)
    limit = 12 if target == "imagenet" else None
    asked = ConvertOptions(str(source), str(output), target, workers=1, limit=limit, **options)  # type: ignore[arg-type]
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        convert(asked, on_start=on_start)  # type: ignore[arg-type]


def everything(server: Server, bucket: str) -> dict[str, bytes]:
    return without_notes({name: server.get(f"{bucket}/{name}") for name in server.listing(bucket)})


def without_notes(found: dict[str, bytes]) -> dict[str, bytes]:
    """The same with an empty note of the job's inputs: equal inputs are different files."""
    return {name: b"" if "/inputs-" in name else data for name, data in found.items()}


def check_nothing_pends(server: Server, bucket: str) -> None:
    if isinstance(server, S3Server):
        assert server.pending_uploads(bucket) == []


def writes(server: Server) -> str:
    return "PUT" if server.scheme == "s3" else "POST"


# What passes, and what does not.


@pytest.mark.parametrize(
    ("method", "kind", "times"),
    [
        ("GET", "answer", 2),
        ("GET", "cut", 1),
        ("GET", "drop", 1),
        ("write", "answer", 2),
        ("write", "lose", 1),
        ("write", "drop", 1),
    ],
)
def test_a_fault_that_passes_does_no_harm(
    method: str,
    kind: str,
    times: int,
    proxied: tuple[str, CountingProxy],
    server: Server,
    small: Path,
    right: dict[str, dict[str, bytes]],
) -> None:
    """The first reads and writes of each kind of object: the lock, parts, the manifest, inputs."""
    bucket, proxy = proxied
    server.upload_tree(small, f"{bucket}/set")
    proxy.reset()
    named = method != "write" or server.scheme == "s3"  # the name of what is written to GCS is in the body
    method = writes(server) if method == "write" else method
    if not named:
        proxy.inject(Fault(kind, method, path="upload", first=2, times=times, at=20))  # type: ignore[arg-type]
    for place in ("lock", "begun.json", r"parquet", "manifest.json", r"data_batch_2(\?|$)"):
        proxy.inject(Fault(kind, method, path=place, times=times, at=20))  # type: ignore[arg-type]
    plainly(f"{bucket}/set", f"{bucket}/out")
    assert proxy.struck
    found = everything(server, bucket)
    assert {name: data for name, data in found.items() if name.startswith("out")} == right["parquet"]
    check_nothing_pends(server, bucket)


@pytest.mark.parametrize(
    ("method", "place", "kind"),
    [
        ("GET", r"data_batch_2(\?|$)", "answer"),
        ("GET", r"data_batch_2(\?|$)", "cut"),
        ("write", r"\.parquet", "answer"),
        ("write", r"\.parquet", "drop"),
        ("write", r"out.beam_cifar(/|%2F)lock", "answer"),
        ("write", "manifest.json", "answer"),
    ],
)
@pytest.mark.slow
def test_a_fault_that_stays_is_one_line_and_the_old_output_stays(
    method: str,
    place: str,
    kind: Literal["answer", "drop"],
    server: Server,
    small: Path,
    hasty: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = server.make_bucket()
    server.upload_tree(small, f"{bucket}/set")
    with reached(server, monkeypatch) as proxy:
        plainly(f"{bucket}/set", f"{bucket}/old", "cifar")
        before = everything(server, bucket)
        if server.scheme == "gs" and method == "write":
            place = "upload"  # their names are in the body
        for output, overwrite in (("out", False), ("old", True)):
            fault = Fault(
                kind, writes(server) if method == "write" else method, path=place.replace("out.", f"{output}."), times=0
            )
            proxy.inject(fault)
            with pytest.raises((JobError, InputError)) as caught:
                plainly(f"{bucket}/set", f"{bucket}/{output}", overwrite=overwrite)
            assert "\n" not in str(caught.value)
            assert kind != "answer" or "injected by a test" in str(caught.value) or "503" in str(caught.value)
            proxy.reset()
            assert not storage.is_complete(storage.JobFolder(f"{bucket}/out"))
            if not overwrite or place != "manifest.json":
                assert everything(server, bucket) == before
            check_nothing_pends(server, bucket)


class reached:  # noqa: N801 (used as a function)
    """While entered, this process finds a store, through a proxy that it yields."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self._behind, self._monkeypatch = server.behind_proxy(), monkeypatch

    def __enter__(self) -> CountingProxy:
        front, proxy = self._behind.__enter__()
        for name, value in front.environment.items():
            self._monkeypatch.setenv(name, value)
        store_options.use_options()
        return proxy

    def __exit__(self, *_: object) -> None:
        self._behind.__exit__(None, None, None)
        store_options.use_options()


def test_a_refusal_is_not_tried_again(proxied: tuple[str, CountingProxy], server: Server, small: Path) -> None:
    bucket, proxy = proxied
    server.upload_tree(small, f"{bucket}/set")
    proxy.inject(Fault("answer", "GET", path=r"data_batch_3(\?|$)", status=403, code="AccessDenied", first=2, times=0))
    proxy.inject(Fault("answer", "HEAD", path=r"data_batch_3(\?|$)", status=403, code="AccessDenied", first=2, times=0))
    with pytest.raises(InputError, match=r"data_batch_3: .*access denied: (injected|Forbidden|)"):
        plainly(f"{bucket}/set", f"{bucket}/out")
    assert len(proxy.struck) <= 2
    assert set(server.listing(bucket)) == {f"set/{path.name}" for path in small.iterdir()}


def test_a_read_that_stalls_is_given_up_and_asked_again(
    proxied: tuple[str, CountingProxy], hasty: None, server: Server
) -> None:
    bucket, proxy = proxied
    store_options.use_options()
    server.put(f"{bucket}/k", b"data" * 100_000)
    proxy.inject(Fault("wait", "GET", path=r"/k(\?|$)", delay=3.0))
    with storage.open_file(f"{bucket}/k") as file:
        assert file.read() == b"data" * 100_000
    assert len(proxy.struck) == 1


def test_an_output_that_cannot_be_unmarked_is_not_replaced(
    s3: S3Server, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest says that it is complete: where that may not be removed, nothing may be written over the rest."""
    bucket = s3.make_bucket()
    with reached(s3, monkeypatch) as proxy:
        plainly(small, f"{bucket}/out", "cifar")
        before = everything(s3, bucket)
        # The first removal of a job is that of the old manifest.
        proxy.inject(Fault("answer", "POST", path=r"\?delete", status=403, code="AccessDenied"))
        with pytest.raises(JobError, match="access denied: injected by a test"):
            plainly(small, f"{bucket}/out", overwrite=True)
        assert proxy.struck
        assert everything(s3, bucket) == before


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented")])
def test_a_store_that_does_not_list_uploads_is_good_enough(
    status: int,
    code: str,
    s3: S3Server,
    small: Path,
    right: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3.make_bucket()
    with reached(s3, monkeypatch) as proxy:
        proxy.inject(Fault("answer", "GET", path=r"\?uploads", status=status, code=code, times=0))
        plainly(small, f"{bucket}/out")
        assert clean(f"{bucket}/out").found == ()
        assert proxy.struck
        assert everything(s3, bucket) == right["parquet"]


# Kills.


def program(server: Server, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**server.programs_environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], env=environment, stderr=subprocess.PIPE
    )


def killed(server: Server, fault: Callable[[Callable[[], object]], Fault], *arguments: object) -> bool:
    """Runs a job that dies when a fault strikes; whether it did."""
    with server.behind_proxy() as (front, proxy):
        process = program(front, *arguments)
        hit: list[bool] = []  # not where a body is too small to be cut

        def kill() -> None:
            hit.append(True)
            process.kill()

        proxy.inject(fault(kill))
        try:
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == (-9 if hit else 0), said.decode()
        return bool(proxy.struck)


def kept(found: dict[str, bytes]) -> dict[str, bytes]:
    """The same without what the next command removes; a note of inputs stays if its manifest does."""
    removed = re.compile(r"out\.beam_cifar/(work-|inputs-|lock$)")
    return {name: data for name, data in found.items() if not removed.match(name)}


@pytest.mark.stores  # a quarter of an hour with all stores
@pytest.mark.parametrize("target", ["parquet", "imagenet"])
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", ["drop", "cut_upload", "lose"], ids=["not-written", "half-sent", "not-acknowledged"])
def test_a_job_killed_at_any_write_is_resumed_or_cleaned(
    kind: str,
    overwrite: bool,
    target: str,
    server: Server,
    small: Path,
    right: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, done = 1, False
    while not done:
        bucket = server.make_bucket()
        with reached(server, monkeypatch):
            if overwrite:
                plainly(small, f"{bucket}/out", "cifar")
            before = everything(server, bucket)
            done = not killed(
                server,
                lambda kill: Fault(kind, writes(server), first=step, at=10, call=kill),  # type: ignore[arg-type]  # noqa: B023
                *(small, f"{bucket}/out", target, overwrite, False),
            )
            after = everything(server, bucket)
            if "out.beam_cifar/manifest.json" in after:
                assert kept(after) in (kept(before), kept(right[target]))
            if step % 2:
                plainly(small, f"{bucket}/out", target, overwrite=overwrite, resume=True)
                assert everything(server, bucket) == right[target]
            else:
                clean(f"{bucket}/out")
                left = everything(server, bucket)
                assert not [name for name in left if "work-" in name or name.endswith("/lock")]
                if "out.beam_cifar/manifest.json" in after:
                    assert left in (before, right[target])
                else:
                    assert overwrite or left == {}
                plainly(small, f"{bucket}/out", target, overwrite=True)
                assert everything(server, bucket) == right[target]
            check_nothing_pends(server, bucket)
        # Of the many images some are enough.
        step += 1 if target == "parquet" or step < 8 else 3
    assert step > 5


@pytest.mark.slow
@pytest.mark.parametrize("way", ["resume", "clean"])
@pytest.mark.parametrize("place", [r"partNumber=2", r"uploadId=[^&]+$"], ids=["part", "complete"])
def test_an_upload_in_parts_that_was_killed_is_given_up(
    place: str, way: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path_factory.getbasetemp() / "large"
    if not large.exists():
        make_large(large)
    bucket = s3.make_bucket()
    method = "PUT" if "partNumber" in place else "POST"
    assert killed(
        s3, lambda kill: Fault("drop", method, path=place, call=kill), *(large, f"{bucket}/out", "npz", False, False)
    )
    assert s3.pending_uploads(bucket) != []
    assert not [name for name in s3.listing(bucket) if name.startswith("out/")]
    with reached(s3, monkeypatch):
        if way == "clean":
            assert any(found.is_upload for found in clean(f"{bucket}/out").found)
            assert s3.listing(bucket) == {}
        else:
            plainly(large, f"{bucket}/out", "npz", resume=True)
            assert storage.is_complete(storage.JobFolder(f"{bucket}/out"))
    assert s3.pending_uploads(bucket) == []


def make_large(folder: Path) -> None:
    """Images of noise, which do not deflate."""
    import pickle

    import numpy as np

    folder.mkdir()
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    data = np.random.default_rng(1).integers(0, 256, (7000, 3072), np.uint8)
    content = {"data": data, "labels": [0] * len(data), "filenames": [f"{n}.png" for n in range(len(data))]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, 2))


# What is asked for.


def test_each_input_is_read_once(proxied: tuple[str, CountingProxy], server: Server, tmp_path: Path) -> None:
    """The plan looks at labels and names, the tasks at the pixels: 10 % over the files' own sizes at most."""
    bucket, proxy = proxied
    make_sample(str(tmp_path / "set"), kind="cifar10", images=12_000, seed=1)
    server.upload_tree(tmp_path / "set", f"{bucket}/set")
    sizes = {f"{bucket}/set/{name}": size for name, size in server.listing(f"{bucket}/set").items() if "_batch" in name}
    proxy.reset()
    after_plan: list[dict[str, int]] = []

    def planned(_: Job) -> None:
        after_plan.append(read_of(proxy, sizes))

    plainly(f"{bucket}/set", f"{bucket}/out", on_start=planned)
    total = read_of(proxy, sizes)
    for url, size in sizes.items():
        assert after_plan[0][url] <= 0.1 * size
        assert total[url] - after_plan[0][url] <= 1.1 * size
        assert total[url] >= size * 0.95


def read_of(proxy: CountingProxy, urls: dict[str, int]) -> dict[str, int]:
    found = proxy.by_object("GET")
    return {url: found[url].received if url in found else 0 for url in urls}
