"""COCO with a category for each image: `annotations/labels_<subset>.json`, and `images/<subset>/`.

COCO's own tasks (cocodataset.org/#format-data) annotate objects; "labels" is the task that Datumaro adds for whole
images. A file is `{"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name", "supercategory"}],
"annotations": [{"id", "image_id", "category_id"}]}` with its keys in any order; classes are in the order of the ids of
their categories, which start at 1 because readers take 0 for the background.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
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
from beam_cifar.naming.id_paths import encode_word

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

PREFIX: Final = "labels_"
"""What the name of an annotation file starts with: its task."""

LISTS: Final = ("images", "categories", "annotations")
OUTLINES: Final = ("bbox", "segmentation", "keypoints", "caption")
"""Keys of annotations of objects, of which only the category is read."""

MAX_ID: Final = 1 << 63
_ROOM: Final = ".labels_.json"
"""An ending that leaves room for `PREFIX` and ".json" in the name of a file, which also is that of a folder."""


class CocoSource(JsonSource):
    """Reads the images of each subset and their categories."""

    name = "coco"
    title = "COCO"
    prefix = PREFIX

    def is_it(self, key: str, value: JsonStream, before: Set[str]) -> bool:
        return key in LISTS and value.at("[")

    def rows(self, file: SourceFile) -> pa.Table:
        return _image_rows(file)


class CocoSink(TreeSink):
    """Writes `images/<subset>/<id>.png`, and the annotation file of each subset."""

    name = "coco"
    can = replace(ID_TREE, keeps_empty_subsets=True, listed=("label", "height", "width"))
    subsets = SubsetNaming(word=lambda name: encode_word(name, _ROOM).removesuffix(_ROOM), own_folders=True)

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses repeated and empty names."""
        check_class_names(labels)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns the folder of the subset's images."""
        return f"{IMAGES}/{self.subsets.written(subset)}"

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the annotation file of a subset: its images and annotations are numbered from 1."""
        path = f"{ANNOTATIONS}/{PREFIX}{self.subsets.written(shard.subset)}.json"
        write_lines(files, path, self._lines(parts, options.labels))

    def _lines(self, parts: Sequence[str], labels: LabelTable) -> Iterator[str]:
        categories = [
            {"id": number, "name": name, "supercategory": parent}
            for number, (name, parent) in enumerate(zip(labels.names, superclass_names(labels), strict=True), 1)
        ]
        info = {SUPERCLASSES: list(labels.coarse_names)} if labels.has_superclasses else {}
        yield compact_json({"info": info, "licenses": [], "categories": categories}).removesuffix("}")
        yield ',"images":['
        for number, (path, _, entry) in enumerate(self.listed_images(parts), 1):
            size = {"width": int(entry["width"]), "height": int(entry["height"])}
            yield ("," if number > 1 else "") + "\n" + compact_json({"id": number, "file_name": path, **size})
        yield '\n],"annotations":['
        count = 0
        for number, (_, label, _) in enumerate(self.listed_images(parts), 1):
            if label != UNLABELLED:
                count += 1
                annotation = {"id": count, "image_id": number, "category_id": label + 1}
                yield ("," if count > 1 else "") + "\n" + compact_json(annotation)
        yield "\n]}\n"


@indexed()
def _image_rows(file: SourceFile) -> pa.Table:
    """Reads one annotation file, and finds its images."""
    images, found = _Images(file), dict[str, Any]()
    with open_json(file) as stream:
        for key in stream.members():
            if key not in (*LISTS, "info"):
                stream.value()
                continue
            if key in found:
                raise InputError(f"{file.shown}: key {key!r} occurs twice; expected once")
            add = {"images": images.append, "annotations": images.annotate}.get(key)
            if add is None:
                found[key] = stream.value()
                continue
            found[key] = None
            for value in stream.elements():
                add(value)
    if "images" not in found:
        raise InputError(f"{file.shown}: has no 'images'; expected COCO's format")
    labels, numbers = _categories(found.get("categories", []), found.get("info"), file.shown)
    table = images.made(numbers)
    return with_facts(table, labels, images.left_out)


class _Images:
    """Collects the images of a file, and what annotations say of them.

    Args:
        file: the annotation file.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file, self._rows = file, ListedRows(file)
        self._ids = array("q")
        self._annotated, self._categories = array("q"), array("q")
        self.left_out: Counter[str] = Counter()

    def append(self, image: Any) -> None:
        """Adds an image, whose id must be an integer that is not negative."""
        image = image if isinstance(image, dict) else {}
        image_id, path = _id_in(image, "id"), image.get("file_name")
        self._ids.append(image_id)
        if not isinstance(path, str) or not path or not is_unicode(path):
            self._rows.append("", "", "", error=f"file_name is missing or not valid text: {str(path)[:50]!r}")
            return
        item_id, filename = path_names(path)
        error = "" if image_id >= 0 else f"id is {str(image.get('id'))[:50]!r}; expected a whole number"
        self._rows.append(item_id, path, filename, error=error)

    def annotate(self, annotation: Any) -> None:
        """Adds an annotation. Raises `InputError` if it is not clear which image it is about."""
        annotation = annotation if isinstance(annotation, dict) else {}
        image_id = _id_in(annotation, "image_id")
        if image_id < 0:
            raise InputError(
                f"{self._file.shown}: annotation {len(self._annotated) + 1} (from 1): image_id is "
                f"{str(annotation.get('image_id'))[:50]!r}; expected the id of an image; correct or remove it"
            )
        self._annotated.append(image_id)
        self._categories.append(_id_in(annotation, "category_id"))
        self.left_out.update(key for key in OUTLINES if annotation.get(key))

    def made(self, categories: npt.NDArray[np.int64]) -> pa.Table:
        """Returns the rows with their labels and images, given the ids of the categories in ascending order."""
        import numpy as np

        ids = np.array(self._ids, np.int64)
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        for at in np.flatnonzero((ids[1:] == ids[:-1]) & (ids[1:] >= 0)).tolist():
            for row in order[at : at + 2].tolist():
                self._rows.refuse(row, f"id is {ids[at]}, which another image has too; expected different ids")
        places = _places(np.array(self._annotated, np.int64), ids)
        found = places >= 0
        if len(found) - found.sum():
            self.left_out["of images that are not listed"] = int(len(found) - found.sum())
        self._label(order[places[found]], np.array(self._categories, np.int64)[found], categories)
        return self._rows.made(checked_tree(self._file.beside[0]), (f"{self._file.name}/", ""))

    def _label(
        self, rows: npt.NDArray[np.int64], found: npt.NDArray[np.int64], categories: npt.NDArray[np.int64]
    ) -> None:
        """Sets the label of each row; one with an unknown category, or with several, is bad."""

        def error(at: int, label: int) -> str:
            if known[at] < 0:
                wrong = found[at] if found[at] >= 0 else "no whole number"
                return f"category_id is {wrong}; expected that of a category"
            several = f"{found[at]} and {categories[label]}" if label >= 0 else str(found[at])
            return f"has several categories ({several}); at most one is supported"

        known = _places(found, categories)
        self._rows.set_labels(rows, known, error)


def _id_in(value: dict[str, Any], key: str) -> int:
    """Returns the id in an object, -1 if it is not a whole number from 0."""
    found = value.get(key)
    return found if type(found) is int and 0 <= found < MAX_ID else -1


def _places(wanted: npt.NDArray[np.int64], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns where each wanted id is in ascending ids, -1 if it is not."""
    import numpy as np

    if not len(ids):
        return np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where((ids[places] == wanted) & (wanted >= 0), places, -1)


def _categories(categories: Any, info: Any, shown: str) -> tuple[LabelTable, npt.NDArray[np.int64]]:
    """Returns the label table, and the ids of its classes in ascending order; supercategories are superclasses."""
    import numpy as np

    if not (isinstance(categories, list) and all(isinstance(each, dict) for each in categories)):
        raise InputError(f"{shown}: 'categories' is not a list of objects; expected COCO's format")
    ordered = sorted(categories, key=lambda each: _id_in(each, "id"))
    ids = [_id_in(each, "id") for each in ordered]
    if ids and (ids[0] < 0 or len(set(ids)) < len(ids)):
        raise InputError(f"{shown}: ids of categories are not different whole numbers: {str(ids)[:50]}")
    names = [each.get("name") for each in ordered]
    parents = [each.get("supercategory") or "" for each in ordered]
    for name in (*names, *parents):
        if not isinstance(name, str) or not is_unicode(name):
            raise InputError(f"{shown}: category name is {str(name)[:50]!r}; expected valid Unicode text")
    return label_table(names, parents, info), np.array(ids, np.int64)
