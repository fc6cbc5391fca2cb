"""Cleans up after jobs that were killed."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar import storage
from beam_cifar.errors import JobError
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

    Temporary folders of killed processes of this user are removed as well, whatever output they were for.

    A job that still runs on a cluster after its launcher died looks like a killed one: stop it first.

    Args:
        output: path or URL of the output.
        remove: whether to remove what is found; if false, only reports it.

    Raises:
        BeamCifarError: a job is writing to the output, something cannot be removed, or the path is not a valid output.
    """
    folder = storage.JobFolder(output_path(output))
    if remove:
        storage.remove_abandoned()
    if not (storage.is_url(folder.path) or storage.exists(folder.path)):
        return Cleaned(folder.output, (), completed=False, incomplete=False)
    with storage.hold(folder, settled=False), storage.writing(folder.path):
        moves, leftovers = storage.pending_moves(folder), storage.leftovers(folder)
        completed = (folder.pending_manifest, folder.manifest) in moves
        found = tuple(map(_sized, leftovers))
        if remove:
            storage.settle(folder)
            for leftover in leftovers:
                leftover.remove()
            if left := storage.leftovers(folder):
                raise JobError(f"{left[0].path}: cannot be removed; check its permissions, then run clean again")
        goes = any(leftover.path == folder.output for leftover in leftovers)
        stays = storage.exists(folder.manifest) and (folder.manifest, "") not in moves
        has_manifest = stays or any(target == folder.manifest for _, target in moves)
        put_back = any(target == folder.output for _, target in moves)
        incomplete = (put_back or storage.is_occupied(folder.output)) and not (goes or has_manifest)
        return Cleaned(folder.output, found, completed, incomplete)


def _sized(leftover: storage.Leftover) -> Found:
    if leftover.upload:
        return Found(leftover.path, 0, 0, is_upload=True)
    if storage.is_folder(leftover.path):
        sizes = [size for _, size in storage.file_sizes(leftover.path)]
        return Found(leftover.path, len(sizes), sum(sizes))
    return Found(leftover.path, 1, storage.stamp(leftover.path)[0])
