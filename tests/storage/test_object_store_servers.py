"""The helpers of `object_stores` and `counting_proxy`, on every real server there is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.counting_proxy import CountingProxy, Fault, Total
from tests.helpers.object_stores import GcsServer, S3Server, Server, minio, moto

pytestmark = pytest.mark.slow

# Larger than what a socket, the proxy and the clients hold back together.
LARGE = os.urandom(12 << 20)


@pytest.fixture
def proxied(server: Server) -> Iterator[tuple[Server, CountingProxy]]:
    with server.behind_proxy() as pair:
        yield pair


def test_a_tree_comes_back_as_it_was(server: Server, tmp_path: Path) -> None:
    files = {"a.bin": LARGE, "sub/empty": b"", "sub/deep/ä b+%.txt": b"text", "sub.x": b"beside"}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    bucket = server.make_bucket()
    server.upload_tree(tmp_path / "in", f"{bucket}/set/")
    assert server.listing(f"{bucket}/set") == {name: len(data) for name, data in sorted(files.items())}
    assert server.listing(f"{bucket}/set/sub") == {"deep/ä b+%.txt": 4, "empty": 0}
    server.download_tree(f"{bucket}/set", tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {name: data for name, data in files.items() if "." in name}
    assert (tmp_path / "out/sub/empty").read_bytes() == b""
    server.delete(f"{bucket}/set/a.bin")
    assert "a.bin" not in server.listing(bucket + "/set")


def test_more_than_a_page_is_listed(s3: S3Server) -> None:
    """Of 1,000 at MinIO, of 100 at moto; fake-gcs-server knows no pages unless asked."""
    bucket = s3.make_bucket()
    names = [f"{number:04}" for number in range(102 if s3.name == "moto" else 1002)]
    for name in names:
        s3.put(f"{bucket}/many/{name}", b"")
    with s3.behind_proxy() as (server, proxy):
        assert list(server.listing(f"{bucket}/many")) == names
        assert [request.method for request in proxy.requests] == ["GET", "GET"]


def test_unfinished_uploads_are_seen(s3: S3Server) -> None:
    bucket = s3.make_bucket()
    place = {"Bucket": bucket.removeprefix("s3://"), "Key": "dir/half"}
    upload = s3.client().create_multipart_upload(**place)["UploadId"]
    s3.client().upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")
    assert s3.pending_uploads(bucket) == ["dir/half"]
    assert s3.listing(bucket) == {}
    s3.client().abort_multipart_upload(**place, UploadId=upload)
    assert s3.pending_uploads(bucket) == []


def test_a_program_finds_the_store_by_its_environment(server: Server) -> None:
    bucket = server.make_bucket()
    server.put(f"{bucket}/k", b"found")
    name = bucket.partition("://")[2]
    program = {
        "s3": f"import boto3; print(boto3.client('s3').get_object(Bucket={name!r}, Key='k')['Body'].read())",
        "gs": f"from google.cloud import storage; print(storage.Client().bucket({name!r}).blob('k').download_as_bytes())",
    }[server.scheme]
    environment = server.programs_environment()
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("b'found'\n", 0), ran.stderr


@pytest.mark.stores
def test_minio_refuses_a_wrong_secret(minio_server: S3Server) -> None:
    """As S3 does; moto takes any."""
    bucket = minio_server.make_bucket().removeprefix("s3://")
    client = minio_server.client(aws_secret_access_key="wrong")
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=bucket)


def test_the_proxy_counts_what_passes(proxied: tuple[Server, CountingProxy]) -> None:
    server, proxy = proxied
    bucket = server.make_bucket()
    server.put(f"{bucket}/dir/a b", LARGE)
    proxy.reset()
    for _ in range(2):
        assert server.get(f"{bucket}/dir/a b") == LARGE
    assert proxy.by_object() == {f"{bucket}/dir/a b": Total(2, 0, 2 * len(LARGE))}
    assert proxy.by_method() == {"GET": Total(2, 0, 2 * len(LARGE))}
    assert f"bytes read of {bucket}/dir/a b: {2 * len(LARGE)} in 2 requests" in proxy.describe()
    server.put(f"{bucket}/b", LARGE)
    sent = sum(request.sent for request in proxy.requests)
    assert len(LARGE) <= sent < len(LARGE) + 2000


def test_the_proxy_records_ranges(s3: S3Server) -> None:
    bucket = s3.make_bucket()
    s3.put(f"{bucket}/k", LARGE)
    with s3.behind_proxy() as (server, proxy):
        answer = server.client().get_object(Bucket=bucket.removeprefix("s3://"), Key="k", Range="bytes=5-14")
        assert answer["Body"].read() == LARGE[5:15]
        (request,) = proxy.requests
    assert (request.range, request.received, request.status) == ("bytes=5-14", 10, 206)


@pytest.mark.stores
def test_a_listed_object_is_read_through_the_proxy(fake_gcs_server: GcsServer) -> None:
    """Clients of GCS go where the listing tells them."""
    bucket = fake_gcs_server.make_bucket()
    fake_gcs_server.put(f"{bucket}/k", b"data")
    with fake_gcs_server.behind_proxy() as (server, proxy):
        (blob,) = server.client().list_blobs(bucket.removeprefix("gs://"))
        assert blob.download_as_bytes() == b"data"
        assert proxy.by_object()[f"{bucket}/k"] == Total(1, 0, 4)
    (blob,) = fake_gcs_server.client().list_blobs(bucket.removeprefix("gs://"))
    assert blob.media_link.startswith(fake_gcs_server.endpoint)


def test_clients_repeat_what_the_proxy_answers(proxied: tuple[Server, CountingProxy]) -> None:
    server, proxy = proxied
    bucket = server.make_bucket()
    server.put(f"{bucket}/k", b"data")
    proxy.reset()
    proxy.inject(Fault("answer", "GET", path="k"))
    assert server.get(f"{bucket}/k") == b"data"
    assert [request.status for request in proxy.requests] == [503, 200]
    assert [request.status for request in proxy.struck] == [503]
    assert proxy.requests[0].url == f"{bucket}/k"


@pytest.mark.parametrize("kind", ["drop", "cut_upload", "lose"])
def test_clients_repeat_a_write_that_broke(proxied: tuple[Server, CountingProxy], kind: str) -> None:
    server, proxy = proxied
    bucket = server.make_bucket()
    proxy.reset()
    data = LARGE[: 1 << 20]
    writing = "PUT" if server.scheme == "s3" else "POST"
    proxy.inject(Fault(kind, writing, at=100_000))  # type: ignore[arg-type]
    server.put(f"{bucket}/k", data)
    assert server.get(f"{bucket}/k") == data
    (struck,) = proxy.struck
    expected = {"drop": (0, 0), "cut_upload": (100_000, 0), "lose": (struck.sent, 200)}[kind]
    assert (struck.sent, struck.status) == expected
    assert kind != "lose" or struck.sent >= len(data)


def test_the_proxy_cuts_an_answer(s3: S3Server) -> None:
    from botocore.exceptions import ResponseStreamingError

    bucket = s3.make_bucket()
    s3.put(f"{bucket}/k", LARGE)
    with s3.behind_proxy() as (server, proxy):
        proxy.inject(Fault("cut", "GET", at=5_000_000, times=0))
        answer = server.client().get_object(Bucket=bucket.removeprefix("s3://"), Key="k")
        with pytest.raises(ResponseStreamingError, match="5000000 bytes read"):
            answer["Body"].read()
        assert [request.received for request in proxy.struck] == [5_000_000]


def test_a_fault_calls_at_its_turn(proxied: tuple[Server, CountingProxy]) -> None:
    server, proxy = proxied
    bucket = server.make_bucket()
    server.put(f"{bucket}/k", b"data")
    proxy.reset()
    seen: list[int] = []
    proxy.inject(
        Fault("wait", "GET", path=r"/k(\?|$)", first=2, times=2, call=lambda: seen.append(len(proxy.requests)))
    )
    for _ in range(4):
        server.get(f"{bucket}/k")
    assert seen == [2, 3]


def test_nobody_answers_once_the_proxy_is_closed(s3: S3Server) -> None:
    with s3.behind_proxy() as (server, _):
        server.make_bucket()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server.endpoint, timeout=5)


def test_a_server_ends_with_its_test(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), moto(tmp_path / "store") as server:
        server.make_bucket()
        raise ZeroDivisionError
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server.endpoint, timeout=5)


def test_a_server_ends_with_a_killed_test(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from tests.helpers import object_stores as o\n"
        "with o.moto(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.endpoint, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == -9, ran.stderr
    port = int(ran.stdout.rpartition(":")[2])
    assert any(not _listens(port) for _ in range(200))


def _listens(port: int) -> bool:
    time.sleep(0.05)
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_program_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"false did not start"), minio(tmp_path / "store", "false"):
        pass
