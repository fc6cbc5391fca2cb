"""Validates a dataset with checks that do not depend on its purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from beam_cifar.analysis.derive import Measured, Repeats, repeats_of, size_counts
from beam_cifar.analysis.reading import measured
from beam_cifar.analysis.tally import EXAMPLES, Asked
from beam_cifar.data.arrays import BoolArray, Int64Array
from beam_cifar.data.text import counted
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.naming.components import alike_names
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import BeamOptions

Severity = Literal["ok", "info", "warning", "error"]

UNBALANCED = 10
"""Ratio of the rows of the largest and the smallest class from which on imbalance is a warning."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: name of the check.
        severity: "error" makes a dataset invalid, "warning" only if validation is strict.
        count: number of rows, images, classes or files concerned; 0 for "ok".
        text: one line.
        examples: the first of them, one line each.
    """

    check: str
    severity: Severity
    count: int
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Validation:
    """The result of all checks.

    Attributes:
        path: absolute path of the dataset.
        format: name of the format.
        title: kind of dataset.
        rows: number of readable rows.
        findings: at least one per check, in the order of the checks.

    >>> from beam_cifar import validate
    >>> validate("cifar10").is_valid()
    True
    """

    path: str
    format: str
    title: str
    rows: int
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Returns the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def is_valid(self, *, strict: bool = False) -> bool:
        """Returns whether there are no errors and, if strict, no warnings."""
        return not self.count("error") and not (strict and self.count("warning"))


def validate(
    path: str,
    input_format: str | None = None,
    *,
    images: ImageOptions = AS_STORED,
    listed: int = EXAMPLES,
    workers: int | None = None,
    beam_options: BeamOptions = (),
) -> Validation:
    """Reads and decodes every image of a dataset and checks it for problems.

    Args:
        path: directory or archive.
        input_format: name of the format; detected if None.
        images: how images are read.
        listed: how many examples of each kind to list for a finding.
        workers: number of local workers; chosen automatically if None.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.

    Raises:
        BeamCifarError: the dataset cannot be checked at all; the message is one line.

    >>> from beam_cifar import validate
    >>> validate("cifar10").count("error")
    0
    """
    asked = Asked(ids=True, tolerant=True, listed=listed)
    with measured(Input(path, input_format, images=images), asked, workers=workers, beam_options=beam_options) as found:
        return validated(found)


def validated(found: Measured) -> Validation:
    """Checks a measured dataset, read tolerantly and with digests of ids."""
    repeats = repeats_of(found.rows)
    findings = (
        *_table(found),
        *_files(found),
        *_rows(found),
        *_superclasses(found),
        *_sizes(found),
        *_missing(found),
        *_ids(found),
        *_duplicates(found, repeats),
        *_conflicts(found, repeats),
        *_balance(found),
    )
    catalog = found.catalog
    return Validation(catalog.path, catalog.format, catalog.title, len(found.rows), findings)


def _table(found: Measured) -> Iterator[Finding]:
    """Finds class names that repeat, are empty, or differ only in Unicode form or case."""
    labels = found.labels
    wrong = []
    for what, names in (("class", labels.names), ("superclass", labels.coarse_names)):
        wrong += [f"{what} {name!r} occurs {n} times" for name, n in Counter(names).items() if n > 1]
        wrong += [f"{what} {number} has no name" for number, name in enumerate(names) if not name.strip()]
        wrong += alike_names(names)
    fine = f"the names of {counted(len(labels.names), 'class')} are unique"
    text = "names in the label table repeat, are empty, or differ only in Unicode form or case"
    yield _found(found, "table", "warning", len(wrong), text, fine, wrong)


def _files(found: Measured) -> Iterator[Finding]:
    text = f"{counted(len(found.broken), 'file')} cannot be read"
    fine = f"{counted(len(found.summaries), 'file')} can be read"
    yield _found(found, "files", "error", len(found.broken), text, fine, found.broken)


def _rows(found: Measured) -> Iterator[Finding]:
    text = f"{counted(found.rejected_count, 'row')} cannot be read: wrong labels or damaged images"
    fine = f"{counted(len(found.rows), 'row')} can be read, with {counted(int(found.pictured.sum()), 'image')}"
    yield _found(found, "rows", "error", found.rejected_count, text, fine, map(str, found.rejected))


def _superclasses(found: Measured) -> Iterator[Finding]:
    """Checks that every class has one superclass, if there are any."""
    table = found.labels
    if not table.has_superclasses:
        return
    said: dict[int, dict[int, str]] = {}
    for label, parent in enumerate(table.parents):
        if parent is not None:
            said[label] = {parent: "the label table"}
    for summary in found.summaries:
        for label, (parent, row) in sorted(summary.parents.items()):
            said.setdefault(label, {}).setdefault(parent, f"{summary.file.shown} row {row}")
    several = [
        f"class {table.names[label]!r} has superclass "
        + ", ".join(f"{table.coarse_names[parent]!r} in {where}" for parent, where in parents.items())
        for label, parents in sorted(said.items())
        if len(parents) > 1
    ]
    used = [label for label, (_, count) in enumerate(found.class_counts()) if count]
    orphans = [f"class {table.names[label]!r}" for label in used if label not in said]
    if several:
        yield _found(found, "superclasses", "error", len(several), "classes have several superclasses", "", several)
    if orphans or not several:
        fine = f"{counted(len(used), 'class with rows', 'classes with rows', verb='have')} one superclass each"
        text = "classes with rows have no superclass"
        yield _found(found, "superclasses", "warning", len(orphans), text, fine, orphans)


def _sizes(found: Measured) -> Iterator[Finding]:
    sizes = sorted(size_counts(found.rows), key=lambda each: -each[2])
    if sizes:
        listed = [f"{height} x {width}: {counted(n, 'image')}" for height, width, n in sizes]
        several = len(sizes) if len(sizes) > 1 else 0
        fine = f"all images are {sizes[0][0]} x {sizes[0][1]}"
        yield _found(found, "sizes", "info", several, f"images have {len(sizes)} different sizes", fine, listed)


def _missing(found: Measured) -> Iterator[Finding]:
    for check, text, lacking in (
        ("images", "without image", ~found.pictured),
        ("labels", "without label", found.rows["label"] < 0),
    ):
        count = int(lacking.sum())
        listed = _named_rows(found, lacking)
        yield _found(found, check, "warning", count, f"{counted(count, 'row')} {text}", f"no row {text}", listed)


def _ids(found: Measured) -> Iterator[Finding]:
    """Finds ids that repeat in a subset, including those that the reader made unique."""
    subsets, ids = found.subsets, found.rows["id"]
    order = np.lexsort((ids, subsets))
    same = (ids[order][1:] == ids[order][:-1]) & (subsets[order][1:] == subsets[order][:-1])
    again = np.zeros(len(ids), dtype=np.bool_)
    again[order[1:][same]] = True
    changed = [(summary.file.shown, summary.duplicates) for summary in found.summaries if summary.duplicates]
    count = int(again.sum()) + sum(n for _, n in changed)
    listed = [f"{shown}: {counted(n, 'row')} with the name of an earlier row" for shown, n in changed]
    text = f"{counted(count, 'row')} with the id of another row in the same subset"
    yield _found(
        found, "ids", "warning", count, text, "no id repeats within a subset", [*listed, *_named_rows(found, again)]
    )


def _duplicates(found: Measured, repeats: Repeats) -> Iterator[Finding]:
    """Finds images that repeat within subsets, and those that leak from one subset into another."""
    names, subsets = found.subset_names, found.subsets
    shared = repeats.shared(subsets, len(names))
    within = int(shared.trace())
    repeating = zip(names, shared.diagonal().tolist(), strict=True)
    yield _found(
        found,
        "duplicates",
        "warning",
        within,
        f"{counted(within, 'row')} with the image of an earlier row in the same subset",
        "no image repeats within a subset",
        (f"{name}: {counted(n, 'row')}" for name, n in repeating if n),
        _same_images(found, repeats, repeats.within(subsets)),
    )
    leaks = repeats.leaking(subsets)
    pairs = ((i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if shared[i, j])
    yield _found(
        found,
        "leaks",
        "warning",
        len(leaks),
        f"{counted(len(leaks), 'image')} in several subsets",
        "no image is in several subsets",
        (f"{names[j]}: {counted(int(shared[i, j]), 'row')} with an image in {names[i]}" for i, j in pairs),
        _same_images(found, repeats, leaks),
    )


def _same_images(found: Measured, repeats: Repeats, numbers: Int64Array) -> Iterator[str]:
    groups = list(found.first_groups(map(repeats.group, numbers.tolist())))
    shown = iter(_shown(found, [at for group, _ in groups for at in group]))
    for group, count in groups:
        more = f" and {count - len(group)} more" if count > len(group) else ""
        labelled = ((next(shown), found.class_name(at)) for at in group)
        yield ", ".join(f"{row} ({'no label' if name is None else name})" for row, name in labelled) + more


def _conflicts(found: Measured, repeats: Repeats) -> Iterator[Finding]:
    groups = repeats.conflicting(found.rows["label"])
    text = f"{counted(len(groups), 'image')} with different labels"
    listed = _same_images(found, repeats, groups)
    yield _found(found, "conflicts", "error", len(groups), text, "no image has different labels", listed)


def _balance(found: Measured) -> Iterator[Finding]:
    counts = found.class_counts()
    empty = [name for name, count in counts if not count]
    used = sorted(((count, name) for name, count in counts if count), key=lambda each: each[0])
    if counts:
        text = f"{counted(len(empty), 'class')} without rows"
        fine = f"{counted(len(counts), 'class', verb='have')} rows"
        yield _found(found, "classes", "warning", len(empty), text, fine, empty)
    if used:
        (least, rare), (most, common) = used[0], used[-1]
        uneven = most >= UNBALANCED * least
        text = f"the largest class ({common}) has {most / least:.3g} times the rows of the smallest ({rare})"
        fine = f"all classes with rows have {counted(most, 'row')}"
        listed = (f"{name}: {counted(n, 'row')}" for n, name in used if uneven)
        yield _found(found, "balance", "warning" if uneven else "info", len(used) * (most > least), text, fine, listed)


def _named_rows(found: Measured, which: BoolArray) -> list[str]:
    return _shown(found, np.flatnonzero(which)[: found.listed].tolist())


def _shown(found: Measured, positions: Sequence[int]) -> list[str]:
    """Describes some rows by file, row number and id."""
    rows = found.rows[list(positions)]
    files: Int64Array = rows["file"]
    return [
        f"{found.summaries[file].file.shown} row {row} {item_id!r}"
        for file, row, item_id in zip(files.tolist(), rows["row"].tolist(), found.ids(positions), strict=True)
    ]


def _found(
    found: Measured, check: str, severity: Severity, count: int, text: str, fine: str, *examples: Iterable[str]
) -> Finding:
    """Returns the finding of a check, with the first examples of each kind; `fine` is its text if `count` is 0."""
    if not count:
        return Finding(check, "ok", 0, fine)
    # Lazily, because naming a row means opening its file again.
    first = (example for kind in examples for example in islice(kind, found.listed))
    return Finding(check, severity, count, text, tuple(first))
