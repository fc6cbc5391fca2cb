"""Writes batch and meta files in the style that torchvision, Keras and Datumaro can all read: Python 2's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from beam_cifar.pickles.emit import ListBuffer, Opcodes, after_item, before_item, get, integer, put, string_head
from beam_cifar.pickles.emit import text as encoded_text
from beam_cifar.pickles.recognise import Meta
from beam_cifar.pickles.rows import Size

Pixels = bytes | bytearray | memoryview

STANDARD: Size = (32, 32)
_LABEL_KEYS = {"cifar10": ("labels",), "cifar100": ("fine_labels", "coarse_labels")}
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
# If all images have the same size, `data` is a uint8 array: the object arrays that Datumaro writes take twice the size,
# and neither torchvision nor Keras can read them.
_DTYPE_STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK%ctb"


class Writer(Protocol):
    """Anything with `write`."""

    def write(self, data: Any, /) -> object:
        """Writes the next bytes."""


def write_meta(file: Writer, meta: Meta) -> None:
    """Writes a meta file; for the original names it is byte for byte the original file."""
    fields: dict[str, int | Sequence[str]] = {}
    if meta.kind == "cifar10":
        if meta.num_cases_per_batch is not None:
            fields["num_cases_per_batch"] = meta.num_cases_per_batch
        fields["label_names"] = meta.label_names
        if meta.num_vis is not None:
            fields["num_vis"] = meta.num_vis
    else:
        fields["fine_label_names"] = meta.label_names
        fields["coarse_label_names"] = meta.coarse_label_names
    ops = Opcodes()
    file.write(b"\x80\x02}" + ops.put() + (b"(" if len(fields) > 1 else b""))
    for key, value in fields.items():
        file.write(ops.text(key))
        file.write(integer(value) if isinstance(value, int) else _list(ops, map(ops.text, value), len(value)))
    file.write(b"u." if len(fields) > 1 else b"s.")


def _list(ops: Opcodes, items: Iterable[bytes], count: int) -> bytes:
    """Returns a list of `count` encoded items."""
    # The list's own PUT comes before those of its items, which are numbered as the iterable is consumed.
    head, buffer = b"]" + ops.put(), ListBuffer(count)
    buffer.extend(items)
    return head + buffer.data


def _array_head(ops: Opcodes) -> bytes:
    """Returns an array without a state; memo entries `memo - 2` and `memo - 1` are the two globals."""
    globals_ = _RECONSTRUCT + ops.put() + b"cnumpy\nndarray\n" + ops.put()
    return globals_ + b"K\x00\x85U\x01b\x87R" + ops.put()


def _dtype(ops: Opcodes, name: bytes, flags: int) -> bytes:
    call = b"U%c%bK\x00K\x01\x87R" % (len(name), name)
    return b"cnumpy\ndtype\n" + ops.put() + call + ops.put() + _DTYPE_STATE % flags


def _uniform_head(ops: Opcodes, rows: int, row_bytes: int) -> bytes:
    """Returns a uint8 array [rows, row_bytes] up to its payload, which must be followed by `tb`."""
    head = string_head(rows * row_bytes)
    shape = b"(K\x01" + integer(rows) + integer(row_bytes) + b"\x86"
    return _array_head(ops) + shape + _dtype(ops, b"u1", 0) + b"\x89" + head


def _row_bytes(size: Size) -> int:
    if min(size) < 1:
        raise ValueError(f"image size is {size[0]} x {size[1]}; expected at least 1 x 1")
    return 3 * size[0] * size[1]


def write_batch(
    file: Writer,
    *,
    kind: str,
    batch_label: str,
    labels: Sequence[int | None],
    coarse_labels: Sequence[int | None] | None,
    filenames: Sequence[str],
    pixels: Iterable[Pixels],
    rows: int,
    size: Size = STANDARD,
) -> None:
    """Writes a batch of images of one size, with the keys in the order of the original files.

    Args:
        file: where the bytes are written, in order.
        kind: 'cifar10' or 'cifar100'.
        batch_label: such as 'training batch 1 of 5'.
        labels: one per row.
        coarse_labels: one per row for 'cifar100', else None.
        filenames: one per row.
        pixels: uint8 [3, H, W] of all rows, in chunks of any length.
        rows: number of rows.
        size: (H, W) of every image.

    Raises:
        ValueError: the columns have different lengths, or the payload is too long for the format.
    """
    columns = dict(zip(_label_keys(kind), _label_columns(kind, labels, coarse_labels), strict=True))
    for key, column in {**columns, "filenames": filenames}.items():
        if len(column) != rows:
            raise ValueError(f"'{key}' has {len(column)} entries for {rows} rows")
    order = ["batch_label", *columns, "data", "filenames"]
    if kind == "cifar100":
        order = ["filenames", "batch_label", *columns, "data"]
    ops = Opcodes()
    file.write(b"\x80\x02}" + ops.put() + b"(")
    for key in order:
        file.write(ops.text(key))
        if key == "data":
            file.write(_uniform_head(ops, rows, _row_bytes(size)))
            _copy_pixels(file, pixels, rows * _row_bytes(size))
            file.write(b"tb")
        elif key == "filenames":
            file.write(_list(ops, map(ops.text, filenames), rows))
        elif key == "batch_label":
            file.write(ops.text(batch_label))
        else:
            file.write(_list(ops, map(integer, columns[key]), rows))
    if size != STANDARD and rows:
        file.write(ops.text("image_sizes"))
        file.write(_list(ops, (_pair(size) + ops.put() for _ in range(rows)), rows))
    file.write(b"u.")


def _label_keys(kind: str) -> tuple[str, ...]:
    if kind not in _LABEL_KEYS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {sorted(_LABEL_KEYS)}")
    return _LABEL_KEYS[kind]


def _label_columns(
    kind: str, labels: Sequence[int | None], coarse_labels: Sequence[int | None] | None
) -> list[Sequence[int | None]]:
    columns = [labels] if coarse_labels is None else [labels, coarse_labels]
    if len(columns) != len(_LABEL_KEYS[kind]):
        raise ValueError("'coarse_labels' must be given for cifar100, and only for it")
    return columns


def _copy_pixels(file: Writer, pixels: Iterable[Pixels], expected: int) -> None:
    found = 0
    for part in pixels:
        file.write(part)
        found += memoryview(part).nbytes
    if found != expected:
        raise ValueError(f"found {found} bytes of pixels; expected {expected}")


def _pair(size: Size) -> bytes:
    return integer(size[0]) + integer(size[1]) + b"\x86"


class BatchWriter:
    """Writes a batch incrementally, a run of rows at a time.

    Pixels go straight to the file, so `data` is the first key; labels and names are kept as opcodes until `close`.

    Args:
        file: where the bytes are written, in order.
        rows: total number of rows.
        kind: 'cifar10' or 'cifar100'.
        batch_label: such as 'training batch 1 of 5'.
        size: (H, W) if every row has an image of that size; None for an object array, whose rows may lack images or
            differ in size.
        images: False for a file without pixels; `data` is then an empty array, because Datumaro takes its length.

    Raises:
        ValueError: an unknown kind, or a payload too long for the format.
    """

    def __init__(
        self, file: Writer, *, rows: int, kind: str, batch_label: str, size: Size | None = STANDARD, images: bool = True
    ) -> None:
        keys = _label_keys(kind)
        self._file, self._kind, self._rows, self._size, self._images = file, kind, rows, size, images
        self._added = 0
        self._odd_size = images and size is not None and size != STANDARD
        self._reuse = b""
        ops = Opcodes()
        file.write(b"\x80\x02}" + ops.put() + b"(" + ops.text("data"))
        file.write(self._data_head(ops))
        self._row_memo = ops.memo + 1
        if images and size is None:
            ops.memo += rows
        self._plan_columns(ops, keys, batch_label)

    def _data_head(self, ops: Opcodes) -> bytes:
        if not self._images:
            return _uniform_head(ops, 0, _row_bytes(STANDARD))
        if self._size is not None:
            return _uniform_head(ops, self._rows, _row_bytes(self._size))
        head = _array_head(ops)
        reconstruct, ndarray = ops.memo - 2, ops.memo - 1
        shape = b"(K\x01" + integer(self._rows) + b"\x85"
        head += shape + _dtype(ops, b"O8", 63) + b"\x89]" + ops.put()
        # Rows refer to the globals through the memo; only the first row has the uint8 dtype in full.
        self._reuse = get(reconstruct) + get(ndarray) + b"K\x00\x85U\x01b\x87R"
        dtype_class = ops.memo - 2
        self._first_dtype = get(dtype_class) + b"U\x02u1K\x00K\x01\x87R" + ops.put() + _DTYPE_STATE % 0
        self._dtype_memo = ops.memo
        return head

    def _plan_columns(self, ops: Opcodes, keys: Sequence[str], batch_label: str) -> None:
        """Assigns memo entries to everything after the pixels, in file order."""
        self._heads: list[bytes] = [ops.text("batch_label") + ops.text(batch_label)]
        self._labels = [ListBuffer(self._rows) for _ in keys]
        self._heads += [ops.text(key) + b"]" + ops.put() for key in keys]
        self._heads.append(ops.text("filenames") + b"]" + ops.put())
        self._names = ListBuffer(self._rows)
        self._name_memo = ops.memo + 1
        ops.memo += self._rows
        self._heads.append(ops.text("image_sizes") + b"]" + ops.put())
        self._sizes = ListBuffer(self._rows)
        self._size_memo = ops.memo + 1

    def append(
        self,
        pixels: Pixels | Sequence[Pixels | None] | None,
        labels: Sequence[int | None],
        coarse_labels: Sequence[int | None] | None,
        filenames: Sequence[str],
        sizes: Sequence[Size | None] | None = None,
    ) -> None:
        """Adds rows.

        Args:
            pixels: uint8 [3, H, W] of the rows, concatenated or one each; None for a row without an image.
            labels: as in `write_batch`.
            coarse_labels: as in `write_batch`.
            filenames: as in `write_batch`.
            sizes: (H, W) per row, None for a row without an image; needed only if the writer's `size` is None.

        Raises:
            ValueError: the arguments do not match each other, or those of the writer.
        """
        columns = _label_columns(self._kind, labels, coarse_labels)
        count = len(filenames)
        if any(len(column) != count for column in columns):
            raise ValueError(f"found {[len(column) for column in columns]} labels for {count} filenames")
        if self._added + count > self._rows:
            raise ValueError(f"found {self._added + count} rows; expected {self._rows}")
        self._append_pixels(pixels, count, sizes)
        for buffer, column in zip(self._labels, columns, strict=True):
            buffer.extend(map(integer, column))
        numbered = enumerate(filenames, self._name_memo + self._added)
        self._names.extend(encoded_text(name) + put(number) for number, name in numbered)
        self._added += count

    def _append_pixels(
        self, pixels: Pixels | Sequence[Pixels | None] | None, count: int, sizes: Sequence[Size | None] | None
    ) -> None:
        if not self._images:
            if pixels is not None and any(part is not None for part in pixels):
                raise ValueError("found pixels; expected none in a batch without images")
        elif self._size is not None:
            parts = [pixels] if isinstance(pixels, Pixels) else pixels or []
            if any(part is None for part in parts):
                raise ValueError("found a row without an image in a batch of images of one size")
            _copy_pixels(self._file, parts, count * _row_bytes(self._size))  # type: ignore[arg-type]
            if self._odd_size:
                self._add_sizes([self._size] * count)
        else:
            self._append_rows(pixels, count, sizes)

    def _append_rows(
        self, pixels: Pixels | Sequence[Pixels | None] | None, count: int, sizes: Sequence[Size | None] | None
    ) -> None:
        if sizes is None or len(sizes) != count:
            raise ValueError(f"found {'no' if sizes is None else len(sizes)} sizes for {count} rows")
        rows = _split(pixels, sizes)
        if len(rows) != count:
            raise ValueError(f"found {len(rows)} images for {count} rows")
        for number, (row, size) in enumerate(zip(rows, sizes, strict=True), self._added):
            self._file.write(before_item(number, self._rows))
            self._append_row(row, size, self._row_memo + number)
            self._file.write(after_item(number, self._rows))
        self._odd_size = self._odd_size or any(size not in (None, STANDARD) for size in sizes)
        self._add_sizes([size or STANDARD for size in sizes])

    def _append_row(self, row: Pixels | None, size: Size | None, memo: int) -> None:
        if row is None or size is None:
            if row is not None or size is not None:
                raise ValueError("found a row with an image but no size, or with a size but no image")
            self._file.write(b"N")
            return
        length = _row_bytes(size)
        dtype = self._first_dtype or get(self._dtype_memo)
        self._first_dtype = b""
        shape = b"(K\x01" + integer(length) + b"\x85"
        self._file.write(self._reuse + put(memo) + shape + dtype + b"\x89" + string_head(length))
        _copy_pixels(self._file, [row], length)
        self._file.write(b"tb")

    def _add_sizes(self, sizes: Sequence[Size]) -> None:
        numbered = enumerate(sizes, self._size_memo + self._sizes.added)
        self._sizes.extend(_pair(size) + put(number) for number, size in numbered)

    def close(self) -> None:
        """Writes labels and names. Raises `ValueError` if rows are missing."""
        if self._added != self._rows:
            raise ValueError(f"found {self._added} rows; expected {self._rows}")
        self._file.write(b"tb")
        bodies = [bytearray(), *(buffer.data for buffer in self._labels), self._names.data]
        if self._odd_size and self._rows:
            bodies.append(self._sizes.data)
        for head, body in zip(self._heads, bodies, strict=False):
            self._file.write(head)
            self._file.write(body)
        self._file.write(b"u.")


def _split(pixels: Pixels | Sequence[Pixels | None] | None, sizes: Sequence[Size | None]) -> Sequence[Pixels | None]:
    """Returns the pixels of each row."""
    if pixels is None:
        return [None] * len(sizes)
    if not isinstance(pixels, Pixels):
        return pixels
    view = memoryview(pixels).cast("B")
    parts: list[Pixels | None] = []
    position = 0
    for size in sizes:
        length = _row_bytes(size) if size else 0
        parts.append(view[position : position + length] if size else None)
        position += length
    if position != len(view):
        raise ValueError(f"found {len(view)} bytes of pixels; expected {position}")
    return parts
