"""Resuming: the finished parts of an interrupted job with the same plan are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from beam_cifar import storage
from beam_cifar.jobs.accounts import PartInfo, decode_part
from beam_cifar.jobs.prepare import Job
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.planning.plan import Task


def with_finished(job: Job) -> Job:
    """The job with the accounts of the parts that an earlier run has finished, and a note of how many these are."""
    if job.done:
        note = "an earlier run has finished this job; nothing was left to do"
        return replace(job, plan=replace(job.plan, notices=(*job.plan.notices, note)))
    if not job.resumed:
        return job
    sink = SinkSettings.of(job.plan, job.options.output_format, job.folder)
    known = set(storage.names_in(job.folder.accounts))
    tasks = [task for task in job.plan.tasks if os.path.basename(sink.account_path(task.shard, task.part)) in known]
    found = tuple(part for part in storage.concurrently(lambda task: _finished(task, sink), tasks) if part is not None)
    note = f"resumed: {len(found)} of {len(job.plan.tasks)} parts were there"
    return replace(job, finished=found, plan=replace(job.plan, notices=(*job.plan.notices, note)))


def left_to_do(job: Job) -> list[Task]:
    """The tasks whose parts are not finished."""
    finished = {(part.shard, part.part) for part in job.finished}
    return [task for task in job.plan.tasks if (task.shard, task.part) not in finished]


def _finished(task: Task, sink: SinkSettings) -> PartInfo | None:
    """The account of a part, if what it says is still there; else the part is made anew."""
    try:
        part = decode_part(storage.read_whole(sink.account_path(task.shard, task.part)))
        if (part.shard, part.part) != (task.shard, task.part) or part.written.total() != task.rows:
            return None
        return part if all(_is_there(*file) for file in _files(part, sink)) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None


def _files(part: PartInfo, sink: SinkSettings) -> Iterator[tuple[str, int, str]]:
    """Path, bytes and hex sha256 of what a part consists of; -1 bytes are not known."""
    shard = sink.shards[part.shard]
    path = sink.part_path(shard, part.part)
    if not sink.many_files:
        yield path, part.bytes, part.sha256
        return
    yield path, -1, part.sha256
    if not storage.is_url(path):  # objects are there whole once they are listed, and publishing checks their sizes
        for entry in storage.read_listing(path):
            yield os.path.join(sink.folder.tree, shard.path, entry["path"]), entry["bytes"], entry["sha256"]


def _is_there(path: str, size: int, digest: str) -> bool:
    """Whether a file is what it was. A file system may lose what was not yet on disk when power failed."""
    found, _ = storage.stamp(path)
    if size >= 0 and found != size:
        return False
    return storage.is_url(path) or storage.file_digest(path)[1] == digest
