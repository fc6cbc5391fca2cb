"""Unpacks numeric arrays of MATLAB v5 files (`.mat`, saved with `-v6` or `-v7`) without SciPy.

Layout: "MAT-File Format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf. A header of 128 bytes is
followed by elements: each a tag (type, bytes) and data; a compressed one is a zlib stream of one element. The arrays
that are needed are streamed to files in the job's folder: memory is bounded, but they take their whole size there, and
the time to unpack them, before any row is read (SVHN's `extra_32x32.mat`: 1.3 GB, unpacked 1.6 GB).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Collection
from typing import BinaryIO, Final, NamedTuple, Protocol

from beam_cifar import storage
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.records import read_exactly
from beam_cifar.storage.archives import MAX_RATIO, RATIO_FREE_BYTES

HEADER_BYTES: Final = 128
MAX_ELEMENTS: Final = 100
MAX_PART: Final = 4096
"""Bytes of the flags, sides or name of an array."""
MAX_SIDES: Final = 32
DTYPES: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC: Final = range(6, 16)
_COMPLEX: Final = 0x0800


class _Reader(Protocol):
    """The content of an element."""

    def read(self, size: int, /) -> bytes:
        """Returns so many bytes, or fewer at the end."""

    @property
    def complete(self) -> bool:
        """Whether at most the padding of the last part is left, and the checksum is right if there is one."""


class _Slice:
    """The content of an element that is not compressed."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    @property
    def complete(self) -> bool:
        return self._left < 8


class _Inflating:
    """The content of a compressed element."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left, self._unpacker = file, size, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        pieces = []
        while size and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail
            if not packed:
                packed = self._file.read(min(self._left, storage.COPY_BYTES))
                self._left -= len(packed)
            piece = self._unpacker.decompress(packed, size)
            if not piece and not packed:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    @property
    def complete(self) -> bool:
        return len(self.read(8)) < 8 and self._unpacker.eof


class _Matrix(NamedTuple):
    """The head of an array: what is before its elements, or with them if they are at most four bytes."""

    name: str
    flags: int
    shape: tuple[int, ...]
    kind: int
    nbytes: int
    data: bytes | None


def unpack_matrices(path: str, index_dir: str, names: Collection[str]) -> dict[str, storage.Blob]:
    """Copies the arrays with some names to `.npy` files in `index_dir`, and returns those that there are.

    The first side of an array in MATLAB is the fastest in memory, so the sides of the copy are reversed: H x W x C x N
    becomes N x C x W x H. An array with a single column, or row, becomes one-dimensional.

    Raises:
        InputError: the file is damaged, in another version of the format, or a decompression bomb; or an array with
            one of the names is not numeric, or occurs twice.
    """
    found: dict[str, storage.Blob] = {}
    with storage.reading(path), storage.open_file(path) as file:
        stamp = storage.stamp(path)
        order = _byte_order(read_exactly(file, HEADER_BYTES, path), path)
        at = HEADER_BYTES
        for _ in range(MAX_ELEMENTS):
            if at >= stamp[0]:
                return found
            file.seek(at)
            kind, nbytes = struct.unpack(f"{order}II", read_exactly(file, 8, path))
            at += 8 + nbytes
            if kind not in (_MATRIX, _COMPRESSED) or at > stamp[0]:
                raise InputError(
                    f"{path}: has an element of type {kind} and {counted(nbytes, 'byte')}; the file is damaged"
                )
            stream = _Inflating(file, nbytes) if kind == _COMPRESSED else _Slice(file, nbytes)
            if kind == _COMPRESSED and _tag(stream, path, order)[0] != _MATRIX:
                raise InputError(f"{path}: a compressed element is not an array; the file is damaged")
            head = _head(stream, path, order)
            if head.name in found:
                raise InputError(f"{path}:{head.name}: occurs twice; expected one array of that name")
            if head.name in names:
                found[head.name] = _unpacked(stream, head, f"{path}:{head.name}", order, nbytes, stamp, index_dir)
    raise InputError(f"{path}: has more than {MAX_ELEMENTS} arrays; not a file of images and labels")


def _byte_order(header: bytes, path: str) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    version = struct.unpack(f"{order}H", header[124:126])[0] if order else 0
    if version != 0x0100:
        later = header.startswith(b"MATLAB 7.3") or header.startswith(b"\x89HDF")
        what = "a MATLAB 7.3 file (HDF5)" if later else "not a MATLAB 5 file"
        raise InputError(f"{path}: is {what}; expected one saved with -v7 or older")
    return order or ""


def _tag(stream: _Reader, path: str, order: str) -> tuple[int, int, bytes | None]:
    """Returns type, bytes, and the data of an element that is small enough to be in its tag."""
    data = _exactly(stream, 8, path)
    kind, nbytes = struct.unpack(f"{order}II", data)
    if kind >> 16:
        return kind & 0xFFFF, min(kind >> 16, 4), data[4 : 4 + min(kind >> 16, 4)]
    return kind, nbytes, None


def _part(stream: _Reader, path: str, order: str) -> bytes:
    """Returns the data of a small part of an array."""
    _, nbytes, data = _tag(stream, path, order)
    if data is not None:
        return data
    if nbytes > MAX_PART:
        raise InputError(
            f"{path}: flags, sides or name of an array have {counted(nbytes, 'byte')}; the file is damaged"
        )
    return _exactly(stream, -(-nbytes // 8) * 8, path)[:nbytes]


def _head(stream: _Reader, path: str, order: str) -> _Matrix:
    """Reads the head of an array; its elements are next."""
    flags, sides, name = (_part(stream, path, order) for _ in range(3))
    if len(flags) < 4 or len(sides) % 4 or len(sides) > 4 * MAX_SIDES:
        raise InputError(
            f"{path}: an array has {counted(len(flags), 'byte')} of flags and {len(sides)} of sides; it is damaged"
        )
    (number,) = struct.unpack(f"{order}I", flags[:4])
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    kind, nbytes, data = _tag(stream, path, order)
    return _Matrix(name.decode("latin-1"), number, shape, kind, nbytes, data)


def _check(head: _Matrix, shown: str, packed_bytes: int) -> None:
    if head.flags & 0xFF not in _NUMERIC or head.flags & _COMPLEX or head.kind not in DTYPES:
        raise InputError(f"{shown}: is not an array of real numbers; expected one")
    if min(head.shape, default=0) < 0:
        raise InputError(f"{shown}: has sides {str(head.shape)[:80]}; the file is damaged")
    expected = math.prod(head.shape) * int(DTYPES[head.kind][1])
    if head.nbytes != expected:
        raise InputError(
            f"{shown}: an array of {DTYPES[head.kind]} and sides {str(head.shape)[:80]} takes {str(expected)[:40]} "
            f"bytes, but the file has {head.nbytes}"
        )
    if head.nbytes > max(RATIO_FREE_BYTES, MAX_RATIO * packed_bytes):
        raise InputError(
            f"{shown}: unpacks to {head.nbytes} bytes, more than {MAX_RATIO} times its packed size; refused as a "
            "decompression bomb"
        )


def _exactly(stream: _Reader, size: int, path: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise InputError(f"{path}: ends within an array; the file is damaged")
    return data


def _unpacked(
    stream: _Reader, head: _Matrix, shown: str, order: str, packed_bytes: int, stamp: storage.Stamp, index_dir: str
) -> storage.Blob:
    """Writes an array to a file once; later calls reuse it."""
    from numpy.lib import format as npy_format

    _check(head, shown, packed_bytes)
    digest = hashlib.sha256(f"{shown}\0{stamp}".encode("utf-8", "surrogateescape")).hexdigest()
    target = os.path.join(index_dir, f"matrix-{digest[:16]}.npy")
    if not storage.exists(target):
        shape = tuple(reversed(head.shape))
        if len(shape) == 2 and 1 in shape:
            shape = (max(shape),) if 0 not in shape else (0,)
        start = io.BytesIO()
        npy_format.write_array_header_1_0(
            start, {"descr": f"{order}{DTYPES[head.kind]}", "fortran_order": False, "shape": shape}
        )
        with storage.StagedFile(target, index_dir) as file:
            file.write(start.getvalue())
            file.write(head.data or b"")
            left = head.nbytes - len(head.data or b"")
            while left:
                chunk = _exactly(stream, min(left, storage.COPY_BYTES), shown)
                file.write(chunk)
                left -= len(chunk)
            if not stream.complete:
                raise InputError(f"{shown}: its element does not end after the array; the file is damaged")
            file.commit()
    return storage.unpacked_file(target, stamp)
