"""Finds the files of a dataset: in a directory or one folder deeper, or in a folder of an archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence

from beam_cifar import storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.subset_names import is_no_class
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.ids import natural_key
from beam_cifar.storage import archives

Files = dict[str, SourceFile]
"""Files by name."""


def inner_root(path: str) -> str:
    """Returns the folder to read in an archive: programs that pack a folder put it alone into the archive.

    A folder named as a subset is kept, and so is one of nothing but images, which may be a class, unless the archive is
    named after it. Raises `InputError`.

    Args:
        path: URL of the content of an archive, from `storage.packed.archive_place`.
    """
    named_after = archives.stem(storage.archive_of(path))
    while True:
        entries = storage.list_folder(path)
        if [entry.is_folder for entry in entries] != [True]:
            return path
        only = entries[0]
        if is_no_class(only.name) or only.name.startswith("_"):
            return path
        if only.name != named_after and all(
            is_image_name(entry.name) and not entry.is_folder for entry in storage.list_folder(only.path)
        ):
            return path
        path = only.path


def has_root(path: str, index_dir: str, metas: Collection[str]) -> bool:
    """Returns whether a directory, a folder in it, or any folder of an archive, has one of the meta files."""
    if archives.is_archive(path):
        return any(member.name in metas for member in archives.list_members(path, index_dir)[0])
    return storage.is_folder(path) and bool(directory_root(path, metas))


def find_root(path: str, index_dir: str, metas: Collection[str], is_wanted: Callable[[str], bool]) -> tuple[str, Files]:
    """Returns the folder of a dataset, "" in an archive, and its files.

    Args:
        path: the folder itself, its parent directory, or an archive with the folder anywhere in it.
        index_dir: directory for archive indexes.
        metas: names of the meta files that identify the folder: first CIFAR-10's, second CIFAR-100's.
        is_wanted: which file names to include.

    Raises:
        InputError: no such folder, or several.
    """
    first, second, *_ = metas
    if archives.is_archive(path):
        found = archive_files(path, index_dir, is_wanted)
        roots = [folder for folder, files in found.items() if not files.keys().isdisjoint(metas)]
        _refuse_several(path, roots, "unpack the one you want")
        if not roots:
            raise InputError(f"{path}: no {first!r} (CIFAR-10) or {second!r} (CIFAR-100) in the archive")
        return "", found[roots[0]]
    with storage.reading(path):
        if not storage.is_folder(path):
            raise InputError(f"{path}: is neither a directory nor an archive ({', '.join(archives.SUFFIXES)})")
        if not storage.names_in(path):
            raise InputError(f"{path}: the directory is empty")
        root = directory_root(path, metas)
        if not root:
            raise InputError(f"{path}: no {first!r} (CIFAR-10) or {second!r} (CIFAR-100) in the directory")
        return root, folder_files(root, is_wanted)


def folder_files(folder: str, is_wanted: Callable[[str], bool]) -> Files:
    """Returns the wanted files of a folder, by name. Raises `OSError` and `InputError` as `storage.list_folder`."""
    return {
        entry.name: SourceFile(entry.name, entry.name, entry.path, storage.listed_file(entry))
        for entry in storage.list_folder(folder, is_wanted)
        if not entry.is_folder
    }


def archive_files(path: str, index_dir: str, is_wanted: Callable[[str], bool]) -> dict[str, Files]:
    """Returns the wanted members of an archive, by folder and name. Raises `InputError`."""
    stamp = storage.stamp(path)
    members, index = archives.list_members(path, index_dir)
    found: dict[str, Files] = {}
    for member in members:
        if is_wanted(member.name):
            blob = storage.Blob(path, member.offset, member.size, stamp, index)
            file = SourceFile(member.name, member.name, f"{path}:{member.path}", blob)
            found.setdefault(member.path[: -len(member.name)], {})[member.name] = file
    return found


def sorted_files(folder: str, is_wanted: Callable[[str], bool], *, own: bool = False) -> list[storage.Entry]:
    """Returns the wanted files of a folder, in natural order.

    Args:
        folder: the folder.
        is_wanted: which file names to include.
        own: whether the folder belongs to the format: elsewhere, folders with such names may be classes.

    Raises:
        InputError: a folder is among the files, or as `storage.list_folder`.
        OSError: the folder cannot be read.
    """
    found = storage.list_folder(folder, is_wanted)
    files = [entry for entry in found if not entry.is_folder]
    if len(files) < len(found) and (files or own):
        raise InputError(f"{next(entry.path for entry in found if entry.is_folder)}: is a folder; expected a file")
    return sorted(files, key=lambda entry: natural_key(entry.name))


def own_file(folder: str, name: str) -> SourceFile | None:
    """Returns a file that describes others, or None if nothing has its name. Raises `InputError` and `OSError`."""
    path = os.path.join(folder, name)
    return SourceFile(name, "", path, storage.whole_file(path)) if has_own_file(folder, name) else None


def has_own_file(folder: str, name: str) -> bool:
    """Returns whether a folder has a file; raises `InputError` if something else has its name, which is not absence."""
    path = os.path.join(folder, name)
    if storage.is_file(path):
        return True
    if storage.exists(path):
        raise InputError(f"{path}: is a folder, a broken link, a pipe or a device; expected a file")
    return False


def directory_root(path: str, metas: Collection[str]) -> str:
    """Returns the directory itself, or the only folder in it with a meta file; "" if there is none.

    Raises:
        InputError: several folders have one.
    """

    def has_meta(folder: str) -> bool:
        # Looked up by name: listing every folder is slow where they have a million images.
        return any(storage.is_file(os.path.join(folder, name)) for name in metas)

    if has_meta(path):
        return path
    roots = list(filter(has_meta, storage.folders_in(path)))
    _refuse_several(path, list(map(os.path.basename, roots)), "pass the path of one")
    return roots[0] if roots else ""


def _refuse_several(path: str, roots: Sequence[str], advice: str) -> None:
    if len(roots) > 1:
        raise InputError(f"{path}: contains several datasets ({', '.join(sorted(roots))}); {advice}")
