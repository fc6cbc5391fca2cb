"""What is learned by reading a whole input file is stored once a job, as a table that all tasks open."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from beam_cifar import storage
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

MIN_BYTES: Final = 1 << 20
"""A smaller file is read again: that takes no longer than writing an index, and most jobs are small."""

_KEY: Final = b"beam_cifar.index"

ReadTable: TypeAlias = "Callable[[SourceFile], pa.Table]"


def indexed(version: str = __version__) -> Callable[[ReadTable], ReadTable]:
    r"""Returns a decorator that stores a function's table in `SourceFile.index_dir`, where later calls map it.

    A stored table is used only if it is undamaged, and from the same function, version and unchanged file; else the
    function is called again, as it is for small files, without a folder, or where that cannot be written. The table
    must not depend on `id_prefix` or `source` of the file, so that all datasets of a job share it. Put `kept` around.

    Args:
        version: what changes when the table has other columns or another meaning.

    >>> import pyarrow as pa
    >>> from beam_cifar.formats.contract.indexes import indexed
    >>> from beam_cifar.formats.contract.types import SourceFile
    >>> from beam_cifar.storage import whole_file
    >>> @indexed(version="1")
    ... def lengths(file: SourceFile) -> pa.Table:
    ...     with open(file.blob.path, "rb") as lines:
    ...         return pa.table({"length": [len(line) for line in lines]})
    >>> with open("list", "w") as file:
    ...     _ = file.write("cat\nhorse\n")
    >>> lengths(SourceFile("list", "train", "list", whole_file("list"))).to_pylist()
    [{'length': 4}, {'length': 6}]
    """

    def decorated(read: ReadTable) -> ReadTable:
        kind = f"{read.__module__}.{read.__qualname__} {version}"

        @functools.wraps(read)
        def opened(file: SourceFile) -> pa.Table:
            if not file.index_dir or sum(blob.size for blob in (file.blob, *file.beside)) < MIN_BYTES:
                return read(file)
            identity = hashlib.sha256(f"{kind} {_plain(file)!r}".encode()).hexdigest().encode()
            path = os.path.join(file.index_dir, f"rows-{identity[:16].decode()}.arrow")
            table = storage.stored_table(path)
            if table is not None and (table.schema.metadata or {}).get(_KEY) == identity:
                if file.blob.stamp[1]:  # not that of a folder, whose images are compared as they are read
                    storage.refuse_changed(file.blob, file.shown)
                return table
            table = read(file)
            storage.store_table(path, table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: identity}))
            return table

        return opened

    return decorated


def _plain(file: SourceFile) -> SourceFile:
    return replace(file, source=0, id_prefix="", index_dir="")
