"""What cannot be done, in one line each: the same words from every plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import ExportOptions, FileSummary, Shard, SinkOptions
from beam_cifar.images.encodings import GRAY
from beam_cifar.naming.collisions import strict_names


def refuse_missing_images(
    where: str, count: int, sink: Sink, hint: str = "--filter '/item[image]'", first: int | None = None
) -> None:
    """Refuses rows without image.

    Args:
        where: the file or subset that they are in.
        count: how many such rows there are.
        sink: format to write.
        hint: what leaves them out.
        first: the first such row, where it is known.

    Raises:
        InputError: there are any.
    """
    if not count:
        return
    found = f"{count} rows have no image" if first is None else f"row {first}: has no image"
    more = f" ({count} such rows)" if first is not None else ""
    raise InputError(f"{where}: {found}, and {sink.name} is made of images{more}; leave them out by {hint}")


def refuse_unlabelled(where: str, count: int, sink: Sink) -> None:
    """Refuses rows without label, as `refuse_missing_images` does those without image."""
    if count:
        raise InputError(
            f"{where}: {count} rows have no label, and {sink.name} has one for every image; leave them out by --filter "
            "'/item[annotation]'"
        )


@dataclass(frozen=True)
class Named:
    """Images, and digests of what they may be called.

    Attributes:
        subsets: int `[N]`, a number for the subset of each.
        labels: int `[N]`, as they are written, -1 for unlabelled.
        ids: uint64 `[N]`, of the ids.
        names: uint64 `[N]`, of the short names, equal for those that some file systems do not tell apart.
        wholes: uint64 `[N]`, the same of the ids as names.
    """

    subsets: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    ids: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    wholes: npt.NDArray[np.uint64]


def names_that_clash(
    images: Named, subsets: Sequence[str], sink: Sink, options: ExportOptions, place: Callable[[int], str]
) -> frozenset[int]:
    """Digests of short names that several images of one folder of the output would get.

    Args:
        images: all that are written.
        subsets: what the numbers of subsets stand for.
        sink: format to write.
        options: of the export.
        place: how messages name the image at a position.

    Raises:
        UsageError: two images of one folder have the same id as well, which nothing can tell apart.
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
            f"{first} and {second} would be one file, because their ids are equal and {sink.name} keeps {where}; "
            "convert one --subset at a time, or number the items by --transform reindex"
        )
    return strict


def refuse_bad_rows(summaries: Sequence[FileSummary]) -> None:
    """Raises `InputError` for the first row that cannot be kept."""
    count = sum(summary.bad_count for summary in summaries)
    if count:
        first = next(bad for summary in summaries for bad in summary.bad_rows)
        more = f" (and {count - 1} more bad rows)" if count > 1 else ""
        raise InputError(f"{first}{more}")


def check_shards(shards: Sequence[Shard], sink: Sink, options: SinkOptions) -> None:
    """Refuses files that the format cannot hold, or that would be one. Raises `UsageError`."""
    taken = set(sink.can.reserved_paths)
    for shard in shards:
        if shard.path in taken and not sink.can.many_files:
            raise UsageError(
                f"two files of the output would be called {shard.path!r}; convert the subsets one at a time with "
                "--subset"
            )
        taken.add(shard.path)
        if sink.can.one_size and shard.rows and shard.has_images and shard.size is None:
            raise UsageError(f"{shard.path}: {sink.name} holds images of one size, and these differ; pass --resize HxW")
        sink.check_shard(shard, options)


def lossy(encodings: Sequence[str]) -> Iterator[str]:
    """A line where images lose something by being encoded."""
    if encodings[0] == GRAY:
        yield "coloured images become gray (luma, ITU-R BT.601), which is lossy; gray ones stay as they are"
    if encodings[0] == "jpeg":
        yield "images become JPEG files (quality 95, 4:4:4), which is lossy; JPEG files pass through as they are"
