"""Resumes an interrupted job with the same plan, keeping its finished parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from beam_cifar import storage
from beam_cifar.data.text import counted
from beam_cifar.jobs.accounts import PartInfo, decode_part
from beam_cifar.jobs.prepare import Job
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.planning.plan import Task


def with_finished(job: Job) -> Job:
    """Returns the job with the accounts of parts that an earlier run finished, and a note that says how many."""
    if job.done:
        note = "an earlier run already finished this job; nothing left to do"
        return replace(job, plan=replace(job.plan, notices=(*job.plan.notices, note)))
    if not job.resumed:
        return job
    sink = SinkSettings.of(job.plan, job.options.output_format, job.folder)
    known = set(storage.names_in(job.folder.accounts))
    tasks = [task for task in job.plan.tasks if os.path.basename(sink.account_path(task.shard, task.part)) in known]
    found = tuple(part for part in storage.concurrently(lambda task: _finished(task, sink), tasks) if part is not None)
    note = f"resumed: {counted(len(found), 'part', of=len(job.plan.tasks), verb='were')} already finished"
    return replace(job, finished=found, plan=replace(job.plan, notices=(*job.plan.notices, note)))


def left_to_do(job: Job) -> list[Task]:
    """Returns the tasks whose parts are not finished."""
    finished = {(part.shard, part.part) for part in job.finished}
    return [task for task in job.plan.tasks if (task.shard, task.part) not in finished]


def _finished(task: Task, sink: SinkSettings) -> PartInfo | None:
    """Returns the account of a part if its files are intact; None means that the part is written again."""
    try:
        part = decode_part(storage.read_whole(sink.account_path(task.shard, task.part)))
        if (part.shard, part.part) != (task.shard, task.part) or part.written.total() != task.rows:
            return None
        return part if all(_is_there(*file) for file in _files(part, sink)) else None
    except (OSError, *storage.DAMAGED):
        return None


def _files(part: PartInfo, sink: SinkSettings) -> Iterator[tuple[str, int, str]]:
    """Yields path, bytes and hex sha256 of each file of a part; bytes are -1 if unknown."""
    shard = sink.shards[part.shard]
    path = sink.part_path(shard, part.part)
    if not sink.many_files:
        yield path, part.bytes, part.sha256
        return
    yield path, -1, part.sha256
    if not storage.is_url(path):  # a listed object is complete, and publishing checks its size
        for entry in storage.read_listing(path):
            yield os.path.join(sink.folder.tree, shard.path, entry["path"]), entry["bytes"], entry["sha256"]


def _is_there(path: str, size: int, digest: str) -> bool:
    """Returns whether a file is unchanged; after a power failure a file system may have lost recent data."""
    found = storage.stamp(path)[0]
    if size >= 0 and found != size:
        return False
    return storage.is_url(path) or storage.file_digest(path)[1] == digest
