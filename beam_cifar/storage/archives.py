"""Reads `.tar`, `.tar.gz` and plain `.gz` in place: lists members and seeks to them, without extracting anything."""

from __future__ import annotations

import functools
import hashlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.naming.components import is_litter
from beam_cifar.storage import files
from beam_cifar.storage.blobs import Blob, local_copy
from beam_cifar.storage.files import COPY_BYTES
from beam_cifar.storage.gzip_index import export_index, open_gzip, reading_archive
from beam_cifar.storage.paths import Stamp, name_of
from beam_cifar.storage.tar import tar_entries

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 500_000
"""Of an archive; each takes some 400 bytes of memory."""
# Photographs compress 1.1 : 1, drawings 10 : 1. A file above both this ratio and this size is taken for a bomb.
MAX_RATIO = 100
RATIO_FREE_BYTES = 1 << 30

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, and where its bytes are in the decompressed stream."""

    path: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.path.rsplit("/", 1)[-1]


def is_archive(path: str) -> bool:
    """Returns whether a path has the extension of an archive that is read, and is no folder. Raises `OSError`."""
    return path.lower().endswith(SUFFIXES) and not files.is_folder(path)


def stem(path: str) -> str:
    """Returns the name of an archive without its extension, and any other name as it is.

    >>> from beam_cifar.storage.archives import stem
    >>> stem("/data/Set.tar.GZ"), stem("s3://data/a.b.zip"), stem("/data/set")
    ('Set', 'a.b', 'set')
    """
    name = name_of(path)
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def is_zip(path: str) -> bool:
    """Returns whether a path has the extension of a zip file, which is read as a folder only; see `storage.packed`."""
    return path.lower().endswith(".zip")


def list_members(path: str, index_dir: str) -> tuple[tuple[Member, ...], str]:
    """Lists the regular files of an archive; cached until the archive changes.

    Returns:
        The members in archive order, and the path of the random-access index in `index_dir`, "" for an uncompressed
        archive.

    Raises:
        InputError: the archive is damaged, has links, devices or too many members, or is a decompression bomb.
    """
    members, index, _ = _once(_list_members, path, index_dir)
    return members, index


def _once(
    look: functools._lru_cache_wrapper[tuple[_Found, str]], path: str, index_dir: str
) -> tuple[_Found, str, Stamp]:
    """Returns the (cached) result of `look` for an archive, the path of its index or "", and its stamp."""
    with reading_archive(path):
        stamp = files.stamp(path)
    digest = hashlib.sha256(f"{path}\0{stamp}".encode("utf-8", "surrogateescape")).hexdigest()
    asked = path, stamp, os.path.join(index_dir, f"archive-{digest[:16]}.index")
    found, index = look(*asked)
    if index and not files.exists(index):  # written by an earlier job, which has removed it since
        look.cache_clear()
        found, index = look(*asked)
    return found, index, stamp


@functools.lru_cache(maxsize=1)
def _list_members(path: str, stamp: Stamp, index: str) -> tuple[tuple[Member, ...], str]:
    limit = max(RATIO_FREE_BYTES, MAX_RATIO * stamp[0])
    with reading_archive(path):
        if not is_gzip(path):
            with files.open_file(path) as stream:
                return tuple(_members(stream, path, stamp[0], limit)), ""
    with reading_archive(path), local_copy(path) as copy, open_gzip(copy) as stream:
        members = tuple(_members(stream, path, limit, limit))
        stream.seek(0, os.SEEK_END)  # reads to the end, which also verifies the stream's checksum
        export_index(stream, index)
    return members, index


def gzip_blob(path: str, index_dir: str) -> Blob:
    """Returns a seekable blob of the decompressed content of a plain `.gz` file; cached as in `list_members`.

    Raises:
        InputError: the file is not gzip, damaged, truncated, or a decompression bomb.
    """
    size, index, stamp = _once(_unpacked_size, path, index_dir)
    return Blob(path, 0, size, stamp, index)


@functools.lru_cache(maxsize=64)
def _unpacked_size(path: str, stamp: Stamp, index: str) -> tuple[int, str]:
    """Decompresses a `.gz` file once, which verifies its checksum, and writes the index."""
    with reading_archive(path, "file"):
        if not is_gzip(path):
            raise InputError(f"{path}: not a gzip file, although its name says so; rename or remove it")
        limit = max(RATIO_FREE_BYTES, MAX_RATIO * stamp[0])
        with local_copy(path) as copy, open_gzip(copy) as stream:
            while stream.read(COPY_BYTES):
                if stream.tell() > limit:
                    raise InputError(
                        f"{path}: decompresses to more than {limit} bytes, at least {MAX_RATIO} times its size; "
                        "refused as a decompression bomb"
                    )
            size: int = stream.tell()
            _refuse_cut(copy, size)
            export_index(stream, index)
    return size, index


def _refuse_cut(path: str, size: int) -> None:
    """Raises `EOFError` if a `.gz` file is truncated, which rapidgzip does not detect.

    A member ends with its decompressed size modulo 2**32 (RFC 1952). If that differs from the total, there are several
    members or the end is missing; only reading the file sequentially shows which.
    """
    with files.open_file(path) as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(), "little") == size % 2**32:
            return
    from isal import igzip

    with igzip.open(path) as stream:
        found = sum(len(chunk) for chunk in iter(lambda: stream.read(COPY_BYTES), b""))
    if found != size:
        raise EOFError(f"expected {counted(found, 'byte')}, found {size:,}")


def _members(stream: Any, path: str, size: int, limit: int) -> Iterator[Member]:
    seen = set()
    for count, (name, offset, length) in enumerate(tar_entries(stream, size, path), 1):
        if count > MAX_MEMBERS:
            raise InputError(f"{path}: more than {MAX_MEMBERS} members; unpack it")
        if offset + length > limit:
            raise InputError(
                f"{path}: member {name!r} ends at byte {offset + length} of the decompressed archive, more than "
                f"{MAX_RATIO} times its compressed size; refused as a decompression bomb"
            )
        if name.endswith("/"):
            continue
        plain = posixpath.normpath(name).lstrip("/")
        if any(map(is_litter, plain.split("/"))):
            continue
        if plain in seen:
            raise InputError(f"{path}: member {plain!r} occurs twice")
        seen.add(plain)
        yield Member(plain, offset, length)


def is_gzip(path: str) -> bool:
    """Returns whether a file starts as gzip does (RFC 1952). Raises `OSError`."""
    with files.open_file(path) as file:
        return file.read(2) == b"\x1f\x8b"
