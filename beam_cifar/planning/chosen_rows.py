"""Stores rows that a plan chose one by one, and reads them from the input files in any order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar import storage
from beam_cifar.data.block import MAX_BYTES, MAX_ROWS, Block
from beam_cifar.data.schema import example_schema, with_columns
from beam_cifar.formats.contract.source import RowReader
from beam_cifar.formats.registry import get_source
from beam_cifar.planning.moves import ascend, bucket, bucket_ends
from beam_cifar.planning.plan import CHOSEN, MOVES, ChosenRows, Inputs, Moves
from beam_cifar.planning.spills import SpillFolder
from beam_cifar.steps.base import changed

MAX_OPEN: Final = 32
"""Maximum number of input files that a reader keeps open."""

_NOTHING: Final = SpillFolder()


def write_chosen(chosen: ChosenRows, path: str, scratch: str) -> None:
    """Writes chosen rows to a file, one batch per part; the file appears only when it is complete."""
    _write_batches(chosen.batches(), CHOSEN, path, scratch)


def write_moves(moves: Moves, path: str, scratch: str) -> None:
    """Writes what is moved to a file, one batch per spill; the file appears only when it is complete."""
    _write_batches(moves.batches(), MOVES, path, scratch)


def _write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: str, scratch: str) -> None:
    with storage.StagedFile(path, scratch) as file:
        with pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        file.commit()


def read_batch(path: str, number: int) -> pa.Table:
    """Returns one batch of a file that `write_chosen` or `write_moves` has written."""
    with storage.open_arrow(path) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(number)])


def read_chosen(
    path: str, number: int, inputs: Inputs, row_bytes: int, spilled: SpillFolder, remarks: Counter[str] | None = None
) -> Iterator[tuple[pa.Table, bool]]:
    """Reads the rows of one batch of a file in the schema `CHOSEN`.

    Args:
        path: path of that file.
        number: index of the batch.
        inputs: files and formats to read the rows from.
        row_bytes: minimum bytes that every image will need once it is processed.
        spilled: rows that were moved, and are read from there.
        remarks: gets what steps of single datasets did to images, by kind.

    Yields:
        Tables of at most `MAX_ROWS` rows in the schema of `beam_cifar.data.schema`, each with whether it is the last;
        at least one table.

    Raises:
        InputError: a file is missing, changed or damaged.
    """
    chosen = read_batch(path, number)
    files, rows = (chosen.column(name).to_numpy() for name in ("file", "row"))
    done = 0
    for table in read_rows(files, rows, inputs, row_bytes=row_bytes, spilled=spilled, part=number, remarks=remarks):
        part = chosen.slice(done, len(table))
        done += len(table)
        new = {name: part.column(name) for name in ("subset", "label")}
        if not part.column("id").null_count:
            new |= {name: part.column(name) for name in ("id", "filename")}
        yield with_columns(table, **new), done == len(chosen)


def read_rows(
    files: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int32],
    inputs: Inputs,
    *,
    row_bytes: int = 0,
    spilled: SpillFolder = _NOTHING,
    part: int = 0,
    remarks: Counter[str] | None = None,
) -> Iterator[pa.Table]:
    """Reads rows in any order, opening every file as rarely as memory allows.

    Args:
        files: int32 `[N]`, index of each row's input file.
        rows: int32 `[N]`, row numbers in those files.
        inputs: files and formats to read from.
        row_bytes: minimum bytes that every image will need once it is processed.
        spilled: rows that were moved, and are read from there.
        part: index of the batch of chosen rows that these are.
        remarks: gets what steps of single datasets did to images, by kind.

    Yields:
        Tables of up to `MAX_ROWS` rows, in order; one empty table if N is 0.
    """
    if not len(files):
        yield example_schema().empty_table()
    windows: Iterator[tuple[int, int]]
    if spilled.spills:
        windows = itertools.pairwise([0, *bucket_ends(files, inputs.image_bytes, spilled.bucket_bytes).tolist()])
    else:
        windows = _windows(files, rows, inputs)
    with OpenFiles(inputs, spilled, remarks) as opened:
        for number, (at, stop) in enumerate(windows):
            table = opened.take(files[at:stop], rows[at:stop], bucket(part, number))
            for start, end in pieces(table, row_bytes):
                yield table.slice(start, end - start)


def _windows(files: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], inputs: Inputs) -> Iterator[tuple[int, int]]:
    """Yields runs of rows to read together."""
    at = 0
    while at < len(files):
        stop = min(at + _window(files, rows, at, inputs), len(files))
        yield at, stop
        at = stop


def _window(files: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], at: int, inputs: Inputs) -> int:
    """Returns how many rows to read together: a block if they are sorted, up to 16 blocks (sorted here) if not."""
    ahead = slice(at, at + MAX_ROWS)
    largest = max(inputs.image_bytes[file] for file in np.unique(files[ahead]))
    most = MAX_ROWS if ascend(files[ahead], rows[ahead]) else 16 * MAX_ROWS
    return int(max(1, min(MAX_BYTES // max(1, largest), most)))


def pieces(table: pa.Table, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields spans of a table that fit into a block, counting the larger of stored bytes and raw pixels."""
    stored = pc.binary_length(table.column("image")).fill_null(0).to_numpy()
    height, width = (table.column(name).fill_null(0).to_numpy().astype(np.int64) for name in ("height", "width"))
    sizes = np.maximum(np.maximum(stored, 3 * height * width), row_bytes)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(table):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + MAX_BYTES, "right"))
        end = min(max(end, start + 1), start + MAX_ROWS)
        yield start, end
        start = end


class OpenFiles:
    """A cache of open input files."""

    def __init__(self, inputs: Inputs, spilled: SpillFolder = _NOTHING, remarks: Counter[str] | None = None) -> None:
        self._inputs, self._spilled = inputs, spilled
        self._remarks = Counter() if remarks is None else remarks
        self._readers: dict[int, tuple[RowReader, ExitStack]] = {}

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *raised: Any) -> None:
        while self._readers:
            _, stack = self._readers.pop(next(iter(self._readers)))
            stack.__exit__(*raised)

    def take(self, files: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], key: int) -> pa.Table:
        """Returns the rows of a bucket, in the given order, as one table."""
        order = np.lexsort((rows, files))
        by_file, by_row = files[order], rows[order]
        edges = [0, *(np.flatnonzero(np.diff(by_file)) + 1).tolist(), len(order)]
        tables = [self._take(int(by_file[start]), by_row[start:stop], key) for start, stop in itertools.pairwise(edges)]
        table = pa.concat_tables(tables) if len(tables) > 1 else tables[0]
        if (np.diff(order) == 1).all():
            self._close_all_but(int(by_file[-1]))  # rows are sorted, so earlier files are rarely needed again
            return table
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return table.combine_chunks().take(pa.array(back))

    def _close_all_but(self, kept: int) -> None:
        for file in [file for file in self._readers if file != kept]:
            _, stack = self._readers.pop(file)
            stack.close()

    def _take(self, file: int, rows: npt.NDArray[np.int32], key: int) -> pa.Table:
        moved = self._spilled.has(file)
        table = self._spilled.take(file, rows, key) if moved else self._reader(file).take(rows.tolist())
        block = Block(table, 0, 0, 0, last=False, read=Counter())
        block = changed(block, self._inputs.origins[self._inputs.files[file].source].pixel_steps)
        self._remarks.update(block.remarks)
        return block.table

    def _reader(self, file: int) -> RowReader:
        if file not in self._readers:
            if len(self._readers) >= MAX_OPEN:
                _, stack = self._readers.pop(next(iter(self._readers)))
                stack.close()
            source = self._inputs.files[file]
            origin = self._inputs.origins[source.source]
            with ExitStack() as stack:
                reader = stack.enter_context(get_source(origin.format).open_rows(source, origin.labels))
                self._readers[file] = reader, stack.pop_all()
        return self._readers[file][0]
