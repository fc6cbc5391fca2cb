"""Merges several datasets into one: label tables by name, items by id and subset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.labels import LabelMap, LabelTable
from beam_cifar.data.row_table import View, joined
from beam_cifar.data.text import counted
from beam_cifar.errors import UsageError
from beam_cifar.naming.ids import unique_ids
from beam_cifar.naming.image_files import digests
from beam_cifar.options import ON_CLASH

PIECE = 1 << 14
"""Number of ids converted from Arrow at a time."""


def union_tables(tables: Sequence[LabelTable], shown: Sequence[str] = ()) -> list[LabelMap]:
    """Merges label tables into one, in order of appearance; classes with the same name become one class.

    A class keeps the superclass that any of the tables gives it; tables without superclasses have no say.

    Args:
        tables: label tables of the datasets.
        shown: display names of the datasets, used in messages.

    Returns:
        One label map per dataset, all with the same table.

    Raises:
        UsageError: two tables give the same class different superclasses.
    """
    names: dict[tuple[str, int], int] = {}
    coarse_names = tuple(dict.fromkeys(name for table in tables for name in table.coarse_names))
    parents: list[int | None] = []
    said: dict[int, str] = {}
    targets = []
    for table, here in zip(tables, shown or [""] * len(tables), strict=True):
        found = []
        for label, key in enumerate(_numbered(table.names)):
            target = names.setdefault(key, len(names))
            if target == len(parents):
                parents.append(None)
            found.append(target)
            own = table.parents[label] if table.has_superclasses else None
            if own is None:
                continue
            parent = coarse_names.index(table.coarse_names[own])
            if parents[target] not in (None, parent):
                raise UsageError(
                    f"class {key[0]!r} has superclass {coarse_names[parents[target] or 0]!r} in {said[target]}, but "
                    f"{coarse_names[parent]!r} in {here}; rename one of the classes before merging"
                )
            parents[target] = parent
            said.setdefault(target, here)
        targets.append(tuple(found))
    table = LabelTable(tuple(name for name, _ in names), coarse_names, tuple(parents) if coarse_names else ())
    return [LabelMap(found, table) for found in targets]


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Returns each name with its number among equal names: a table may have duplicates."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        made.append((name, seen.get(name, 0)))
        seen[name] = seen.get(name, 0) + 1
    return made


def merged(views: Sequence[View], table: LabelTable, on_clash: str, notice: Callable[[str], None]) -> View:
    """Returns the rows of several views that share a label table; a rule resolves clashing ids.

    Args:
        views: views with ids and file names, each without clashes of its own.
        table: label table that they share.
        on_clash: what to do with items that have the same id and subset: "error" rejects them, "suffix" adds a suffix
            to the later ones, and "first" keeps only the first.
        notice: called with a line that says what was done.

    Raises:
        UsageError: ids clash, and the rule is "error".
    """
    view = joined(views, table)
    later = repeated(view)
    if not later.any():
        return view
    count = int(later.sum())
    first = int(np.flatnonzero(later)[0])
    item_id, subset = view.ids[first].as_py(), view.subset_names[view.subsets[first]]  # type: ignore[index]
    items = counted(count, "item")
    if on_clash == "error":
        raise UsageError(
            f"{items} with clashing ids: {item_id!r} is in subset {subset!r} of more than one dataset; choose how to "
            f"resolve this with --on-clash ({', '.join(ON_CLASH[1:])}), or rename the subsets"
        )
    if on_clash == "suffix":
        return with_unique_ids(view, notice)
    notice(f"{items} dropped, such as {item_id!r} in {subset!r}: an earlier dataset has the same id in the same subset")
    return view.take(~later)


def with_unique_ids(view: View, notice: Callable[[str], None]) -> View:
    """Returns the rows with a suffix _2, _3, ... added to every repetition of an id within a subset."""
    later = repeated(view)
    if not later.any() or view.ids is None:
        return view
    ids = np.array(view.ids.to_pylist(), dtype=object)
    for subset in np.unique(view.subsets[later]):
        members = np.flatnonzero(view.subsets == subset)
        ids[members] = unique_ids(ids[members].tolist())[0]
    first, count = int(np.flatnonzero(later)[0]), int(later.sum())
    items = counted(count, "item repeats an id of its subset", "items repeat an id of their subset")
    example = f"{view.ids[first].as_py()!r} in {view.subset_names[view.subsets[first]]!r}"
    notice(f"{items}{', such as' if count > 1 else ':'} {example}; a suffix was added")
    return view.with_ids(pa.array(ids.tolist(), pa.string()))


def repeated(view: View) -> npt.NDArray[np.bool_]:
    """Returns bool `[N]`, which rows repeat the id of an earlier row of their subset.

    Candidates are found by 64-bit digests, in 16 bytes per row, and then compared as strings.
    """
    if view.ids is None:
        raise ValueError("ids are needed")
    keys = np.empty(len(view), dtype=np.uint64)
    for start in range(0, len(view), PIECE):
        keys[start : start + PIECE] = digests(view.ids.slice(start, PIECE).to_pylist())
    order = np.lexsort((keys, view.subsets))  # stable: rows with equal keys stay in order
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    subsets = view.subsets[order]
    same &= subsets[1:] == subsets[:-1]
    del keys, subsets
    found = np.zeros(len(view), dtype=np.bool_)
    if not same.any():
        return found
    met = np.zeros(len(view), dtype=np.bool_)
    met[order[1:][same]] = met[order[:-1][same]] = True
    seen: set[tuple[int, str]] = set()
    for row in np.flatnonzero(met):
        key = int(view.subsets[row]), view.ids[int(row)].as_py()
        found[row] = key in seen
        seen.add(key)
    return found
