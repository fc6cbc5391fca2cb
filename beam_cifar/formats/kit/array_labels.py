"""Reads arrays of labels as people save them: integers, whole floats, one-hot rows, and names of classes."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.npy import (
    MAX_CLASSES,
    MAX_TABLE,
    Npy,
    blob_header,
    flags_table,
    number_table,
    read_array,
    read_labels,
    texts,
)

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_WHOLE = 2**53
"""From there on, not every whole number is a float."""

_NUMBER = re.compile(r"-1|[0-9]{1,9}")


@dataclass(frozen=True)
class ArrayLabels:
    """The labels of an array.

    Attributes:
        numbers: the label of each row; where there are names, a place in these, -1 for none.
        classes: number of classes that they show.
        names: the names of the classes, sorted; None where labels are numbers.
        told: what was guessed; "" if nothing was.
    """

    numbers: array[int]
    classes: int
    names: tuple[str, ...] | None = None
    told: str = ""


def array_labels(blob: storage.Blob, shown: str, rows: int) -> ArrayLabels:
    """Returns the labels of an array with one per row.

    Args:
        blob: the `.npy`.
        shown: display name used in messages.
        rows: number of rows.

    Raises:
        InputError: it is damaged, or another kind of array; for `[N, K]` the error says what its rows are.
    """
    header = blob_header(blob, shown)
    if header.shape in ((rows,), (rows, 1)) and header.dtype.kind in "fSU":
        values = _values(blob, header, rows)
        return _whole(values, shown) if header.dtype.kind == "f" else _names(values, header)
    table = flags_table(blob, header) if len(header.shape) == 2 and header.shape[0] == rows else None
    if table is not None and table.shape[1] > 1 and (table.sum(axis=1) == 1).all():
        told = "labels are rows with one 1, taken for the class of its column"
        return ArrayLabels(_integers(table.argmax(axis=1)), table.shape[1], told=told)
    return _numbers(read_labels(blob, shown, rows))


def without_rows(labels: ArrayLabels) -> ArrayLabels:
    """Returns labels without those of the rows, which take memory."""
    return replace(labels, numbers=array("q"))


def common_labels(found: Mapping[str, ArrayLabels]) -> LabelTable:
    """Returns the classes of several arrays: names in their order, or numbers up to the largest label.

    Args:
        found: display name of each file -> its labels.

    Raises:
        InputError: some have names and others numbers, or there are more than `MAX_CLASSES`.
    """
    named = {shown: labels.names for shown, labels in found.items() if labels.names is not None}
    numbered = [shown for shown, labels in found.items() if labels.names is None and labels.classes]
    if not named:
        return number_table({shown: labels.classes for shown, labels in found.items()})
    if numbered:
        raise InputError(f"{numbered[0]}: labels are numbers, but names in {next(iter(named))}; convert one at a time")
    names = sorted({name for each in named.values() for name in each})
    if len(names) > MAX_CLASSES:
        raise InputError(f"{next(iter(named))}: labels are {len(names)} names; at most {MAX_CLASSES} are supported")
    return LabelTable(tuple(names))


def numbers_in(labels: ArrayLabels, table: LabelTable, shown: str) -> array[int]:
    """Returns labels as numbers of a table. Raises `InputError` for a name that it lacks."""
    import numpy as np

    if labels.names is None:
        return labels.numbers
    places = {name: place for place, name in enumerate(table.names)}
    lost = next((name for name in labels.names if name not in places), None)
    if lost is not None:
        raise InputError(f"{shown}: label {lost[:50]!r} is not in the label table; expected one of its names")
    codes = np.array([*(places[name] for name in labels.names), UNLABELLED], np.int64)
    return _integers(codes[np.frombuffer(labels.numbers, np.int64)])


def _values(blob: storage.Blob, header: Npy, rows: int) -> npt.NDArray[Any]:
    import numpy as np

    _, data = read_array(blob, header.shown, max(MAX_TABLE, 8 * rows))
    return np.frombuffer(data, header.dtype) if header.dtype.itemsize else np.full(rows, "")


def _integers(values: npt.NDArray[Any]) -> array[int]:
    import numpy as np

    found = array("q")
    found.frombytes(values.astype(np.int64).tobytes())
    return found


def _numbers(numbers: array[int], told: str = "") -> ArrayLabels:
    return ArrayLabels(numbers, max(numbers, default=UNLABELLED) + 1, told=told)


def _whole(values: npt.NDArray[Any], shown: str) -> ArrayLabels:
    """Returns floats as integers, which programs make of integers where some are missing, or to train on them."""
    import numpy as np

    with np.errstate(over="ignore"):  # of wider floats than these
        values = values.astype(np.float64)
    wrong = ~(np.abs(values) < MAX_WHOLE) | (np.floor(values) != values)  # also NaN
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{shown}: row {row} is {values[row]}; expected integers, because each is the number of a class"
        )
    return _numbers(_integers(values), "labels are floats with whole values")


def _names(values: npt.NDArray[Any], header: Npy) -> ArrayLabels:
    """Returns texts as names of classes, or as numbers if all are whole numbers; "" is no label."""
    import numpy as np

    unique, places = np.unique(values, return_inverse=True)
    names = texts(replace(header, dtype=unique.dtype, shape=unique.shape), unique.tobytes())
    classes = [name for name in names if name]
    missing = int((values == values.dtype.type()).sum())
    told = counted(missing, "label is empty, and is none", "labels are empty, and are none") if missing else ""
    codes = np.arange(len(names)) - names.count("")
    if classes and all(map(_NUMBER.fullmatch, classes)):
        codes[codes >= 0] = list(map(int, classes))
        told = "; ".join(filter(None, ("labels are texts of whole numbers", told)))
        return _numbers(_integers(codes[places.reshape(-1)]), told)
    return ArrayLabels(_integers(codes[places.reshape(-1)]), len(classes), tuple(classes), told)
