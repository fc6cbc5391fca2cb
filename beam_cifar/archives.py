"""Reads `.tar`, `.tar.gz` and plain `.gz` in place: members by name, bytes by seek, nothing extracted."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from beam_cifar.errors import InputError
from beam_cifar.formats.shared.tar_headers import tar_entries
from beam_cifar.storage import files
from beam_cifar.storage.files import COPY_BYTES
from beam_cifar.storage.inputs import Blob, local_copy
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import write_whole

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 10_000
# Photographs deflate 1.1 : 1, drawings 10 : 1. What unpacks to more than this much at more than this ratio is a bomb.
MAX_RATIO = 100
RATIO_FREE_BYTES = 1 << 30
# rapidgzip unpacks whole chunks, so two readers both unpack the one where their parts meet. Small chunks keep that low
# (a few percent of each batch, where there are six), but to find their starts the plan works longer.
CHUNKS = 288
MIN_CHUNK = 128 << 10
MAX_CHUNK = 1 << 20

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

    Args:
        path: the archive.
        index_dir: where to put the random-access index, should the archive be compressed.

    Returns:
        The members in archive order, and the path of the index, "" for an uncompressed archive.

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
    """The unpacked bytes of a plain `.gz` file, for seeking; asked again of the same one, it is not read again.

    Args:
        path: the file.
        index_dir: where to put its random-access index.

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


@contextmanager
def open_indexed(path: str, index: str, archive: Any = None) -> Iterator[BinaryIO]:
    """Opens a `.tar.gz` or `.gz` for seeking through an index that `list_members` or `gzip_blob` made.

    One thread unpacks, chunk by chunk as they are asked for: none is unpacked ahead.

    Args:
        path: of the archive.
        index: its index.
        archive: the file, where it is open already.

    Raises:
        InputError: the archive or the index is gone or damaged.
    """
    with reading_archive(path), open_gzip(path, workers=1, archive=archive) as stream:
        try:
            stream.import_index(io.BytesIO(_fetched(index)) if is_url(index) else index)
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: its index {index} is gone or damaged; run the job again") from error
        yield stream


@functools.lru_cache(maxsize=4)
def _fetched(index: str) -> bytes:
    """An index from an object store, once for each process; its name tells its content."""
    return files.read_whole(index)


def export_index(stream: Any, index: str) -> None:
    """Writes an index as gztool does: it packs the 32 KiB before each chunk, of which most is never referred to."""
    import rapidgzip

    if not is_url(index):
        stream.export_index(index, rapidgzip.IndexFormat.GZTOOL)
        return
    made = io.BytesIO()
    stream.export_index(made, rapidgzip.IndexFormat.GZTOOL)
    write_whole(index, made.getvalue(), "")


def _chunk_bytes(path: str) -> int:
    """How many packed bytes make a chunk: the same for those who make an index and those who use it."""
    return min(MAX_CHUNK, max(MIN_CHUNK, files.stamp(path)[0] // CHUNKS))


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


@contextmanager
def open_gzip(path: str, workers: int = 0, archive: Any = None) -> Iterator[Any]:
    """Opens a gzip stream for seeking; `workers` threads unpack it, as many as there are cores if 0."""
    import rapidgzip

    # Left open until the interpreter ends, its threads abort the process: always close.
    parallel = workers or min(4, os.cpu_count() or 1)
    stream = rapidgzip.RapidgzipFile(archive or path, parallelization=parallel, chunk_size=_chunk_bytes(path))
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def reading_archive(path: str, what: str = "archive") -> Iterator[None]:
    """Turns the many ways in which a damaged archive, or what else it is, fails into one line."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if reason == "std::exception":
            reason = "it ends too early"
        raise InputError(f"{path}: the {what} is truncated or damaged: {reason}") from error
