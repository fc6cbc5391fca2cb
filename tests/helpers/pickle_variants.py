"""Good pickles made opcode by opcode, in the forms that Python 3's pickler does not write, and a restricted unpickler.

The batches have three rows of 2 x 2 pixels. To add one, write one line in `BATCHES` or `METAS`.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

PIXELS = bytes(range(33)) + b"\\'\xff"  # what text encodings escape
WIDTH = 12
Write = Callable[[bytes], bytes]
_ALLOWED = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}


class RestrictedUnpickler(pickle.Unpickler):
    """Python's own, with the few calls that numpy's arrays need; Python 2's text stays bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in _ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, coding: text.encode(_text(coding))
        if module in ("builtins", "__builtin__") and name in ("bytes", "bytearray"):
            return lambda *args: bytes(args[0], _text(args[1])) if len(args) == 2 else bytes(*args)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _text(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _column(value: Any) -> list[Any]:
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    items = [item[0] if isinstance(item, (list, tuple)) else item for item in items]
    return [_text(item.item() if isinstance(item, (np.generic, np.ndarray)) else item) for item in items]


def _planar(row: Any) -> bytes:
    pixels = np.asarray(row, np.uint8)
    if pixels.ndim == 3 and pixels.shape[0] != 3:
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels).tobytes()


def unpickled(data: bytes) -> dict[str, Any]:
    """A batch or meta file as the restricted unpickler reads it: columns as lists, `data` as bytes for each row."""
    found: dict[str, Any] = {}
    for key, value in RestrictedUnpickler(data).load().items():
        name = _text(key)
        if name == "data":
            rows = [] if value is None else list(value)
            found[name] = [None if row is None else _planar(row) for row in rows]
        elif name.endswith("labels") or name.endswith("names"):
            found[name] = _column(value)
        else:
            found[name] = _text(value)
    return found


# Parts.

MULTIARRAY, NUMERIC = b"cnumpy.core.multiarray\n", b"cnumpy.core.numeric\n"
NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
ORDERS = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"


def u(text: bytes) -> bytes:
    """SHORT_BINSTRING."""
    return b"U%c%b" % (len(text), text)


def sized(code: bytes, form: str, data: bytes) -> bytes:
    """An opcode, a length and the bytes."""
    return code + struct.pack(form, len(data)) + data


def dtype(name: bytes = b"u1", order: bytes = b"|", flags: bytes = b"\x89\x88") -> bytes:
    state = b"(K\x03" + u(order) + ORDERS + (b"K?" if name[:1] == b"O" else b"K\x00")
    return DTYPE + u(name) + flags + b"\x87R" + state + b"tb"


def array(
    payload: bytes,
    shape: bytes = b"K\x03K\x0c\x86",
    kind: bytes = dtype(),
    *,
    module: bytes = MULTIARRAY,
    fortran: bytes = b"\x89",
) -> bytes:
    return (
        module + b"_reconstruct\n" + NDARRAY + b"K\x00\x85U\x01b\x87R(K\x01" + shape + kind + fortran + payload + b"tb"
    )


def buffer(payload: bytes, kind: bytes = dtype(), shape: bytes = b"K\x03K\x0c\x86", order: bytes = b"U\x01C") -> bytes:
    return NUMERIC + b"_frombuffer\n(" + payload + kind + shape + order + b"tR"


def encoded(text: bytes, coding: bytes = b"U\x06latin1") -> bytes:
    return b"c_codecs\nencode\n" + text + coding + b"\x86R"


LATIN1 = PIXELS.decode("latin-1").encode()
ESCAPED = PIXELS.decode("latin-1").replace("\\", "\\u005c").replace("\n", "\\u000a").encode("raw-unicode-escape")
LABELS = b"](K\x03K\x00K\x01e"
NAMES = b"](" + u(b"a.png") + u(b"b.png") + u(b"c.png") + b"e"
DATA = array(u(PIXELS))
ROW = array(u(PIXELS[:WIDTH]), b"K\x0c\x85")


def made(
    labels: bytes = LABELS, data: bytes = DATA, names: bytes = NAMES, extra: bytes = b"", head: bytes = b"\x80\x02"
) -> bytes:
    return head + b"}(" + u(b"labels") + labels + u(b"data") + data + u(b"filenames") + names + extra + b"u."


def framed(body: bytes, *cuts: int) -> bytes:
    """Protocol 4 in frames that end at the given places, or in one."""
    ends = [*cuts, len(body)]
    parts = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return b"\x80\x04" + b"".join(b"\x95" + struct.pack("<Q", len(part)) + part for part in parts)


def with_keys(write: Write) -> bytes:
    return b"\x80\x02}(" + write(b"labels") + LABELS + write(b"data") + DATA + write(b"filenames") + NAMES + b"u."


def with_names(write: Write, *names: bytes) -> bytes:
    return made(names=b"](" + b"".join(map(write, names or (b"a.png", b"b", b"c'\\x"))) + b"e")


TEXTS: dict[str, Write] = {
    "STRING": lambda text: b"S" + repr(text)[1:].encode() + b"\n",
    "STRING_in_double_quotes": lambda text: b'S"' + text.replace(b"\\", b"\\\\") + b'"\n',
    "BINSTRING": lambda text: sized(b"T", "<i", text),
    "SHORT_BINSTRING": u,
    "SHORT_BINBYTES": lambda text: b"C%c%b" % (len(text), text),
    "BINBYTES": lambda text: sized(b"B", "<I", text),
    "BINBYTES8": lambda text: sized(b"\x8e", "<Q", text),
    "BINUNICODE": lambda text: sized(b"X", "<I", text),
    "SHORT_BINUNICODE": lambda text: b"\x8c%c%b" % (len(text), text),
    "BINUNICODE8": lambda text: sized(b"\x8d", "<Q", text),
    "UNICODE": lambda text: b"V" + text.replace(b"\\", b"\\u005c") + b"\n",
}
LONG = bytes(range(32, 92)) * 6  # stays in the file while it is scanned


def scalar(kind: bytes, data: bytes, module: bytes = MULTIARRAY) -> bytes:
    return module + b"scalar\n" + kind + u(data) + b"\x86R"


BATCHES: dict[str, bytes] = {
    **{f"keys_{name}": with_keys(write) for name, write in TEXTS.items()},
    **{f"names_{name}": with_names(write) for name, write in TEXTS.items()},
    **{f"long_names_{name}": with_names(TEXTS[name], LONG, LONG[1:], b"c") for name in TEXTS if "SHORT" not in name},
    # Where pixels are.
    "pixels_STRING": made(data=array(b"S" + repr(PIXELS)[1:].encode() + b"\n")),
    "pixels_BINSTRING": made(data=array(sized(b"T", "<i", PIXELS))),
    "pixels_SHORT_BINBYTES": made(data=array(b"C%c%b" % (len(PIXELS), PIXELS))),
    "pixels_BINBYTES": made(data=array(sized(b"B", "<I", PIXELS))),
    "pixels_BINBYTES8": made(data=array(sized(b"\x8e", "<Q", PIXELS))),
    "pixels_BYTEARRAY8": made(data=buffer(sized(b"\x96", "<Q", PIXELS))),
    "pixels_from_bytes": made(data=buffer(sized(b"B", "<I", PIXELS))),
    "pixels_BINUNICODE": made(data=array(encoded(sized(b"X", "<I", LATIN1)))),
    "pixels_SHORT_BINUNICODE": made(data=array(encoded(b"\x8c%c%b" % (len(LATIN1), LATIN1)))),
    "pixels_BINUNICODE8": made(data=array(encoded(sized(b"\x8d", "<Q", LATIN1)))),
    "pixels_UNICODE": made(data=array(encoded(b"V" + ESCAPED + b"\n"))),
    "pixels_latin_1_with_dash": made(data=array(encoded(sized(b"X", "<I", LATIN1), b"U\x07latin-1"))),
    "pixels_bytearray_of_bytes": made(data=buffer(b"c__builtin__\nbytearray\n" + u(PIXELS) + b"\x85R")),
    "pixels_bytearray_of_text": made(
        data=buffer(b"cbuiltins\nbytearray\n" + sized(b"X", "<I", LATIN1) + b"X\x07\0\0\0latin-1\x86R")
    ),
    "pixels_fortran": made(data=array(u(PIXELS), fortran=b"\x88")),
    "pixels_fortran_as_int": made(data=array(u(PIXELS), fortran=b"K\x01")),
    "pixels_fortran_as_line": made(data=array(u(PIXELS), fortran=b"I01\n")),
    "pixels_order_F": made(data=buffer(u(PIXELS), order=b"U\x01F")),
    "pixels_planes": made(data=array(u(PIXELS), b"(K\x03K\x03K\x02K\x02t")),
    "pixels_planes_fortran": made(data=array(u(PIXELS), b"(K\x03K\x03K\x02K\x02t", fortran=b"\x88")),
    "pixels_rows_in_list": made(data=b"](" + ROW * 3 + b"e"),
    "pixels_rows_in_tuple": made(data=ROW * 3 + b"\x87"),
    "pixels_row_shared": made(data=b"](" + ROW + b"q\x05h\x05h\x05e"),
    "pixels_rows_as_objects": made(data=array(b"](" + ROW + b"N" + ROW + b"e", b"K\x03\x85", dtype(b"O8"))),
    "pixels_objects_of_32_bits": made(data=array(b"](" + ROW * 3 + b"e", b"K\x03\x85", dtype(b"O4"))),
    "pixels_objects_without_size": made(data=array(b"](" + ROW * 3 + b"e", b"K\x03\x85", dtype(b"O"))),
    "pixels_ints": made(
        data=array(b"](" + b"".join(b"K%c" % n for n in PIXELS) + b"e", b"K\x03K\x0c\x86", dtype(b"O8"))
    ),
    "pixels_ints_as_lines": made(
        data=array(b"(l" + b"".join(b"I%d\na" % n for n in PIXELS), b"K\x03K\x0c\x86", dtype(b"O8"))
    ),
    "pixels_none": made(data=b"N"),
    "pixels_empty": made(data=array(b"U\x00", b"K\x00K\x0c\x86")),
    "pixels_empty_from_bytes_call": made(data=array(b"c__builtin__\nbytes\n)R", b"K\x00K\x0c\x86")),
    "pixels_empty_from_bytearray_call": made(data=buffer(b"cbuiltins\nbytearray\n)R", shape=b"K\x00K\x0c\x86")),
    "pixels_shape_as_LONG1": made(data=array(u(PIXELS), b"\x8a\x01\x03\x8a\x01\x0c\x86")),
    "pixels_shape_as_LONG4": made(data=array(u(PIXELS), b"\x8b\x01\0\0\0\x03\x8b\x02\0\0\0\x0c\0\x86")),
    "pixels_shape_as_INT": made(data=array(u(PIXELS), b"(I3\nI12\nt")),
    "pixels_dtype_with_order": made(data=array(u(PIXELS), kind=dtype(b"|u1"))),
    "pixels_dtype_with_int_flags": made(data=array(u(PIXELS), kind=dtype(flags=b"K\x00K\x01"))),
    "pixels_module_of_numpy_2": made(data=array(u(PIXELS), module=b"cnumpy._core.multiarray\n")),
    # Labels.
    "labels_INT": made(b"](I3\nI0\nI1\ne"),
    "labels_LONG": made(b"](L3L\nL0L\nL1L\ne"),
    "labels_LONG_without_suffix": made(b"](L3\nL0\nL1\ne"),
    "labels_BININT1": made(b"]K\x03aK\x00aK\x01a"),
    "labels_BININT2": made(b"](M\x03\0M\0\0M\x01\0e"),
    "labels_BININT": made(b"](J\x03\0\0\0J\0\0\0\0J\x01\0\0\0e"),
    "labels_LONG1": made(b"](\x8a\x01\x03\x8a\x00\x8a\x02\x01\x00e"),
    "labels_LONG1_of_eight_bytes": made(
        b"](" + b"".join(b"\x8a\x08%b" % struct.pack("<q", n) for n in (3, 0, 1)) + b"e"
    ),
    "labels_LONG4": made(b"](\x8b\x01\0\0\0\x03\x8b\0\0\0\0\x8b\x01\0\0\0\x01e"),
    "labels_negative": made(b"](J\xff\xff\xff\xffI-1\n\x8a\x01\xffe"),
    "labels_of_all_kinds": made(b"](I3\nM\0\0" + scalar(dtype(b"i8", b"<"), b"\x01" + bytes(7)) + b"e"),
    "labels_numpy_big_endian": made(b"](" + scalar(dtype(b"i4", b">"), b"\0\0\0\x01") * 3 + b"e"),
    "labels_numpy_2_scalars": made(
        b"](" + scalar(dtype(b"u2", b"<"), b"\x01\0", b"cnumpy._core.multiarray\n") * 3 + b"e"
    ),
    "labels_array_of_no_dimension": made(b"](" + array(u(b"\x01"), b")") * 3 + b"e"),
    "labels_array_big_endian": made(array(u(b"\0\x03\0\0\0\x01"), b"K\x03\x85", dtype(b"i2", b">"))),
    "labels_array_order_in_name": made(array(u(b"\0\x03\0\0\0\x01"), b"K\x03\x85", dtype(b">i2", b">"))),
    "labels_array_from_buffer": made(buffer(u(b"\x03\0\x01"), shape=b"K\x03\x85")),
    "labels_tuple3": made(b"K\x03K\x00K\x01\x87"),
    "labels_TUPLE": made(b"(K\x03K\x00K\x01t"),
    "labels_LIST": made(b"(K\x03K\x00K\x01l"),
    "labels_in_two_appends": made(b"](K\x03K\x00e(K\x01e"),
    "labels_append_and_appends": made(b"]K\x03a(K\x00K\x01e"),
    "labels_appends_of_nothing": made(b"](e(K\x03K\x00K\x01e(e"),
    "labels_none": made(b"](NK\x00Ne"),
    "labels_fine_and_coarse_shared": made(head=b"\x80\x02", labels=LABELS + b"q\x07", extra=u(b"x") + b"h\x07")
    .replace(u(b"labels"), u(b"fine_labels"), 1)
    .replace(u(b"x"), u(b"coarse_labels")),
    "labels_superclasses": made(extra=u(b"coarse_labels") + b"](K\x00K\x00K\x01e").replace(
        u(b"labels"), u(b"fine_labels"), 1
    ),
    # Names.
    "names_all_kinds": made(names=b"](" + u(b"a") + TEXTS["BINUNICODE"]("ж".encode()) + TEXTS["UNICODE"](b"c") + b"e"),
    "names_shared": made(names=b"](" + u(b"a.png") + b"q\x09h\x09h\x09e"),
    "names_tuple": made(names=u(b"a") + u(b"b") + u(b"c") + b"\x87"),
    "names_escapes": made(names=b"](S'\\x41\\n\\t\\r\\\\'\nS'\\''\nS'\"'\ne"),
    "names_unicode_escapes": made(names=b"](V\\u0436\nV\\U0001f600\nV\xe9\ne"),
    "names_array_of_bytes": made(
        names=array(u(b"a\0bbc\0"), b"K\x03\x85", DTYPE + u(b"S2") + b"\x89\x88\x87R(K\x03U\x01|NNNK\x02K\x01K\x00tb")
    ),
    "names_array_of_text_big_endian": made(
        names=array(
            u("aжc".encode("utf-32-be")),
            b"K\x03\x85",
            DTYPE + u(b"U1") + b"\x89\x88\x87R(K\x03U\x01>NNNK\x04K\x04K\x08tb",
        )
    ),
    # The memo.
    "memo_PUT_GET": made(b"](K\x03K\x00K\x01ep7\n", extra=u(b"x") + b"g7\n"),
    "memo_BINPUT_BINGET": made(LABELS + b"q\xff", extra=u(b"x") + b"h\xff"),
    "memo_LONG_BINPUT_LONG_BINGET": made(LABELS + b"r\0\x01\0\0", extra=u(b"x") + b"j\0\x01\0\0"),
    "memo_MEMOIZE": made(LABELS + b"\x94", extra=u(b"x") + b"h\x00"),
    "memo_far_index": made(LABELS + b"p100000\n", extra=u(b"x") + b"j\xa0\x86\x01\0"),
    "memo_overwritten": made(LABELS + b"q\x01", DATA + b"q\x01", extra=u(b"x") + b"h\x01"),
    "memo_of_a_key": b"\x80\x02}("
    + u(b"labels")
    + b"q\x01"
    + LABELS
    + u(b"x")
    + b"h\x01"
    + u(b"filenames")
    + NAMES
    + b"u.",
    "memo_of_a_dtype": made(
        data=b"]("
        + array(u(PIXELS[:12]), b"K\x0c\x85", dtype() + b"q\x03")
        + array(u(PIXELS[12:24]), b"K\x0c\x85", b"h\x03") * 2
        + b"e"
    ),
    "memo_of_a_shape": made(
        data=b"](" + array(u(PIXELS[:12]), b"K\x0c\x85q\x03") + array(u(PIXELS[12:24]), b"h\x03") * 2 + b"e"
    ),
    "memo_of_globals": made(
        data=b"]("
        + ROW.replace(b"_reconstruct\n", b"_reconstruct\nq\x01", 1)
        + ROW.replace(MULTIARRAY + b"_reconstruct\n", b"h\x01", 1) * 2
        + b"e"
    ),
    "memo_of_the_whole": made()[:-1] + b"q\x00.",
    "memo_of_none": made(b"](Nq\x05h\x05h\x05e"),
    # Dictionaries.
    "dict_DICT": b"(" + u(b"labels") + LABELS + u(b"filenames") + NAMES + b"d.",
    "dict_SETITEM": b"(d" + u(b"labels") + LABELS + b"s" + u(b"data") + DATA + b"s.",
    "dict_EMPTY_DICT_SETITEM": b"\x80\x02}" + u(b"labels") + LABELS + b"s" + u(b"filenames") + NAMES + b"s.",
    "dict_in_two_setitems": b"\x80\x02}(" + u(b"labels") + LABELS + b"u(" + u(b"data") + DATA + b"u.",
    "dict_setitems_of_nothing": b"\x80\x02}(u(" + u(b"labels") + LABELS + b"u(u.",
    "dict_data_first": b"\x80\x02}(" + u(b"data") + DATA + u(b"labels") + LABELS + b"u.",
    "dict_no_pixels": b"\x80\x02}(" + u(b"labels") + LABELS + b"u.",
    "dict_no_labels": b"\x80\x02}(" + u(b"data") + DATA + u(b"filenames") + NAMES + b"u.",
    "dict_keys_of_all_kinds": b"\x80\x02}(C\x06labels"
    + LABELS
    + b"X\x04\0\0\0data"
    + DATA
    + b"V"
    + b"filenames\n"
    + NAMES
    + b"u.",
    "extra_flags": made(extra=u(b"x") + b"(I00\nI01\n\x88\x89Nt"),
    "extra_floats": made(extra=u(b"x") + b"(F1.5\nFnan\nF-inf\nF1e300\nG" + struct.pack(">d", 0.1) + b"t"),
    "extra_sets": made(extra=u(b"x") + b"\x8f(K\x01K\x02\x90" + u(b"y") + b"(K\x01K\x02\x91"),
    "extra_tuples": made(extra=u(b"x") + b")K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87\x86\x86\x86"),
    "extra_nested": made(extra=u(b"x") + b"}" + u(b"y") + b"}K\x07](K\x01]ess"),
    "extra_array_of_floats": made(extra=u(b"x") + array(u(bytes(8)), b"K\x01\x85", dtype(b"f8", b"<"))),
    "extra_array_of_complex": made(extra=u(b"x") + array(u(bytes(16)), b"K\x01\x85", dtype(b"c16", b"<"))),
    "extra_scalar_bool": made(extra=u(b"x") + scalar(dtype(b"b1"), b"\x01")),
    "extra_runs_of_ints": made(extra=u(b"x") + b"](" + b"K\x05" * 5000 + b"e"),
    "extra_batch_label": made(extra=u(b"batch_label") + u(b"training batch 1 of 1")),
    # Protocols and frames.
    "protocol_none_with_binary_opcodes": made(head=b""),
    "protocol_0_declared": made(head=b"\x80\x00"),
    "protocol_1_declared": made(head=b"\x80\x01"),
    "protocol_3_declared": made(head=b"\x80\x03"),
    "protocol_4_without_frames": made(head=b"\x80\x04"),
    "protocol_5_without_frames": made(head=b"\x80\x05"),
    "protocol_4_in_one_frame": framed(made(head=b"")),
    "protocol_4_in_many_frames": framed(made(head=b""), 1, 2, 10, len(made(head=b"")) - 1),
    "protocol_4_pixels_outside_frames": b"\x80\x04\x95\x01" + bytes(7) + b"}(" + made(head=b"")[2:],
    "globals_on_the_stack": made(
        data=array(u(PIXELS)).replace(
            MULTIARRAY + b"_reconstruct\n", b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93", 1
        )
    ),
    "globals_on_the_stack_numpy_1": made(
        data=array(u(PIXELS)).replace(NDARRAY, b"X\x05\0\0\0numpyX\x07\0\0\0ndarray\x93", 1)
    ),
    "buffer_of_numpy_2": made(data=buffer(u(PIXELS)).replace(b"numpy.core", b"numpy._core")),
}

FINE = u(b"fine_label_names") + b"](" + u(b"apple") + u(b"bear") + b"e"
COARSE = u(b"coarse_label_names") + b"](" + u(b"food") + u(b"animals") + b"e"
CLASSES = b"](" + u(b"cat") + u(b"dog") + b"e"

METAS: dict[str, bytes] = {
    **{
        f"meta_{name}": b"\x80\x02}" + write(b"label_names") + b"](" + write(b"cat") + write(b"dog") + b"es."
        for name, write in TEXTS.items()
    },
    "meta_counts": b"\x80\x02}("
    + u(b"num_cases_per_batch")
    + b"M\x10'"
    + u(b"label_names")
    + CLASSES
    + u(b"num_vis")
    + b"M\0\x0cu.",
    "meta_counts_as_lines": b"(dS'num_vis'\nI3072\nsS'label_names'\n(lS'cat'\naS'dog'\nas.",
    "meta_counts_long": b"\x80\x02}(" + u(b"num_vis") + b"\x8a\x02\0\x0c" + u(b"label_names") + CLASSES + b"u.",
    "meta_tuple": b"\x80\x02}" + u(b"label_names") + u(b"cat") + u(b"dog") + b"\x86s.",
    "meta_array": b"\x80\x02}"
    + u(b"label_names")
    + array(u(b"catdog"), b"K\x02\x85", DTYPE + u(b"S3") + b"\x89\x88\x87R(K\x03U\x01|NNNK\x03K\x01K\x00tb")
    + b"s.",
    "meta_cyrillic": b"\x80\x02}" + u(b"label_names") + b"](X\x06\0\0\0" + "кот".encode() + u("пёс".encode()) + b"es.",
    "meta_superclasses": b"\x80\x02}(" + FINE + COARSE + b"u.",
    "meta_superclasses_first": b"\x80\x02}(" + COARSE + FINE + b"u.",
    "meta_fine_only": b"\x80\x02}" + FINE + b"s.",
    "meta_extra_keys": b"\x80\x02}(" + FINE + u(b"x") + b"]" + u(b"y") + array(u(b"\0"), b"K\x01\x85") + b"u.",
    "meta_framed": framed(b"}" + FINE + b"s."),
    "meta_no_classes": b"\x80\x02}" + u(b"label_names") + b"]s.",
}
