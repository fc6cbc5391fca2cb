"""Prepares a job (inputs, plan, checks, folders) and cleans up afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from beam_cifar import storage
from beam_cifar.data.block import WHOLE_FILE
from beam_cifar.data.memory import give_back
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from beam_cifar.formats.contract.source import forget
from beam_cifar.formats.contract.types import Catalog
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs.in_place import keep_files
from beam_cifar.jobs.quarantine import write_quarantine
from beam_cifar.options import ConvertOptions, Input
from beam_cifar.planning.by_counts import make_plan, wanted_of
from beam_cifar.planning.by_rows import plan_by_rows
from beam_cifar.planning.chosen_rows import write_chosen, write_moves
from beam_cifar.planning.moves import moves_of, rereads
from beam_cifar.planning.plan import Plan
from beam_cifar.planning.quarantine import LISTING, bad_count
from beam_cifar.planning.survey import Survey, survey
from beam_cifar.version import __version__


@dataclass(frozen=True)
class Job:
    """A conversion that is ready to run.

    Attributes:
        options: options of the conversion.
        plan: what the job will do.
        folder: folder where it is staged.
        facts: contents of the manifest that are known before the start.
        done: whether an earlier, interrupted run already finished it.
        resumed: whether it continues an interrupted run of the same plan, whose finished parts are kept.
        finished: accounts (`PartInfo`) of those parts.
    """

    options: ConvertOptions
    plan: Plan
    folder: storage.JobFolder
    facts: dict[str, Any]
    done: bool = False
    resumed: bool = False
    finished: tuple[Any, ...] = ()


class prepare:  # noqa: N801 (used as a function)
    """Context manager that plans a job and locks its folder until exit; a failure leaves nothing behind.

    Raises:
        BeamCifarError: on entering, for anything that can be rejected before the start.
    """

    def __init__(self, options: ConvertOptions) -> None:
        self._options = _located(options)
        self._stack = ExitStack()

    def __enter__(self) -> Job:
        options = self._options
        folder = storage.JobFolder(options.output_dir, run=uuid.uuid4().hex)
        _check_places(folder, options)
        self._stack.callback(_remove_empty, _missing_parents(options.output_dir))
        try:
            with storage.writing(folder.path):
                pending, unfinished = storage.exists(folder.pending_manifest), storage.is_unfinished(folder)
            held = self._stack.enter_context(storage.hold(folder))
            # An output that must not be replaced: if it is that of this job, only its clean-up is left to do.
            spared = not options.overwrite and storage.is_occupied(folder.output) and storage.exists(folder.manifest)
            may_be_done = options.resume or pending or (spared and unfinished)
            if options.resume or spared:
                if not storage.exists(folder.index):
                    self._stack.callback(storage.remove_tree, folder.index)
            else:
                self._stack.callback(_clear, folder, held)
                with storage.writing(folder.path):
                    storage.clear_leftovers(folder)
            job = _plan(options, folder, held, may_be_done=may_be_done)
            if options.resume or spared:
                self._stack.callback(_clear, folder, held, keep="" if job.done else job.folder.job_id)
            self._stack.callback(folder.guard.end)  # before anything is removed
            return job
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        forget()
        self._stack.close()


def _clear(folder: storage.JobFolder, held: storage.Holding, keep: str = "") -> None:
    with suppress(OSError):
        if not held.is_lost():
            storage.clear_leftovers(folder, keep=keep)


@contextmanager
def rehearsed(options: ConvertOptions) -> Iterator[Job]:
    """Yields a job like `prepare`, but only for translation: nothing is written where its output would be.

    Raises:
        BeamCifarError: on entering, for anything that can be rejected before the start.
    """
    options = _located(options)
    folder = storage.JobFolder(options.output_dir)
    _check_places(folder, options)
    with storage.TemporaryFolder() as index_dir:
        job, _ = _planned(options, folder, index_dir)
        yield replace(job, plan=job.plan.stored())


def _located(options: ConvertOptions) -> ConvertOptions:
    """Returns the options with absolute paths."""
    given = _absolute(options.input)
    output = output_path(options.output_dir)
    return replace(options, input_path=given.path, merged=given.merged, output_dir=output)


def _check_places(folder: storage.JobFolder, options: ConvertOptions) -> None:
    """Raises an error for missing inputs, or for an output that must not be written."""
    get_sink(options.output_format).check(options)
    for each in options.input.leaves:
        if options.kept is None:
            storage.check_apart(each.path, options.output_dir)
        storage.recover(each.path)
        if not storage.exists(each.path):
            raise InputError(f"{each.path}: no such file or directory")
    _refuse_occupied(folder, options)


def _absolute(given: Input) -> Input:
    """Returns the input with absolute paths."""
    path = storage.absolute(given.path, "input") if given.path or not given.merged else ""
    return replace(given, path=path, merged=tuple(map(_absolute, given.merged)))


def plan_only(options: ConvertOptions, index_dir: str) -> tuple[tuple[Survey, ...], Plan]:
    """Returns surveys of the inputs and the plan of a job, without touching the output."""
    sink = get_sink(options.output_format)
    sink.check(options)
    if options.by_rows:
        return _by_rows(options, index_dir)
    given, wanted = options.input, wanted_of(sink, options)
    found = survey(given.path, given.format, given.subsets, index_dir, wanted, images=given.images)
    plan = make_plan(found.catalog, found.summaries, sink, options)
    if options.limit is None and rereads(plan.tasks, found.summaries):  # a limit leaves out subsets, and stops early
        surveys, moved = _by_rows(options, index_dir)
        if moved.moves.spills:
            return surveys, moved
    return (found,), plan


def _by_rows(options: ConvertOptions, index_dir: str) -> tuple[tuple[Survey, ...], Plan]:
    surveys, plan = plan_by_rows(options, get_sink(options.output_format), index_dir)
    if options.kept is not None:
        plan = keep_files(plan, options)
    written = {task.chosen for task in plan.tasks if not task.copy and task.chosen is not None}
    summaries = [summary for survey in surveys for summary in survey.summaries]
    if plan.chosen is not None:
        plan = replace(plan, moves=moves_of(plan.chosen, written, summaries, plan.file_bytes))
    return surveys, plan


def _plan(options: ConvertOptions, folder: storage.JobFolder, held: storage.Holding, *, may_be_done: bool) -> Job:
    storage.make_folder(folder.index)
    job, surveys = _planned(options, folder, folder.index)
    inputs = _inputs_digest([found.catalog for found in surveys])
    with storage.writing(folder.path):
        job = _compared(job, inputs, may_be_done=may_be_done)
        if not job.done:
            _refuse_full_disk(job.plan, job.folder, options)
            if held.is_lost():  # for example if the machine was asleep while planning
                raise OutputError(f"{folder.output}: another job has since locked it; try again when that has ended")
            storage.begin(job.folder, inputs)
            if job.plan.chosen is not None:
                write_chosen(job.plan.chosen, job.folder.rows, job.folder.scratch)
            if job.plan.set_aside:
                write_quarantine(job.plan, job.folder, keep=options.keep_bad_rows)
            if job.plan.moves.spills:
                write_moves(job.plan.moves, job.folder.moves, job.folder.scratch)
    if job.plan.chosen is not None:
        forget()  # the facts of all rows; tasks map the few that they need
    give_back()
    return replace(job, plan=job.plan.stored())


def _compared(job: Job, inputs: str, *, may_be_done: bool) -> Job:
    """Returns the job compared with what is there: whether it is done, or resumes an earlier run of it.

    Raises:
        OutputError: an output that must not be replaced is there, or an interrupted job that differs.
    """
    options, folder = job.options, job.folder
    done = may_be_done and _is_same_job(folder, job.facts, inputs) and storage.is_complete(folder)
    if done and not options.resume:  # what another job has left is not for a plain command to remove
        done = all(each.job_id == folder.job_id for each in storage.begun_jobs(folder))
    begun = None if done or not options.resume else _begun_before(folder, inputs)
    # Objects are written to their final place if nothing is replaced: stores cannot rename, only copy.
    direct = begun.direct if begun else storage.is_url(folder.output) and not storage.is_occupied(folder.output)
    folder = replace(folder, direct=direct, guarded=storage.is_url(folder.output))
    if storage.is_occupied(folder.output) and not (options.overwrite or done or folder.direct):
        raise _occupied(folder.output)
    if options.resume and not (done or begun):
        storage.remove_tree(folder.work)  # without the record of its start, it may be from other inputs
    return replace(job, folder=folder, done=done, resumed=begun is not None)


def _planned(options: ConvertOptions, folder: storage.JobFolder, index_dir: str) -> tuple[Job, tuple[Survey, ...]]:
    surveys, plan = plan_only(options, index_dir)
    summaries = [summary for found in surveys for summary in found.summaries]
    meaning = {**options.meaning(), "input_format": surveys[0].catalog.format}
    folder = replace(folder, job_id=plan.digest(summaries, meaning))
    facts = {
        "beam_cifar": __version__,
        "job": folder.job_id,
        "source": " + ".join(found.catalog.title for found in surveys),
        "options": meaning,
        "inputs": [
            {"name": s.file.name, "bytes": s.file.blob.size, "rows": s.rows, "sha256_without_pixels": s.digest}
            for s in summaries
        ],
        "libraries": libraries(),
        "losses": list(plan.losses),
    }
    if plan.set_aside:  # no digest of the list: it has the paths of the input
        lost = len(plan.set_aside.get(WHOLE_FILE, ()))
        facts["quarantine"] = {
            "listing": LISTING,
            "rows": bad_count(plan.set_aside),
            **({"files": lost} if lost else {}),
        }
    return Job(options, plan, folder, facts), surveys


def _inputs_digest(catalogs: Sequence[Catalog]) -> str:
    """Returns a digest of the identities of all input files (the plan covers no pixels), of this program and libraries.

    Compared for equality: a file restored from a backup is older than the output, and may have other pixels.
    """
    files = [file for catalog in catalogs for file in (*catalog.files, *catalog.meta_files)]
    stamps = [blob.stamp for file in files for blob in (file.blob, *file.beside)]
    identities = [(size, identity) for size, _, identity in stamps]
    return hashlib.sha256(repr((identities, __version__, libraries())).encode()).hexdigest()


def _begun_before(folder: storage.JobFolder, inputs: str) -> storage.JobFolder | None:
    """Returns the folder of an interrupted run of the same job, or None; raises `OutputError` if the job differs."""
    for job in storage.begun_jobs(folder):
        if job.job_id != folder.job_id:
            why = "the interrupted job used different options or inputs"
        elif storage.begun(job).get("inputs") != inputs:
            why = "an input file, this program or a library has changed since the interrupted job started"
        else:
            return job
        raise OutputError(f"{folder.output}: {why}; omit --resume to start over")
    return None


def _is_same_job(folder: storage.JobFolder, facts: dict[str, Any], inputs: str) -> bool:
    """Returns whether the output is that of a job with the same facts, from the same input files."""
    try:
        told = json.loads(storage.read_whole(folder.manifest))
        # Through JSON, because tuples in the facts are lists in the manifest.
        same = {key: told[key] for key in facts} == json.loads(json.dumps(facts))
        return same and storage.recorded_inputs(folder) == inputs
    except (*storage.MISSING, *storage.DAMAGED):
        return False


def output_path(path: str) -> str:
    """Returns the absolute path of an output; raises `UsageError` if it cannot be created."""
    path = storage.absolute(path, "output")
    if storage.is_url(path):
        if path.count("/") < 3:
            raise UsageError(f"the output {path!r} is a whole bucket; choose a folder in it, such as {path}/data")
        return path
    path = os.path.realpath(path) if os.path.islink(path) else path
    if os.path.ismount(path):
        raise UsageError(f"the output {path!r} is a mount point, which cannot be replaced; choose a folder in it")
    if os.path.join(os.path.expanduser("~"), "").startswith(os.path.join(path, "")):
        raise UsageError(f"the output {path!r} contains your home directory; choose a folder in it")
    if len(os.fsencode(os.path.basename(path))) > 200:
        raise UsageError(f"the output name {os.path.basename(path)[:40]!r}... is too long; at most 200 bytes")
    return path


def _refuse_occupied(folder: storage.JobFolder, options: ConvertOptions) -> None:
    """Raises `OutputError` for an existing output, unless a killed publish may have left it."""
    if storage.is_file(folder.output) or (storage.exists(folder.output) and not storage.is_folder(folder.output)):
        raise OutputError(f"{folder.output}: exists and is not a directory; choose another output")
    may_go_on = options.overwrite or options.resume
    if storage.is_occupied(folder.output) and not may_go_on and not storage.is_unfinished(folder):
        raise _occupied(folder.output)


def _occupied(output: str) -> OutputError:
    return OutputError(f"{output}: exists and is not empty; pass --overwrite to replace it, or choose another output")


def _refuse_full_disk(plan: Plan, folder: storage.JobFolder, options: ConvertOptions) -> None:
    needed = get_sink(options.output_format).estimate_bytes(plan.rows, plan.image_bytes, plan.sink)
    needed += plan.moves.bytes
    # Checked before the start, because on a full disk Beam would retry tasks again and again.
    free = storage.free_bytes(folder.path) + _staged_bytes(folder)
    if needed > free:
        raise JobError(
            f"{folder.output}: the disk has {free >> 10:,} KiB free, but the output needs about {needed >> 10:,} KiB; "
            "nothing was written"
        )


def _staged_bytes(folder: storage.JobFolder) -> int:
    """Returns the bytes that an interrupted run has written, which this run will reuse or replace."""
    if not storage.is_url(folder.work):
        with suppress(OSError):
            return sum(size for _, size in storage.file_sizes(folder.work))
    return 0


def _remove_empty(folders: list[str]) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


def _missing_parents(path: str) -> list[str]:
    """Returns parent folders of the output that do not exist yet, innermost first: a failed job removes them again."""
    missing: list[str] = []
    while not storage.is_url(path) and not storage.exists(path := os.path.dirname(path)):
        missing.append(path)
    return missing


def libraries() -> dict[str, str]:
    """Returns the versions that the bytes of the output may depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "pillow", "pyarrow", "isal")} | {"machine": platform.machine()}
