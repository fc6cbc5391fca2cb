"""Reads datasets that TFDS, or this package's sinks, prepared: TFRecord, Parquet or ArrayRecord files of examples.

Reference: `naming.py`, `dataset_info.py`, `features/` and `file_adapters.py` of
https://github.com/tensorflow/datasets, 4.9.10.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import RowReader, Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.encoded import with_prefixes
from beam_cifar.formats.kit.json_stream import json_file
from beam_cifar.formats.kit.roots import directory_root, own_file, sorted_files
from beam_cifar.formats.kit.table_labels import label_notices, label_table
from beam_cifar.formats.kit.table_rows import PlacedTableRows
from beam_cifar.formats.tfds.records import (
    ARRAY_RECORD,
    EXAMPLES,
    FEATURES,
    NAMES_SUFFIX,
    PARQUET,
    TFRECORD,
    ArrayRecordExamples,
    ParquetExamples,
    read_records,
)

INFO: Final = "dataset_info.json"
FILE_FORMATS: Final = (TFRECORD, PARQUET, ARRAY_RECORD)
MAX_SHARDS: Final = 1_000_000
_TEMPLATE: Final = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class TfdsSource(Source):
    """Reads a "version directory" of TFDS, such as `mnist/3.0.1`, or its parent."""

    name = "tfds"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there are the files of features and splits, in the folder or one folder deeper."""
        root = directory_root(path, (FEATURES,)) if storage.is_folder(path) else ""
        return bool(root) and storage.is_file(os.path.join(root, INFO))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds splits and classes; reads all files once, because a row may be anywhere in them."""
        with storage.reading(path):
            root = directory_root(path, (FEATURES,)) if storage.is_folder(path) else ""
            if not root:
                raise InputError(f"{path}: has no {FEATURES}, in itself or a folder in it; expected a dataset of TFDS")
            shards = list(_shards(root, index_dir))
        if not shards:
            raise InputError(f"{os.path.join(root, INFO)}: has no splits with rows; expected at least one")
        for file, rows in shards:
            found = len(read_records(file))
            if found != rows:
                raise InputError(
                    f"{file.shown}: has {counted(found, 'row')}, but {INFO} says {rows:,}; restore the file"
                )
        files = [file for file, _ in shards]
        table = label_table(files, EXAMPLES)
        named = with_prefixes(files, lambda file: read_records(file).column("id"))
        notices = tuple(label_notices(files, EXAMPLES))
        return Catalog(
            self.name, "TensorFlow Datasets", path, table, named, notices=notices, root="" if root == path else root
        )

    def may_lose(self, name: str) -> bool:
        return any(f".{kind}" in name for kind in FILE_FORMATS)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> RowReader:
        if file.name.endswith(PARQUET):
            return ParquetExamples(file, labels)
        if file.name.endswith(ARRAY_RECORD):
            return ArrayRecordExamples(file, labels, read_records(file))
        return PlacedTableRows(file, labels, read_records(file))


def _shards(root: str, index_dir: str) -> Iterator[tuple[SourceFile, int]]:
    """Yields the files of all splits, with their numbers of rows."""
    shown = os.path.join(root, INFO)
    info = json_file(shown)
    kind = info.get("fileFormat", FILE_FORMATS[0])
    if kind not in FILE_FORMATS:
        raise InputError(
            f"{shown}: 'fileFormat' is {str(kind)[:50]!r}; expected one of {', '.join(FILE_FORMATS)}: convert "
            "the files with python -m tensorflow_datasets.scripts.convert_format"
        )
    features = own_file(root, FEATURES)
    names = [entry.path for entry in sorted_files(root, lambda name: name.endswith(NAMES_SUFFIX), own=True)]
    beside = (*((features.blob,) if features else ()), *map(storage.whole_file, names))
    for split in _list(info.get("splits"), shown, "splits"):
        split = split if isinstance(split, dict) else {}
        lengths = _list(split.get("shardLengths"), shown, "shardLengths")
        for number, length in enumerate(lengths):
            rows, digits = _count(length, shown), max(5, len(str(len(lengths))))
            of = f"{number:0{digits}d}-of-{len(lengths):0{digits}d}"
            words = {"DATASET": info.get("name"), "SPLIT": split.get("name"), "FILEFORMAT": kind, "SHARD_X_OF_Y": of}
            words |= {"SHARD_INDEX": of.partition("-")[0], "NUM_SHARDS": of.rpartition("-")[2]}
            template = split.get("filepathTemplate", _TEMPLATE)
            path = os.path.join(root, _file_name(template, words, shown))
            if path in storage.hidden_files():
                continue
            name = f"{words['DATASET']}-{words['SPLIT']}-{of}.{kind}"  # the shard's number is in its stem, so in ids
            blob = storage.whole_file(path)
            yield (SourceFile(name, str(words["SPLIT"]), path, blob, beside=beside, index_dir=index_dir), rows)


def _list(found: Any, shown: str, key: str) -> list[Any]:
    if not isinstance(found, list) or len(found) > MAX_SHARDS:
        raise InputError(f"{shown}: {key!r} is {str(found)[:50]!r}; expected a list: restore the file")
    return found


def _count(text: Any, shown: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", str(text)):
        raise InputError(f"{shown}: 'shardLengths' has {str(text)[:50]!r}; expected numbers of rows: restore the file")
    return int(text)


def _file_name(template: Any, words: dict[str, Any], shown: str) -> str:
    """Returns the name of a file from a template of TFDS. Raises `InputError` if it is not one."""
    if any(not isinstance(word, str) or not word for word in (template, *words.values())):
        raise InputError(f"{shown}: 'name' and 'filepathTemplate' must be text, of the dataset and of each split")
    name = re.sub(r"\{([A-Z_]+)\}", lambda found: words.get(found[1], found[0]), template)
    if name != os.path.basename(name) or name in ("", ".", "..") or "{" in name or not name.isprintable():
        raise InputError(f"{shown}: 'filepathTemplate' gives {name[:80]!r}; expected the name of a file beside it")
    return name
