"""Reads Parquet files with images: from Hugging Face datasets, this project, pandas, Polars and others.

Layouts are as in https://huggingface.co/docs/hub/datasets-file-names-and-splits: `train-00000-of-00005.parquet`, a
folder per split, or one file per split.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.encoded import with_prefixes
from beam_cifar.formats.kit.roots import has_own_file
from beam_cifar.formats.kit.table_labels import label_notices, label_table
from beam_cifar.formats.parquet.columns import read_columns
from beam_cifar.formats.parquet.rows import COLUMNS, ParquetRows
from beam_cifar.formats.parquet.schema import may_have_images
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.ids import natural_key

SUFFIX = ".parquet"
CARD = "README.md"
SUBSET = "default"
MAX_DEPTH = 2
"""Maximum depth of folders below the dataset's, as in `<configuration>/<split>/0000.parquet`."""
MAX_FOLDERS = 64
"""Maximum number of folders that detection opens: more are probably classes."""
MAX_CARD_BYTES = 16 << 20

# Older versions of `push_to_hub` added the hex digits at the end.
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?", re.DOTALL)
_NUMBERING = re.compile(r"(?:(?:^|[-_.])(?:part|shard|file|chunk))?(?:[-_.]?\d+(?:[-_.]of[-_.]\d+)?)\Z")


class ParquetSource(Source):
    """Reads a folder of Parquet files, or one file."""

    name = "parquet"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there are Parquet files with images, or damaged ones, which `describe` then reports."""
        first = _first_file(path, MAX_DEPTH)
        if not first:
            return False
        return may_have_images(first)

    def may_lose(self, name: str) -> bool:
        return name.endswith(SUFFIX)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds files and subsets; reads only footers where those have the class names."""
        with storage.reading(path):
            found = [([os.path.basename(path)], path)] if storage.is_file(path) else _found(path, [], MAX_DEPTH)
            files = [
                SourceFile("/".join(parts), _subset(parts), file, storage.whole_file(file), index_dir=index_dir)
                for parts, file in sorted(found, key=lambda each: [natural_key(part) for part in each[0]])
            ]
            if not files:
                raise InputError(f"{path}: no {SUFFIX} files in the folder or its subfolders")
            card = _card(path)
        _refuse_configurations(path, files)
        table = label_table(files, COLUMNS, card)
        named = with_prefixes(files, lambda file: read_columns(file).column("id"))
        missing = _missing_shards(files) if storage.is_folder(path) else ()
        return Catalog(self.name, "Parquet", path, table, named, notices=(*missing, *label_notices(files, COLUMNS)))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ParquetRows:
        return ParquetRows(file, labels)


def _first_file(path: str, depth: int) -> str:
    """Returns a Parquet file, or ""; folders with many other files are not listed."""
    if storage.is_file(path):
        return path if _is_parquet(path) else ""
    if storage.has_file(path, _is_parquet):
        return min(entry.path for entry in storage.list_folder(path) if _is_parquet(entry.name) and not entry.is_folder)
    if not depth or storage.has_file(path, is_image_name):
        return ""
    folders = sorted(storage.folders_in(path))
    found = (_first_file(folder, depth - 1) for folder in folders) if len(folders) <= MAX_FOLDERS else ()
    return next(filter(None, found), "")


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def _found(path: str, parts: Sequence[str], depth: int) -> Iterator[tuple[list[str], str]]:
    for entry in storage.list_folder(path):
        if entry.is_folder:
            if depth and not entry.name.startswith("_"):  # such as the log of a Delta table
                yield from _found(entry.path, [*parts, entry.name], depth - 1)
        elif _is_parquet(entry.name):
            yield [*parts, entry.name], entry.path


def _stem(name: str) -> str:
    return name[: -len(SUFFIX)] if _is_parquet(name) else name


def _subset(parts: Sequence[str]) -> str:
    """Returns the subset in the path of a file: from a shard name, else its folder, else its name without numbers."""
    *folders, name = parts
    stem = _stem(name)
    if shard := _SHARD.fullmatch(stem):
        return shard[1]
    if folders and folders != ["data"]:
        return folders[-1]
    return _NUMBERING.sub("", stem) or SUBSET


def _missing_shards(files: Sequence[SourceFile]) -> Iterator[str]:
    """Yields a notice for each series with fewer shards than its file names announce."""
    shards = filter(None, (_SHARD.fullmatch(_stem(file.name)) for file in files))
    found = Counter((shard[1], int(shard[3])) for shard in shards)
    for (name, count), there in found.items():
        if there < count:
            yield f"{name!r} has {there} of its {count} shards; rows of the missing ones are not read"


def _refuse_configurations(path: str, files: Sequence[SourceFile]) -> None:
    """Refuses folders with the same subset: they are separate datasets, such as configurations on the Hub."""
    places: dict[str, str] = {}
    for file in files:
        folder = file.name.rpartition("/")[0]
        other = places.setdefault(file.subset, folder)
        if other != folder:
            shown = " and ".join(repr(name or ".") for name in (other, folder))
            raise InputError(
                f"{path}: subset {file.subset!r} is in {shown}: these are separate datasets; pass the folder of one"
            )


def _card(path: str) -> str:
    """Returns the dataset card, or ""."""
    if storage.is_file(path) or not has_own_file(path, CARD):
        return ""
    with storage.open_file(os.path.join(path, CARD)) as file:
        return file.read(MAX_CARD_BYTES).decode("utf-8", "replace")
