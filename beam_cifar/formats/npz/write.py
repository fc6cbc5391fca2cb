"""NumPy `.npz` sink: one file for each subset, which `numpy.load` opens without pickles.

`images` uint8 `[N, H, W, 3]` comes first and is streamed. Ids are concatenated UTF-8 with offsets, because in a NumPy
text array one long id would pad all the others to its length.
"""

from __future__ import annotations

import io
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.sink import FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import ExportOptions, Shard, SinkOptions
from beam_cifar.formats.kit.array_names import IMAGES
from beam_cifar.formats.kit.npy import SUFFIX, find_array, list_arrays, read_array, read_header
from beam_cifar.formats.kit.records import RECORDS, written_columns
from beam_cifar.formats.npz.read import MAX_NAMES_BYTES
from beam_cifar.images.encodings import RAW
from beam_cifar.naming.components import encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# The earliest date of the zip format: equal rows must give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


class _Zip(zipfile.ZipFile):
    """A zip file completed only by `close`: an abandoned part must not write, or fail, when garbage-collected."""

    def __del__(self) -> None:
        pass


class _NpzWriter(PartWriter):
    """Streams images into the first member of a file; keeps labels and ids in memory until the end."""

    def __post_init__(self) -> None:
        self._labels, self._ids, self._ends = array("q"), bytearray(), array("q", [0])
        self._zip = _Zip(self.file, "w", zipfile.ZIP_STORED)
        self._size = height, width = self.shard.size or (0, 0)
        head = _header("|u1", (self.rows, height, width, 3))
        self._images = self._open(IMAGES, len(head) + self.rows * 3 * height * width)
        self._images.write(head)

    def append(self, table: pa.Table) -> None:
        import numpy as np

        pixels, labels = written_columns(table, self)
        planes = np.frombuffer(pixels, np.uint8).reshape(len(table), 3, *self._size)
        made = np.empty((len(table), *self._size, 3), np.uint8)
        for channel in range(3):  # six times as fast as copying the transposed array
            made[..., channel] = planes[:, channel]
        self._images.write(made.reshape(-1).data)
        self._add_rows(labels.tobytes(), map(str.encode, table.column("id").to_pylist()))

    def add_part(self, path: str) -> None:
        """Appends the rows of a finished part without decoding them."""
        members = list_arrays(path)
        blobs = {name: find_array(path, members[name], "") for name in (IMAGES, "labels", "ids", "ids_offsets")}
        with storage.open_blob(blobs[IMAGES], path) as stream:
            read_header(stream, blobs[IMAGES].size, path)
            while chunk := stream.read(storage.COPY_BYTES):
                self._images.write(chunk)
        labels, ids, ends = (read_array(blobs[name], path, blobs[name].size)[1] for name in list(blobs)[1:])
        offsets = array("q", ends)
        self._add_rows(labels, (ids[offsets[at] : offsets[at + 1]] for at in range(len(offsets) - 1)))

    def close(self) -> None:
        import numpy as np

        self._images.close()
        table = self.options.labels
        self._write("labels", np.frombuffer(self._labels, "<i8"))
        self._write("label_names", _names(table.names))
        if table.has_superclasses:
            self._write("coarse_names", _names(table.coarse_names))
            self._write("parents", np.array([-1 if p is None else p for p in table.parents], "<i8"))
        self._write("ids", np.frombuffer(self._ids, np.uint8))
        self._write("ids_offsets", np.frombuffer(self._ends, "<i8"))
        self._zip.close()

    def _add_rows(self, labels: bytes, ids: Iterable[bytes]) -> None:
        self._labels.frombytes(labels)
        for item_id in ids:
            self._ids += item_id
            self._ends.append(len(self._ids))

    def _open(self, name: str, size: int) -> IO[bytes]:
        """Opens a member of known size, so that only members beyond 2 GiB get ZIP64 fields."""
        info = zipfile.ZipInfo(f"{name}.npy", _DATE)
        info.create_system, info.external_attr, info.file_size = _UNIX, 0o644 << 16, size
        return self._zip.open(info, "w")

    def _write(self, name: str, values: npt.NDArray[Any]) -> None:
        head = _header(values.dtype.str, values.shape)
        with self._open(name, len(head) + values.nbytes) as member:
            member.write(head)
            member.write(values.tobytes())


class NpzSink(FileSink):
    """Writes one `.npz` file for each subset."""

    name = "npz"
    can = replace(RECORDS, pixels=RAW, part_bytes=128 << 20, row_bytes=16)
    subsets = SubsetNaming(word=lambda name: encode_name(name, SUFFIX), suffix=SUFFIX)
    writer = _NpzWriter

    def check(self, options: ExportOptions) -> None:
        """Refuses `--image-ext` too, since there are no image files."""
        if options.image_ext is not None:
            raise UsageError(f"--image-ext {options.image_ext}: {self.name} stores pixels, not files; omit the option")
        super().check(options)

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses names that a NumPy text array would change, or that would make it huge."""
        for names in (labels.names, labels.coarse_names):
            for name in names:
                if name.endswith("\0") or any("\ud800" <= char <= "\udfff" for char in name):
                    raise UsageError(
                        f"class {name[:80]!r} has a trailing NUL or a lone surrogate; rename it with --remap"
                    )
            if max(map(len, names), default=0) * 4 * len(names) > MAX_NAMES_BYTES:
                longest = max(names, key=len)
                raise UsageError(
                    f"class {longest[:40]!r}... has {len(longest)} characters; NumPy pads every name to that length: "
                    "rename it with --remap"
                )

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return encode_name(subset, SUFFIX)

    def join(self, parts: Sequence[str], file: storage.StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Concatenates the parts, which are `.npz` files themselves."""
        writer = _NpzWriter(file, shard, shard.rows, options, self)
        for part in parts:
            writer.add_part(part)
        writer.close()


def _names(names: Sequence[str]) -> npt.NDArray[np.str_]:
    import numpy as np

    return np.array(names, f"<U{max(1, *map(len, names))}" if names else "<U1")


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Returns the header of an array in C order, as NumPy writes it."""
    from numpy.lib import format as npy_format

    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
