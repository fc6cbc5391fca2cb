"""`beam-cifar diff`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from beam_cifar.cli.jobs import input_of, reading_job
from beam_cifar.cli.parser import add_command, add_reading
from beam_cifar.cli.terminal import print_result
from beam_cifar.data.text import counted
from beam_cifar.errors import DifferencesError

if TYPE_CHECKING:
    from beam_cifar.analysis.diff import Change, Comparison, Listed, Row, SubsetComparison

_T = TypeVar("_T")

CHANGES = {"labels": "a different label", "pixels": "different pixels",
           "sizes": "a different size", "ids": "a different id"}  # fmt: skip
"""Display names of the kinds of change."""


def add(commands: Any) -> None:
    command = add_command(commands, "diff", run)
    for name in ("a", "b"):
        command.add_argument(name, metavar=f"{name.upper()}[:FORMAT]", help="directory, archive or file")
    command.add_argument("--ids", action="store_true", help="also compare ids")
    command.add_argument("--whole", action="store_true", help="compare all rows together, ignoring subsets")
    add_reading(command)


def run(arguments: argparse.Namespace) -> None:
    """Compare two datasets of any format. Options not listed here are passed to Beam."""
    with reading_job(arguments) as options:
        from beam_cifar.analysis.diff import compare

        a, b = input_of(arguments.a), input_of(arguments.b)
        found = compare(a, b, ids=arguments.ids, whole=arguments.whole, beam_options=options)
    print_result(arguments, _facts(found), _shown(found))
    if not found.equal:
        raise DifferencesError(f"{found.a} and {found.b} differ: {_summary(found)}")


def _facts(found: Comparison) -> dict[str, Any]:
    """The whole comparison, for JSON."""
    made = {"equal": found.equal, **asdict(found)}
    made["subsets"] = [{"equal": subset.equal, **asdict(subset)} for subset in found.subsets]
    return made


def _summary(found: Comparison) -> str:
    """Counts of each kind of difference."""
    found_kinds = []
    kinds = {"only_a": "only in A", "only_b": "only in B", **{name: f"with {what}" for name, what in CHANGES.items()}}
    for name, what in kinds.items():
        if count := sum(getattr(subset, name).count for subset in found.subsets):
            found_kinds.append(f"{counted(count, 'row')} {what}")
    if found.tables:
        found_kinds.append(f"{counted(len(found.tables), 'difference')} in the label tables")
    return ", ".join(found_kinds)


def _shown(found: Comparison) -> Iterator[str]:
    """The lines of the text output."""
    yield f"A {found.a}"
    yield f"B {found.b}"
    yield from (f"note: {notice}" for notice in found.notices)
    for subset in found.subsets:
        yield from _shown_subset(subset)
    if found.tables:
        yield "label tables differ"
        yield from (f"  {line}" for line in found.tables)
    yield "equal" if found.equal else f"different: {_summary(found)}"


def _shown_subset(subset: SubsetComparison) -> Iterator[str]:
    if subset.equal:
        yield f"{subset.name}: equal, {counted(subset.rows[0], 'row')}, digest {subset.digests[0]}"
        return
    yield f"{subset.name}: differs, {counted(subset.rows[0], 'row')} in A, {subset.rows[1]:,} in B"
    for which, rows in (("A", subset.only_a), ("B", subset.only_b)):
        yield from _listed(f"only in {which}", rows, _row_line)
    for name, what in CHANGES.items():
        yield from _listed(f"with {what}", getattr(subset, name), _change_line)


def _listed(what: str, listed: Listed[_T], line: Callable[[_T], str]) -> Iterator[str]:
    if listed.count:
        yield f"  {counted(listed.count, 'row')} {what}"
        yield from (f"    {line(each)}" for each in listed.first)
        if listed.count > len(listed.first):
            yield f"    and {listed.count - len(listed.first):,} more"


def _row_line(row: Row) -> str:
    return f"{_name(row)} ({'no label' if row.label is None else row.label})"


def _change_line(change: Change) -> str:
    """The row, also under its name in B if that differs, and what changed."""
    a, b = _name(change.a), _name(change.b)
    return f"{a if a == b else f'{a} / {b}'}: {change.before} -> {change.after}"


def _name(row: Row) -> str:
    return f"{row.subset}: {row.id}"
