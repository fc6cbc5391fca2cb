"""Surveys an input: finds its files and summarises them, without reading pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

from beam_cifar import storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, FileSummary, SourceFile, Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan, select_files
from beam_cifar.storage import archives

COUNTS = Wanted()


@dataclass(frozen=True)
class Survey:
    """What is known of an input before any pixel is read.

    Attributes:
        catalog: files and labels.
        summaries: of the selected files.
    """

    catalog: Catalog
    summaries: tuple[FileSummary, ...]


def survey(
    path: str,
    format_name: str | None,
    subsets: tuple[str, ...],
    index_dir: str,
    wanted: Wanted = COUNTS,
    number: int = 0,
) -> Survey:
    """Finds the input files and summarises those of the selected subsets.

    Args:
        path: of the dataset.
        format_name: of its format; detected if None.
        subsets: to select; all if empty.
        index_dir: where indexes of archives, and what is unpacked of them, may be put.
        wanted: what summaries tell beside counts. Where it is something of every row, archives are unpacked: rows in
            any order cannot be read from within.
        number: of the dataset among those of the job.

    Raises:
        InputError: nothing there, not recognised, or damaged.
        UsageError: an unknown format or subset.
    """
    catalog = find_catalog(path, format_name, index_dir)
    files = [replace(file, source=number) for file in select_files(catalog, subsets)]
    with storage.reading(catalog.path):
        if wanted.columns:
            files = [_unpacked(file, index_dir) for file in files]
        source = get_source(catalog.format)
        scanned = storage.each(lambda file: scan(source, file, catalog.labels, wanted), files, catalog.path)
        return Survey(catalog, tuple(scanned))


def find_catalog(path: str, format_name: str | None, index_dir: str) -> Catalog:
    """What a dataset holds, without a look at its rows.

    Args:
        path: of the dataset.
        format_name: of its format; detected if None.
        index_dir: where indexes of archives may be put.

    Raises:
        InputError: nothing there, not recognised, or damaged.
        UsageError: an unknown format.
    """
    path = storage.absolute(path, "input")
    storage.recover(path)
    if not storage.exists(path):
        raise InputError(f"{path}: no such file or directory")
    if not (storage.is_folder(path) or storage.is_file(path)):
        raise InputError(f"{path}: is neither a directory nor a file")
    with storage.reading(path):
        name = format_name or detect_format(path, index_dir)
        if name is None:
            raise InputError(f"{path}: {_why_unknown(path, index_dir)}")
        return get_source(name).describe(path, index_dir)


def _unpacked(file: SourceFile, folder: str) -> SourceFile:
    blob, *beside = (_unpacked_blob(blob, file.shown, folder) for blob in (file.blob, *file.beside))
    return replace(file, blob=blob, beside=tuple(beside))


def _unpacked_blob(blob: storage.Blob, shown: str, folder: str) -> storage.Blob:
    if not blob.index:
        return blob
    place = f"{blob.path}\0{blob.offset}"
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return storage.unpack(blob, shown, os.path.join(folder, name))


def _why_unknown(path: str, index_dir: str) -> str:
    if storage.is_folder(path) and not storage.names_in(path):
        return "the directory is empty"
    if storage.is_file(path) and archives.is_archive(path):
        archives.list_members(path, index_dir)  # says what is wrong with it
        return "no known format in the archive; unpack it, if it holds one that is read from folders only"
    if storage.is_file(os.path.join(path, "features.json")):
        return "looks like TensorFlow Datasets, which is written, but not read"
    return (
        "no known format; beam-cifar formats lists those that can be read: name the one that it should be, "
        "to be told what is missing"
    )
