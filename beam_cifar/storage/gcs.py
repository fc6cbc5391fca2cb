"""Google Cloud Storage, with the google-cloud-storage library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, NotFound, PreconditionFailed, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from beam_cifar.storage.client import CONNECTIONS, ChangedError, Client, StoredObject, concurrently

# For every call: seconds to connect, and between bytes. All calls are retried, even those that the library does not
# retry by default because they may not be idempotent: ours are, as objects are always written whole.
CALL: dict[str, Any] = {"timeout": (5, 60), "retry": DEFAULT_RETRY.with_timeout(60)}


class Gcs(Client):
    """Google Cloud Storage.

    Args:
        settings: arguments of the library's client, which override what it finds itself: the machine's default
            credentials, or none for an emulator named by STORAGE_EMULATOR_HOST.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._client = storage.Client(**settings)
        adapter = HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)
        for scheme in ("http://", "https://"):
            self._client._http.mount(scheme, adapter)  # the library's own pool of ten is too small for our threads

    def head(self, bucket: str, key: str) -> StoredObject | None:
        with _known(bucket, key):
            blob = self._client.bucket(bucket).get_blob(key, **CALL)
        return None if blob is None else _found(blob)

    def read(self, bucket: str, found: StoredObject, start: int, stop: int) -> bytes:
        blob = self._client.bucket(bucket).blob(found.key, generation=int(found.tag))
        try:
            with _known(bucket, found.key):
                # No checksum: the store has none for byte ranges.
                asked = {"start": start, "end": stop - 1, "if_generation_match": int(found.tag), "checksum": None}
                data: bytes = blob.download_as_bytes(**asked, **CALL)
        except FileNotFoundError as error:
            # A request for one generation fails in the same way whether the object was replaced or removed.
            if self.head(bucket, found.key) is None:
                raise
            raise ChangedError(116, "the object changed", error.filename) from error
        return data

    def fetch(self, bucket: str, key: str) -> tuple[bytes, StoredObject]:
        found = self.head(bucket, key)
        if found is None:
            raise FileNotFoundError(2, "no such object", f"gs://{bucket}/{key}")
        return self.read(bucket, found, 0, found.size) if found.size else b"", found

    def listing(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[StoredObject | str]:
        fields = "items(name,size,generation,updated),prefixes,nextPageToken"
        found = self._client.list_blobs(bucket, prefix=prefix, delimiter=None if deep else "/", fields=fields, **CALL)
        try:
            with _known(bucket, prefix):
                for page in found.pages:
                    yield from sorted(page.prefixes)
                    for blob in page:
                        yield _found(blob)
        except FileNotFoundError as error:  # a missing folder gives an empty list, so the bucket is missing
            raise OSError(5, f"bucket {bucket!r} does not exist", error.filename) from error

    def put(self, bucket: str, key: str, data: bytes, *, replaces: str | None = None) -> bool:
        condition = None if replaces is None else int(replaces or 0)  # generation 0 means: must not exist
        kind = "application/octet-stream"
        try:
            with _known(bucket, key):
                self._client.bucket(bucket).blob(key).upload_from_string(
                    data, content_type=kind, if_generation_match=condition, checksum="crc32c", **CALL
                )
        except ChangedError:
            return False
        return True

    def upload(self, bucket: str, key: str, file: BinaryIO, size: int) -> None:
        with _known(bucket, key):
            self._client.bucket(bucket).blob(key).upload_from_file(file, size=size, checksum="crc32c", **CALL)

    def copy(self, bucket: str, key: str, target: str) -> None:
        with _known(bucket, key):
            place = self._client.bucket(bucket)
            token, source = None, place.blob(key)
            while True:
                token, _, _ = place.blob(target).rewrite(source, token=token, **CALL)
                if token is None:
                    return

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        for _ in concurrently(partial(self._delete, bucket), keys):
            pass

    def _delete(self, bucket: str, key: str) -> None:
        with suppress(FileNotFoundError), _known(bucket, key):
            self._client.bucket(bucket).blob(key).delete(**CALL)


def _found(blob: storage.Blob) -> StoredObject:
    return StoredObject(blob.name, int(blob.size), str(blob.generation), int(blob.updated.timestamp()))


@contextmanager
def _known(bucket: str, key: str) -> Iterator[None]:
    """Turns the library's exceptions into `OSError`."""
    url = f"gs://{bucket}/{key}"
    try:
        yield
    except PreconditionFailed as error:
        raise ChangedError(116, "the object changed", url) from error
    except NotFound as error:
        if "bucket does not exist" in str(error.message):
            raise OSError(5, f"bucket {bucket!r} does not exist", url) from error
        raise FileNotFoundError(2, "no such object", url) from error
    except GoogleAPICallError as error:
        reason = " ".join(str(error.message).split())
        if error.code in (401, 403):
            raise PermissionError(13, f"access denied: {reason}", url) from error
        raise OSError(5, f"request refused by the store: {reason}", url) from error
    except RetryError as error:
        raise OSError(5, f"gave up after retries: {' '.join(str(error.cause or error).split())}", url) from error
    except (GoogleAPIError, GoogleAuthError, DataCorruption, requests.exceptions.RequestException) as error:
        raise OSError(5, " ".join(str(error).split()), url) from error
