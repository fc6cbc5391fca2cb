"""Scans files of any format: counts rows, and computes digests of names if they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beam_cifar.data.labels import UNLABELLED, LabelTable, parent_conflict
from beam_cifar.data.schema import has_images, plain_labels
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
    """
    with source.open_rows(file, labels) as reader:
        bad = reader.bad_rows
        summary = replace(
            reader.summary(sizes=wanted.sizes),
            file=file,  # rows kept from an earlier command in this process know its index folder
            bad_rows=tuple(bad[row] for row in sorted(bad)[:MAX_BAD_ROWS]),
            bad_count=len(bad),
            chunks=tuple(_plain_chunks(reader)),
            access=reader.access,
        )
        if wanted.columns:
            summary = replace(summary, columns=_columns(reader, wanted))
        if wanted.filter is None and not wanted.names:
            return summary
        chunks, names, kept = _looked_into(reader, labels, wanted, all_images=summary.images == summary.rows)
        return replace(summary, chunks=chunks, row_names=names, kept_labels=kept)


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
) -> tuple[tuple[Mapping[int, int], ...], RowNames | None, int]:
    """Returns row counts by label after the filter, digests of the rows' names, and how many rows keep a label."""
    import numpy as np

    sizes = not all_images or (wanted.filter is not None and "image" in wanted.filter.sees)
    selection = Selection(labels.names, None, wanted.filter)
    chunks: list[Mapping[int, int]] = []
    names: list[tuple[Any, ...]] = []
    kept = 0
    for start in range(0, reader.rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, reader.rows)
        facts = reader.facts(start, stop, sizes=sizes)
        decision = selection.decide(facts)
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
    return tuple(chunks), _row_names(names) if wanted.names else None, kept


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
                f"{summary.file.shown}: {summary.duplicates} rows repeat the file name of an earlier row; "
                f"a suffix was added to their ids"
            )


def label_counts(summary: FileSummary) -> dict[int, int]:
    """Returns the row counts of a file by label, ordered by label with unlabelled (-1) last."""
    counts: Counter[int] = Counter()
    for chunk in summary.chunks:
        counts.update(chunk)
    return {label: counts[label] for label in sorted(counts, key=lambda label: (label == UNLABELLED, label))}
