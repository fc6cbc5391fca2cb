"""The short columns of tables with images, as arrays: names, labels and ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from beam_cifar.data.memory import give_back
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.column_roles import MAX_TEXT_BYTES, ColumnRoles

_IMAGE_SUFFIX = r"(?i)\.(png|jpe?g)$"
_ABSOLUTE = r"(?s)^(?:/|[A-Za-z]:[\\/]).*[/\\]"


def in_one_chunk(tables: list[pa.Table]) -> pa.Table:
    """Returns the rows of all tables, a column at a time and emptying `tables`, so that nothing is held twice."""
    left, columns = pa.concat_tables(tables), {}
    tables.clear()
    for name in left.column_names:
        columns[name] = left.column(name).combine_chunks()
        left = left.drop_columns([name])
    give_back()
    return pa.table(columns)


@contextmanager
def damaged_table(shown: str, kind: str) -> Iterator[None]:
    """Turns the many errors of Arrow on a damaged file into a one-line `InputError`.

    Args:
        shown: display name of the file.
        kind: what it was read as, such as "a Parquet file".
    """
    try:
        yield
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        # Arrow quotes bytes of the file unescaped.
        plain = "".join(char if char.isprintable() else "?" for char in reason)
        raise InputError(f"{shown}: is damaged, or not {kind}: {plain}") from error


def short_column(column: pa.Array, name: str, shown: str) -> pa.Array:
    """Returns a text column as string, a numeric one as int64. Raises `InputError` for a text that is too long."""
    if types.is_dictionary(column.type):
        _refuse_long(column.dictionary, name, shown)
        column = column.cast(pa.string())
    if types.is_floating(column.type):  # pandas stores missing integers as NaN
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        parts = column.filter(pc.not_equal(pc.floor(column), column))
        if len(parts):
            raise InputError(f"{shown}: column {name!r} has {parts[0]}; expected whole numbers or text: convert it")
    if types.is_integer(column.type) or types.is_floating(column.type):
        return column.cast(pa.int64())
    _refuse_long(column, name, shown)
    return column.cast(pa.string())


def _refuse_long(texts: Any, name: str, shown: str) -> None:
    longest = pc.max(pc.binary_length(texts.cast(pa.large_string()))).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise InputError(f"{shown}: column {name!r}: text of {longest} bytes; at most {MAX_TEXT_BYTES} are supported")


def with_names(
    found: Mapping[str, pa.Array], file: SourceFile, meaning: ColumnRoles, start: int, rows: int
) -> pa.Table:
    """Adds ids and file names, from the path, else a column of ids, else file name and row number."""
    stem = file.name.rpartition("/")[2].rpartition(".")[0]
    path = found.get("path", pa.nulls(rows, pa.string()))
    if meaning.own is None:
        path = pc.replace_substring_regex(path, _ABSOLUTE, "")
    else:
        path = _with_lost_paths(path, meaning.own, start)
    from_path = pc.replace_substring_regex(path, _IMAGE_SUFFIX, "")
    if meaning.own is None:
        from_path = pc.if_else(pc.equal(from_path, ""), pa.scalar(None, pa.string()), from_path)
    keys = found["key"].cast(pa.string()) if "key" in found else pa.nulls(rows, pa.string())
    ids = pc.coalesce(from_path, keys)
    if ids.null_count:
        ids = pc.coalesce(ids, pa.array([f"{stem}_{row}" for row in range(start, start + rows)], pa.string()))
    named = found["path"].is_valid() if "path" in found else pa.repeat(pa.scalar(False), rows)
    filenames = pc.coalesce(path, pc.binary_join_element_wise(ids, ".png", ""))
    nothing = pa.nulls(rows, pa.int64())
    label, coarse = (found.get(what, nothing) for what in ("label", "coarse"))
    return pa.table({"id": ids, "filename": filenames, "label": label, "coarse": coarse, "named": named})


def _with_lost_paths(path: pa.Array, own: Mapping[str, Any], start: int) -> pa.Array:
    """Fills in paths of rows without an image from our metadata; in the column, readers would look for a file."""
    lost = own.get("paths")
    if not path.null_count or not isinstance(lost, dict):
        return path
    values = (lost.get(str(row)) for row in range(start, start + len(path)))
    return pc.coalesce(path, pa.array([v if isinstance(v, str) else None for v in values], pa.string()))
