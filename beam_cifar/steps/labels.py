"""Steps that change classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from beam_cifar.data.labels import UNLABELLED, LabelTable, merged_away, remap_table, unknown_name
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.steps.base import Step, StepContext, option, pair
from beam_cifar.steps.subsets import refuse_two_targets


@dataclass(frozen=True)
class RemapClasses(Step, named="remap_labels"):
    """Renames, merges or removes classes; the ids of classes do not change.

    A superclass may be given as well: it is renamed, or all its classes are removed.
    """

    mapping: tuple[tuple[str, str], ...] = option(
        "-l",
        "--label",
        many=True,
        parse=pair,
        metavar="SRC:DST",
        help="rename a class; an existing name merges the two, an empty one removes the class from its items",
    )
    default: str = option("--default", default="keep", choices=("keep", "delete"), help="what to do with other classes")

    def check(self) -> None:
        if self.default not in ("keep", "delete"):
            raise self.refuse(str(unknown_name("--default", self.default, ("keep", "delete"))))
        refuse_two_targets(self, self.mapping)

    def apply(self, view: View, context: StepContext) -> View:
        names = view.table.names
        label_map = remap_table(view.table, [renaming for renaming in self.mapping if renaming[1]])
        gone = self._removed(view.table)
        for notice in merged_away(label_map, view.table):
            context.notice(notice)
        if gone:
            context.notice(f"remap_labels: items of {_some(names, gone)} become unlabelled")
        targets = [UNLABELLED if label in gone else target for label, target in enumerate(label_map.targets)]
        return view.with_labels(targets, label_map.table)

    def _removed(self, table: LabelTable) -> set[int]:
        """Returns the classes whose items become unlabelled."""
        gone: set[int] = set()
        named: set[int] = set()
        for source, target in self.mapping:
            labels = _classes(table, source)
            named |= labels
            if not target:
                gone |= labels
        return gone if self.default == "keep" else gone | set(range(len(table.names))) - named


@dataclass(frozen=True)
class ProjectLabels(Step, named="project_labels"):
    """Replaces the classes with a list of names, in that order; items of other classes become unlabelled."""

    dst_labels: tuple[str, ...] = option(
        "-l", "--label", many=True, metavar="NAME", help="class name, existing or new, in the desired order"
    )

    def check(self) -> None:
        if not self.dst_labels:
            raise self.refuse("--label is required at least once")
        for at, name in enumerate(self.dst_labels):
            if not name:
                raise self.refuse("--label is empty; expected a class name")
            if name in self.dst_labels[:at]:
                raise self.refuse(f"class {name!r} is given twice")

    def apply(self, view: View, context: StepContext) -> View:
        table = view.table
        places = {name: place for place, name in enumerate(self.dst_labels)}
        targets = [places.get(name, UNLABELLED) for name in table.names]
        parents: list[int | None] = [None] * len(places)
        for place, parent in zip(targets, table.parents, strict=False):
            if place != UNLABELLED:
                parents[place] = parent
        made = view.with_labels(targets, _table(self.dst_labels, table.coarse_names, parents))
        _note_changes(self, table, made.table, context)
        if lost := _newly_unlabelled(view, made):
            context.notice(f"project_labels: {counted(lost, 'item', verb='become')} unlabelled, of unlisted classes")
        if added := [name for name in places if name not in table.names]:
            context.notice(f"project_labels: adds {_some(added, range(len(added)))}, with no rows")
        return made


@dataclass(frozen=True)
class FineToCoarse(Step, named="fine_to_coarse"):
    """Makes the superclass of every item its class."""

    def apply(self, view: View, context: StepContext) -> View:
        table = view.table
        if not table.has_superclasses:
            raise self.refuse("the dataset has no superclasses; only datasets such as CIFAR-100 do")
        targets = [UNLABELLED if parent is None else parent for parent in table.parents]
        made = view.with_labels(targets, LabelTable(table.coarse_names))
        context.notice(
            f"fine_to_coarse: the {counted(len(table.coarse_names), 'superclass', verb='become')} the classes"
        )
        if lost := _newly_unlabelled(view, made):
            context.notice(
                f"fine_to_coarse: {counted(lost, 'item', verb='become')} unlabelled, of classes without a superclass"
            )
        return made


@dataclass(frozen=True)
class CompactLabels(Step, named="compact_labels"):
    """Drops classes and superclasses without items, and renumbers the others in order."""

    def apply(self, view: View, context: StepContext) -> View:
        table = view.table
        used = np.unique(view.labels[view.labels != UNLABELLED]).tolist()
        targets = [UNLABELLED] * len(table.names)
        for place, label in enumerate(used):
            targets[label] = place
        parents = [table.parents[label] for label in used] if table.has_superclasses else []
        made = view.with_labels(targets, _table([table.names[label] for label in used], table.coarse_names, parents))
        _note_changes(self, table, made.table, context)
        return made


def _classes(table: LabelTable, name: str) -> set[int]:
    """Returns the class of that name, or the classes of that superclass. Raises `UsageError` for an unknown name."""
    if name in table.names:
        return {table.names.index(name)}
    return set(table.classes_of(name))


def _table(names: Sequence[str], coarse_names: Sequence[str], parents: Sequence[int | None]) -> LabelTable:
    """Returns a label table with only the superclasses in use, in order."""
    used = sorted({parent for parent in parents if parent is not None})
    if not used:
        return LabelTable(tuple(names))
    moved = [None if parent is None else used.index(parent) for parent in parents]
    return LabelTable(tuple(names), tuple(coarse_names[parent] for parent in used), tuple(moved))


def _note_changes(step: Step, before: LabelTable, after: LabelTable, context: StepContext) -> None:
    """Reports which classes and superclasses were dropped, and whether the others get new ids."""
    dropped, moved = [], False
    for names, left, one, many in (
        (before.names, after.names, "class", "classes"),
        (before.coarse_names, after.coarse_names, "superclass", "superclasses"),
    ):
        if gone := [at for at, name in enumerate(names) if name not in left]:
            dropped.append(_some(names, gone, one, many))
        moved |= any(name in left and left.index(name) != at for at, name in enumerate(names))
    said = [f"drops {' and '.join(dropped)}"] if dropped else []
    if before.has_superclasses and not after.has_superclasses:
        said.append("no superclasses are left")
    if moved:
        said.append("the others get new ids" if dropped else "classes get new ids")
    if said:
        context.notice(f"{step.name}: {'; '.join(said)}")


def _newly_unlabelled(before: View, after: View) -> int:
    return int(np.count_nonzero((before.labels != UNLABELLED) & (after.labels == UNLABELLED)))


def _some(names: Sequence[str], which: Collection[int], one: str = "class", many: str = "classes") -> str:
    """Names up to five of some classes: "7 classes ('cat', 'dog', ...)", "class 'cat'"."""
    shown = [repr(names[label]) for label in sorted(which)[:5]]
    if len(which) == 1:
        return f"{one} {shown[0]}"
    return f"{len(which)} {many} ({', '.join(shown)}{', ...' if len(which) > 5 else ''})"
