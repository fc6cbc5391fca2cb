"""What a format cannot hold, in one line each: the same words from every plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beam_cifar.errors import InputError, UsageError

if TYPE_CHECKING:
    from beam_cifar.formats.base import Sink


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
