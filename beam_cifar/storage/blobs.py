"""Input files: where their bytes are, and opening and copying them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from beam_cifar.errors import InputError
from beam_cifar.storage.client import ChangedError, In, Out, concurrently
from beam_cifar.storage.files import COPY_BYTES, is_unchanged, make_folder, stamp
from beam_cifar.storage.gzip_index import open_indexed
from beam_cifar.storage.objects import FIRST_WINDOW, ObjectReader, fetch
from beam_cifar.storage.paths import Entry, Stamp, is_url
from beam_cifar.storage.staging import StagedFile
from beam_cifar.storage.temporary import TemporaryFolder

# Read ahead from compressed objects: decompression reads little at a time, but in order.
ARCHIVE_WINDOW = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Where the bytes of an input file are.

    Attributes:
        path: the file, or the archive that contains it.
        offset: where it starts in the archive's (decompressed) stream.
        size: its size in bytes.
        stamp: stamp of `path` at planning time; a file that changed since is refused.
        index: path of the random-access index of a compressed archive; empty for a plain file.
    """

    path: str
    offset: int
    size: int
    stamp: Stamp
    index: str = ""

    @property
    def is_part(self) -> bool:
        """Whether it is a range of a plain file rather than all of it."""
        return self.offset > 0 or self.size != self.stamp[0]


def whole_file(path: str) -> Blob:
    """Returns the blob of a plain file. Raises `OSError`."""
    found = stamp(path)
    return Blob(path, 0, found[0], found)


def unpacked_file(path: str, archive: Stamp) -> Blob:
    """Returns the blob of a file that was unpacked just now: it changes only if its archive does."""
    size, mtime, _ = stamp(path)
    return Blob(path, 0, size, (size, mtime, archive[2]))


def listed_file(entry: Entry) -> Blob:
    """Returns the blob of a file found by listing a folder."""
    return Blob(entry.path, 0, entry.size, (entry.size, entry.mtime, entry.identity))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what is raised while a file is read and parsed into an `InputError` that names the file.

    Parsers check what they know; Python and libraries have limits of their own, such as 4,300 digits of an integer.
    """
    try:
        yield
    except OSError as error:
        inner = str(error.filename)
        where = inner if inner.startswith(os.path.join(name, "")) else name
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (ValueError, ArithmeticError, LookupError, RecursionError, EOFError, struct.error, zlib.error) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"{name}: cannot be parsed: {reason or type(error).__name__}; it is damaged") from error


@contextmanager
def open_blob(blob: Blob, name: str) -> Iterator[BinaryIO]:
    """Opens an input file for reading and seeking. Raises `InputError` if it is missing, or changed since planning."""
    if is_url(blob.path):
        with _object(blob, name) as stream:
            yield stream
        return
    with reading(name):
        _refuse_changed(blob, name)
        if blob.index:
            with _unpacking(blob) as stream:
                yield stream
        else:
            with open(blob.path, "rb") as file:
                yield io.BufferedReader(SubFile(file, blob.offset, blob.size)) if blob.is_part else file
        _refuse_changed(blob, name)


@contextmanager
def _object(blob: Blob, name: str) -> Iterator[BinaryIO]:
    """Opens an object, or a range of it, for reading and seeking."""
    try:
        window = ARCHIVE_WINDOW if blob.index else FIRST_WINDOW
        with reading(name), ObjectReader(blob.path, blob.stamp, window) as stream:
            if blob.index:
                with _unpacking(blob, stream) as unpacked:
                    yield unpacked
            elif blob.is_part:
                # Unbuffered: `ObjectReader` has its own buffer.
                yield cast(BinaryIO, io.BufferedReader(SubFile(stream, blob.offset, blob.size), 1))
            else:
                yield cast(BinaryIO, stream)
    except InputError as error:
        if isinstance(error.__cause__, ChangedError):
            raise _changed(name) from error
        raise


@contextmanager
def _unpacking(blob: Blob, archive: Any = None) -> Iterator[BinaryIO]:
    with open_indexed(blob.path, blob.index, archive) as stream:
        # A small buffer: reading ahead may decompress data that is never used.
        yield io.BufferedReader(SubFile(stream, blob.offset, blob.size))


@contextmanager
def mapped(blob: Blob, name: str) -> Iterator[Any]:
    """Opens a plain input file for Arrow, memory-mapped if it is local. Raises `InputError` as `open_blob` does."""
    import pyarrow as pa

    if is_url(blob.path):
        with _object(blob, name) as stream:
            yield pa.PythonFile(stream, mode="r")
        return
    with reading(name):
        _refuse_changed(blob, name)
        with pa.memory_map(blob.path) as file:
            yield file


def open_arrow(path: str) -> Any:
    """Opens a file for Arrow; closing the Arrow file closes it as well."""
    import pyarrow as pa

    return pa.PythonFile(ObjectReader(path), mode="r") if is_url(path) else pa.OSFile(path)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yields a local path for a file: its own, or that of a temporary copy of an object."""
    if not is_url(path):
        yield path
        return
    with ObjectReader(path) as stream, TemporaryFolder() as folder:
        copy = os.path.join(folder, "copy")
        with StagedFile(copy, folder) as file:
            while chunk := stream.read(8 * COPY_BYTES):
                file.write(chunk)
            file.commit()
        yield copy


def unpack(blob: Blob, name: str, path: str) -> Blob:
    """Extracts an input file from its archive, keeping the archive's identity. Raises `InputError` or `JobError`."""
    make_folder(os.path.dirname(path))
    with StagedFile(path, os.path.dirname(path)) as file:
        copy_blob(blob, name, file)
    return unpacked_file(path, blob.stamp)


def copy_blob(blob: Blob, name: str, file: StagedFile) -> None:
    """Copies an input file to a new file and commits it. Raises as `unpack` does."""
    with open_blob(blob, name) as stream:
        while chunk := stream.read(COPY_BYTES):
            file.write(chunk)
    if file.bytes_written != blob.size:
        raise InputError(f"{name}: truncated: ended at byte {file.bytes_written} of {blob.size}")
    file.commit()


def refuse_changed(blob: Blob, name: str) -> None:
    """Raises `InputError` if an input file is missing, or changed since planning; opens no local file."""
    if is_url(blob.path):
        with _object(blob, name):
            pass
    else:
        with reading(name):
            _refuse_changed(blob, name)


def _refuse_changed(blob: Blob, name: str) -> None:
    # Checked before and after reading: if a file is replaced meanwhile, part of the data may be old and part new.
    if not is_unchanged(stamp(blob.path), blob.stamp):
        raise _changed(name)


def _changed(name: str) -> InputError:
    return InputError(f"{name}: the file changed while it was being converted; run the job again")


def read_listed(entry: Entry) -> bytes:
    """Reads a small listed file. Raises `InputError` if it is missing, unreadable, or changed since it was listed."""
    with reading(entry.path):
        if is_url(entry.path):
            content, found = fetch(entry.path)
            mtime = found.mtime
        else:
            with open(entry.path, "rb", buffering=0) as file:
                mtime = os.fstat(file.fileno()).st_mtime_ns
                content = file.read()
    if (len(content), mtime) != (entry.size, entry.mtime):
        raise _changed(entry.path)
    return content


def read_all_listed(entries: Sequence[Entry]) -> list[bytes]:
    """Reads several listed files, in order; from an object store concurrently. Raises as `read_listed` does."""
    return list(each(read_listed, entries, entries[0].path if entries else ""))


def each(function: Callable[[In], Out], items: Iterable[In], path: str) -> Iterator[Out]:
    """Yields the results of a function for each item, in order; calls are concurrent if `path` is a URL."""
    return concurrently(function, items) if is_url(path) else map(function, items)


class SubFile(io.RawIOBase):
    """A range of a seekable file as a file: `size` bytes from `offset`, such as an archive member."""

    def __init__(self, file: Any, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._offset + self._position)
        count: int = self._file.readinto(view[:wanted])
        self._position += count
        return count
