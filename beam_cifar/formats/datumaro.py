"""Datumaro's own format: `annotations/<subset>.json`, and `images/<subset>/`.

An item is `{"id", "annotations", "attr", "image": {"path", "size"}}`, with a path relative to `images/<subset>/`, or to
`images/` in older datasets. A class has a name and a parent, which this package calls its superclass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import is_unicode
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.types import Shard, SinkOptions, SourceFile
from beam_cifar.formats.kit.annotations import (
    ANNOTATIONS,
    IMAGES,
    SUPERCLASSES,
    JsonSource,
    check_class_names,
    compact_json,
    label_table,
    open_json,
    superclass_names,
    with_facts,
)
from beam_cifar.formats.kit.folders import ID_TREE, TreeSink, write_lines
from beam_cifar.formats.kit.image_lists import ListedRows, checked_tree, path_names
from beam_cifar.formats.kit.json_stream import JsonStream
from beam_cifar.naming.id_paths import decode_path, encode_word, stem

if TYPE_CHECKING:
    import pyarrow as pa

VERSION: Final = "1.0"
IMAGE_MEDIA: Final = 2
"""Value of `media_type` for images."""

MAX_LABEL: Final = 1 << 31

KINDS: Final = frozenset(
    {"bbox", "caption", "cuboid_2d", "cuboid_3d", "ellipse", "mask", "points", "polygon", "polyline"}
)
"""Datumaro's annotation types that are not labels of whole images."""


class DatumaroSource(JsonSource):
    """Reads the items of each subset and the images they name."""

    name = "datumaro"
    title = "Datumaro"

    def is_it(self, key: str, value: JsonStream, before: Set[str]) -> bool:
        return key == "dm_format_version" or (key == "items" and "categories" in before and value.at("["))

    def rows(self, file: SourceFile) -> pa.Table:
        return _item_table(file)


class DatumaroSink(TreeSink):
    """Writes `images/<subset>/<id>.png`, and the annotation file of each subset."""

    name = "datumaro"
    can = replace(ID_TREE, keeps_empty_subsets=True, listed=("label", "height", "width"))
    subsets = SubsetNaming(word=lambda name: stem(encode_word(name, ".json")), own_folders=True)

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses repeated and empty names: Datumaro rejects them, and an empty parent means none."""
        check_class_names(labels)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns the folder of the subset's images."""
        return f"{IMAGES}/{self.subsets.written(subset)}"

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the annotation file of a subset."""
        items = (("," if at else "") + "\n" + _item(*listed) for at, listed in enumerate(self.listed_images(parts)))
        path = f"{ANNOTATIONS}/{self.subsets.written(shard.subset)}.json"
        write_lines(files, path, chain([_head(options.labels)], items, ["\n]}\n"]))


def _head(labels: LabelTable) -> str:
    """Returns the JSON text before the items."""
    classes = [
        {"name": name, "parent": parent, "attributes": []}
        for name, parent in zip(labels.names, superclass_names(labels), strict=True)
    ]
    head = {
        "dm_format_version": VERSION,
        "media_type": IMAGE_MEDIA,
        "infos": {SUPERCLASSES: list(labels.coarse_names)} if labels.has_superclasses else {},
        "categories": {"label": {"labels": classes, "label_groups": [], "attributes": []}},
        "items": [],
    }
    return compact_json(head).removesuffix("]}")


def _item(path: str, label: int, entry: Mapping[str, Any]) -> str:
    """Returns an item as JSON, from the entry of its image in a part's list of files."""
    annotation = {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": label}
    return compact_json(
        {
            "id": entry["id"] if "id" in entry else decode_path(stem(path)),
            "annotations": [] if label == UNLABELLED else [annotation],
            "image": {"path": path, "size": [int(entry["height"]), int(entry["width"])]},
        }
    )


@indexed()
def _item_table(file: SourceFile) -> pa.Table:
    """Reads one annotation file, and finds its images."""
    items, members = _Items(file), dict[str, Any]()
    with open_json(file) as stream:
        for key in stream.members():
            if key in members:
                raise InputError(f"{file.shown}: key {key!r} occurs twice; expected once")
            if key == "items":
                members[key] = None
                for item in stream.elements():
                    items.append(item)
            else:
                value = stream.value()
                members[key] = value if key in ("infos", "categories") else None
    if "items" not in members:
        raise InputError(f"{file.shown}: has no 'items'; expected Datumaro's format")
    labels = _labels(members.get("categories"), members.get("infos"), file.shown)
    return with_facts(items.made(), labels, items.left_out)


class _Items:
    """Collects the items of a file.

    Args:
        file: the annotation file.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file, self._rows = file, ListedRows(file)
        self.left_out: Counter[str] = Counter()

    def append(self, item: Any) -> None:
        """Adds an item."""
        item_id = item.get("id") if isinstance(item, dict) else None
        if not isinstance(item_id, str) or not is_unicode(item_id):
            self._rows.append("", "", "", error=f"id is missing or not valid text: {str(item_id)[:50]!r}")
            return
        path, error = _image_path(item.get("image"), item_id)
        label, other = self._label(item.get("annotations"))
        self._rows.append(item_id, path, path_names(path)[1] if path else item_id, label, error or other)

    def _label(self, annotations: Any) -> tuple[int, str]:
        """Returns the label of an item, and an error, "" for none."""
        if annotations is None:
            return UNLABELLED, ""
        if not (isinstance(annotations, list) and all(isinstance(each, dict) for each in annotations)):
            return UNLABELLED, "annotations are not a list of objects"
        labels = [each.get("label_id") for each in annotations if each.get("type") == "label"]
        if len(labels) < len(annotations):
            self._leave_out(annotations)
        if not labels:
            return UNLABELLED, ""
        label = labels[0]
        if type(label) is not int or not 0 <= label < MAX_LABEL:
            return UNLABELLED, f"label is {str(label)[:50]}; expected a class number"
        if any(other != label for other in labels):
            return UNLABELLED, f"has {len(labels)} labels ({', '.join(map(str, labels[:5]))}); at most one is supported"
        return label, ""

    def _leave_out(self, annotations: Sequence[dict[str, Any]]) -> None:
        kinds = (str(each.get("type"))[:20] for each in annotations if each.get("type") != "label")
        self.left_out.update(kind if kind in KINDS else "unknown" for kind in kinds)

    def made(self) -> pa.Table:
        """Returns the rows with their images."""
        return self._rows.made(checked_tree(self._file.beside[0]), (f"{self._file.name}/", ""))


def _image_path(image: Any, item_id: str) -> tuple[str, str]:
    """Returns the path of an item's image, "" if it has none, and an error, "" for none."""
    if image is None:
        return "", ""
    path = image.get("path") if isinstance(image, dict) else 0
    if path is None or path == "":
        return f"{item_id}.jpg", ""  # as Datumaro does
    if not isinstance(path, str) or not is_unicode(path):
        return "", f"image path is missing or not valid text: {str(path)[:50]!r}"
    return path, ""


def _labels(categories: Any, infos: Any, shown: str) -> LabelTable:
    """Returns the label table; the parents of classes are the superclasses."""
    label = categories.get("label") if isinstance(categories, dict) else {}
    classes = label.get("labels") if isinstance(label, dict) else []
    if label is None or classes is None:
        classes = []
    if not (isinstance(classes, list) and all(isinstance(each, dict) for each in classes)):
        raise InputError(f"{shown}: 'categories' has no list of labels; expected Datumaro's format")
    names = [each.get("name") for each in classes]
    parents = [each.get("parent") or "" for each in classes]
    for name in (*names, *parents):
        if not isinstance(name, str) or not is_unicode(name):
            raise InputError(f"{shown}: class name is {str(name)[:50]!r}; expected valid Unicode text")
    return label_table(names, parents, infos)
