"""Finds the bad rows of a job before it is planned, so that the plan can leave them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from beam_cifar.data.block import MAX_BYTES, MAX_ROWS, WHOLE_FILE, BadRow, Block
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.images.encodings import RAW
from beam_cifar.options import MaxErrors
from beam_cifar.planning.chosen_rows import OpenFiles, pieces
from beam_cifar.planning.plan import Inputs
from beam_cifar.steps.base import PixelStep, Step
from beam_cifar.steps.encode import encode_images

LISTING = "quarantine.jsonl"
"""Name of the list of bad rows, beside the manifest."""

Found: TypeAlias = Mapping[int, Sequence[BadRow]]
"""Bad rows by the index of their file; at `WHOLE_FILE` the files that cannot be opened, which have no index."""


@dataclass
class Quarantine:
    """The bad rows of a job.

    Attributes:
        encodings: encodings in which images may reach the writer; empty if images are not written.
        limit: how many rows may be bad; None for no limit.
        found: what was found so far.
    """

    encodings: Sequence[str]
    limit: MaxErrors | None = None
    found: dict[int, list[BadRow]] = field(default_factory=dict)
    _count: int = 0

    def add(self, file: int, bad: BadRow) -> None:
        """Adds a bad row of an input file."""
        self._count += 1
        reason = bad.error.removeprefix(f"{bad.file}: ").removeprefix(f"row {bad.row}: ")  # the record has both
        self.found.setdefault(file, []).append(bad if reason == bad.error else replace(bad, error=reason))

    def without_bad_rows(self, view: View, inputs: Inputs, steps: Sequence[Step], total: int) -> View:
        """Reads every image of a view as the job will, and returns the rows whose images are fine.

        Args:
            view: the rows that are checked.
            inputs: files and formats to read them from.
            steps: steps that are still to be applied to them.
            total: number of rows of the input.

        Raises:
            InputError: more rows are bad than allowed.
        """
        decodes = any(step.reads or (isinstance(step, PixelStep) and self.encodings) for step in steps)
        kept = np.ones(len(view), dtype=np.bool_)
        self._refuse_too_many(total)
        with OpenFiles(inputs) as opened:
            for file in np.unique(view.files).tolist():
                here = view.files == file
                check, bad = _Check(file, opened, (RAW,) if decodes else self.encodings), list[int]()
                for row, error in check.errors(np.unique(view.rows[here]).tolist(), inputs.image_bytes[file]):
                    self.add(file, inputs.files[file].bad_row(row, error, stage="image"))
                    self._refuse_too_many(total)
                    bad.append(row)
                kept[here] = ~np.isin(view.rows[here], bad)
        return view.take(kept)

    def _refuse_too_many(self, total: int) -> None:
        if self.limit is not None and self._count > self.limit.rows(total):
            files = len(self.found.get(WHOLE_FILE, ()))
            lost = f"{counted(files, 'file')} and " if files else ""
            lost += counted(self._count - files, "row", of=total, verb="are")
            raise InputError(
                f"{_first(self.found)} (at least {lost} bad, but "
                f"--max-errors is {self.limit.text}); raise --max-errors, or exclude the rows with --filter"
            )


@dataclass(frozen=True)
class _Check:
    """Reads images of one file, to find those that cannot be read.

    Attributes:
        file: index of the file.
        opened: the open input files.
        encodings: encodings that an image must be decoded into, unless it is in one of them.
    """

    file: int
    opened: OpenFiles
    encodings: Sequence[str]

    def errors(self, rows: Sequence[int], image_bytes: int) -> Iterator[tuple[int, str]]:
        """Yields number and reason of the bad ones among ascending rows."""
        step = max(1, min(MAX_ROWS, MAX_BYTES // max(1, image_bytes)))
        for at in range(0, len(rows), step):
            yield from self._errors(rows[at : at + step])

    def _errors(self, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        try:
            self._read(rows)
            return
        except InputError as error:
            if len(rows) == 1:
                yield rows[0], str(error)
                return
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            yield from self._errors(half)

    def _read(self, rows: Sequence[int]) -> None:
        table = self.opened.take(np.full(len(rows), self.file, np.int32), np.array(rows, np.int32), 0)
        for start, stop in pieces(table, 0):
            block = Block(table.slice(start, stop - start), 0, 0, 0, last=False, read=Counter())
            if self.encodings:
                encode_images(block, encodings=tuple(self.encodings))


def bad_count(found: Found) -> int:
    """Returns the number of bad rows, without files that cannot be opened."""
    return sum(len(rows) for file, rows in found.items() if file != WHOLE_FILE)


def _first(found: Found) -> BadRow:
    """Returns what is worst: a file that cannot be opened, else the first bad row."""
    return found[min(found)][0]


def told(found: Found) -> Iterator[str]:
    """Yields a notice if rows or files were set aside."""
    files, rows = len(found.get(WHOLE_FILE, ())), bad_count(found)
    what = [counted(files, "file that cannot be read", "files that cannot be read")] if files else []
    what += [counted(rows, "bad row")] if rows else []
    if what:
        were = "were" if files + rows > 1 else "was"
        yield f"{' and '.join(what)} {were} set aside, such as {_first(found)}; see {LISTING} beside the manifest"
