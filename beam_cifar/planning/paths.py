"""Finds datasets by paths as users write them: of a dataset, an archive, single files of one, or patterns of these."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence

from beam_cifar import storage
from beam_cifar.data.grouping import by_key
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.registry import detect_format
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.planning.survey import Survey, survey
from beam_cifar.storage import archives


def surveys_of(
    patterns: Sequence[str],
    format_name: str | None,
    subsets: tuple[str, ...],
    index_dir: str,
    images: ImageOptions = AS_STORED,
) -> list[Survey]:
    """Returns surveys of all datasets that some paths name; several files of one dataset are one survey.

    Args:
        patterns: paths of datasets, archives, or single files of a dataset such as `data_batch_1`. They may have
            wildcards (*, ?, [...]), in an object store in the last part only.
        format_name: name of their format; default: detected, for each.
        subsets: subsets to select; default: all.
        index_dir: directory for indexes of archives and of files.
        images: how images are read.

    Raises:
        InputError: a path leads nowhere, or to what is no dataset, or to a damaged one.
        UsageError: no path is given, or two lead to the same place; the format or a subset is unknown.
    """
    paths = [path for pattern in patterns for path in _matching(storage.absolute(pattern, "input"))]
    if not paths:
        raise UsageError("no path is given; expected the path of a dataset, or several")
    wanted = by_key((_dataset_of(path, format_name, index_dir), path) for path in paths)
    found: list[Survey] = []
    for number, (dataset, members) in enumerate(wanted.items()):
        if dataset in members and len(members) > 1:
            raise _twice(dataset)
        _refuse_twice(members)
        only = frozenset(members) - {dataset}
        try:
            one = survey(dataset, format_name, subsets, index_dir, number=number, only=only, images=images)
        except InputError as error:
            if not only or str(error).startswith(min(only)):
                raise
            raise InputError(f"{min(only)}: not a dataset itself, so its folder is read: {error}") from error
        if missing := sorted(only - {summary.file.blob.path for summary in one.summaries}):
            raise InputError(
                f"{missing[0]}: not a file with images of the dataset {dataset}; name such a file, or that"
            )
        found.append(one)
    # One dataset may have several paths, such as a folder and the folder around it.
    # One file may have several subsets, such as a table of labels.
    _refuse_twice([place for one in found for place in dict.fromkeys(_place(made.file) for made in one.summaries)])
    return found


def _place(file: SourceFile) -> str:
    path = file.blob.path if storage.is_url(file.blob.path) else os.path.realpath(file.blob.path)
    return f"{path}: byte {file.blob.offset}" if file.blob.offset else path


def _refuse_twice(paths: Sequence[str]) -> None:
    """Raises `UsageError` for a path that repeats."""
    met: set[str] = set()
    for path in paths:
        if path in met:
            raise _twice(path)
        met.add(path)


def _twice(path: str) -> UsageError:
    return UsageError(f"{path}: is named twice, so its images would be read twice; name it once")


def _matching(pattern: str) -> list[str]:
    """Returns the paths that match a pattern, in order; a path that exists is no pattern."""
    if not glob.has_magic(pattern) or storage.exists(pattern):
        return [pattern]
    if storage.is_url(pattern):
        folder, _, name = pattern.rpartition("/")
        if glob.has_magic(folder):
            raise UsageError(f"{pattern}: wildcards in an object store may be in the last part of a path only")
        found = [f"{folder}/{each}" for each in fnmatch.filter(storage.names_in(folder), name)]
    else:
        found = glob.glob(pattern)
    found = [path for path in found if not path.endswith(".beam_cifar")]  # what jobs leave beside their outputs
    if not found:
        raise InputError(f"{pattern}: no file or directory matches")
    return sorted(found)


def _dataset_of(path: str, format_name: str | None, index_dir: str) -> str:
    """Returns the path of the dataset that a path names: itself, or the folder of a file of one."""
    if not storage.is_file(path) or archives.is_archive(path):
        return path
    with storage.reading(path):
        return path if format_name is None and detect_format(path, index_dir) else os.path.dirname(path)
