"""JSON of Datumaro, and lists of images: ImageNet's and Pascal VOC's."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.hostile_files import Maker, files
from tests.helpers.image_trees import encoded, picture

PNG, JPEG = encoded(picture(1, 8, 8)), encoded(picture(1, 8, 8), "JPEG")


def annotated(text: bytes) -> Maker:
    return files({"annotations/train.json": text, "images/train/a.png": PNG})


def document(items: str = "[]", categories: str = '{"label": {"labels": [{"name": "cat", "parent": ""}]}}') -> bytes:
    return f'{{"dm_format_version": "1.0", "infos": {{}}, "categories": {categories}, "items": {items}}}'.encode(
        "utf-8", "surrogatepass"
    )


def item(**changes: str) -> str:
    label = changes.pop("label", "0")
    fields = {
        "id": '"a"',
        "annotations": f'[{{"id": 0, "type": "label", "label_id": {label}}}]',
        "image": '{"path": "a.png", "size": [8, 8]}',
    } | changes
    return "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"


def path(text: Any) -> str:
    return item(image=f'{{"path": {json.dumps(text)}}}')


def named(text: str) -> str:
    return f'{{"label": {{"labels": [{{"name": {text}, "parent": ""}}]}}}}'


DEEP = 100_000
ITEMS: dict[str, str] = {
    "5,000 digits": item(label="9" * 5000),
    "5,000 digits elsewhere": item(attr="9" * 5000),
    "a float": item(label="0.5"),
    "a float above all": item(label="1e999"),
    "not a number": item(label="NaN"),
    "infinite": item(label="-Infinity"),
    "true": item(label="true"),
    "text": item(label='"0"'),
    "none": item(label="null"),
    "negative": item(label="-1"),
    "outside": item(label="1"),
    "2**63": item(label=str(2**63)),
    "two labels": item(annotations='[{"type": "label", "label_id": 0}, {"type": "label", "label_id": 1}]'),
    "annotations that are text": item(annotations='"x"'),
    "annotations of numbers": item(annotations="[1]"),
    "nested annotations": item(annotations="[" * DEEP),
    "nested attributes": item(attr='{"a":' * DEEP),
    "an id of a number": item(id="1"),
    "no id": item(id="null"),
    "an id with a surrogate": item(id='"\\ud800"'),
    "an id with raw surrogates": item(id='"\ud800"'),
    "an id with a control character": item(id='"a\n"'),
    "a path that leaves": path("../../../../etc/passwd"),
    "a path from the root": path("/etc/passwd"),
    "a path with NUL": path("a\0.png"),
    "a path with a surrogate": item(image='{"path": "\\udfff.png"}'),
    "a path of a number": path(7),
    "a path of a list": path([]),
    "an image of text": item(image='"a.png"'),
    "a number": "7",
    "a list": "[]",
}
HEADS: dict[str, bytes] = {
    "categories nested": document(categories="[" * DEEP),
    "categories of text": document(categories='{"label": {"labels": "cat"}}'),
    "categories of numbers": document(categories='{"label": {"labels": [1]}}'),
    "a class of a number": document(categories=named("7")),
    "a class with a surrogate": document(categories=named('"\\ud83d"')),
    "a class of 5,000 digits": document(categories=named("9" * 5000)),
    "items twice": document()[:-1] + b', "items": []}',
    "no items": b'{"dm_format_version": "1.0", "categories": {}}',
    "items of text": document('"x"'),
    "items without an end": document()[:-2],
    "a comma too many": document("[1,]"),
    "a comma at the end": document()[:-1] + b",}",
    "text after the end": document() + b"x",
    "a key without quotes": b"{items: []}",
    "a key of a number": b'{1: 2, "items": []}',
    "nothing": b"",
    "a space": b" ",
    "half a brace": b"{",
    "UTF-16": document().decode().encode("utf-16"),
    "not UTF-8": document().replace(b"cat", b"c\xfft"),
    "NUL": b"\0" + document(),
    "zeros": bytes(100_000),
    "a string of 100 MB": b'{"dm_format_version": "' + b"a" * (100 << 20) + b'", "categories": {}, "items": []}',
    "60 MB of empty lists": b'{"dm_format_version": "1.0", "categories": ['
    + b"[]," * (20 << 20)
    + b'[]], "items": []}',
    "100 MB of nothing": b" " * (100 << 20),
    "an escape cut": document(categories=named('"\\u12"')),
}
JSON: dict[str, Maker] = {
    **{f"item: {name}": annotated(document(f"[{text}]")) for name, text in ITEMS.items()},
    **{f"file: {name}": annotated(text) for name, text in HEADS.items()},
}


def listed(lines: str | bytes, names: bytes = b"cat\ndog\n") -> Maker:
    text = lines.encode() if isinstance(lines, str) else lines
    return files({"train.txt": text, "synsets.txt": names, "images/a.png": PNG, "images/a b.png": PNG})


def voc(lines: str | bytes, of_class: str | bytes = "a  1\n", table: bytes = b"cat:::\n") -> Maker:
    lists = {"train": lines, "cat_train": of_class}
    texts = {f"ImageSets/Main/{k}.txt": v.encode() if isinstance(v, str) else v for k, v in lists.items()}
    return files({**texts, "labelmap.txt": table, "JPEGImages/a.jpg": JPEG})


LISTS: dict[str, Maker] = {
    "a path that leaves": listed("../../../etc/passwd 0\n"),
    "a path from the root": listed("/etc/passwd 0\n"),
    "a path with NUL": listed("a\0.png 0\n"),
    "a path that comes back": listed("x/../a.png 0\n"),
    "an open quote": listed('"a b.png 0\n'),
    "three quotes": listed('"a" "b.png 0\n'),
    "a quote inside": listed('a"b".png 0\n'),
    "a label of 5,000 digits": listed("a.png " + "9" * 5000 + "\n"),
    "a label of 9 digits": listed("a.png 999999999\n"),
    "a negative label": listed("a.png -1\n"),
    "a label in Arabic digits": listed("a.png ٣\n"),
    "a hexadecimal label": listed("a.png 0x0\n"),
    "a float": listed("a.png 0.0\n"),
    "a label with an underscore": listed("a.png 0_0\n"),
    "two labels": listed("a.png 0 1\n"),
    "a label outside": listed("a.png 2\n"),
    "a class name": listed("a.png cat\n"),
    "not UTF-8": listed(b"a\xff.png 0\n"),
    "UTF-16": listed("a.png 0\n".encode("utf-16")),
    "a line of 1 MB": listed("a" * (1 << 20) + ".png 0\n"),
    "a line of 100 MB": listed(b"a" * (100 << 20)),
    "a line of spaces": listed("a.png 0\n" + " " * (1 << 20) + "\n"),
    "1,000 bad lines": listed("a.png x\n" * 1000),
    "an escape": listed("a.png \x1b[31m\n"),
    "names: not UTF-8": listed("a.png 0\n", b"cat\xff\n"),
    "names: none": listed("a.png 0\n", b""),
    "names: an empty line": listed("a.png 0\n", b"cat\n\ndog\n"),
    "names: UTF-16": listed("a.png 0\n", "cat\n".encode("utf-16")),
    "names: a line of 100 MB": listed("a.png 0\n", b"a" * (100 << 20)),
    "names: pipe of control characters": listed("a.png 5\n", b"\x1b[2J\n"),
    "VOC: a path that leaves": voc("../../../etc/passwd\n"),
    "VOC: a path from the root": voc("/etc/passwd\n"),
    "VOC: not UTF-8": voc(b"a\xff\n"),
    "VOC: a line of 1 MB": voc("a" * (1 << 20) + "\n"),
    "VOC: a sign of 5,000 digits": voc("a\n", "a " + "9" * 5000 + "\n"),
    "VOC: a sign of letters": voc("a\n", "a x\n"),
    "VOC: no sign": voc("a\n", "a\n"),
    "VOC: three words": voc("a\n", "a 1 1\n"),
    "VOC: a class file that is not UTF-8": voc("a\n", b"\xff 1\n"),
    "VOC: a label map that is not UTF-8": voc("a\n", table=b"\xff:::\n"),
    "VOC: a class twice": voc("a\n", table=b"cat:::\ncat:::\n"),
    "VOC: a sign in Arabic digits": voc("a\n", "a \u0661\n"),
    "VOC: UTF-16": voc("a\n".encode("utf-16")),
}
