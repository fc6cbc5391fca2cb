"""Scans files of any format: counts rows, and computes digests of names if they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import UNLABELLED, LabelTable, parent_conflict
from beam_cifar.data.schema import has_images, plain_labels
from beam_cifar.data.text import counted
from beam_cifar.errors import RowError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.source import RowReader, Source
from beam_cifar.formats.contract.types import (
    CHUNK_ROWS,
    MAX_BAD_ROWS,
    Catalog,
    FileSummary,
    RowNames,
    SourceFile,
    Wanted,
)
from beam_cifar.naming.image_files import digests, name_digests, whole_digests
from beam_cifar.naming.subsets import subsets_meant

if TYPE_CHECKING:
    import pyarrow as pa


def scan(source: Source, file: SourceFile, labels: LabelTable, wanted: Wanted) -> FileSummary:
    """Returns the summary of one file.

    Args:
        source: format that reads the file.
        file: the file.
        labels: label table of the dataset.
        wanted: what the summary must contain.

    Raises:
        InputError: the file cannot be read.
        RowError: an image has no valid header, although its size is asked for and `wanted` is not lenient.
    """
    with source.open_rows(file, labels) as reader:
        bad = reader.bad_rows
        summary = replace(
            reader.summary(sizes=wanted.sizes),
            file=file,  # rows kept from an earlier command in this process know its index folder
            bad_rows=tuple(bad[row] for row in sorted(bad)[: None if wanted.tolerant else MAX_BAD_ROWS]),
            bad_count=len(bad),
            chunks=tuple(_plain_chunks(reader)),
            access=reader.access,
        )
        if wanted.columns:
            summary = replace(summary, columns=_columns(reader, wanted))
        dropped: Set[int] = set()
        if wanted.filter is not None or wanted.names:
            all_images = summary.images == summary.rows
            chunks, names, kept, dropped = _looked_into(reader, labels, wanted, all_images=all_images)
            left = [row for row in sorted(bad) if row not in dropped]
            listed = tuple(bad[row] for row in left[: len(summary.bad_rows)])
            summary = replace(summary, chunks=chunks, row_names=names, kept_labels=kept)
            summary = replace(summary, bad_rows=listed, bad_count=len(left))
        return replace(summary, unreadable=_unreadable(reader, wanted, dropped))


def _unreadable(reader: RowReader, wanted: Wanted, dropped: Set[int]) -> tuple[BadRow, ...]:
    """Returns the rows whose image has no valid header, but for those that the filter drops."""
    found = tuple(reader.unreadable[row] for row in sorted(reader.unreadable) if row not in dropped)
    if found and not wanted.lenient:
        raise RowError(found[0].error)
    return found


def _plain_chunks(reader: RowReader) -> Iterator[Mapping[int, int]]:
    """Yields row counts by label for each chunk, from the labels alone: no import of Arrow or numpy."""
    for start in range(0, reader.rows, CHUNK_ROWS):
        counts = Counter(reader.labels[start : start + CHUNK_ROWS])
        if reader.bad_rows:
            rows = range(start, min(start + CHUNK_ROWS, reader.rows))
            counts.subtract(reader.labels[row] for row in rows if row in reader.bad_rows)
        yield {label: n for label, n in counts.items() if n}


BEHIND = {"label": ("label",), "id": ("id",), "filename": ("filename",), "size": ("height", "width")}
"""The example columns that each name in `Wanted.columns` stands for."""


def _columns(reader: RowReader, wanted: Wanted) -> pa.Table:
    """Returns the wanted columns of all rows in one call, so that readers that have them in memory need no copy."""
    names = [column for name in sorted(wanted.columns) for column in BEHIND[name]]
    return reader.facts(0, reader.rows, sizes="size" in wanted.columns).select(names)


def _looked_into(
    reader: RowReader, labels: LabelTable, wanted: Wanted, *, all_images: bool
) -> tuple[tuple[Mapping[int, int], ...], RowNames | None, int, Set[int]]:
    """Looks at the names of all rows, and at what the filter looks at.

    Returns:
        Row counts by label after the filter; digests of the rows' names; how many rows keep a label; and the bad and
        unreadable rows that the filter drops by what is known about them.

    Raises:
        RowError: the filter looks at images, and one has no valid header.
    """
    import numpy as np

    judges_images = wanted.filter is not None and "image" in wanted.filter.sees
    sizes = not all_images or judges_images
    # A label that is bad is no reason to drop its row.
    judges_names = wanted.filter is not None and not {"annotation", "image"} & wanted.filter.sees
    dropped: set[int] = set()
    selection = Selection(labels.names, None, wanted.filter)
    chunks: list[Mapping[int, int]] = []
    names: list[tuple[Any, ...]] = []
    kept = 0
    for start in range(0, reader.rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, reader.rows)
        facts = reader.facts(start, stop, sizes=sizes)
        unreadable = [row for row in range(start, stop) if row in reader.unreadable] if reader.unreadable else ()
        if unreadable and judges_images:
            raise RowError(reader.unreadable[unreadable[0]].error)
        decision = selection.decide(facts)
        dropped.update(row for row in unreadable if not decision.rows[row - start])
        if judges_names:
            dropped.update(
                row for row in range(start, stop) if row in reader.bad_rows and not decision.rows[row - start]
            )
        good = np.array([row not in reader.bad_rows for row in range(start, stop)], dtype=np.bool_)
        mask = decision.rows & good
        found = plain_labels(facts)
        chunks.append(Counter(found[mask].tolist()))
        kept += int((mask & decision.labels & (found >= 0)).sum())
        if wanted.names:
            rows = np.flatnonzero(mask)
            images = np.ones(len(rows), dtype=np.bool_) if all_images else has_images(facts)[rows]
            kept_labels = np.where(decision.labels, found, UNLABELLED)[rows]
            ids, filenames = (facts.column(name).take(rows).to_pylist() for name in ("id", "filename"))
            texts = digests(ids), name_digests(ids, filenames), whole_digests(ids)
            names.append((rows + start, found[rows], kept_labels, *texts, images))
    return tuple(chunks), _row_names(names) if wanted.names else None, kept, dropped


def _row_names(chunks: Sequence[tuple[Any, ...]]) -> RowNames:
    import numpy as np

    kinds = (np.int64, np.int32, np.int32, np.uint64, np.uint64, np.uint64, np.bool_)
    columns = zip(*chunks, strict=True) if chunks else [()] * len(kinds)
    made: list[Any] = [
        np.concatenate([np.empty(0, kind), *pieces]).astype(kind) for kind, pieces in zip(kinds, columns, strict=True)
    ]
    return RowNames(*made)


def select_files(catalog: Catalog, subsets: Sequence[str]) -> tuple[SourceFile, ...]:
    """Returns the files of the given subsets; "train" and "test" stand for all batches of that split.

    Raises:
        UsageError: a name is neither a subset nor a split of the dataset.
    """
    known = list(dict.fromkeys(file.subset for file in catalog.files))
    wanted = {meant for subset in subsets for meant in subsets_meant(subset, known)}
    return tuple(file for file in catalog.files if not subsets or file.subset in wanted)


def learn_parents(catalog: Catalog, summaries: Sequence[FileSummary]) -> LabelTable:
    """Fills in the superclass of each class from the rows of all files. Raises `InputError` if they disagree."""
    table = catalog.labels
    if not table.has_superclasses:
        return table
    parents = list(table.parents)
    said: dict[int, str] = {}
    for summary in summaries:
        for label, (coarse, row) in sorted(summary.parents.items()):
            here = f"{summary.file.shown} row {row}"
            if label in said and parents[label] != coarse:
                raise parent_conflict(table, label, (said[label], parents[label] or 0), (here, coarse))
            said.setdefault(label, here)
            parents[label] = coarse
    return replace(table, parents=tuple(parents))


def duplicates(summaries: Sequence[FileSummary]) -> Iterator[str]:
    """Yields a notice for each file in which names repeat."""
    for summary in summaries:
        if summary.duplicates:
            yield (
                f"{summary.file.shown}: {counted(summary.duplicates, 'row')} with the file name of an earlier row; "
                f"a suffix was added to each id"
            )


def without_images(catalog: Catalog, summaries: Sequence[FileSummary]) -> Iterator[str]:
    """Yields how many rows have no image, unless a notice of the format already says so."""
    rows = sum(summary.rows for summary in summaries)
    missing = rows - sum(summary.images for summary in summaries)
    if missing and not catalog.counts_images:
        yield f"{counted(missing, 'row', of=rows, verb='have')} no image"


def label_counts(summary: FileSummary) -> dict[int, int]:
    """Returns the row counts of a file by label, ordered by label with unlabelled (-1) last."""
    counts: Counter[int] = Counter()
    for chunk in summary.chunks:
        counts.update(chunk)
    return {label: counts[label] for label in sorted(counts, key=lambda label: (label == UNLABELLED, label))}
