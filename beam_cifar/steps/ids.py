"""Steps that change ids."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.naming.ids import unique_ids
from beam_cifar.steps.base import Step, StepContext, option

_NAMES: Final = frozenset({"id", "filename"})


@dataclass(frozen=True)
class Rename(Step, named="rename", columns=_NAMES):
    """Replaces matches of a regular expression in ids."""

    moves_ids: ClassVar[bool] = True

    regex: str = option(
        "-e",
        "--regex",
        metavar="|SEARCH|REPLACEMENT|",
        help="Python regular expression and its replacement; the first character is the delimiter",
    )

    def check(self) -> None:
        self._parts()

    def apply(self, view: View, context: StepContext) -> View:
        search, replacement = self._parts()
        before = _listed(view.ids)
        after = [search.sub(replacement, item_id) for item_id in before]
        if "" in after:
            row = after.index("")
            subset = view.subset_names[view.subsets[row]]
            raise self.refuse(f"{self.regex!r} makes id {before[row]!r} in subset {subset!r} empty")
        if before == after:
            context.notice(f"rename: {self.regex!r} changes none of {counted(len(view), 'id')}")
            return view
        return view.with_ids(pa.array(after, pa.string()))

    def _parts(self) -> tuple[re.Pattern[str], str]:
        """The pattern and its replacement. Raises `UsageError`."""
        parts = self.regex[1:].split(self.regex[:1] or None)
        if len(parts) not in (2, 3) or not parts[0] or any(parts[2:]):
            reason = f"expected |SEARCH|REPLACEMENT|, found {self.regex!r}"
            raise self.refuse(f"{reason}; the delimiter, its first character, must not occur in SEARCH or REPLACEMENT")
        try:
            search = re.compile(parts[0])
            search.sub(parts[1], "")  # parses the replacement, even without a match
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            raise self.refuse(f"{self.regex!r}: {error}") from error
        return search, parts[1]


@dataclass(frozen=True)
class Reindex(Step, named="reindex", columns=_NAMES):
    """Replaces ids with numbers, counted over all subsets in the order in which items are written."""

    start: int = option("-s", "--start", default=1, metavar="N", help="first number")

    def check(self) -> None:
        # Far enough from the limits of 64 bits that no number of rows reaches them.
        if abs(self.start) > 1 << 62:
            raise self.refuse(f"--start must be from -{1 << 62} to {1 << 62}, found {self.start}")

    def apply(self, view: View, context: StepContext) -> View:
        numbers = np.empty(len(view), dtype=np.int64)
        numbers[np.argsort(view.subsets, kind="stable")] = np.arange(self.start, self.start + len(view))
        return view.with_ids(pa.array(numbers).cast(pa.string()))


@dataclass(frozen=True)
class IdFromImageName(Step, named="id_from_image_name", columns=_NAMES):
    """Uses the image's file name, without folder and extension, as the id; items without a file name keep theirs."""

    moves_ids: ClassVar[bool] = True

    ensure_unique: bool = option(
        "-u", "--ensure_unique", default=False, help="add a suffix to ids that repeat within a subset: _2, _3, ..."
    )

    def apply(self, view: View, context: StepContext) -> View:
        stems = [os.path.splitext(name.rpartition("/")[2])[0] for name in _listed(view.filenames)]
        ids = [stem or item_id for stem, item_id in zip(stems, _listed(view.ids), strict=True)]
        if self.ensure_unique:
            ids = _unique_in_subsets(view, ids)
        return view.with_ids(pa.array(ids, pa.string()))


def _listed(column: Any) -> list[str]:
    made: list[str] = column.to_pylist()
    return made


def _unique_in_subsets(view: View, ids: list[str]) -> list[str]:
    made = list(ids)
    for subset in range(len(view.subset_names)):
        rows = np.flatnonzero(view.subsets == subset).tolist()
        for row, item_id in zip(rows, unique_ids([ids[row] for row in rows])[0], strict=True):
            made[row] = item_id
    return made
