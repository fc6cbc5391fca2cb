"""A table of labels beside folders of images, as Kaggle and the imagefolder of Hugging Face `datasets` have them.

Kaggle: `train/1.png`, `test/`, and `trainLabels.csv`, `train.csv` or `labels.csv` with a header such as `id,label`; ids
may lack the folder and the extension of the image. `datasets`: `metadata.csv` or `metadata.jsonl` beside the images, or
above their folders, with `file_name`, a path relative to it (https://huggingface.co/docs/datasets/image_dataset).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source, kept
from beam_cifar.formats.contract.types import Catalog, SourceFile, are_too_many
from beam_cifar.formats.kit.folders import ENTRY, ImageFileRows, image_table
from beam_cifar.formats.kit.image_lists import (
    ImageTree,
    Texts,
    checked_tree,
    each_text,
    is_inside,
    list_images,
    listed_rows,
    natural_places,
    path_names,
    plain_path,
    unmatched,
)
from beam_cifar.formats.kit.label_columns import listed
from beam_cifar.formats.kit.label_tables import (
    TABLES,
    TableColumns,
    find_columns,
    is_list,
    may_have_labels,
    names_images,
    table_rows,
)
from beam_cifar.formats.kit.roots import has_own_file, sorted_files
from beam_cifar.formats.kit.rows import column, found_in, prefixed
from beam_cifar.formats.kit.subset_names import SPLITS, is_no_class, split_word
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.id_paths import decode_path, stem
from beam_cifar.naming.ids import natural_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

SUBSET: Final = "default"
"""Datumaro's name for the only subset."""

INNER_TABLES: Final = ("metadata.csv", "metadata.jsonl", "labels.csv", "_classes.csv")
"""Tables that are looked for in folders too; the last one is that of Roboflow."""

LIST_FOLDERS: Final = ("meta", "annotations", "labels", "lists", "splits", "info")
"""Folders of lists, which name images relative to the folder around them."""

ASIDE: Final = frozenset({"annotations", "masks", "labels", "trimaps"})
"""Folders of images that show where something is in the images of a set."""

NO_LABELS: Final = ("split", "partition")
"""In the names of lists whose numbers say something else."""

ANSWERS: Final = "submission"
"""In the names of Kaggle's forms for answers, whose labels are all alike."""

EXTENSIONS: Final = ("", ".png", ".jpg", ".jpeg", ".JPEG", ".JPG", ".PNG")
MAX_FOLDERS: Final = 64
"""Maximum number of folders that are searched for the images of a table that does not name their folders."""

LOOKED_INTO: Final = 20
"""Folders of each level in which detection looks for the first images of a table."""

MAX_DEPTH: Final = 3
"""Levels of folders in which it does so."""

TOLD: Final = 8
"""Columns that a notice names."""

MAX_LISTS: Final = 64
"""Maximum number of lists that are looked at."""

MAX_LEFT_OUT: Final = 12
"""Maximum number of first folders that paths of another machine are read without."""

MAX_SUBSETS: Final = 1000
MAX_CLASSES: Final = 100_000

_WHOLE: Final = re.compile(r"-1|(?:0|[1-9][0-9]{0,8})(?:\.0+)?")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")


class ImageCsvSource(Source):
    """Reads the tables, and finds the images that they name."""

    name = "image_csv"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a table of labels names images, or whether any table is all that can say more of images.

        Images in folders of classes need no table; others would silently lose the labels that a table may have.
        """
        if not storage.is_folder(path):
            return False
        found, _ = _readable(path)
        named = {
            columns.has_labels and not columns.guessed
            for blob, columns in found
            if names_images(blob, columns, _looks(blob, path)) or _names_some(blob, columns, path)
        }
        if True in named or not found:
            return bool(found)
        folders = storage.folders_in(path)
        if named and len(folders) == 1 and storage.has_file(folders[0], is_image_name):
            return True  # one folder is no class if a table names its images
        if not all(is_no_class(storage.name_of(folder)) for folder in folders):
            return False
        return any(storage.has_file(folder, is_image_name) for folder in (path, *folders))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads all tables once, to find the classes, the subsets and the images."""
        with storage.reading(path):
            found, damaged = _readable(path)
            tree = list_images(path, is_image_name)
        if not len(tree):
            raise InputError(f"{path}: no PNG or JPEG files found")
        if not found and damaged:
            raise damaged[0]
        if not found:
            raise InputError(f"{path}: has no table with a column of images; expected one such as id,label in a CSV")
        tables = tuple(blob for blob, _ in found)
        rows = _rows(SourceFile("", "", path, tree.blob, beside=tables, index_dir=index_dir))
        facts = json.loads(rows.schema.metadata[b"facts"])
        blobs = {blob.path: blob for blob in tables}
        files = tuple(
            SourceFile(
                f"{os.path.relpath(where, path)}:{subset}",
                subset,
                where,
                blobs.get(where) or storage.Blob(where, 0, tree.blob.size, tree.blob.stamp),
                beside=(tree.blob, *tables),
                index_dir=index_dir,
            )
            for where, subset in facts["parts"]
        )
        table = LabelTable(tuple(facts["classes"]))
        ignored = (f"{error}; ignored, because it names no images" for error in damaged)
        return Catalog(self.name, "images with a table", path, table, files, notices=(*ignored, *facts["notices"]))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        import pyarrow.compute as pc

        tree, *tables = file.beside
        rows = _rows(SourceFile("", "", tree.path, tree, beside=tuple(tables), index_dir=file.index_dir))
        part = json.loads(rows.schema.metadata[b"facts"])["parts"].index([file.blob.path, file.subset])
        chosen = rows.filter(pc.equal(rows["part"], part))
        named = {name: column(chosen, name) for name in ("id", "filename", "label", "error")}
        images = {name: column(chosen, name) for name in ENTRY}
        table = image_table(images, named.pop("id"), named.pop("filename"), **named)
        return listed_rows(file, tree.path, table, len(labels.names))


def _tables(path: str) -> list[storage.Blob]:
    """Returns the tables in a folder, and those with usual names in its folders. Raises `InputError` and `OSError`."""
    found = [entry.path for entry in sorted_files(path, _is_table)]
    folders = sorted(storage.folders_in(path), key=natural_key)
    if len(folders) > MAX_FOLDERS:  # of classes: looking into each would take long
        folders = [folder for folder in folders if is_no_class(storage.name_of(folder))]
    found += [os.path.join(folder, name) for folder in folders for name in INNER_TABLES if has_own_file(folder, name)]
    return list(map(storage.whole_file, found))


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLES) and ANSWERS not in name.lower()


def _readable(path: str) -> tuple[list[tuple[storage.Blob, TableColumns]], list[InputError]]:
    """Returns the tables with a column of images, and the errors of those that cannot be read and look like no labels.

    Raises:
        InputError: one that may have labels cannot be read.
        OSError: a folder cannot be read.
    """
    found, damaged = [], list[InputError]()
    for blob in _tables(path):
        try:
            columns = _columns(blob, path)
        except InputError as error:
            if may_have_labels(blob):
                raise
            damaged.append(error)
        else:
            found += [(blob, columns)] if columns else []
    return found or _readable_lists(path), damaged


def _readable_lists(path: str) -> list[tuple[storage.Blob, TableColumns]]:
    """Returns the lists that name images: of splits if there are any, else those with labels."""
    folders = [os.path.join(path, name) for name in LIST_FOLDERS]
    entries = [
        each for folder in (path, *filter(storage.is_folder, folders)) for each in sorted_files(folder, _is_list)
    ]
    if len(entries) > MAX_LISTS:  # one for each image, perhaps
        entries = [entry for entry in entries if split_word(entry.name)][:MAX_LISTS]
    read = ((blob, _columns(blob, path)) for blob in (storage.whole_file(entry.path) for entry in entries))
    found = [(blob, columns) for blob, columns in read if columns]
    split = [each for each in found if split_word(os.path.basename(each[0].path))]
    return split or [(blob, columns) for blob, columns in found if columns.label]


def _is_list(name: str) -> bool:
    return is_list(name) and not any(word in name.lower() for word in NO_LABELS)


def _home(blob: storage.Blob, root: str) -> str:
    """Returns the folder that paths in a table are relative to."""
    folder = os.path.dirname(blob.path)
    return root if is_list(blob.path) else folder


@kept()
def _columns(blob: storage.Blob, root: str) -> TableColumns | None:
    """Returns the columns of a table, None if none is of images. Raises `InputError`."""
    with storage.reading(blob.path):
        return find_columns(blob, _looks(blob, root))


def _looks(blob: storage.Blob, root: str) -> Callable[[str], bool]:
    """Returns a function that looks up, without listing folders, whether a value names an image beside a table."""
    folder = _home(blob, root)
    places = ["", *(os.path.relpath(each, folder) for level in _inner(folder) for each in level)]

    def is_one(names: Iterable[str]) -> bool:
        return any(
            is_image_name(name) and storage.is_file(os.path.join(folder, place, name))
            for name in names
            for place in places
        )

    def is_there(value: str) -> bool:
        plain = stem(value) if is_image_name(value) else value
        names = dict.fromkeys((value, *(plain + end for end in EXTENSIONS)))
        return (is_inside(value) and is_one(names)) or is_one(_shorter(value))

    return is_there


def _inner(folder: str) -> list[list[str]]:
    """Returns the first folders in a folder, in these, and in those."""
    inner = sorted(storage.folders_in(folder), key=lambda each: not is_no_class(storage.name_of(each)))
    levels = [inner[:LOOKED_INTO]]
    for _ in range(MAX_DEPTH - 1):
        levels.append(
            [each for above in levels[-1] for each in storage.first_names(above, LOOKED_INTO)[1]][:LOOKED_INTO]
        )
    return levels


def _names_some(blob: storage.Blob, columns: TableColumns, root: str) -> bool:
    """Returns whether a table of labels names images, where there are more folders than are looked into for those."""
    levels = _inner(_home(blob, root)) if columns.label and not columns.guessed else []
    if not any(len(level) == LOOKED_INTO for level in levels):
        return False
    names = (name for level in levels for folder in level for name in storage.first_names(folder, LOOKED_INTO)[0])
    stems = {stem(name) for name in names if is_image_name(name)}
    values = (os.path.basename(row.image) for row in table_rows(blob, columns))
    return any((stem(value) if is_image_name(value) else value) in stems for value in values)


def _shorter(path: str) -> list[str]:
    """Returns what may be left of a path on another machine, or in a store, without its first folders."""
    folders = [name for name in re.sub(r"^\w+:", "", path).split("/") if name not in ("", ".", "..")]
    split = next((at for at, name in enumerate(folders[:-1]) if split_word(name)), len(folders))
    return ["/".join(folders[at:]) for at in range(min(len(folders), split + 1, MAX_LEFT_OUT))] if "/" in path else []


class _Images:
    """The images below a folder.

    Args:
        tree: the images.
    """

    def __init__(self, tree: ImageTree) -> None:
        import numpy as np
        import pyarrow.compute as pc

        self.tree = tree
        self._stems = pc.replace_substring_regex(tree.names, r"\.[^./]*$", "")
        stems = self._stems.dictionary_encode().indices.to_numpy()
        self._twins: npt.NDArray[np.bool_] = np.bincount(stems)[stems] > 1  # "a.png" and "a.jpg"
        folders = pc.replace_substring_regex(tree.names, r"[^/]*$", "").dictionary_encode()
        self.folders: list[str] = folders.dictionary.to_pylist()
        """Folders with images, relative, with "/" at the end; "" for the tree itself."""
        self.folder_of: npt.NDArray[np.int32] = folders.indices.to_numpy()
        """int32 `[N]`, the folder of each image."""
        # With those around them: a table may name paths from any of them.
        self._all = {each[: at + 1] for each in self.folders for at, char in enumerate(each) if char == "/"}

    def find(self, values: pa.Array, prefix: str, split: str) -> _Found:
        """Finds the images that values name, with or without extension.

        Args:
            values: paths relative to `prefix`, or to a folder below it.
            prefix: folder of the table; a path relative to it goes before any other.
            split: the split that the images are of: folders of others are not searched; "" if that is not known.
        """
        import numpy as np

        places, ranks = (np.full(len(values), -1, np.int64) for _ in range(2))
        repeated, unsure = (np.zeros(len(values), bool) for _ in range(2))
        for rank, folder in self._searched(prefix, split):
            wanted = prefixed(folder, values)
            found = self.tree.find(wanted)
            rest = np.flatnonzero(found < 0)
            found[rest] = found_in(wanted.take(rest), self._stems)
            unsure[rest] |= (places[rest] < 0) & (found[rest] >= 0) & self._twins[found[rest]]
            again = (places >= 0) & (found >= 0) & (found != places) & (ranks >= 0)
            repeated |= again
            unsure |= again & (ranks == rank)
            ranks = np.where(places < 0, rank, ranks)
            places = np.where(places < 0, found, places)
        rest = np.flatnonzero(places < 0)
        if len(self._all) > MAX_FOLDERS and len(rest):
            places[rest], unsure[rest] = self._find_anywhere(values.take(rest), prefix, split)
        return _Found(places, repeated & ~unsure, unsure)

    def _find_anywhere(
        self, values: pa.Array, prefix: str, split: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Returns the place of each image in all folders to search, by name alone, and whether several have it."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        ranks = np.array([self._rank(each, split) if each.startswith(prefix) else 3 for each in self.folders])
        chosen = np.flatnonzero(ranks[self.folder_of] < (2 if split else 3))
        places, unsure = np.full(len(values), -1, np.int64), np.zeros(len(values), bool)
        for names in (self.tree.names, self._stems):
            last = pc.replace_substring_regex(names.take(pa.array(chosen)), "^.*/", "")
            codes = last.dictionary_encode().indices.to_numpy()
            found = found_in(values, last)
            new = (places < 0) & (found >= 0)
            places[new] = chosen[found[new]]
            unsure[new] = (np.bincount(codes)[codes] > 1)[found[new]]
        return places, unsure

    def _searched(self, prefix: str, split: str) -> list[tuple[int, str]]:
        """Returns the folders to search: rank -1 is that of the table, 0 those of the split, 1 of none, 2 others."""
        inner = [each for each in self._all if each.startswith(prefix) and each != prefix]
        chosen = [
            (self._rank(each, split), each) for each in inner if not split or self._rank(each[len(prefix) :], split) < 2
        ]
        chosen.sort(key=lambda each: (each[0], each[1].count("/"), natural_key(each[1])))
        return [(-1, prefix), *chosen[:MAX_FOLDERS]]

    def _rank(self, folder: str, split: str) -> int:
        if not ASIDE.isdisjoint(folder.lower().split("/")):
            return 2
        found = SPLITS.get(subset_of(folder).lower(), "")
        return 0 if found == (split or "train") else 1 if not found else 2


class _Found(NamedTuple):
    """Images found for some names.

    Attributes:
        places: int64 `[M]`, the place of each in the tree, -1 for none.
        repeated: bool `[M]`, whether folders of other splits have an image of the name too.
        unsure: bool `[M]`, whether nothing says which of several images is meant.
    """

    places: npt.NDArray[np.int64]
    repeated: npt.NDArray[np.bool_]
    unsure: npt.NDArray[np.bool_]


def subset_of(folder: str) -> str:
    """Returns the subset that a folder's name means, "train" for `train/` and `data/train_images/`; "" for none."""
    for name in folder.split("/"):
        if word := split_word(name):
            return name if name.lower() == word else word
    return ""


@dataclass
class _Rows:
    """The rows of one table, or of a folder without one.

    Attributes:
        where: path of the table or folder.
        values: string `[N]`, names of the images as found, "" for a bad row.
        labels: string `[N]`, "" for none.
        subsets: string `[N]`.
        places: int64 `[N]`, the place of each image in the tree, -1 for none.
        errors: why rows are bad, by row.
        has_labels: whether it has a column of labels.
        classes: the classes that have columns of their own, in order.
    """

    where: str
    values: pa.Array
    labels: pa.Array
    subsets: pa.Array
    places: npt.NDArray[np.int64]
    errors: dict[int, str]
    has_labels: bool
    classes: tuple[str, ...] = ()


@kept()
@indexed()
def _rows(file: SourceFile) -> pa.Table:
    """Returns the rows of all tables of a dataset, and of folders of splits that no table is about.

    Columns: `id`, `filename`, `ENTRY`, `label`, `error`, and `part`, the index in `parts` of its table and subset. The
    metadata have `parts`, `classes` and `notices`, as JSON.
    """
    import numpy as np
    import pyarrow as pa

    images, notices = _Images(checked_tree(file.blob, is_image_name)), list[str]()
    tables = [_read_table(blob, file.blob.path, images, notices) for blob in file.beside]
    places = np.concatenate([rows.places for rows in tables])
    if not (places >= 0).any():
        wrong = next((f"{rows.where}: {error}" for rows in tables for error in rows.errors.values()), "")
        named = next((rows.values[0].as_py()[:100] for rows in tables if len(rows.values)), "")
        raise InputError(
            wrong
            or f"{tables[0].where}: no image that it names is below {file.shown}; expected their folders there, or "
            f"--input-format image_dir to read the images without labels (it names {named!r}; there is "
            f"{images.tree.names[0].as_py()!r})"
        )
    tables = _named_by_folders(_drop_repeated(tables, notices), images, notices)
    notices += _in_several(tables, images)
    tables += _unnamed(file.blob.path, images, np.unique(places[places >= 0]), notices)
    labels, classes = _numbered_labels(tables)
    notices += _unlabelled(tables, labels)
    parts, numbers = _parts(tables)
    ids, filenames = Texts(), Texts()
    for rows in tables:
        found = images.tree.rows(rows.places)["image"]
        for value, image in zip(each_text(rows.values), each_text(found), strict=True):
            item_id, filename = _names(value, image)
            ids.append(item_id)
            filenames.append(filename)
    errors = [rows.errors.get(row) for rows in tables for row in range(len(rows.values))]
    table = pa.table(
        {
            "id": ids.made(),
            "filename": filenames.made(),
            **images.tree.rows(np.concatenate([rows.places for rows in tables])),
            "label": labels,
            "error": pa.array(errors, pa.string()),
            "part": numbers,
        }
    )
    notices += unmatched(file.shown, table, images.tree)
    facts = {"parts": parts, "classes": classes, "notices": notices}
    return table.replace_schema_metadata({"facts": json.dumps(facts)})


def _names(value: str, image: str) -> tuple[str, str]:
    """Returns the id and the file name of an image, given what the table calls it, and its path if it is found."""
    if is_image_name(value):
        return path_names(value)
    item_id = decode_path(value)
    return item_id, item_id + image[len(stem(image)) :]


def _read_table(blob: storage.Blob, root: str, images: _Images, notices: list[str]) -> _Rows:
    """Reads a table, and finds the images that it names."""
    import pyarrow.compute as pc

    columns = _columns(blob, root)
    if columns is None:
        raise InputError(f"{blob.path}: the file changed while it was being converted; run the job again")
    values, texts, subsets, errors, outside = Texts(), Texts(), Texts(), dict[int, str](), dict[int, str]()
    for row, found in enumerate(table_rows(blob, columns)):
        error = found.error or ("" if found.image else _no_path(columns.image, found.line))
        if error:
            errors[row] = error
            _refuse_many(blob.path, error, errors, row + 1)
        elif not is_inside(found.image):
            outside[row] = _outside(found.image, found.line)
        values.append("" if error else found.image if "://" in found.image else plain_path(found.image))
        texts.append("" if error else found.label)
        subsets.append("" if error else found.subset)
    folder = os.path.relpath(_home(blob, root), root)
    prefix = "" if folder == "." else f"{folder}/"
    place = _Place(blob.path, prefix, subset_of(prefix) or subset_of(os.path.basename(blob.path)))
    named, said = values.made(), subsets.made()
    places, unsure = _places(place, columns, named, said, images, notices)
    if (places < 0).all():
        named, places, unsure = _with_other_extensions(place, columns, named, said, images, notices)
    if (places < 0).all():
        named, places, unsure = _with_shorter_paths(place, columns, named, said, images, notices)
        outside = outside if (places < 0).all() else {}
    for row, error in outside.items():
        errors[row] = error
        _refuse_many(blob.path, error, errors, len(named))
    for row in unsure:
        value, first = named[row].as_py(), images.tree.names[int(places[row])].as_py()
        errors[row] = (
            f"image {value!r} may be one of several, such as {first!r}; expected a path and an extension in column "
            f"{columns.image!r}"
        )
        _refuse_many(blob.path, errors[row], errors, len(named))
    places[unsure] = -1
    labels = texts.made()
    if columns.is_in_folders:
        labels = _folder_names(images, places)
        columns = replace(columns, is_in_folders=bool(pc.any(pc.not_equal(labels, "")).as_py()))
    notices += _column_notices(blob.path, columns)
    written = _subsets(place, named, said, places, images)
    return _Rows(blob.path, named, labels, written, places, errors, columns.has_labels, columns.one_hot)


def _folder_names(images: _Images, places: npt.NDArray[np.int64]) -> pa.Array:
    """Returns the name of the folder of each image, "" for none, or for one that says nothing of its class."""
    import numpy as np
    import pyarrow as pa

    names = [*(storage.name_of(folder.rstrip("/")) for folder in images.folders), ""]
    texts = pa.array(["" if is_no_class(name) else name for name in names])
    return texts.take(pa.array(np.where(places < 0, len(names) - 1, images.folder_of[places])))


def _named_by_folders(tables: list[_Rows], images: _Images, notices: list[str]) -> list[_Rows]:
    """Returns the rows of lists with the names of folders for numbers, if each number has one, and no two the same."""
    import pyarrow as pa

    lists = [rows for rows in tables if is_list(rows.where)]
    names: dict[str, set[str]] = {}
    for rows in lists:
        for text, name in zip(rows.labels.to_pylist(), _folder_names(images, rows.places).to_pylist(), strict=True):
            names.setdefault(text, set()).update({name} - {""})
    found = {text: (*each, "")[0] for text, each in names.items() if len(each) == 1 and text.isdigit()}
    if not found or not len({*found.values()}) == len(found) == len(names):
        return tables
    number, name = min(found.items())
    notices.append(
        f"{lists[0].where}: labels have the names of the folders of their images, such as {name!r} for {number}"
    )
    return [
        replace(rows, labels=pa.array([found[text] for text in rows.labels.to_pylist()])) if rows in lists else rows
        for rows in tables
    ]


def _refuse_many(shown: str, error: str, errors: Mapping[int, str], rows: int) -> None:
    if are_too_many(len(errors), rows):
        raise InputError(f"{shown}: {error} (after {len(errors) - 1} other bad rows)")


def _no_path(name: str, line: int) -> str:
    return f"column {name!r} is empty; expected the name of an image (line {line})"


def _outside(value: str, line: int) -> str:
    return f"image path {value[:100]!r} leaves the folder of the table; expected a path inside it (line {line})"


class _Place(NamedTuple):
    """Where a table is: its path, its folder relative to the dataset with "/" at the end, and the subset they name."""

    path: str
    prefix: str
    subset: str


def _places(
    table: _Place, columns: TableColumns, values: pa.Array, said: pa.Array, images: _Images, notices: list[str]
) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Returns the place of each row's image in the tree, int64 `[N]`, -1 for none; and rows that may mean several."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    subsets = pc.unique(said).to_pylist()
    if len(subsets) > MAX_SUBSETS:
        raise InputError(
            f"{table.path}: column {columns.subset!r} has more than {MAX_SUBSETS} different values; expected subsets, "
            "rename a column that has none"
        )
    splits = {
        name: SPLITS.get(split_word(table.subset if columns.is_flagged else name or table.subset), "")
        for name in subsets
    }
    places, unsure = np.full(len(values), -1, np.int64), list[int]()
    for split in dict.fromkeys(splits.values()):
        names = pa.array([name for name in subsets if splits[name] == split], pa.string())
        rows = np.flatnonzero(pc.is_in(said, value_set=names).to_numpy(zero_copy_only=False))
        found = images.find(values.take(pa.array(rows)), table.prefix, split)
        places[rows] = found.places
        unsure += rows[found.unsure].tolist()
        if found.repeated.any():
            first = images.tree.names[int(found.places[found.repeated][0])].as_py()
            count = counted(int(found.repeated.sum()), "name")
            notices.append(
                f"{table.path}: {count} of images in several folders, of which those in the first are read, such as "
                f"{first!r}; a column 'split', or paths in column {columns.image!r}, would say which"
            )
    return places, unsure


def _with_other_extensions(
    table: _Place, columns: TableColumns, values: pa.Array, said: pa.Array, images: _Images, notices: list[str]
) -> tuple[pa.Array, npt.NDArray[np.int64], list[int]]:
    """Returns the names of images of which none is there, without extension where another is; then as `_places`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = Texts()
    for value in each_text(values):
        texts.append(stem(value) if is_image_name(value) else value)
    stems = texts.made()
    places, unsure = _places(table, columns, stems, said, images, notices)
    found = np.flatnonzero(places >= 0)
    if len(found):
        first, image = values[int(found[0])].as_py(), images.tree.names[int(places[found[0]])].as_py()
        notices.append(
            f"{table.path}: no image that it names is there; read with another extension: "
            f"{counted(len(found), 'image')}, such as {image!r} for {first!r}"
        )
    return pc.if_else(pa.array(places >= 0), stems, values), places, unsure


def _with_shorter_paths(
    table: _Place, columns: TableColumns, values: pa.Array, said: pa.Array, images: _Images, notices: list[str]
) -> tuple[pa.Array, npt.NDArray[np.int64], list[int]]:
    """Returns the names of images, without the first folders if none is there and some are without; then as `_places`.

    Tables that were written on another machine, or for a bucket, have its paths: `/home/me/pets/cat/1.jpg`.
    """
    for left in range(MAX_LEFT_OUT):
        texts = Texts()
        for value in each_text(values):
            texts.append((*_shorter(value)[left:], "")[0])
        shorter = texts.made()
        places, unsure = _places(table, columns, shorter, said, images, notices)
        found = places >= 0
        if found.any():
            first = int(found.argmax())
            image, value = images.tree.names[int(places[first])].as_py(), values[first].as_py()
            notices.append(
                f"{table.path}: no image that it names is there; {counted(int(found.sum()), 'image')} at the ends of "
                f"these paths are read, such as {image!r} for {value!r}"
            )
            return shorter, places, unsure
    return values, places, unsure


def _subsets(
    table: _Place, values: pa.Array, said: pa.Array, places: npt.NDArray[np.int64], images: _Images
) -> pa.Array:
    """Returns the subset of each row, string `[N]`: from its column, else the folder of its image, else the table."""
    names = [subset_of(folder) for folder in images.folders]
    folders = images.folder_of[places]
    found = {names[folder] for folder in set(folders[places >= 0].tolist())}
    common = found.pop() if len(found) == 1 else ""
    subsets = Texts()
    for value, text, place, folder in zip(
        each_text(values), each_text(said), places.tolist(), folders.tolist(), strict=True
    ):
        named = names[folder] if place >= 0 else subset_of(value.rpartition("/")[0]) or table.subset or common
        subsets.append(text or named or table.subset or SUBSET)
    return subsets.made()


def _column_notices(shown: str, columns: TableColumns) -> Iterator[str]:
    """Yields notices of the columns that were found, and of those that may be meant too."""
    unused = ", ".join(columns.unused[:TOLD])
    if not columns.has_labels:
        way_out = "rename one with labels to 'label'"
        if not columns.has_header:
            way_out = "add a first line that names the columns, one of them 'label'"
        rest = f"columns not used: {unused}; {way_out}" if unused else "it has no other columns"
        yield f"{shown}: no labels found; images are named by column {columns.image!r}; {rest}"
        return
    guess = " (a guess: no other column may have them)" if columns.guessed else ""
    subset = f", subsets from {columns.subset!r}" if columns.subset else ""
    label = "the names of their folders" if columns.is_in_folders else f"{columns.label!r}{guess}"
    if columns.one_hot:
        label = f"the 1 in one of the columns {listed(columns.one_hot)} (a guess: no column is named as one of labels)"
    yield f"{shown}: images are named by column {columns.image!r}, labels are read from {label}{subset}"
    if columns.other_labels:
        yield f"{shown}: columns not used, which may be labels too: {', '.join(columns.other_labels[:TOLD])}"


def _drop_repeated(tables: Sequence[_Rows], notices: list[str]) -> list[_Rows]:
    """Drops rows whose image and label an earlier row of the subset has, or that only say less than another table.

    Rows of one image with different labels become bad rows.
    """
    import numpy as np
    import pyarrow as pa

    places = np.concatenate([rows.places for rows in tables])
    labels, subsets = (
        pa.concat_arrays([getattr(rows, name) for rows in tables]).dictionary_encode().indices.to_numpy()
        for name in ("labels", "subsets")
    )
    labelled = np.repeat([rows.has_labels for rows in tables], [len(rows.values) for rows in tables])
    drop = ~labelled & np.isin(places, places[labelled & (places >= 0)])
    keys = subsets.astype(np.int64) * (places.max() + 1) + places
    order = np.flatnonzero((places >= 0) & ~drop)
    order = order[np.argsort(keys[order], kind="stable")]
    first = np.diff(keys[order], prepend=-1) != 0
    group = np.cumsum(first) - 1
    alike = labels[order] == labels[order[first]][group]
    torn = np.isin(group, group[~alike])
    table_of = np.repeat(np.arange(len(tables)), [len(rows.values) for rows in tables])[order]
    for number in np.unique(table_of[torn & (table_of != table_of[first][group])]).tolist():
        here = table_of == number
        if 2 * torn[here].sum() > here.sum():
            other = tables[int(table_of[first][group][torn & here][0])]
            raise InputError(
                f"{tables[number].where}: has other labels than {other.where} for the same images; move the one that "
                "is not meant elsewhere"
            )
    drop[order[~first & ~torn]] = True
    bad = np.zeros(len(places), bool)
    bad[order[torn]] = True
    stops = np.cumsum([len(rows.values) for rows in tables])[:-1]
    parts = zip(tables, np.split(drop, stops), np.split(bad, stops), strict=True)
    return [_cleared(rows, dropped, wrong, notices) for rows, dropped, wrong in parts]


def _cleared(rows: _Rows, drop: npt.NDArray[np.bool_], bad: npt.NDArray[np.bool_], notices: list[str]) -> _Rows:
    """Returns rows without those to drop, and with errors for bad ones."""
    import numpy as np
    import pyarrow as pa

    torn = np.flatnonzero(bad).tolist()
    if are_too_many(len(torn) + len(rows.errors), len(rows.values)):
        found = counted(len(torn), "row", verb="have")
        raise InputError(f"{rows.where}: {found} an image that has another label in another row")
    errors = dict(rows.errors)
    for row in torn:
        value, label = rows.values[row].as_py(), rows.labels[row].as_py()
        errors[row] = f"image {value!r} has label {label!r} here and another in another row; at most one is supported"
    if not drop.any():
        return replace(rows, errors=errors)
    example = rows.values[int(np.argmax(drop))].as_py()
    count = counted(int(drop.sum()), "row")
    notices.append(f"{rows.where}: ignored {count} whose image and label another row has, such as {example!r}")
    keep, after = pa.array(~drop), np.cumsum(~drop) - 1
    return replace(
        rows,
        values=rows.values.filter(keep),
        labels=rows.labels.filter(keep),
        subsets=rows.subsets.filter(keep),
        places=rows.places[~drop],
        errors={int(after[row]): error for row, error in errors.items()},
    )


def _unnamed(root: str, images: _Images, used: npt.NDArray[np.int64], notices: list[str]) -> Iterator[_Rows]:
    """Yields the images, without labels, of each folder of a split that no row of a table is about."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    tops = [folder.partition("/")[0] for folder in images.folders]
    taken = {tops[folder] for folder in set(images.folder_of[used].tolist())}
    names, numbers = np.unique(tops, return_inverse=True)
    top_of = numbers[images.folder_of]
    sorted_places = np.argsort(top_of, kind="stable")
    for top in sorted({top for top in tops if subset_of(top)} - taken, key=natural_key):
        number = int(np.searchsorted(names, top))
        start, stop = np.searchsorted(top_of, [number, number + 1], sorter=sorted_places)
        places = sorted_places[start:stop]
        found = images.tree.names.take(pa.array(places))
        order = natural_places(found)
        values = pc.utf8_slice_codeunits(found.take(order), len(top) + 1)
        repeat = pa.array(np.zeros(len(places), np.int64))
        labels, subsets = (pa.array([text], pa.string()).take(repeat) for text in ("", subset_of(top)))
        where = f"{root}/{top}"
        notices.append(
            f"{where}: no table names its {counted(len(places), 'image, which', 'images, which', verb='have')} no label"
        )
        yield _Rows(where, values, labels, subsets, places[order.to_numpy()], {}, False)


def _numbered_labels(tables: Sequence[_Rows]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Returns the label of each row, -1 for none, and the names of the classes.

    Classes with columns of their own have the order of these. Else whole numbers are labels, and the names of their
    classes; other texts are the names of classes, in their order.
    """
    import numpy as np
    import pyarrow as pa

    found = pa.concat_arrays([rows.labels for rows in tables]).dictionary_encode()
    texts = [text for text in found.dictionary.to_pylist() if text]
    whole = {text: int(float(text)) for text in texts if _WHOLE.fullmatch(text)}
    if own := list(dict.fromkeys(name for rows in tables for name in rows.classes)):
        classes = [*own, *sorted({*texts} - {*own})]
        labels = {text: label for label, text in enumerate(classes)}
    elif len(whole) < len(texts):
        numbers = all(map(_NUMBER.fullmatch, texts))
        classes = sorted(texts, key=lambda text: (float(text), text)) if numbers else sorted(texts)
        labels = {text: label for label, text in enumerate(classes)}
    else:
        largest = max(whole.values(), default=-1)
        every = range(largest + 1) if largest < MAX_CLASSES else sorted({*whole.values()} - {UNLABELLED})
        classes = list(map(str, every))
        places = {number: place for place, number in enumerate(every)}
        labels = {text: places.get(number, UNLABELLED) for text, number in whole.items()}
    if len(classes) > MAX_CLASSES:
        where = next(rows.where for rows in tables if rows.has_labels)
        raise InputError(
            f"{where}: has more than {MAX_CLASSES} different labels; expected classes, name their column 'label'"
        )
    codes = np.array([labels.get(text, UNLABELLED) for text in found.dictionary.to_pylist()], np.int64)
    return codes[found.indices.to_numpy()] if len(codes) else np.empty(0, np.int64), classes


def _in_several(tables: Sequence[_Rows], images: _Images) -> Iterator[str]:
    """Yields a notice if tables put an image into several subsets, as lists of several divisions of a set do."""
    import numpy as np
    import pyarrow as pa

    subsets = pa.concat_arrays([rows.subsets for rows in tables]).dictionary_encode()
    places = np.concatenate([rows.places for rows in tables])
    pairs = np.unique(np.stack([places, subsets.indices.to_numpy()])[:, places >= 0], axis=1)[0]
    repeated = np.unique(pairs[1:][pairs[1:] == pairs[:-1]])
    if len(repeated):
        first = images.tree.names[int(repeated[0])].as_py()
        shown = ", ".join(os.path.basename(rows.where) for rows in tables[:TOLD])
        yield (
            f"{counted(len(repeated), 'image')} in several subsets, such as {first!r}; if {shown} are several "
            "divisions of the set, move those that are not meant elsewhere"
        )


def _unlabelled(tables: Sequence[_Rows], labels: npt.NDArray[np.int64]) -> Iterator[str]:
    """Yields a notice for each table of labels with rows that have none."""
    import numpy as np

    start = 0
    for rows in tables:
        stop = start + len(rows.values)
        missing = [row for row in np.flatnonzero(labels[start:stop] == UNLABELLED).tolist() if row not in rows.errors]
        if rows.has_labels and missing:
            example = rows.values[missing[0]].as_py()
            yield f"{rows.where}: {counted(len(missing), 'row')} without a label, such as that of {example!r}"
        start = stop


def _parts(tables: Sequence[_Rows]) -> tuple[list[tuple[str, str]], npt.NDArray[np.int64]]:
    """Returns tables with each of their subsets, and the number of that of each row."""
    import numpy as np

    parts, numbers = list[tuple[str, str]](), [np.empty(0, np.int64)]
    for rows in tables:
        found = rows.subsets.dictionary_encode()
        numbers.append(found.indices.to_numpy().astype(np.int64) + len(parts))
        parts += [(rows.where, subset) for subset in found.dictionary.to_pylist()]
    return parts, np.concatenate(numbers)
