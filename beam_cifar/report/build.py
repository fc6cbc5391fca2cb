"""Builds the HTML report on a dataset: counts, classes, pictures, sizes, duplicates, and how it was made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from beam_cifar import storage
from beam_cifar.analysis.stats import Stats, stats
from beam_cifar.errors import InputError, OutputError, UsageError
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import BeamOptions
from beam_cifar.planning.gather import look
from beam_cifar.report.model import Report, Tile
from beam_cifar.report.page import page
from beam_cifar.report.pictures import Picks, draw_tiles, drawn_sheets, empty_tiles, pick
from beam_cifar.report.provenance import read_provenance

MAX_PAGE_BYTES: Final = 4_900_000
"""Maximum size of a page; what the text leaves is used for pictures."""


@dataclass(frozen=True)
class Written:
    """A report that was written: its absolute path, size, number of pictures, and statistics."""

    path: str
    bytes: int
    pictures: int
    stats: Stats


def report(
    path: str,
    output: str,
    input_format: str | None = None,
    subsets: Sequence[str] = (),
    *,
    title: str | None = None,
    overwrite: bool = False,
    images: ImageOptions = AS_STORED,
    workers: int | None = None,
    beam_options: BeamOptions = (),
) -> Written:
    """Writes a self-contained HTML report on a dataset: one file with its pictures, without network or scripts.

    Args:
        path: directory or archive.
        output: file to create.
        input_format: name of the format; detected if None.
        subsets: names of the subsets to read; all if empty.
        title: page title; the last component of `path` if None.
        overwrite: replace an existing file.
        images: how images are read.
        workers: number of local workers; chosen automatically if None.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.

    Raises:
        InputError: the dataset is missing or damaged.
        OutputError: the file already exists.
        BeamCifarError: any other failure; the message is one line.
    """
    path, output = storage.absolute(path, "input"), storage.absolute(output, "output")
    if storage.is_url(output):
        raise UsageError(f"output {output!r}: must be a local file; copy it to the object store afterwards")
    _check_output(path, output, overwrite=overwrite)
    found = stats(path, input_format, subsets, images=images, workers=workers, beam_options=beam_options)
    made, pictures = _with_pictures(_text_of(found, path, title, partial=bool(subsets)), subsets, images)
    data = page(made).encode()
    _check_output(path, output, overwrite=overwrite)  # again: reading took a while
    _write(output, data)
    return Written(output, len(data), pictures, found)


def _check_output(path: str, output: str, *, overwrite: bool) -> None:
    if storage.is_folder(output):
        raise OutputError(f"{output}: is a directory; give a file name, such as report.html")
    if storage.exists(output) and not overwrite:
        raise OutputError(f"{output}: already exists; replace it with --overwrite, or choose another output")
    inside = path if storage.is_url(path) else os.path.realpath(path)
    if os.path.realpath(output) == inside or storage.contains(inside, os.path.realpath(output)):
        raise OutputError(f"{output}: is inside the dataset {path}; choose another output")


def _text_of(found: Stats, path: str, title: str | None, *, partial: bool) -> Report:
    """Returns the report without its pictures."""
    name = os.path.basename(path) or path
    # Pages are shared: they must not reveal the directories of their author.
    notices = tuple(notice.replace(os.path.dirname(path).rstrip(os.sep) + os.sep, "") for notice in found.notices)
    made = Report(replace(found, notices=notices), name, title or name, partial=partial)
    try:
        return replace(made, provenance=read_provenance(path))
    except InputError as error:
        return replace(made, provenance_error=f"How it was made is unknown: {error}.")


def _with_pictures(made: Report, subsets: Sequence[str], images: ImageOptions) -> tuple[Report, int]:
    """Returns the report with the pictures that its text leaves room for, and their number."""
    if not made.stats.images:
        return made, 0
    with storage.TemporaryFolder() as folder:
        given = Input(made.stats.path, made.stats.format, tuple(subsets), images=images)
        gathering, view = look(given, (), folder, frozenset({"id"}))
        picks = pick(view, made.stats.groups)
        tiles = empty_tiles(picks, view)
        room = MAX_PAGE_BYTES - len(page(_placed(made, picks, tiles)).encode())
        tiles = draw_tiles(tiles, view, gathering, room // picks.uses)
    return _placed(made, picks, tiles), len(tiles)


def _placed(made: Report, picks: Picks, tiles: dict[int, Tile]) -> Report:
    missing = Tile("", "")
    return replace(
        made, sheets=drawn_sheets(picks, tiles), duplicates=tuple(tiles.get(at, missing) for at in picks.duplicates)
    )


def _write(output: str, data: bytes) -> None:
    folder = os.path.dirname(output)
    scratch = os.path.join(folder, f".beam_cifar-{uuid.uuid4().hex}")
    with storage.writing(output):
        try:
            os.makedirs(folder, exist_ok=True)
            storage.write_whole(output, data, scratch)
        finally:
            if storage.is_folder(scratch):
                os.rmdir(scratch)
