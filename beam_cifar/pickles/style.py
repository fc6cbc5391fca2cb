"""Checks whether a file is in the style that torchvision, Keras and Datumaro can all read."""

from __future__ import annotations

from collections.abc import Sequence

from beam_cifar.pickles.scan import Scan
from beam_cifar.pickles.values import ArrayValue, IntRun, ListValue, Span, TextSpan, TupleValue, Value

_OPCODES = frozenset(b"\x80}]()UTXcKMJIN\x85\x86\x87t\x88\x89Rbqrhjaesu.")
_GLOBALS = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})
_KEYS = {
    "labels": frozenset({"batch_label", "labels", "data", "filenames"}),
    "fine_labels": frozenset({"filenames", "batch_label", "fine_labels", "coarse_labels", "data"}),
}


def is_python2_style(scan: Scan, fields: dict[str, Value]) -> bool:
    """Returns whether the file has the standard keys, written as Python 2's cPickle does with protocol 2."""
    if scan.protocol != 2 or scan.globals - _GLOBALS:
        return False
    if any(seen and code not in _OPCODES for code, seen in enumerate(scan.seen)):
        return False
    keys = _KEYS.get("fine_labels" if "fine_labels" in fields else "labels", frozenset())
    if fields.keys() - {"image_sizes"} != keys:
        return False
    texts = [*scan.value.items[::2], fields["batch_label"]]
    return (
        all(_is_styled_text(text) for text in texts)
        and _is_styled_data(fields["data"], fields.get("image_sizes"))
        and all(_is_plain(fields[key]) for key in keys & {"labels", "fine_labels", "coarse_labels"})
        and type(fields["filenames"]) is ListValue
        and _are_styled_names(fields["filenames"].items)
    )


def _are_styled_names(names: Sequence[Value]) -> bool:
    if set(map(type, names)) <= {bytes}:
        return all(map(bytes.isascii, names))
    return all(map(_is_styled_text, names))


def _is_styled_text(value: Value) -> bool:
    """Returns whether ASCII is a Python 2 str and other text unicode; long strings are not read to check them."""
    if type(value) is bytes:
        return value.isascii()
    return (type(value) is str and not value.isascii()) or type(value) in (Span, TextSpan)


def _is_plain(value: Value) -> bool:
    return type(value) is ListValue and set(map(type, value.items)) <= {int, IntRun, type(None)}


def _is_styled_data(data: Value, sizes: Value) -> bool:
    if type(data) is not ArrayValue or not data.c_order:
        return False
    if data.dtype.kind == "O":
        # Without `image_sizes` every row must have the standard 32 x 32 pixels.
        lengths = {_flat_length(row) for row in data.items if row is not None}
        return len(data.shape) == 1 and (lengths <= {3072} if sizes is None else None not in lengths)
    if len(data.shape) != 2 or (type(data.payload) is not Span and data.shape[0]):
        return False
    if sizes is None:
        return data.shape[1] == 3072
    return type(sizes) is ListValue and all(type(size) is TupleValue for size in sizes.items)


def _flat_length(row: Value) -> int | None:
    return row.shape[0] if type(row) is ArrayValue and len(row.shape) == 1 else None
