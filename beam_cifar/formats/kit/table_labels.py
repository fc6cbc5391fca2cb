"""Finds the classes of a dataset of tables: from schemas, else a dataset card, else the labels themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.data.labels import LabelTable, are_parents
from beam_cifar.errors import ConflictError, InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.column_roles import COARSE_NAME, MAX_CLASSES, ColumnRoles
from beam_cifar.formats.kit.label_columns import listed


class TableReader(NamedTuple):
    """How a format reads its tables.

    Attributes:
        roles: returns the role of each column of a file, from its schema.
        columns: returns the short columns of a file, as `kit.short_columns.with_names` does.
    """

    roles: Callable[[SourceFile], ColumnRoles]
    columns: Callable[[SourceFile], pa.Table]


def label_table(files: Sequence[SourceFile], reader: TableReader, card: str = "") -> LabelTable:
    """Returns the classes: from schemas, else the card, else the labels. Raises `InputError` if files disagree."""
    found = [(file, reader.roles(file)) for file in files]
    labelled = [(file, columns) for file, columns in found if columns.label]
    _refuse_guesses(labelled)
    names = _agreed(((file, columns.names) for file, columns in labelled), "class names")
    if names is None and labelled:
        names = _card_names(card, labelled[0][1].label) or _learned([file for file, _ in labelled], reader)
    if not any(columns.coarse for _, columns in labelled):
        return LabelTable(names or ())
    coarse = _agreed(((file, columns.coarse_names) for file, columns in labelled), "superclass names")
    if coarse is None:
        coarse = _card_names(card, COARSE_NAME) or _numbered([file for file, c in labelled if c.coarse], reader)
    parents = next(
        (_own_parents(columns, len(names or ()), len(coarse)) for _, columns in labelled if columns.own), None
    )
    return LabelTable(names or (), coarse, parents or (None,) * len(names or ()))


def label_notices(files: Sequence[SourceFile], reader: TableReader) -> Iterator[str]:
    """Yields where labels come from if that is not plain from the name, and columns that might be labels, too."""
    said: dict[tuple[str, bool, tuple[str, ...]], SourceFile] = {}
    for file in files:
        columns = reader.roles(file)
        said.setdefault((columns.label, columns.is_guess, columns.unused), file)
    for (label, is_guess, unused), file in said.items():
        where = f"{file.name}: " if len(said) > 1 else ""
        if not label:
            yield f"{where}no labels found" + (f"; columns not used: {listed(unused)}" if unused else "")
        elif is_guess:
            only = "the only one of integers or text beside the images"
            yield f"{where}labels are from column {label!r}, {only}" + (
                f"; not used: {listed(unused)}" if unused else ""
            )
        elif unused:
            yield f"{where}labels are from column {label!r}; not used: {listed(unused)}"


def _refuse_guesses(labelled: Sequence[tuple[SourceFile, ColumnRoles]]) -> None:
    """Refuses labels from different columns where one of them was found by its type alone."""
    names = {columns.label: file for file, columns in labelled}
    if len(names) > 1 and any(columns.is_guess for _, columns in labelled):
        places = " and ".join(f"{name!r} in {file.name}" for name, file in list(names.items())[:2])
        raise ConflictError(
            f"{labelled[0][0].shown}: labels may be column {places}; name the column of labels 'label' in all files"
        )


def _agreed(said: Iterable[tuple[SourceFile, tuple[str, ...] | None]], what: str) -> tuple[str, ...] | None:
    first: tuple[SourceFile, tuple[str, ...]] | None = None
    for file, names in said:
        if names is None:
            continue
        if first is not None and names != first[1]:
            raise ConflictError(
                f"{file.shown}: {what} differ from those in {first[0].name}; these are different datasets"
            )
        first = first or (file, names)
    return first[1] if first else None


def _own_parents(columns: ColumnRoles, classes: int, superclasses: int) -> tuple[int | None, ...] | None:
    """Returns the superclasses from our own metadata, which also covers classes without rows."""
    found = (columns.own or {}).get("parents")
    return tuple(found) if found is not None and are_parents(found, classes, superclasses) else None


def _learned(files: Sequence[SourceFile], reader: TableReader) -> tuple[str, ...]:
    """Returns classes from labels: sorted names, or numbers up to the largest."""
    texts: set[str] = set()
    largest, is_text = -1, set()
    for file in files:
        columns = reader.roles(file)
        is_text.add(columns.is_text)
        if len(is_text) > 1:
            raise ConflictError(f"{file.shown}: column {columns.label!r} has text in some files, integers in others")
        labels = reader.columns(file).column("label")
        if columns.is_text:
            texts.update(pc.unique(labels.drop_null()).to_pylist())
        else:
            largest = max(largest, pc.max(labels).as_py() if labels.null_count < len(labels) else -1)
        if max(largest, len(texts)) >= MAX_CLASSES:
            raise InputError(f"{file.shown}: column {columns.label!r} has more than {MAX_CLASSES} classes")
    return tuple(sorted(texts)) if True in is_text else tuple(map(str, range(largest + 1)))


def _numbered(files: Sequence[SourceFile], reader: TableReader) -> tuple[str, ...]:
    found = [pc.max(reader.columns(file).column("coarse")).as_py() for file in files]
    largest = max((number for number in found if number is not None), default=0)
    if largest >= MAX_CLASSES:
        raise InputError(f"{files[0].shown}: column {COARSE_NAME!r} has more than {MAX_CLASSES} superclasses")
    return tuple(map(str, range(largest + 1)))


def _card_names(card: str, column: str) -> tuple[str, ...]:
    """Returns a column's class names from the YAML of a card, as `datasets` writes it; () if it has none."""
    found = re.search(
        rf"^( *)- name: ['\"]?{re.escape(column)}['\"]? *\n\1  dtype: *\n\1    class_label: *\n\1      names: *\n"
        r"((?:\1        ['\"]?\d+['\"]?: [^\n]*\n)+)",
        card,
        re.MULTILINE,
    )
    if not found:
        return ()
    lines = [re.match(r" *['\"]?(\d+)['\"]?: (.*)", line) for line in found[2].splitlines()]
    names = [(int(line[1]), _scalar(line[2])) for line in lines if line]
    return tuple(name for _, name in names) if [number for number, _ in names] == [*range(len(names))] else ()


def _scalar(text: str) -> str:
    """Parses a one-line YAML scalar."""
    text = text.strip()
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    if text.startswith("'") and text.endswith("'"):
        return text[1:-1].replace("''", "'")
    return text
