"""Publishing: the staged tree becomes the output, then the manifest is written. Also cleans up after killed jobs."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from beam_cifar.errors import JobError, OutputError
from beam_cifar.storage import objects
from beam_cifar.storage.files import (
    exists,
    has_content,
    is_file,
    is_folder,
    is_occupied,
    names_in,
    read_whole,
    remove_file,
    remove_tree,
)
from beam_cifar.storage.job_folder import JobFolder
from beam_cifar.storage.lock import hold, json_object
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import write_whole


def begin(folder: JobFolder, inputs: str) -> None:
    """Records that a job starts, so that its files can later be distinguished from others.

    `inputs` is a digest of the current input files.
    """
    if folder.direct:
        objects.remove([folder.manifest])  # left by an output that was removed by hand; it must not describe this one
    begun = {"job": folder.job_id, "direct": folder.direct, "inputs": inputs}
    write_whole(folder.begun, json.dumps(begun).encode(), folder.scratch)


def begun(folder: JobFolder) -> dict[str, Any]:
    """Returns what `begin` recorded for a job; empty if it never started, or was cleaned up."""
    with suppress(OSError):
        return json_object(read_whole(folder.begun))
    return {}


def begun_jobs(folder: JobFolder) -> list[JobFolder]:
    """Returns the unfinished jobs in a job folder: started, but neither ended nor cleaned up."""
    ids = (name.removeprefix("work-") for name in names_in(folder.path) if name.startswith("work-"))
    jobs = [JobFolder(folder.output, job_id) for job_id in ids if not job_id.endswith(".removed")]
    return [replace(job, direct=bool(facts.get("direct"))) for job in jobs if (facts := begun(job))]


def is_unfinished(folder: JobFolder) -> bool:
    """Returns whether the output may be the incomplete output of a killed job."""
    if exists(folder.manifest):
        return False
    return exists(folder.pending_manifest) or any(job.direct for job in begun_jobs(folder))


def publish_tree(
    folder: JobFolder,
    manifest: bytes,
    is_ours: Callable[[str, bytes], bool],
    *,
    overwrite: bool,
    listings: Sequence[str] = (),
) -> None:
    """Makes the staged tree the output, on a file system with a single rename, then writes the manifest.

    If interrupted after any step, the same call can be repeated, or `restore` allows a new job to start.

    Args:
        folder: the job folder.
        manifest: content of the manifest.
        is_ours: returns whether an output matches a manifest, because an earlier call moved it there.
        overwrite: whether any other output may be replaced.
        listings: names of the lists of files that the manifest refers to.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    with folder.guard.writing():  # a run that ends meanwhile waits: its caller must not clean up under our hands
        if is_url(folder.output):
            _publish_objects(folder, manifest, overwrite=overwrite, listings=listings)
        else:
            _publish_folder(folder, manifest, is_ours, overwrite=overwrite, listings=listings)


def _publish_folder(
    folder: JobFolder,
    manifest: bytes,
    is_ours: Callable[[str, bytes], bool],
    *,
    overwrite: bool,
    listings: Sequence[str],
) -> None:
    occupied = is_occupied(folder.output)
    ours = occupied and is_ours(folder.output, manifest)
    if occupied and not ours and not overwrite:
        raise OutputError(f"{folder.output}: was created by something else during the job; nothing was replaced")
    for name in listings:
        with suppress(FileNotFoundError):
            os.replace(folder.staged_listing(name), os.path.join(folder.path, name))
    write_whole(folder.pending_manifest, manifest, folder.scratch)
    if ours:
        promote(folder)  # an earlier call got at least this far
        return
    if occupied:
        with suppress(FileNotFoundError):
            os.unlink(folder.replaced_manifest)  # left by an unfinished publish; never that of the current output
        remove_tree(folder.replaced)
        with suppress(FileNotFoundError):
            os.replace(folder.manifest, folder.replaced_manifest)
        os.rename(folder.output, folder.replaced)
    else:
        with suppress(FileNotFoundError):
            os.unlink(folder.manifest)
        if os.path.isdir(folder.output):
            os.rmdir(folder.output)
    os.makedirs(os.path.dirname(folder.output), exist_ok=True)
    # One rename of the folder, not one per file: a job killed half way would leave half a dataset.
    os.rename(folder.tree, folder.output)
    promote(folder)


def _publish_objects(folder: JobFolder, manifest: bytes, *, overwrite: bool, listings: Sequence[str]) -> None:
    """Publishes objects, which were written directly to the output, or are copied over those of the old output."""
    if not has_content(folder.manifest, manifest):
        folder.guard.refuse_lost()
    if not folder.direct:
        if is_occupied(folder.output) and not overwrite:
            raise OutputError(f"{folder.output}: was created by something else during the job; nothing was replaced")
        objects.remove([folder.manifest])  # if this fails, nothing has changed; from now on it is incomplete
        objects.copy_tree(folder.tree, folder.output)
        objects.remove(_not_in(folder.tree, folder.output))
    for name in listings:
        if is_file(folder.staged_listing(name)):
            objects.copy(folder.staged_listing(name), f"{folder.path}/{name}")
    write_whole(folder.manifest, manifest, folder.scratch)
    _remove_old_listings(folder)


def _not_in(tree: str, output: str) -> Iterator[str]:
    """Yields URLs of the objects in `output` without a counterpart in `tree`; both are listed in key order."""
    wanted = objects.tree(tree)
    name = next((entry.name for entry in wanted), None)
    for entry in objects.tree(output):
        while name is not None and name.encode() < entry.name.encode():
            name = next((entry.name for entry in wanted), None)
        if name != entry.name:
            yield entry.path


def promote(folder: JobFolder) -> None:
    """Completes publishing: the pending manifest becomes the manifest, and the replaced output is removed."""
    os.replace(folder.pending_manifest, folder.manifest)
    with suppress(FileNotFoundError):
        os.unlink(folder.replaced_manifest)
    remove_tree(folder.replaced)
    _remove_old_listings(folder)


def _remove_old_listings(folder: JobFolder) -> None:
    for leftover in _old_listings(folder, _needed(folder)):
        leftover.remove()


def recover(path: str) -> None:
    """Restores a dataset that a killed job moved aside, unless another job is working on it."""
    folder = JobFolder(path)
    # Only where this user's job moved it: reading must not change what another user, or an archive, left there.
    if (
        not is_url(path)
        and not os.path.lexists(path)
        and _is_own_folder(folder.path)
        and _is_own_folder(folder.replaced)
    ):
        with suppress(OutputError, JobError), hold(folder):
            restore(folder)


def _is_own_folder(path: str) -> bool:
    with suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return False


def restore(folder: JobFolder) -> None:
    """Restores an output, with its manifest, that a killed job moved aside and did not replace yet."""
    if is_url(folder.output):
        return  # objects are never moved aside
    if os.path.lexists(folder.replaced) and not os.path.lexists(folder.output):
        os.rename(folder.replaced, folder.output)
    if not os.path.lexists(folder.replaced) and os.path.lexists(folder.replaced_manifest):
        os.replace(folder.replaced_manifest, folder.manifest)


@dataclass(frozen=True)
class Leftover:
    """A leftover of an unfinished job.

    Attributes:
        path: path of a file or a folder.
        upload: id of an unfinished upload, else "".
    """

    path: str
    upload: str = ""

    def remove(self) -> None:
        """Removes it, ignoring errors; raises `OSError` only for a folder of objects, such as an output."""
        if self.upload:
            with suppress(OSError):
                objects.abort(self.path, self.upload)
        elif is_folder(self.path) and not os.path.islink(self.path):
            if is_url(self.path):  # on an error here, the file that says whose they are must stay: it is removed later
                objects.remove(entry.path for entry in objects.tree(self.path))
            else:
                remove_tree(self.path)
        else:
            remove_file(self.path)


def clear_leftovers(folder: JobFolder, keep: str = "") -> None:
    """Removes what this job or earlier killed ones staged; see `leftovers` for what is kept."""
    restore(folder)
    for leftover in leftovers(folder, keep):
        leftover.remove()


def leftovers(folder: JobFolder, keep: str = "", *, pending: bool = True) -> list[Leftover]:
    """Returns the leftovers of unfinished jobs, except what an unfinished publish needs and the files of job `keep`.

    If `pending`, a pending manifest is not a leftover: it may be that of the output.
    """
    needed = _needed(folder, pending=pending)
    kept = {"lock", f"work-{keep}"} | {os.path.basename(path) for path in needed}
    found = [Leftover(os.path.join(folder.path, name)) for name in sorted(names_in(folder.path)) if _is_own(name, kept)]
    if is_url(folder.output):
        found = [*_leftover_objects(folder, keep), *found]
    return [*found, *_old_listings(folder, needed)]


def _needed(folder: JobFolder, *, pending: bool = True) -> list[str]:
    """Returns what must be kept: the manifest, and what is needed to complete or undo an unfinished publish."""
    there, complete = exists(folder.output), exists(folder.manifest)
    needed = [folder.manifest]
    if not (there and complete):
        needed += [folder.replaced, folder.replaced_manifest]
    if there and not complete and pending:
        needed.append(folder.pending_manifest)
    return needed


def _leftover_objects(folder: JobFolder, keep: str) -> Iterator[Leftover]:
    # Not all users may list uploads, and not all stores can: then they are left to a lifecycle rule of the bucket.
    with suppress(PermissionError):
        yield from (Leftover(url, upload) for url, upload in objects.pending([folder.output, folder.path]))
    jobs = [job for job in begun_jobs(folder) if job.direct]
    if jobs and all(job.job_id != keep for job in jobs) and not exists(folder.manifest) and exists(folder.output):
        yield Leftover(folder.output)


def _old_listings(folder: JobFolder, needed: Collection[str]) -> Iterator[Leftover]:
    """Returns the lists of files that no needed manifest refers to."""
    names = [name for name in names_in(folder.path) if re.fullmatch(r"files-[0-9a-f]{16}\.jsonl", name)]
    named = b""
    for manifest in (folder.manifest, folder.pending_manifest, folder.replaced_manifest) if names else ():
        if manifest not in needed:
            continue
        with suppress(FileNotFoundError):
            named += read_whole(manifest)
    return (Leftover(os.path.join(folder.path, name)) for name in names if name.encode() not in named)


def _is_own(name: str, kept: set[str]) -> bool:
    """Returns whether a name in a job folder is one of ours, not a file that a user put there."""
    own = r"(index|replaced|work-[0-9a-f]{16})(\.[0-9a-f]{8}\.removed)*|manifest\.(pending|replaced)\.json"
    return name not in kept and re.fullmatch(own, name) is not None
