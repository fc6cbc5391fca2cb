"""Tables in the index folder of a job: written once, memory-mapped by every process, and never trusted if damaged."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from beam_cifar.errors import JobError
from beam_cifar.storage import objects
from beam_cifar.storage.files import COPY_BYTES
from beam_cifar.storage.ownership import is_closed_folder
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import StagedFile

if TYPE_CHECKING:
    import pyarrow as pa

_DIGEST_BYTES: Final = 32
"""A file is an Arrow IPC file, then the sha256 of its bytes: Arrow checks no values, and would follow any offset."""


def store_table(path: str, table: pa.Table) -> None:
    """Writes a table, as one batch; does nothing if its folder is missing, writable by anybody, or not by us."""
    import pyarrow as pa

    folder = os.path.dirname(path)
    if not (is_url(path) or is_closed_folder(folder)):
        return
    with suppress(JobError), StagedFile(path, folder) as file:
        with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
            writer.write_table(table.combine_chunks())
        file.write(bytes.fromhex(file.sha256))
        file.commit()


def stored_table(path: str) -> pa.Table | None:
    """Returns a table that `store_table` wrote; None if it is missing, damaged, or where anybody can write."""
    import pyarrow as pa

    try:
        content = pa.py_buffer(_fetched(path) if is_url(path) else _mapped(path))
        return pa.ipc.open_file(content.slice(0, content.size - _DIGEST_BYTES)).read_all()
    except (OSError, ValueError):
        return None


def _fetched(url: str) -> bytes:
    data = objects.fetch(url)[0]
    _check(hashlib.sha256(data[:-_DIGEST_BYTES]), data[-_DIGEST_BYTES:])
    return data


def _mapped(path: str) -> mmap.mmap:
    if not is_closed_folder(os.path.dirname(path)):
        raise OSError(1, "others can write to its folder", path)
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "not a file", path)
        # Read and not mapped: what is mapped and looked at counts as memory of the process.
        digest, left = hashlib.sha256(), status.st_size - _DIGEST_BYTES
        while left > 0 and (chunk := file.read(min(COPY_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        _check(digest, file.read(_DIGEST_BYTES))
        return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)


def _check(digest: Any, expected: bytes) -> None:
    if digest.digest() != expected:
        raise ValueError("damaged")
