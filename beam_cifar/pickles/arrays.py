"""Recognises the calls in numpy's pickles without executing them: each gives a description of its result.

The supported forms are those of `ndarray.__reduce__`, `dtype.__reduce__` and `generic.__reduce__` in numpy 1 and 2, and
of bytes as Python 3 pickles them in protocols 0 to 2.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable

from beam_cifar.data.text import counted
from beam_cifar.pickles.payload import PayloadReader, decode, index_coded
from beam_cifar.pickles.source import PickleFile, shorten
from beam_cifar.pickles.values import (
    ArrayValue,
    CodedSpan,
    DtypeValue,
    GlobalValue,
    Inline,
    IntRun,
    ListValue,
    Payload,
    Span,
    TextSpan,
    TupleValue,
    Value,
)

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("__builtin__", "builtins")

_DTYPE = re.compile(r"([<>=|]?)(?:(u|i)([1248])|(f)([248]|12|16)|(b)(1)|(c)(8|16|24|32)|([SU])([1-9]\d{0,5})|(O)[48]?)")
_MAX_DIMENSIONS = 32  # numpy 1's limit


def text_of(value: Value) -> str | None:
    """Returns a short str or ASCII bytes as str; None for anything else."""
    if type(value) is bytes and value.isascii():
        return value.decode("ascii")
    return value if type(value) is str else None


def call(source: PickleFile, function: Value, args: Value) -> Value:
    """Returns a description of what `function(*args)` would return, if both are of a form that picklers write."""
    if type(function) is not GlobalValue:
        source.refuse(f"calls a {kind_of(function)}; expected only numpy's array constructors in a CIFAR file")
    if type(args) is not TupleValue:
        source.refuse(f"calls {function.name} with a {kind_of(args)}; expected a tuple of arguments")
    made = KNOWN_GLOBALS[function.module, function.name]
    if made is None:
        source.refuse(f"calls {function.module}.{function.name}; expected an array constructor")
    return made(source, args.items)


def set_state(source: PickleFile, target: Value, state: Value) -> None:
    """Sets the state of an array or a dtype."""
    if type(target) not in (ArrayValue, DtypeValue):
        source.refuse(f"sets the state of a {kind_of(target)}; expected an array or a dtype")
    if target.closed:
        source.refuse("sets the state of a value that is already in use")
    if type(state) is not TupleValue:
        source.refuse(f"state of an array or dtype is a {kind_of(state)}; expected a tuple")
    if type(target) is ArrayValue:
        _build_array(source, target, state.items)
    else:
        _build_dtype(source, target, state.items)


def kind_of(value: Value) -> str:
    """Returns the name of a value's type, for messages."""
    names = {"NoneType": "None", "Inline": "bytes", "Span": "bytes", "CodedSpan": "bytes", "TextSpan": "text"}
    name = type(value).__name__
    return names.get(name, name.removesuffix("Value").lower())


def shown(value: Value) -> str:
    """Returns a number or short text as found and any other value as its kind, for messages."""
    return shorten(value) if type(value) in (type(None), bool, int, float, bytes, str) else f"a {kind_of(value)}"


def _reconstruct(source: PickleFile, args: list[Value]) -> ArrayValue:
    match args:
        case [GlobalValue(name="ndarray"), TupleValue(items=[0]), b"b" | "b"]:
            return ArrayValue(source.at)
    source.refuse("invalid arguments to _reconstruct; expected (numpy.ndarray, (0,), 'b')")


def _dtype(source: PickleFile, args: list[Value]) -> DtypeValue:
    text = text_of(args[0]) if len(args) == 3 else None
    if text is None or not all(type(flag) in (bool, int) for flag in args[1:]):
        source.refuse("invalid arguments to numpy.dtype; expected (name, align, copy)")
    found = _DTYPE.fullmatch(text)
    if found is None:
        source.refuse(f"unsupported dtype {shorten(text)}; expected plain numbers, text or objects")
    order, *groups = found.groups()
    kind, size = [group for group in (*groups, "0") if group][:2]
    value = DtypeValue(source.at, kind, int(size) * (4 if kind == "U" else 1))
    if order in ("<", ">") and value.itemsize > 1:
        value.order = order
    return value


def _build_dtype(source: PickleFile, dtype: DtypeValue, state: list[Value]) -> None:
    match state:
        case [3, b"|" | b"<" | b">" | b"=" | "|" | "<" | ">" | "=" as order, None, None, None, elsize, align, flags]:
            pass
        case _:
            source.refuse("unsupported state of a dtype; expected (3, order, None, None, None, -1, -1, 0)")
    numbers = (elsize, align, flags)
    if not all(type(number) is int for number in numbers) or not (-1 <= align <= 16 and 0 <= flags <= 255):
        source.refuse(f"invalid state of dtype {dtype}: {', '.join(map(shown, numbers))}")
    # The lowest flag says that elements are references; numpy would follow numbers as pointers.
    if flags & 1 != (dtype.kind == "O"):
        source.refuse(f"dtype {dtype} has the flags {flags}, of another kind of dtype")
    if elsize != dtype.itemsize and (elsize != -1 or dtype.kind in "SU"):
        source.refuse(f"dtype {dtype} has an element size of {elsize}; expected {dtype.itemsize}")
    order = text_of(order)
    # Types without a byte order have '|' in numpy's pickles.
    if dtype.order != "|":
        if order not in ("<", ">"):
            source.refuse(f"dtype {dtype} has no byte order; expected '<' or '>'")
        dtype.order = order


def _build_array(source: PickleFile, array: ArrayValue, state: list[Value]) -> None:
    match state:
        case [1, TupleValue() as shape, DtypeValue() as dtype, bool() | 0 | 1 as fortran, payload]:
            _set_array(source, array, shape.items, dtype, bool(fortran), payload)
        case _:
            source.refuse("invalid state of an array; expected (1, shape, dtype, is_fortran, data)")


def _frombuffer(source: PickleFile, args: list[Value]) -> ArrayValue:
    match args:
        case [payload, DtypeValue(kind=kind) as dtype, TupleValue() as shape, bytes() | str() as order, *more]:
            if kind == "O":
                source.refuse("_frombuffer with an object dtype; expected numbers or text")
            array = ArrayValue(source.at)
            match text_of(order), more:
                case "C" | "F" as letter, [] | [None]:
                    _set_array(source, array, shape.items, dtype, letter == "F", payload)
                    return array
                case "K", [TupleValue(items=axes)]:
                    _set_array(source, array, shape.items, dtype, False, payload)
                    _transpose(source, array, axes)
                    return array
    source.refuse("invalid arguments to _frombuffer; expected (data, dtype, shape, order), or with 'K' and axes")


def _transpose(source: PickleFile, array: ArrayValue, axes: list[Value]) -> None:
    """Transposes an array, as numpy 2.3 and later do with one whose memory is in C order for another order of axes."""
    if len(axes) != len(array.shape) or not all(type(axis) is int for axis in axes):
        source.refuse(
            f"array of shape {shorten(array.shape)} has {counted(len(axes), 'axis', 'axes')}; expected an int for each "
            "side"
        )
    if sorted(axes) != list(range(len(axes))):
        source.refuse(f"axes {', '.join(map(shown, axes))} are not a permutation of 0 to {len(axes) - 1}")
    array.shape = tuple(array.shape[axis] for axis in axes)
    array.axes = tuple(axes.index(axis) for axis in range(len(axes)))


def _set_array(
    source: PickleFile, array: ArrayValue, shape: list[Value], dtype: DtypeValue, fortran: bool, payload: Value
) -> None:
    if array.built:
        source.refuse("sets the state of an array a second time")
    if len(shape) > _MAX_DIMENSIONS or not all(type(side) is int and side >= 0 for side in shape):
        source.refuse(f"invalid array shape: {', '.join(map(shown, shape[:8]))}")
    axes = range(len(shape))
    array.shape, array.dtype, array.built = tuple(shape), dtype, True
    array.axes = tuple(reversed(axes) if fortran else axes)
    _close(source, dtype)
    count = math.prod(shape)
    if dtype.kind == "O":
        _set_items(source, array, count, payload)
        return
    array.payload = payload_of(source, payload)
    array.weight = array.payload.length
    if array.payload.length != count * dtype.itemsize:
        source.refuse(
            f"array of shape {shorten(array.shape)} and dtype {dtype} has {counted(array.payload.length, 'byte')};"
            f" expected {shorten(count * dtype.itemsize)}"
        )


def _close(source: PickleFile, dtype: DtypeValue) -> None:
    dtype.closed = True
    if not dtype.order:
        source.refuse(f"dtype {dtype} is used before its byte order is set")


def _set_items(source: PickleFile, array: ArrayValue, count: int, items: Value) -> None:
    if type(items) is not ListValue:
        source.refuse(f"data of an object array is a {kind_of(items)}; expected a list")
    items.closed = True
    found = count_items(items.items)
    if found != count:
        source.refuse(f"object array of shape {shorten(array.shape)} has {counted(found, 'item')}; expected {count:,}")
    array.items = items.items
    array.depth, array.weight = items.depth + 1, items.weight


def count_items(items: list[Value]) -> int:
    """Returns the number of elements of a list, counting each int in runs of ints."""
    return len(items) + sum(item.count - 1 for item in items if type(item) is IntRun)


def payload_of(source: PickleFile, value: Value) -> Payload:
    """Returns bytes of any kind as a payload. Refuses text."""
    if type(value) is bytes:
        # The offset of a short payload is known only if it was the last string read, directly before the array's state.
        return Span(source.last_offset, len(value)) if value and source.last is value else Inline(value)
    if type(value) in (Span, CodedSpan, Inline):
        return value  # type: ignore[no-any-return]
    source.refuse(f"array data is a {kind_of(value)}; expected bytes")


def _encode(source: PickleFile, args: list[Value]) -> Value:
    # Only Latin-1, which Python 3 writes for bytes: nested calls with 'hex' would take 1.2 GB.
    match args:
        case [str() as text, b"latin1" | "latin1" | b"latin-1" | "latin-1"]:
            return decode("utf-8", text.encode("utf-8"), source.name, source.at)
        case [TextSpan() as span, b"latin1" | "latin1" | b"latin-1" | "latin-1"]:
            # Scanned once to index it: bytes of 0x80 and above take two in UTF-8, so row offsets cannot be computed.
            return index_coded(source.file, source.name, span.coding, span.offset, span.length)
    found = [shorten(arg) for arg in args[1:] if type(arg) in (bytes, str)]
    source.refuse(f"_codecs.encode with {', '.join(found) or 'invalid arguments'}; expected (text, 'latin1')")


def _bytes(source: PickleFile, args: list[Value]) -> Value:
    if args:
        source.refuse("invalid arguments to bytes; expected none")
    return b""


def _bytearray(source: PickleFile, args: list[Value]) -> Value:
    match args:
        case []:
            return b""
        case [bytes() | Span() | CodedSpan() as data]:
            return data
        case [str() | TextSpan(), _]:
            return _encode(source, args)
    source.refuse("invalid arguments to bytearray; expected (bytes,) or (text, 'latin-1')")


def _scalar(source: PickleFile, args: list[Value]) -> Value:
    match args:
        case [
            DtypeValue(kind="b" | "i" | "u" | "f" | "c" | "S" | "U") as dtype,
            bytes() | Span() | CodedSpan() as data,
        ]:
            _close(source, dtype)
            payload = payload_of(source, data)
            if payload.length != dtype.itemsize:
                source.refuse(
                    f"scalar of dtype {dtype} has {counted(payload.length, 'byte')}; expected {dtype.itemsize:,}"
                )
            source.charge(payload.length)
            return _scalar_value(
                source, dtype, PayloadReader(source.file, source.name, payload).read(0, payload.length)
            )
    source.refuse("invalid arguments to scalar; expected (dtype, bytes)")


def _scalar_value(source: PickleFile, dtype: DtypeValue, data: bytes) -> Value:
    big = dtype.order == ">"
    if dtype.kind in "iu":
        return int.from_bytes(data, "big" if big else "little", signed=dtype.kind == "i")
    if dtype.kind == "b":
        return data != b"\0"
    if dtype.kind == "S":
        return data.rstrip(b"\0")
    if dtype.kind == "U":
        try:
            return data.decode("utf-32-be" if big else "utf-32-le").rstrip("\0")
        except UnicodeDecodeError:
            source.refuse("element of a text array is not valid Unicode")
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        return struct.unpack((">" if big else "<") + {2: "e", 4: "f", 8: "d"}[dtype.itemsize], data)[0]
    return math.nan  # complex and long double: only in keys that are ignored, so the value does not matter


# Safe names are not enough: three crafted states of real objects crash numpy 2.4.6. So arguments are matched as well.
KNOWN_GLOBALS: dict[tuple[str, str], Callable[[PickleFile, list[Value]], Value] | None] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _reconstruct for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _frombuffer for module in _NUMERIC},
    **{(module, "bytes"): _bytes for module in _BUILTINS},
    **{(module, "bytearray"): _bytearray for module in _BUILTINS},
}
"""The globals a file may refer to, and what interprets a call of each; None for those used only as arguments."""
