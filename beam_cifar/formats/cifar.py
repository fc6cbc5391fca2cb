"""CIFAR-10 and CIFAR-100, python version, with Datumaro's extensions (https://www.cs.toronto.edu/~kriz/cifar.html).

A data set is a directory, or a folder in an archive, with a meta file and one pickle per subset beside it.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from beam_cifar import archives, storage
from beam_cifar.block import BadRow
from beam_cifar.errors import InputError
from beam_cifar.formats.base import (
    CHUNK_ROWS,
    Capabilities,
    Catalog,
    FileSink,
    FileSummary,
    PartWriter,
    RowReader,
    Shard,
    ShardResult,
    SinkOptions,
    Source,
    SourceFile,
    SubsetNaming,
    Wanted,
    runs_of,
)
from beam_cifar.formats.shared.ids import natural_key, unique_ids
from beam_cifar.formats.shared.summary import with_rows
from beam_cifar.genuine import known_parents
from beam_cifar.images.files import RAW
from beam_cifar.labels import UNLABELLED, LabelTable, parent_conflict
from beam_cifar.names import clash_key, encode_name, escape_first
from beam_cifar.pickles import Batch, BatchWriter, Images, Meta, read_batch, read_meta, write_meta

if TYPE_CHECKING:
    import pyarrow as pa

META_FILES = {"batches.meta": "CIFAR-10", "meta": "CIFAR-100"}
CUSTOM_META = "dataset_meta.json"
MAX_META_BYTES = 64 << 20
# A Python 2 string holds at most 2**31 - 1 bytes: 699,050 images of 32 x 32.
MAX_PAYLOAD = 2**31 - 1
NUM_VIS = 3072

_Sizes: TypeAlias = "tuple[int, int] | Sequence[tuple[int, int] | None] | None"


class CifarSource(Source):
    """Reads any layout that `beam_cifar.pickles` knows."""

    name = "cifar"

    def detect(self, path: str, index_dir: str) -> bool:
        """Whether there is a meta file, in the directory or archive or one folder deeper."""
        try:
            if archives.is_archive(path):
                return bool(_archive_roots(archives.list_members(path, index_dir)[0]))
            return storage.is_folder(path) and bool(_directory_root(path))
        except InputError:
            return False

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds meta file and batches; see `Source.describe`."""
        files = _archive_files(path, index_dir) if archives.is_archive(path) else _directory_files(path)
        metas = [name for name in META_FILES if name in files]
        if len(metas) > 1:
            raise InputError(
                f"{path}: has both 'batches.meta' (CIFAR-10) and 'meta' (CIFAR-100); keep the two data sets apart"
            )
        with storage.open_blob(files[metas[0]].blob, files[metas[0]].shown) as file:
            meta = read_meta(file, files[metas[0]].shown)
        notices = []
        if META_FILES[metas[0]] != _title(meta):
            shown, expected = files[metas[0]].shown, META_FILES[metas[0]]
            raise InputError(f"{shown}: holds {_title(meta)} names, but a file of this name is {expected}'s")
        names = meta.label_names
        if CUSTOM_META in files:
            names = _custom_names(files[CUSTOM_META])
            notices.append(f"class names are taken from {CUSTOM_META}: {len(names)} classes")
        batches = sorted((f for name, f in files.items() if _is_batch_name(name)), key=lambda f: natural_key(f.name))
        if not batches:
            raise InputError(f"{path}: has {metas[0]!r}, but no batch beside it (a file without extension)")
        table = LabelTable(names, meta.coarse_label_names, known_parents(names, meta.coarse_label_names))
        meta_files = tuple(files[name] for name in (*META_FILES, CUSTOM_META) if name in files)
        return Catalog(self.name, _title(meta), path, table, tuple(batches), meta_files, tuple(notices))

    def scan(self, file: SourceFile, labels: LabelTable, wanted: Wanted) -> FileSummary:
        """Summarises one batch from its labels and names; see `Source.scan`."""
        columns = _columns(file, labels)
        rows = CifarRows(columns, None)  # not opened again: of an archive, that takes longer than the columns
        return with_rows(rows.summary(sizes=wanted.sizes), rows, labels, wanted)

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[CifarRows]:
        """Opens one batch; see `Source.open_rows`."""
        columns = _columns(file, labels)
        with storage.open_blob(file.blob, file.shown) as stream:
            yield CifarRows(columns, stream)


class _CifarWriter(PartWriter):
    """Appends examples to one batch file."""

    def __post_init__(self) -> None:
        table, shard = self.options.labels, self.shard
        self._kind = _kind(table)
        self._parents = (*table.parents, None)  # the last one is found by UNLABELLED = -1
        self._images = self.options.export.save_images and shard.has_images
        self._writer = BatchWriter(
            self.file,
            rows=self.rows,
            kind=self._kind,
            batch_label=shard.batch_label,
            size=shard.size,
            images=self._images,
        )

    def append(self, table: pa.Table) -> None:
        from beam_cifar.example import joined_images, plain_labels

        numbers = plain_labels(table).tolist()
        coarse = [self._parents[number] for number in numbers] if self._kind == "cifar100" else None
        filenames = self._filenames(table)
        labels = [None if number == UNLABELLED else number for number in numbers]
        if not self._images:
            self._writer.append(None, labels, coarse, filenames)
        elif self.shard.size is not None:
            self._writer.append(joined_images(table), labels, coarse, filenames)
        else:
            heights, widths = (table.column(name).to_pylist() for name in ("height", "width"))
            sizes = [None if h is None else (h, w) for h, w in zip(heights, widths, strict=True)]
            self._writer.append(table.column("image").to_pylist(), labels, coarse, filenames, sizes)

    def close(self) -> None:
        self._writer.close()

    def _filenames(self, table: pa.Table) -> list[str]:
        """The names found, unless another extension is asked for; with the folder that makes an id unique, if any."""
        ids, found = (table.column(name).to_pylist() for name in ("id", "filename"))
        if self.options.export.image_ext is not None:
            return [item_id + self.options.export.image_ext for item_id in ids]
        return [
            name if os.path.splitext(name)[0] == item_id else item_id + os.path.splitext(name)[1]
            for item_id, name in zip(ids, found, strict=True)
        ]


def batch_name(subset: str) -> str:
    """The file of a subset: its name, in a safe form where that cannot be the name of a batch."""
    if subset and _is_batch_name(subset) and not {"/", "\0"} & set(subset):
        return subset
    name = encode_name(subset).replace(".", "%2E")
    return escape_first(name) if name.startswith("_") else name


class CifarSink(FileSink):
    """Writes the one layout that torchvision, Keras and Datumaro share."""

    name = "cifar"
    can = Capabilities(
        pixels=RAW,
        needs_images=False,
        keeps_empty_subsets=True,
        packs=True,
        part_bytes=128 << 20,
        max_shard_bytes=MAX_PAYLOAD,
        row_bytes=8,
        reserved_paths=frozenset({*META_FILES, CUSTOM_META}),
    )
    # Equal paths are refused by the plan, names that only some disks take for one are told.
    subsets = SubsetNaming(numbered=True, merges=True, word=batch_name)
    writer = _CifarWriter

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return batch_name(subset)

    def batch_label(self, subset: str, number: int, count: int) -> str:
        """In the words of the genuine files."""
        split = "testing" if "test" in subset else "training"
        return f"{split} batch {number + 1} of {count}"

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        return super().estimate_bytes(rows, image_bytes if options.export.save_images else 0, options)

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        """A file in the one style, of the same kind, with pixels, whose file names stay."""
        kind = _kind(options.labels)
        export = options.export
        return summary.copyable_as == f"cifar:{kind}" and export.save_images and export.image_ext is None

    def join(self, parts: Sequence[str], file: storage.StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Reads the parts, which are batches themselves, and writes them as one."""
        writer = self.open_part(file, shard, shard.rows, options)
        for number, part in enumerate(parts):
            source = SourceFile(shard.path, shard.subset, f"{shard.path} part {number}", storage.whole_file(part))
            with CifarSource().open_rows(source, options.labels) as rows:
                for start in range(0, rows.rows, CHUNK_ROWS):
                    writer.append(rows.table(start, min(start + CHUNK_ROWS, rows.rows)))
        writer.close()

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """The meta file, and `dataset_meta.json` on request."""
        kind = _kind(options.labels)
        meta = Meta(
            kind=kind,
            label_names=options.labels.names,
            coarse_label_names=options.labels.coarse_names,
            num_cases_per_batch=max((result.shard.rows for result in shards), default=0),
            num_vis=NUM_VIS,
        )
        buffer = io.BytesIO()
        write_meta(buffer, meta)
        files = {"batches.meta" if kind == "cifar10" else "meta": buffer.getvalue()}
        if options.export.save_dataset_meta:
            files[CUSTOM_META] = (json.dumps({"labels": options.labels.names}, ensure_ascii=False) + "\n").encode()
        return files

    def notices(self, options: SinkOptions) -> Iterator[str]:
        """Pixels left out."""
        if not options.export.save_images:
            yield "pixels are left out; pass --save-images to write them"

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Files that some disks take for one; and superclasses, which Datumaro learns file by file.

        It refuses files that disagree on which classes have one.
        """
        met: dict[str, str] = {}
        for result in shards:
            path = met.setdefault(clash_key(result.shard.path), result.shard.path)
            if path != result.shard.path:
                yield f"{path!r} and {result.shard.path!r} would be one file on disks that do not tell cases apart"
        if not options.labels.has_superclasses:
            return
        everywhere = set().union(*(result.labels for result in shards)) - {UNLABELLED}
        for result in shards:
            if missing := everywhere - result.labels:
                example = options.labels.names[min(missing)]
                yield (
                    f"{result.shard.path} has no rows of {len(missing)} of the {len(everywhere)} classes in use, such "
                    f"as {example!r}: Datumaro cannot import such a set; torchvision and Keras can"
                )
                return


class CifarRows(RowReader):
    """The rows of one open batch.

    Args:
        columns: everything but the pixels.
        stream: the open file; None where no image will be asked for.
    """

    def __init__(self, columns: BatchColumns, stream: BinaryIO | None) -> None:
        self._columns, self._stream = columns, stream

    def summary(self, *, sizes: bool) -> FileSummary:
        """See `RowReader.summary`; sizes are always known."""
        return self._columns.summary()

    @property
    def rows(self) -> int:
        """See `RowReader.rows`."""
        return self._columns.rows

    @property
    def labels(self) -> Sequence[int]:
        """See `RowReader.labels`."""
        return self._columns.labels

    @property
    def bad_rows(self) -> Mapping[int, BadRow]:
        """See `RowReader.bad_rows`."""
        return self._columns.bad_rows

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """See `RowReader.row_bytes`."""
        images = self._columns.images
        if images is None or start == stop:
            return 0
        sizes = [images.size] if images.size else images.sizes(start, stop)
        return max((3 * size[0] * size[1] for size in sizes if size), default=0)

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """See `RowReader.facts`."""
        import numpy as np

        from beam_cifar.example import facts_table

        columns = self._columns
        ids, filenames = columns.names()
        return facts_table(
            ids=ids.slice(start, stop - start),
            subset=columns.file.subset,
            sizes=self._sizes([(start, stop)]),
            labels=np.array(columns.labels[start:stop], dtype=np.int64),
            filenames=filenames.slice(start, stop - start),
        )

    def table(self, start: int, stop: int) -> pa.Table:
        """See `RowReader.table`."""
        import pyarrow as pa

        from beam_cifar import example

        table = example.with_images(self.facts(start, stop), self._images([(start, stop)]), "raw")
        bad = self._columns.bad_rows
        if not any(start <= row < stop for row in bad):
            return table
        return table.filter(pa.array([row not in bad for row in range(start, stop)]))

    def take(self, rows: Sequence[int]) -> pa.Table:
        """See `RowReader.take`; one row costs little more than one of many."""
        import numpy as np
        import pyarrow as pa

        from beam_cifar import example

        columns, runs, wanted = self._columns, runs_of(rows), pa.array(rows, pa.int64())
        ids, filenames = (names.take(wanted) for names in columns.names())
        facts = example.facts_table(
            ids=ids,
            subset=columns.file.subset,
            sizes=self._sizes(runs),
            labels=np.array([columns.labels[row] for row in rows], dtype=np.int64),
            filenames=filenames,
        )
        return example.with_images(facts, self._images(runs), "raw")

    def _sizes(self, runs: Sequence[tuple[int, int]]) -> _Sizes:
        images = self._columns.images
        if images is None:
            return None
        if images.size is not None and not images.missing:
            return images.size
        return [size for start, stop in runs for size in images.sizes(start, stop)]

    def _images(self, runs: Sequence[tuple[int, int]]) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        from beam_cifar import example

        source, rows = self._columns.images, sum(stop - start for start, stop in runs)
        if source is None:
            return pa.nulls(rows, pa.binary())
        if self._stream is None:
            raise ValueError("images are asked for of a batch that is not open")
        with storage.reading(self._columns.file.shown):
            pixels, lengths = source.gather(self._stream, runs)
        if lengths is None and source.size is not None:
            step = 3 * source.size[0] * source.size[1]
            return example.binary_array(pixels, np.arange(rows + 1, dtype=np.int32) * np.int32(step))
        return example.image_array(pixels, lengths or [])


@functools.lru_cache(maxsize=4)
def _columns(file: SourceFile, table: LabelTable) -> BatchColumns:
    """The columns of a batch; kept for a while, because several tasks read parts of one large file."""
    with storage.open_blob(file.blob, file.shown) as stream:
        return BatchColumns(file, table, stream)


class BatchColumns:
    """Everything of one batch but its pixels.

    Args:
        file: the batch.
        table: the label table; labels beyond it make bad rows.
        stream: the open file; it is not kept.
    """

    def __init__(self, file: SourceFile, table: LabelTable, stream: BinaryIO) -> None:
        self.file, self._table = file, table
        self._batch: Batch = read_batch(stream, file.shown)
        self.rows: int = self._batch.rows
        self.images: Images | None = self._batch.images
        self.bad_rows: dict[int, BadRow] = {}
        self._check_kind()
        self.labels = self._resolve_labels()
        self._coarse = self._resolve_coarse()
        _encodable(self._batch.filenames or (), file.shown)
        self._ids, self._duplicates = self._make_ids()
        self._names: tuple[pa.Array, pa.Array] | None = None
        self._lock = threading.Lock()

    def names(self) -> tuple[pa.Array, pa.Array]:
        """Ids and file names of all rows, string `[N]` each; the latter as found, or made from the ids.

        Arrow holds them in a tenth of the room of lists, which go with the first call.
        """
        import pyarrow as pa

        with self._lock:
            if self._names is None:
                found = self._batch.filenames
                filenames = [f"{name}.png" for name in self._ids] if found is None else found
                self._names = pa.array(self._ids, pa.string()), pa.array(filenames, pa.string())
                self._ids, self._batch = [], replace(self._batch, filenames=None)
            return self._names

    def summary(self) -> FileSummary:
        """What the plan needs to know of the batch, single rows left out."""
        batch = self._batch
        images = batch.images
        uniform = images is not None and images.missing == 0
        return FileSummary(
            file=self.file,
            rows=self.rows,
            chunks=(),
            images=0 if images is None else self.rows - images.missing,
            image_bytes=0 if images is None else images.nbytes,
            pixel_bytes=0 if images is None else images.nbytes,
            size=images.size if images is not None and uniform else None,
            parents=self._parents(),
            duplicates=self._duplicates,
            batch_label=batch.batch_label or "",
            copyable_as=f"cifar:{batch.kind}" if batch.python2_style and uniform else "",
            digest=batch.structure_sha256,
        )

    def _check_kind(self) -> None:
        """Datumaro writes unlabelled CIFAR-10 rows under CIFAR-100's keys: only rows with a label tell the kind."""
        found = self._batch.kind
        if found is None or found == _kind(self._table) or all(label is None for label in self._batch.labels):
            return
        if found == "cifar10" or self._batch.coarse_labels is not None:
            raise self._mixed(found)

    def _mixed(self, found: str) -> InputError:
        expected = "CIFAR-100" if self._table.has_superclasses else "CIFAR-10"
        other = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[found]
        return InputError(
            f"{self.file.shown}: is a {other} batch, but the meta file beside it is {expected}'s; "
            "keep the two data sets apart"
        )

    def _reject(self, row: int, error: str, label: int = UNLABELLED) -> None:
        self.bad_rows.setdefault(row, BadRow(self.file.shown, row, self.file.subset, "read", error, label))

    def _resolve_labels(self) -> list[int]:
        """The label of every row as a number, -1 for none; rows with an impossible one are marked bad."""
        labels = self._batch.labels
        count = len(self._table.names)
        kinds = set(map(type, labels))
        if kinds <= {int} and (not labels or (min(labels) >= 0 and max(labels) < count)):  # type: ignore[type-var,operator]
            return list(labels)  # type: ignore[arg-type]
        numbers = {name: label for label, name in enumerate(self._table.names)}
        resolved = []
        for row, label in enumerate(labels):
            number = UNLABELLED if label is None else numbers.get(label) if isinstance(label, str) else label
            if number is None:
                self._reject(row, f"label {label!r} is not in the label table of {count} names")
            elif not (0 <= number < count or label is None):
                error = f"label {number} is outside the label table, which has {count} classes (0 to {count - 1})"
                self._reject(row, error)
                number = None
            resolved.append(UNLABELLED if number is None else number)
        return resolved

    def _resolve_coarse(self) -> list[int | None]:
        coarse = self._batch.coarse_labels
        if coarse is None or not self._table.has_superclasses:
            return []
        count = len(self._table.coarse_names)
        for row, label in enumerate(coarse):
            if label is not None and not 0 <= label < count:
                error = f"coarse label {label} is outside the table, which has {count} superclasses (0 to {count - 1})"
                self._reject(row, error, self.labels[row])
        return list(coarse)

    def _parents(self) -> dict[int, tuple[int, int]]:
        """Class -> (superclass, row that says so)."""
        parents: dict[int, tuple[int, int]] = {}
        first_rows: dict[tuple[int, int | None], int] = {}
        for row, pair in enumerate(zip(self.labels, self._coarse, strict=False)):
            if pair not in first_rows and row not in self.bad_rows:
                first_rows[pair] = row
        for (label, coarse), row in first_rows.items():
            if label == UNLABELLED or coarse is None:
                continue
            if label in parents:
                first = parents[label]
                where = self.file.shown
                raise parent_conflict(
                    self._table, label, (f"{where} row {first[1]}", first[0]), (f"{where} row {row}", coarse)
                )
            parents[label] = (coarse, row)
        return parents

    def _make_ids(self) -> tuple[list[str], int]:
        """Ids are file names without extension; a repeated one gets the first free suffix _2, _3, ..."""
        if self._batch.filenames is None:
            return [f"{self.file.name}_{row}" for row in range(self.rows)], 0
        return unique_ids(_stems(self._batch.filenames))


def _stems(filenames: Sequence[str]) -> list[str]:
    """File names without their extension; quick where all have the same one, as genuine files do."""
    extension = os.path.splitext(filenames[0])[1] if filenames else ""
    if extension and all(name.endswith(extension) for name in filenames):
        stems = [name[: -len(extension)] for name in filenames]
        if not any(stem[-1:] in ("", ".", "/") for stem in stems):
            return stems
    return [os.path.splitext(name)[0] for name in filenames]


def _kind(labels: LabelTable) -> str:
    return "cifar100" if labels.has_superclasses else "cifar10"


def _title(meta: Meta) -> str:
    return "CIFAR-10" if meta.kind == "cifar10" else "CIFAR-100"


def _is_batch_name(name: str) -> bool:
    """Batches have no extension; archives also hold `readme.html` and `file.txt~`, tools leave `_*` and `.*`."""
    return name not in META_FILES and "." not in name and not name.startswith("_")


def _custom_names(file: SourceFile) -> tuple[str, ...]:
    """Class names from Datumaro's `dataset_meta.json`: "labels", a list, or "label_map", ids to names."""
    with storage.open_blob(file.blob, file.shown) as stream:
        if file.blob.size > MAX_META_BYTES:
            raise InputError(f"{file.shown}: {file.blob.size} bytes is too large for a list of names")
        try:
            content = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file.shown}: is not JSON: {error}") from error
    names = content.get("labels") if isinstance(content, dict) else None
    if names is None and isinstance(content, dict) and isinstance(content.get("label_map"), dict):
        by_id = content["label_map"]
        if set(by_id) != {str(i) for i in range(len(by_id))}:
            raise InputError(f"{file.shown}: the ids of 'label_map' must be 0 to {len(by_id) - 1}, each once")
        names = [by_id[str(i)] for i in range(len(by_id))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f'{file.shown}: expected {{"labels": [names]}} or {{"label_map": {{id: name}}}}')
    if len(set(names)) != len(names):
        raise InputError(f"{file.shown}: a class name is there twice")
    _encodable(names, file.shown)
    return tuple(names)


def _directory_root(path: str) -> str:
    """The directory that holds the meta file: the given one, or the only folder in it that does."""
    if any(storage.is_file(os.path.join(path, name)) for name in META_FILES):
        return path
    inner = [folder for folder in storage.folders_in(path) if not storage.name_of(folder).startswith("_")]
    roots = [folder for folder in inner if any(storage.is_file(os.path.join(folder, name)) for name in META_FILES)]
    if len(roots) > 1:
        shown = ", ".join(sorted(os.path.basename(root) for root in roots))
        raise InputError(f"{path}: holds several data sets ({shown}); name one of them")
    return roots[0] if roots else ""


def _directory_files(path: str) -> dict[str, SourceFile]:
    with storage.reading(path):
        if not storage.is_folder(path):
            raise InputError(f"{path}: is not a directory, nor an archive ({', '.join(archives.SUFFIXES)})")
        if not storage.names_in(path):
            raise InputError(f"{path}: the directory is empty")
        root = _directory_root(path)
        if not root:
            raise InputError(f"{path}: no 'batches.meta' (CIFAR-10) or 'meta' (CIFAR-100) in it")
        own = (*META_FILES, CUSTOM_META)
        wanted = storage.list_folder(root, lambda name: _is_batch_name(name) or name in own)
        return {entry.name: _directory_file(entry) for entry in wanted if not entry.is_folder}


def _directory_file(entry: storage.Entry) -> SourceFile:
    return SourceFile(entry.name, entry.name, entry.path, storage.listed_file(entry))


def _encodable(names: Sequence[str], shown: str) -> None:
    """Refuses names that are no Unicode text: half of a surrogate pair, or bytes of another encoding."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{shown}: holds a name that is not valid Unicode") from error


def _archive_roots(members: Sequence[archives.Member]) -> set[str]:
    """The folders of an archive that hold a meta file."""
    return {member.path[: -len(member.name)] for member in members if member.name in META_FILES}


def _archive_files(path: str, index_dir: str) -> dict[str, SourceFile]:
    stamp = storage.stamp(path)
    members, index = archives.list_members(path, index_dir)
    roots = _archive_roots(members)
    if not roots:
        raise InputError(f"{path}: no 'batches.meta' (CIFAR-10) or 'meta' (CIFAR-100) in the archive")
    if len(roots) > 1:
        raise InputError(f"{path}: holds several data sets ({', '.join(sorted(roots))}); unpack the one that you mean")
    return {
        member.name: SourceFile(
            member.name,
            member.name,
            f"{path}:{member.path}",
            storage.Blob(path, member.offset, member.size, stamp, index),
        )
        for member in members
        if member.path[: -len(member.name)] in roots
        and (_is_batch_name(member.name) or member.name in (*META_FILES, CUSTOM_META))
    }
