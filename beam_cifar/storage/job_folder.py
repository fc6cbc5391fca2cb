"""The job folder, `OUT.beam_cifar/`: where a job is staged."""

from __future__ import annotations

import os
from dataclasses import dataclass

from beam_cifar.errors import UsageError
from beam_cifar.storage.files import is_file
from beam_cifar.storage.paths import contains, is_url
from beam_cifar.storage.staging import StagedFile


class _Place:
    """A path in a job folder, or in the part of it that goes when the job ends."""

    def __init__(self, name: str, *, in_work: bool = False) -> None:
        self._name, self._in_work = name, in_work

    def __get__(self, folder: JobFolder, _: object = None) -> str:
        return os.path.join(folder.work if self._in_work else folder.path, self._name)


@dataclass(frozen=True)
class JobFolder:
    """`OUT.beam_cifar/`, beside the output: everything of a job that is not the dataset.

    Attributes:
        output: absolute path of the output directory, or its URL.
        job_id: a hash of the plan.
        guarded: whether files may only be written as long as the note of the job's beginning is there.
        direct: whether files are written to their places in the output at once: in an object store, where a file
            cannot be renamed, if there was nothing before.
    """

    output: str
    job_id: str = ""
    direct: bool = False
    guarded: bool = False

    manifest = _Place("manifest.json")
    """Present exactly when the output is complete."""
    pending_manifest = _Place("manifest.pending.json")
    """Written before the tree is moved into place."""
    replaced_manifest = _Place("manifest.replaced.json")
    """The manifest of an overwritten output, until the new one is in place."""
    replaced = _Place("replaced")
    """Where an overwritten output waits until the new one is in place."""
    index = _Place("index")
    """Where indexes of compressed archives lie while the job runs."""
    begun = _Place("begun.json", in_work=True)
    """What a job says of itself before its first file; with it goes the right to write."""
    accounts = _Place("accounts", in_work=True)
    """Where each finished part leaves an account."""
    parts = _Place("parts", in_work=True)
    """Parts that publish joins into shards."""
    scratch = _Place("scratch", in_work=True)
    """Where files are written before they get their final names."""
    rows = _Place("rows.arrow", in_work=True)
    """Where rows that the plan chose one by one are written down."""

    @property
    def path(self) -> str:
        """The folder itself."""
        # Beside the output, not in it: a stray `_SUCCESS` or hidden folder makes Datumaro refuse a CIFAR directory.
        return self.output + ".beam_cifar"

    @property
    def work(self) -> str:
        """Everything that is removed when the job ends."""
        return os.path.join(self.path, f"work-{self.job_id}")

    @property
    def tree(self) -> str:
        """The staged dataset, which becomes the output by one rename; the output itself if it is written directly."""
        return self.output if self.direct else os.path.join(self.work, "tree")

    @property
    def guard(self) -> str:
        """What must be there for a file to be written: a job that goes on after it lost its output must not harm it."""
        return self.begun if self.guarded else ""

    def stage(self, path: str) -> StagedFile:
        """Starts a file of the job, which appears at a path when it is committed, unless the job lost its output."""
        return StagedFile(path, self.scratch, self.guard)

    def listing(self, name: str) -> str:
        """A list of many files of the output, which a manifest names; staged until that is written."""
        published = os.path.join(self.path, name)
        return published if is_file(published) else self.staged_listing(name)

    def staged_listing(self, name: str) -> str:
        """Where such a list waits."""
        return os.path.join(self.work, name)


def check_apart(source: str, output: str) -> None:
    """Refuses an output that is the input, inside it, or around it."""
    if is_url(source) != is_url(output):
        return
    folder = JobFolder(output).path
    real_source, real_output, real_folder = (
        path if is_url(path) else os.path.realpath(path) for path in (source, output, folder)
    )
    if not is_url(output) and (os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder))):
        raise UsageError(f"{folder!r}, where the job is staged, is not a directory; choose another output")
    if real_source == real_folder or contains(real_folder, real_source):
        raise UsageError(f"the input {source!r} lies where a job for {output!r} is staged; choose another output")
    if real_source == real_output:
        raise UsageError(f"the output {output!r} is the input itself; choose another one")
    if contains(real_source, real_output):
        raise UsageError(f"the output {output!r} is inside the input {source!r}; choose one outside it")
    if contains(real_output, real_source):
        raise UsageError(f"the input {source!r} is inside the output {output!r}; choose another output")
