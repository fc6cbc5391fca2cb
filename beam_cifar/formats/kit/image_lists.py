"""Reads formats made of an image tree and lists of images: finds the images, and the rows that lists name.

A million rows are kept as Arrow and numpy columns, tens of bytes each; file entries are created only on request.
"""

from __future__ import annotations

import csv
import hashlib
import posixpath
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import kept
from beam_cifar.formats.contract.types import SourceFile, are_too_many
from beam_cifar.formats.kit.folders import ENTRY, ImageFileRows, image_table
from beam_cifar.formats.kit.rows import column, found_in, prefixed
from beam_cifar.naming.components import decoded_names
from beam_cifar.naming.id_paths import decode_path, stem
from beam_cifar.naming.ids import natural_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MAX_LIST_BYTES: Final = 1 << 30
"""Maximum size of an image list; the one of ImageNet's 1.3 million images has 40 MB."""

MAX_LINE_BYTES: Final = 64 << 10
_CHUNK = 10_000
"""Rows handled at a time."""


class ImageTree:
    """The files of a folder and its subfolders, ordered by name.

    Args:
        root: the folder.
        names: `string` array `[N]`, relative paths with "/".
        sizes: int64 `[N]`, bytes.
        times: int64 `[N]`, modification times, ns.
        identities: int64 `[N]`, as in `storage.Entry`.
    """

    def __init__(
        self,
        root: str,
        names: pa.Array,
        sizes: npt.NDArray[np.int64],
        times: npt.NDArray[np.int64],
        identities: npt.NDArray[np.int64],
    ) -> None:
        self._root, self.names, self._sizes = root, names, sizes
        self._columns = sizes, times, identities

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[storage.Entry]:
        for start in range(0, len(self), _CHUNK):
            stop = start + _CHUNK
            facts = (column[start:stop].tolist() for column in self._columns)
            for name, *numbers in zip(self.names[start:stop].to_pylist(), *facts, strict=True):
                yield storage.Entry(name, f"{self._root}/{name}", False, *numbers)

    @property
    def blob(self) -> storage.Blob:
        """The folder with a stamp of its listing, which shows whether it changed."""
        return storage.Blob(self._root, 0, int(self._sizes.sum()), storage.listing_stamp(self))

    def rows(self, places: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """Returns the files at some places, null for -1, in the columns that `image_table` takes."""
        import pyarrow as pa

        taken = pa.array(places, mask=places < 0)
        columns = self.names, *map(pa.array, self._columns)
        return {name: values.take(taken) for name, values in zip(ENTRY, columns, strict=True)}

    def find(self, paths: pa.Array) -> npt.NDArray[np.int64]:
        """Returns the index of each relative path: int64 `[M]`, -1 if it is missing."""
        first, names = self._near(paths)
        places = found_in(paths, names)
        places[places >= 0] += first
        return places

    def with_any_extension(self, stems: pa.Array) -> Iterator[str]:
        """Returns the path of the image at each relative path without extension, "" if there is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        _, names = self._near(stems)
        places = found_in(stems, pc.replace_substring_regex(names, r"\.[^./]*$", ""))
        return each_text(names.take(pa.array(places, mask=places < 0)))

    def _near(self, paths: pa.Array) -> tuple[int, pa.Array]:
        """Returns the names in the folder that all paths are in, and the index of the first.

        Only these are looked through: a list of one subset needs few of a million.
        """
        folder = _common_folder(paths)
        if not folder:
            return 0, self.names
        first, stop = (bisect_left(self.names, end, key=str) for end in (folder, f"{folder[:-1]}0"))  # "0" follows "/"
        return first, self.names.slice(first, stop - first)


def _common_folder(paths: pa.Array) -> str:
    """Returns the folder that all paths are in, with "/" at its end, or ""."""
    import pyarrow.compute as pc

    ends = [path.as_py() or "" for path in pc.min_max(paths).values()]
    shared = posixpath.commonprefix(ends)
    return shared[: shared.rfind("/") + 1]


def any_name(name: str) -> bool:
    """Accepts every name."""
    return True


def list_images(root: str, accept: Callable[[str], bool] = any_name) -> ImageTree:
    """Lists a tree of images once.

    Args:
        root: its folder; a missing one counts as empty.
        accept: which names to list.

    Raises:
        InputError: it cannot be read, or contains something that is neither a file nor a folder.
    """
    import numpy as np
    import pyarrow.compute as pc

    names, sizes, times, identities = Texts(), array("q"), array("q"), array("q")
    with storage.reading(root):
        try:
            for entry in storage.list_tree(root):
                if accept(entry.name):
                    names.append(entry.name)
                    sizes.append(entry.size)
                    times.append(entry.mtime)
                    identities.append(entry.identity)
        except (FileNotFoundError, NotADirectoryError) as error:
            if error.filename != root:
                raise
    found = names.made()
    order = pc.sort_indices(found)
    places = order.to_numpy()
    columns = (np.frombuffer(column, dtype=np.int64)[places] for column in (sizes, times, identities))
    return ImageTree(root, found.take(order), *columns)


@kept()
def checked_tree(blob: storage.Blob, accept: Callable[[str], bool] = any_name) -> ImageTree:
    """Returns the tree of a blob, cached since several tasks read parts of it; raises `InputError` if it changed."""
    tree = list_images(blob.path, accept)
    if not storage.is_unchanged(storage.listing_stamp(tree), blob.stamp):
        raise InputError(f"{blob.path}: the folder changed while it was being converted; run the job again")
    return tree


class Texts:
    """Collects a column of texts, in chunks."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._pieces: list[pa.Array] = []

    def append(self, text: str) -> None:
        """Adds a text, which must be valid Unicode."""
        self._texts.append(text)
        if len(self._texts) >= _CHUNK:
            self._flush()

    def made(self) -> pa.Array:
        """Returns all texts as a `string` array."""
        import pyarrow as pa

        self._flush()
        return pa.concat_arrays(self._pieces)

    def _flush(self) -> None:
        import pyarrow as pa

        self._pieces.append(pa.array(self._texts, pa.string()))
        self._texts.clear()


def each_text(texts: pa.Array) -> Iterator[str]:
    """Yields the texts of a column, "" for null; some thousands are in memory at a time."""
    for start in range(0, len(texts), _CHUNK):
        yield from (text or "" for text in texts[start : start + _CHUNK].to_pylist())


class ListedRows:
    """Collects the rows of an image list.

    Args:
        file: the input file that they belong to.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._ids, self._paths, self._filenames = Texts(), Texts(), Texts()
        self.labels = array("q")
        self.bad: dict[int, str] = {}

    def append(self, item_id: str, path: str, filename: str, label: int = -1, error: str = "") -> None:
        """Adds a row.

        Args:
            item_id: its id.
            path: path of its image in the tree.
            filename: file name of its image, as found.
            label: its label, -1 for unlabelled.
            error: why it is bad, if it is.
        """
        if not error and path and not is_inside(path):
            error = f"image path {path!r} leaves the image folder; expected a path inside it"
        if error:
            self.refuse(len(self.labels), error)
            path, label = "", -1
        for texts, text in ((self._ids, item_id), (self._paths, plain_path(path)), (self._filenames, filename)):
            texts.append(text)
        self.labels.append(label)

    def refuse(self, row: int, error: str) -> None:
        """Makes a row bad, with the reason. Raises `InputError` if too many are."""
        self.bad[row] = error
        _refuse_many(self._file, self.bad, max(row + 1, len(self.labels)))

    def set_labels(
        self, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], error: Callable[[int, int], str]
    ) -> None:
        """Sets the labels that annotations give to rows; a row with an unknown one, or with several, is bad.

        Args:
            rows: the row of each annotation, int64 `[M]`.
            labels: its label, -1 if it is unknown, int64 `[M]`.
            error: returns what is wrong with an annotation, given its number and the label of the last one of its row.
        """
        import numpy as np

        found = np.array(self.labels, np.int64)
        found[rows] = labels
        for at in np.flatnonzero((labels < 0) | (found[rows] != labels)).tolist():
            self.refuse(int(rows[at]), error(at, int(found[rows[at]])))
        self.labels = array("q", found.tobytes())

    def made(self, tree: ImageTree, folders: Sequence[str] = ("",)) -> pa.Table:
        """Returns the rows with their images, for `listed_rows`.

        Args:
            tree: the image tree.
            folders: folders of the tree to search for images, in order: "", or for example "train/".
        """
        import numpy as np
        import pyarrow as pa

        paths = self._paths.made()
        places = np.full(len(paths), -1, dtype=np.int64)
        for folder in folders:
            missing = np.flatnonzero(places < 0)
            if len(missing):
                places[missing] = tree.find(prefixed(folder, paths.take(missing)))
        errors = pa.array((self.bad.get(row) for row in range(len(paths))), pa.string())
        labels = pa.array(np.array(self.labels, np.int64))
        return image_table(tree.rows(places), self._ids.made(), self._filenames.made(), label=labels, error=errors)


def _refuse_many(file: SourceFile, bad: Mapping[int, str], rows: int) -> None:
    """Raises `InputError` if too many of some rows are bad, given as error messages by row, in the order found."""
    if are_too_many(len(bad), rows):
        row, error = list(bad.items())[-1]
        raise InputError(f"{file.bad_row(row, error)} (after {len(bad) - 1} other bad rows)")


def listed_rows(file: SourceFile, root: str, table: pa.Table, classes: int) -> ImageFileRows:
    """Returns the rows of an image list.

    Args:
        file: the list.
        root: folder of its images.
        table: the rows, from `ListedRows.made`.
        classes: number of classes.

    Raises:
        InputError: too many rows are bad.
    """
    import numpy as np

    labels, errors = column(table, "label").to_numpy().copy(), column(table, "error")
    bad = {row: errors[row].as_py() for row in np.flatnonzero(errors.is_valid()).tolist()}
    for row in np.flatnonzero(labels >= classes).tolist():
        bad[row] = f"has label {labels[row]}; expected {f'0 to {classes - 1}' if classes else 'none'}"
        _refuse_many(file, bad, len(labels))
    labels[list(bad)] = UNLABELLED
    bad_rows = {row: file.bad_row(row, error) for row, error in bad.items()}

    def digest() -> str:
        ids, found = column(table, "id"), hashlib.sha256(labels.tobytes())
        for start in range(0, len(ids), _CHUNK):
            found.update("\0".join(ids[start : start + _CHUNK].to_pylist()).encode())
        return found.hexdigest()

    return ImageFileRows(file, root, table, array("q", labels.tobytes()), bad_rows, digest)


def unmatched(shown: str, table: pa.Table, tree: ImageTree) -> Iterator[str]:
    """Yields notices for rows of a list whose image is missing, and for images that it does not name.

    Args:
        shown: display name of the list.
        table: its rows, from `ListedRows.made`.
        tree: the images.
    """
    import pyarrow.compute as pc

    images = column(table, "image")
    lost = column(table, "filename").filter(pc.and_(images.is_null(), column(table, "error").is_null()))
    if len(lost):
        yield f"{shown}: {counted(len(lost), 'row')} without an image, such as {lost[0].as_py()!r}, which is not found"
    unnamed = tree.names.filter(pc.invert(pc.is_in(tree.names, value_set=images)))
    if len(unnamed):
        yield f"{shown}: ignored {counted(len(unnamed), 'image')} that no row names, such as {unnamed[0].as_py()!r}"


def natural_places(names: pa.Array) -> pa.Array:
    """Returns the indices that put names in natural order: int64 `[N]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pa.array(map(natural_bytes, names.to_pylist()), pa.large_binary())
    return pc.sort_indices(keys).cast(pa.int64())


def is_inside(path: str) -> bool:
    """Returns whether a path with "/" is relative and stays inside its folder."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def plain_path(path: str) -> str:
    """Returns a path without "./" and "//"."""
    return posixpath.normpath(path) if path.startswith("./") or "//" in path or "/./" in path else path


def path_names(path: str) -> tuple[str, str]:
    """Returns the decoded id and file name of the image at a path."""
    item_id = decode_path(stem(path))
    return item_id, item_id + path[len(stem(path)) :]


def read_lines(blob: storage.Blob, shown: str) -> Iterator[tuple[int, str]]:
    """Yields line numbers, from 1, and lines of a list, without line ends; raises as `read_line_blocks`."""
    for first, lines in read_line_blocks(blob, shown):
        yield from enumerate((line.rstrip("\r") for line in lines), first)


def read_csv(blob: storage.Blob, shown: str, **form: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV file that are not empty, and the line where each ends; raises as `read_line_blocks`.

    Args:
        blob: the file.
        shown: display name used in messages.
        form: as `csv.reader` takes it.
    """
    lines = (f"{line}\n" for _, block in read_line_blocks(blob, shown) for line in block)
    reader = csv.reader(lines, strict=True, **form)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(f"{shown}: line {reader.line_num}: is not valid CSV: {error}") from error


def read_line_blocks(blob: storage.Blob, shown: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the lines of a list some thousands at a time, with the number of the first; fast where most are skipped.

    Raises:
        InputError: it changed, cannot be read, is not UTF-8, or is too large for a list.
    """
    if blob.size > MAX_LIST_BYTES:
        raise InputError(f"{shown}: is {blob.size} bytes; at most {MAX_LIST_BYTES} are supported")
    number, rest = 1, b""
    with storage.open_blob(blob, shown) as stream:
        while data := stream.read(storage.COPY_BYTES):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            lines = _decoded(whole, number, shown) if newline else []
            yield number, lines
            number += len(lines)
            if len(rest) > MAX_LINE_BYTES:
                raise _too_long(number, shown)
        if rest:
            yield number, _decoded(rest, number, shown)


def _decoded(block: bytes, number: int, shown: str) -> list[str]:
    try:
        lines = block.decode("utf-8-sig" if number == 1 else "utf-8").split("\n")
    except UnicodeDecodeError as error:
        number += block.count(b"\n", 0, error.start)
        raise InputError(f"{shown}: line {number}: is not UTF-8: {error.reason}; save it as UTF-8") from error
    longest = max(map(len, lines))
    if longest > MAX_LINE_BYTES:
        raise _too_long(number + [*map(len, lines)].index(longest), shown)
    return lines


def _too_long(number: int, shown: str) -> InputError:
    return InputError(f"{shown}: line {number}: is longer than {MAX_LINE_BYTES} bytes")


def subset_files(
    entries: Sequence[storage.Entry], beside: tuple[storage.Blob, ...], index_dir: str = "", prefix: str = ""
) -> tuple[SourceFile, ...]:
    """Returns the lists of a dataset, each with the subset given by its name.

    Args:
        entries: file entries of the lists.
        beside: other files or folders that all rows are read from.
        index_dir: folder for indexes of the lists, where they are read before the catalog is made.
        prefix: what the names of the lists start with, before the subset.
    """
    names = decoded_names(stem(entry.name).removeprefix(prefix) for entry in entries)
    return tuple(
        SourceFile(name, subset, entry.path, storage.listed_file(entry), beside=beside, index_dir=index_dir)
        for (name, subset), entry in zip(names.items(), entries, strict=True)
    )
