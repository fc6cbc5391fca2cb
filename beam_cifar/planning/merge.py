"""Several datasets become one: label tables by name, items by id and subset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.labels import LabelMap, LabelTable
from beam_cifar.data.row_table import View, joined
from beam_cifar.errors import UsageError
from beam_cifar.naming.ids import unique_ids
from beam_cifar.naming.image_files import digests
from beam_cifar.options import ON_CLASH

PIECE = 1 << 14
"""Ids that are taken out of Arrow together."""


def union_tables(tables: Sequence[LabelTable], shown: Sequence[str] = ()) -> list[LabelMap]:
    """One table of all classes, the first table's first; classes of one name are one class.

    A class keeps the superclass that any of the tables gives it; tables without superclasses say nothing.

    Args:
        tables: of the datasets.
        shown: how messages name these.

    Returns:
        For each dataset where its labels go, all with the same table.

    Raises:
        UsageError: two tables give one class two superclasses.
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
    """Each name with its number among equal ones: a table may hold one twice."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        made.append((name, seen.get(name, 0)))
        seen[name] = seen.get(name, 0) + 1
    return made


def merged(views: Sequence[View], table: LabelTable, on_clash: str, notice: Callable[[str], None]) -> View:
    """The rows of several views with labels of one table; where ids clash, a rule decides.

    Args:
        views: that have ids and file names, each without clashes of its own.
        table: of their labels.
        on_clash: what becomes of items of one subset that have the same id: "error" refuses them, "suffix" gives the
            later ones a suffix, and "first" keeps the first.
        notice: takes a line about what was done.

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
    items = f"{count} items" if count > 1 else "an item"
    if on_clash == "error":
        raise UsageError(
            f"{items} clash: id {item_id!r} is in subset {subset!r} of more than one dataset; choose what becomes of "
            f"them by --on-clash ({', '.join(ON_CLASH[1:])}), or give their subsets other names"
        )
    if on_clash == "suffix":
        return with_unique_ids(view, notice)
    notice(f"{items} of a later dataset with the id of an earlier one, such as {item_id!r} of {subset!r}: dropped")
    return view.take(~later)


def with_unique_ids(view: View, notice: Callable[[str], None]) -> View:
    """The same rows; every repetition of an id in its subset gets a suffix _2, _3, ..."""
    later = repeated(view)
    if not later.any() or view.ids is None:
        return view
    ids = np.array(view.ids.to_pylist(), dtype=object)
    for subset in np.unique(view.subsets[later]):
        members = np.flatnonzero(view.subsets == subset)
        ids[members] = unique_ids(ids[members].tolist())[0]
    first, count = int(np.flatnonzero(later)[0]), int(later.sum())
    items = f"{count} items repeat an id of their subset" if count > 1 else "an item repeats an id of its subset"
    example = f"{view.ids[first].as_py()!r} of {view.subset_names[view.subsets[first]]!r}"
    notice(f"{items}, such as {example}; {'their ids get' if count > 1 else 'its id gets'} a suffix")
    return view.with_ids(pa.array(ids.tolist(), pa.string()))


def repeated(view: View) -> npt.NDArray[np.bool_]:
    """Bool `[N]`: rows whose id an earlier row of their subset has.

    Candidates are found by 64-bit digests, 16 bytes a row, and compared as texts.
    """
    if view.ids is None:
        raise ValueError("ids are needed")
    keys = np.empty(len(view), dtype=np.uint64)
    for start in range(0, len(view), PIECE):
        keys[start : start + PIECE] = digests(view.ids.slice(start, PIECE).to_pylist())
    order = np.lexsort((keys, view.subsets))  # stable: rows of one key stay in order
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
