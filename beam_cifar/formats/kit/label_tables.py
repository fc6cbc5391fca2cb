"""Reads tables of images and their labels, CSV, JSON lines or lists: finds the columns by name, and yields the rows.

A list has no header, and white space between its columns, as `image label` of Caffe and `number label image` of MXNet;
white space in a path does not end it. A table is read once, line by line, and only the columns that are used are kept.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from beam_cifar import storage
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.image_lists import MAX_LINE_BYTES, read_csv, read_lines
from beam_cifar.formats.kit.json_stream import parsed_json
from beam_cifar.formats.kit.label_columns import LABEL_NAMES, is_no_label, listed, plain_name
from beam_cifar.formats.kit.subset_names import SPLITS, SUBSET_COLUMNS, split_word
from beam_cifar.images.encodings import is_image_name

TABLES: Final = (".csv", ".tsv", ".jsonl")
"""Ends of the names of tables, in lower case."""

LISTS: Final = (".txt", ".lst")
"""Ends of the names of lists, in lower case."""

MAX_LIST_COLUMNS: Final = 4

IMAGE_COLUMNS: Final = (
    *("file_name", "filename", "file", "image_path", "img_path", "file_path", "filepath", "path", "image_file"),
    *("filepaths", "filenames", "image_paths"),
    *("image_name", "img_name", "image_id", "imageid", "img_id", "image", "img", "id", "id_code", "uuid"),
)
"""Names of columns that name images, in lower case with "_", best first."""


LOOKED_AT: Final = 20
"""Rows that show which column names images."""

MAX_JSON_LINES: Final = 1000
"""Lines whose names are the columns of JSON lines."""

MAX_TRIED: Final = 16
"""Columns whose values are looked at where no column has a name for images."""

_DELIMITERS: Final = ",;\t|"
_SPACE: Final = " "
"""Delimiter of lists: any white space."""

_OF_FLAGS: Final = {
    **dict.fromkeys(("isvalid", "isval"), ("train", "valid")),
    "istrain": ("test", "train"),
    "istest": ("train", "test"),
}
"""Columns of true and false that say of which subset a row is, and what they mean, false first."""

_FLAGS: Final = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table.

    Attributes:
        names: all columns, in order.
        image: the one that names images.
        label: the one of labels; "" if there is none.
        subset: the one of subsets; "" if there is none.
        delimiter: what separates values; "" in JSON lines.
        has_header: whether the first line names the columns; if not, they are "column 1", "column 2" and so on.
        one_hot: columns that stand for classes each, where there is none of labels: a row has a 1 in that of its class.
        is_in_folders: whether the folder of an image is its label, because the table has only paths.
    """

    names: tuple[str, ...]
    image: str
    label: str
    subset: str
    delimiter: str
    has_header: bool = True
    one_hot: tuple[str, ...] = ()
    is_in_folders: bool = False

    @property
    def has_labels(self) -> bool:
        """Whether rows have labels."""
        return bool(self.label or self.one_hot or self.is_in_folders)

    @property
    def is_flagged(self) -> bool:
        """Whether the column of subsets says of each row whether it is of one, as fastai's `is_valid` does."""
        return plain_name(self.subset) in _OF_FLAGS

    @property
    def guessed(self) -> bool:
        """Whether nothing but the lack of another column says that it has the labels."""
        return self.has_header and bool(self.label) and not _found([self.label], LABEL_NAMES)

    @property
    def other_labels(self) -> list[str]:
        """The columns that have names of labels too, or no names, but are not read."""
        return (
            [name for name in _found(self.names, LABEL_NAMES) if name != self.label] if self.has_header else self.unused
        )

    @property
    def unused(self) -> list[str]:
        """The columns that are not read."""
        return [
            name for name in self.names if name and name not in (self.image, self.label, self.subset, *self.one_hot)
        ]


class TableRow(NamedTuple):
    """A row: its line in the file, its values, "" where it has none, and why it is bad, "" if it is not."""

    line: int
    image: str
    label: str
    subset: str
    error: str


def find_columns(blob: storage.Blob, is_image: Callable[[str], bool]) -> TableColumns | None:
    """Returns the columns of a table, None if none is of images.

    Args:
        blob: the table.
        is_image: whether a value names an image; of several columns with names for images, the first with one is taken,
            and without such a column any with names of image files. A first line with one is a row, not a header.

    Raises:
        InputError: it is empty, damaged, or cannot be read.
    """
    if is_list(blob.path):
        with suppress(InputError):  # text of another kind
            found = _list_columns(blob, is_image) or _table_columns(blob, is_image)
            return found if found and names_images(blob, found, is_image) else None
        return None
    return _table_columns(blob, is_image)


def _table_columns(blob: storage.Blob, is_image: Callable[[str], bool]) -> TableColumns | None:
    """Returns the columns of a table that is not a list, as `find_columns`."""
    with storage.open_blob(blob, blob.path) as stream:
        line = stream.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:  # of pixels, perhaps
        return None
    if not line.strip():
        raise InputError(f"{blob.path}: line 1: is empty; expected a header with names of columns")
    try:
        header = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{blob.path}: line 1: is not UTF-8: {error.reason}; save it as UTF-8") from error
    names, delimiter = (_json_names(blob), "") if _is_json(blob.path) else _csv_names(header)

    def is_image_file(value: str) -> bool:
        return is_image_name(value) and is_image(value)

    images, has_header = _found(names, IMAGE_COLUMNS), True
    if not images and delimiter and any(map(is_image_file, names)):
        names, has_header = tuple(f"column {number}" for number, _ in enumerate(names, 1)), False
    labels, subsets = (_found(names, known) or [""] for known in (LABEL_NAMES, SUBSET_COLUMNS))
    if delimiter and has_header and not subsets[0]:
        flags = [name for name in names if plain_name(name) in _OF_FLAGS]
        words = _split_columns(blob, TableColumns(names, "", "", "", delimiter))
        subsets = [name for name in words if name not in labels] or (flags if len(flags) == 1 else [""])
    choices = [
        TableColumns(
            names, image, labels[0] or _only_other(names, image, *subsets[:1]), subsets[0], delimiter, has_header
        )
        for image in images or names[:MAX_TRIED]
    ]
    if images:
        found = next((choice for choice in choices if names_images(blob, choice, is_image)), choices[0])
        return found if found.label or not delimiter else replace(found, one_hot=_one_hot(blob, found))
    with suppress(InputError):  # damage to a table of something else does not matter
        ids = [choice for choice in choices if plain_name(choice.image).endswith("id") and choice.image not in labels]
        tried = (*((choice, is_image_file) for choice in choices), *((choice, is_image) for choice in ids))
        one = next((choice for choice, look in tried if names_images(blob, choice, look)), None)
        return one if has_header or one is None else _by_place(blob, one)
    return None


def is_list(path: str) -> bool:
    """Returns whether a file has the name of a list."""
    return path.lower().endswith(LISTS)


def _list_columns(blob: storage.Blob, is_image: Callable[[str], bool]) -> TableColumns | None:
    """Returns the columns of a list, None if fewer than half of its first lines name an image."""
    lines = [line for _, line in islice(read_lines(blob, blob.path), LOOKED_AT) if line.strip()]
    if not lines or _found(_csv_names(lines[0])[0], IMAGE_COLUMNS):
        return None
    # Without extension, numbers in any text may be the names of images.
    looks = [
        lambda value: is_image_name(value) and is_image(value),
        *([is_image] if split_word(os.path.basename(blob.path)) else []),
    ]
    for look in looks:
        for width in range(MAX_LIST_COLUMNS, 0, -1):
            rows = [_list_values(line, width) for line in lines]
            for place in (0, width - 1) if width > 2 else (0,):
                if 2 * sum(len(row) == width and look(row[place]) for row in rows) > len(rows):
                    names = tuple(f"column {number}" for number in range(1, width + 1))
                    found = TableColumns(names, names[place], "", "", _SPACE, False, is_in_folders=width == 1)
                    return _by_place(blob, found)
    return None


def _list_values(line: str, width: int) -> list[str]:
    """Returns the values in a line of a list; white space in the first one, which may be a path, does not end it."""
    if "\t" in line:
        return [value.strip() for value in line.strip().split("\t")]
    return line.strip().rsplit(None, width - 1) if width > 1 else [line.strip()]


def _by_place(blob: storage.Blob, columns: TableColumns) -> TableColumns:
    """Returns columns without names, of subsets and of labels: of words for splits, and the only other one.

    In a list, labels are next to the images, `image label ...` or `number label image`.
    """
    subset = (*_split_columns(blob, columns), "")[0]
    others = [name for name in columns.names if name != subset]
    place = others.index(columns.image)
    near = [*others[place + 1 :], *others[:place][-1:]]
    label = near[0] if len(near) == 1 or (near and columns.delimiter == _SPACE) else ""
    return replace(columns, label=label, subset=subset)


def _split_columns(blob: storage.Blob, columns: TableColumns) -> list[str]:
    """Returns the columns with nothing but words for splits in the first rows. Raises `InputError`."""
    rows = [row for _, row, error in islice(_csv_rows(blob, columns), LOOKED_AT) if not error]
    found = zip(columns.names, zip(*rows, strict=True), strict=False)
    return [name for name, values in found if name and all(value.strip().lower() in SPLITS for value in values)]


def may_have_labels(blob: storage.Blob) -> bool:
    """Returns whether a table that cannot be read looks like one of labels, as far as its start shows.

    That is so if it has names of image files, or if its first line has columns of images and of labels. Text in any
    encoding is looked at as Latin-1, with NUL bytes dropped for UTF-16.
    """
    with storage.open_blob(blob, blob.path) as stream:
        text = stream.read(MAX_LINE_BYTES).replace(b"\0", b"").decode("latin-1")
    names = re.split(r"[^\w .-]+", text.partition("\n")[0])
    return bool(_found(names, IMAGE_COLUMNS) and _found(names, LABEL_NAMES)) or any(
        map(is_image_name, re.split(r"[^\w./-]+", text))
    )


def _only_other(names: Sequence[str], *known: str) -> str:
    """Returns the only column that is not known and whose name does not say that it is something else; else ""."""
    others = [name for name in names if name not in known and not is_no_label(name)]
    return others[0] if len(others) == 1 else ""


def _one_hot(blob: storage.Blob, columns: TableColumns) -> tuple[str, ...]:
    """Returns the columns with nothing but 0 and 1 in the first rows, if there are several and each row has one 1."""
    rows = [row for _, row, error in islice(_csv_rows(blob, columns), LOOKED_AT) if not error]
    places = {
        place: name
        for place, name in enumerate(columns.names)
        if name in columns.unused
        and columns.names.count(name) == 1
        and not is_no_label(name)
        and not split_word(name)
        and all(row[place].strip().lower() in (*_FLAGS, "") for row in rows)
    }
    found = [_class_of(row, places) for row in rows] if len(places) > 1 else []
    return tuple(places.values()) if any(name for name, _ in found) and not any(error for _, error in found) else ()


def _class_of(row: Sequence[str], places: Mapping[int, str]) -> tuple[str, str]:
    """Returns the class whose column has a 1, "" if all are empty; and an error, "" for none."""
    values = {name: row[place].strip() for place, name in places.items()}
    if not any(values.values()):
        return "", ""
    flags = {name: _FLAGS.get(value.lower(), -1) for name, value in values.items()}
    wrong = next((name for name, flag in flags.items() if flag < 0), "")
    if wrong:
        return "", f"column {wrong!r} is {values[wrong][:50]!r}; expected 0 or 1, as in other rows"
    ones = [name for name, flag in flags.items() if flag]
    if len(ones) != 1:
        found = f"has a 1 in columns {listed(ones)}" if ones else f"has no 1 in columns {listed(list(values))}"
        return "", f"{found}; expected one, because an image has one label"
    return ones[0], ""


def names_images(blob: storage.Blob, columns: TableColumns, is_image: Callable[[str], bool]) -> bool:
    """Returns whether one of the first rows names an image. Raises `InputError`."""
    return any(row.image and is_image(row.image) for row in islice(table_rows(blob, columns), LOOKED_AT))


def table_rows(blob: storage.Blob, columns: TableColumns) -> Iterator[TableRow]:
    """Yields the rows of a table. Raises `InputError` if it is damaged or cannot be read."""
    rows = _csv_values(blob, columns) if columns.delimiter else _json_rows(blob, columns)
    for line, values, error in rows:
        image, label, subset = (value.strip() for value in values)
        if not error and "\0" in label + subset:
            error = "a value has a NUL character"
        if columns.is_flagged:
            subset = _OF_FLAGS[plain_name(columns.subset)][_FLAGS.get(subset.lower(), 0)]
        yield TableRow(line, image.replace("\\", "/"), label, subset, f"{error} (line {line})" if error else "")


_Values = tuple[int, Sequence[str], str]
"""Line, values of the three columns, and an error."""


def _csv_values(blob: storage.Blob, columns: TableColumns) -> Iterator[_Values]:
    places = [columns.names.index(name) if name else -1 for name in (columns.image, columns.label, columns.subset)]
    classes = {columns.names.index(name): name for name in columns.one_hot}
    for line, row, error in _csv_rows(blob, columns):
        image, label, subset = ("" if error or place < 0 else row[place] for place in places)
        if classes and not error:
            label, error = _class_of(row, classes)
        yield line, (image, label, subset), error


def _csv_rows(blob: storage.Blob, columns: TableColumns) -> Iterator[tuple[int, Sequence[str], str]]:
    """Yields line, values and error of each row that is not empty."""
    if columns.delimiter == _SPACE:
        yield from _list_rows(blob, len(columns.names))
        return
    rows = read_csv(blob, blob.path, delimiter=columns.delimiter, skipinitialspace=True)
    width = len(columns.names)
    for line, row in islice(rows, int(columns.has_header), None):
        if len(row) == width:
            yield line, row, ""
        else:
            found = counted(len(row), "value")
            yield line, (), f"has {found}; expected {width}, as many as the header, and quotes around a delimiter"


def _list_rows(blob: storage.Blob, width: int) -> Iterator[tuple[int, Sequence[str], str]]:
    """Yields line, values and error of each line of a list that is not empty."""
    for number, line in read_lines(blob, blob.path):
        row = _list_values(line, width)
        error = "" if len(row) == width else f"has {counted(len(row), 'value')}; expected {width}, as in other lines"
        if line.strip():
            yield number, row, error


def _json_rows(blob: storage.Blob, columns: TableColumns) -> Iterator[_Values]:
    names = columns.image, columns.label, columns.subset
    for number, item in _json_objects(blob):
        texts = [_text(item.get(name)) for name in names]
        wrong = next((name for name, text in zip(names, texts, strict=True) if text is None), None)
        error = "" if wrong is None else f"{wrong!r} is {str(item[wrong])[:50]!r}; expected text or a number"
        yield number, [text or "" for text in texts], error


def _json_objects(blob: storage.Blob) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number and the object of each line that is not empty. Raises `InputError`."""
    for number, line in read_lines(blob, blob.path):
        if line.strip():
            item = parsed_json(line.encode(), f"{blob.path}: line {number}")
            if not isinstance(item, dict):
                raise InputError(f"{blob.path}: line {number}: found {line[:50]!r}; expected a JSON object")
            yield number, item


def _text(value: Any) -> str | None:
    """Returns a value of JSON as text, "" for null; None for a list, an object, or text that is not valid Unicode."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value) if isinstance(value, (int, float)) else None
    return text if text is not None and is_unicode(text) else None


def _is_json(path: str) -> bool:
    return os.path.basename(path).lower().endswith(".jsonl")


def _json_names(blob: storage.Blob) -> tuple[str, ...]:
    """Returns the names in the first lines, in order: a line may leave out what it has no value for."""
    return tuple(dict.fromkeys(name for _, item in islice(_json_objects(blob), MAX_JSON_LINES) for name in item))


def _csv_names(line: str) -> tuple[tuple[str, ...], str]:
    """Returns the names in a header, and the delimiter that makes the most columns with a known one among them."""
    found: list[tuple[bool, int, tuple[str, ...], str]] = []
    for delimiter in _DELIMITERS:
        try:
            row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        names = tuple(name.strip() for name in row)
        found.append((bool(_found(names, IMAGE_COLUMNS)), len(names), names, delimiter))
    _, _, names, delimiter = max(found, key=lambda each: each[:2], default=(False, 0, (), ","))
    return names, delimiter


def _found(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the names that are known ones in any spelling, best first."""
    spelt = {plain_name(name): name for name in reversed(names)}
    return list(dict.fromkeys(spelt[plain] for plain in map(plain_name, known) if plain in spelt))
