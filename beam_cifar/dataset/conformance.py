"""What every format does: checks for the tests of one, in this package or in another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.analysis.diff import compare
from beam_cifar.data.schema import example_schema, facts_schema
from beam_cifar.dataset.dataset import Dataset
from beam_cifar.dataset.items import DatasetItem, Image, Label
from beam_cifar.formats.contract.source import RowReader
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.registry import READ, detect_format, get_sink, get_source

_CLASSES = ("sea lion", "cat", "поезд")
_SIDE = 32
_ROWS = 7
"""Rows of each subset: no multiple of the number of classes, nor of a part."""


def check_source(name: str, path: str | os.PathLike[str]) -> None:
    """Checks that a format reads a dataset as its contract says, in whatever order and pieces rows are asked for.

    Whether labels and pixels are right only the format's own tests can say: compare `Dataset.import_from(path)` with
    what was written.

    Args:
        name: name of the format; that of another package is found by its entry point.
        path: a dataset in that format with at least two rows that are not bad.

    Raises:
        AssertionError: it does not; the message says what was expected.
        BeamCifarError: the dataset cannot be read.

    >>> from beam_cifar.testing import check_source
    >>> check_source("cifar", "cifar10")
    """
    source, place = get_source(name), storage.absolute(os.fspath(path), "input")
    with storage.TemporaryFolder() as indexes, storage.TemporaryFolder() as empty:
        _expect(source.name == name, f"its source is called {source.name!r}, the format {name!r}")
        _expect(source.looks_right(place, indexes), f"{place} looks right")
        _expect(not source.looks_right(empty, indexes), "an empty folder does not look right")
        _expect(detect_format(place, indexes) == name, f"{place} is detected as {name}")
        catalog = source.describe(place, indexes)
        _expect(source.describe(place, indexes) == catalog, "a dataset is described alike twice")
        names = [file.name for file in catalog.files]
        _expect(len(set(names)) == len(names) > 0, f"there are files, and their names differ: {names[:10]}")
        ids: set[tuple[str, str]] = set()
        for file in catalog.files:
            with source.open_rows(replace(file, index_dir=indexes), catalog.labels) as rows:
                found = _check_rows(rows, file, len(catalog.labels.names))
            keys = {(file.subset, each) for each in found}
            _expect(len(keys) == len(found), f"{file.shown}: ids differ")
            _expect(keys.isdisjoint(ids), f"{file.shown}: its ids differ from those of files before it")
            ids |= keys


def _check_rows(rows: RowReader, file: SourceFile, classes: int) -> list[str]:
    """Checks the rows of one file; returns their ids."""
    count, shown = rows.rows, file.shown
    _expect(all(-1 <= label < classes for label in rows.labels), f"{shown}: labels are -1 to {classes - 1}")
    facts, whole = rows.facts(0, count), rows.table(0, count)
    _expect(facts.schema == facts_schema() and facts.num_rows == count, f"{shown}: facts have the schema, {count} rows")
    _expect(whole.schema == example_schema(), f"{shown}: examples have the schema")
    good = [row for row in range(count) if row not in rows.bad_rows]
    _expect(whole.num_rows == len(good), f"{shown}: there are examples of the {len(good)} rows that are not bad")
    _expect(whole.select(facts.column_names).equals(facts.take(pa.array(good))), f"{shown}: facts are the examples'")
    _expect(set(facts.column("subset").to_pylist()) <= {file.subset}, f"{shown}: rows are of subset {file.subset!r}")
    middle, scattered = count // 2, good[1::3]
    pieces = pa.concat_tables([rows.table(0, middle), rows.table(middle, count)])
    _expect(pieces.equals(whole), f"{shown}: pieces are the whole")
    taken = whole.take(pa.array([good.index(row) for row in scattered], pa.int64()))
    _expect(rows.take(scattered).equals(taken), f"{shown}: scattered rows are those of the whole")
    sizes = [len(image) for image in whole.column("image").to_pylist() if image is not None]
    summary = rows.summary(sizes=True)
    _expect(summary.rows == count, f"{shown}: the summary counts {count} rows")
    _expect(summary.images == len(sizes), f"{shown}: the summary counts {len(sizes)} images")
    _expect(summary.image_bytes >= sum(sizes), f"{shown}: the summary counts at least {sum(sizes)} bytes of images")
    _expect(rows.row_bytes(0, count, decoded=False) >= max(sizes, default=0), f"{shown}: row_bytes is large enough")
    starts = rows.access.starts
    _expect(list(starts) == sorted(set(starts)) and starts[:1] in ((), (0,)), f"{shown}: access ascends from 0")
    return [str(each) for each in facts.column("id").to_pylist()]


def check_sink(name: str, folder: str | os.PathLike[str]) -> None:
    """Checks that a format writes a dataset of two subsets, the same bytes each time and by any number of workers.

    If it can be read too, what is read back equals what was written, except for what the sink declares in
    `Capabilities.losses`.

    Args:
        name: name of the format; that of another package is found by its entry point.
        folder: an empty folder to write to.

    Raises:
        AssertionError: it does not; the message says what was expected.
        BeamCifarError: the dataset cannot be written.

    >>> from beam_cifar.testing import check_sink
    >>> check_sink("parquet", "checked")
    """
    sink, place = get_sink(name), Path(folder)
    can = sink.can
    _expect(sink.name == name, f"its sink is called {sink.name!r}, the format {name!r}")
    image_ext = ".png" if "jpeg" in can.losses else None
    items = list(_items())
    for number, workers in enumerate((1, 2)):
        dataset = Dataset.from_iterable(items, _CLASSES)
        dataset.export(str(place / f"out{number}"), name, save_images=True, workers=workers, image_ext=image_ext)
    found = [_files(place / f"out{number}") for number in (0, 1)]
    _expect(bool(found[0]), "there are files")
    _expect(found[0] == found[1], "the same dataset is written as the same bytes")
    if name not in READ:
        return
    wanted = Dataset.from_iterable(items, _CLASSES)
    if "colour" in can.losses:
        wanted.transform("grayscale")
    if "labels" in can.losses:
        wanted.transform("remove_annotations")
    wanted.export(str(place / "wanted"), "cifar", save_images=True)
    check_source(name, place / "out0")
    result = compare(place / "wanted", place / "out0", ids="ids" not in can.losses, whole="subsets" in can.losses)
    _expect(result.equal, f"what was written is read back: {result}")


def _items() -> Iterator[DatasetItem]:
    for at, subset in enumerate(("train", "test")):
        for row in range(_ROWS):
            pixels = np.random.default_rng(_ROWS * at + row).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
            yield DatasetItem(f"{subset}_{row}", subset, Image(pixels), [Label(row % len(_CLASSES))])


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _expect(holds: bool, expected: str) -> None:
    if not holds:
        raise AssertionError(f"expected: {expected}")
