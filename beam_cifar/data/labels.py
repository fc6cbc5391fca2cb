"""The label table (classes and superclasses), and selecting and renaming labels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from beam_cifar.data.grouping import by_key
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError

UNLABELLED = -1
"""Means "no label" wherever labels are plain integers; never an index in the label table."""


@dataclass(frozen=True)
class LabelTable:
    """The classes of a dataset, in the order of their ids.

    Attributes:
        names: class names; a label is an index in this tuple (the fine label in CIFAR-100).
        coarse_names: superclass names; empty if the dataset has no superclasses.
        parents: for each class the index of its superclass, or None if unknown; empty if the dataset has no
            superclasses.

    >>> from beam_cifar import LabelTable
    >>> LabelTable(("cat", "car"), ("animal", "vehicle"), (0, 1)).classes_of("animal")
    frozenset({0})
    """

    names: tuple[str, ...]
    coarse_names: tuple[str, ...] = ()
    parents: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.coarse_names and len(self.parents) != len(self.names):
            raise ValueError(f"{len(self.names)} classes but {len(self.parents)} parents; expected one per class")

    @property
    def has_superclasses(self) -> bool:
        """Whether the dataset has superclasses, as CIFAR-100 does."""
        return bool(self.coarse_names)

    def name(self, label: int) -> str | None:
        """Returns the name of a label, or None for `UNLABELLED`."""
        return None if label == UNLABELLED else self.names[label]

    def classes_of(self, name: str) -> frozenset[int]:
        """Returns the labels of a class, or of all classes in a superclass. Raises `UsageError` for an unknown name."""
        found = {i for i, known in enumerate(self.names) if known == name}
        if name in self.coarse_names:
            coarse = self.coarse_names.index(name)
            found |= {i for i, parent in enumerate(self.parents) if parent == coarse}
        elif not found:
            raise unknown_name("label", name, self.names + self.coarse_names)
        return frozenset(found)

    def select(self, names: Iterable[str]) -> frozenset[int]:
        """Returns the labels of all the named classes and superclasses. Raises `UsageError` for an unknown name."""
        return frozenset().union(*(self.classes_of(name) for name in names))


@dataclass(frozen=True)
class LabelMap:
    """A mapping from old labels to new ones.

    Attributes:
        targets: for each old label the new one, an index in `table`.
        table: the label table after the change. Labels are never renumbered, so it has as many classes as before:
            a class that was merged into another one stays in the table, without rows.
    """

    targets: tuple[int, ...]
    table: LabelTable

    def __getitem__(self, label: int) -> int:
        """Returns the new label for an old one; unlabelled stays unlabelled."""
        return UNLABELLED if label == UNLABELLED else self.targets[label]

    @property
    def is_identity(self) -> bool:
        """Whether every label stays the same (names may still change)."""
        return all(target == label for label, target in enumerate(self.targets))


def are_parents(parents: object, classes: int, superclasses: int) -> bool:
    """Returns whether a value read from a file is a valid list of parents: a superclass or None for each class."""
    return (
        isinstance(parents, list)
        and len(parents) == classes
        and all(parent is None or (type(parent) is int and 0 <= parent < superclasses) for parent in parents)
    )


def outside_table(label: int, count: int, known: str = "") -> str:
    """Returns the reason to reject a row whose label is outside a table of `count` classes, described by `known`.

    >>> outside_table(12, 10)
    'label 12 is outside the label table, which has 10 classes (0 to 9)'
    """
    known = known or f"{counted(count, 'class')} (0 to {count - 1})"
    return f"label {label} is outside the label table, which has {known}"


def outside_superclasses(label: int, count: int) -> str:
    """Returns the reason to reject a row whose superclass is outside the table."""
    return (
        f"coarse label {label} is outside the label table, which has {counted(count, 'superclass')} (0 to {count - 1})"
    )


def parent_conflict(table: LabelTable, label: int, first: tuple[str, int], second: tuple[str, int]) -> InputError:
    """Returns the error for a class with two different superclasses, each given as (where it was found, superclass)."""
    return InputError(
        f"class {table.names[label]!r} has superclass {table.coarse_names[first[1]]!r} in {first[0]}, "
        f"but {table.coarse_names[second[1]]!r} in {second[0]}; expected one superclass per class"
    )


def refuse_repeated(names: Sequence[str], why: str, what: str = "classes") -> None:
    """Refuses two classes with the same name, for formats that cannot tell them apart.

    Args:
        names: names of all classes.
        why: the reason, as the end of a clause, such as "and would be one folder".
        what: "classes" or "superclasses".

    Raises:
        UsageError: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"two {what} are named {name!r}, {why}; rename one with --remap")
        seen.add(name)


def unknown_name(what: str, name: str, known: Sequence[str]) -> UsageError:
    """Returns the error for an unknown name, suggesting similar known ones."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        shown = ", ".join(repr(n) for n in known[:12])
        hint = f"known: {shown}{', ...' if len(known) > 12 else ''}" if known else "none are defined"
    return UsageError(f"unknown {what} {name!r}; {hint}")


def remap_table(table: LabelTable, renamings: Sequence[tuple[str, str]]) -> LabelMap:
    """Applies renamings (old, new) to a label table, all at once.

    If the new name is already taken, the class merges into the one that has it; classes given the same new name merge
    into the one with the lowest label. Merged rows get the superclass of the class they join. An old name may also be
    a superclass, which is renamed or merged in the same way.

    Raises:
        UsageError: an old name is unknown or is given two new names, or a new name is empty.
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
            raise UsageError(f"--remap: {old!r} has two new names, {moves[position]!r} and {new!r}; expected one")
    names, targets = _move_names(table.names, fine)
    coarse_names, coarse_targets = _move_names(table.coarse_names, coarse)
    parents = [None if parent is None else coarse_targets[parent] for parent in table.parents]
    for label, target in enumerate(targets):
        if parents and parents[target] is None:
            parents[target] = parents[label]
    return LabelMap(targets, LabelTable(names, coarse_names, tuple(parents)))


def merged_away(label_map: LabelMap, table: LabelTable) -> Iterator[str]:
    """Yields a notice for each class that a renaming leaves without rows."""
    taken = set(label_map.targets)
    for label in range(len(table.names)):
        if label not in taken:
            yield f"class {label_map.table.names[label]!r} was merged into another; it stays in the table without rows"


def split_renamings(table: LabelTable, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Splits `OLD:NEW` texts for `remap_table`. Raises `UsageError` if a text has no colon or OLD is unknown."""
    return [_split_renaming(text, table) for text in texts]


def _split_renaming(renaming: str, table: LabelTable) -> tuple[str, str]:
    """Splits at the first colon that leaves a known OLD: names may contain colons themselves."""
    known = table.names + table.coarse_names
    cuts = [i for i, char in enumerate(renaming) if char == ":"]
    if not cuts:
        raise UsageError(f"--remap: expected OLD:NEW, found {renaming!r}")
    for cut in cuts:
        if renaming[:cut] in known:
            return renaming[:cut], renaming[cut + 1 :]
    raise unknown_name("label", renaming[: cuts[0]], known)


def _move_names(names: tuple[str, ...], moves: dict[int, str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Renames entries in place, merging those whose new name is taken; returns (new names, target of each entry)."""
    slots = list(names)
    groups = by_key((moves[position], position) for position in sorted(moves))
    targets = list(range(len(names)))
    # Loop until stable: a name may become free only because its owner is renamed as well, as in a swap.
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
