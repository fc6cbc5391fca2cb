"""Recognises the layouts in which `data` stores the pixels of a batch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isqrt, prod

from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.data.text import counted
from beam_cifar.pickles.arrays import shown
from beam_cifar.pickles.columns import Columns
from beam_cifar.pickles.rows import PLANAR, BlockImages, FortranImages, Images, RowImages, Size
from beam_cifar.pickles.source import shorten
from beam_cifar.pickles.values import ArrayValue, IntPayload, IntRun, ListValue, Payload, TupleValue, Value

Sizes = Sequence[Size | None] | None


def images_of(columns: Columns, data: Value, sizes: Sizes) -> Images | None:
    """Returns where the pixels are, or None if `data` is empty; `sizes` is `image_sizes`, if the file has it."""
    if _length(columns, data) == 0 and not _keeps_shape(data):
        return None
    if sizes is not None and len(sizes) != _length(columns, data):
        columns.refuse(
            data,
            f"'image_sizes' has {counted(len(sizes), 'entry')}, 'data' has {counted(_length(columns, data), 'row')}",
        )
    if type(data) is ArrayValue and (data.dtype.kind != "O" or len(data.shape) > 1):
        return _block(columns, data, sizes)
    return _rows(columns, data, sizes)


def _keeps_shape(data: Value) -> bool:
    """Returns whether an array without rows has a shape that gives the image size."""
    return type(data) is ArrayValue and str(data.dtype) == "|u1" and len(data.shape) in (2, 4)


def _length(columns: Columns, data: Value) -> int:
    if type(data) is ArrayValue and data.built and data.shape:
        return data.shape[0]
    if type(data) in (ListValue, TupleValue):
        return len(data.items)
    columns.refuse(data, f"'data' is {columns.describe(data)}; expected a uint8 array or a list of uint8 rows")


def _block(columns: Columns, data: ArrayValue, sizes: Sizes) -> Images:
    """Recognises a single array, [N, K], [N, 3, H, W] or [N, H, W, 3], of uint8 or of objects that are small ints."""
    shape = data.shape
    if len(shape) not in (2, 4) or (len(shape) == 4 and 3 not in (shape[1], shape[3])):
        columns.refuse(data, f"'data' has shape {shorten(shape)}; expected N x 3*S*S, N x 3 x H x W or N x H x W x 3")
    if 0 not in (data.axes[0], data.axes[-1]):
        columns.refuse(data, f"'data' has its axes in the order {data.axes} in memory; expected rows first or last")
    inner, memory = _planar(shape[1:], [axis - 1 for axis in data.axes if axis])
    if data.dtype.kind == "O":
        if not data.c_order:
            columns.refuse(data, "'data' is an object array in Fortran order; expected C order")
        payload: Payload = _int_payload(columns, data)
    elif data.payload is not None and data.dtype.kind == "u" and data.dtype.itemsize == 1:
        payload = data.payload
    else:
        columns.refuse(data, f"'data' has dtype {data.dtype}; expected uint8")
    own = _own_size(columns, data, inner)
    for row, stated in enumerate(sizes or ()):
        _check_stated(columns, data, row, inner, stated)
    found: Size | list[Size | None] | None = own if sizes is None else list(sizes)
    if found is None and shape[0]:
        columns.refuse(
            data, f"rows of 'data' have {counted(prod(inner), 'byte')}; expected 3 x S x S, or 'image_sizes'"
        )
    kind = BlockImages if data.axes[0] == 0 else FortranImages
    return kind(columns.name, shape[0], found, payload, inner, memory)


def _planar(inner: tuple[int, ...], memory: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shape of a row as (K,) or (3, H, W), and its axes in memory, from the slowest to the fastest.

    Args:
        inner: its shape as found; (3, H, 3) is planar, as in CIFAR.
        memory: the axes in memory as found.
    """
    if len(inner) == 1 or inner[0] == 3:
        return inner, tuple(memory)
    return (inner[2], *inner[:2]), tuple((axis + 1) % 3 for axis in memory)


def _own_size(columns: Columns, data: Value, inner: tuple[int, ...]) -> Size | None:
    """Returns the image size given by an array's shape; None if it is ambiguous."""
    size = (inner[1], inner[2]) if len(inner) == 3 else _square(inner[0])
    if size is not None and not (size[0] >= 1 and size[1] >= 1 and size[0] * size[1] <= MAX_PIXELS):
        columns.refuse(data, f"'data' has images of {size[0]} x {size[1]}; expected 1 to {MAX_PIXELS} pixels")
    return size


def _square(count: int) -> Size | None:
    side = isqrt(count // 3)
    return (side, side) if side and 3 * side * side == count else None


def _check_stated(columns: Columns, value: Value, row: int, inner: tuple[int, ...], stated: Size | None) -> None:
    """Refuses an entry of `image_sizes` that does not match its row."""
    own = inner[1:] if len(inner) == 3 else None
    if stated is None or 3 * stated[0] * stated[1] != prod(inner) or own not in (None, stated):
        entry = f"{stated[0]} x {stated[1]}" if stated else "None"
        found = f"{counted(inner[0], 'byte')} long" if own is None else "3 x {} x {}".format(*own)
        columns.refuse(value, f"'image_sizes' entry {row} is {entry}, but row {row} of 'data' is {found}")


def _int_payload(columns: Columns, data: ArrayValue) -> IntPayload:
    """Recognises rows of equal length in an object array, pickled as ints: Datumaro writes them that way."""
    starts, offsets, kept = array("q"), array("q"), dict[int, bytes]()
    position, loose = 0, bytearray()
    columns.charge(data, 16 * len(data.items))
    for item in [*data.items, None]:
        if type(item) is int and 0 <= item <= 255:
            loose.append(item)
            continue
        if loose:
            kept[len(starts)] = bytes(loose)
            starts.append(position)
            offsets.append(-1)
            position += len(loose)
            loose.clear()
        if type(item) is IntRun:
            starts.append(position)
            offsets.append(item.offset)
            position += item.count
        elif item is not None or position != prod(data.shape):
            columns.refuse(data, f"element {position} of 'data' is {shown(item)}; expected an int of 0 to 255")
    starts.append(position)
    return IntPayload(starts, offsets, kept)


def _rows(columns: Columns, data: Value, sizes: Sizes) -> Images:
    """Recognises a list or an object array of uint8 rows, [K], [3, H, W] or [H, W, 3], and None."""
    found: list[Size | None] = []
    payloads: list[Payload | None] = []
    orders: dict[int, tuple[int, ...]] = {}
    items = columns.items(data, "data")
    columns.charge(data, 160 * len(items))
    for row, item in enumerate(items):
        if item is None:
            found.append(None)
            payloads.append(None)
            continue
        found.append(_row_size(columns, item, row, sizes[row] if sizes is not None else None))
        payloads.append(item.payload)
        memory = _planar(item.shape, item.axes)[1]
        if memory not in ((0,), PLANAR):
            columns.charge(data, 160)
            orders[row] = memory
    return RowImages(columns.name, found, payloads, orders)


def _row_size(columns: Columns, item: Value, row: int, stated: Size | None) -> Size:
    plain = type(item) is ArrayValue and item.built and item.dtype.kind == "u" and item.dtype.itemsize == 1
    if not plain or not (len(item.shape) == 1 or (len(item.shape) == 3 and 3 in (item.shape[0], item.shape[2]))):
        expected = "uint8 of 3*H*W, 3 x H x W or H x W x 3"
        columns.refuse(item, f"row {row} of 'data' is {columns.describe(item)}; expected {expected}")
    inner, _ = _planar(item.shape, item.axes)
    if stated is not None:
        _check_stated(columns, item, row, inner, stated)
        return stated
    size = _own_size(columns, item, inner)
    if size is None:
        columns.refuse(
            item, f"row {row} of 'data' has {counted(item.shape[0], 'byte')}; expected 3 x S x S, or 'image_sizes'"
        )
    return size
