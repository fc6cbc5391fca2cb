"""Class names, their superclasses, and what selections and renamings do to them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from beam_cifar.data.grouping import by_key
from beam_cifar.errors import InputError, UsageError

UNLABELLED = -1
"""Stands for "no label" wherever labels are plain integers; never a row of the table."""


@dataclass(frozen=True)
class LabelTable:
    """The classes of a dataset, in the order of their ids.

    Attributes:
        names: class names; a label is an index in this tuple (the fine label of CIFAR-100).
        coarse_names: superclass names; empty where the dataset has no superclasses.
        parents: for each class the index of its superclass, or None where it is not known;
            empty where the dataset has no superclasses.

    >>> from beam_cifar import LabelTable
    >>> LabelTable(("cat", "car"), ("animal", "vehicle"), (0, 1)).classes_of("animal")
    frozenset({0})
    """

    names: tuple[str, ...]
    coarse_names: tuple[str, ...] = ()
    parents: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.coarse_names and len(self.parents) != len(self.names):
            raise ValueError(f"{len(self.names)} classes, but {len(self.parents)} parents")

    @property
    def has_superclasses(self) -> bool:
        """Whether classes are grouped, as in CIFAR-100."""
        return bool(self.coarse_names)

    def name(self, label: int) -> str | None:
        """The name of a label, or None for an unlabelled row."""
        return None if label == UNLABELLED else self.names[label]

    def classes_of(self, name: str) -> frozenset[int]:
        """The ids that a class or superclass name stands for; raises `UsageError` for an unknown one."""
        found = {i for i, known in enumerate(self.names) if known == name}
        if name in self.coarse_names:
            coarse = self.coarse_names.index(name)
            found |= {i for i, parent in enumerate(self.parents) if parent == coarse}
        elif not found:
            raise unknown_name("label", name, self.names + self.coarse_names)
        return frozenset(found)

    def select(self, names: Iterable[str]) -> frozenset[int]:
        """The ids that any of the names stands for; raises `UsageError` for an unknown one."""
        return frozenset().union(*(self.classes_of(name) for name in names))


@dataclass(frozen=True)
class LabelMap:
    """Where each label of the source goes.

    Attributes:
        targets: for each source label its label in `table`.
        table: the label table after the change; it has as many classes as before, because ids are never
            renumbered: a class whose rows all went elsewhere stays, without rows.
    """

    targets: tuple[int, ...]
    table: LabelTable

    def __getitem__(self, label: int) -> int:
        """The new label of an old one; unlabelled stays unlabelled."""
        return UNLABELLED if label == UNLABELLED else self.targets[label]

    @property
    def is_identity(self) -> bool:
        """Whether every label keeps its id (names may still change)."""
        return all(target == label for label, target in enumerate(self.targets))


def are_parents(parents: object, classes: int, superclasses: int) -> bool:
    """Whether a value that was read says the superclass of each class, or None."""
    return (
        isinstance(parents, list)
        and len(parents) == classes
        and all(parent is None or (type(parent) is int and 0 <= parent < superclasses) for parent in parents)
    )


def outside_table(label: int, count: int, known: str = "") -> str:
    """Why a row is bad whose label is none of `count` classes; `known` says which there are.

    >>> outside_table(12, 10)
    'label 12 is outside the label table, which has 10 classes (0 to 9)'
    """
    return f"label {label} is outside the label table, which has {known or f'{count} classes (0 to {count - 1})'}"


def outside_superclasses(label: int, count: int) -> str:
    """The same for a superclass."""
    return f"coarse label {label} is outside the table, which has {count} superclasses (0 to {count - 1})"


def parent_conflict(table: LabelTable, label: int, first: tuple[str, int], second: tuple[str, int]) -> InputError:
    """The error for a class that two rows give two superclasses; each is (where, superclass)."""
    return InputError(
        f"class {table.names[label]!r} has superclass {table.coarse_names[first[1]]!r} in {first[0]}, "
        f"but {table.coarse_names[second[1]]!r} in {second[0]}; a class belongs to one superclass"
    )


def refuse_repeated(names: Sequence[str], why: str, what: str = "classes") -> None:
    """Refuses two classes of one name, for formats that cannot keep them apart.

    Args:
        names: of all classes.
        why: what makes it impossible, such as "and would be one folder".
        what: "classes" or "superclasses".

    Raises:
        UsageError: a name is there twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"two {what} are called {name!r}, {why}; rename one by --remap")
        seen.add(name)


def unknown_name(what: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest ones that do."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        shown = ", ".join(repr(n) for n in known[:12])
        hint = f"known: {shown}{', ...' if len(known) > 12 else ''}" if known else "there are none"
    return UsageError(f"unknown {what} {name!r}; {hint}")


def remap_table(table: LabelTable, renamings: Sequence[tuple[str, str]]) -> LabelMap:
    """Applies renamings (old, new), all at once, to a label table.

    A class whose new name exists already merges into the class that has it; several classes with one new
    name merge into the one with the lowest id. A merged row takes the superclass of the class that it joins.
    An old name may also be a superclass, which is then renamed or merged itself.

    Raises:
        UsageError: an unknown old name, an empty new one, or an old one that is given twice.
    """
    fine: dict[int, str] = {}
    coarse: dict[int, str] = {}
    for old, new in renamings:
        if not new:
            raise UsageError(f"--remap: the new name of {old!r} is empty")
        if old not in table.names and old not in table.coarse_names:
            raise unknown_name("label", old, table.names + table.coarse_names)
        names, moves = (table.names, fine) if old in table.names else (table.coarse_names, coarse)
        position = names.index(old)
        if moves.setdefault(position, new) != new:
            raise UsageError(f"--remap: {old!r} is given two new names, {moves[position]!r} and {new!r}")
    names, targets = _move_names(table.names, fine)
    coarse_names, coarse_targets = _move_names(table.coarse_names, coarse)
    parents = [None if parent is None else coarse_targets[parent] for parent in table.parents]
    for label, target in enumerate(targets):
        if parents and parents[target] is None:
            parents[target] = parents[label]
    return LabelMap(targets, LabelTable(names, coarse_names, tuple(parents)))


def merged_away(label_map: LabelMap, table: LabelTable) -> Iterator[str]:
    """A line for each class of a table that a renaming leaves without rows."""
    taken = set(label_map.targets)
    for label in range(len(table.names)):
        if label not in taken:
            yield f"class {label_map.table.names[label]!r} is merged away; its id stays in the table, without rows"


def split_renamings(table: LabelTable, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Splits texts `OLD:NEW`; see `remap_table`. Raises `UsageError` for one without a colon or a known OLD."""
    return [_split_renaming(text, table) for text in texts]


def _split_renaming(renaming: str, table: LabelTable) -> tuple[str, str]:
    """Names may hold colons themselves: the first split with a known OLD counts."""
    known = table.names + table.coarse_names
    cuts = [i for i, char in enumerate(renaming) if char == ":"]
    if not cuts:
        raise UsageError(f"--remap takes OLD:NEW, found {renaming!r}")
    for cut in cuts:
        if renaming[:cut] in known:
            return renaming[:cut], renaming[cut + 1 :]
    raise unknown_name("label", renaming[: cuts[0]], known)


def _move_names(names: tuple[str, ...], moves: dict[int, str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Renames entries in place and merges those whose new name is taken: (new names, target of each entry)."""
    slots = list(names)
    groups = by_key((moves[position], position) for position in sorted(moves))
    targets = list(range(len(names)))
    # A name that is free now, or becomes free because its owner is renamed away, is taken in place.
    while free := [new for new in groups if new not in slots]:
        for new in free:
            slots[groups[new][0]] = new
            for position in groups[new]:
                targets[position] = groups[new][0]
            del groups[new]
    for new, positions in groups.items():
        for position in positions:
            targets[position] = slots.index(new)
    return tuple(slots), tuple(targets)
