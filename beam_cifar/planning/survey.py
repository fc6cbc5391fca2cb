"""Finds the files of an input and summarises them, without reading pixels."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice

from beam_cifar import storage
from beam_cifar.data.block import WHOLE_FILE, BadRow
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, FileSummary, SourceFile, Wanted
from beam_cifar.formats.kit.label_files import label_files
from beam_cifar.formats.kit.roots import inner_root
from beam_cifar.formats.kit.subset_names import split_word
from beam_cifar.formats.registry import FORMATS, Detected, Sureness, detect, get_source
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.planning.summaries import scan, select_files
from beam_cifar.storage import archives
from beam_cifar.storage.packed import archive_place

COUNTS = Wanted()
FREE_ROWS = 1 << 18
"""Rows that any compressed archive may have, however small it is."""
MAX_LOOKED_AT = 10_000
"""Maximum number of files counted to say what is in a folder without a known format."""
MAX_KINDS = 5
_OTHER_ARCHIVES = (".7z", ".rar", ".zst", ".bz2", ".tbz2", ".xz", ".txz")
_OTHER_IMAGES = (".ppm", ".pgm", ".pnm", ".heic", ".heif", ".avif", ".jp2", ".svg", ".dcm", ".dng", ".cr2", ".nef")
_GUESSED = (
    "only images were found, so they are read as {} without labels; if labels are elsewhere, name the format with "
    "--input-format"
)


@dataclass(frozen=True)
class Survey:
    """What is known about an input before any pixel is read.

    Attributes:
        catalog: its files and labels.
        summaries: summaries of the selected files.
        lost: files that cannot be opened, each with the reason, if `Wanted.tolerant`.
    """

    catalog: Catalog
    summaries: tuple[FileSummary, ...]
    lost: tuple[BadRow, ...] = ()


def survey(
    path: str,
    format_name: str | None,
    subsets: tuple[str, ...],
    index_dir: str,
    wanted: Wanted = COUNTS,
    number: int = 0,
    only: Collection[str] = (),
    images: ImageOptions = AS_STORED,
) -> Survey:
    """Finds the input files and summarises those of the selected subsets.

    Args:
        path: path of the dataset.
        format_name: name of its format; default: detected.
        subsets: subsets to select; default: all.
        index_dir: directory for indexes, which files refer to, and for files unpacked from archives.
        wanted: what summaries must contain besides counts. If columns are wanted, archives are unpacked: rows in
            arbitrary order cannot be read from inside one.
        number: index of the dataset within the job.
        only: paths of the files to select; default: all.
        images: how images are read.

    Raises:
        InputError: the dataset is missing, not recognised, or damaged.
        UsageError: the format or a subset is unknown.
    """
    hidden: dict[str, str] = {}
    try:
        with storage.hiding() if wanted.tolerant else nullcontext(hidden) as hidden:
            catalog = find_catalog(path, format_name, index_dir)
    except InputError as error:
        if not hidden:
            raise
        first, reason = next(iter(hidden.items()))
        raise InputError(
            f"{error} (without {counted(len(hidden), 'damaged file')}, such as {first}: {reason})"
        ) from error
    chosen = [file for file in select_files(catalog, subsets) if not only or file.blob.path in only]
    files = selected = [replace(file, source=number, images=images) for file in chosen]
    with storage.reading(catalog.path):
        if wanted.columns:
            files = [_unpacked(file, index_dir) for file in files]
        source = get_source(catalog.format)
        scanned = storage.each(lambda file: _scanned(source, file, catalog.labels, wanted), files, catalog.path)
        lost = [BadRow(file, WHOLE_FILE, "", "open", reason) for file, reason in hidden.items()]
        return Survey(catalog, tuple(_counted(selected, scanned, lost)), tuple(lost))


def _scanned(source: Source, file: SourceFile, labels: LabelTable, wanted: Wanted) -> FileSummary | BadRow:
    """Returns the summary of a file, or why it has none."""
    try:
        return scan(source, file, labels, wanted)
    except InputError as error:
        if not (wanted.tolerant and storage.is_damage(error)):
            raise
        return file.bad_row(WHOLE_FILE, str(error), stage="open")


def _counted(
    files: Iterable[SourceFile], scanned: Iterable[FileSummary | BadRow], lost: list[BadRow]
) -> Iterator[FileSummary]:
    """Passes summaries on, and refuses a compressed archive with more rows than bytes: each row takes memory."""
    rows = Counter[str]()
    for file, summary in zip(files, scanned, strict=True):
        if isinstance(summary, BadRow):
            lost.append(summary)
            continue
        blob = file.blob
        rows[blob.path] += summary.rows if blob.index else 0
        # deflate packs at most 1,032 to 1, so even blank images of 32 x 32 pixels take 3 bytes each.
        if rows[blob.path] > max(FREE_ROWS, blob.stamp[0]):
            raise InputError(
                f"{blob.path}: has at least {rows[blob.path]} rows in {blob.stamp[0]} bytes; refused as a bomb"
            )
        yield summary


def find_catalog(path: str, format_name: str | None, index_dir: str) -> Catalog:
    """Returns the files and labels of a dataset, without reading its rows.

    Args:
        path: path of the dataset.
        format_name: name of its format; default: detected.
        index_dir: directory for indexes of archives and of files.

    Raises:
        InputError: the dataset is missing, not recognised, or damaged.
        UsageError: the format is unknown.
    """
    path = storage.absolute(path, "input")
    storage.recover(path)
    if not storage.exists(path):
        raise InputError(f"{path}: no such file or directory")
    with storage.reading(path):
        if not (storage.is_folder(path) or storage.is_file(path)):
            raise InputError(f"{path}: not a file or directory")
        if archives.is_archive(path):
            return _packed_catalog(path, format_name, index_dir)
        return _catalog(path, format_name, index_dir)


def _catalog(path: str, format_name: str | None, index_dir: str, detected: Detected | None = None) -> Catalog:
    if not (detected or format_name):
        root, detected = _detected(path, index_dir)
        if root != path:
            found = _catalog(root, None, index_dir, detected)
            notice = f"read from {os.path.relpath(root, path)!r}, the only folder in {path}"
            return replace(found, path=path, root=found.root or root, notices=(notice, *found.notices))
    name = detected.name if detected else format_name
    if name is None:
        raise InputError(f"{path}: {_why_unknown(path, index_dir)}")
    catalog = _described(get_source(name), path, index_dir)
    is_guess = detected is not None and detected.sureness is Sureness.POSSIBLE
    guessed = (_GUESSED.format(name) + _surer_inside(path, index_dir),) if is_guess else ()
    files = tuple(replace(file, index_dir=index_dir) for file in catalog.files)
    return replace(catalog, files=files, notices=(*guessed, *catalog.notices))


def _detected(path: str, index_dir: str) -> tuple[str, Detected | None]:
    """Returns the format of a folder or file, with its path; of the only folder in it if that says more.

    Raises:
        InputError: as `detect`.
    """
    try:
        found = detect(path, index_dir)
        if found and found.sureness is not Sureness.POSSIBLE:
            return path, found
    except InputError:
        inner = _only_folder_detected(path, index_dir)
        if inner:
            return inner
        raise
    return _only_folder_detected(path, index_dir) or (path, found)


def _only_folder_detected(path: str, index_dir: str) -> tuple[str, Detected] | None:
    """Returns the only folder in a folder, or in that, and its format, if it is more than only images."""
    entries = storage.list_folder(path) if storage.is_folder(path) else []
    if (
        [entry.is_folder for entry in entries] != [True]
        or entries[0].name.startswith("_")
        or split_word(entries[0].name)
    ):
        return None
    with suppress(InputError):
        root, found = _detected(entries[0].path, index_dir)
        if found and found.sureness is not Sureness.POSSIBLE:
            return root, found
    return None


def _described(source: Source, path: str, index_dir: str) -> Catalog:
    """Returns what a format says of a dataset, without the damaged files that a tolerant survey sets aside."""
    while True:
        try:
            return source.describe(path, index_dir)
        except InputError as error:
            if not storage.hide(error, path, source.may_lose):
                raise


def _packed_catalog(path: str, format_name: str | None, index_dir: str) -> Catalog:
    """Returns the catalog of an archive: of a format that reads tar files itself, else of what is in it as a folder."""
    if not archives.is_zip(path):
        if format_name and get_source(format_name).reads_tar:
            return _catalog(path, format_name, index_dir)
        if not format_name and (detected := detect(path, index_dir)):
            return _catalog(path, None, index_dir, detected)
    place = archive_place(path, index_dir)
    root = inner_root(place)
    try:
        catalog = _catalog(root, format_name, index_dir)
    except InputError as error:
        raise InputError(f"{error}; to read a part of the archive, or to mend a file in it, unpack it") from error
    notices = [f"read from {root[len(place) + 1 :]!r}, the only folder in the archive"] if root != place else []
    if storage.archive_of(place) != path:
        size = storage.stamp(storage.archive_of(place))[0]
        notices.append(f"compressed as a whole, so it was decompressed to {size:,} bytes in a temporary file")
    return replace(catalog, path=path, root="", notices=(*notices, *catalog.notices))


def _surer_inside(path: str, index_dir: str) -> str:
    """Returns a hint at the first folder in a folder if that alone is a format with labels, or at files with them."""
    for folder in sorted(storage.folders_in(path))[:1]:
        with suppress(InputError):
            folder, found = _detected(folder, index_dir)
            if found and found.sureness is not Sureness.POSSIBLE:
                return f"; {folder} alone would be read as {found.name} with its labels: pass that"
    files = label_files(path)
    return f"; perhaps they are in {', '.join(files[:3])}" if files else ""


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
    is_folder = storage.is_folder(path)
    inside = storage.names_in(path) if is_folder else []
    if is_folder and not inside:
        return "the directory is empty"
    if not is_folder and path.lower().endswith(_OTHER_ARCHIVES):
        return f"an archive of a kind that is not read; unpack it, or pack it as one of {', '.join(archives.SUFFIXES)}"
    packed = [name for name in inside if archives.is_archive(os.path.join(path, name))]
    if packed and not storage.folders_in(path):
        one = "" if storage.is_url(path) else f"pass the path of one, such as {os.path.join(path, min(packed))}, or "
        return f"has {counted(len(packed), 'archive')}; {one}unpack each into a folder of its name"
    names = [each.name for each in islice(storage.list_tree(path), MAX_LOOKED_AT)] if is_folder else [path]
    counts = Counter(os.path.splitext(name)[1] or "without extension" for name in names)
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MAX_KINDS]
    there = ", ".join(f"{count} {kind}" for kind, count in most)
    if most[:1] and most[0][0].lower() in _OTHER_IMAGES:
        return f"files there: {there}; images of that kind are not read; convert them to PNG"
    advice = "name the format you expect with --input-format (beam-cifar formats lists those that can be read)"
    return f"no known format; files there: {there or 'none'}; {_nearest(path, index_dir, names)}{advice}"


def _nearest(path: str, index_dir: str, names: list[str]) -> str:
    """Returns what the format that most of the files seem meant for has to say about them; "" if there is none."""
    known = {name: entry.marks for name, entry in FORMATS.items() if entry.source}
    alike = {format_name: sum(name.endswith(marks) for name in names) for format_name, marks in known.items()}
    nearest = max(alike, key=alike.__getitem__)
    if not alike[nearest]:
        return ""
    try:
        get_source(nearest).describe(path, index_dir)
    except InputError as error:
        return f"as {nearest}: {error}; "
    return f"the nearest is {nearest}; "
