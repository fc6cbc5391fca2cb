"""Which images would get one name: pure, part of the plan where every image becomes a file of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beam_cifar.data.labels import UNLABELLED, LabelMap
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.naming.collisions import strict_names
from beam_cifar.planning.checks import one_file, refuse_missing_images
from beam_cifar.planning.cut import Chosen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def clashing_names(
    sources: Sequence[Chosen], selection: Selection, label_map: LabelMap, sink: Sink, options: ExportOptions
) -> frozenset[int]:
    """Digests of short names that several images of one folder would get.

    Raises:
        InputError: a row without image.
        UsageError: two images of one folder have the same id as well, which nothing can tell apart.
    """
    import numpy as np

    _refuse_missing_images(sources, selection, sink)
    folders, names, ids, wholes = (
        np.concatenate(c) for c in zip(*_named(sources, selection, label_map, sink, options), strict=True)
    )
    strict, twice = strict_names(folders, names, ids, wholes)
    if twice:
        where = [_place(sources, selection, position) for position in twice]
        raise one_file(where[0], where[1], sink)
    return strict


def _named(
    sources: Sequence[Chosen], selection: Selection, label_map: LabelMap, sink: Sink, options: ExportOptions
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]]:
    """For each source, of each image taken: a number for its folder, digests of name, id, and id as a name."""
    import numpy as np

    targets = np.array([*label_map.targets, UNLABELLED], dtype=np.int64)
    groups: dict[str, int] = {}
    for source in sources:
        rows, taken = source.summary.row_names, _taken(source, selection)
        if rows is None:
            raise ValueError(f"{source.summary.file.shown}: the scan gave no names")
        subset = sink.subsets.output(source.summary.file.subset, options)
        group = groups.setdefault(sink.subsets.group(subset), len(groups))
        labels = targets[rows.kept_labels[taken]] if sink.can.classes_are_folders else np.zeros_like(taken)
        folders = labels + (group * len(targets) + 1)
        names = rows.wholes if sink.can.ids_are_paths else rows.names
        yield folders, names[taken], rows.ids[taken], rows.wholes[taken]


def _taken(source: Chosen, selection: Selection) -> npt.NDArray[np.int64]:
    """Positions among `RowNames` of the rows that are taken of a source."""
    import numpy as np

    labels = source.summary.row_names.labels  # type: ignore[union-attr]
    if selection.labels is None:
        return np.arange(source.take)
    return np.flatnonzero(np.isin(labels, sorted(selection.labels)))[: source.take]


def _refuse_missing_images(sources: Sequence[Chosen], selection: Selection, sink: Sink) -> None:
    for source in sources:
        taken, names = _taken(source, selection), source.summary.row_names
        missing = taken[~names.images[taken]]  # type: ignore[union-attr]
        if len(missing):
            hint = "--filter '/item[image]'" if selection.filter is None else "the filter with 'and image'"
            first = int(names.rows[missing[0]])  # type: ignore[union-attr]
            refuse_missing_images(source.summary.file.shown, len(missing), sink, hint, first)


def _place(sources: Sequence[Chosen], selection: Selection, position: int) -> str:
    """File and row of an image, given its position among all that are taken."""
    for source in sources:
        if position < source.take:
            rows = source.summary.row_names.rows  # type: ignore[union-attr]
            return f"{source.summary.file.shown} row {rows[_taken(source, selection)[position]]}"
        position -= source.take
    raise IndexError(position)
