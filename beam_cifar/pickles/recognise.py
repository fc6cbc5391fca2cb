"""Recognises a scanned pickle as a CIFAR batch or meta file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from beam_cifar.data.text import counted
from beam_cifar.pickles.columns import Columns
from beam_cifar.pickles.pixels import images_of
from beam_cifar.pickles.rows import Images
from beam_cifar.pickles.scan import scan_pickle
from beam_cifar.pickles.source import read_exact, shorten
from beam_cifar.pickles.style import is_python2_style
from beam_cifar.pickles.values import Value

_BATCH_KEYS = ("data", "labels", "fine_labels", "filenames")
_META_KEYS = ("label_names", "fine_label_names")
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Meta:
    """A `batches.meta` (CIFAR-10) or `meta` (CIFAR-100) file.

    Attributes:
        kind: 'cifar10' (`label_names`) or 'cifar100' (`fine_label_names`).
        label_names: the classes.
        coarse_label_names: the superclasses; () for CIFAR-10.
        num_cases_per_batch: rows per batch; None if the key is absent.
        num_vis: bytes per image; None if the key is absent.
    """

    kind: str
    label_names: tuple[str, ...]
    coarse_label_names: tuple[str, ...] = ()
    num_cases_per_batch: int | None = None
    num_vis: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch file: its small columns, and where its pixels are.

    Attributes:
        rows: number of rows, the same in all columns.
        kind: 'cifar10' (key `labels`), 'cifar100' (key `fine_labels`), or None (no labels at all).
        labels: per row: an int as found, a class name, or None.
        coarse_labels: per row; None if the key is absent.
        filenames: per row; None if the key is absent.
        batch_label: such as 'training batch 1 of 5'.
        images: None if the file has no pixels.
        python2_style: whether the file is in the style that all readers support, with exactly the standard keys.
        structure_sha256: hex digest of every byte of the file that is not pixel payload.
    """

    rows: int
    kind: str | None
    labels: Sequence[int | str | None]
    coarse_labels: Sequence[int | None] | None
    filenames: Sequence[str] | None
    batch_label: str | None
    images: Images | None
    python2_style: bool
    structure_sha256: str


def read_batch(file: BinaryIO, name: str, stored: int | None = None) -> Batch:
    """Reads a batch file without its pixels.

    Args:
        file: an open file.
        name: its display name, used in messages.
        stored: bytes that it takes on disk, if that is less than its size; a larger file may take more memory.

    Raises:
        PickleError: it is damaged, anything else than a batch, or would take more memory than a batch of its size.
    """
    # The scan keeps offsets, not pixels: 20 to 30 ms and 1 MB of memory for a batch of 31 MB.
    columns = Columns(scan_pickle(file, name, stored))
    fields = columns.fields()
    if not any(key in fields for key in _BATCH_KEYS):
        _refuse_keys(columns, fields, "batch", _META_KEYS, "a meta file")
    if "labels" in fields and "fine_labels" in fields:
        columns.refuse(None, "has both 'labels' and 'fine_labels'; expected only one of them")
    label_key = "fine_labels" if "fine_labels" in fields else "labels"
    labels = columns.labels(fields[label_key], label_key) if label_key in fields else None
    coarse = columns.coarse_labels(fields["coarse_labels"], "coarse_labels") if "coarse_labels" in fields else None
    filenames = columns.names(fields["filenames"], "filenames") if "filenames" in fields else None
    sizes = columns.sizes(fields["image_sizes"], "image_sizes") if "image_sizes" in fields else None
    images = images_of(columns, fields["data"], sizes) if fields.get("data") is not None else None
    counts = {label_key: labels, "coarse_labels": coarse, "filenames": filenames}
    rows = _agree(columns, {key: len(column) for key, column in counts.items() if column is not None}, images)
    if sizes and len(sizes) != rows:
        columns.refuse(
            fields["image_sizes"], f"'image_sizes' has {counted(len(sizes), 'entry')} for {counted(rows, 'row')}"
        )
    if images is not None and images.rows != rows:
        images = None  # an empty array although there are rows: labels only
    columns.charge_all(rows=rows)
    label = fields.get("batch_label")
    return Batch(
        rows=rows,
        kind=None if labels is None else "cifar100" if label_key == "fine_labels" else "cifar10",
        labels=(None,) * rows if labels is None else labels,
        coarse_labels=coarse,
        filenames=filenames,
        batch_label=None if label is None else columns.text(label, "'batch_label'"),
        images=images,
        python2_style=is_python2_style(columns.scan, fields),
        structure_sha256=_digest_around(file, name, columns.scan.source.size, images.spans() if images else ()),
    )


def read_meta(file: BinaryIO, name: str, stored: int | None = None) -> Meta:
    """Reads a meta file; arguments and errors are those of `read_batch`."""
    columns = Columns(scan_pickle(file, name, stored))
    fields = columns.fields()
    keys = [key for key in _META_KEYS if key in fields]
    if not keys:
        _refuse_keys(columns, fields, "meta file", _BATCH_KEYS, "a batch")
    if len(keys) > 1:
        columns.refuse(None, "has both 'label_names' and 'fine_label_names'; expected only one of them")
    fine = keys[0] == "fine_label_names"
    coarse = _distinct(columns, fields, "coarse_label_names") if fine and "coarse_label_names" in fields else ()
    return Meta(
        kind="cifar100" if fine else "cifar10",
        label_names=_distinct(columns, fields, keys[0]),
        coarse_label_names=coarse,
        num_cases_per_batch=columns.optional_int(fields.get("num_cases_per_batch"), "num_cases_per_batch"),
        num_vis=columns.optional_int(fields.get("num_vis"), "num_vis"),
    )


def _refuse_keys(columns: Columns, fields: dict[str, Value], what: str, others: Iterable[str], other: str) -> None:
    found = sorted(fields)[:8]  # fewer than there are bytes in the file
    if any(key in fields for key in others):
        columns.refuse(None, f"not a CIFAR {what} but {other}: keys found {shorten(found, 200)}")
    columns.refuse(None, f"not a CIFAR {what}: keys found {shorten(found) if found else 'none'}")


def _distinct(columns: Columns, fields: dict[str, Value], key: str) -> tuple[str, ...]:
    names = columns.names(fields[key], key)
    columns.charge_all(classes=len(names))
    seen: set[str] = set()
    for name in names:
        if name in seen:
            columns.refuse(fields[key], f"'{key}' has {shorten(name)} twice")
        seen.add(name)
    return names


def _agree(columns: Columns, counts: dict[str, int], images: Images | None) -> int:
    """Returns the row count common to all columns; an empty `data` is ignored."""
    described = {key: (count, counted(count, "entry")) for key, count in counts.items()}
    if images is not None and (images.rows or not counts):
        described["data"] = (images.rows, counted(images.rows, "row"))
    first = next(iter(described), None)
    if first is None:
        return 0
    for key, (count, text) in described.items():
        if count != described[first][0]:
            columns.refuse(None, f"'{first}' has {described[first][1]}, but '{key}' has {text}")
    return described[first][0]


def _digest_around(file: BinaryIO, name: str, size: int, spans: Iterable[tuple[int, int]]) -> str:
    """Returns the digest of the file without the given spans, which may overlap."""
    digest = hashlib.sha256()
    position = 0
    for start, stop in [*sorted(spans), (size, size)]:
        while position < start:
            block = read_exact(file, name, position, min(_BLOCK, start - position))
            digest.update(block)
            position += len(block)
        position = max(position, stop)
    return digest.hexdigest()
