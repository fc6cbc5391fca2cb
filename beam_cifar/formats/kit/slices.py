"""Slice files: runs of rows that can be read one by one, each with a key and a checksum; an index follows them.

Jobs write them for themselves, for rows that wait for their turn. What is damaged is an error, and never another row.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from beam_cifar import storage
from beam_cifar.errors import JobError

Slices = npt.NDArray[np.void]
"""Some entries of an index: `key`, `start`, `bytes` and `crc` of each slice."""

_SLICE: Final = np.dtype([("key", "<i8"), ("start", "<i8"), ("bytes", "<i8"), ("crc", "<u8")])
_END: Final = struct.Struct("<QQI12s")
"""The last bytes of a file: rows, slices, CRC-32 of the index that starts from the file's number, and a mark."""
_MARK: Final = b"slice file 1"
AGAIN: Final = "run the job again"


class SliceWriter:
    """Writes a slice file.

    Args:
        file: new file, which the caller commits after `close`.
        number: its number, so that it is not taken for another file of the job.
    """

    def __init__(self, file: storage.StagedFile, number: int = 0) -> None:
        self._file, self._number = file, number
        self._index: list[tuple[int, int, int, int]] = []

    def write(self, data: Any, key: int) -> None:
        """Adds a slice, bytes or a buffer of Arrow."""
        self._index.append((key, self._file.bytes_written, memoryview(data).nbytes, isal_zlib.crc32(data)))
        self._file.write(data)

    def close(self, rows: int) -> None:
        """Writes the index. `rows` is the number of rows in all slices."""
        index = np.array(self._index, dtype=_SLICE).tobytes()
        self._file.write(index)
        self._file.write(_END.pack(rows, len(self._index), isal_zlib.crc32(index, self._number), _MARK))


def read_index(path: str, number: int = 0) -> tuple[int, Slices]:
    """Returns the number of rows of a slice file, and its slices. Raises `JobError` if it is damaged."""
    with _reading(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END.size))
        at, last = file.tell(), file.read()
        if len(last) == _END.size and last.endswith(_MARK):
            rows, slices, crc, _ = _END.unpack(last)
            size = slices * _SLICE.itemsize
            if size <= at:
                file.seek(at - size)
                data = file.read(size)
                if isal_zlib.crc32(data, number) == crc:
                    return rows, np.frombuffer(data, _SLICE)
    raise _damaged(path, "it does not end with its index")


def read_slices(path: str, slices: Slices) -> Iterator[bytes]:
    """Yields the bytes of some slices of a file. Raises `JobError` for a damaged one."""
    if not len(slices):
        return
    with _reading(path) as file:
        for _, start, size, crc in slices.tolist():
            file.seek(start)
            data = file.read(size)
            if len(data) != size or isal_zlib.crc32(data) != crc:
                raise _damaged(path, f"its {size} bytes from byte {start} differ from their CRC-32")
            yield data


@contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    try:
        with storage.open_file(path) as file:
            yield file
    except OSError as error:
        raise JobError(f"{path}: cannot read moved rows: {error.strerror or error}; {AGAIN}") from error


def _damaged(path: str, how: str) -> JobError:
    return JobError(f"{path}: this file of moved rows is damaged: {how}; {AGAIN}")
