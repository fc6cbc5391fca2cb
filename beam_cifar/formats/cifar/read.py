"""CIFAR-10 and CIFAR-100, Python version, with Datumaro's extensions (https://www.cs.toronto.edu/~kriz/cifar.html).

A dataset is a directory, or a folder in an archive, with a meta file and one pickle per subset.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_superclasses, outside_table
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError
from beam_cifar.formats.cifar.facts import CUSTOM_META, META_FILES, TITLES, cifar_kind, is_batch_name, known_parents
from beam_cifar.formats.contract.source import Runs, Source
from beam_cifar.formats.contract.types import Catalog, FileSummary, SourceFile
from beam_cifar.formats.kit.roots import find_root, has_root
from beam_cifar.formats.kit.rows import ColumnRows, even_sizes, parents_of, picked, raw_images
from beam_cifar.naming.components import decoded_names
from beam_cifar.naming.ids import natural_key, unique_ids
from beam_cifar.pickles.recognise import Batch, read_batch, read_meta
from beam_cifar.pickles.source import shorten

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MAX_META_BYTES = 4 << 20  # lists of nothing take 25 times as much memory as they do in JSON


class CifarSource(Source):
    """Reads every layout that `beam_cifar.pickles` supports."""

    name = "cifar"
    reads_tar = True

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a meta file is in the directory or archive, or one folder deeper."""
        return has_root(path, index_dir, META_FILES)

    def describe(self, path: str, index_dir: str) -> Catalog:
        root, files = find_root(path, index_dir, META_FILES, _is_wanted)
        metas = [name for name in META_FILES if name in files]
        if len(metas) > 1:
            raise InputError(
                f"{path}: has both 'batches.meta' (CIFAR-10) and 'meta' (CIFAR-100); move one dataset to another folder"
            )
        with storage.open_blob(files[metas[0]].blob, files[metas[0]].shown) as file:
            meta = read_meta(file, files[metas[0]].shown, files[metas[0]].blob.stamp[0])
        notices = []
        if META_FILES[metas[0]] != TITLES[meta.kind]:
            shown, expected = files[metas[0]].shown, META_FILES[metas[0]]
            raise InputError(f"{shown}: contains {TITLES[meta.kind]} names; expected {expected} for this file name")
        names = meta.label_names
        if CUSTOM_META in files:
            names = _custom_names(files[CUSTOM_META])
            notices.append(f"using class names from {CUSTOM_META}: {counted(len(names), 'class')}")
        subsets = decoded_names(sorted(filter(is_batch_name, files), key=natural_key))
        batches = [replace(files[name], subset=subset) for name, subset in subsets.items()]
        if not batches:
            raise InputError(f"{path}: has {metas[0]!r}, but no batch file (without extension) next to it")
        table = LabelTable(names, meta.coarse_label_names, known_parents(names, meta.coarse_label_names))
        meta_files = tuple(files[name] for name in (*META_FILES, CUSTOM_META) if name in files)
        return Catalog(self.name, TITLES[meta.kind], path, table, tuple(batches), meta_files, tuple(notices), root=root)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> CifarRows:
        with storage.open_blob(file.blob, file.shown) as stream:
            return CifarRows(file, labels, read_batch(stream, file.shown, file.blob.stamp[0]))


class CifarRows(ColumnRows):
    """The rows of one batch; their sizes are always known.

    Args:
        file: the batch file.
        table: the label table; rows with labels outside it are bad.
        batch: its contents.
    """

    # Opening a batch in an archive takes longer than reading its columns, which are often all that is needed.
    opened_late = True

    def __init__(self, file: SourceFile, table: LabelTable, batch: Batch) -> None:
        self.file, self._table, self._batch = file, table, batch
        self._check_kind()
        self.bad_rows: dict[int, BadRow] = {}
        super().__init__(file, self._resolve_labels(), self.bad_rows)
        self._coarse = self._resolve_coarse()
        _refuse_no_unicode(batch.filenames or (), file.shown)
        self._texts = _Texts(file.name, self.rows, batch.filenames)
        self.repeated = self._texts.repeated
        self._batch = replace(batch, filenames=None, labels=(), coarse_labels=None)

    def summary(self, *, sizes: bool) -> FileSummary:
        batch, images = self._batch, self._batch.images
        whole = images is not None and images.missing == 0
        nbytes = 0 if images is None else images.nbytes
        return self._summary(
            0 if images is None else images.present,
            nbytes,
            batch.structure_sha256,
            None,
            pixel_bytes=nbytes,
            size=images.size if images is not None and whole else None,
            parents=self._parents(),
            batch_label=batch.batch_label or "",
            copyable_as=f"cifar:{batch.kind}" if batch.python2_style and whole else "",
        )

    def _names(self, runs: Runs) -> tuple[pa.Array, pa.Array]:
        ids, filenames = self._texts.columns()
        return picked(ids, runs), picked(filenames, runs)

    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        import numpy as np

        images = self._batch.images
        if images is None:
            return even_sizes((0, 0), 0, runs)
        if images.size is not None and not images.missing:
            return even_sizes(images.size, 3, runs)
        sizes = [(*size, 3) if size else (0, 0, 0) for start, stop in runs for size in images.sizes(start, stop)]
        return np.ascontiguousarray(np.array(sizes, dtype=np.int32).reshape(-1, 3).T)

    def _read(self, runs: Runs) -> tuple[pa.Array, str, npt.NDArray[np.int32]]:
        images, sizes = self._batch.images, self._sizes(runs, look=False)
        if images is None:
            return raw_images(b"", sizes), "raw", sizes
        with storage.reading(self.file.shown):
            pixels, _ = images.gather(self._stream(), runs)
        return raw_images(pixels, sizes), "raw", sizes

    def _check_kind(self) -> None:
        """Refuses a batch of the other kind if any row is labelled: Datumaro gives unlabelled ones CIFAR-100's keys."""
        found = self._batch.kind
        if found is None or found == cifar_kind(self._table) or all(label is None for label in self._batch.labels):
            return
        if found == "cifar10" or self._batch.coarse_labels is not None:
            other, expected = (TITLES[kind] for kind in (found, cifar_kind(self._table)))
            raise InputError(
                f"{self.file.shown}: is a {other} batch, but the meta file next to it is for {expected}; "
                "move one dataset to another folder"
            )

    def _reject(self, row: int, error: str, label: int = UNLABELLED) -> None:
        self.bad_rows.setdefault(row, self.file.bad_row(row, error, label))

    def _resolve_labels(self) -> list[int]:
        """Returns the label of every row as a number, -1 for none; rows with an invalid label are marked bad."""
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
                self._reject(row, f"label {shorten(label)} is not in the label table of {counted(count, 'name')}")
            elif not (0 <= number < count or label is None):
                self._reject(row, outside_table(number, count))
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
                self._reject(row, outside_superclasses(label, count), self.labels[row])
        return list(coarse)

    def _parents(self) -> dict[int, tuple[int, int]]:
        """Returns class -> (superclass, row that it was found in)."""
        firsts: dict[tuple[int, int | None], int] = {}
        for row, pair in enumerate(zip(self.labels, self._coarse, strict=False)):
            if pair not in firsts and row not in self.bad_rows:
                firsts[pair] = row
        said = (
            (label, coarse, row)
            for (label, coarse), row in firsts.items()
            if label != UNLABELLED and coarse is not None
        )
        return parents_of(self.file, self._table, said)


class _Texts:
    """Ids and file names of the rows of a batch: ids are file names without extension, and made unique.

    Arrow columns take a tenth of the memory of lists; the first call of `columns` replaces the lists with them. Most
    plans need no names, and so start without importing Arrow.
    """

    def __init__(self, batch: str, rows: int, filenames: Sequence[str] | None) -> None:
        self._filenames, self.repeated = filenames, 0
        if filenames is None:
            self._ids = [f"{batch}_{row}" for row in range(rows)]
        else:
            self._ids, self.repeated = unique_ids(_stems(filenames))
        self._columns: tuple[pa.Array, pa.Array] | None = None
        self._lock = threading.Lock()

    def columns(self) -> tuple[pa.Array, pa.Array]:
        """Returns ids and file names, string `[N]` each; file names are as found, or derived from the ids."""
        import pyarrow as pa

        with self._lock:
            if self._columns is None:
                found = self._filenames
                filenames = [f"{name}.png" for name in self._ids] if found is None else found
                self._columns = pa.array(self._ids, pa.string()), pa.array(filenames, pa.string())
                self._ids, self._filenames = [], None
            return self._columns


def _stems(filenames: Sequence[str]) -> list[str]:
    """Returns file names without extension; faster where all share one, as in genuine files."""
    extension = os.path.splitext(filenames[0])[1] if filenames else ""
    if extension and all(name.endswith(extension) for name in filenames):
        stems = [name[: -len(extension)] for name in filenames]
        if not any(stem[-1:] in ("", ".", "/") for stem in stems):
            return stems
    return [os.path.splitext(name)[0] for name in filenames]


def _is_wanted(name: str) -> bool:
    return is_batch_name(name) or name in META_FILES or name == CUSTOM_META


def _custom_names(file: SourceFile) -> tuple[str, ...]:
    """Returns the class names in Datumaro's `dataset_meta.json`: a list "labels", or "label_map", ids to names."""
    with storage.open_blob(file.blob, file.shown) as stream:
        if file.blob.size > MAX_META_BYTES:
            raise InputError(f"{file.shown}: is {file.blob.size} bytes; at most {MAX_META_BYTES} are supported")
        try:
            content = json.loads(stream.read())
        except json.JSONDecodeError as error:
            raise InputError(f"{file.shown}: is not valid JSON: {error}") from error
        except (ValueError, RecursionError) as error:  # not UTF-8, or what Python's reader does not support
            raise InputError(f"{file.shown}: cannot be read as JSON; expected UTF-8, a list or names by id") from error
    names = content.get("labels") if isinstance(content, dict) else None
    if names is None and isinstance(content, dict) and isinstance(content.get("label_map"), dict):
        by_id = content["label_map"]
        if set(by_id) != {str(i) for i in range(len(by_id))}:
            raise InputError(f"{file.shown}: ids in 'label_map' must be 0 to {len(by_id) - 1}, each exactly once")
        names = [by_id[str(i)] for i in range(len(by_id))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f'{file.shown}: expected {{"labels": [names]}} or {{"label_map": {{id: name}}}}')
    if len(set(names)) != len(names):
        raise InputError(f"{file.shown}: lists a class name twice")
    _refuse_no_unicode(names, file.shown)
    return tuple(names)


def _refuse_no_unicode(names: Sequence[str], shown: str) -> None:
    if not is_unicode("".join(names)):
        raise InputError(f"{shown}: contains a name that is not valid Unicode")
