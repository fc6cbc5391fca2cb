"""Random access to gzip streams through an index, built once per job."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from beam_cifar.errors import InputError
from beam_cifar.storage import files
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import write_whole

# rapidgzip unpacks whole chunks, so two readers both unpack the one where their parts meet. Small chunks keep that low
# (a few percent of each batch, where there are six), but to find their starts the plan works longer.
CHUNKS = 288
MIN_CHUNK = 128 << 10
MAX_CHUNK = 1 << 20


@contextmanager
def open_indexed(path: str, index: str, archive: Any = None) -> Iterator[BinaryIO]:
    """Opens a `.tar.gz` or `.gz` for seeking through an index that `list_members` or `gzip_blob` made.

    One thread unpacks, chunk by chunk as they are asked for: none is unpacked ahead. `archive` is the file, where it is
    open already.

    Raises:
        InputError: the archive or the index is gone or damaged.
    """
    with reading_archive(path), open_gzip(path, workers=1, archive=archive) as stream:
        try:
            stream.import_index(io.BytesIO(_fetched(index)) if is_url(index) else index)
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: its index {index} is gone or damaged; run the job again") from error
        yield stream


# A file and no part of the tasks: 1.3 MB for 175 MB, it made a pipeline of 60 tasks 209 MB large.
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


@contextmanager
def open_gzip(path: str, workers: int = 0, archive: Any = None) -> Iterator[Any]:
    """Opens a gzip stream for seeking; `workers` threads unpack it, as many as there are cores if 0."""
    import rapidgzip

    # Two threads read an archive of 175 MB in 0.33 s; gzip takes 1.17 s, and cannot seek.
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
