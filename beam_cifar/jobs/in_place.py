"""Saves a dataset in place: files that did not change are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import OutputError, UsageError
from beam_cifar.formats.contract.types import Catalog, Wanted
from beam_cifar.formats.registry import READ, get_sink, get_source
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.copies import as_copy
from beam_cifar.planning.plan import Origin, Plan
from beam_cifar.planning.summaries import learn_parents, scan


def keep_files(plan: Plan, options: ConvertOptions) -> Plan:
    """Returns the plan with unchanged subsets as copies of the output's own files.

    The job replaces its own input; `options.kept` names the subsets.

    Raises:
        UsageError: the output contains something that saving would lose.
    """
    if not get_sink(options.output_format).can.keeps_files:
        return plan
    catalog = catalog_of(options)
    if catalog is not None and catalog.unread:
        raise UsageError(
            f"{options.output_dir}: contains {catalog.unread}, which saving would lose; export to another directory"
        )
    # Names of packed files do not say which rows they have.
    if catalog is None or options.images_per_batch is not None or options.layout is not None:
        return plan
    source = get_source(catalog.format)
    kept = set(options.kept or ())
    summaries = [
        scan(source, file, catalog.labels, Wanted()) for file in catalog.files if not os.path.isdir(file.blob.path)
    ]
    labels = learn_parents(catalog, summaries)
    if not _agree(labels, plan.label_map.table):
        return plan
    there = {os.path.relpath(found.file.blob.path, options.output_dir): found for found in summaries}
    files, tasks = list(plan.files), []
    for task in plan.tasks:
        shard = plan.shards[task.shard]
        summary = there.get(shard.path) if shard.subset in kept and shard.parts == 1 else None
        if summary is not None and summary.rows == task.rows and not summary.bad_count:
            # The file may be named otherwise than its subset, and would then be read as a subset of that name.
            files.append(replace(summary.file, source=len(plan.origins), subset=shard.subset))
            task = as_copy(task, len(files) - 1)
        tasks.append(task)
    origins = (*plan.origins, Origin(catalog.format, labels))
    return replace(plan, files=tuple(files), origins=origins, tasks=tuple(tasks))


def _agree(found: LabelTable, table: LabelTable) -> bool:
    """Returns whether files mean the same under both tables; in `found`, classes without rows have no superclass."""
    same = (found.names, found.coarse_names) == (table.names, table.coarse_names)
    return same and all(own in (None, other) for own, other in zip(found.parents, table.parents, strict=True))


def catalog_of(options: ConvertOptions) -> Catalog | None:
    """Returns the current catalog of the output, or None if it is not a readable dataset."""
    if options.output_format not in READ or not os.path.isdir(options.output_dir):
        return None
    source = get_source(options.output_format)
    with storage.TemporaryFolder() as folder:  # for indexes, not needed once it is described
        with storage.reading(options.output_dir):
            found = source.looks_right(options.output_dir, folder)
        return source.describe(options.output_dir, folder) if found else None


def lossless_ext(path: str, format_name: str) -> str | None:
    """Returns the extension that keeps a dataset's PNG files lossless if its format would write JPEG, else None."""
    if "jpeg" not in get_sink(format_name).can.losses:
        return None
    catalog = catalog_of(ConvertOptions(path, path, format_name))
    paths = _image_paths(catalog) if catalog else iter(())
    return ".png" if any(path.lower().endswith(".png") for path in paths) else None


def foreign_files(options: ConvertOptions) -> Iterator[str]:
    """Yields paths of files in the output that are not part of its dataset, such as a `readme.html`: they are kept.

    Raises:
        OutputError: the files of the dataset cannot be determined, or something cannot be kept.
    """
    own = _own_paths(options)
    for folder, folders, names in sorted(os.walk(options.output_dir, onerror=_raise)):
        for name in sorted((*names, *filter(lambda name: os.path.islink(os.path.join(folder, name)), folders))):
            path = os.path.join(folder, name)
            if path in own:
                continue
            if os.path.islink(path) or not os.path.isfile(path):
                raise OutputError(f"{path}: not part of the dataset, and would be lost; move it away and save again")
            yield os.path.relpath(path, options.output_dir)


def _raise(error: OSError) -> NoReturn:
    # `os.walk` passes over a folder that it cannot list, and saving would lose the files there.
    raise error


def _own_paths(options: ConvertOptions) -> set[str]:
    """Returns the dataset's files and folders in the output: those its reader finds and those its manifest lists."""
    catalog = catalog_of(options)
    files = (*catalog.files, *catalog.meta_files) if catalog else ()
    own = {blob.path for file in files for blob in (file.blob, *file.beside)}
    own.update(_image_paths(catalog) if catalog else ())
    try:
        return own | set(_named_by_manifest(options.output_dir))
    except (*storage.MISSING, *storage.DAMAGED):
        if catalog is None and storage.is_occupied(options.output_dir):
            raise OutputError(
                f"{options.output_dir}: cannot tell which files belong to the dataset, as its manifest is missing or "
                "damaged; export it again with overwrite=True"
            ) from None
        return own


def _image_paths(catalog: Catalog) -> Iterator[str]:
    """Yields the paths of a dataset's images, if each image is a file."""
    if get_sink(catalog.format).can.many_files:
        for file in catalog.files:
            with get_source(catalog.format).open_rows(file, catalog.labels) as rows:
                yield from rows.image_paths


def _named_by_manifest(output: str) -> Iterator[str]:
    """Yields the paths of the files that the last job wrote; raises `OSError` if there is no manifest."""
    with open(storage.JobFolder(output).manifest, "rb") as file:
        manifest = json.load(file)
    for each in storage.manifest_files(output, manifest):
        if not each.get("foreign"):
            yield os.path.join(output, each["path"])
