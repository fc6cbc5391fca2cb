"""Publishing: the staged tree becomes the output, the manifest comes last; leftovers of killed jobs go."""

from __future__ import annotations

import json
import os
import re
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
from beam_cifar.storage.staging import refuse_cancelled, refuse_lost, write_whole


def begin(folder: JobFolder, inputs: str) -> None:
    """Writes down that a job begins: from now on what it writes can be told from what others wrote.

    `inputs` is a digest of the input files, as they are now.
    """
    if folder.direct:
        objects.remove([folder.manifest])  # of an output that somebody has removed: it must not vouch for this one
    begun = {"job": folder.job_id, "direct": folder.direct, "inputs": inputs}
    write_whole(folder.begun, json.dumps(begun).encode(), folder.scratch)


def begun(folder: JobFolder) -> dict[str, Any]:
    """What a job wrote when it began; nothing if it did not, or was cleaned up."""
    with suppress(OSError):
        return json_object(read_whole(folder.begun))
    return {}


def begun_jobs(folder: JobFolder) -> list[JobFolder]:
    """The jobs that began in a job folder, and neither ended nor were cleaned up."""
    ids = (name.removeprefix("work-") for name in names_in(folder.path) if name.startswith("work-"))
    jobs = [JobFolder(folder.output, job_id) for job_id in ids if not job_id.endswith(".removed")]
    return [replace(job, direct=bool(facts.get("direct"))) for job in jobs if (facts := begun(job))]


def is_unfinished(folder: JobFolder) -> bool:
    """Whether what lies at the output may be that of a killed job, and not yet complete."""
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
    """Makes the staged tree the output, by one rename where there is such a thing, then writes the manifest.

    Each step leaves a state from which the same call, or `restore` and a new job, goes on.

    Args:
        folder: of the job.
        manifest: its content.
        is_ours: whether an output is the one of a manifest, left by an earlier call.
        overwrite: whether any other output may be replaced.
        listings: what lists of files the manifest names.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    refuse_cancelled()
    if is_url(folder.output):
        _publish_objects(folder, manifest, overwrite=overwrite, listings=listings)
        return
    occupied = is_occupied(folder.output)
    ours = occupied and is_ours(folder.output, manifest)
    if occupied and not ours and not overwrite:
        raise OutputError(f"{folder.output}: something appeared there while the job ran; nothing was replaced")
    for name in listings:
        with suppress(FileNotFoundError):
            os.replace(folder.staged_listing(name), os.path.join(folder.path, name))
    write_whole(folder.pending_manifest, manifest, folder.scratch)
    if ours:
        promote(folder)  # an earlier call got this far, or further
        return
    if occupied:
        with suppress(FileNotFoundError):
            os.unlink(folder.replaced_manifest)  # of what an unfinished publish replaced: never of what is there now
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
    # One rename of the folder, not one of each file: killed half way, those would leave half a dataset.
    os.rename(folder.tree, folder.output)
    promote(folder)


def _publish_objects(folder: JobFolder, manifest: bytes, *, overwrite: bool, listings: Sequence[str]) -> None:
    """The same for objects, which lie in their places, or are copied to them over those of the output before."""
    if not has_content(folder.manifest, manifest):
        refuse_lost(folder.guard)
    if not folder.direct:
        if is_occupied(folder.output) and not overwrite:
            raise OutputError(f"{folder.output}: something appeared there while the job ran; nothing was replaced")
        objects.remove([folder.manifest])  # or nothing is touched: from now on the output is not complete
        objects.copy_tree(folder.tree, folder.output)
        objects.remove(_not_in(folder.tree, folder.output))
    for name in listings:
        if is_file(folder.staged_listing(name)):
            objects.copy(folder.staged_listing(name), f"{folder.path}/{name}")
    write_whole(folder.manifest, manifest, folder.scratch)
    _remove_old_listings(folder)


def _not_in(tree: str, output: str) -> Iterator[str]:
    """URLs of the objects of a folder that another has none of the name of; both are listed in order."""
    wanted = objects.tree(tree)
    name = next((entry.name for entry in wanted), None)
    for entry in objects.tree(output):
        while name is not None and name.encode() < entry.name.encode():
            name = next((entry.name for entry in wanted), None)
        if name != entry.name:
            yield entry.path


def promote(folder: JobFolder) -> None:
    """The last step of publishing: the pending manifest becomes the manifest, what was replaced goes."""
    os.replace(folder.pending_manifest, folder.manifest)
    with suppress(FileNotFoundError):
        os.unlink(folder.replaced_manifest)
    remove_tree(folder.replaced)
    _remove_old_listings(folder)


def _remove_old_listings(folder: JobFolder) -> None:
    for leftover in _old_listings(folder, _needed(folder)):
        leftover.remove()


def recover(path: str) -> None:
    """Puts back a dataset that a killed job had moved aside from its place, unless another job is at it."""
    folder = JobFolder(path)
    if not is_url(path) and not os.path.lexists(path) and os.path.isdir(folder.replaced):
        with suppress(OutputError, JobError), hold(folder):
            restore(folder)


def restore(folder: JobFolder) -> None:
    """Puts back an output that a killed job had moved aside, and not yet replaced, with its manifest."""
    if is_url(folder.output):
        return  # nothing is moved there
    if os.path.lexists(folder.replaced) and not os.path.lexists(folder.output):
        os.rename(folder.replaced, folder.output)
    if not os.path.lexists(folder.replaced) and os.path.lexists(folder.replaced_manifest):
        os.replace(folder.replaced_manifest, folder.manifest)


@dataclass(frozen=True)
class Leftover:
    """Something that a job which did not end has left.

    Attributes:
        path: of a file or a folder.
        upload: the id, where it is an upload that was not completed.
    """

    path: str
    upload: str = ""

    def remove(self) -> None:
        """Removes it, best effort; raises `OSError` only for objects in the place of an output."""
        if self.upload:
            with suppress(OSError):
                objects.abort(self.path, self.upload)
        elif is_folder(self.path) and not os.path.islink(self.path):
            if is_url(self.path):  # an error here keeps what tells whose they are, which goes after them
                objects.remove(entry.path for entry in objects.tree(self.path))
            else:
                remove_tree(self.path)
        else:
            remove_file(self.path)


def clear_leftovers(folder: JobFolder, keep: str = "") -> None:
    """Removes what this job, or killed ones before it, staged; see `leftovers` for what is kept."""
    restore(folder)
    for leftover in leftovers(folder, keep):
        leftover.remove()


def leftovers(folder: JobFolder, keep: str = "", *, pending: bool = True) -> list[Leftover]:
    """What jobs that did not end have left; not what an unfinished publish needs, nor the parts of the job `keep`.

    A pending manifest is kept if `pending`: it may be that of the output.
    """
    needed = _needed(folder, pending=pending)
    kept = {"lock", f"work-{keep}"} | {os.path.basename(path) for path in needed}
    found = [Leftover(os.path.join(folder.path, name)) for name in sorted(names_in(folder.path)) if _is_own(name, kept)]
    if is_url(folder.output):
        found = [*_leftover_objects(folder, keep), *found]
    return [*found, *_old_listings(folder, needed)]


def _needed(folder: JobFolder, *, pending: bool = True) -> list[str]:
    """What is no leftover: the manifest, and what completes an unfinished publish or puts back what it moved aside."""
    there, complete = exists(folder.output), exists(folder.manifest)
    needed = [folder.manifest]
    if not (there and complete):
        needed += [folder.replaced, folder.replaced_manifest]
    if there and not complete and pending:
        needed.append(folder.pending_manifest)
    return needed


def _leftover_objects(folder: JobFolder, keep: str) -> Iterator[Leftover]:
    # Not everybody may list them, nor can every store: then they are left to a rule of the bucket.
    with suppress(PermissionError):
        yield from (Leftover(url, upload) for url, upload in objects.pending([folder.output, folder.path]))
    jobs = [job for job in begun_jobs(folder) if job.direct]
    if jobs and all(job.job_id != keep for job in jobs) and not exists(folder.manifest) and exists(folder.output):
        yield Leftover(folder.output)


def _old_listings(folder: JobFolder, needed: Collection[str]) -> Iterator[Leftover]:
    """The lists that no manifest names which is needed."""
    names = [name for name in names_in(folder.path) if re.fullmatch(r"files-[0-9a-f]{16}\.jsonl", name)]
    named = b""
    for manifest in (folder.manifest, folder.pending_manifest, folder.replaced_manifest) if names else ():
        if manifest not in needed:
            continue
        with suppress(FileNotFoundError):
            named += read_whole(manifest)
    return (Leftover(os.path.join(folder.path, name)) for name in names if name.encode() not in named)


def _is_own(name: str, kept: set[str]) -> bool:
    """Whether a name in a job folder is one that this module gives; whatever else lies there is somebody's."""
    own = r"(index|replaced|work-[0-9a-f]{16})(\.[0-9a-f]{8}\.removed)*|manifest\.(pending|replaced)\.json"
    return name not in kept and re.fullmatch(own, name) is not None
