"""What users put into our transforms: examples, or rows with the same fields, which are matched by name."""

from __future__ import annotations

import logging
import typing
import weakref
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows
from apache_beam.typehints import typehints
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_cifar.data.kinds import described, kind_name, parts_of
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.decode import probe_whole_image
from beam_cifar.images.encodings import ENCODED, RAW
from beam_cifar.images.example import TYPES, Example, table_of, wrong_field
from beam_cifar.pipeline.errors import carried
from beam_cifar.pipeline.local import loses_elements
from beam_cifar.pipeline.runners import is_dataflow, is_dry_run, local_paths

_FIELDS: Final = ", ".join(Example._fields)
_WARNED: weakref.WeakSet[beam.Pipeline] = weakref.WeakSet()
_ENCODINGS: Final = (RAW, *ENCODED)
_UNKNOWN: Final = (typing.Any, typehints.Any, object)


def label_table(labels: LabelTable | Sequence[str]) -> LabelTable:
    """Returns the table of some class names, whose labels are 0, 1, ..., or the table given.

    Raises:
        UsageError: anything else is given (a set has no order), no name, or one twice.
    """
    if isinstance(labels, LabelTable):
        return labels
    names = list(labels) if isinstance(labels, (list, tuple)) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"labels are {described(labels)}; expected a LabelTable, or a list of class names")
    if repeated := [name for at, name in enumerate(names) if name in names[:at]]:
        raise UsageError(f"labels have {repeated[0]!r} twice; give each class a name of its own")
    return LabelTable(tuple(names))


def as_examples(rows: beam.PCollection[Any], user: str) -> beam.PCollection[Example]:
    """Returns the examples of a PCollection of examples or of rows with their fields, in any order.

    Args:
        rows: elements of type `Example`, or of a schema (`beam.Row`, a NamedTuple, a row of Beam YAML or SQL), or of
            unknown type, which are looked at when they come.
        user: name of the transform that they go into, for messages.

    Raises:
        UsageError: there are several PCollections, or the elements are known to be something else, or to have other
            fields.
    """
    refuse_several(rows, user)
    if rows.element_type is Example:
        return rows
    if rows.element_type not in _UNKNOWN:
        _refuse_other_fields(rows.element_type, user)
    return rows | "ByName" >> beam.Map(example_of, user).with_output_types(Example)


def refuse_several(examples: Any, user: str) -> None:
    """Raises `UsageError` for anything but one PCollection, such as the two outputs of `with_exception_handling`."""
    # Beam turns outputs in a tuple of its own kind into a PCollection of PCollections.
    if not isinstance(examples, beam.pvalue.PValue) or examples.element_type is beam.PCollection:
        raise UsageError(
            f"{user} takes one PCollection, but what comes before it has several; choose one, as in "
            "`good, bad = ...`, or put beam.Flatten() before it"
        )


def refuse_local_paths(pipeline: beam.Pipeline, paths: Sequence[str], user: str) -> None:
    """Raises `UsageError` for paths that workers of Dataflow do not see; a dry run translates them all the same."""
    wrong = local_paths(paths)
    if wrong and is_dataflow(pipeline.options) and not is_dry_run(pipeline.options):
        raise UsageError(f"{user}: {wrong[0]}")


def refuse_windows(examples: beam.PCollection[Any], user: str) -> None:
    """Raises `UsageError` for a PCollection that is divided into windows, or never ends: a dataset is written once."""
    windows = examples.windowing.windowfn
    if windows != GlobalWindows():
        raise UsageError(
            f"{user}: its examples are in {type(windows).__name__}, but a dataset is written once; put "
            "beam.WindowInto(beam.window.GlobalWindows()) before it"
        )
    if not examples.is_bounded:
        raise UsageError(f"{user}: its examples never end, but a dataset is written once, when all are there")


def warn_if_unsafe(pipeline: beam.Pipeline) -> None:
    """Warns, once for a pipeline, if it will run where Beam loses elements."""
    if pipeline not in _WARNED and loses_elements(pipeline):
        _WARNED.add(pipeline)
        logging.getLogger("beam_cifar").warning(
            "Beam's local runner with several workers loses elements of bundles that take longer than a second; use "
            "beam.Pipeline(options=beam_cifar.beam.local_options(workers=N))"
        )


def _refuse_other_fields(found: Any, user: str) -> None:
    if not (isinstance(found, RowTypeConstraint) or (isinstance(found, type) and hasattr(found, "_fields"))):
        raise UsageError(_takes(user, f"elements of {kind_name(found)}"))
    fields = dict(named_fields_from_element_type(found))
    if wrong := _other_names(fields):
        raise UsageError(f"{user}: rows {wrong}")
    for name, kind in fields.items():
        # What may be None is looked at when it comes.
        kinds = {int if isinstance(each, type) and issubclass(each, np.integer) else each for each in parts_of(kind)}
        if not kinds & {*parts_of(TYPES[name]), *_UNKNOWN}:
            raise UsageError(
                f"{user}: field {name!r} of its rows is {kind_name(kind)}; expected {kind_name(TYPES[name])}"
            )


@carried()
def example_of(row: Any, user: str) -> Example:
    """Returns the example that a row is; raises `InputError`, in the form of `carried`, if it is none."""
    # Beam would refuse an example with a value of another type as well, but with "an integer is required" alone.
    if isinstance(row, Example) and not any(map(wrong_field, Example._fields, row)):
        return row
    fields = row if isinstance(row, Mapping) else row._asdict() if hasattr(row, "_asdict") else None
    if fields is None:
        raise InputError(_takes(user, described(row)))
    if wrong := _other_names(map(str, fields)):
        raise InputError(f"{user}: rows {wrong}")
    plain: dict[str, Any] = {
        name: int(value) if isinstance(value, np.integer) else value for name, value in fields.items()
    }
    for name, value in plain.items():
        if wrong := wrong_field(name, value):
            raise InputError(f"{user}: {wrong}")
    return Example(**plain)


def _takes(user: str, found: str) -> str:
    return f"{user} takes examples, or rows with their fields ({_FIELDS}); found {found}"


def _other_names(found: Iterable[str]) -> str:
    """Returns what is wrong with the names of a row's fields, or an empty string."""
    names = set(found)
    missing = [name for name in Example._fields if name not in names and name not in Example._field_defaults]
    unknown = sorted(names - set(Example._fields))
    said = [f"have no field {', '.join(map(repr, missing))}"] if missing else []
    said += [f"have the unknown field {', '.join(map(repr, unknown))}"] if unknown else []
    return f"{' and '.join(said)}; the fields of an example are {_FIELDS}" if said else ""


def checked_table(examples: Sequence[Example], classes: int | None = None) -> pa.Table:
    """Returns the table of some examples, in the schema `ordered_schema`.

    Args:
        examples: the examples.
        classes: number of classes in their label table; None if that is not known.

    Raises:
        InputError: an example is not valid.
    """
    for example in examples:
        if wrong := _wrong(example, classes):
            raise InputError(f"subset {example.subset!r}: example {example.id!r}: {wrong}")
    try:
        return table_of(examples)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"an example has a value of the wrong type: {error}") from error


def _wrong(example: Example, classes: int | None) -> str:
    """Returns what is wrong with an example, or an empty string."""
    texts = (example.id, example.subset, example.encoding, example.filename)
    if not all(isinstance(text, str) for text in texts) or not isinstance(example.order, int):
        return "id, subset, encoding and filename must be str, and order an int"
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return "a name is not valid Unicode"
    label = example.label
    if label is not None and not isinstance(label, Integral):
        return f"label {label!r} is {type(label).__name__}; expected an int or None"
    if classes is not None and label is not None and not 0 <= label < classes:
        return f"label {label} is outside the label table of {counted(classes, 'class')}"
    size = (example.channels, example.height, example.width)
    if example.image is None:
        return "" if size == (None, None, None) else f"has a size but no image: {size}"
    if not all(isinstance(side, Integral) for side in size):
        return f"(channels, height, width) is {size}; expected whole numbers"
    channels, height, width = (side or 0 for side in size)
    if example.encoding not in _ENCODINGS:
        return f"unknown encoding {example.encoding!r}; expected one of {', '.join(_ENCODINGS)}"
    if channels not in (1, 3) or height < 1 or width < 1:
        return f"(channels, height, width) is {size}; expected 1 or 3 channels, and height and width at least 1"
    if example.encoding == RAW:
        if len(example.image) != channels * height * width:
            return f"has {counted(len(example.image), 'byte')} of pixels, expected {channels} x {height} x {width}"
        return ""
    header = probe_whole_image(example.image, f"subset {example.subset!r}: example {example.id!r}")
    found = (header.encoding, header.channels, header.height, header.width)
    expected = (example.encoding, *size)
    return "" if found == expected else f"(encoding, channels, height, width) is {expected}, but the image has {found}"
