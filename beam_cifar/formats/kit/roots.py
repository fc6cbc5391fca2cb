"""Where the files of a dataset lie: in a directory or one folder deeper, or in a folder of an archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence

from beam_cifar import storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.naming.ids import natural_key
from beam_cifar.storage import archives

Files = dict[str, SourceFile]
"""Files by their names."""


def has_root(path: str, index_dir: str, metas: Collection[str]) -> bool:
    """Whether a directory is, or holds, a folder with one of some files, or an archive holds one or several."""
    if archives.is_archive(path):
        return any(member.name in metas for member in archives.list_members(path, index_dir)[0])
    return storage.is_folder(path) and bool(_directory_root(path, metas))


def find_root(path: str, index_dir: str, metas: Collection[str], is_wanted: Callable[[str], bool]) -> tuple[str, Files]:
    """The folder of a dataset, "" in an archive, and its files.

    Args:
        path: a directory: the folder itself, or the one that holds it; or an archive, which may hold it anywhere.
        index_dir: where archive indexes may be put.
        metas: names of the files that tell the folder; in the first of CIFAR-10, in the second of CIFAR-100.
        is_wanted: which names of files are looked at.

    Raises:
        InputError: there is no such folder, or there are several.
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
        root = _directory_root(path, metas)
        if not root:
            raise InputError(f"{path}: no {first!r} (CIFAR-10) or {second!r} (CIFAR-100) in the directory")
        return root, folder_files(root, is_wanted)


def folder_files(folder: str, is_wanted: Callable[[str], bool]) -> Files:
    """The files of a folder with such names. Raises `OSError` and `InputError` as `storage.list_folder`."""
    return {
        entry.name: SourceFile(entry.name, entry.name, entry.path, storage.listed_file(entry))
        for entry in storage.list_folder(folder, is_wanted)
        if not entry.is_folder
    }


def archive_files(path: str, index_dir: str, is_wanted: Callable[[str], bool]) -> dict[str, Files]:
    """The members of an archive with such names, by the folders that they lie in. Raises `InputError`."""
    stamp = storage.stamp(path)
    members, index = archives.list_members(path, index_dir)
    found: dict[str, Files] = {}
    for member in members:
        if is_wanted(member.name):
            blob = storage.Blob(path, member.offset, member.size, stamp, index)
            file = SourceFile(member.name, member.name, f"{path}:{member.path}", blob)
            found.setdefault(member.path[: -len(member.name)], {})[member.name] = file
    return found


def sorted_files(folder: str, is_wanted: Callable[[str], bool]) -> list[storage.Entry]:
    """The files of a folder with such names, in natural order; raises as `storage.list_folder`."""
    found = (entry for entry in storage.list_folder(folder) if not entry.is_folder and is_wanted(entry.name))
    return sorted(found, key=lambda entry: natural_key(entry.name))


def _directory_root(path: str, metas: Collection[str]) -> str:
    """The directory itself, or the only folder in it with one of some files; "" for none."""

    def has_meta(folder: str) -> bool:
        # By name: to list every folder takes long where they hold a million images.
        return any(storage.is_file(os.path.join(folder, name)) for name in metas)

    if has_meta(path):
        return path
    inner = [folder for folder in storage.folders_in(path) if not storage.name_of(folder).startswith("_")]
    roots = list(filter(has_meta, inner))
    _refuse_several(path, list(map(os.path.basename, roots)), "pass the path of one")
    return roots[0] if roots else ""


def _refuse_several(path: str, roots: Sequence[str], advice: str) -> None:
    if len(roots) > 1:
        raise InputError(f"{path}: contains several datasets ({', '.join(sorted(roots))}); {advice}")
