"""Reads `.tar`, `.tar.gz` and plain `.gz` in place: members by name, bytes by seek, nothing extracted."""

from __future__ import annotations

import functools
import hashlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from beam_cifar.errors import InputError
from beam_cifar.storage import files
from beam_cifar.storage.blobs import Blob, local_copy
from beam_cifar.storage.files import COPY_BYTES
from beam_cifar.storage.gzip_index import export_index, open_gzip, reading_archive
from beam_cifar.storage.tar import tar_entries

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 10_000
# Photographs deflate 1.1 : 1, drawings 10 : 1. What unpacks to more than this much at more than this ratio is a bomb.
MAX_RATIO = 100
RATIO_FREE_BYTES = 1 << 30

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Member:
    """One file of an archive: its path there, and where its bytes lie in the decompressed stream."""

    path: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.path.rsplit("/", 1)[-1]


def is_archive(path: str) -> bool:
    """Whether a path is named like an archive that this module reads."""
    return path.lower().endswith(SUFFIXES)


def list_members(path: str, index_dir: str) -> tuple[tuple[Member, ...], str]:
    """Lists the regular files of an archive; asked again of the same one, it does not read it again.

    Returns:
        The members in archive order, and the path of the random-access index in `index_dir`, "" for an uncompressed
        archive.

    Raises:
        InputError: the archive is damaged, or holds links, devices, too many members, or a bomb.
    """
    members, index, _ = _once(_list_members, path, index_dir)
    return members, index


def _once(
    look: functools._lru_cache_wrapper[tuple[_Found, str]], path: str, index_dir: str
) -> tuple[_Found, str, tuple[int, int]]:
    """What a look at an archive finds, the path of its index, or "", and its stamp; it looks again if that is gone."""
    with reading_archive(path):
        stamp = files.stamp(path)
    digest = hashlib.sha256(f"{path}\0{stamp}".encode("utf-8", "surrogateescape")).hexdigest()
    asked = path, stamp, os.path.join(index_dir, f"archive-{digest[:16]}.index")
    found, index = look(*asked)
    if index and not files.exists(index):  # of an earlier job, which has cleaned up
        look.cache_clear()
        found, index = look(*asked)
    return found, index, stamp


@functools.lru_cache(maxsize=1)
def _list_members(path: str, stamp: tuple[int, int], index: str) -> tuple[tuple[Member, ...], str]:
    limit = max(RATIO_FREE_BYTES, MAX_RATIO * stamp[0])
    with reading_archive(path):
        if not _is_gzip(path):
            with files.open_file(path) as stream:
                return tuple(_members(stream, path, stamp[0], limit)), ""
    with reading_archive(path), local_copy(path) as copy, open_gzip(copy) as stream:
        members = tuple(_members(stream, path, limit, limit))
        stream.seek(0, os.SEEK_END)  # the checksum at the end of the stream is checked on the way
        export_index(stream, index)
    return members, index


def gzip_blob(path: str, index_dir: str) -> Blob:
    """The unpacked bytes of a plain `.gz` file, for seeking; otherwise as `list_members`.

    Raises:
        InputError: it is not gzip, damaged, cut short, or a decompression bomb.
    """
    size, index, stamp = _once(_unpacked_size, path, index_dir)
    return Blob(path, 0, size, stamp, index)


@functools.lru_cache(maxsize=64)
def _unpacked_size(path: str, stamp: tuple[int, int], index: str) -> tuple[int, str]:
    """Unpacks a `.gz` file once, which checks its checksum, and writes the index."""
    with reading_archive(path, "file"):
        if not _is_gzip(path):
            raise InputError(f"{path}: is not gzip, as its name says; rename or remove it")
        limit = max(RATIO_FREE_BYTES, MAX_RATIO * stamp[0])
        with local_copy(path) as copy, open_gzip(copy) as stream:
            while stream.read(COPY_BYTES):
                if stream.tell() > limit:
                    raise InputError(
                        f"{path}: unpacks to more than {limit} bytes, {MAX_RATIO} times its packed size or more; "
                        "refused as a decompression bomb"
                    )
            size: int = stream.tell()
            _refuse_cut(copy, size)
            export_index(stream, index)
    return size, index


def _refuse_cut(path: str, size: int) -> None:
    """Raises `EOFError` if a `.gz` file is cut short, which rapidgzip takes for its end.

    A member ends with its unpacked size, modulo 2**32 (RFC 1952): where that is not the whole, there are several
    members, or the end is missing, and only reading it in order tells which.
    """
    with files.open_file(path) as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(), "little") == size % 2**32:
            return
    from isal import igzip

    with igzip.open(path) as stream:
        found = sum(len(chunk) for chunk in iter(lambda: stream.read(COPY_BYTES), b""))
    if found != size:
        raise EOFError(f"{found} bytes are in it, {size} could be read")


def _members(stream: Any, path: str, size: int, limit: int) -> Iterator[Member]:
    seen = set()
    for count, (name, offset, length) in enumerate(tar_entries(stream, size, path), 1):
        if count > MAX_MEMBERS:
            raise InputError(f"{path}: more than {MAX_MEMBERS} members; this is not a CIFAR archive")
        if offset + length > limit:
            raise InputError(
                f"{path}: member {name!r} ends at byte {offset + length} of the unpacked archive, more than "
                f"{MAX_RATIO} times its packed size; refused as a decompression bomb"
            )
        if name.endswith("/"):
            continue
        plain = posixpath.normpath(name).lstrip("/")
        if plain in seen:
            raise InputError(f"{path}: member {plain!r} is there twice")
        seen.add(plain)
        yield Member(plain, offset, length)


def _is_gzip(path: str) -> bool:
    with files.open_file(path) as file:
        return file.read(2) == b"\x1f\x8b"
