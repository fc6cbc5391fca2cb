"""Open Images with labels of whole images: `images/<subset>/<id>.jpg`, and CSV files in `annotations/`.

The files are those of storage.googleapis.com/openimages/web/download_v7.html: `class-descriptions.csv` has the id and
the name of each class; `<subset>-images-with-rotation.csv` lists all images, and
`<subset>-annotations-human-imagelabels.csv` has a line per label. Names may start with a version, as in
`oidv6-train-images-with-labels-with-rotation.csv`.
Datumaro's `open_images` reads them, looks for an image by its id in all subsets, and refuses an id that occurs twice.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.annotations import ANNOTATIONS, IMAGES, check_class_names
from beam_cifar.formats.kit.folders import ID_TREE, ImageFileRows, TreeSink, write_lines
from beam_cifar.formats.kit.image_lists import (
    ImageTree,
    ListedRows,
    Texts,
    checked_tree,
    each_text,
    list_images,
    listed_rows,
    read_csv,
    unmatched,
)
from beam_cifar.formats.kit.label_columns import listed
from beam_cifar.formats.kit.roots import sorted_files
from beam_cifar.formats.kit.rows import found_in, prefixed
from beam_cifar.formats.kit.subset_names import SPLITS
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import decoded_names
from beam_cifar.naming.id_paths import decode_path, encode_word, stem

if TYPE_CHECKING:
    import pyarrow as pa

CLASS_LIST: Final = "class-descriptions.csv"
IMAGE_LIST: Final = "-images-with-rotation.csv"
LABEL_LIST: Final = "-annotations-human-imagelabels.csv"
"""Ends of the names of the files of a subset."""

IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title"),
    *("OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)
LABEL_COLUMNS: Final = ("ImageID", "Source", "LabelName", "Confidence")
VERIFIED: Final = "verification"
"""Source of a label that a human verified."""

_CLASS_HEADER: Final = ["LabelName", "DisplayName"]
_LABELLED_LIST: Final = "-images-with-labels-with-rotation.csv"
"""End of the name of the list of those images of a subset that have labels, as `oidv6-train` has it."""
_VERSION: Final = re.compile(r"oidv[0-9]-(?=.)")


class OpenImagesSource(Source):
    """Reads the images of each subset, and the label of each."""

    name = "open_images"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether `annotations/` has a list of classes, and one of images or labels."""
        if not storage.is_folder(os.path.join(path, ANNOTATIONS)):
            return False
        return bool(_files(path, _is_class_list)) and bool(_files(path, _is_list))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads the classes, and all lists once."""
        with storage.reading(path):
            lists, classes = _files(path, _is_list), _files(path, _is_class_list)
            tree = list_images(os.path.join(path, IMAGES), is_image_name)
        if len(classes) != 1 or not lists:
            have = listed([entry.name for entry in (*classes, *lists)]) or "none of its lists"
            raise InputError(
                f"{os.path.join(path, ANNOTATIONS)}: has {have}; expected one {CLASS_LIST}, and for each subset "
                f"<subset>{IMAGE_LIST} or <subset>{LABEL_LIST}"
            )
        meta = SourceFile(CLASS_LIST, "", classes[0].path, storage.listed_file(classes[0]))
        files = _subsets(lists, (tree.blob, meta.blob), index_dir)
        table = LabelTable(_class_names(meta))
        return Catalog(self.name, "Open Images", path, table, files, (meta,), tuple(_notices(path, files, tree)))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


def _files(path: str, is_wanted: Callable[[str], bool]) -> list[storage.Entry]:
    return sorted_files(os.path.join(path, ANNOTATIONS), is_wanted, own=True)


def _is_class_list(name: str) -> bool:
    return _VERSION.sub("", name, count=1) == CLASS_LIST


def _is_list(name: str) -> bool:
    return name.endswith((IMAGE_LIST, _LABELLED_LIST, LABEL_LIST))


def _subsets(
    lists: Sequence[storage.Entry], beside: tuple[storage.Blob, ...], index_dir: str
) -> tuple[SourceFile, ...]:
    """Returns the list of each subset: of its images, beside that of its labels, or that of its labels alone."""
    labels = {entry.name.removesuffix(LABEL_LIST): entry for entry in lists if entry.name.endswith(LABEL_LIST)}
    found: dict[str, tuple[storage.Entry, ...]] = {}
    images = [entry for entry in lists if not entry.name.endswith(LABEL_LIST)]
    names = [entry.name.removesuffix(_LABELLED_LIST).removesuffix(IMAGE_LIST) for entry in images]
    for name, entry in zip(names, images, strict=True):
        others = (each for each in labels if each not in names and _split(each) == _split(name))
        own = name if name in labels else next(others, None)
        key = _VERSION.sub("", name, count=1) if entry.name.endswith(_LABELLED_LIST) else name
        if key in found:
            raise InputError(f"{entry.path}: {found[key][0].name!r} is a list of the same subset; keep one of them")
        found[key] = (entry, labels.pop(own)) if own is not None else (entry,)
    found |= {
        name: (entry,) for each, entry in labels.items() if (name := _VERSION.sub("", each, count=1)) not in found
    }
    subsets = decoded_names(found)
    return tuple(
        SourceFile(
            name,
            subsets[name],
            entry.path,
            storage.listed_file(entry),
            beside=(*beside, *map(storage.listed_file, others)),
            index_dir=index_dir,
        )
        for name, (entry, *others) in found.items()
    )


def _split(name: str) -> str:
    """Returns what a subset is, whatever its spelling: names are `validation` and `oidv7-val`."""
    plain = _VERSION.sub("", name, count=1)
    return SPLITS.get(plain, plain)


def _class_names(file: SourceFile) -> tuple[str, ...]:
    """Returns the name of each class, or its id if another class has the name too."""
    pairs = _classes(file)
    count = Counter(name for _, name in pairs)
    return tuple(name if count[name] == 1 else class_id for class_id, name in pairs)


def _classes(file: SourceFile) -> list[tuple[str, str]]:
    """Returns the id and the name of each class. Raises `InputError`."""
    found: dict[str, str] = {}
    for line, row in read_csv(file.blob, file.shown):
        if line == 1 and row == _CLASS_HEADER:
            continue
        if len(row) != 2 or not all(row) or row[0] in found:
            raise InputError(
                f"{file.shown}: line {line}: found {','.join(row)[:50]!r}; expected an id that is new, and a name"
            )
        found[row[0]] = row[1]
    return list(found.items())


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    """Reads the lists of a subset, and finds its images."""
    import numpy as np
    import pyarrow as pa

    images, classes, *labels = file.beside
    tree, rows = checked_tree(images, is_image_name), ListedRows(file)
    (ids,) = _columns(file.blob, file.shown, LABEL_COLUMNS[:1])
    is_first = found_in(ids, ids) == np.arange(len(ids))
    if file.blob.path.endswith(LABEL_LIST):  # has no list of its images, which may have several lines each
        labels, ids, is_first = [file.blob], ids.filter(pa.array(is_first)), is_first[is_first]
    found = (tree.with_any_extension(prefixed(folder, ids)) for folder in (f"{file.name}/", ""))
    for image_id, first, *paths in zip(each_text(ids), is_first.tolist(), *found, strict=True):
        error = "" if image_id and first else f"ImageID is {image_id[:50]!r}; expected one that no other line has"
        path, item_id = next(filter(None, paths), ""), decode_path(image_id)
        rows.append(item_id, path or image_id, item_id + path[len(stem(path)) :], error=error)
    unlisted = _add_labels(rows, ids, labels[0], classes) if labels else 0
    return rows.made(tree).replace_schema_metadata({"unlisted": str(unlisted)})


def _add_labels(rows: ListedRows, ids: pa.Array, blob: storage.Blob, classes: storage.Blob) -> int:
    """Adds the labels of images, given the ids of these; returns how many are of other images."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    def error(at: int, label: int) -> str:
        name = names[at].as_py()
        if numbers[at] < 0:
            return f"LabelName is {name[:50]!r}; expected the id of a class in {CLASS_LIST}"
        other = "another class, too" if label < 0 else f"{known[label].as_py()!r}"
        return f"has labels {name!r} and {other}; at most one is supported"

    images, names, confidences = _columns(blob, blob.path, (LABEL_COLUMNS[0], *LABEL_COLUMNS[2:]))
    scores = confidences.dictionary_encode()
    is_there = np.array([_is_there(text, blob.path) for text in scores.dictionary.to_pylist()], bool)
    chosen = pa.array(is_there[scores.indices.to_numpy()])
    names, places = names.filter(chosen), found_in(images.filter(chosen), ids)
    names, places = names.filter(pa.array(places >= 0)), places[places >= 0]
    meta = SourceFile(CLASS_LIST, "", classes.path, classes)
    known = pa.array([class_id for class_id, _ in _classes(meta)], pa.string())
    numbers = found_in(names, known)
    rows.set_labels(places, numbers, error)
    return int(pc.sum(chosen).as_py() or 0) - len(places)


def _is_there(confidence: str, shown: str) -> bool:
    """Returns whether a label with a confidence is one: 0 says that the image is not of the class."""
    with suppress(ValueError):
        if 0 <= (found := float(confidence)) <= 1:
            return found > 0
    raise InputError(f"{shown}: Confidence is {confidence[:50]!r}; expected a number from 0 to 1")


def _columns(blob: storage.Blob, shown: str, names: Sequence[str]) -> list[pa.Array]:
    """Returns columns of a CSV file, `string` `[N]` each. Raises `InputError`."""
    lines = read_csv(blob, shown)
    _, header = next(lines, (1, []))
    missing = [name for name in names if name not in header]
    if missing:
        raise InputError(f"{shown}: line 1: has no column {missing[0]!r}; expected the header of Open Images' file")
    found = [Texts() for _ in names]
    places = [header.index(name) for name in names]
    for line, row in lines:
        if len(row) != len(header):
            raise InputError(
                f"{shown}: line {line}: has {counted(len(row), 'value')}; expected {len(header):,}, as in line 1"
            )
        for texts, place in zip(found, places, strict=True):
            texts.append(row[place])
    return [texts.made() for texts in found]


def _notices(path: str, files: Sequence[SourceFile], tree: ImageTree) -> Iterator[str]:
    """Yields notices for images and labels that are missing in one of the places."""
    import pyarrow as pa

    tables, shown = list(map(_listed, files)), ("image", "filename", "error")
    yield from unmatched(
        path, pa.concat_tables(table.select(shown).replace_schema_metadata(None) for table in tables), tree
    )
    for file, table in zip(files, tables, strict=True):
        if unlisted := int(table.schema.metadata[b"unlisted"]):
            yield f"{file.shown}: ignored {counted(unlisted, 'label')} of images that are not listed"


class OpenImagesSink(TreeSink):
    """Writes `images/<subset>/<id>.png`, and the CSV files of each subset."""

    name = "open_images"
    can = replace(ID_TREE, losses=frozenset({"superclasses"}), keeps_empty_subsets=True, listed=("label",))
    subsets = SubsetNaming(by_split=True, word=lambda name: encode_word(name, LABEL_LIST).removesuffix(LABEL_LIST))

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses repeated and empty names."""
        check_class_names(labels)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns the folder of the subset's images."""
        return f"{IMAGES}/{self.subsets.written(subset)}"

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the images of a subset, and the labels of those that have one."""
        subset, names = self.subsets.written(shard.subset), options.labels.names
        empty = ("",) * (len(IMAGE_COLUMNS) - 2)
        images = ((stem(path), subset, *empty) for path, _, _ in self.listed_images(parts))
        write_lines(files, f"{ANNOTATIONS}/{subset}{IMAGE_LIST}", _lines(chain([IMAGE_COLUMNS], images)))
        labels = (
            (stem(path), VERIFIED, names[label], "1")
            for path, label, _ in self.listed_images(parts)
            if label != UNLABELLED
        )
        write_lines(files, f"{ANNOTATIONS}/{subset}{LABEL_LIST}", _lines(chain([LABEL_COLUMNS], labels)))

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the list of classes: the id of a class is its name."""
        return {f"{ANNOTATIONS}/{CLASS_LIST}": "".join(_lines((name, name) for name in options.labels.names)).encode()}


def _lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the rows of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
