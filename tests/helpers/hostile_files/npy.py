"""Headers of `.npy` arrays inside `.npz` files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

from tests.helpers.hostile_files import IMAGES, LABELS, MARKER, Maker, files

GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8, 8, 3), }"


class Runs:
    """Touches the marker when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, (MARKER, "w")


def npy(header: str | bytes = GOOD, data: bytes = IMAGES.tobytes(), version: bytes = b"\1\0", size: int = -1) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    length = len(text) if size < 0 else size
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", length) + text + data


def saved(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def train(**members: bytes) -> Maker:
    return files({"train.npz": zipped(**{"images": npy(), "labels": saved(LABELS)} | members)})


def header(descr: str = "'|u1'", fortran: str = "False", shape: str = "(3, 8, 8, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


HEADERS: dict[str, str | bytes] = {
    "5,000 hexadecimal digits": header(shape="(0x" + "f" * 5000 + ",)"),
    "5,000 digits": header(shape="(" + "9" * 5000 + ",)"),
    "octal of old": header(shape="(0777, 8, 8, 3)"),
    "underscores": header(shape="(1" + "_0" * 3000 + ",)"),
    "negative": header(shape="(-3, 8, 8, 3)"),
    "2**62 rows": header(shape=f"({2**62}, 8, 8, 3)"),
    "more bytes than 2**64": header(shape=f"({2**40}, {2**40}, 8, 3)"),
    "no pixels in 2**40 rows": header(shape=f"({2**40}, 0, 8, 3)"),
    "bool": header(shape="(True, 8, 8, 3)"),
    "float": header(shape="(3.0, 8, 8, 3)"),
    "complex": header(shape="(3j, 8, 8, 3)"),
    "text": header(shape="'3'"),
    "list": header(shape="[3, 8, 8, 3]"),
    "number": header(shape="3"),
    "none": header(shape="None"),
    "two dimensions": header(shape="(3, 192)"),
    "5 channels": header(shape="(3, 8, 8, 5)"),
    "3,000 dimensions": header(shape="(" + "1," * 3000 + ")"),
    "nested": "(" * 4000 + ")" * 4000,
    "nested lists": "[" * 9000,
    "minus signs": header(shape="(" + "-" * 8000 + "3,)"),
    "objects": header("'|O'"),
    "fields": header("[('a', '|u1')]"),
    "void": header("'|V0'"),
    "long text": header("'|S999999999'"),
    "dates": header("'<M8[ns]'"),
    "subarray": header("'(1000000,)u1'"),
    "descr of thousands of fields": header("[" + "('a','u1')," * 700 + "]"),
    "descr is a number": header("7"),
    "descr with NUL": header("'|u1\\0'"),
    "floats": header("'<f8'"),
    "fortran text": header(fortran="'yes'"),
    "fortran number": header(fortran="1"),
    "fortran order": header(fortran="True"),
    "calls": f"__import__('os').open({MARKER!r}, 65)",
    "a lambda": f"(lambda: open({MARKER!r}, 'w'))()",
    "a comprehension": f"[open(m, 'w') for m in [{MARKER!r}]]",
    "a walrus": header(shape="(a := 3, 8, 8, 3)"),
    "an f-string": header(shape=f"f'{{open({MARKER!r}, chr(119))}}'"),
    "empty": "",
    "no keys": "{}",
    "a key more": GOOD.replace("{", "{'x': 1, ", 1),
    "a key less": "{'descr': '|u1', 'shape': (3, 8, 8, 3)}",
    "unhashable key": "{[]: 1}",
    "key twice": GOOD.replace("}", "'shape': (9, 8, 8, 3)}"),
    "no text": bytes(range(256)),
    "NUL": GOOD.encode() + b"\0" * 9,
    "unclosed text": "{'descr': '|u1",
    "unclosed brace": GOOD[:-1],
    "escape without end": "'\\N{'",
    "surrogate": header("'\\ud800'"),
    "ends in a backslash": GOOD + "\\",
}

HOSTILE: dict[str, Maker] = {
    **{f"header: {name}": train(images=npy(text)) for name, text in HEADERS.items()},
    "header longer than the file": train(images=npy(size=60_000)),
    "header of 4 GiB": train(images=npy(version=b"\2\0", size=2**32 - 1)),
    "unknown version": train(images=npy(version=b"\x09\x09")),
    "header of version 3 is not UTF-8": train(images=npy(b"\xff\xfe" * 40, version=b"\3\0")),
    "wrong magic": train(images=b"\x93NUMPX" + npy()[6:]),
    "no bytes": train(images=b""),
    "magic only": train(images=b"\x93NUMPY"),
    "cut data": train(images=npy()[:-1]),
    "labels: pickle": train(labels=saved([Runs(), 1, 0])),
    "labels: pickle as bytes": train(labels=npy(header("'|O'", shape="(3,)"), pickle.dumps([Runs()] * 3))),
    "labels: too few": train(labels=saved(LABELS[:2])),
    "labels: floats": train(labels=saved(LABELS + 0.5)),
    "labels: text": train(labels=saved(["a", "b", "c"])),
    "labels: dates": train(labels=saved(np.array(["2020"] * 3, "M8[Y]"))),
    "labels: above 2**63": train(labels=saved(np.array([2**64 - 1, 0, 0], np.uint64))),
    "labels: a million classes": train(labels=saved([10**6, 1, 0])),
    "label_names: pickle": train(label_names=saved(np.array([Runs(), "b"], object))),
    "label_names: numbers": train(label_names=saved([1, 2])),
    "label_names: surrogates": train(label_names=npy(header("'<U1'", shape="(2,)"), b"\0\xd8\0\0" * 2)),
    "label_names: beyond Unicode": train(label_names=npy(header("'<U1'", shape="(2,)"), b"\xff" * 8)),
    "coarse_names: parents outside": train(
        label_names=saved(["a", "b"]), coarse_names=saved(["c"]), parents=saved([0, 7])
    ),
    "ids: pickle": train(ids=saved(np.array([Runs()] * 3, object))),
    "ids: bytes without offsets": train(ids=saved(np.zeros(9, np.uint8))),
    "ids: offsets go back": train(ids=saved(np.zeros(9, np.uint8)), ids_offsets=saved([0, 5, 2, 9])),
    "ids: not UTF-8": train(ids=saved(np.full(9, 255, np.uint8)), ids_offsets=saved([0, 3, 6, 9])),
}
