"""Rejects what an output format cannot represent, with the same messages from every planner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_cifar.data.block import BadRow
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, RowError, UsageError
from beam_cifar.formats.contract.sink import LOSSES, Sink
from beam_cifar.formats.contract.types import ExportOptions, FileSummary, Shard, SinkOptions
from beam_cifar.formats.registry import WRITE, get_sink
from beam_cifar.images.encodings import GRAY
from beam_cifar.naming.collisions import strict_names
from beam_cifar.naming.subsets import split_name


def refuse_missing_images(
    where: str, count: int, sink: Sink, hint: str = "--filter '/item[image]'", first: int | None = None
) -> None:
    """Rejects rows without an image.

    Args:
        where: file or subset that contains them.
        count: number of such rows.
        sink: format to write.
        hint: what excludes them.
        first: number of the first such row, if known.

    Raises:
        InputError: `count` is not 0.
    """
    if not count:
        return
    no_image = f"{counted(count, 'row', verb='have')} no image"
    found = no_image if first is None else f"row {first}: no image ({counted(count, 'such row')})"
    raise InputError(f"{where}: {found}, but {sink.name} needs one for every row; exclude them with {hint}")


def refuse_unlabelled(where: str, count: int, sink: Sink) -> None:
    """Rejects rows without a label, like `refuse_missing_images` does for images."""
    if count:
        raise InputError(
            f"{where}: {counted(count, 'row', verb='have')} no label, but {sink.name} needs one for every row; "
            "exclude them with --filter '/item[annotation]'"
        )


@dataclass(frozen=True)
class Named:
    """Images, and digests of the file names they may get.

    Attributes:
        subsets: int `[N]`, subset number of each image.
        labels: int `[N]`, labels as written, -1 if unlabelled.
        ids: uint64 `[N]`, digests of ids.
        names: uint64 `[N]`, digests of short names; equal for names that some file systems treat as the same.
        wholes: uint64 `[N]`, likewise for ids used as names.
    """

    subsets: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    ids: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    wholes: npt.NDArray[np.uint64]


def names_that_clash(
    images: Named, subsets: Sequence[str], sink: Sink, options: ExportOptions, place: Callable[[int], str]
) -> frozenset[int]:
    """Returns digests of short names that several images of one output folder would share.

    Args:
        images: all images that are written.
        subsets: names of the numbered subsets.
        sink: format to write.
        options: export options.
        place: returns the display name, used in messages, of the image at a position.

    Raises:
        UsageError: two images of one folder also have the same id, so no name can distinguish them.
    """
    groups: dict[str, int] = {}
    found = [groups.setdefault(sink.subsets.group(sink.subsets.output(name, options)), len(groups)) for name in subsets]
    folders = np.array(found, dtype=np.int64)[images.subsets] << 32
    if sink.can.classes_are_folders:
        folders += images.labels.astype(np.int64) + 1
    names = images.wholes if sink.can.ids_are_paths else images.names
    strict, twice = strict_names(folders, names, images.ids, images.wholes)
    if twice:
        first, second = map(place, twice)
        where = "all subsets in one folder" if "subsets" in sink.can.losses else "the images of a subset in one folder"
        raise UsageError(
            f"{first} and {second} would become the same file: their ids are equal, and {sink.name} puts {where}; "
            "convert one --subset at a time, or renumber the items with --transform reindex"
        )
    return strict


def refuse_bad_rows(summaries: Sequence[FileSummary]) -> None:
    """Raises `RowError` for the first bad row, if there is one."""
    count = sum(summary.bad_count for summary in summaries)
    if count:
        first = next(bad for summary in summaries for bad in summary.bad_rows)
        more = f" (and {count - 1} more bad rows)" if count > 1 else ""
        raise RowError(f"{first}{more}")


def refuse_unreadable(rows: Iterable[BadRow]) -> None:
    """Raises `RowError` for the first of some selected rows whose images have no valid header."""
    for bad in rows:
        raise RowError(bad.error)


def check_shards(shards: Sequence[Shard], sink: Sink, options: SinkOptions) -> None:
    """Raises `UsageError` for files that the format cannot represent, or that would have the same path."""
    taken = set(sink.can.reserved_paths)
    for shard in shards:
        if shard.path in taken and not sink.can.many_files:
            raise UsageError(
                f"two output files would both be named {shard.path!r}; convert the subsets one at a time with --subset"
            )
        taken.add(shard.path)
        if sink.can.one_size and shard.rows and shard.has_images and shard.size is None:
            raise UsageError(f"{shard.path}: images differ in size, but {sink.name} needs one size; pass --resize HxW")
        sink.check_shard(shard, options)


@dataclass(frozen=True)
class Held:
    """What the rows of a job have, which its output may lack.

    Attributes:
        images: whether any row has an image.
        labelled: whether any row has a label.
        subsets: names of the output subsets with rows.
        formats: names of the input formats.
    """

    images: bool
    labelled: bool
    subsets: Sequence[str] = ()
    formats: Sequence[str] = ()


def losses_of(held: Held, sink: Sink, options: SinkOptions, *, strict: bool = False) -> tuple[str, ...]:
    """Returns what the rows have and the output lacks, as words of `LOSSES`.

    Raises:
        UsageError: there is something, and `strict` is true.
    """
    encoding = sink.encodings(options.export)[0]
    read = [get_sink(name).can for name in held.formats if name in WRITE]
    known = len(read) == len(held.formats) > 0
    lost = {
        "pixels": held.images and not options.export.save_images,
        "colour": held.images and encoding == GRAY and not (known and all(can.pixels == GRAY for can in read)),
        "jpeg": held.images and encoding == "jpeg",
        "labels": held.labelled,
        "subsets": len(set(map(split_name, held.subsets))) > 1,
        "ids": not (known and all("ids" in can.losses for can in read)),
        "superclasses": options.labels.has_superclasses,
    }
    found = tuple(loss for loss, has in lost.items() if has and loss in {"pixels", *sink.can.losses})
    if strict and found:
        raise UsageError(f"--strict: {''.join(lacking(found, sink))}; nothing was written")
    return found


def lacking(losses: Sequence[str], sink: Sink) -> Iterator[str]:
    """Yields one notice about everything that an output lacks."""
    if losses:
        yield f"{sink.name} output has no {', no '.join(LOSSES[loss] for loss in losses)}"


def lossy(encodings: Sequence[str], sink: Sink) -> Iterator[str]:
    """Yields a notice if the images are encoded lossily only because it was asked for."""
    if encodings[0] == "jpeg" and "jpeg" not in sink.can.losses:
        yield "images become JPEG files (quality 95, 4:4:4), which is lossy; JPEG files are copied unchanged"
