"""Files and folders, of a file system or of an object store: found, listed, read, counted, removed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from beam_cifar.data.text import is_unicode
from beam_cifar.errors import InputError
from beam_cifar.storage import objects
from beam_cifar.storage.paths import Entry, is_url

COPY_BYTES = 1 << 20


def exists(path: str) -> bool:
    """Whether there is something of this name, be it a broken link."""
    return objects.find(path) is not None if is_url(path) else os.path.lexists(path)


def is_file(path: str) -> bool:
    """Whether a path is a file."""
    if not is_url(path):
        return os.path.isfile(path)
    found = objects.find(path)
    return found is not None and not found.is_folder


def is_folder(path: str) -> bool:
    """Whether a path is a folder; in an object store, whether objects are below it."""
    if not is_url(path):
        return os.path.isdir(path)
    found = objects.find(path)
    return found is not None and found.is_folder


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading and seeking. Raises `OSError`."""
    return cast(BinaryIO, objects.ObjectReader(path)) if is_url(path) else open(path, "rb")


def read_whole(path: str) -> bytes:
    """The content of a small file. Raises `OSError`."""
    if is_url(path):
        return objects.fetch(path)[0]
    with open(path, "rb") as file:
        return file.read()


def make_folder(path: str) -> None:
    """Makes a folder and those above it, where they are missing; an object store has none to make."""
    if not is_url(path):
        os.makedirs(path, exist_ok=True)


def names_in(path: str) -> list[str]:
    """The names of all that a folder holds, hidden ones as well; none of one that is not there."""
    try:
        return [entry.name for entry in objects.entries(path)] if is_url(path) else os.listdir(path)
    except FileNotFoundError:
        return []


def list_folder(path: str, accept: Callable[[str], bool] = bool) -> list[Entry]:
    """Lists a folder, in no particular order; hidden names, which editors and systems leave behind, are left out.

    `accept` says which names are wanted, all by default; others are not looked at.

    Raises:
        InputError: something that is neither a file nor a folder, or a name that is not Unicode.
        OSError: the folder cannot be read.
    """
    return [_entry(found) for found in _visible(path) if accept(found.name)]


def folders_in(path: str) -> list[str]:
    """The paths of the visible folders in a folder, whatever else lies there. Raises `OSError`."""
    return [found.path for found in _visible(path) if _is_folder(found)]


def _visible(path: str) -> Iterator[Entry | os.DirEntry[str]]:
    """Yields what a folder holds, but for hidden names; of a file system not looked at yet, which would cost a call."""
    if is_url(path):
        yield from (entry for entry in objects.entries(path) if not entry.name.startswith("."))
        return
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _is_folder(found: Entry | os.DirEntry[str]) -> bool:
    return found.is_folder if isinstance(found, Entry) else found.is_dir()


def list_tree(path: str) -> Iterator[Entry]:
    """Yields the files of a folder and of all folders in it, in no particular order; names are relative, with "/".

    Raises:
        InputError: as `list_folder`, or a link that leads to a folder of the tree, which would have no end.
        OSError: a folder cannot be read.
    """
    if is_url(path):
        yield from (entry for entry in objects.tree(path) if "/." not in f"/{entry.name}")
        return
    met: set[tuple[int, int]] = set()
    waiting = [("", path)]
    while waiting:
        prefix, folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in met:
            raise InputError(f"{folder}: a link leads to a folder that is there already; remove the link")
        met.add((status.st_dev, status.st_ino))
        for entry in map(_entry, _visible(folder)):
            if entry.is_folder:
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield replace(entry, name=prefix + entry.name) if prefix else entry


def has_file(path: str, accept: Callable[[str], bool]) -> bool:
    """Whether a folder holds a visible file with such a name; it is read no further than needed."""
    return any(accept(found.name) and not _is_folder(found) for found in _visible(path))


def _entry(found: Entry | os.DirEntry[str]) -> Entry:
    if isinstance(found, Entry):
        return found
    if not is_unicode(found.name):
        raise InputError(f"{found.path}: has a name that is not valid Unicode; rename it")
    if found.is_dir():
        return Entry(found.name, found.path, True)
    if not found.is_file():
        raise InputError(f"{found.path}: is not a file (a broken link, a pipe or a device); remove or restore it")
    status = found.stat()
    return Entry(found.name, found.path, False, status.st_size, status.st_mtime_ns)


def listing_stamp(entries: Iterable[Entry]) -> tuple[int, int]:
    """A digest of names, sizes and times, and the newest time (ns), to notice that a folder changed."""
    digest, newest = hashlib.sha256(), 0
    for entry in entries:
        digest.update(f"{entry.name}\0{entry.size}\0{entry.mtime}\0".encode("utf-8", "surrogateescape"))
        newest = max(newest, entry.mtime)
    return int.from_bytes(digest.digest()[:7], "little"), newest


def stamp(path: str) -> tuple[int, int]:
    """Size and modification time of a file, to notice that it changed. Raises `OSError`."""
    if is_url(path):
        found = objects.find(path)
        if found is None or found.is_folder:
            raise FileNotFoundError(2, "no such object", path)
        return found.size, found.mtime
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def file_digest(path: str) -> tuple[int, str]:
    """Bytes and hex sha256 of a file."""
    with open_file(path) as file:
        digest = digest_of(file, "sha256")
        return file.tell(), digest


def digest_of(stream: BinaryIO, algorithm: str) -> str:
    """The hex digest of what is left of a stream; to recognise it, not to guard it."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := stream.read(COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def remove_file(path: str) -> None:
    """Removes a file, best effort."""
    with suppress(OSError):
        if is_url(path):
            objects.remove([path])
        else:
            os.unlink(path)


def remove_tree(path: str) -> None:
    """Removes a folder, best effort: one of a file system is moved aside first, so that nobody finds half of it."""
    if is_url(path):
        with suppress(OSError):
            objects.remove(entry.path for entry in objects.tree(path))
        return
    if not os.path.lexists(path):
        return
    doomed = f"{path}.{uuid.uuid4().hex[:8]}.removed"
    with suppress(OSError):
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def is_occupied(path: str) -> bool:
    """Whether a path exists and is anything but an empty directory."""
    if is_url(path):
        found = objects.find(path)  # a folder that was made by hand is an object, and empty
        return found is not None and (not found.is_folder or any(True for _ in objects.tree(path)))
    if not os.path.lexists(path):
        return False
    return not os.path.isdir(path) or bool(os.listdir(path))


def has_content(path: str, content: bytes) -> bool:
    """Whether a file holds exactly these bytes."""
    try:
        return read_whole(path) == content
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class FileSet:
    """What a set of files is, in no order: how many, and a digest of their paths and sizes."""

    files: int
    digest: int

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]]) -> FileSet:
        """The tally of some files, each (path, bytes)."""
        count = total = 0
        for path, size in files:
            text = f"{size} {path}".encode("utf-8", "surrogatepass")
            # A sum and not a hash of all: it takes files in any order, and holds none of a million names.
            total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
            count += 1
        return cls(count, total % 2**128)


def file_sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Yields path and bytes of every file in a folder and its folders, hidden ones as well. Raises `OSError`."""
    if is_url(folder):
        yield from ((entry.name, entry.size) for entry in objects.tree(folder))
        return
    waiting = [("", folder)]
    while waiting:
        prefix, path = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield prefix + entry.name, entry.stat().st_size


def free_bytes(path: str) -> int:
    """Bytes free on the file system that will hold `path`, which need not exist yet."""
    if is_url(path):
        return sys.maxsize
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free
