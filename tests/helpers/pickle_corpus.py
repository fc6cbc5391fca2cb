"""Makes pickles of CIFAR data: good ones in every layout by every writer, and bad ones.

To add a layout, write a function that returns a `Case` under `@layout`; a writer: one line in `WRITERS`; a bad file:
one line in `BAD`.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROWS = 5
RANDOM = np.random.default_rng(7)
PIXELS = RANDOM.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
PIXELS[0, :8] = np.frombuffer(b"\\\\x'\n\r\0\\", np.uint8)  # what text encodings escape
NAMES = tuple(f"leptodactylus_s_{row:06}.png" for row in range(ROWS))
LABELS = (3, 0, 9, 7, 3)
COARSE = (1, 0, 2, 3, 1)


@dataclass
class Case:
    """What is pickled, and what must be read from it."""

    value: dict[Any, Any]
    labels: tuple[Any, ...] = LABELS
    coarse: tuple[Any, ...] | None = None
    names: tuple[str, ...] | None = NAMES
    images: Sequence[bytes | None] | None = field(default_factory=lambda: [row.tobytes() for row in PIXELS])
    kind: str | None = "cifar10"
    label: str | None = "training batch 1 of 5"
    styled: bool = False  # when Python 2's protocol 2 writes it
    size: tuple[int, int] | None = (32, 32)


LAYOUTS: dict[str, Callable[[], Case]] = {}


def layout(function: Callable[[], Case]) -> Callable[[], Case]:
    LAYOUTS[function.__name__] = function
    return function


def batch(**changes: Any) -> dict[Any, Any]:
    """The standard dictionary; a change to `...` drops the key."""
    value = {"batch_label": "training batch 1 of 5", "labels": list(LABELS), "data": PIXELS, "filenames": list(NAMES)}
    value |= changes
    return {key: item for key, item in value.items() if item is not ...}  # type: ignore[comparison-overlap]


def objects(rows: list[Any]) -> np.ndarray:
    array = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        array[index] = row
    return array


# Pixels.


@layout
def standard() -> Case:
    return Case(batch(), styled=True)


@layout
def fortran() -> Case:
    return Case(batch(data=np.asfortranarray(PIXELS)))


@layout
def planes() -> Case:
    return Case(batch(data=PIXELS.reshape(ROWS, 3, 32, 32)))


@layout
def planes_fortran() -> Case:
    return Case(batch(data=np.asfortranarray(PIXELS.reshape(ROWS, 3, 32, 32))))


INTERLEAVED = np.ascontiguousarray(PIXELS.reshape(ROWS, 3, 32, 32).transpose(0, 2, 3, 1))


@layout
def interleaved() -> Case:
    return Case(batch(data=INTERLEAVED))


@layout
def interleaved_fortran() -> Case:
    return Case(batch(data=np.asfortranarray(INTERLEAVED)))


@layout
def planes_of_interleaved() -> Case:
    return Case(batch(data=INTERLEAVED.transpose(0, 3, 1, 2)))


@layout
def interleaved_of_planes() -> Case:
    return Case(batch(data=PIXELS.reshape(ROWS, 3, 32, 32).transpose(0, 2, 3, 1)))


@layout
def planes_of_columns() -> Case:
    columns = np.ascontiguousarray(PIXELS.reshape(ROWS, 3, 32, 32).transpose(0, 1, 3, 2))
    return Case(batch(data=columns.transpose(0, 1, 3, 2)))


@layout
def planes_with_rows_last() -> Case:  # as in SVHN's X
    return Case(batch(data=np.ascontiguousarray(INTERLEAVED.transpose(1, 2, 3, 0)).transpose(3, 2, 0, 1)))


@layout
def interleaved_objects() -> Case:
    return Case(batch(data=objects(list(INTERLEAVED))))


@layout
def list_of_transposed_rows() -> Case:
    return Case(batch(data=[row.transpose(2, 0, 1) for row in INTERLEAVED]))


@layout
def interleaved_rectangles() -> Case:
    rows = PIXELS[:, : 3 * 6 * 5].reshape(ROWS, 6, 5, 3)
    return Case(batch(data=rows), images=[row.transpose(2, 0, 1).tobytes() for row in rows], size=(6, 5))


@layout
def list_of_rows() -> Case:
    return Case(batch(data=[row.copy() for row in PIXELS]))


@layout
def tuple_of_planes() -> Case:
    return Case(batch(data=tuple(row.reshape(3, 32, 32).copy() for row in PIXELS)))


@layout
def object_rows() -> Case:
    return Case(batch(data=objects([row.copy() for row in PIXELS])), styled=True)


@layout
def object_planes_fortran() -> Case:
    return Case(batch(data=objects([np.asfortranarray(row.reshape(3, 32, 32)) for row in PIXELS])))


@layout
def object_rows_with_none() -> Case:
    rows = [None if index in (0, 3) else row.copy() for index, row in enumerate(PIXELS)]
    images = [None if row is None else row.tobytes() for row in rows]
    return Case(batch(data=objects(rows)), images=images, styled=True)


@layout
def object_ints() -> Case:
    return Case(batch(data=np.array(list(PIXELS), dtype=object)))


@layout
def all_none() -> Case:
    return Case(batch(data=objects([None] * ROWS)), images=[None] * ROWS, size=None, styled=True)


@layout
def the_same_row_twice() -> Case:
    row = PIXELS[0].copy()
    return Case(batch(data=objects([row] * ROWS)), images=[row.tobytes()] * ROWS, styled=True)


@layout
def empty_objects() -> Case:
    return Case(batch(data=np.array([], dtype=object)), images=None, styled=True)


@layout
def empty_floats() -> Case:
    return Case(batch(data=np.array([])), images=None)


@layout
def empty_list() -> Case:
    return Case(batch(data=[]), images=None)


@layout
def empty_pixels() -> Case:
    return Case(batch(data=np.empty((0, 3072), np.uint8)), images=None, styled=True)


@layout
def without_data() -> Case:
    return Case(batch(data=...), images=None)


@layout
def no_rows() -> Case:
    value = batch(labels=[], filenames=[], data=np.empty((0, 3072), np.uint8))
    return Case(value, labels=(), names=(), images=[], styled=True)


@layout
def mixed_sizes() -> Case:
    sizes = [(1, 2), (32, 32), (7, 3), (32, 32), (40, 1)]
    rows = [PIXELS[0, : 3 * h * w].copy() for h, w in sizes]
    rows[3] = None
    images = [None if row is None else row.tobytes() for row in rows]
    return Case(batch(data=objects(rows), image_sizes=sizes), images=images, size=None, styled=True)


@layout
def sizes_as_array() -> Case:
    images = [row.tobytes() for row in PIXELS]
    return Case(batch(image_sizes=np.array([(16, 64)] * ROWS)), images=images, size=(16, 64))


@layout
def sizes_as_fortran_array() -> Case:
    sizes = np.asfortranarray(np.array([(16, 64), (64, 16), (32, 32), (1, 1024), (2, 512)], dtype=">i4"))
    return Case(batch(image_sizes=sizes), size=None)


@layout
def sizes_as_small_arrays() -> Case:
    return Case(batch(image_sizes=[np.array([16, 64])] * ROWS), size=(16, 64))


@layout
def sizes_as_lists() -> Case:
    return Case(batch(image_sizes=[[16, 64]] * ROWS), size=(16, 64))


@layout
def sizes_as_tuples() -> Case:
    return Case(batch(image_sizes=[(16, 64)] * ROWS), size=(16, 64), styled=True)


@layout
def downsampled_imagenet() -> Case:
    data = np.arange(ROWS * 3 * 64, dtype=np.uint32).astype(np.uint8).reshape(ROWS, 192)
    value = {"data": data, "labels": [1, 1000, 256, 255, 400], "mean": np.linspace(0, 1, 192)}
    images = [row.tobytes() for row in data]
    return Case(value, labels=(1, 1000, 256, 255, 400), names=None, images=images, label=None, size=(8, 8))


@layout
def tiny_images() -> Case:
    data = np.arange(ROWS * 3, dtype=np.uint8).reshape(ROWS, 3)
    return Case(batch(data=data), images=[row.tobytes() for row in data], size=(1, 1))


@layout
def tiny_rows() -> Case:
    data = [np.arange(12, dtype=np.uint8) + row for row in range(ROWS)]
    return Case(batch(data=objects(data)), images=[row.tobytes() for row in data], size=(2, 2))


# Labels.


def _label_layout(name: str, labels: Any, expected: tuple[Any, ...] = LABELS, styled: bool = False) -> None:
    LAYOUTS[name] = lambda: Case(batch(labels=labels), labels=expected, styled=styled)


for _type in ("u1", "i1", "<i2", ">i2", "<u4", ">i4", "<i8", ">i8", "<u8", ">u8"):
    _label_layout(f"labels_{_type}", np.array(LABELS, dtype=_type))
_label_layout("labels_column", np.array(LABELS)[:, None])
_label_layout("labels_column_big_endian", np.array(LABELS, ">i2")[:, None])
_label_layout("labels_lists", [[label] for label in LABELS])
_label_layout("labels_tuples", [(label,) for label in LABELS])
_label_layout("labels_small_arrays", [np.array([label]) for label in LABELS])
_label_layout("labels_numpy_ints", list(np.array(LABELS)))
_label_layout("labels_numpy_big_endian", [np.array(label, ">i4")[()] for label in LABELS])
_label_layout("labels_objects", np.array(LABELS, dtype=object))
_label_layout("labels_tuple", LABELS)
_label_layout("labels_none", [None, 1, None, 2, None], (None, 1, None, 2, None), styled=True)
_label_layout("labels_names", ["cat", "dog", "cat", "кит", "cat"], ("cat", "dog", "cat", "кит", "cat"))
_label_layout("labels_bytes", [b"cat", b"dog", b"cat", b"cow", b"cat"], ("cat", "dog", "cat", "cow", "cat"))
_label_layout("labels_text_array", np.array(["cat", "dog", "cat", "кит", "c"]), ("cat", "dog", "cat", "кит", "c"))
_label_layout("labels_out_of_table", [10, -1, 70000, 2**31 - 1, -(2**31)], (10, -1, 70000, 2**31 - 1, -(2**31)), True)
_label_layout("labels_long", [2**40, -(2**63), 2**63 - 1, 2**33, 0], (2**40, -(2**63), 2**63 - 1, 2**33, 0))


@layout
def without_labels() -> Case:
    return Case(batch(labels=...), labels=(None,) * ROWS, kind=None)


@layout
def cifar100() -> Case:
    value = batch(labels=...) | {"fine_labels": list(LABELS), "coarse_labels": list(COARSE)}
    return Case(value, coarse=COARSE, kind="cifar100", styled=True)


@layout
def cifar100_arrays() -> Case:
    value = batch(labels=...) | {"fine_labels": np.array(LABELS), "coarse_labels": np.array(COARSE)}
    return Case(value, coarse=COARSE, kind="cifar100")


@layout
def thousands_of_rows() -> Case:
    count = 2100
    data = np.arange(count * 3, dtype=np.uint32).astype(np.uint8).reshape(count, 3)
    labels = [row % 256 if row < 1900 else row for row in range(count)]
    names = tuple(f"n{row}" for row in range(count))
    value = batch(data=data, labels=labels, filenames=list(names))
    return Case(value, labels=tuple(labels), names=names, images=[row.tobytes() for row in data], size=(1, 1))


@layout
def large_payload() -> Case:
    count = 100
    data = np.resize(PIXELS, (count, 3072))
    value = batch(data=data, labels=[1] * count, filenames=[str(row) for row in range(count)])
    names = tuple(str(row) for row in range(count))
    return Case(value, labels=(1,) * count, names=names, images=[row.tobytes() for row in data], styled=True)


# Text.


def _name_layout(name: str, names: Any, expected: tuple[str, ...] = NAMES, styled: bool = False) -> None:
    LAYOUTS[name] = lambda: Case(batch(filenames=names), names=expected, styled=styled)


_CYRILLIC = tuple(f"кот_{row}.png" for row in range(ROWS))
_LONG = tuple(f"{row}" * 300 for row in range(ROWS))
_LONG_CYRILLIC = tuple("кот\\" * 100 + str(row) for row in range(ROWS))
_name_layout("names_bytes", [name.encode() for name in NAMES], styled=True)
_name_layout("names_tuple", NAMES)
_name_layout("names_array_of_bytes", np.array([name.encode() for name in NAMES]))
_name_layout("names_array_of_text", np.array(NAMES))
_name_layout("names_array_big_endian", np.array(_CYRILLIC, dtype=">U20"), _CYRILLIC)
_name_layout("names_objects", np.array(NAMES, dtype=object))
_name_layout("names_numpy_text", list(np.array(NAMES)))
_name_layout("names_cyrillic", list(_CYRILLIC), _CYRILLIC, styled=True)
_name_layout("names_cyrillic_bytes", [name.encode() for name in _CYRILLIC], _CYRILLIC)
_name_layout("names_long", list(_LONG), _LONG, styled=True)
_name_layout("names_long_bytes", [name.encode() for name in _LONG], _LONG, styled=True)
_name_layout("names_long_cyrillic", list(_LONG_CYRILLIC), _LONG_CYRILLIC, styled=True)
_name_layout("names_with_escapes", ["a'\"\\\n\t\r\x1a"] * ROWS, ("a'\"\\\n\t\r\x1a",) * ROWS, styled=True)
_name_layout("names_empty", [""] * ROWS, ("",) * ROWS, styled=True)


@layout
def bytes_keys() -> Case:
    return Case({key.encode(): item for key, item in batch().items()}, styled=True)


@layout
def without_names() -> Case:
    return Case(batch(filenames=...), names=None)


@layout
def without_batch_label() -> Case:
    return Case(batch(batch_label=...), label=None)


@layout
def extra_keys() -> Case:
    shared = [1, 2.5, None, True, "x", b"y", (), [], {}, -1e300, 2**62]  # type: ignore[var-annotated]
    extra = {
        "mean": np.linspace(0, 1, 3072),
        "std": np.float32(3.5),
        "complex": np.array([1j]),
        "nested": {"a": [shared, shared], 7: (shared, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), (1, 2): "tuple"},
        "flags": np.array([True, False]),
        "zero": np.array(7),
        "bool": np.bool_(True),
        "ints": list(range(200)) * 5,
        "by_int": {number: number for number in range(200)},
    }
    return Case(batch(**extra))


# Writers.


class Python2Pickler:
    """Python 2's pickler for plain data and arrays, protocols 0 to 2, written from the opcodes' documentation."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.out = io.BytesIO()
        self.memo: dict[int, int] = {}
        self.kept: list[Any] = []

    def dumps(self, value: Any) -> bytes:
        if self.protocol == 2:
            self.out.write(b"\x80\x02")
        self.save(value)
        self.out.write(b".")
        return self.out.getvalue()

    def put(self, value: Any) -> None:
        number = len(self.memo) + 1
        self.memo[id(value)] = number
        self.kept.append(value)
        if self.protocol == 0:
            self.out.write(b"p%d\n" % number)
        else:
            self.out.write(b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number))

    def get(self, value: Any) -> bool:
        number = self.memo.get(id(value))
        if number is None:
            return False
        if self.protocol == 0:
            self.out.write(b"g%d\n" % number)
        else:
            self.out.write(b"h" + bytes([number]) if number < 256 else b"j" + struct.pack("<I", number))
        return True

    def save(self, value: Any) -> None:
        if value is None:
            self.out.write(b"N")
        elif isinstance(value, bool):
            short = b"\x88" if value else b"\x89"
            self.out.write(short if self.protocol == 2 else b"I01\n" if value else b"I00\n")
        elif type(value) is int:
            self.save_int(value)
        elif type(value) is float:
            self.out.write(b"F%r\n" % value if self.protocol == 0 else b"G" + struct.pack(">d", value))
        elif type(value) is type or callable(value):
            self.save_global(value)
        elif not self.get(value):
            self.save_object(value)

    def save_int(self, value: int) -> None:
        if self.protocol and 0 <= value < 256:
            self.out.write(b"K" + bytes([value]))
        elif self.protocol and 0 <= value < 65536:
            self.out.write(b"M" + struct.pack("<H", value))
        elif self.protocol and -(2**31) <= value < 2**31:
            self.out.write(b"J" + struct.pack("<i", value))
        elif self.protocol == 2:
            data = value.to_bytes(8, "little", signed=True)
            self.out.write(b"\x8a\x08" + data)
        else:
            self.out.write(b"I%d\n" % value if value % 2 else b"L%dL\n" % value)

    def save_global(self, value: Any) -> None:
        key = (value.__module__, value.__name__)
        if not self.get(value):
            module = key[0].replace("numpy._core", "numpy.core")
            self.out.write(f"c{module}\n{key[1]}\n".encode())
            self.put(value)

    def save_object(self, value: Any) -> None:
        if type(value) is str and value.isascii():
            self.save_str(value.encode())
            self.put(value)
        elif type(value) is bytes:
            self.save_str(value)
            self.put(value)
        elif type(value) is str:
            self.save_unicode(value)
            self.put(value)
        elif type(value) is tuple:
            self.save_tuple(value)
        elif type(value) in (list, dict):
            self.save_container(value)
        else:
            self.save_reduced(value)

    def save_str(self, data: bytes) -> None:
        if self.protocol == 0:
            text = repr(data)[1:] if data else "''"
            self.out.write(b"S" + text.encode() + b"\n")
        elif len(data) < 256:
            self.out.write(b"U" + bytes([len(data)]) + data)
        else:
            self.out.write(b"T" + struct.pack("<i", len(data)) + data)

    def save_unicode(self, text: str) -> None:
        if self.protocol == 0:
            text = text.replace("\\", "\\u005c").replace("\n", "\\u000a")
            self.out.write(b"V" + text.encode("raw-unicode-escape") + b"\n")
        else:
            self.out.write(b"X" + struct.pack("<I", len(text.encode())) + text.encode())

    def save_tuple(self, value: tuple[Any, ...]) -> None:
        if self.protocol and not value:
            self.out.write(b")")
            return
        short = self.protocol == 2 and len(value) <= 3
        self.out.write(b"" if short else b"(")
        for item in value:
            self.save(item)
        self.out.write(bytes([0x84 + len(value)]) if short else b"t")
        self.put(value)

    def save_container(self, value: Any) -> None:
        kind = type(value)
        empty = {list: (b"(l", b"]"), dict: (b"(d", b"}")}[kind][self.protocol > 0]  # type: ignore[index]
        self.out.write(empty)
        self.put(value)
        one, many = (b"a", b"e") if kind is list else (b"s", b"u")
        items = [(item,) for item in value] if kind is list else list(value.items())
        size = 1000 if self.protocol else 1
        for start in range(0, len(items), size):
            part = items[start : start + size]
            self.out.write(b"(" if len(part) > 1 else b"")
            for item in part:
                for piece in item:
                    self.save(piece)
            self.out.write(many if len(part) > 1 else one)

    def save_reduced(self, value: Any) -> None:
        function, args, *rest = value.__reduce__()
        self.save(function)
        self.save(args)
        self.out.write(b"R")
        self.put(value)
        if rest:
            self.save(rest[0])
            self.out.write(b"b")


def python2(protocol: int) -> Callable[[Any], bytes]:
    return lambda value: Python2Pickler(protocol).dumps(value)


def python3(protocol: int) -> Callable[[Any], bytes]:
    return lambda value: pickle.dumps(value, protocol)


def _private_copy(name: str) -> Any:
    """A module of its own, as Python ships it: dill, once imported, patches `pickle` for the whole process."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_PurePickler = _private_copy("pickle")._Pickler


def pure_python3(protocol: int) -> Callable[[Any], bytes]:
    def dumps(value: Any) -> bytes:
        out = io.BytesIO()
        _PurePickler(out, protocol).dump(value)
        return out.getvalue()

    return dumps


def numpy1(protocol: int) -> Callable[[Any], bytes]:
    """Python 3 with the names of numpy 1; long files of many frames stay as they are."""

    def dumps(value: Any) -> bytes:
        data = pickle.dumps(value, protocol)
        if protocol < 4:
            return data.replace(b"numpy._core.", b"numpy.core.")
        if data.count(b"\x95", 0, 3) != 1 or len(data) > 60000:
            return data
        body = data[11:]
        for module in (b"multiarray", b"numeric"):
            name = b"numpy._core." + module
            body = body.replace(
                b"\x8c%c%b" % (len(name), name), b"\x8c%c%b" % (len(name) - 1, name.replace(b"._", b"."))
            )
        frame = struct.unpack("<Q", data[3:11])[0] - (len(data) - 11 - len(body))
        return data[:3] + struct.pack("<Q", frame) + body

    return dumps


def readonly(value: Any) -> bytes:
    """Protocol 5 with read-only buffers."""
    value = dict(value)
    for key, item in value.items():
        if isinstance(item, np.ndarray) and item.dtype != object:
            value[key] = item.copy(order="K")
            value[key].flags.writeable = False
    return pickle.dumps(value, 5)


def in_text_mode(data: bytes) -> bytes:
    """What Windows makes of a file that is opened as text: only protocol 0 survives it."""
    return data.replace(b"\n", b"\r\n")


WRITERS: dict[str, Callable[[Any], bytes]] = {
    **{f"python2_{protocol}": python2(protocol) for protocol in range(3)},
    **{f"python3_{protocol}": python3(protocol) for protocol in range(6)},
    **{f"pure_{protocol}": pure_python3(protocol) for protocol in (0, 2, 4, 5)},
    **{f"numpy1_{protocol}": numpy1(protocol) for protocol in (2, 3, 4, 5)},
    "readonly_5": readonly,
    "python2_0_text": lambda value: in_text_mode(python2(0)(value)),
    "python3_0_text": lambda value: in_text_mode(python3(0)(value)),
}


# Bad files: each takes the path of a marker that must not come into being.


WRONG_AXES = {
    "of_rows_in_the_middle": ((3, ROWS, 1024), b"K\x01K\x00K\x02\x87"),
    "too_few": ((ROWS, 32, 32, 3), b"K\x00K\x03K\x01\x87"),
    "too_many": ((ROWS, 3072), b"K\x00K\x01K\x02\x87"),
    "twice": ((ROWS, 32, 32, 3), b"(K\x00K\x03K\x03K\x02t"),
    "outside": ((ROWS, 32, 32, 3), b"(K\x00K\x04K\x01K\x02t"),
    "negative": ((ROWS, 32, 32, 3), b"(K\x00J\xff\xff\xff\xffK\x01K\x02t"),
    "of_bools": ((ROWS, 3072), b"\x89\x88\x86"),
    "of_floats": ((ROWS, 3072), b"G" + bytes(8) + b"K\x01\x86"),
    "of_text": ((ROWS, 3072), b"U\x01xU\x01y\x86"),
    "none": ((ROWS, 3072), b"N"),
    "missing": ((ROWS, 3072), b""),
    "a_list": ((ROWS, 3072), b"]"),
    "a_million": ((ROWS, 3072), b"(" + b"K\x00" * 1_000_000 + b"t"),
    "of_another_shape": ((ROWS, 32, 32, 4), b"(K\x00K\x03K\x01K\x02t"),
    "of_mixed_rows": ((32, ROWS, 32, 3), b"(K\x01K\x03K\x00K\x02t"),
}
"""Shapes and axes, as opcodes, that numpy does not write for a batch."""


def in_memory_order(shape: tuple[int, ...], axes: bytes) -> Callable[[str], bytes]:
    """An array transposed as numpy 2.3 and later write it."""
    sides = b"(" + b"".join(b"M" + struct.pack("<H", side) for side in shape) + b"t"
    data = b"T" + struct.pack("<I", PIXELS.size) + PIXELS.tobytes()
    return wrapped(b"cnumpy._core.numeric\n_frombuffer\n(" + data + U1 + sides + b"U\x01K" + axes + b"tR")


def global_call(module: str, name: str, argument: str = "") -> Callable[[str], bytes]:
    return lambda marker: f"(dS'data'\nc{module}\n{name}\n(S'{argument or 'touch ' + marker}'\ntRs.".encode()


def styled(**changes: Any) -> bytes:
    return python2(2)(batch(**changes))


def swapped(old: bytes, new: bytes, data: bytes | None = None) -> Callable[[str], bytes]:
    def make(marker: str) -> bytes:
        source = styled() if data is None else data
        if old not in source:
            raise AssertionError(f"{old!r} is not in the file")
        return source.replace(old, new, 1)

    return make


def wrapped(body: bytes) -> Callable[[str], bytes]:
    """A protocol 2 dictionary whose key `data` holds `body`."""
    return lambda marker: b"\x80\x02}(U\x04data" + body + b"u."


def value(**changes: Any) -> Callable[[str], bytes]:
    return lambda marker: python2(2)(batch(**changes))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
U1 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
ENCODE = b"c_codecs\nencode\n"


def array_of(shape: bytes, payload: bytes, dtype: bytes = U1, tail: bytes = b"tb") -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + b"\x89" + payload + tail


def dtype_of(name: bytes, state: bytes = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb") -> bytes:
    return b"cnumpy\ndtype\nU%c%bK\x00K\x01\x87R%b" % (len(name), name, state)


def chain(count: int, first: bytes, link: bytes) -> bytes:
    return first + link * count


def laughs(levels: int) -> bytes:
    """Lists that hold the one before ten times."""
    parts = [b"](NNNNNNNNNNeq\x00"]
    parts += [b"](" + b"h%c" % level * 10 + b"eq%c" % (level + 1) for level in range(levels)]
    return b"](" + b"".join(parts) + b"e"


HUGE = struct.pack("<Q", 1 << 40)

BAD: dict[str, Callable[[str], bytes]] = {
    # No pickle.
    "empty": lambda marker: b"",
    "text": lambda marker: b"Hello, this is the readme.\n",
    "html": lambda marker: b"<!DOCTYPE html><html></html>",
    "zeros": lambda marker: bytes(100),
    "gzip": lambda marker: b"\x1f\x8b\x08" + bytes(50),
    "zip": lambda marker: b"PK\x03\x04" + bytes(50),
    "bzip2": lambda marker: b"BZh9" + bytes(50),
    "xz": lambda marker: b"\xfd7zXZ\0" + bytes(50),
    "npy": lambda marker: b"\x93NUMPY\x01\0" + bytes(50),
    "tar": lambda marker: b"x" * 257 + b"ustar\0" + bytes(300),
    "torch": lambda marker: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(50),
    "json": lambda marker: b'{"data": []}',
    # More than it says.
    "names_repeated": lambda marker: pickle.dumps(
        {"labels": [0] * 2000, "filenames": ["x" * 65_000] * 2000, "data": []}, 2
    ),
    # Calls.
    **{
        f"calls_{module}_{name}": global_call(module, name)
        for module, name in [
            ("posix", "system"),
            ("os", "system"),
            ("nt", "system"),
            ("subprocess", "call"),
            ("builtins", "eval"),
            ("__builtin__", "eval"),
            ("builtins", "getattr"),
            ("builtins", "open"),
            ("numpy", "load"),
            ("numpy", "fromfile"),
            ("numpy.testing", "runstring"),
            ("numpy.core.multiarray", "fromfile"),
            ("numpy.core.multiarray", "datetime_data"),
            ("copy_reg", "_reconstructor"),
            ("collections", "OrderedDict"),
            ("numpy.matrixlib.defmatrix", "matrix"),
            ("é\n"[:1], "x"),
        ]
    },
    "calls_stack_global": wrapped(b"\x8c\x05posix\x8c\x06system\x93U\x02id\x85R"),
    "calls_ndarray": wrapped(b"cnumpy\nndarray\nK\x08\x85R"),
    "calls_huge_bytes": wrapped(b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R"),
    "calls_huge_bytearray": wrapped(b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R"),
    "calls_text": wrapped(b"U\x01xU\x01y\x85R"),
    "calls_without_tuple": wrapped(ARRAY[:-2] + b"]R"),
    "encode_hex": wrapped(ENCODE + b"X\x01\x00\x00\x00aU\x03hex\x86R"),
    "encode_zlib": wrapped(ENCODE + b"U\x01aU\x04zlib\x86R"),
    "encode_utf16": wrapped(ENCODE + b"X\x01\x00\x00\x00aU\x05utf16\x86R"),
    "encode_above_latin1": wrapped(array_of(b"K\x01K\x03\x86", ENCODE + b"X\x02\x00\x00\x00\xd0\xb6U\x06latin1\x86R")),
    "encode_long_above_latin1": wrapped(
        ENCODE + b"X" + struct.pack("<I", 600) + b"\xd0\xb6" * 300 + b"U\x06latin1\x86R"
    ),
    "encode_long_broken": wrapped(ENCODE + b"X" + struct.pack("<I", 600) + b"\xc3" * 600 + b"U\x06latin1\x86R"),
    "reconstruct_other_class": wrapped(ARRAY.replace(b"ndarray", b"dtype")),
    "reconstruct_shape": wrapped(ARRAY.replace(b"K\x00\x85", b"J\xff\xff\xff\x7f\x85")),
    "reconstruct_type": wrapped(ARRAY.replace(b"U\x01b", b"U\x01O")),
    "scalar_object": wrapped(b"cnumpy.core.multiarray\nscalar\n" + dtype_of(b"O8") + b"U\x01x\x86R"),
    "scalar_short": wrapped(b"cnumpy.core.multiarray\nscalar\n" + dtype_of(b"u1") + b"U\x02xy\x86R"),
    "frombuffer_object": wrapped(
        b"cnumpy.core.numeric\n_frombuffer\n(U\x08" + bytes(8) + dtype_of(b"O8") + b"K\x01\x85U\x01CtR"
    ),
    "frombuffer_order": wrapped(b"cnumpy.core.numeric\n_frombuffer\n(U\x03abc" + U1 + b"K\x01K\x03\x86U\x01ZtR"),
    # Opcodes that no CIFAR file has.
    "persistent_id": wrapped(b"Pmarker\n"),
    "binary_persistent_id": wrapped(b"U\x01xQ"),
    "extension1": wrapped(b"\x82\x01"),
    "extension2": wrapped(b"\x83\x01\x00"),
    "extension4": wrapped(b"\x84\x01\x00\x00\x00"),
    "inst": lambda marker: f"(dS'data'\n(S'touch {marker}'\niposix\nsystem\ns.".encode(),
    "obj": wrapped(b"(cnumpy\nndarray\no"),
    "newobj": wrapped(b"cnumpy\nndarray\n)\x81"),
    "newobj_ex": wrapped(b"cnumpy\nndarray\n)}\x92"),
    "next_buffer": wrapped(b"\x97"),
    "readonly_buffer": wrapped(b"\x97\x98"),
    "pop": wrapped(b"NN0"),
    "dup": wrapped(b"N2"),
    "pop_mark": wrapped(b"N(N1"),
    "unknown_opcode": wrapped(b"\xff"),
    "protocol_6": lambda marker: b"\x80\x06}.",
    "protocol_in_the_middle": wrapped(b"\x80\x02N"),
    "build_on_list": wrapped(b"]}b"),
    "build_on_dict": wrapped(b"}}b"),
    "build_on_text": wrapped(b"U\x01x}b"),
    "build_on_global": wrapped(b"cnumpy\nndarray\n}b"),
    "build_twice": wrapped(array_of(b"K\x00K\x03\x86", b"U\x00") + b"(K\x01K\x00K\x03\x86" + U1 + b"\x89U\x00tb"),
    "build_from_memo": wrapped(ARRAY + b"q\x01h\x01(K\x01K\x00K\x03\x86" + U1 + b"\x89U\x00tb"),
    # Dtypes.
    **{
        f"dtype_{name}": wrapped(array_of(b"K\x01K\x03\x86", b"U\x03abc", dtype_of(name.encode())))
        for name in ["V3", "O8", "i8", "f8", "M8", "u3", "u1,u1", "S999999999", "U0", "c8", "", "x" * 40, "|u1" * 5]
    },
    "dtype_signed": wrapped(array_of(b"K\x01K\x03\x86", b"U\x03abc", dtype_of(b"i1"))),
    "dtype_bool": wrapped(array_of(b"K\x01K\x03\x86", b"U\x03abc", dtype_of(b"b1"))),
    "dtype_fields": wrapped(
        array_of(
            b"K\x01K\x03\x86",
            b"U\x03abc",
            dtype_of(b"u1", b"(K\x03U\x01|NU\x01a\x85}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"),
        )
    ),
    "dtype_subarray": wrapped(
        array_of(
            b"K\x01K\x03\x86",
            b"U\x03abc",
            dtype_of(b"u1", b"(K\x03U\x01|U\x02u1K\x05\x86NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"),
        )
    ),
    "dtype_elsize": wrapped(
        array_of(
            b"K\x01K\x03\x86", b"U\x03abc", dtype_of(b"u1", b"(K\x03U\x01|NNNJ\xff\xff\xff\x7fJ\xff\xff\xff\xffK\x00tb")
        )
    ),
    "dtype_flags": wrapped(
        array_of(
            b"K\x01K\x03\x86",
            b"U\x03abc",
            dtype_of(b"u1", b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffJ\xff\xff\xff\x7ftb"),
        )
    ),
    "dtype_no_state": wrapped(array_of(b"K\x01K\x03\x86", b"U\x06abcdef", b"cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R")),
    "dtype_missing": wrapped(array_of(b"K\x01K\x03\x86", b"U\x03abc", b"N")),
    # Shapes and sizes.
    "shape_negative": wrapped(array_of(b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86", b"U\x03abc")),
    "shape_negative_pair": wrapped(array_of(b"J\xff\xff\xff\xffK\x03\x86", b"U\x03abc")),
    "shape_too_large": wrapped(array_of(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"U\x03abc")),
    "shape_overflowing": wrapped(
        array_of(b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x8a\x08" + b"\xff" * 7 + b"\x7f\x86", b"U\x01a")
    ),
    "shape_text": wrapped(array_of(b"U\x01xK\x03\x86", b"U\x03abc")),
    "shape_bool": wrapped(array_of(b"\x88K\x03\x86", b"U\x03abc")),
    "shape_not_a_tuple": wrapped(array_of(b"K\x03", b"U\x03abc")),
    "shape_one_dimension": wrapped(array_of(b"K\x03\x85", b"U\x03abc")),
    "shape_scalar": wrapped(array_of(b")", b"U\x01a")),
    "shape_zero_width": wrapped(array_of(b"J\xff\xff\xff\x7fK\x00\x86", b"U\x00")),
    "shape_40_dimensions": wrapped(array_of(b"(" + b"K\x01" * 40 + b"t", b"U\x01a")),
    "shape_four_channels": value(data=PIXELS.reshape(ROWS, 32, 24, 4)),
    "row_of_four_channels": value(data=[row.reshape(32, 24, 4) for row in PIXELS]),
    "lines_with_and_without_a_return": lambda marker: in_text_mode(python2(0)(batch())).replace(b"\n", b"\r\n", 1),
    "a_line_without_a_return": lambda marker: b"\n".join(in_text_mode(python2(0)(batch())).rsplit(b"\r\n", 1)),
    "binary_data_in_text_mode": lambda marker: in_text_mode(python2(1)(batch())),
    **{f"axes_{kind}": in_memory_order(*given) for kind, given in WRONG_AXES.items()},
    "row_not_square": value(data=PIXELS[:, :3069]),
    "row_not_colour": value(data=PIXELS[:, :1024]),
    "payload_short": swapped(struct.pack("<i", ROWS * 3072), struct.pack("<i", ROWS * 3072 - 3)),
    "payload_long": swapped(struct.pack("<i", ROWS * 3072), struct.pack("<i", ROWS * 3072 + 3)),
    "payload_text": wrapped(array_of(b"K\x01K\x03\x86", b"X\x03\x00\x00\x00abc")),
    "payload_none": wrapped(array_of(b"K\x01K\x03\x86", b"N")),
    "payload_list": wrapped(array_of(b"K\x01K\x03\x86", b"](K\x01K\x02K\x03e")),
    "object_count": wrapped(array_of(b"J\xff\xff\xff\x7f\x85", b"](NNe", dtype_of(b"O8"))),
    "object_int_above_255": value(data=np.array([[1] * 2999 + [256] + [1] * 72] * ROWS, dtype=object)),
    "object_bool_pixels": value(data=np.array([[True] * 3072] * ROWS, dtype=object)),
    "state_short": wrapped(ARRAY + b"(K\x01K\x00K\x03\x86tb"),
    "state_version": wrapped(array_of(b"K\x01K\x03\x86", b"U\x03abc").replace(b"(K\x01K\x01", b"(K\x09K\x01")),
    "array_without_state": wrapped(ARRAY),
    "string_beyond_the_file": wrapped(b"T\xff\xff\xff\x7f"),
    "string_negative": wrapped(b"T\xff\xff\xff\xff"),
    "bytes_beyond_the_file": wrapped(b"\x8e" + HUGE),
    "bytearray_beyond_the_file": wrapped(b"\x96" + HUGE),
    "text_beyond_the_file": wrapped(b"\x8d" + HUGE),
    "frame_beyond_the_file": wrapped(b"\x95" + HUGE + b"N"),
    "int_of_9_bytes": wrapped(b"\x8a\x09" + b"\x01" * 9),
    "int_of_gigabytes": wrapped(b"\x8b\xff\xff\xff\x7f"),
    "int_line_huge": wrapped(b"I" + b"9" * 5000 + b"\n"),
    "int_line_text": wrapped(b"Iabc\n"),
    "int_line_underscore": wrapped(b"I1_0\n"),
    "long_line_huge": wrapped(b"L" + b"9" * 25 + b"L\n"),
    "float_line_text": wrapped(b"Fabc\n"),
    "float_line_huge": wrapped(b"F" + b"1" * 5000 + b"\n"),
    "line_without_end": wrapped(b"S'" + b"x" * 5000),
    "string_without_quotes": wrapped(b"Sabc\n"),
    "string_one_quote": wrapped(b"S'\n"),
    "string_empty_line": wrapped(b"S\n"),
    "string_bad_escape": wrapped(b"S'\\q'\n"),
    "string_bad_hex": wrapped(b"S'\\xg0'\n"),
    "string_octal_escape": wrapped(b"S'\\101'\n"),
    "long_string_bad_escape": wrapped(b"S'" + b"\\q" * 300 + b"'\n"),
    "long_string_half_escape": wrapped(b"S'" + b"a" * 300 + b"\\'\n"),
    "unicode_bad_escape": wrapped(b"V\\q\n"),
    "text_not_utf8": wrapped(b"X\x02\x00\x00\x00\xff\xfe"),
    # Memo, nesting, aliasing.
    "memo_unknown": wrapped(b"h\x63"),
    "memo_unknown_line": wrapped(b"g99\n"),
    "memo_unknown_long": wrapped(b"j\xff\xff\xff\xff"),
    "memo_negative": wrapped(b"Np-5\n"),
    "repeated_object_array": wrapped(
        ARRAY
        + b"(K\x01M\x00\x80\x85"
        + dtype_of(b"O8")
        + b"\x89]("
        + b"N" * 0x8000
        + b"eq\x01tb"
        + (ARRAY + b"(K\x01M\x00\x80\x85" + dtype_of(b"O8") + b"\x89h\x01tb") * 100
    ),
    "repeated_encoding": wrapped(
        ENCODE
        + b"q\x01X"
        + struct.pack("<I", 1 << 20)
        + bytes(1 << 20)
        + b"U\x06latin1\x86q\x02R"
        + b"h\x01h\x02R" * 1000
    ),
    "repeated_scalar": wrapped(
        b"cnumpy.core.multiarray\nscalar\nq\x01"
        + dtype_of(b"S60000", b"(K\x03U\x01|NNNM\x60\xeaK\x01K\x00tb")
        + b"T\x60\xea\x00\x00"
        + b"x" * 60000
        + b"\x86q\x02R"
        + b"h\x01h\x02R" * 100_000
    ),
    "deep_tuples": wrapped(chain(100_000, b")", b"\x85")),
    "deep_marks": wrapped(b"(" * 100_000),
    "deep_lists": wrapped(b"](" * 100_000),
    "deep_by_append": wrapped(b"]" * 100_000 + b"a" * 99_999),
    "deep_dicts": wrapped(b"}U\x00" * 1000 + b"N" + b"s" * 1000),
    "billion_laughs": wrapped(laughs(9)),
    "cycle": wrapped(b"]q\x00h\x00a"),
    "cycle_through_tuple": wrapped(b"]q\x00h\x00\x85a"),
    "aliased_rows": wrapped(
        b"]("
        + array_of(b"J\x00\x00\x30\x00\x85", b"T\x00\x00\x30\x00" + bytes(0x300000))
        + b"q\x05"
        + b"h\x05" * 1000
        + b"e"
    ),
    "dict_odd": wrapped(b"}(NNNu"),
    "mark_missing": wrapped(b"]e"),
    "append_to_nothing": lambda marker: b"\x80\x02Na.",
    "append_to_tuple": wrapped(b")Na"),
    "setitem_on_list": wrapped(b"]NNs"),
    "put_nothing": lambda marker: b"\x80\x02q\x00}.",
    "stack_left": lambda marker: b"\x80\x02NN.",
    "stack_empty": lambda marker: b"\x80\x02.",
    "mark_left": lambda marker: b"\x80\x02(.",
    "data_after_stop": lambda marker: styled() + b"x",
    "second_pickle": lambda marker: styled() + styled(),
    # Dictionaries and columns.
    "top_is_list": lambda marker: python2(2)([1, 2]),
    "top_is_array": lambda marker: python2(2)(PIXELS),
    "top_is_none": lambda marker: b"\x80\x02N.",
    "empty_dictionary": lambda marker: python2(2)({}),
    "other_dictionary": lambda marker: python2(2)({"images": [], "classes": []}),
    "meta_for_batch": lambda marker: python2(2)({"label_names": ["a"], "num_vis": 3072}),
    "key_int": lambda marker: python2(2)(batch() | {1: 2}),
    "key_twice": lambda marker: python3(3)(batch() | {b"labels": list(LABELS)}),
    "key_not_utf8": lambda marker: python2(2)(batch() | {b"\xff": 1}),
    "labels_too_few": value(labels=list(LABELS)[1:]),
    "names_too_few": value(filenames=list(NAMES)[1:]),
    "rows_too_few": value(data=PIXELS[1:]),
    "list_of_rows_too_short": value(data=list(PIXELS[1:])),
    "coarse_too_few": value(labels=..., fine_labels=list(LABELS), coarse_labels=[1]),
    "both_label_keys": value(fine_labels=list(LABELS)),
    "labels_bool": value(labels=[True] * ROWS),
    "labels_numpy_bool": value(labels=[np.bool_(True)] * ROWS),
    "labels_bool_array": value(labels=np.array([True] * ROWS)),
    "labels_float": value(labels=[1.0] * ROWS),
    "labels_float_array": value(labels=np.array([1.0] * ROWS)),
    "labels_numpy_float": value(labels=[np.float64(1)] * ROWS),
    "labels_lists_of_two": value(labels=[[1, 2]] * ROWS),
    "labels_lists_of_lists": value(labels=[[[1]]] * ROWS),
    "labels_lists_of_bools": value(labels=[[True]] * ROWS),
    "labels_two_dimensions": value(labels=np.array([LABELS])),
    "labels_uint64": value(labels=np.array([2**63] * ROWS, dtype=np.uint64)),
    "labels_text": value(labels="12345"),
    "labels_dict": value(labels={}),
    "labels_none": value(labels=None),
    "labels_not_utf8": value(labels=[b"\xff"] * ROWS),
    "labels_global": swapped(b"K\x03K\x00", b"cnumpy\nndarray\nK\x00"),
    "coarse_names": value(labels=..., fine_labels=list(LABELS), coarse_labels=["a"] * ROWS),
    "names_not_utf8": value(filenames=[b"\xff\xfe"] * ROWS),
    "names_array_not_utf8": value(filenames=np.array([b"\xff\xfe"] * ROWS)),
    "names_none": value(filenames=[None] * ROWS),
    "names_int": value(filenames=list(range(ROWS))),
    "names_too_long": value(filenames=["x" * 70_000] * ROWS),
    "batch_label_int": value(batch_label=5),
    "batch_label_list": value(batch_label=["x"]),
    "data_text": value(data="pixels"),
    "data_int": value(data=7),
    "data_dict": value(data={}),
    "data_int64": value(data=PIXELS.astype(np.int64)),
    "data_float": value(data=PIXELS.astype(np.float32)),
    "rows_of_bytes": value(data=[row.tobytes() for row in PIXELS]),
    "rows_of_floats": value(data=[row.astype(float) for row in PIXELS]),
    "rows_of_wrong_length": value(data=[row[:-1] for row in PIXELS]),
    "rows_of_four_dimensions": value(data=[row.reshape(1, 3, 32, 32) for row in PIXELS]),
    "sizes_too_few": value(image_sizes=[(32, 32)]),
    "sizes_too_few_without_data": value(data=..., image_sizes=[(32, 32)]),
    "sizes_disagree": value(image_sizes=[(32, 31)] * ROWS),
    "sizes_disagree_with_planes": value(data=PIXELS.reshape(ROWS, 3, 32, 32), image_sizes=[(16, 64)] * ROWS),
    "sizes_disagree_with_row": value(data=objects(list(PIXELS)), image_sizes=[(32, 31)] * ROWS),
    "sizes_zero": value(image_sizes=[(0, 32)] * ROWS),
    "sizes_negative": value(image_sizes=[(-32, -32)] * ROWS),
    "sizes_huge": value(image_sizes=[(2**31 - 1, 2**31 - 1)] * ROWS),
    "sizes_triple": value(image_sizes=[(32, 32, 3)] * ROWS),
    "sizes_text": value(image_sizes=["32"] * ROWS),
    "sizes_float": value(image_sizes=[(32.0, 32.0)] * ROWS),
    "sizes_int": value(image_sizes=32),
}


def long(count: int, code: bytes = b"T") -> bytes:
    return code + struct.pack("<i", count) + b"x" * count


def listed(items: bytes) -> bytes:
    return b"](" + items + b"e"


def column(key: bytes, body: bytes) -> Callable[[str], bytes]:
    return lambda marker: b"\x80\x02}(U%c%b%bu." % (len(key), key, body)


def system(form: str) -> Callable[[str], bytes]:
    """A call of `os.system` that creates the marker; COMMAND in the form is where the command goes."""
    return lambda marker: form.replace("COMMAND", f"touch {marker}").encode("latin-1")


SCALAR = b"cnumpy.core.multiarray\nscalar\n"
STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

BAD |= {
    # Calls, in every form that creates something.
    "call_global_reduce": system("cposix\nsystem\n(S'COMMAND'\ntR."),
    "call_in_a_value": system("(dS'labels'\ncposix\nsystem\n(S'COMMAND'\ntRs."),
    "call_in_a_key": system("(dcposix\nsystem\n(S'COMMAND'\ntRNs."),
    "call_in_a_list": system("(dS'labels'\n(lcposix\nsystem\n(S'COMMAND'\ntRas."),
    "call_through_inst": system("(S'COMMAND'\niposix\nsystem\n."),
    "call_through_obj": system("\x80\x02}(U\x04data(cposix\nsystem\nS'COMMAND'\nou."),
    "call_through_newobj": system("\x80\x02}(U\x04datacsubprocess\nPopen\nS'COMMAND'\n\x85\x81u."),
    "call_through_newobj_ex": system("\x80\x04}(U\x04datacsubprocess\nPopen\nS'COMMAND'\n\x85}\x92u."),
    "call_through_build": system("\x80\x02}(U\x04data]}U\x0c__setstate__cposix\nsystem\nsbS'COMMAND'\nbu."),
    "call_after_stop": system("(d.cposix\nsystem\n(S'COMMAND'\ntR."),
    "call_after_a_good_batch": lambda marker: styled() + f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode(),
    "call_on_the_stack_from_memo": wrapped(b"\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93"),
    "call_by_dotted_name": wrapped(b"\x8c\x05numpy\x8c\x10ndarray.__init__\x93"),
    "call_of_bytes_names": wrapped(b"C\x05numpyC\x07ndarray\x93"),
    "call_of_a_name_with_a_space": wrapped(b"cnumpy\nndarray \n"),
    "call_of_a_name_with_a_return": wrapped(b"cnumpy\r\nndarray\r\n"),
    "call_of_a_long_name": wrapped(b"c" + b"x" * 2000 + b"\ny\n"),
    "call_of_an_empty_name": wrapped(b"c\n\n"),
    "call_of_a_name_that_does_not_end": wrapped(b"cposix"),
    "call_of_a_name_in_capitals": wrapped(b"cNumpy\nndarray\n"),
    "call_of_a_dtype": wrapped(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R)R"),
    "call_of_a_list": wrapped(b"])R"),
    "call_of_none": wrapped(b"N)R"),
    "call_of_import": global_call("builtins", "__import__", "os"),
    "call_of_exec": global_call("builtins", "exec"),
    "call_of_compile": global_call("builtins", "compile"),
    "call_of_map": global_call("builtins", "map"),
    "call_of_a_partial": global_call("functools", "partial"),
    "call_of_attrgetter": global_call("operator", "attrgetter"),
    "call_of_a_code_object": global_call("types", "CodeType"),
    "call_of_a_ctype": global_call("ctypes", "CDLL"),
    "call_of_a_numpy_memmap": global_call("numpy", "memmap"),
    "call_of_numpy_frombuffer": global_call("numpy", "frombuffer"),
    "call_of_loads": global_call("pickle", "loads"),
    "call_of_a_torch_storage": global_call("torch._utils", "_rebuild_tensor_v2"),
    "extension1_zero": wrapped(b"\x82\x00"),
    "extension2_large": wrapped(b"\x83\xff\xff"),
    "extension4_negative": wrapped(b"\x84\xff\xff\xff\xff"),
    "persistent_id_empty": wrapped(b"P\n"),
    "persistent_id_not_ended": wrapped(b"Pmarker"),
    "persistent_id_of_a_tuple": wrapped(b"U\x01xU\x01y\x86Q"),
    "buffer_as_data_of_an_array": wrapped(b"cnumpy.core.numeric\n_frombuffer\n(\x97" + U1 + b"K\x01K\x03\x86U\x01CtR"),
    "buffer_readonly_of_text": wrapped(b"U\x01x\x98"),
    "build_with_a_dictionary": wrapped(ARRAY + b"}b"),
    "build_with_slots": wrapped(ARRAY + b"N}\x86b"),
    "build_on_a_number": wrapped(b"K\x01}b"),
    "build_on_nothing": lambda marker: b"\x80\x02}b.",
    "build_on_a_scalar": wrapped(SCALAR + U1 + b"U\x01x\x86R}b"),
    "build_on_a_used_dtype": wrapped(array_of(b"K\x00K\x03\x86", b"U\x00", U1 + b"q\x01") + b"h\x01" + STATE),
    # States that crash numpy, or forge pointers.
    "state_of_pointers": wrapped(array_of(b"K\x01\x85", b"U\x08" + b"A" * 8, dtype_of(b"O8"))),
    "state_of_pointers_as_bytes": wrapped(array_of(b"K\x01\x85", b"C\x08" + b"A" * 8, dtype_of(b"O8"))),
    "state_of_pointers_by_elsize": wrapped(
        array_of(b"K\x01\x85", b"U\x08" + b"A" * 8, dtype_of(b"u1", b"(K\x03U\x01|NNNK\x08K\x01K?tb"))
    ),
    "state_with_names_and_no_fields": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NU\x01a\x85NK\x01K\x01K\x00tb")),
    "state_with_a_field_outside": wrapped(
        dtype_of(b"u1", b"(K\x03U\x01|NU\x01a\x85}U\x01aU\x02u1M\xff\xff\x86sK\x01K\x01K\x10tb")
    ),
    "state_with_metadata": wrapped(dtype_of(b"u1", b"(K\x04U\x01|NNNK\x01K\x01K\x00}tb")),
    "state_of_version_2": wrapped(dtype_of(b"u1", b"(K\x02U\x01|NNNK\x01K\x01tb")),
    "state_with_negative_size": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NNNJ\xfe\xff\xff\xffK\x01K\x00tb")),
    "state_with_huge_alignment": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NNNK\x01J\xff\xff\xff\x7fK\x00tb")),
    "state_with_negative_flags": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NNNK\x01K\x01J\xff\xff\xff\xfftb")),
    "state_with_text_for_a_number": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NNNU\x01xK\x01K\x00tb")),
    "state_with_a_list_for_a_number": wrapped(dtype_of(b"u1", b"(K\x03U\x01|NNN]K\x01K\x00tb")),
    "state_with_an_unknown_order": wrapped(dtype_of(b"i4", b"(K\x03U\x01!NNNK\x04K\x04K\x00tb")),
    "state_with_an_int_order": wrapped(dtype_of(b"i4", b"(K\x03K\x01NNNK\x04K\x04K\x00tb")),
    "state_of_a_list": wrapped(dtype_of(b"u1", b"]b")),
    "state_of_an_array_with_itself": wrapped(ARRAY + b"q\x01h\x01\x85b"),
    "dtype_of_a_list": wrapped(b"cnumpy\ndtype\n]K\x00K\x01\x87R"),
    "dtype_of_a_dictionary": wrapped(b"cnumpy\ndtype\n}K\x00K\x01\x87R"),
    "dtype_of_four_arguments": wrapped(b"cnumpy\ndtype\n(U\x02u1K\x00K\x01}tR"),
    "dtype_of_a_long_name": wrapped(b"cnumpy\ndtype\n" + long(5000) + b"K\x00K\x01\x87R"),
    "dtype_of_many_digits": wrapped(b"cnumpy\ndtype\n" + b"U\xffS" + b"9" * 254 + b"K\x00K\x01\x87R"),
    "array_of_a_subclass": wrapped(ARRAY.replace(b"cnumpy\nndarray\n", b"cnumpy\nmatrix\n")),
    "array_state_with_fortran_2": wrapped(
        array_of(b"K\x00K\x03\x86", b"U\x00").replace(b"\x89U\x00tb", b"K\x02U\x00tb")
    ),
    "array_shape_of_floats": wrapped(array_of(b"G?\xf0" + bytes(6) + b"K\x03\x86", b"U\x03abc")),
    "array_shape_of_2_to_the_62": wrapped(array_of(b"\x8a\x08" + bytes(7) + b"\x40K\x04\x86", b"U\x00")),
    "array_shape_of_32_huge_sides": wrapped(
        array_of(b"(" + (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") * 32 + b"t", b"U\x01a")
    ),
    "array_rows_and_no_bytes": wrapped(array_of(b"J\xff\xff\xff\x7fK\x03\x86", b"U\x00")),
    "array_of_objects_of_another_count": wrapped(array_of(b"K\x03\x85", listed(b"NN"), dtype_of(b"O8"))),
    "array_of_objects_in_a_tuple": wrapped(array_of(b"K\x01\x85", b"N\x85", dtype_of(b"O8"))),
    "frombuffer_negative": wrapped(
        b"cnumpy.core.numeric\n_frombuffer\n(U\x03abc" + U1 + b"J\xff\xff\xff\xff\x85U\x01CtR"
    ),
    "frombuffer_too_short": wrapped(b"cnumpy.core.numeric\n_frombuffer\n(U\x03abc" + U1 + b"K\x09\x85U\x01CtR"),
    "frombuffer_of_an_array": wrapped(
        b"cnumpy.core.numeric\n_frombuffer\n(" + array_of(b"K\x03\x85", b"U\x03abc") + U1 + b"K\x03\x85U\x01CtR"
    ),
    "scalar_of_invalid_unicode": wrapped(
        SCALAR + dtype_of(b"U1", b"(K\x03U\x01<NNNK\x04K\x04K\x08tb") + b"U\x04\xff\xff\xff\xff\x86R"
    ),
    "scalar_of_pointers": wrapped(SCALAR + dtype_of(b"O8") + b"U\x08" + b"A" * 8 + b"\x86R"),
    "scalar_without_bytes": wrapped(SCALAR + U1 + b"\x85R"),
    "encode_hex_nested": wrapped(ENCODE * 5 + b"X\x01\x00\x00\x00a" + b"U\x03hex\x86R" * 5),
    "encode_rot13": wrapped(ENCODE + b"X\x01\x00\x00\x00aU\x05rot13\x86R"),
    "encode_bz2": wrapped(ENCODE + b"U\x01aU\x03bz2\x86R"),
    "encode_latin1_in_capitals": wrapped(ENCODE + b"X\x01\x00\x00\x00aU\x06LATIN1\x86R"),
    "encode_with_errors": wrapped(ENCODE + b"X\x01\x00\x00\x00aU\x06latin1U\x06ignore\x87R"),
    "encode_of_an_encoding": wrapped(ENCODE + ENCODE + b"X\x01\x00\x00\x00aU\x06latin1\x86RU\x06latin1\x86R"),
    # Numbers.
    "int_octal": wrapped(b"I055\n"),
    "int_octal_negative": wrapped(b"I-07\n"),
    "int_of_zeros": wrapped(b"I000\n"),
    "int_hexadecimal": wrapped(b"I0x10\n"),
    "int_hexadecimal_huge": wrapped(b"I0x" + b"f" * 5000 + b"\n"),
    "int_of_4301_digits": wrapped(b"I" + b"1" * 4301 + b"\n"),
    "int_with_spaces": wrapped(b"I 5 \n"),
    "int_with_a_plus": wrapped(b"I+5\n"),
    "int_empty": wrapped(b"I\n"),
    "int_of_other_digits": wrapped("I٣\n".encode()),
    "int_just_above_8_bytes": wrapped(b"I9223372036854775808\n"),
    "int_just_below_8_bytes": wrapped(b"I-9223372036854775809\n"),
    "long_octal": wrapped(b"L055L\n"),
    "long_hexadecimal": wrapped(b"L0x" + b"f" * 20 + b"L\n"),
    "long_of_4301_digits": wrapped(b"L" + b"9" * 4301 + b"L\n"),
    "long_of_255_bytes": wrapped(b"\x8a\xff" + b"\x01" * 255),
    "long4_negative": wrapped(b"\x8b\xff\xff\xff\xff"),
    "long4_of_5000_bytes": wrapped(b"\x8b\x88\x13\x00\x00" + b"\x01" * 5000),
    "float_hexadecimal": wrapped(b"F0x1p3\n"),
    "float_huge_exponent": wrapped(b"F1e99999\n"),
    "float_nan_with_payload": wrapped(b"Fnan(1)\n"),
    "memo_index_of_4301_digits": wrapped(b"Np" + b"1" * 4301 + b"\n"),
    "memo_fetched_by_4301_digits": wrapped(b"g" + b"1" * 4301 + b"\n"),
    "memo_index_beyond_4_bytes": wrapped(b"Np4294967296\n"),
    "memo_index_text": wrapped(b"Npabc\n"),
    "label_of_a_string_of_digits": value(labels=[b"1" * 5000] * ROWS),
    # Lengths that lie, and ends that come early.
    "length_of_2_to_the_63": wrapped(b"\x96" + b"\xff" * 7 + b"\x7f"),
    "length_of_2_to_the_64": wrapped(b"\x8e" + b"\xff" * 8),
    "length_of_a_short_string": lambda marker: b"\x80\x02}(U\xffabc",
    "length_of_a_text": lambda marker: b"\x80\x04}(\x8c\xffabc",
    "length_of_a_frame_over_the_end": lambda marker: b"\x80\x04\x95\xff" + bytes(7) + b"}.",
    "length_of_a_frame_huge": wrapped(b"\x95" + b"\xff" * 8),
    "cut_in_the_payload": lambda marker: styled()[:5000],
    "cut_before_stop": lambda marker: styled()[:-1],
    "cut_after_protocol": lambda marker: b"\x80\x02",
    "cut_in_protocol": lambda marker: b"\x80",
    "cut_in_a_number": lambda marker: b"\x80\x02}(U\x04dataJ\x01",
    "zeros_after_stop": lambda marker: styled() + bytes(512),
    "stop_alone": lambda marker: b".",
    "stop_first": lambda marker: b"\x80\x02." + styled(),
    # Structure.
    "deep_as_allowed_by_none": wrapped(b"](" * 70 + b"e" * 70),
    "deep_in_memo": wrapped(b")q\x01" + b"h\x01\x85q\x01" * 100),
    "laughs_of_tuples": wrapped(b")q\x00" + b"".join(b"(" + b"h%c" % n * 9 + b"tq%c" % (n + 1) for n in range(12))),
    "laughs_of_names": column(
        b"filenames", listed(long(4000) + b"q\x00" + listed(b"h\x00" * 100) + b"q\x01" + b"h\x01" * 1000)
    ),
    "laughs_of_arrays": wrapped(array_of(b"M\x00\x80\x85", long(1 << 15)) + b"q\x01" + b"h\x01" * 10_000),
    "cycle_through_dictionary": wrapped(b"}q\x00U\x01xh\x00s"),
    "cycle_through_object_array": wrapped(ARRAY + b"q\x00(K\x01K\x01\x85" + dtype_of(b"O8") + b"\x89]h\x00atb"),
    "grown_after_use": wrapped(b"]q\x00h\x00h\x00Na"),
    "key_is_a_list": wrapped(b"u]Ns}("),
    "key_twice_empty": lambda marker: b"\x80\x02}(U\x00NU\x00Nu.",
    "key_twice_through_memo": lambda marker: b"\x80\x02}(U\x06labelsq\x01]h\x01]u.",
    "key_long": lambda marker: b"\x80\x02}" + long(70_000) + b"Ns.",
    "mark_in_a_mark": wrapped(b"((NN"),
    "set_as_labels": column(b"labels", b"\x8f(K\x01\x90"),
    "names_of_5000_letters": value(filenames=["x" * 5000] * ROWS),
    "names_as_array_of_wide_cells": value(filenames=np.array(["x" * 5000] * ROWS)),
    "names_as_one_text": value(filenames="abcde"),
    "names_nested": value(filenames=[[name] for name in NAMES]),
    "classes_twice_as_many_rows": value(labels=list(LABELS) * 2),
    "images_too_large": value(data=objects([np.zeros(0, np.uint8)] * ROWS), image_sizes=[(1 << 14, 1 << 14)] * ROWS),
}


# Small in the file and large in memory, or long to read: their sizes are those that the scanner still has to refuse.

FLOODS: dict[str, Callable[[str], bytes]] = {
    "flood_of_none": column(b"labels", listed(b"N" * 9_000_000)),
    "flood_of_none_on_the_stack": lambda marker: b"\x80\x02" + b"N" * 9_000_000 + b".",
    "flood_of_none_below_marks": lambda marker: b"\x80\x02}" + (b"(" + b"N" * 200_000) * 60,
    "flood_of_lists": column(b"labels", listed(b"]" * 1_000_000)),
    "flood_of_dictionaries": column(b"labels", listed(b"}" * 1_000_000)),
    "flood_of_sets": column(b"labels", listed(b"\x8f" * 1_000_000)),
    "flood_of_tuples": column(b"labels", listed(b"N\x85" * 1_000_000)),
    "flood_of_empty_tuples": column(b"labels", listed(b")" * 1_000_000)),
    "flood_of_ints_of_2_bytes": column(b"labels", listed(b"M\x00\x80" * 4_000_000)),
    "flood_of_ints_of_4_bytes": column(b"labels", listed(b"J\x00\x80\x00\x40" * 4_000_000)),
    "flood_of_small_ints": column(b"labels", listed(b"K\x01" * 400_000)),
    "flood_of_small_ints_in_short_runs": column(b"labels", listed((b"K\x01" * 64 + b"N") * 600_000)),
    "flood_of_floats": column(b"labels", listed((b"G" + bytes([64]) * 8) * 4_000_000)),
    "flood_of_long_ints": column(b"labels", listed((b"\x8a\x03\x01\x02\x03") * 4_000_000)),
    "flood_of_lines": lambda marker: b"(dS'labels'\n(l" + b"I300\na" * 1_500_000 + b"s.",
    "flood_of_names": column(b"filenames", listed(b"".join(b"U\x06%06x" % row for row in range(250_000)))),
    "flood_of_one_name": column(b"filenames", listed(b"U\x09image.pngq\x01" + b"h\x01" * 300_000)),
    "flood_of_one_long_name": column(b"filenames", listed(long(4000) + b"q\x01" + b"h\x01" * 50_000)),
    "flood_of_wide_names": column(b"filenames", listed((b"X\x04\x01\x00\x00" + b"x" * 256 + "😀".encode()) * 60_000)),
    "flood_of_escapes": lambda marker: b"(dS'filenames'\n(l" + b"V\\u0436a\na" * 800_000 + b"s.",
    "flood_of_keys": lambda marker: b"\x80\x02}(" + b"".join(b"U\x06%06xN" % key for key in range(500_000)) + b"u.",
    "flood_of_memo_entries": column(b"labels", listed(b"N\x94" * 1_200_000)),
    "flood_of_memo_entries_of_one": wrapped(b"N" + b"\x94" * 1_500_000),
    "flood_of_puts": column(b"labels", listed(b"N" + b"q\x00" * 1_500_000)),
    "flood_of_gets": column(b"labels", listed(b"Nq\x00" + b"h\x00" * 7_000_000)),
    "flood_of_marks": lambda marker: b"\x80\x02]" + b"(e" * 1_500_000 + b".",
    "flood_of_frames": lambda marker: b"\x80\x04" + (b"\x95" + bytes(8)) * 1_500_000,
    "flood_of_globals": column(b"labels", listed(b"cnumpy\ndtype\n" * 600_000)),
    "flood_of_dtypes": column(b"labels", listed(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R" * 200_000)),
    "flood_of_scalars": column(b"labels", listed((SCALAR + U1 + b"U\x01x\x86R") * 120_000)),
    "flood_of_encodings": column(b"labels", listed((ENCODE + b"X\x01\x00\x00\x00aU\x06latin1\x86R") * 250_000)),
    "flood_of_arrays": column(b"labels", listed(array_of(b"K\x00\x85", b"U\x00") * 100_000)),
    "flood_of_rows_of_one_pixel": wrapped(
        array_of(b"J\x80\x1a\x06\x00K\x03\x86", b"T\x80\x4f\x12\x00" + bytes(1_200_000))
    ),
    "flood_of_labels_of_one_byte": column(
        b"labels", array_of(b"J\x80\x1a\x06\x00\x85", b"T\x80\x1a\x06\x00" + bytes(400_000))
    ),
    "flood_of_rows_without_image": wrapped(array_of(b"J\x80\x1a\x06\x00\x85", listed(b"N" * 400_000), dtype_of(b"O8"))),
    "flood_of_one_row": wrapped(listed(array_of(b"M\x00\x0c\x85", long(3072)) + b"q\x05" + b"h\x05" * 50_000)),
    "flood_of_sizes": column(
        b"image_sizes", listed(b"".join(b"J%bK\x01\x86" % struct.pack("<i", n) for n in range(1, 300_000)))
    ),
    "flood_of_names_of_one_letter": column(
        b"filenames",
        array_of(
            b"J\x80\x1a\x06\x00\x85",
            b"T\x80\x1a\x06\x00" + b"a" * 400_000,
            dtype_of(b"S1", b"(K\x03U\x01|NNNK\x01K\x01K\x00tb"),
        ),
    ),
}
