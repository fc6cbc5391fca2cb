"""Hugging Face datasets as `save_to_disk` writes them, or in their cache: Arrow streams, and JSON files about them.

The cache has them in `NAME/CONFIG/VERSION/HASH/`: `dataset_info.json`, and `NAME-SPLIT.arrow`, or several files with
`-00000-of-00002` after the split. Reference: `Dataset.save_to_disk`, `DatasetDict.save_to_disk`, `DatasetBuilder`,
`filename_for_dataset_split` and `ArrowWriter` of https://github.com/huggingface/datasets, 5.2, and
https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.types as types

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source, kept
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.column_roles import IMAGE_LOOK, ColumnRoles, columns_of, starts_like_image
from beam_cifar.formats.kit.encoded import with_prefixes
from beam_cifar.formats.kit.json_stream import json_file
from beam_cifar.formats.kit.roots import has_own_file, own_file, sorted_files
from beam_cifar.formats.kit.rows import with_unique_ids
from beam_cifar.formats.kit.short_columns import damaged_table, in_one_chunk, short_column, with_names
from beam_cifar.formats.kit.table_labels import TableReader, label_notices, label_table
from beam_cifar.formats.kit.table_rows import PlacedTableRows, refuse_references

SPLITS: Final = "dataset_dict.json"
STATE: Final = "state.json"
INFO: Final = "dataset_info.json"
SUFFIX: Final = ".arrow"
SUBSET: Final = "default"
DEPTH: Final = 4
"""How many folders, each alone in the other, the cache may have around a dataset."""

LOOKED_AT: Final = 16
"""Entries of each of these that are looked at: beside the folder there are only locks."""

_CACHED: Final = re.compile(r".+?-(\w+(?:\.\w+)*)(?:-([0-9]{5,9})-of-([0-9]{5,9}))?\.arrow")
_MARKER_BYTES: Final = 8
"""Size of what ends a stream: 0xFFFFFFFF, and 0 as the size of the next message."""


class HfArrowSource(Source):
    """Reads the folder of a `DatasetDict`, of one `Dataset`, or of a dataset in the cache."""

    name = "hf_arrow"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is the list of splits, or the list of files or of features beside Arrow files."""
        if not storage.is_folder(path):
            return False
        if has_own_file(path, SPLITS) or (_has_arrow(path) and has_own_file(path, STATE)):
            return True
        return bool(_cached(path))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds files and subsets; reads Arrow files to find repeated ids and, without class names, the labels."""
        with storage.reading(path):
            is_saved = storage.is_folder(path) and (has_own_file(path, SPLITS) or has_own_file(path, STATE))
            cached = "" if is_saved or not storage.is_folder(path) else _cached(path)
            if not is_saved and not cached:
                raise InputError(
                    f"{path}: has neither {SPLITS} nor {STATE}, nor {INFO} beside {SUFFIX} files; expected the folder "
                    "that save_to_disk of datasets wrote, or one of its cache"
                )
            splits = _splits(path) if has_own_file(path, SPLITS) else [""]
            saved = (file for split in splits for file in _files(path, split, index_dir))
            files = list(_cached_files(cached, index_dir) if cached else saved)
        if not files:
            raise InputError(f"{path}: its {STATE} files list no {SUFFIX} files; expected at least one")
        table = label_table(files, _READER)
        named = with_prefixes(files, lambda file: read_places(file).column("id"))
        notices = tuple(label_notices(files, _READER))
        return Catalog(self.name, "Hugging Face datasets", path, table, named, notices=notices)

    def may_lose(self, name: str) -> bool:
        return name.endswith(SUFFIX)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> PlacedTableRows:
        found = read_places(file)
        missing = int((found.column("offset").to_numpy() < 0).sum())
        refuse_references(file, found, missing, arrow_roles(file).image)
        return PlacedTableRows(file, labels, found)


def _has_arrow(path: str) -> bool:
    return storage.has_file(path, lambda name: name.endswith(SUFFIX))


def _cached(path: str) -> str:
    """Returns the folder of a dataset in the cache: a folder, or the only one in it, and so on; "" if there is none."""
    for _ in range(DEPTH + 1):
        if has_own_file(path, INFO):
            return "" if has_own_file(path, STATE) or not _has_arrow(path) else path
        _, folders = storage.first_names(path, LOOKED_AT)
        folders = [folder for folder in folders if not folder.endswith(".incomplete")]
        if len(folders) != 1:
            return ""
        path = folders[0]
    return ""


def _cached_files(folder: str, index_dir: str) -> Iterator[SourceFile]:
    """Yields the Arrow files of each split in the cache; `map` leaves others beside them."""
    shown = os.path.join(folder, INFO)
    splits = json_file(shown).get("splits")
    if not isinstance(splits, dict) or not splits:
        raise InputError(f"{shown}: 'splits' is {str(splits)[:50]!r}; expected an object of splits: restore the file")
    found: dict[str, dict[int, storage.Entry]] = {split: {} for split in splits}
    counts: dict[str, int] = {}
    for entry in sorted_files(folder, lambda name: name.endswith(SUFFIX)):
        match = _CACHED.fullmatch(entry.name)
        if match and match[1] in found:
            split, number, count = match[1], int(match[2] or 0), int(match[3] or 1)
            if number in found[split] or counts.setdefault(split, count) != count:
                raise InputError(f"{entry.path}: another file has these rows of split {split!r}; move one of the two")
            found[split][number] = entry
    info = storage.whole_file(shown)
    for split, entries in found.items():
        count = counts.get(split, 1)
        lost = next((number for number in range(count) if number not in entries), None)
        if lost is not None:
            raise InputError(f"{folder}: file {lost + 1} of {count} of split {split!r} is missing; load it again")
        for _, entry in sorted(entries.items()):
            blob = storage.listed_file(entry)
            yield SourceFile(entry.name, split, entry.path, blob, beside=(info,), index_dir=index_dir)


def _splits(path: str) -> list[str]:
    shown = os.path.join(path, SPLITS)
    return _plain_names(json_file(shown).get("splits"), shown, "splits")


def _files(path: str, split: str, index_dir: str) -> Iterator[SourceFile]:
    """Yields the Arrow files of a `Dataset`: those that its state lists, since `map` leaves others beside them."""
    folder = os.path.join(path, split) if split else path
    shown = os.path.join(folder, STATE)
    state = json_file(shown)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"{shown}: rows are selected by a file of indices, which old versions of datasets wrote; load the dataset "
            "and save it again with a newer version"
        )
    listed = state.get("_data_files")
    if isinstance(listed, list):
        listed = [each.get("filename") if isinstance(each, dict) else each for each in listed]
    found = state.get("_split")
    subset = split or (found if isinstance(found, str) and found else SUBSET)
    info = own_file(folder, INFO)
    for name in _plain_names(listed, shown, "_data_files"):
        file = os.path.join(folder, name)
        if file in storage.hidden_files():
            continue
        beside = (info.blob,) if info else ()
        blob = storage.whole_file(file)
        yield SourceFile(f"{split}/{name}" if split else name, subset, file, blob, beside=beside, index_dir=index_dir)


def _plain_names(found: Any, shown: str, key: str) -> list[str]:
    """Returns a list of names of files or folders. Raises `InputError` if one is a path, or not text."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{shown}: {key!r} is {str(found)[:50]!r}; expected a list of names: restore the file")
    for name in found:
        if name != os.path.basename(name) or name in ("", ".", "..") or not name.isprintable():
            raise InputError(f"{shown}: {key!r} has {name[:80]!r}; expected names of files or folders beside it")
    return list(dict.fromkeys(found))


# --- Arrow streams --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """A record batch.

    Attributes:
        rows: its rows; buffers are those of `body`.
        body: its bytes.
        offset: where `body` is in the file.
    """

    rows: pa.RecordBatch
    body: pa.Buffer
    offset: int

    def column(self, name: str) -> pa.Array:
        """Returns a column, or a field of one of structs, checked: its values may be used without a risk.

        Raises:
            pa.ArrowInvalid: the batch is damaged.
        """
        at = self.rows.schema.get_field_index(name)
        parent, _, child = name.rpartition(".")
        found = self.rows.column(name if at >= 0 else parent)
        found.validate(full=True)
        return found if at >= 0 else found.flatten()[found.type.get_field_index(child)]


class _Stream:
    """An Arrow stream that is being read.

    Args:
        stream: the file, for Arrow.
        file: the same.
    """

    def __init__(self, stream: Any, file: SourceFile) -> None:
        self._stream, self._file = stream, file
        message = pa.ipc.read_message(stream)
        if message.type != "schema":
            raise pa.ArrowInvalid(f"starts with a message of type {message.type}, expected schema")
        self.schema: pa.Schema = pa.ipc.read_schema(message)

    def batches(self) -> Iterator[_Batch]:
        """Yields the record batches, which are mapped, not read, where files are local. Raises `InputError`."""
        shown, size = self._file.shown, self._file.blob.size
        while True:
            start = self._stream.tell()
            try:
                message = pa.ipc.read_message(self._stream)
            except EOFError:
                if size - start != _MARKER_BYTES:  # else rows after it would be lost unnoticed
                    raise InputError(
                        f"{shown}: the stream ends at byte {start} of {size}; expected the mark of its end there, in "
                        "the last 8 bytes: the file was cut, or joined from several; save the dataset again"
                    ) from None
                return
            if message.type != "record batch" or _is_compressed(message.metadata):
                kind = "compressed data" if message.type == "record batch" else f"a {message.type} message"
                raise InputError(
                    f"{shown}: has {kind} at byte {start}; expected plain record batches: save the dataset again with "
                    "save_to_disk"
                )
            rows = pa.ipc.read_record_batch(message, self.schema)
            yield _Batch(rows, message.body, self._stream.tell() - message.body.size)


@contextmanager
def _opened(file: SourceFile) -> Iterator[_Stream]:
    with storage.mapped(file.blob, file.shown) as stream, damaged_table(file.shown, "an Arrow stream"):
        yield _Stream(stream, file)


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Returns whether a message of a record batch says how its buffers are compressed.

    Arrow would unpack them, all columns at once and whatever their size. The message is a Flatbuffers table
    (`Message.fbs`): field 2 is the record batch, and field 3 of that its compression.
    """
    data = memoryview(metadata)

    def place(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", data, table)[0]
        in_table = 4 + 2 * number < struct.unpack_from("<H", data, fields)[0]
        offset: int = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0] if in_table else 0
        return offset and table + offset

    header = place(struct.unpack_from("<I", data)[0], 2)
    return bool(place(header + struct.unpack_from("<I", data, header)[0], 3))


# --- columns --------------------------------------------------------------------------------------------------------


@kept(64)
def arrow_roles(file: SourceFile) -> ColumnRoles:
    """Returns the roles of columns; features in `dataset_info.json` count rather than those in the stream.

    Raises:
        InputError: the file is damaged, or its columns are unclear.
    """
    with _opened(file) as opened:
        features = json_file(file.beside[0].path).get("features") if file.beside else None
        schema = opened.schema
        if isinstance(features, dict):
            schema = schema.with_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
        return columns_of(schema, file.shown, lambda column: _holds_images(opened, column))


def _holds_images(opened: _Stream, column: str) -> bool:
    values = next((batch.column(column) for batch in opened.batches() if batch.rows.num_rows), pa.nulls(0))
    found = (starts_like_image(values.slice(row, 1)) for row in range(min(IMAGE_LOOK, len(values))))
    return next((each for each in found if each is not None), False)


@kept(4)
@indexed()
def read_places(file: SourceFile) -> pa.Table:
    """Returns the short columns of a file, as `with_names` does, and `offset` and `size` of images, int64.

    Raises:
        InputError: the file is damaged, or has a text that is too long.
    """
    roles = arrow_roles(file)
    tables, row = [_places((), {}, file, roles, 0)], 0
    with _opened(file) as opened:
        for batch in opened.batches():
            if batch.rows.num_rows:
                tables.append(_places(*_read_batch(batch, roles, file), file, roles, row))
                row += batch.rows.num_rows
    return with_unique_ids(in_one_chunk(tables))


def _read_batch(batch: _Batch, roles: ColumnRoles, file: SourceFile) -> tuple[Sequence[Any], dict[str, pa.Array]]:
    """Returns offsets and sizes of images, and the short columns."""
    places = _placed(batch, batch.column(roles.image), file)
    wanted = {"path": roles.path, "key": roles.key, "label": roles.label, "coarse": roles.coarse}
    found = {what: short_column(batch.column(name), name, file.shown) for what, name in wanted.items() if name}
    # Copied, so that nothing refers to the mapped file.
    return places, {what: pa.concat_arrays([column, column.slice(0, 0)]) for what, column in found.items()}


def _placed(batch: _Batch, images: pa.Array, file: SourceFile) -> tuple[Any, Any]:
    """Returns offset in the file and size of each image: int64 `[N]` each, -1 and 0 where there is none."""
    if not (types.is_binary(images.type) or types.is_large_binary(images.type)):
        raise InputError(f"{file.shown}: images are {images.type}; expected binary, as save_to_disk writes them")
    valid = images.is_valid().to_numpy(zero_copy_only=False)
    _, bounds, data = images.buffers()
    kind = np.int32 if types.is_binary(images.type) else np.int64
    ends = np.frombuffer(bounds, kind)[images.offset : images.offset + len(images) + 1].astype(np.int64)
    start = data.address - batch.body.address if data is not None and data.size else 0
    if not 0 <= start <= batch.body.size - int(ends[-1]):
        raise InputError(f"{file.shown}: images are not where its record batch says; the file is damaged")
    return np.where(valid, batch.offset + start + ends[:-1], -1), np.where(valid, np.diff(ends), 0)


def _places(
    places: Sequence[Any], found: dict[str, pa.Array], file: SourceFile, roles: ColumnRoles, start: int
) -> pa.Table:
    offsets, sizes = places or (np.empty(0, np.int64), np.empty(0, np.int64))
    empty = {} if len(offsets) else {"label": pa.array([], pa.string() if roles.is_text else pa.int64())}
    table = with_names(found or empty, file, roles, start, len(offsets))
    return table.append_column("offset", pa.array(offsets)).append_column("size", pa.array(sizes))


_READER = TableReader(arrow_roles, read_places)
