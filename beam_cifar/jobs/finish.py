"""Publishes a job: parts become shards, the staged tree becomes the output, and the manifest is written last.

Both steps may run twice, or again after they were half done: runners repeat bundles, and killed jobs are rerun.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

from beam_cifar import storage
from beam_cifar.data.memory import give_back
from beam_cifar.errors import InputError, JobError, OutputError
from beam_cifar.formats.contract.sink import FileSink
from beam_cifar.formats.contract.types import Shard, ShardResult
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs.accounts import PartInfo, ShardInfo, one_each, reconcile
from beam_cifar.jobs.in_place import foreign_files
from beam_cifar.jobs.manifest import manifest_bytes
from beam_cifar.jobs.prepare import Job
from beam_cifar.jobs.settings import PublishSettings, SinkSettings


def publish_settings(job: Job, sink: SinkSettings) -> PublishSettings:
    """Returns the settings of a job's publish step."""
    declared = job.plan.declared if job.plan.exhaustive else None
    foreign = tuple(foreign_files(job.options)) if job.options.kept is not None else ()
    return PublishSettings(
        sink, job.plan.label_map, declared, job.facts, job.options.overwrite, job.plan.counts, foreign
    )


def finish_shard(number: int, infos: Iterable[PartInfo], settings: SinkSettings) -> ShardInfo:
    """Checks one attempt at each part, and joins the files if there are several. Raises `JobError`."""
    shard, sink = settings.shards[number], get_sink(settings.format)
    parts = tuple(one_each(infos, shard.parts, lambda info: info.part, shard.path))
    if strange := {part.shard for part in parts} - {number}:
        raise JobError(f"{shard.path}: received parts of shards {sorted(strange)[:5]}; nothing was published")
    if not isinstance(sink, FileSink):
        return _finish_folder(number, parts, settings)
    if settings.is_whole(shard):
        return ShardInfo(number, 1, parts[0].bytes, parts[0].sha256, parts)
    paths = [settings.part_path(shard, info.part) for info in parts]
    # Checked before anything is joined: the runner retries this step when it fails, and would join again each time.
    for path, info in zip(paths, parts, strict=True):
        _check_size(path, info.bytes)
    give_back()  # memory that writing the parts took
    with _reading_parts(), settings.folder.stage(os.path.join(settings.folder.tree, shard.path)) as file:
        sink.join(paths, file, shard, settings.options)
        file.commit()
    return ShardInfo(number, 1, file.bytes_written, file.sha256, parts, beside=_beside_written(paths, shard, settings))


@contextmanager
def _reading_parts() -> Iterator[None]:
    """Turns what a reader raises for a damaged or unreadable input into a `JobError`: here it reads our own parts."""
    try:
        yield
    except InputError as error:
        raise JobError(str(error)) from error


def _beside_written(paths: Sequence[str], shard: Shard, settings: SinkSettings) -> tuple[tuple[str, int, str], ...]:
    folder = settings.folder
    files = storage.StagedFiles(folder.tree, folder.scratch, folder.guard)
    with _reading_parts():
        get_sink(settings.format).complete(paths, files, shard, settings.options)
    return tuple(files.made)


def _finish_folder(number: int, parts: Sequence[PartInfo], settings: SinkSettings) -> ShardInfo:
    """Joins the file lists of a shard's parts to one list next to the manifest."""
    shard, folder = settings.shards[number], settings.folder
    # Named after the parts' accounts, so that a later call finds it when the parts are gone.
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    name = f"files-{digest[:16]}.jsonl"
    paths = [settings.part_path(shard, part.part) for part in parts]
    if all(map(storage.is_file, paths)):
        storage.join_listings(paths, folder.stage(folder.staged_listing(name)))
    elif not storage.is_file(folder.listing(name)):
        raise JobError(f"{folder.work}: the lists of staged files are missing; run the job again")
    _, digest = storage.file_digest(folder.listing(name))
    total = sum(part.bytes for part in parts)
    files = sum(part.files for part in parts)
    beside = _beside_written([folder.listing(name)], shard, settings)
    return ShardInfo(number, files, total, digest, tuple(parts), name, beside)


def finish_job(infos: Iterable[ShardInfo], settings: PublishSettings) -> str:
    """Reconciles the counts, completes the tree, moves it into place, and writes the manifest last.

    Returns:
        The path of the manifest.

    Raises:
        JobError: counts do not add up, or files are missing.
        OutputError: the output path is now taken by something else.
    """
    sink = settings.sink
    shards = list(one_each(infos, len(sink.shards), lambda info: info.shard, sink.folder.output))
    parts = [part for shard in shards for part in shard.parts]
    counts = reconcile(parts, settings)
    writer, results = get_sink(sink.format), [_result(info, sink) for info in shards]
    files = writer.finish(sink.options, results)
    foreign = _foreign(settings, {*files, *(path for info in shards for path, _, _ in info.beside)})
    manifest = manifest_bytes(shards, counts, files, foreign, results, settings)
    _refuse_taken_names(foreign, sink.folder)
    expected = storage.FileSet.of(_data_files(shards, sink))
    kept = {*files, *(entry["path"] for entry in foreign)}
    if _holds(sink.folder.tree, expected, kept):
        for path, content in files.items():
            storage.write_whole(os.path.join(sink.folder.tree, path), content, sink.folder.scratch, sink.folder.guard)
        for path in writer.folders(sink.options, results):
            storage.make_folder(os.path.join(sink.folder.tree, path))
        for entry in foreign:
            there, staged = (os.path.join(folder, entry["path"]) for folder in (sink.folder.output, sink.folder.tree))
            storage.stage_link(there, staged, sink.folder.scratch, sink.folder.guard)
        storage.publish_tree(
            sink.folder,
            manifest,
            overwrite=settings.overwrite,
            listings=[info.listing for info in shards if info.listing],
        )
    elif not _is_published(manifest, sink.folder) or not _holds(sink.folder.output, expected, kept):
        written = sum(info.files for info in shards)
        raise JobError(f"{sink.folder.tree}: some of the {written} staged files are missing; run the job again")
    storage.remove_tree(sink.folder.work)
    return sink.folder.manifest


def _is_published(manifest: bytes, folder: storage.JobFolder) -> bool:
    """Returns whether an earlier call finished the job; completes one that finished all but the manifest."""
    if storage.has_content(folder.pending_manifest, manifest):
        with folder.guard.writing():
            storage.settle(folder)
    return storage.has_content(folder.manifest, manifest)


def _foreign(settings: PublishSettings, written: Set[str]) -> list[dict[str, Any]]:
    """Returns manifest entries for files that stay but are not part of the dataset, except those rewritten now."""
    found = []
    for path in sorted(set(settings.foreign) - written):
        size, digest = storage.file_digest(os.path.join(settings.sink.folder.output, path))
        found.append({"path": path, "bytes": size, "sha256": digest, "foreign": True})
    return found


def _refuse_taken_names(foreign: Sequence[dict[str, Any]], folder: storage.JobFolder) -> None:
    for entry in foreign:
        staged = os.path.join(folder.tree, entry["path"])
        if storage.exists(staged) and storage.file_digest(staged) != (entry["bytes"], entry["sha256"]):
            there = os.path.join(folder.output, entry["path"])
            raise OutputError(f"{there}: not part of the dataset, but a new file of it has the same name; move it away")


def _data_files(shards: Sequence[ShardInfo], sink: SinkSettings) -> Iterator[tuple[str, int]]:
    """Yields path and bytes of every file of the shards."""
    for info in shards:
        path = sink.shards[info.shard].path
        yield from ((beside, size) for beside, size, _ in info.beside)
        if not info.listing:
            yield path, info.bytes
            continue
        for entry in storage.read_listing(sink.folder.listing(info.listing)):
            yield os.path.join(path, entry["path"]), entry["bytes"]


def _holds(tree: str, expected: storage.FileSet, others: Set[str]) -> bool:
    """Returns whether a tree has exactly these data files; `others` may exist or not.

    If one file overwrote another, there is one file too few.
    """
    try:
        found = storage.FileSet.of((path, size) for path, size in storage.file_sizes(tree) if path not in others)
    except FileNotFoundError:
        return False
    return found == expected


def _check_size(path: str, expected: int) -> None:
    found = storage.stamp(path)[0]
    if found != expected:
        raise JobError(f"{path}: has {found} bytes, but {expected} were written")


def _result(info: ShardInfo, sink: SinkSettings) -> ShardResult:
    statistics: Counter[str] = Counter()
    for part in info.parts:
        statistics.update(part.statistics)
    labels = {label for part in info.parts for (_, label), n in part.written.items() if n}
    return ShardResult(sink.shards[info.shard], info.bytes, labels, statistics, info.sha256)
