"""Finds arrays in `.npz` files without reading them: from the zip's members and the header of each `.npy`.

Data is never unpickled, and memory is allocated only after its size is checked against the file's. The `.npy` layout is
documented in `numpy.lib.format`, the local header of a zip member in section 4.3.7 of PKWARE's APPNOTE.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.kit.records import read_runs
from beam_cifar.storage.archives import MAX_RATIO, RATIO_FREE_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIX = ".npz"
# A zip's directory is read whole; one of this size lists some ten thousand members.
MAX_DIRECTORY = 1 << 20
MAX_HEADER = 10_000
MAX_DIMENSIONS = 64
FREE_ROWS = 1_000_000
MAX_CLASSES = 100_000
"""Maximum number of classes without names."""
MAX_TABLE = 64 << 20
"""Bytes of a table of labels that is examined: it is read, or refused with the reason."""
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 1


@dataclass(frozen=True)
class Npy:
    """The header of an array.

    Attributes:
        shown: display name used in messages.
        dtype: dtype of its elements.
        shape: shape of the array.
        fortran: whether it is in Fortran order.
        start: offset of its elements in the member.
    """

    shown: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Size of its elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def refuse(self, expected: str) -> NoReturn:
        """Raises `InputError` with the dtype and shape found."""
        raise InputError(f"{self.shown}: has {self}; expected {expected}")

    def __str__(self) -> str:
        return f"dtype {str(self.dtype)[:80]} and shape {str(self.shape)[:80]}"


@dataclass(frozen=True)
class ZippedArray:
    """One array of an `.npz` file.

    Attributes:
        name: its name without `.npy`.
        info: its entry in the zip directory.
        header: its header; None if that cannot be read, which is only an error where the array is needed.
    """

    name: str
    info: zipfile.ZipInfo
    header: Npy | None


def list_arrays(path: str) -> dict[str, ZippedArray]:
    """Returns the arrays of an `.npz` file, by name. Raises `InputError` for a damaged one."""
    found: dict[str, ZippedArray] = {}
    with _opened(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                continue
            if not name.isprintable():
                raise InputError(f"{path}: array name {name[:80]!r} has unprintable characters")
            if name in found:
                raise InputError(f"{path}: contains {info.filename!r} twice")
            found[name] = ZippedArray(name, info, _member_header(archive, info, path))
    return found


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> Npy | None:
    """Returns the header of an array, None if it cannot be read. Raises as `zipfile` if its place is wrong."""
    if info.flag_bits & _ENCRYPTED:
        return None
    with archive.open(info) as stream:  # raises if the name in the local header differs
        try:
            return read_header(cast(BinaryIO, stream), info.file_size, f"{path}:{info.filename}")
        except (InputError, zipfile.BadZipFile, zlib.error, EOFError):
            return None


def find_array(path: str, member: ZippedArray, index_dir: str, *, checked: bool = True) -> storage.Blob:
    """Returns the location of an array as `.npy`: in the zip itself, or unpacked to `index_dir` if compressed.

    Args:
        path: the `.npz` file.
        member: the array.
        index_dir: directory for unpacked arrays, whose checksum is always verified.
        checked: whether to verify the checksum of uncompressed arrays, which reads all of them.

    Raises:
        InputError: it is damaged, encrypted, or a decompression bomb.
    """
    info, stamp = member.info, _stamp(path)
    shown = f"{path}:{info.filename}"
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{shown}: is encrypted, or compressed in a way that numpy.savez_compressed does not use")
    start = _data_start(path, info, shown)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return _unpacked(path, info, shown, stamp, index_dir)
    if info.file_size != info.compress_size or start + info.file_size > stamp[0]:
        raise InputError(f"{shown}: {info.file_size} bytes at byte {start} extend past the file's end at {stamp[0]}")
    blob = storage.Blob(path, start, info.file_size, stamp)
    if checked:
        _check(blob, info.CRC, shown)
    return blob


def _check(blob: storage.Blob, checksum: int, shown: str) -> None:
    found = 0
    with storage.open_blob(blob, shown) as stream:
        while chunk := stream.read(storage.COPY_BYTES):
            found = zlib.crc32(chunk, found)
    if found != checksum:
        raise InputError(f"{shown}: does not match its checksum; the file is damaged")


def read_header(stream: BinaryIO, size: int, shown: str) -> Npy:
    """Returns the header of an array.

    Args:
        stream: the `.npy`.
        size: its size in bytes.
        shown: display name used in messages.

    Raises:
        InputError: it is damaged, contains Python objects, or does not match its declared size.
    """
    from numpy.lib import format as npy_format

    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    stream.seek(0)
    head = io.BytesIO(stream.read(MAX_HEADER))  # bounded: numpy reads as many bytes as the file declares
    try:
        version = npy_format.read_magic(head)
        shape, fortran, dtype = readers[version](head, max_header_size=MAX_HEADER)
    except KeyError:
        raise InputError(
            f"{shown}: is not a valid .npy array: format version {version}; expected (1, 0) or (2, 0)"
        ) from None
    # numpy evaluates a literal, with a fallback for Python 2 syntax: about ten kinds of errors, some with addresses.
    except Exception as error:
        raise InputError(f"{shown}: is not a valid .npy array: its header cannot be parsed; create it again") from error
    if len(shape) > MAX_DIMENSIONS or not all(0 <= side < 1 << 63 for side in shape):
        raise InputError(
            f"{shown}: is not a valid .npy array: shape has {len(shape)} dimensions; expected at most "
            f"{MAX_DIMENSIONS}, each from 0 to 2^63"
        )
    found = Npy(shown, dtype, tuple(map(int, shape)), bool(fortran), head.tell())
    stream.seek(found.start)
    if dtype.hasobject or dtype.names is not None:
        found.refuse("plain numbers or text: Python objects would need unpickling, which this reader never does")
    if found.start + found.nbytes != size:
        raise InputError(
            f"{shown}: an array of {found} takes {str(found.nbytes)[:40]} bytes, but the file has {size - found.start}"
        )
    return found


def blob_header(blob: storage.Blob, shown: str) -> Npy:
    """Returns the header of an array. Raises `InputError` as `read_header`."""
    with storage.open_blob(blob, shown) as stream:
        return read_header(stream, blob.size, shown)


def image_shape(header: Npy) -> tuple[tuple[int, int], int] | None:
    """Returns (height, width) and channels of N images, None if an array does not have their shape."""
    shape = header.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        return None
    return (shape[1], shape[2]), shape[3] if len(shape) == 4 else 1


def image_window(header: Npy, shown: str) -> Window:
    """Returns a window on an array of images.

    Args:
        header: its header.
        shown: display name of the file, used in messages.

    Raises:
        InputError: it is another kind of array; the error says how to convert it.
    """
    found = image_shape(header)
    if header.dtype.name != "uint8" or found is None:
        floats = " (convert floats from 0 to 1 with (255 * x).round().astype('uint8'))"
        kinds = "uint8 N x H x W x 3, N x H x W x 1 or N x H x W"
        header.refuse(kinds + (floats if header.dtype.kind == "f" else ""))
    if header.fortran:
        header.refuse("C order (convert it with numpy.ascontiguousarray)")
    size, channels = found
    if header.shape[0] and not (min(size) and size[0] * size[1] <= MAX_PIXELS):
        header.refuse(f"images of 1 to {MAX_PIXELS} pixels")
    return Window(shown, header.start, size, channels)


def read_array(blob: storage.Blob, shown: str, limit: int, expected: str = "") -> tuple[Npy, bytes]:
    """Returns the header and the elements of a small array.

    Args:
        blob: the `.npy`.
        shown: display name used in messages.
        limit: maximum bytes of its elements.
        expected: expectation stated in errors about a larger array.

    Raises:
        InputError: it is damaged, or too large.
    """
    with storage.open_blob(blob, shown) as stream:
        header = read_header(stream, blob.size, shown)
        if header.nbytes > limit:
            header.refuse(expected or f"at most {limit} bytes")
        data = stream.read(header.nbytes)
    if len(data) != header.nbytes:
        raise InputError(f"{shown}: ends at byte {len(data)} of {header.nbytes}; the file is damaged")
    return header, data


def read_labels(blob: storage.Blob, shown: str, rows: int) -> array[int]:
    """Returns the integers of an array with one per row, `[N]` or `[N, 1]`.

    Args:
        blob: the `.npy`.
        shown: display name used in messages.
        rows: number of rows.

    Raises:
        InputError: it is damaged, or another kind of array; for `[N, K]` the error says what its rows are.
    """
    header = blob_header(blob, shown)
    expected = f"one integer for each of {counted(rows, 'image')}"
    if len(header.shape) == 2 and header.shape[0] == rows and header.shape[1] > 1:
        header.refuse(expected + _advice(blob, header))
    header, data = read_array(blob, shown, 8 * rows, expected)
    if header.shape not in ((rows,), (rows, 1)):
        header.refuse(expected)
    return integers(header, data)


def flags_table(blob: storage.Blob, header: Npy) -> npt.NDArray[np.bool_] | None:
    """Returns a table of 0 and 1, bool `[N, K]`; None if it is too large, or has anything else. Raises `InputError`."""
    import numpy as np

    if header.dtype.kind not in "biuf" or header.nbytes > MAX_TABLE:
        return None
    _, data = read_array(blob, header.shown, MAX_TABLE)
    values = np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
    ones: npt.NDArray[np.bool_] = values == 1
    return ones if (ones | (values == 0)).all() else None


def _advice(blob: storage.Blob, header: Npy) -> str:
    """Returns how to make one label of each row of a table: only for one-hot rows, `argmax` is right."""
    table = flags_table(blob, header)
    if table is None:
        return ""
    ones = table.sum(axis=1)
    if (ones == 1).all():
        return " (convert one-hot rows with numpy.argmax)"
    row = int((ones != 1).argmax())
    return (
        f"; row {row} has {ones[row]} of {header.shape[1]} classes, so these are several labels per image, of which "
        "only one is supported (save a single column, such as labels[:, 0], for one class against the rest)"
    )


def integers(header: Npy, data: bytes) -> array[int]:
    """Returns the elements of an integer array, flattened. Raises `InputError` for other arrays, or above 63 bits."""
    import numpy as np

    if header.dtype.kind not in "iu":
        header.refuse("integers")
    values = np.frombuffer(data, header.dtype)
    if header.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        header.refuse("integers of at most 63 bits")
    found = array("q")
    found.frombytes(values.astype(np.int64).tobytes())
    return found


def number_table(counts: Mapping[str, int]) -> LabelTable:
    """Returns a label table with numbers for names.

    Args:
        counts: display name of each file -> number of classes according to its labels.

    Raises:
        InputError: there are more than `MAX_CLASSES`.
    """
    where = max(counts, key=lambda shown: counts[shown])
    if counts[where] > MAX_CLASSES:
        raise InputError(f"{where}: has label {counts[where] - 1}; at most {MAX_CLASSES} classes are supported")
    return LabelTable(tuple(map(str, range(counts[where]))))


def texts(header: Npy, data: bytes) -> list[str]:
    """Returns the elements of a text array. Raises `InputError` for other arrays, or invalid Unicode."""
    width = header.dtype.itemsize
    if header.dtype.kind not in "SU" or len(header.shape) != 1 or not width:
        header.refuse("a one-dimensional array of text")
    coding = "utf-8" if header.dtype.kind == "S" else "utf-32-be" if header.dtype.byteorder == ">" else "utf-32-le"
    cells = (data[start : start + width] for start in range(0, len(data), width))
    try:
        return [(cell.rstrip(b"\0") if coding == "utf-8" else cell).decode(coding).rstrip("\0") for cell in cells]
    except UnicodeDecodeError as error:
        raise InputError(f"{header.shown}: contains text that is not valid Unicode") from error


def refuse_many_rows(rows: int, size: int, shown: str) -> None:
    """Refuses more rows than bytes: images may compress to next to nothing, but each row still costs memory.

    Args:
        rows: number of rows.
        size: compressed size of the file in bytes.
        shown: display name used in messages.

    Raises:
        InputError: there are more than `FREE_ROWS` rows, and more rows than bytes.
    """
    if rows > max(FREE_ROWS, size):
        raise InputError(f"{shown}: declares {rows} rows in {size} bytes; refused as a decompression bomb")


def refuse_unknown(path: str, names: Mapping[str, ZippedArray], expected: str) -> NoReturn:
    """Raises `InputError` for a file without the arrays that a format needs."""
    shown = ", ".join(sorted(names)[:8]) or "none"
    raise InputError(f"{path}: arrays found: {shown[:200]}; expected {expected}")


def _stamp(path: str) -> storage.Stamp:
    with storage.reading(path):
        return storage.stamp(path)


class _BoundedFile:
    """A file that refuses large reads: `zipfile` reads a whole zip directory into memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, self._size - self._file.tell())
        if size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"the zip directory is {size} bytes; at most {MAX_DIRECTORY} are supported")
        return self._file.read(size)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip, turning the many errors of a damaged one into a one-line `InputError`."""
    try:
        with storage.reading(path), storage.open_file(path) as file:
            bounded: Any = _BoundedFile(file, storage.stamp(path)[0])
            with zipfile.ZipFile(bounded) as archive:
                yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, struct.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: is damaged, or not an .npz file: {reason}") from error


def _data_start(path: str, info: zipfile.ZipInfo, shown: str) -> int:
    """Returns where a member's bytes start; the local header has its own lengths of name and extra field."""
    with storage.reading(path), storage.open_file(path) as file:
        file.seek(max(0, info.header_offset))
        head = file.read(_LOCAL_HEADER.size)
    if info.header_offset < 0 or len(head) < _LOCAL_HEADER.size:
        raise InputError(f"{shown}: the zip has no member at byte {info.header_offset}")
    magic, _, _, method, *_, name, extra = _LOCAL_HEADER.unpack(head)
    if magic != b"PK\x03\x04" or method != info.compress_type:
        raise InputError(f"{shown}: the zip directory does not match the member at byte {info.header_offset}")
    return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _unpacked(path: str, info: zipfile.ZipInfo, shown: str, stamp: storage.Stamp, index_dir: str) -> storage.Blob:
    """Unpacks a member once; later calls reuse the file."""
    if info.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * info.compress_size):
        raise InputError(
            f"{shown}: unpacks to {info.file_size} bytes, more than {MAX_RATIO} times its packed size; refused as a "
            "decompression bomb"
        )
    known = f"{path}\0{stamp}\0{info.filename}\0{info.header_offset}"
    digest = hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()
    target = os.path.join(index_dir, f"array-{digest[:16]}.npy")
    if not storage.exists(target):
        with storage.StagedFile(target, index_dir) as file:
            with _opened(path) as archive:
                _copy(archive, info, file, shown)
            file.commit()
    return storage.unpacked_file(target, stamp)


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: storage.StagedFile, shown: str) -> None:
    """Streams a member; `zipfile` returns at most the size that was checked, and verifies the CRC."""
    with archive.open(info) as stream:
        while chunk := stream.read(storage.COPY_BYTES):
            file.write(chunk)
    if file.bytes_written != info.file_size:
        raise InputError(f"{shown}: unpacks to {counted(file.bytes_written, 'byte')}; expected {info.file_size:,}")


@dataclass(frozen=True)
class Window:
    """Consecutive images in a file: uint8 `[N, H, W, C]`, or `[N, C, H, W]` where they are planar.

    MATLAB, and programs made with it, store the columns of a plane one after the other: `[N, C, W, H]`.

    Attributes:
        shown: display name of the file, used in messages.
        start: offset of the first image.
        size: (height, width) of each image.
        channels: channels of each image.
        planar: whether each channel is stored as a plane.
        columns: whether planes are stored by columns.
    """

    shown: str
    start: int
    size: tuple[int, int]
    channels: int
    planar: bool = False
    columns: bool = False

    def read(self, stream: BinaryIO, runs: Runs) -> npt.NDArray[np.uint8]:
        """Returns the images of some runs of rows, planar and concatenated: uint8 `[bytes]`."""
        import numpy as np

        row_bytes = self.channels * self.size[0] * self.size[1]
        data = read_runs(stream, self.shown, runs, lambda row: row * row_bytes, self.start)
        found = np.frombuffer(data, np.uint8)
        if self.columns and row_bytes:
            planes = found.reshape(-1, *self.size[::-1])
            return np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1)
        if self.planar or self.channels == 1 or not row_bytes:
            return found
        pixels = found.reshape(len(found) // row_bytes, *self.size, self.channels)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(-1)
