"""Cleans up after jobs that were killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beam_cifar import storage
from beam_cifar.errors import JobError
from beam_cifar.jobs.manifest import finish_interrupted, is_ours
from beam_cifar.jobs.prepare import output_path


@dataclass(frozen=True)
class Found:
    """Something that a killed job left behind.

    Attributes:
        path: path of a file or folder, or the URL that an upload would have created.
        files: number of files.
        bytes: total bytes of these files.
        is_upload: whether it is an incomplete upload; stores do not report the size of these.
    """

    path: str
    files: int
    bytes: int
    is_upload: bool = False


@dataclass(frozen=True)
class Cleaned:
    """What was found at an output.

    Attributes:
        output: path of the output.
        found: what killed jobs left behind.
        completed: whether an output that lacked only its manifest was completed, or would be.
        incomplete: whether the output has no manifest: its job was killed, or another program wrote it.
    """

    output: str
    found: tuple[Found, ...]
    completed: bool
    incomplete: bool


def clean(output: str, *, remove: bool = True) -> Cleaned:
    """Removes what killed jobs left of an output: in the job folder beside it and, in an object store, in its place.

    A job that still runs on a cluster after its launcher died looks like a killed one: stop it first.

    Args:
        output: path or URL of the output.
        remove: whether to remove what is found; if false, only reports it.

    Raises:
        BeamCifarError: a job is writing to the output, something cannot be removed, or the path is not a valid output.
    """
    folder = storage.JobFolder(output_path(output))
    if not (storage.is_url(folder.path) or storage.exists(folder.path)):
        return Cleaned(folder.output, (), completed=False, incomplete=False)
    with storage.hold(folder):
        if remove:
            storage.restore(folder)
        completed = _complete(folder, remove=remove)
        leftovers = storage.leftovers(folder, pending=completed)
        found = tuple(map(_sized, leftovers))
        if remove:
            _remove(leftovers, folder, pending=completed)
        goes = any(leftover.path == folder.output for leftover in leftovers)
        put_back = storage.exists(folder.replaced_manifest) and not storage.exists(folder.replaced)
        incomplete = storage.is_occupied(folder.output) and not (
            goes or completed or put_back or storage.exists(folder.manifest)
        )
        return Cleaned(folder.output, found, completed, incomplete)


def _remove(leftovers: Sequence[storage.Leftover], folder: storage.JobFolder, *, pending: bool) -> None:
    with storage.writing(folder.path):
        for leftover in leftovers:
            leftover.remove()
        if left := storage.leftovers(folder, pending=pending):
            raise JobError(f"{left[0].path}: cannot be removed; check its permissions, then run clean again")


def _complete(folder: storage.JobFolder, *, remove: bool) -> bool:
    """Completes a publish that lacks only its last step; if `remove` is false, only returns whether there is one."""
    if storage.is_url(folder.path) or not storage.exists(folder.pending_manifest) or storage.exists(folder.manifest):
        return False
    manifest = storage.read_whole(folder.pending_manifest)
    return finish_interrupted(folder, manifest) if remove else is_ours(folder.output, manifest)


def _sized(leftover: storage.Leftover) -> Found:
    if leftover.upload:
        return Found(leftover.path, 0, 0, is_upload=True)
    if storage.is_folder(leftover.path):
        sizes = [size for _, size in storage.file_sizes(leftover.path)]
        return Found(leftover.path, len(sizes), sum(sizes))
    return Found(leftover.path, 1, storage.stamp(leftover.path)[0])
