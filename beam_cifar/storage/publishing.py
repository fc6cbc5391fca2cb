"""Publishing: the staged tree becomes the output, then the manifest is written. Also cleans up after killed jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
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
from beam_cifar.storage.ownership import is_own_folder, read_note
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.recovery import LISTING, MISSING, is_ours, pending_moves, settle
from beam_cifar.storage.staging import write_whole

INPUTS = r"inputs-[0-9a-f]{16}\.json"
"""Pattern of the names of notes that say which files an output was made from."""


def begin(folder: JobFolder, inputs: str) -> None:
    """Records that a job starts, so that its files can later be distinguished from others.

    `inputs` is a digest of the current input files.
    """
    if folder.direct:
        objects.remove([folder.manifest])  # left by an output that was removed by hand; it must not describe this one
    place = None if is_url(folder.path) else _inode(folder)
    begun = {"job": folder.job_id, "direct": folder.direct, "inputs": inputs, "folder": place}
    write_whole(folder.begun, json.dumps(begun).encode(), folder.scratch)


def begun(folder: JobFolder) -> dict[str, Any]:
    """Returns what `begin` recorded for a job; empty if it never started, or was cleaned up."""
    with suppress(*MISSING):
        return json_object(read_note(folder.begun))
    return {}


def begun_jobs(folder: JobFolder) -> list[JobFolder]:
    """Returns the unfinished jobs in a job folder: started, but neither ended nor cleaned up."""
    ids = (name.removeprefix("work-") for name in names_in(folder.path) if name.startswith("work-"))
    jobs = [JobFolder(folder.output, job_id) for job_id in ids if not job_id.endswith(".removed")]
    direct = is_url(folder.output)  # a file system has no direct jobs, whatever the note says
    return [replace(job, direct=direct and bool(facts.get("direct"))) for job in jobs if (facts := begun(job))]


def is_unfinished(folder: JobFolder) -> bool:
    """Returns whether a killed job, or one that still runs, left more beside the output than a complete one has."""
    pending = (folder.pending_manifest, folder.replaced_manifest, folder.replaced)
    unfinished = {"lock", *map(os.path.basename, pending)}
    return any(name in unfinished or _is_staged(name) for name in names_in(folder.path))


def recorded_inputs(folder: JobFolder) -> str:
    """Returns the digest of the input files that the output was made from, as given to `begin`; "" if unknown."""
    with suppress(*MISSING):
        note = os.path.join(folder.path, _inputs_name(read_whole(folder.manifest)))
        return str(json_object(read_note(note)).get("inputs", ""))
    return ""


def _record_inputs(folder: JobFolder, manifest: bytes) -> None:
    """Notes the inputs of the job beside its manifest; not in it, because equal jobs have equal manifests."""
    if inputs := begun(folder).get("inputs"):  # gone when a call is repeated after the end: then it is there
        note = json.dumps({"inputs": inputs}).encode()
        write_whole(os.path.join(folder.path, _inputs_name(manifest)), note, folder.scratch)


def _inputs_name(manifest: bytes) -> str:
    return f"inputs-{hashlib.sha256(manifest).hexdigest()[:16]}.json"


def publish_tree(folder: JobFolder, manifest: bytes, *, overwrite: bool, listings: Sequence[str] = ()) -> None:
    """Makes the staged tree the output, on a file system with a single rename, then writes the manifest.

    If interrupted after any step, the same call can be repeated, or `settle` allows a new job to start.

    Args:
        folder: the job folder.
        manifest: content of the manifest.
        overwrite: whether any other output may be replaced.
        listings: names of the lists of files that the manifest refers to.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    with folder.guard.writing():  # a run that ends meanwhile waits: its caller must not clean up under our hands
        if is_url(folder.output):
            _publish_objects(folder, manifest, overwrite=overwrite, listings=listings)
        else:
            _publish_folder(folder, manifest, overwrite=overwrite, listings=listings)


def _publish_folder(folder: JobFolder, manifest: bytes, *, overwrite: bool, listings: Sequence[str]) -> None:
    occupied = is_occupied(folder.output)
    ours = occupied and is_ours(folder.output, manifest)
    if occupied and not ours and not overwrite:
        raise OutputError(f"{folder.output}: was created by something else during the job; nothing was replaced")
    for name in listings:
        with suppress(FileNotFoundError):
            os.replace(folder.staged_listing(name), os.path.join(folder.path, name))
    _publish_quarantine(folder)
    _record_inputs(folder, manifest)
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


def _publish_quarantine(folder: JobFolder) -> None:
    """Moves the list of bad rows, and the rows themselves, to where the next job finds what is not its own."""
    if not is_file(folder.staged_quarantine):
        return  # there is none, or an earlier call moved it
    remove_tree(folder.bad_rows)
    with suppress(FileNotFoundError):
        os.rename(folder.staged_bad_rows, folder.bad_rows)
    os.replace(folder.staged_quarantine, folder.quarantine)


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
    if is_file(folder.staged_quarantine):
        objects.copy(folder.staged_quarantine, folder.quarantine)
        objects.remove(entry.path for entry in objects.tree(folder.bad_rows))
        objects.copy_tree(folder.staged_bad_rows, folder.bad_rows)
    _record_inputs(folder, manifest)
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
    settle(folder)
    _remove_old_listings(folder)


def _remove_old_listings(folder: JobFolder) -> None:
    for leftover in _old_listings(folder, ()):
        leftover.remove()


def recover(path: str) -> None:
    """Restores a dataset that a killed job moved aside, unless another job is working on it."""
    folder = JobFolder(path)
    # Only where this user's job moved it: reading must not change what another user, or an archive, left there.
    if not is_url(path) and not os.path.lexists(path) and os.path.lexists(folder.replaced) and _is_of_a_job(folder):
        with suppress(OutputError, JobError), hold(folder):
            pass  # `hold` settles what is pending


def _is_of_a_job(folder: JobFolder) -> bool:
    """Returns whether a job of this user made a job folder where it is; one from an archive has another inode."""
    return is_own_folder(folder.path) and any(
        is_own_folder(job.work) and begun(job).get("folder") == _inode(folder) for job in begun_jobs(folder)
    )


def _inode(folder: JobFolder) -> list[int]:
    status = os.stat(folder.path)
    return [status.st_dev, status.st_ino]


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
    settle(folder)
    for leftover in leftovers(folder, keep):
        leftover.remove()


def leftovers(folder: JobFolder, keep: str = "") -> list[Leftover]:
    """Returns what unfinished jobs left, also what `settle` would remove, except the files of job `keep`."""
    names = sorted(name for name in names_in(folder.path) if _is_staged(name) and name != f"work-{keep}")
    doomed = {source: None for source, target in pending_moves(folder) if not target}
    found = [Leftover(path) for path in (*doomed, *(os.path.join(folder.path, name) for name in names))]
    if is_url(folder.output):
        found = [*_leftover_objects(folder, keep), *found]
    return [*found, *_old_listings(folder, doomed)]


def _leftover_objects(folder: JobFolder, keep: str) -> Iterator[Leftover]:
    # Not all users may list uploads, and not all stores can: then they are left to a lifecycle rule of the bucket.
    with suppress(PermissionError):
        yield from (Leftover(url, upload) for url, upload in objects.pending([folder.output, folder.path]))
    jobs = [job for job in begun_jobs(folder) if job.direct]
    if jobs and all(job.job_id != keep for job in jobs) and not exists(folder.manifest) and exists(folder.output):
        yield Leftover(folder.output)


def _old_listings(folder: JobFolder, doomed: Collection[str]) -> Iterator[Leftover]:
    """Returns the lists of files, bad rows and notes of inputs that belong to no manifest, except `doomed` ones."""
    pattern = rf"{LISTING}|{INPUTS}|quarantine(\.jsonl)?"
    names = [name for name in names_in(folder.path) if re.fullmatch(pattern, name)]
    needed = b""
    for manifest in (folder.manifest, folder.pending_manifest, folder.replaced_manifest) if names else ():
        if manifest in doomed:
            continue
        with suppress(FileNotFoundError):
            content = read_whole(manifest)
            needed += content + _inputs_name(content).encode()
    return (Leftover(os.path.join(folder.path, name)) for name in names if _name_in_manifest(name) not in needed)


def _name_in_manifest(name: str) -> bytes:
    """Returns the name by which a manifest needs a file: that of the list for the bad rows that it lists."""
    return b"quarantine.jsonl" if name == "quarantine" else name.encode()


def _is_staged(name: str) -> bool:
    """Returns whether a name in a job folder is one that jobs remove when they end, not one that a user put there."""
    staged = r"(index|work-[0-9a-f]{16})(\.[0-9a-f]{8}\.removed)*|replaced(\.[0-9a-f]{8}\.removed)+"
    return re.fullmatch(staged, name) is not None
