"""Real object stores for tests, each a process of its own on 127.0.0.1: moto and MinIO for S3, fake-gcs-server for GCS.

Their own clients (boto3, google-cloud-storage) fill and read the buckets here: readers that share nothing with the
project's code. A test module imports the fixtures it uses.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pytest

from tests.helpers import ROOT
from tests.helpers.counting_proxy import CountingProxy

# MinIO checks them; it wants 3 and 8 characters at least. moto takes any.
KEY, SECRET, REGION = "beamcifartest", "beamcifartest-secret", "us-east-1"
# What would lead a program elsewhere.
ELSEWHERE = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "http_proxy",
    "HTTP_PROXY",
)
# The fixtures below, for tests that run with each of some.
S3 = ["moto_server", pytest.param("minio_server", marks=pytest.mark.stores)]
# moto checks a condition and writes in two steps: of two that write at once both may win.
EXACT = [pytest.param(name, marks=pytest.mark.stores) for name in ("minio_server", "fake_gcs_server")]
ALL = [*S3, pytest.param("fake_gcs_server", marks=pytest.mark.stores)]
S = TypeVar("S", bound="Server")


@dataclass(frozen=True)
class Server(ABC):
    """A running object store.

    Attributes:
        name: "moto", "minio" or "fake-gcs".
        endpoint: URL at which clients find it.
    """

    name: str
    endpoint: str
    scheme: ClassVar[Literal["s3", "gs"]]

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables with which a program finds it."""

    @property
    @abstractmethod
    def beam_flags(self) -> list[str]:
        """The flags with which Beam's own file systems find it."""

    @abstractmethod
    def make_bucket(self) -> str:
        """Makes an empty bucket with a new name; returns its URL, without a slash at its end."""

    @abstractmethod
    def put(self, url: str, data: bytes) -> None:
        """Writes an object."""

    @abstractmethod
    def get(self, url: str) -> bytes:
        """Reads an object."""

    @abstractmethod
    def delete(self, url: str) -> None:
        """Removes an object."""

    @abstractmethod
    def listing(self, url: str) -> dict[str, int]:
        """Sizes of all objects below a folder, by their names from there; sorted."""

    def programs_environment(self) -> dict[str, str]:
        """The environment of a program that is to find this store and no other."""
        return {**{key: value for key, value in os.environ.items() if key not in ELSEWHERE}, **self.environment}

    def upload_tree(self, folder: Path, url: str) -> None:
        """Writes all files below a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{url.rstrip('/')}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def download_tree(self, url: str, folder: Path) -> None:
        """Makes files of all objects below a prefix; `folder` must not exist."""
        folder.mkdir(parents=True)
        for name in self.listing(url):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(f"{url.rstrip('/')}/{name}"))

    @contextmanager
    def behind_proxy(self: S) -> Iterator[tuple[S, CountingProxy]]:
        """The same store with a proxy in front of it."""
        host, port = self.endpoint.removeprefix("http://").split(":")
        with CountingProxy(host, int(port), self.scheme) as proxy:
            yield replace(self, endpoint=proxy.endpoint), proxy


@dataclass(frozen=True)
class S3Server(Server):
    """moto or MinIO."""

    scheme: ClassVar[Literal["s3", "gs"]] = "s3"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            # boto3 and Beam know only this one.
            "AWS_DEFAULT_REGION": REGION,
            # No profile of whoever runs the tests, no question to a cloud's metadata server.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def beam_flags(self) -> list[str]:
        return [
            f"--s3_endpoint_url={self.endpoint}",
            f"--s3_access_key_id={KEY}",
            f"--s3_secret_access_key={SECRET}",
            f"--s3_region_name={REGION}",
        ]

    def client(self, **options: Any) -> Any:
        """A boto3 client; `options` as for `boto3.client`."""
        return _s3_client(self.endpoint) if not options else _new_s3_client(self.endpoint, options)

    def make_bucket(self) -> str:
        name = _bucket_name()
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def put(self, url: str, data: bytes) -> None:
        self.client().put_object(**_place(url), Body=data)

    def get(self, url: str) -> bytes:
        data: bytes = self.client().get_object(**_place(url))["Body"].read()
        return data

    def delete(self, url: str) -> None:
        self.client().delete_object(**_place(url))

    def listing(self, url: str) -> dict[str, int]:
        bucket, prefix = _folder(url)
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return _below(prefix, ((found["Key"], found["Size"]) for page in pages for found in page.get("Contents", [])))

    def pending_uploads(self, url: str) -> list[str]:
        """Keys of the multipart uploads of a bucket that were begun, and neither completed nor aborted."""
        pages = self.client().get_paginator("list_multipart_uploads").paginate(Bucket=_parted(url)[0])
        return sorted(found["Key"] for page in pages for found in page.get("Uploads", []))


@dataclass(frozen=True)
class GcsServer(Server):
    """fake-gcs-server."""

    scheme: ClassVar[Literal["s3", "gs"]] = "gs"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            # Otherwise google-auth looks for a project by asking a cloud's metadata server.
            "GOOGLE_CLOUD_PROJECT": "test",
            "NO_GCE_CHECK": "true",
        }

    @property
    def beam_flags(self) -> list[str]:
        return []

    def client(self) -> Any:
        """A google-cloud-storage client, without credentials."""
        return _gcs_client(self.endpoint)

    def make_bucket(self) -> str:
        name = _bucket_name()
        self.client().create_bucket(name)
        return f"gs://{name}"

    def put(self, url: str, data: bytes) -> None:
        self._blob(url).upload_from_string(data)

    def get(self, url: str) -> bytes:
        data: bytes = self._blob(url).download_as_bytes(raw_download=True)
        return data

    def delete(self, url: str) -> None:
        self._blob(url).delete()

    def listing(self, url: str) -> dict[str, int]:
        bucket, prefix = _folder(url)
        return _below(prefix, ((b.name, b.size) for b in self.client().list_blobs(bucket, prefix=prefix)))

    @contextmanager
    def behind_proxy(self: GcsServer) -> Iterator[tuple[GcsServer, CountingProxy]]:
        """The same store with a proxy in front of it."""
        with super().behind_proxy() as (server, proxy):
            # Clients download from the address that a listing told them.
            self._name_itself(proxy.endpoint)
            try:
                yield server, proxy
            finally:
                self._name_itself(self.endpoint)

    def _blob(self, url: str) -> Any:
        bucket, name = _parted(url)
        return self.client().bucket(bucket).blob(name)

    def _name_itself(self, endpoint: str) -> None:
        data = f'{{"externalUrl": "{endpoint}"}}'.encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/_internal/config", data, method="PUT")).close()


@contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """moto's server; it keeps objects in memory, large ones in temporary files, and lists 100 a page."""
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> Sequence[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    # Small pages, so that small tests see several.
    settings = {"TMPDIR": str(folder), "MOTO_S3_DEFAULT_MAX_KEYS": "100"}
    with _running(command, folder, "/moto-api/data.json", settings) as endpoint:
        yield S3Server("moto", endpoint)


@contextmanager
def minio(folder: Path, binary: str) -> Iterator[S3Server]:
    """MinIO; it keeps objects in the folder."""
    (folder / "data").mkdir(parents=True)

    def command(port: int) -> Sequence[str]:
        place = ["--config-dir", str(folder / "config"), "--address", f"127.0.0.1:{port}", "--quiet"]
        return [binary, "server", *place, str(folder / "data")]

    # Without its console, which would take a second port; with no look for a newer release.
    settings = {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    settings |= {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}
    with _running(command, folder, "/minio/health/ready", settings) as endpoint:
        yield S3Server("minio", endpoint)


@contextmanager
def fake_gcs(folder: Path, binary: str) -> Iterator[GcsServer]:
    """fake-gcs-server; it keeps objects in memory: in files it loses names such as `a/`, and `a` beside `a/b`."""
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> Sequence[str]:
        place = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", "127.0.0.1"]
        return [binary, *place, "-backend", "memory"]

    with _running(command, folder, "/_internal/healthcheck", {}) as endpoint:
        yield GcsServer("fake-gcs", endpoint)


def find_binary(name: str, variable: str) -> str | None:
    """The path of a server's program: named by a variable, or built by `make stores`."""
    built = ROOT / ".stores" / name
    return os.environ.get(variable) or (str(built) if built.exists() else None)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto.server", exc_type=ImportError)
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with minio(tmp_path_factory.mktemp("minio"), _needed("minio", "BEAM_CIFAR_MINIO")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    pytest.importorskip("google.cloud.storage")
    with fake_gcs(tmp_path_factory.mktemp("fake-gcs"), _needed("fake-gcs-server", "BEAM_CIFAR_FAKE_GCS")) as server:
        yield server


def _needed(name: str, variable: str) -> str:
    binary = find_binary(name, variable)
    if binary is None:
        pytest.skip(f"needs {name}: `make stores` builds it, {variable} names one that is elsewhere")
    return binary


@contextmanager
def _running(
    command: Callable[[int], Sequence[str]], folder: Path, health: str, settings: Mapping[str, str]
) -> Iterator[str]:
    """A server process and its endpoint; what it says goes to `folder`/log."""
    process, endpoint = _started(command, folder / "log", health, {**os.environ, **settings})
    try:
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(
    command: Callable[[int], Sequence[str]], log: Path, health: str, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(3):  # somebody may take the port before the server does
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                command(port), stdout=output, stderr=output, env=environment, preexec_fn=_end_with_parent
            )
        try:
            if _answers(process, f"http://127.0.0.1:{port}{health}"):
                return process, f"http://127.0.0.1:{port}"
        except BaseException:
            process.kill()
            process.wait()
            raise
    raise RuntimeError(f"{command(port)[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _answers(process: subprocess.Popen[bytes], url: str, seconds: float = 60) -> bool:
    """Waits until a server answers; False if its process ended."""
    until = time.monotonic() + seconds
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return True
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError(f"no answer from {url}") from error
        time.sleep(0.05)
    return False


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """So that a server does not outlive tests that were killed (`prctl(PR_SET_PDEATHSIG, SIGKILL)`)."""
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)


def _new_s3_client(endpoint: str, options: Mapping[str, Any]) -> Any:
    import boto3

    settings = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": REGION, **options}
    return boto3.session.Session().client("s3", endpoint_url=endpoint, **settings)


@cache
def _s3_client(endpoint: str) -> Any:
    return _new_s3_client(endpoint, {})


@cache
def _gcs_client(endpoint: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    options = {"api_endpoint": endpoint}
    return storage.Client(project="test", credentials=AnonymousCredentials(), client_options=options)


def _bucket_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def _parted(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def _folder(url: str) -> tuple[str, str]:
    bucket, key = _parted(url)
    return bucket, f"{key.rstrip('/')}/" if key else ""


def _place(url: str) -> dict[str, str]:
    return dict(zip(("Bucket", "Key"), _parted(url), strict=True))


def _below(prefix: str, sizes: Iterator[tuple[str, int]]) -> dict[str, int]:
    return {name.removeprefix(prefix): size for name, size in sorted(sizes)}
