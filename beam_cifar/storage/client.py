"""The interface to object stores: a few calls, implemented for each store with its own client library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

CONNECTIONS = 32
"""Maximum number of open connections per process and store."""
THREADS = 16
"""Number of concurrent requests if there are many small ones."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class StoredObject:
    """Facts about an object.

    Attributes:
        key: name in the bucket.
        size: in bytes.
        tag: an ETag or a generation, which changes whenever the object is replaced.
        modified: modification time, in seconds since 1970.
    """

    key: str
    size: int
    tag: str
    modified: int


class Client(ABC):
    """An object store, in which objects are created and replaced atomically.

    Calls are thread-safe, and retry requests that fail because the store is busy. Errors are `OSError`, for missing
    objects `FileNotFoundError`.
    """

    @abstractmethod
    def head(self, bucket: str, key: str) -> StoredObject | None:
        """Returns facts about an object, or None if it does not exist."""

    @abstractmethod
    def read(self, bucket: str, found: StoredObject, start: int, stop: int) -> bytes:
        """Reads the bytes [start, stop) of an object, at least one, in one request.

        Raises:
            ChangedError: the object was replaced.
            FileNotFoundError: the object was removed.
        """

    @abstractmethod
    def fetch(self, bucket: str, key: str) -> tuple[bytes, StoredObject]:
        """Reads a whole small object; returns its content and facts. Raises `FileNotFoundError`."""

    @abstractmethod
    def listing(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[StoredObject | str]:
        """Yields the objects below a prefix in key order; unless `deep`, subfolders as prefixes instead."""

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes, *, replaces: str | None = None) -> bool:
        """Writes an object in one request; returns False if the condition of `replaces` is not met.

        `replaces` is the tag of the object to replace, "" if it must not exist yet, or None to write unconditionally.
        """

    @abstractmethod
    def upload(self, bucket: str, key: str, file: BinaryIO, size: int) -> None:
        """Writes an object from a file, in several requests if large; it appears when the last one is done."""

    @abstractmethod
    def copy(self, bucket: str, key: str, target: str) -> None:
        """Copies an object within its bucket, on the server."""

    @abstractmethod
    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Removes up to 1,000 objects; missing ones are ignored."""

    def pending(self, bucket: str) -> Iterator[tuple[str, str]]:
        """Yields key and id of unfinished uploads, if the store keeps (and bills) them."""
        return iter(())

    def abort(self, bucket: str, key: str, upload: str) -> None:
        """Aborts an unfinished upload."""
        raise NotImplementedError


class ChangedError(OSError):
    """An object was replaced since it was first looked at."""


def concurrently(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Yields the results of a function for each item, in order, calling it in several threads; calls may be nested."""
    from concurrent.futures import ThreadPoolExecutor

    # In chunks: `ThreadPoolExecutor.map` consumes all items before it yields the first result.
    for chunk in in_chunks(items, 64 * THREADS):
        with ThreadPoolExecutor(min(THREADS, len(chunk)), thread_name_prefix="beam_cifar-storage") as pool:
            yield from pool.map(function, chunk)


def in_chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Yields the items in lists of length `size`; the last one may be shorter."""
    chunk: list[In] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
