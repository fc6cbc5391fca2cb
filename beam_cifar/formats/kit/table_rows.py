"""Rows of tables whose short columns are known: their labels, superclasses and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_table
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.encoded import PlacedRows
from beam_cifar.formats.kit.folders import NO_LABEL
from beam_cifar.formats.kit.rows import column, parents_of

_FOLDERS = r"(?s)^.*/"


class PlacedTableRows(PlacedRows):
    """The rows of a file with encoded images at known places.

    Args:
        file: the file.
        table: label table of the dataset.
        found: its short columns, from `kit.short_columns.with_names` and `with_unique_ids`, and the places of its
            images, int64: `offset` and `size` in bytes, -1 and 0 for none.
    """

    def __init__(self, file: SourceFile, table: LabelTable, found: pa.Table) -> None:
        offsets, sizes = (column(found, name).to_numpy() for name in ("offset", "size"))
        super().__init__(file, *row_labels(found, table), offsets, sizes)
        self._table, self._coarse = table, found.column("coarse")

    def _parents(self) -> dict[int, tuple[int, int]]:
        return row_parents(self.file, self._table, self._coarse, self.labels)


def row_labels(found: pa.Table, table: LabelTable) -> tuple[pa.Table, npt.NDArray[np.int64], dict[int, str]]:
    """Returns the short columns, with only the last part of file names where the rest is the class; labels; bad rows.

    Args:
        found: short columns, from `kit.short_columns.with_names`.
        table: label table of the dataset.
    """
    numbers, bad = _numbers(found.column("label"), table.names)
    if table.has_superclasses:
        coarse = _plain(found.column("coarse"))
        for row in np.flatnonzero((coarse < -1) | (coarse >= len(table.coarse_names))).tolist():
            bad[row] = (
                f"coarse label {coarse[row]} is outside the table of {counted(len(table.coarse_names), 'superclass')}"
            )
    return _without_classes(found, numbers, table.names), numbers, bad


def row_parents(
    file: SourceFile, table: LabelTable, superclasses: pa.ChunkedArray, labels: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Returns class -> (superclass, row that it was found in). Raises `InputError` if two rows disagree."""
    if not table.has_superclasses:
        return {}
    coarse, numbers = _plain(superclasses), np.array(labels, dtype=np.int64)
    said = np.flatnonzero((numbers >= 0) & (coarse >= 0))
    pairs, first = np.unique(np.stack([numbers[said], coarse[said]]), axis=1, return_index=True)
    return parents_of(file, table, zip(*pairs.tolist(), said[first].tolist(), strict=True))


def refuse_references(file: SourceFile, found: pa.Table, missing: int, image: str) -> None:
    """Raises `InputError` if some of the `missing` images have a path: they are elsewhere, not missing."""
    named = pc.sum(found.column("named")).as_py() or 0
    if missing > len(found) - named:
        raise InputError(
            f"{file.shown}: {counted(missing, 'row', verb='have')} no bytes in {image!r}, and some have "
            "only a path; save the file again with images embedded"
        )


def _without_classes(found: pa.Table, numbers: npt.NDArray[np.int64], names: Sequence[str]) -> pa.Table:
    """Returns the rows with only the last component of a file name whose folder is the row's class, or `no_label`."""
    column = found.column("filename")
    if not pc.any(pc.match_substring(column, "/")).as_py():
        return found
    classes = pa.array([*names, NO_LABEL], pa.string())
    known = np.where((numbers >= 0) & (numbers < len(names)), numbers, len(names))
    short = pc.replace_substring_regex(column, _FOLDERS, "")
    prefixed = pc.binary_join_element_wise(classes.take(pa.array(known)), short, "/")
    filenames = pc.if_else(pc.equal(prefixed, column), short, column)
    return found.set_column(found.schema.get_field_index("filename"), "filename", filenames)


def _plain(column: Any) -> npt.NDArray[np.int64]:
    """Returns int64 `[N]`, -1 for null."""
    return np.asarray(column.fill_null(-1).combine_chunks().to_numpy(zero_copy_only=False), dtype=np.int64)


def _numbers(column: Any, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """Returns labels as numbers, and the error message of each bad row."""
    if types.is_string(column.type):
        found = _plain(pc.index_in(column, pa.array(names, pa.string())).cast(pa.int64()))
        bad = np.flatnonzero((found < 0) & column.is_valid().combine_chunks().to_numpy(zero_copy_only=False))
        return found, {row: f"label {column[row].as_py()!r} is not in the label table" for row in bad.tolist()}
    found = _plain(column)
    rows = np.flatnonzero((found < UNLABELLED) | (found >= len(names))).tolist()
    return found, {row: outside_table(found[row], len(names)) for row in rows}
