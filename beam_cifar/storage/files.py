"""Finds, lists, reads, counts and removes files and folders on a file system or in an object store."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, cast

from beam_cifar.data.text import is_unicode
from beam_cifar.errors import BeamCifarError, InputError, JobError
from beam_cifar.naming.components import is_litter
from beam_cifar.storage import objects
from beam_cifar.storage.hidden import hidden_files
from beam_cifar.storage.paths import Entry, Stamp, is_url

COPY_BYTES = 1 << 20


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns an `OSError` on writing into a `JobError` that names the output; other exceptions pass."""
    try:
        yield
    except BeamCifarError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str, error: OSError) -> JobError:
    """Returns the error for an output that cannot be written."""
    return JobError(f"{path}: cannot be written: {error.strerror or error}")


def exists(path: str) -> bool:
    """Returns whether a path exists, even as a broken link."""
    return objects.find(path) is not None if is_url(path) else os.path.lexists(path)


def is_file(path: str) -> bool:
    """Returns whether a path is a file. Raises `OSError` if that cannot be seen."""
    if not is_url(path):
        return stat.S_ISREG(_mode(path))
    found = objects.find(path)
    return found is not None and not found.is_folder


def is_folder(path: str) -> bool:
    """Returns whether a path is a folder; in an object store, whether there are objects below it. Raises `OSError`."""
    if not is_url(path):
        return stat.S_ISDIR(_mode(path))
    found = objects.find(path)
    return found is not None and found.is_folder


def _mode(path: str) -> int:
    """Returns the mode of what is at a path, 0 if nothing can be; `os.path.isfile` hides that it may not look."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0
    except PermissionError as error:  # to enter the folder: the file may not even exist
        raise PermissionError(error.errno, error.strerror, os.path.dirname(path)) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return 0
        raise


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading and seeking. Raises `OSError`."""
    return cast(BinaryIO, objects.ObjectReader(path)) if is_url(path) else open(path, "rb")


def read_whole(path: str) -> bytes:
    """Returns the content of a small file. Raises `OSError`."""
    if is_url(path):
        return objects.fetch(path)[0]
    with open(path, "rb") as file:
        return file.read()


def make_folder(path: str) -> None:
    """Creates a folder and its missing parents; does nothing in an object store. Raises `JobError`."""
    if not is_url(path):
        with writing(path):
            os.makedirs(path, exist_ok=True)


def names_in(path: str) -> list[str]:
    """Returns the names in a folder, including hidden ones; an empty list if it does not exist."""
    try:
        return [entry.name for entry in objects.entries(path)] if is_url(path) else os.listdir(path)
    except FileNotFoundError:
        return []


def list_folder(path: str, accept: Callable[[str], bool] = bool) -> list[Entry]:
    """Lists a folder, in no particular order, without hidden names and what systems leave behind, see `is_litter`.

    `accept` selects names, default: all; other entries are not examined.

    Raises:
        InputError: an entry is neither a file nor a folder, or its name is not valid Unicode.
        OSError: the folder cannot be read.
    """
    return [_entry(found) for found in _visible(path) if accept(found.name)]


def folders_in(path: str) -> list[str]:
    """Returns the paths of the visible folders in a folder, without those named `_*`. Raises `OSError`."""
    return [found.path for found in _visible(path) if _is_folder(found) and not found.name.startswith("_")]


def first_names(path: str, most: int) -> tuple[list[str], list[str]]:
    """Returns the names of files, and the paths of folders as in `folders_in`, among the first entries of a folder.

    Args:
        path: the folder.
        most: how many entries to look at, of however many it has.

    Raises:
        OSError: the folder cannot be read.
    """
    files, folders = [], []
    for found in islice(_visible(path), most):
        if not _is_folder(found):
            files.append(found.name)
        elif not found.name.startswith("_"):
            folders.append(found.path)
    return files, folders


def _visible(path: str) -> Iterator[Entry | os.DirEntry[str]]:
    """Yields the visible entries of a folder; on a file system unexamined, because `stat` is a call per entry."""
    hidden = hidden_files()
    if is_url(path):
        yield from (e for e in objects.entries(path) if not is_litter(e.name) and e.path not in hidden)
        return
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not is_litter(entry.name) and entry.path not in hidden)


def _is_folder(found: Entry | os.DirEntry[str]) -> bool:
    return found.is_folder if isinstance(found, Entry) else found.is_dir()


def list_tree(path: str) -> Iterator[Entry]:
    """Yields the files in a folder and its subfolders, in no particular order; names are relative, with "/".

    Raises:
        InputError: as `list_folder`, or a link leads to a folder of the same tree, which would never end.
        OSError: a folder cannot be read.
    """
    if is_url(path):
        hidden = hidden_files()
        shown = (entry for entry in objects.tree(path) if not any(map(is_litter, entry.name.split("/"))))
        yield from (entry for entry in shown if entry.path not in hidden)
        return
    met: set[tuple[int, int]] = set()
    waiting = [("", path)]
    while waiting:
        prefix, folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in met:
            raise InputError(f"{folder}: a link leads to a folder that was already listed; remove the link")
        met.add((status.st_dev, status.st_ino))
        for entry in map(_entry, _visible(folder)):
            if entry.is_folder:
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield replace(entry, name=prefix + entry.name) if prefix else entry


def has_file(path: str, accept: Callable[[str], bool]) -> bool:
    """Returns whether a folder has a visible file with an accepted name; stops at the first one."""
    return any(accept(found.name) and not _is_folder(found) for found in _visible(path))


def _entry(found: Entry | os.DirEntry[str]) -> Entry:
    if isinstance(found, Entry):
        return found
    if not is_unicode(found.name):
        raise InputError(f"{found.path}: name is not valid Unicode; rename it")
    if found.is_dir():
        return Entry(found.name, found.path, True)
    if not found.is_file():
        raise InputError(f"{found.path}: not a file (a broken link, a pipe or a device); remove or restore it")
    status = found.stat()
    return Entry(found.name, found.path, False, status.st_size, status.st_mtime_ns, _identity(status))


def _identity(status: os.stat_result) -> int:
    """Returns 63 bits of mtime, ctime and inode: programs that copy files restore the first, but not the other two."""
    # Arithmetic, not a hash function: it is computed for each of a million images.
    mixed = status.st_mtime_ns * 0x1E3779B97F4A7C15 + status.st_ctime_ns * 0x42B2AE3D27D4EB4F
    return (mixed + status.st_ino * 0x165667B19E3779F9) & 0x7FFFFFFFFFFFFFFF


def listing_stamp(entries: Iterable[Entry]) -> Stamp:
    """Returns the stamp of a folder: digests of its names, sizes, times and identities, to detect changes."""
    digest, identities = hashlib.sha256(), hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.name}\0{entry.size}\0{entry.mtime}\0".encode("utf-8", "surrogateescape"))
        identities.update(entry.identity.to_bytes(8, "little"))
    return int.from_bytes(digest.digest()[:7], "little"), 0, int.from_bytes(identities.digest()[:7], "little")


def is_unchanged(found: Stamp, stamp: Stamp) -> bool:
    """Returns whether a file that a worker sees is the one that was planned, going by size and time."""
    return found[:2] == stamp[:2]


def stamp(path: str) -> Stamp:
    """Returns the stamp of a file, to detect changes. Raises `OSError`."""
    if is_url(path):
        found = objects.find(path)
        if found is None or found.is_folder:
            raise FileNotFoundError(2, "no such object", path)
        return found.size, found.mtime, found.identity
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, _identity(status)


def file_digest(path: str) -> tuple[int, str]:
    """Returns size and hex sha256 of a file."""
    with open_file(path) as file:
        digest = digest_of(file, "sha256")
        return file.tell(), digest


def digest_of(stream: BinaryIO, algorithm: str) -> str:
    """Returns the hex digest of the rest of a stream; for identification, not for security."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := stream.read(COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def remove_file(path: str) -> None:
    """Removes a file; errors are ignored."""
    with suppress(OSError):
        if is_url(path):
            objects.remove([path])
        else:
            os.unlink(path)


def remove_tree(path: str) -> None:
    """Removes a folder, ignoring errors; on a file system it is renamed first, so that no half-removed one is seen."""
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
    """Returns whether a path exists and is not an empty directory."""
    if is_url(path):
        found = objects.find(path)  # a folder created by hand is an object, and may be empty
        return found is not None and (not found.is_folder or any(True for _ in objects.tree(path)))
    if not os.path.lexists(path):
        return False
    return not os.path.isdir(path) or bool(os.listdir(path))


def has_content(path: str, content: bytes) -> bool:
    """Returns whether a file exists and has exactly this content."""
    try:
        return read_whole(path) == content
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class FileSet:
    """Identifies a set of files, in any order, by their number and a digest of their paths and sizes."""

    files: int
    digest: int

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]]) -> FileSet:
        """Creates it from files, each (path, bytes)."""
        count = total = 0
        for path, size in files:
            text = f"{size} {path}".encode("utf-8", "surrogatepass")
            # A sum of hashes rather than one hash: independent of order, without keeping a million names to sort.
            total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
            count += 1
        return cls(count, total % 2**128)


def file_sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Yields path and size of every file in a folder and its subfolders, including hidden ones. Raises `OSError`."""
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
    """Returns the free bytes on the file system of `path`, which need not exist yet."""
    if is_url(path):
        return sys.maxsize
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free
