"""The job folder, `OUT.beam_cifar/`, where a job is staged."""

from __future__ import annotations

import os
from dataclasses import dataclass

from beam_cifar.errors import UsageError
from beam_cifar.storage.files import is_file
from beam_cifar.storage.guard import Guard
from beam_cifar.storage.paths import contains, is_url
from beam_cifar.storage.staging import StagedFile


class _Place:
    """A path in a job folder, or in its `work` folder, which is removed when the job ends."""

    def __init__(self, name: str, *, in_work: bool = False) -> None:
        self._name, self._in_work = name, in_work

    def __get__(self, folder: JobFolder, _: object = None) -> str:
        return os.path.join(folder.work if self._in_work else folder.path, self._name)


@dataclass(frozen=True)
class JobFolder:
    """`OUT.beam_cifar/`, beside the output: all files of a job that are not part of the dataset.

    Attributes:
        output: absolute path of the output directory, or its URL.
        job_id: a hash of the plan.
        guarded: whether files may be written only while the `begun` file exists.
        run: unique token of this run of the job; nothing is named after it.
        direct: whether files are written directly to the output: in an object store, which cannot rename files, if
            the output did not exist before.
    """

    output: str
    job_id: str = ""
    direct: bool = False
    guarded: bool = False
    run: str = ""

    manifest = _Place("manifest.json")
    """The manifest; exists if and only if the output is complete."""
    pending_manifest = _Place("manifest.pending.json")
    """The new manifest, written before the tree is moved into place."""
    replaced_manifest = _Place("manifest.replaced.json")
    """The manifest of an overwritten output, until the new one is in place."""
    replaced = _Place("replaced")
    """An overwritten output, until the new one is in place."""
    quarantine = _Place("quarantine.jsonl")
    """The list of bad rows that were set aside."""
    staged_quarantine = _Place("quarantine.jsonl", in_work=True)
    """The same, before publishing."""
    bad_rows = _Place("quarantine")
    """The bytes of these rows, if they are kept; the files are named after their line in the list."""
    staged_bad_rows = _Place("quarantine", in_work=True)
    """The same, before publishing."""
    index = _Place("index")
    """Indexes of input files and compressed archives, while the job runs."""
    begun = _Place("begun.json", in_work=True)
    """Facts about the job, written before its first file; once this file is removed, the job may no longer write."""
    accounts = _Place("accounts", in_work=True)
    """The accounts of finished parts."""
    parts = _Place("parts", in_work=True)
    """Parts that publishing joins into shards."""
    scratch = _Place("scratch", in_work=True)
    """Files being written, before they get their final names."""
    rows = _Place("rows.arrow", in_work=True)
    """The rows that the plan chose one by one."""
    moves = _Place("moves.arrow", in_work=True)
    """Which rows are moved to which part before the parts are written."""
    spills = _Place("spills", in_work=True)
    """Those rows, once they are moved."""
    arrivals = _Place("arrivals", in_work=True)
    """Examples of a pipeline, before it is known where each one goes."""

    @property
    def path(self) -> str:
        """The folder itself."""
        # Beside the output, not inside it: Datumaro refuses a CIFAR directory with a `_SUCCESS` file or hidden folder.
        return self.output + ".beam_cifar"

    @property
    def work(self) -> str:
        """Folder of everything that is removed when the job ends."""
        return os.path.join(self.path, f"work-{self.job_id}")

    @property
    def tree(self) -> str:
        """The staged dataset, which one rename makes the output; the output itself if written directly."""
        return self.output if self.direct else os.path.join(self.work, "tree")

    @property
    def guard(self) -> Guard:
        """Permission to write, so that a job that ended or lost its output to another cannot damage it."""
        return Guard(self.begun if self.guarded else "", self.run)

    def stage(self, path: str, *, hashed: bool = True) -> StagedFile:
        """Opens a new file of the job, which appears at `path` when committed, unless the job may no longer write."""
        return StagedFile(path, self.scratch, self.guard, hashed=hashed)

    def listing(self, name: str) -> str:
        """Returns the path of a list of output files that the manifest refers to; staged until that is written."""
        published = os.path.join(self.path, name)
        return published if is_file(published) else self.staged_listing(name)

    def staged_listing(self, name: str) -> str:
        """Returns the path of such a list before publishing."""
        return os.path.join(self.work, name)


def check_apart(source: str, output: str) -> None:
    """Raises `UsageError` if the output is the input, inside it, or contains it."""
    if is_url(source) != is_url(output):
        return
    folder = JobFolder(output).path
    real_source, real_output, real_folder = (
        path if is_url(path) else os.path.realpath(path) for path in (source, output, folder)
    )
    if not is_url(output) and (os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder))):
        raise UsageError(f"{folder!r}, the staging directory, is not a directory; choose another output")
    if real_source == real_folder or contains(real_folder, real_source):
        raise UsageError(f"the input {source!r} is in the staging directory of {output!r}; choose another output")
    if real_source == real_output:
        raise UsageError(f"the output {output!r} is the input itself; choose another output")
    if contains(real_source, real_output):
        raise UsageError(f"the output {output!r} is inside the input {source!r}; choose another output")
    if contains(real_output, real_source):
        raise UsageError(f"the input {source!r} is inside the output {output!r}; choose another output")
