"""What a format cannot hold, in one line each: the same words from every plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import Shard, SinkOptions
from beam_cifar.images.encodings import GRAY


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


def one_file(first: str, second: str, sink: Sink) -> UsageError:
    """Two images would be written to one file, as nothing tells them apart."""
    where = "all subsets in one folder" if "subsets" in sink.can.losses else "the images of a subset in one folder"
    return UsageError(
        f"{first} and {second} would be one file, because their ids are equal and {sink.name} keeps {where}; convert "
        "one --subset at a time, or number the items by --transform reindex"
    )


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
