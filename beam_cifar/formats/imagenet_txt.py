"""ImageNet with lists: `<subset>.txt` has a path and a label per line, `synsets.txt` the class names.

As Datumaro's `imagenet_txt` reads and writes it: a path with white space has double quotes around all but its
extension, as in `"a cat".png 3`; a line without a number is an unlabelled image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable, refuse_repeated
from beam_cifar.data.text import is_unicode
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.folders import ID_TREE, ImageFileRows, TreeSink, write_lines
from beam_cifar.formats.kit.image_lists import (
    ListedRows,
    checked_tree,
    list_images,
    listed_rows,
    path_names,
    read_lines,
    subset_files,
)
from beam_cifar.formats.kit.records import names_file
from beam_cifar.formats.kit.roots import has_own_file, sorted_files
from beam_cifar.naming.components import clash_key, escape_first
from beam_cifar.naming.id_paths import encode_word, stem
from beam_cifar.storage import archives

if TYPE_CHECKING:
    import pyarrow as pa

SYNSETS = "synsets.txt"
IMAGES = "images"


class ImagenetTxtSource(Source):
    """Reads the lists and the images they name."""

    name = "imagenet_txt"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there are `synsets.txt`, another list and `images/`."""
        if archives.is_archive(path) or not storage.is_folder(os.path.join(path, IMAGES)):
            return False
        return has_own_file(path, SYNSETS) and bool(_lists(path))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads the class names, and lists the images."""
        with storage.reading(path):
            lists = _lists(path)
        if not lists:
            raise InputError(f"{path}: has no image list; expected <subset>.txt next to {SYNSETS}")
        names_path = os.path.join(path, SYNSETS)
        with storage.reading(names_path):
            names_file = SourceFile("synsets", "", names_path, storage.whole_file(names_path))
        files = subset_files(lists, (list_images(os.path.join(path, IMAGES)).blob,))
        table = LabelTable(_class_names(names_file))
        return Catalog(self.name, "ImageNet with lists", path, table, files, (names_file,))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    """Reads a list, and finds its images."""
    rows = ListedRows(file)
    for _, line in read_lines(file.blob, file.shown):
        if line.strip():
            path, words = _parsed(line)
            label, error = _label(words)
            item_id, filename = path_names(path)
            error = error if path else "quotes do not enclose a path"
            rows.append(item_id, path, filename, label, error)
    return rows.made(checked_tree(file.beside[0]))


def list_name(subset: str) -> str:
    """Returns the file name of a subset's list; never `synsets.txt`, even on a case-insensitive file system."""
    made = encode_word(subset, ".txt")
    return escape_first(made) if clash_key(made) == SYNSETS else made


class ImagenetTxtSink(TreeSink):
    """Writes `images/<id>.png`, and a list for each subset."""

    name = "imagenet_txt"
    can = replace(ID_TREE, losses=frozenset({"superclasses"}), keeps_empty_subsets=True, listed=("label",))
    subsets = SubsetNaming(word=lambda name: stem(list_name(name)))
    root = IMAGES

    def check_labels(self, labels: LabelTable) -> None:
        """Checks that names survive as lines that readers strip of white space."""
        refuse_repeated(labels.names, "which Datumaro refuses")
        for name in labels.names:
            if not name or name != name.strip() or "\n" in name or "\r" in name or not is_unicode(name):
                raise UsageError(f"class {name!r} cannot be written as a line of {SYNSETS}; rename it with --remap")

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the list of a subset."""
        listed = ((_quoted(path), "" if label == UNLABELLED else label) for path, label, _ in self.listed_images(parts))
        write_lines(files, list_name(shard.subset), (f"{path} {label}\n" for path, label in listed))

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the list of class names."""
        return {SYNSETS: names_file(options.labels.names)}


def _quoted(path: str) -> str:
    """Returns a path as written in a list."""
    if " " not in path:
        return path
    return f'"{stem(path)}"{path[len(stem(path)) :]}'


def _lists(path: str) -> list[storage.Entry]:
    return sorted_files(path, lambda name: name.endswith(".txt") and name != SYNSETS, own=True)


def _class_names(file: SourceFile) -> tuple[str, ...]:
    names = [line.strip() for _, line in read_lines(file.blob, file.shown)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise InputError(f"{file.shown}: line {names.index('') + 1}: is empty; expected a class name")
    return tuple(names)


def _parsed(line: str) -> tuple[str, list[str]]:
    """Returns the path of a line, "" if its quotes are invalid, and the words after it."""
    before, *quoted = line.split('"')
    if not quoted:
        path, *words = line.split()
        return path, words
    if len(quoted) != 2 or before.strip():
        return "", []
    path, rest = quoted
    if rest[:1].strip():  # the extension
        extension, *words = rest.split()
        return path + extension, words
    return path, rest.split()


def _label(words: Sequence[str]) -> tuple[int, str]:
    """Returns the label after a path, and an error, "" for none."""
    if not words:
        return UNLABELLED, ""
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 9):
            return UNLABELLED, f"label is {word[:50]!r}; expected a number (and quotes around a path with spaces)"
    if len(set(words)) > 1:
        return UNLABELLED, f"has {len(words)} labels ({', '.join(words[:5])}); at most one is supported"
    return int(words[0]), ""
