"""S3 and compatible stores (MinIO, Ceph, R2, ...), with the boto3 library."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from beam_cifar.storage.client import CONNECTIONS, ChangedError, Client, StoredObject

# A single request up to the threshold, multipart above it. The library uses larger chunks if there would be too many.
TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=8 << 20, max_concurrency=3)
CONFIG = Config(
    max_pool_connections=CONNECTIONS,
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 8},  # a store that restarts is down for several seconds
)
MISSING = ("404", "NoSuchKey", "NotFound")
OTHER = ("412", "PreconditionFailed", "ConditionalRequestConflict", "409")
READ_ATTEMPTS = 5


class S3(Client):
    """An S3 store.

    Args:
        settings: arguments of boto3's client, which override what it finds itself (environment, `~/.aws`, the
            machine's role).
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._client = boto3.session.Session().client("s3", config=CONFIG, **settings)

    def head(self, bucket: str, key: str) -> StoredObject | None:
        try:
            with _known(bucket, key):
                answer = self._client.head_object(Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        return _found(key, answer, answer["ContentLength"])

    def read(self, bucket: str, found: StoredObject, start: int, stop: int) -> bytes:
        return self._get(bucket, found.key, Range=f"bytes={start}-{stop - 1}", IfMatch=found.tag)[0]

    def fetch(self, bucket: str, key: str) -> tuple[bytes, StoredObject]:
        data, answer = self._get(bucket, key)
        return data, _found(key, answer, len(data))

    def _get(self, bucket: str, key: str, **asked: str) -> tuple[bytes, Any]:
        with _known(bucket, key):
            for left in reversed(range(READ_ATTEMPTS)):
                answer = self._client.get_object(Bucket=bucket, Key=key, **asked)
                try:
                    return answer["Body"].read(), answer
                except (HTTPClientError, IncompleteReadError):  # broke off while reading, which boto3 does not retry
                    if not left:
                        raise
                    time.sleep(1 / (1 + left))
        raise RuntimeError("unreachable")

    def listing(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[StoredObject | str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, **({} if deep else {"Delimiter": "/"})
        )
        with _known(bucket, prefix):
            for page in pages:
                for folder in page.get("CommonPrefixes", ()):
                    yield folder["Prefix"]
                for each in page.get("Contents", ()):
                    yield _found(each["Key"], each, each["Size"])

    def put(self, bucket: str, key: str, data: bytes, *, replaces: str | None = None) -> bool:
        condition = {} if replaces is None else {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        try:
            with _known(bucket, key):
                self._client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except (ChangedError, FileNotFoundError):  # if the object to replace was removed, it is 404, not 412
            if replaces is None:
                raise
            return False
        return True

    def upload(self, bucket: str, key: str, file: BinaryIO, size: int) -> None:
        with _known(bucket, key):
            self._client.upload_fileobj(file, bucket, key, Config=TRANSFER)

    def copy(self, bucket: str, key: str, target: str) -> None:
        with _known(bucket, key):
            self._client.copy({"Bucket": bucket, "Key": key}, bucket, target, Config=TRANSFER)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        with _known(bucket, keys[0]):
            wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            answer = self._client.delete_objects(Bucket=bucket, Delete=wanted)
        # The response is 200 even if every key was refused.
        for refused in answer.get("Errors", ()):
            raise PermissionError(1, refused["Message"], f"s3://{bucket}/{refused['Key']}")

    def pending(self, bucket: str) -> Iterator[tuple[str, str]]:
        # Lists the whole bucket: MinIO treats a prefix as a complete key.
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        with _known(bucket, ""):
            for page in pages:
                yield from ((each["Key"], each["UploadId"]) for each in page.get("Uploads", ()))

    def abort(self, bucket: str, key: str, upload: str) -> None:
        with _known(bucket, key):
            self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)


def _found(key: str, answer: Any, size: int) -> StoredObject:
    return StoredObject(key, size, answer["ETag"], int(answer["LastModified"].timestamp()))


@contextmanager
def _known(bucket: str, key: str) -> Iterator[None]:
    """Turns the library's exceptions into `OSError`."""
    url = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        cause = error.response.get("Error", {})
        code, status = cause.get("Code", ""), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        reason = f"{cause.get('Message') or code} ({code}, {error.operation_name})"
        if code == "NoSuchBucket":
            raise OSError(5, f"bucket {bucket!r} does not exist", url) from error
        if code in MISSING:
            raise FileNotFoundError(2, "no such object", url) from error
        if code in OTHER or status == 412:
            raise ChangedError(116, "the object changed", url) from error
        if status in (401, 403, 405, 501):
            raise PermissionError(13, f"access denied: {reason}", url) from error
        raise OSError(5, f"request refused by the store: {reason}", url) from error
    except (BotoCoreError, boto3.exceptions.Boto3Error) as error:
        if isinstance(error.__cause__, ClientError):  # multipart uploads wrap the error of a request
            with _known(bucket, key):
                raise error.__cause__ from None
        raise OSError(5, " ".join(str(error).split()), url) from error
