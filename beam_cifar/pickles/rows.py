"""Locates a batch's pixels in the file and reads any range of rows, each planar, uint8 [3, H, W]."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import BinaryIO

from beam_cifar.pickles.payload import PayloadReader, spans_of
from beam_cifar.pickles.source import read_exact
from beam_cifar.pickles.values import Payload, Span

Size = tuple[int, int]
PLANAR = (0, 1, 2)
"""Axes of a row (channel, y, x) from the slowest in memory to the fastest, where they are in C order."""


class Images:
    """The pixels of a batch, as offsets in the file rather than data.

    Attributes:
        name: display name of the file, used in messages.
        rows: number of rows, with and without an image.
        size: (height, width) if all images have the same size, else None.
        present: number of rows with an image.
        nbytes: decoded bytes of all images.
    """

    __slots__ = ("_sizes", "name", "nbytes", "present", "rows", "size")

    def __init__(self, name: str, rows: int, sizes: Size | list[Size | None] | None) -> None:
        """Creates it from one size for all rows, or one per row."""
        self.name = name
        self.rows = rows
        self._sizes: list[Size | None] | None = None
        self.size: Size | None = None
        self.present = rows
        if isinstance(sizes, tuple):
            self.size, self.nbytes = sizes, rows * 3 * sizes[0] * sizes[1]
        else:
            self._set_sizes(sizes or [])

    def _set_sizes(self, sizes: list[Size | None]) -> None:
        kinds = set(sizes)
        found = kinds - {None}
        self.nbytes = sum(3 * size[0] * size[1] for size in sizes if size)
        self.present = len(sizes) - sizes.count(None)
        self.size = found.pop() if len(found) == 1 else None
        if len(kinds) > 1 or None in kinds:
            shared = {size: size for size in kinds}  # saves memory: one tuple per size, not per row
            self._sizes = [shared[size] for size in sizes]

    @property
    def missing(self) -> int:
        """Number of rows without an image."""
        return self.rows - self.present

    def sizes(self, start: int, stop: int) -> Sequence[Size | None]:
        """Returns (height, width) of the rows `start` to `stop`, None for a row without an image."""
        self._check(start, stop)
        if self._sizes is None:
            return [self.size] * (stop - start)
        return self._sizes[start:stop]

    def read(self, file: BinaryIO, start: int, stop: int) -> tuple[bytes, Sequence[int | None] | None]:
        """Reads the pixels of the rows `start` to `stop`.

        Returns:
            The rows one after the other, each uint8 [3, H, W]; and their lengths in bytes, None for a row without an
            image. Instead of the lengths, None if every row has an image of `size`.

        Raises:
            PickleError: the file changed after it was scanned.
        """
        return self.gather(file, [(start, stop)])

    def gather(self, file: BinaryIO, runs: Sequence[tuple[int, int]]) -> tuple[bytes, Sequence[int | None] | None]:
        """Reads the pixels of several runs of rows, each (start, stop), in ascending order; returns as `read` does."""
        for start, stop in runs:
            self._check(start, stop)
        filled = [run for run in runs if run[0] < run[1]]
        data = self._gather(file, filled) if filled else b""
        if self.size is not None and not self.missing:
            return data, None
        sizes = [size for start, stop in runs for size in self.sizes(start, stop)]
        return data, [3 * size[0] * size[1] if size else None for size in sizes]

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yields (start, stop) of each range of the file that contains pixels, in no particular order."""
        raise NotImplementedError

    def _gather(self, file: BinaryIO, runs: Sequence[tuple[int, int]]) -> bytes:
        raise NotImplementedError

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"rows {start} to {stop} are out of range; the batch has {self.rows} rows")


class BlockImages(Images):
    """One array [N, ...] whose rows follow one another.

    `inner` is the shape of a row, (K,) or (3, H, W), `memory` its axes from the slowest in memory to the fastest.
    """

    __slots__ = ("_inner", "_memory", "_payload", "_row_bytes")

    def __init__(
        self,
        name: str,
        rows: int,
        sizes: Size | list[Size | None] | None,
        payload: Payload,
        inner: tuple[int, ...],
        memory: tuple[int, ...],
    ) -> None:
        super().__init__(name, rows, sizes)
        self._payload, self._inner, self._memory, self._row_bytes = payload, inner, memory, prod(inner)

    def _gather(self, file: BinaryIO, runs: Sequence[tuple[int, int]]) -> bytes:
        # One reader for all runs: they are ascending, so an encoded payload is decoded only once.
        reader, width = PayloadReader(file, self.name, self._payload), self._row_bytes
        data = b"".join(reader.read(start * width, stop * width) for start, stop in runs)
        return data if self._memory in ((0,), PLANAR) else _planes(data, self._inner, self._memory)

    def spans(self) -> Iterator[tuple[int, int]]:
        return spans_of(self._payload)


class FortranImages(BlockImages):
    """One array [N, ...] in Fortran order or alike: a byte of every row, then another of every row, and so on."""

    __slots__ = ()

    def _read(self, file: BinaryIO, start: int, stop: int) -> bytes:
        # In ascending order, so that an encoded payload is decoded once per call, chunk by chunk.
        reader = PayloadReader(file, self.name, self._payload)
        width = self._row_bytes
        found = bytearray((stop - start) * width)
        for position, column in enumerate(_memory_order(self._inner, self._memory)):
            base = position * self.rows
            found[column::width] = reader.read(base + start, base + stop)
        return bytes(found)

    def _gather(self, file: BinaryIO, runs: Sequence[tuple[int, int]]) -> bytes:
        # The bytes of a row are scattered over the file, so rows between the runs are read as well.
        first, width = runs[0][0], self._row_bytes
        data = self._read(file, first, runs[-1][1])
        return b"".join(data[(start - first) * width : (stop - first) * width] for start, stop in runs)


class RowImages(Images):
    """One array per row, or None.

    Raw payloads are kept as offsets to save memory, others by row. `orders` has the axes in memory, from the slowest to
    the fastest, of rows (3, H, W) that are not in C order.
    """

    __slots__ = ("_offsets", "_orders", "_others")

    def __init__(
        self,
        name: str,
        sizes: Sequence[Size | None],
        payloads: Sequence[Payload | None],
        orders: Mapping[int, tuple[int, ...]],
    ) -> None:
        super().__init__(name, len(payloads), list(sizes))
        self._offsets = array("q", [p.offset if isinstance(p, Span) else -1 for p in payloads])
        self._others = {row: p for row, p in enumerate(payloads) if p is not None and not isinstance(p, Span)}
        self._orders = orders

    def _gather(self, file: BinaryIO, runs: Sequence[tuple[int, int]]) -> bytes:
        rows = (row for start, stop in runs for row in enumerate(self.sizes(start, stop), start))
        return b"".join(self._row(file, row, size) for row, size in rows if size)

    def _row(self, file: BinaryIO, row: int, size: Size) -> bytes:
        count = 3 * size[0] * size[1]
        if row in self._others:
            data = PayloadReader(file, self.name, self._others[row]).read(0, count)
        else:
            data = read_exact(file, self.name, self._offsets[row], count)
        return _planes(data, (3, *size), self._orders[row]) if row in self._orders else data

    def spans(self) -> Iterator[tuple[int, int]]:
        for row, size in enumerate(self.sizes(0, self.rows)):
            if size and self._offsets[row] >= 0:
                yield self._offsets[row], self._offsets[row] + 3 * size[0] * size[1]
        for payload in self._others.values():
            yield from spans_of(payload)


def _strides(sides: tuple[int, ...], memory: Sequence[int]) -> tuple[list[int], int]:
    """Returns the distance in bytes between neighbours along each axis, and the bytes of a row."""
    strides, nbytes = [0] * len(sides), 1
    for axis in reversed(memory):
        strides[axis] = nbytes
        nbytes *= sides[axis]
    return strides, nbytes


def _planes(data: bytes, inner: tuple[int, ...], memory: tuple[int, ...]) -> bytes:
    """Returns rows (3, H, W) in C order, given their bytes in another order of axes."""
    (channel, line, pixel), nbytes = _strides(inner, memory)
    channels, height, width = inner
    if line == width * pixel:  # the lines of a plane follow one another, as in interleaved pixels
        height, width = 1, height * width
    found, place = bytearray(len(data)), 0
    for row in range(0, len(data), nbytes or 1):
        for number in range(channels * height):
            first = row + number // height * channel + number % height * line
            found[place : place + width] = data[first : first + (width - 1) * pixel + 1 : pixel]
            place += width
    return bytes(found)


def _memory_order(inner: tuple[int, ...], memory: tuple[int, ...]) -> Iterator[int]:
    """Yields, for each element in the order of memory, its index in C order."""
    strides, _ = _strides(inner, range(len(inner)))
    for place in product(*(range(inner[axis]) for axis in memory)):
        yield sum(at * strides[axis] for at, axis in zip(place, memory, strict=True))
