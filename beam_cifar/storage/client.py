"""What an object store can do: the same few calls for each, over its own client library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

CONNECTIONS = 32
"""At one time, of one process to one store."""
THREADS = 16
"""Requests at a time, where there are many small ones."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class StoredObject:
    """An object.

    Attributes:
        key: its name in the bucket.
        size: bytes.
        tag: changes whenever the object is replaced: an ETag, or a generation.
        modified: seconds since 1970.
    """

    key: str
    size: int
    tag: str
    modified: int


class Client(ABC):
    """A store. Objects appear and are replaced whole; failures are `OSError`, of what is missing `FileNotFoundError`.

    Calls are safe from several threads, and try again what a busy store refuses.
    """

    @abstractmethod
    def head(self, bucket: str, key: str) -> StoredObject | None:
        """Looks at an object."""

    @abstractmethod
    def read(self, bucket: str, found: StoredObject, start: int, stop: int) -> bytes:
        """Reads the bytes [start, stop) of an object, which are at least one, in one request.

        Raises:
            ChangedError: it was replaced.
            FileNotFoundError: it is gone.
        """

    @abstractmethod
    def fetch(self, bucket: str, key: str) -> tuple[bytes, StoredObject]:
        """Reads a whole small object, and looks at it. Raises `FileNotFoundError`."""

    @abstractmethod
    def listing(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[StoredObject | str]:
        """Yields the objects below a prefix in the order of their keys; unless deep, folders of them as prefixes."""

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes, *, replaces: str | None = None) -> bool:
        """Writes an object in one request; returns whether it was written: not if there is something else.

        `replaces` is the tag of what it replaces; "" if there must be nothing; None for anything.
        """

    @abstractmethod
    def upload(self, bucket: str, key: str, file: BinaryIO, size: int) -> None:
        """Writes an object from a file, in several requests where it is large; it appears when the last one is done."""

    @abstractmethod
    def copy(self, bucket: str, key: str, target: str) -> None:
        """Copies an object within its bucket, in the store."""

    @abstractmethod
    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Removes up to 1,000 objects; those that are not there are no error."""

    def pending(self, bucket: str) -> Iterator[tuple[str, str]]:
        """Yields key and id of uploads that were started and not ended, where the store keeps and bills them."""
        return iter(())

    def abort(self, bucket: str, key: str, upload: str) -> None:
        """Gives up such an upload."""
        raise NotImplementedError


class ChangedError(OSError):
    """An object is not the one that it was."""


def concurrently(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Yields what a function returns of each item, in order, some calls at a time; calls may do the same in turn."""
    from concurrent.futures import ThreadPoolExecutor

    # In chunks: a pool's `map` draws all items before it yields the first result.
    for chunk in in_chunks(items, 64 * THREADS):
        with ThreadPoolExecutor(min(THREADS, len(chunk)), thread_name_prefix="beam_cifar-storage") as pool:
            yield from pool.map(function, chunk)


def in_chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Yields items in lists of a size, the last one shorter."""
    chunk: list[In] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
