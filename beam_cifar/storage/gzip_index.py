"""Random access to gzip streams through an index that is built once per job."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from beam_cifar.data.resources import address_space, threads_start
from beam_cifar.errors import InputError
from beam_cifar.storage import files
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import write_whole

# rapidgzip decompresses whole chunks, so a chunk at the boundary of two readers is decompressed twice. Small chunks
# keep that low (a few percent of a batch, if there are six), but make building the index slower.
CHUNKS = 288
MIN_CHUNK = 128 << 10
MAX_CHUNK = 1 << 20
NO_INDEX = b"none"
"""Content of the index of an archive that was read without rapidgzip."""


@contextmanager
def open_indexed(path: str, index: str, archive: Any = None) -> Iterator[BinaryIO]:
    """Opens a `.tar.gz` or `.gz` for seeking, using an index written by `list_members` or `gzip_blob`.

    One thread decompresses chunks on demand, none ahead. `archive` is the file, if it is already open.

    Raises:
        InputError: the archive or the index is missing or damaged.
    """
    with reading_archive(path), open_gzip(path, workers=1, archive=archive) as stream:
        try:
            content = _fetched(index) if is_url(index) else b""
            size = len(content) or os.path.getsize(index)
            if size != len(NO_INDEX) and hasattr(stream, "import_index"):
                stream.import_index(io.BytesIO(content) if content else index)
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: its index {index} is missing or damaged; run the job again") from error
        yield stream


# Stored in a file, not in the tasks: an index is 1.3 MB for 175 MB, and made a pipeline of 60 tasks 209 MB large.
@functools.lru_cache(maxsize=4)
def _fetched(index: str) -> bytes:
    """Returns an index from an object store, cached per process: its name identifies its content."""
    return files.read_whole(index)


def export_index(stream: Any, index: str) -> None:
    """Writes an index in gztool's format, which compresses the 32 KiB window before each chunk."""
    if not hasattr(stream, "export_index"):
        write_whole(index, NO_INDEX, "" if is_url(index) else os.path.dirname(index))
        return
    import rapidgzip

    made = io.BytesIO()
    stream.export_index(made, rapidgzip.IndexFormat.GZTOOL)
    write_whole(index, made.getvalue(), os.path.dirname(index))


def _chunk_bytes(path: str) -> int:
    """Returns the compressed bytes per chunk, which must be the same when an index is written and used."""
    return min(MAX_CHUNK, max(MIN_CHUNK, files.stamp(path)[0] // CHUNKS))


@contextmanager
def open_gzip(path: str, workers: int = 0, archive: Any = None) -> Iterator[Any]:
    """Opens a gzip stream for seeking; `workers` threads decompress it, 0 means one per core, at most 4."""
    # Two threads read an archive of 175 MB in 0.33 s; gzip takes 1.17 s.
    parallel = workers or min(4, os.cpu_count() or 1)
    left = address_space()
    if (left is not None and left < (parallel + 2) << 30) or not threads_start(parallel + 1):
        with _one_after_the_other(archive or path) as slow:
            yield slow
        return
    import rapidgzip

    stream = rapidgzip.RapidgzipFile(archive or path, parallelization=parallel, chunk_size=_chunk_bytes(path))
    try:
        yield stream
    finally:
        # Always close: if a stream is still open when the interpreter exits, its threads abort the process.
        stream.close()


@contextmanager
def _one_after_the_other(archive: Any) -> Iterator[Any]:
    """Opens a gzip stream without threads and without an index: to seek back, it starts again.

    rapidgzip maps 1 GB for each thread, and ends the process by a signal if it gets no memory or no thread.
    """
    import gzip
    import zlib

    try:
        with gzip.open(archive) as stream:
            yield stream
    except zlib.error as error:
        raise RuntimeError(str(error)) from error


@contextmanager
def reading_archive(path: str, what: str = "archive") -> Iterator[None]:
    """Turns the various exceptions for a damaged archive, or other file, into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if isinstance(error, RuntimeError):  # of rapidgzip: with threads and addresses, which differ from run to run
            reason = "its compressed data cannot be decoded; copy or download it again"
        raise InputError(f"{path}: the {what} is truncated or damaged: {reason}") from error
