"""Presents objects as files and folders: finds, lists, reads, writes, copies and removes them by URL."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from beam_cifar.data.text import counted
from beam_cifar.storage.client import ChangedError, Client, StoredObject, concurrently, in_chunks
from beam_cifar.storage.paths import Entry, Stamp, split_url
from beam_cifar.storage.stores import client

# Bytes read ahead: few after a seek, as for a header or a label, and more the longer reading is sequential.
FIRST_WINDOW = 64 << 10
LARGEST_WINDOW = 1 << 20


def _place(url: str) -> tuple[Client, str, str]:
    scheme, bucket, key = split_url(url)
    return client(scheme), bucket, key


def _folder(url: str) -> tuple[Client, str, str, str]:
    """Returns `_place` and the prefix of the objects below the URL, "" for a whole bucket."""
    store, bucket, key = _place(url)
    return store, bucket, key, f"{key}/" if key else ""


def find(url: str) -> Entry | None:
    """Returns the entry of an object, or of a folder if there are objects below it; None if there is neither."""
    store, bucket, key, prefix = _folder(url)
    found = store.head(bucket, key) if key else None
    if found is not None:
        return _entry(url, url.rpartition("/")[2], found)
    # Listing also raises an error if the bucket does not exist, unlike `head`.
    for _ in store.listing(bucket, prefix, deep=False):
        return Entry(url.rpartition("/")[2], url, True)
    return None


def entries(url: str) -> Iterator[Entry]:
    """Yields the entries of a folder. Raises `FileNotFoundError` if empty: in a store such a folder does not exist."""
    store, bucket, _, prefix = _folder(url)
    empty = True
    for found in store.listing(bucket, prefix, deep=False):
        empty = False
        if isinstance(found, str):
            name = found[len(prefix) :].rstrip("/")
            yield Entry(name, f"{url}/{name}", True)
        elif not found.key.endswith("/"):  # some programs create such objects for empty folders
            name = found.key[len(prefix) :]
            yield _entry(f"{url}/{name}", name, found)
    if empty:
        raise FileNotFoundError(2, "no such folder", url)


def tree(url: str) -> Iterator[Entry]:
    """Yields the files in a folder and its subfolders, in the order of their names, which are relative."""
    store, bucket, _, prefix = _folder(url)
    for found in store.listing(bucket, prefix, deep=True):
        if isinstance(found, StoredObject) and not found.key.endswith("/"):
            name = found.key[len(prefix) :]
            yield _entry(f"{url}/{name}", name, found)


def _entry(url: str, name: str, found: StoredObject) -> Entry:
    # Lists have milliseconds, single requests only seconds; so seconds, with the version as the fraction.
    version = int.from_bytes(hashlib.sha256(found.tag.encode()).digest()[:4], "little") % 10**9
    mtime = found.modified * 10**9 + version
    return Entry(name, url, False, found.size, mtime, mtime)


class ObjectReader(io.BufferedIOBase):
    """An object as a seekable file. Each read requests the bytes it needs, and few more.

    Args:
        url: of the object.
        stamp: expected stamp; None for any.
        window: minimum number of bytes to read ahead after a seek.

    Raises:
        FileNotFoundError: the object does not exist.
        ChangedError: the object was replaced; also raised on reading.
    """

    def __init__(self, url: str, stamp: Stamp | None = None, window: int = FIRST_WINDOW) -> None:
        super().__init__()
        self._store, self._bucket, key = _place(url)
        found = self._store.head(self._bucket, key)
        if found is None:
            raise FileNotFoundError(2, "no such object", url)
        entry = _entry(url, "", found)
        if stamp is not None and (entry.size, entry.mtime) != stamp[:2]:
            raise ChangedError(116, "the object changed", url)
        self._found, self._position = found, 0
        self._window, self._start = b"", 0
        self._least = self._ahead = window

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[whence]
        if base + offset < 0:
            raise OSError(22, "negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._found.size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        have = self._buffered()[:size]
        self._position += len(have)
        rest = size - len(have)
        if not rest:
            return bytes(have)
        if rest >= self._least:
            data = self._get(self._position, self._position + rest)
        else:
            in_order = self._position == self._start + len(self._window) and self._window
            self._ahead = min(2 * self._ahead, max(LARGEST_WINDOW, self._least)) if in_order else self._least
            self._start = self._position
            self._window = self._get(self._start, min(self._start + self._ahead, self._found.size))
            data = self._window[:rest]
        self._position += rest
        return b"".join((have, data)) if have else data

    def read1(self, size: int = -1) -> bytes:
        """Reads as `read` does, but returns only buffered bytes if there are any, without a request."""
        buffered = len(self._buffered())
        return self.read(min(size, buffered) if buffered and size >= 0 else buffered or (size if size >= 0 else 8192))

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _buffered(self) -> memoryview:
        at = self._position - self._start
        return memoryview(self._window)[at:] if 0 <= at < len(self._window) else memoryview(b"")

    def _get(self, start: int, stop: int) -> bytes:
        data = self._store.read(self._bucket, self._found, start, stop)
        if len(data) != stop - start:
            raise OSError(5, f"the store sent {counted(len(data), 'byte')}; expected {stop - start:,}", self._found.key)
        return data


def write(url: str, data: Any, *, replaces: str | None = None) -> bool:
    """Writes a small object; returns whether it was written. `replaces` is as in `Client.put`."""
    store, bucket, key = _place(url)
    if store.put(bucket, key, bytes(data), replaces=replaces):
        return True
    # If the response to a successful request was lost, the retry fails because it finds its own object.
    there = fetch_if_any(url)
    return there is not None and there[0] == data


def fetch(url: str) -> tuple[bytes, Entry]:
    """Reads a whole small object; returns its content and entry. Raises `FileNotFoundError`."""
    store, bucket, key = _place(url)
    data, found = store.fetch(bucket, key)
    return data, _entry(url, url.rpartition("/")[2], found)


def fetch_if_any(url: str) -> tuple[bytes, StoredObject] | None:
    """Reads a small object; returns its content and facts, or None if it does not exist."""
    store, bucket, key = _place(url)
    try:
        return store.fetch(bucket, key)
    except FileNotFoundError:
        return None


def upload(url: str, file: BinaryIO, size: int) -> None:
    """Writes an object from the content of a file."""
    store, bucket, key = _place(url)
    file.seek(0)
    if size <= FIRST_WINDOW:
        store.put(bucket, key, file.read())
    else:
        store.upload(bucket, key, file, size)


def copy(url: str, target: str) -> None:
    """Copies an object within its bucket, on the server."""
    store, bucket, key = _place(url)
    store.copy(bucket, key, split_url(target)[2])


def copy_tree(url: str, target: str) -> None:
    """Copies the objects of a folder to another one in the same bucket, on the server."""
    # Reading them here and writing them back would send every byte over the network twice.
    for _ in concurrently(lambda entry: copy(entry.path, f"{target}/{entry.name}"), tree(url)):
        pass


def remove(urls: Iterable[str]) -> int:
    """Removes objects of one bucket, ignoring missing ones; returns the number of URLs."""
    count = 0
    for chunk in in_chunks(urls, 1000):
        store, bucket, _ = _place(chunk[0])
        store.delete(bucket, [split_url(url)[2] for url in chunk])
        count += len(chunk)
    return count


def pending(folders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields URL and id of unfinished uploads into some folders of one bucket."""
    scheme, bucket, _ = split_url(folders[0])
    for key, upload in client(scheme).pending(bucket):
        url = f"{scheme}://{bucket}/{key}"
        if any(url.startswith(f"{folder}/") for folder in folders):
            yield url, upload


def abort(url: str, upload: str) -> None:
    """Aborts an unfinished upload."""
    store, bucket, key = _place(url)
    store.abort(bucket, key, upload)
