"""Reads Parquet and Croissant files: `tables.py READER PATH`, in the environment of `requirements.txt`.

A reader of tables prints the rows as JSON, sorted: [path, label, sha256 of the image file]. `croissant` prints all records
by their set, the image files as sha256 too.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import duckdb  # type: ignore[import-not-found]
import pandas  # type: ignore[import-untyped]
import polars  # type: ignore[import-not-found]
import pyarrow.parquet

READERS = {
    "pandas": lambda path: pandas.read_parquet(path).to_dict("records"),
    "pyarrow": lambda path: pyarrow.parquet.read_table(path).to_pylist(),
    "polars": lambda path: polars.read_parquet(path).to_dicts(),
    "polars, lazy": lambda path: polars.scan_parquet(path).collect().to_dicts(),
    "duckdb": lambda path: duckdb.sql(f"from '{path}'").to_arrow_table().to_pylist(),
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON holds it; images keep the bytes that they were opened from."""
    if isinstance(value, bytes):
        return value.decode()
    return digest(value.fp.getvalue()) if hasattr(value, "fp") else value


def records(path: str) -> dict[str, list[dict[str, Any]]]:
    """All records of a Croissant file; one that is not valid raises."""
    import mlcroissant  # type: ignore[import-not-found]

    dataset = mlcroissant.Dataset(os.path.join(path, "croissant.json"))
    return {
        each.uuid: [{key: plain(value) for key, value in row.items()} for row in dataset.records(each.uuid)]
        for each in dataset.metadata.record_sets
    }


if __name__ == "__main__":
    reader, where = sys.argv[1:]
    if reader == "croissant":
        json.dump(records(where), sys.stdout)
    else:
        rows = READERS[reader](where)
        json.dump(sorted([row["img"]["path"], row["label"], digest(row["img"]["bytes"])] for row in rows), sys.stdout)
