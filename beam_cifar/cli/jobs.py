"""How a command runs a job: its options, Beam's options, the job itself, and the printed result."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.parser import Parser, list_flags
from beam_cifar.cli.terminal import Progress, print_notices, print_result, scratch_folder
from beam_cifar.data.labels import unknown_name
from beam_cifar.data.memory import share_heap
from beam_cifar.data.text import counted
from beam_cifar.errors import RowError, UsageError
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.formats.registry import READ
from beam_cifar.images.options import ImageOptions
from beam_cifar.options import ConvertOptions, Input
from beam_cifar.pipeline.imports import beam_imports, quiet_workers
from beam_cifar.steps.registry import make_step, parse_call

if TYPE_CHECKING:
    from beam_cifar.jobs.prepare import Job
    from beam_cifar.jobs.summary import Summary
    from beam_cifar.pipeline.runners import ParsedOptions
    from beam_cifar.planning.plan import Plan, Task
    from beam_cifar.steps.base import Step

MAX_GRAPH = 10 << 20
"""Bytes; the largest job graph that Dataflow accepts."""


def perform(arguments: argparse.Namespace, options: ConvertOptions) -> None:
    """Runs a job and prints its summary; with `--plan`, prints the plan instead."""
    started_at = time.monotonic()
    if arguments.plan:
        if arguments.beam_options:
            beam_options_of(arguments)  # refuses unknown flags
        return _print_plan(arguments, options)
    beam_options = beam_options_of(arguments)
    share_heap()
    from beam_cifar.pipeline.convert import convert
    from beam_cifar.pipeline.runners import is_dry_run

    if is_dry_run(beam_options):
        return _print_translation(arguments, options, beam_options)
    said: list[str] = []
    with quiet_workers(verbose=arguments.verbose) as terminal, Progress(terminal) as progress:

        def started(job: Job) -> None:
            said.extend(job.plan.notices)
            print_notices(said, terminal)
            progress.start(job)

        try:
            summary = convert(options, beam_options, on_start=started)
        except RowError as error:
            raise RowError(f"{error}; leave out such rows with --on-error quarantine, or with --filter") from error
    summary = replace(summary, seconds=round(time.monotonic() - started_at, 3))
    fields = asdict(summary)
    names = "version format output read written filtered quarantined quarantined_files subsets labels seconds losses"
    print_result(arguments, {name: fields[name] for name in names.split()}, _described(summary))
    print_notices(notice for notice in summary.notices if notice not in said)


def beam_options_of(arguments: argparse.Namespace) -> ParsedOptions:
    """Beam's options for a command that runs a pipeline: its flags and the number of workers. Raises `UsageError`."""
    # The whole pipeline is imported here, while `beam_imports` keeps Beam from importing modules that we do not need.
    with beam_imports(arguments.beam_options, verbose=arguments.verbose):
        from beam_cifar.pipeline import convert as pipeline  # noqa: F401
        from beam_cifar.pipeline import runners as runner
    return runner.pipeline_options(arguments.beam_options, arguments.workers, list_flags(arguments.parser))


@contextmanager
def reading_job(arguments: argparse.Namespace) -> Iterator[ParsedOptions]:
    """Yields Beam's options for a command that only reads, with worker output silenced. Raises `UsageError`."""
    options = beam_options_of(arguments)
    with quiet_workers(verbose=arguments.verbose):
        yield options


def _print_translation(arguments: argparse.Namespace, options: ConvertOptions, beam_options: ParsedOptions) -> None:
    from beam_cifar.pipeline.convert import translate
    from beam_cifar.pipeline.runners import obstacles

    with quiet_workers(verbose=arguments.verbose):
        job, result = translate(options, beam_options)
        size = result.job.proto_pipeline.ByteSize()
    print_notices(job.plan.notices)
    print_notices(obstacles(options, beam_options))
    if size > MAX_GRAPH:
        limit = f"over Dataflow's limit of {MAX_GRAPH >> 20} MB; split the conversion"
        print_notices([f"the job graph has {size / 1e6:.1f} MB, {limit}"])
    facts = {"translated": True, "tasks": len(job.plan.tasks), "bytes": size}
    tasks = counted(len(job.plan.tasks), "task")
    text = f"translated the job for Dataflow, without running it: {tasks}, {size:,} bytes"
    print_result(arguments, facts, [text])


def _print_plan(arguments: argparse.Namespace, options: ConvertOptions) -> None:
    from beam_cifar.jobs.prepare import plan_only

    with scratch_folder(arguments) as folder:
        surveys, plan = plan_only(options, folder)
    title = " + ".join(found.catalog.title for found in surveys)
    if not arguments.json:
        print_notices(plan.notices)
    print_result(arguments, _plan_facts(options, plan, title), _plan_lines(plan, title))


def _plan_lines(plan: Plan, title: str) -> Iterator[str]:
    declared, files, rows = counted(plan.declared, "row"), counted(len(plan.files), "file"), counted(plan.rows, "row")
    yield f"{title}: {declared} in {files}; {rows} will be written"
    for shard in plan.shards:
        tasks = [task for task in plan.tasks if task.shard == shard.index]
        sources = dict.fromkeys(plan.files[number].name for task in tasks for number in _files_of(task, plan))
        how = "copied from" if tasks[0].copy else "from"
        yield f"  {shard.path or shard.subset}: {counted(shard.rows, 'row')} {how} {', '.join(sources)}"
    if plan.moves.spills:
        moved = f"{counted(len(plan.moves.spills), 'spill')}, about {plan.moves.bytes / 1e6:,.0f} MB"
        yield f"  before that, rows are moved through {moved}"


def _files_of(task: Task, plan: Plan) -> list[int]:
    """Numbers of the files that a task reads, in order."""
    if task.chosen is None or task.copy or plan.chosen is None:
        return [segment.file for segment in task.segments]
    return sorted(set(plan.chosen.view.files[plan.chosen.parts[task.chosen]].tolist()))


def _plan_facts(options: ConvertOptions, plan: Plan, source: str) -> dict[str, object]:
    return {
        "source": source,
        "options": options.meaning(),
        "declared": plan.declared,
        "written": plan.rows,
        "labels": list(plan.label_map.table.names),
        "shards": [asdict(shard) for shard in plan.shards],
        "tasks": [asdict(task) for task in plan.tasks],
        "spills": len(plan.moves.spills),
        "spill_bytes": plan.moves.bytes,
        "losses": list(plan.losses),
        "notices": list(plan.notices),
    }


def _described(summary: Summary) -> list[str]:
    rate = summary.written / max(summary.seconds, 1e-9)
    subsets = ", ".join(f"{name} {rows:,}" for name, rows in summary.subsets.items())
    what, files, end = counted(summary.written, "image"), counted(summary.files, "file"), ""
    if "pixels" in summary.losses:
        what, end = f"the labels of {what}", ", without pixels; `-- --save-images` writes them"
    lines = [
        f"wrote {what} as {summary.format} to {summary.output}{end}",
        f"  {subsets}",
        f"  {files}, {summary.bytes / 1e6:,.1f} MB, in {summary.seconds:.1f} s ({rate:,.0f} images/s)",
    ]
    if summary.filtered or summary.quarantined:
        lines.append(f"  read {summary.read:,}, filtered {summary.filtered:,}, quarantined {summary.quarantined:,}")
    if summary.quarantined_files:
        lines.append(f"  without {counted(summary.quarantined_files, 'input file')} that cannot be read")
    return lines


def input_of(text: str) -> Input:
    """The dataset given as "PATH" or "PATH:FORMAT"; text that names an existing file is a path."""
    # Split from the right, and only before a known format: paths and URLs may contain colons.
    path, colon, name = text.rpartition(":")
    if not colon or not path or "/" in name or os.path.lexists(os.path.expanduser(text)):
        return Input(text)
    if name in READ:
        return Input(path, name)
    if os.path.lexists(os.path.expanduser(path)):
        raise unknown_name("input format", name, list(READ))
    return Input(text)


def job_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `ConvertOptions` that `convert`, `export` and `merge` share. Raises `UsageError`."""
    return {
        "labels": tuple(arguments.label),
        "remaps": tuple(arguments.remap),
        "filter": arguments.filter,
        "filter_mode": arguments.filter_mode,
        "resize": size_of(arguments.resize),
        "limit": arguments.limit,
        "images": images_of(arguments),
        "steps": _steps_of(arguments),
        "strict": arguments.strict,
        "overwrite": arguments.overwrite,
        "resume": arguments.resume,
        "workers": arguments.workers,
        "on_error": arguments.on_error,
        "max_errors": arguments.max_errors,
        "keep_bad_rows": arguments.keep_bad_rows,
        **({} if arguments.on_clash is None else {"on_clash": arguments.on_clash}),
        **{field.name: getattr(arguments, field.name) for field in fields(ExportOptions)},
    }


def images_of(arguments: argparse.Namespace) -> ImageOptions:
    """How images are read, as given on a command line."""
    return ImageOptions(**{field.name: getattr(arguments, field.name) for field in fields(ImageOptions)})


def _steps_of(arguments: argparse.Namespace) -> tuple[Step, ...]:
    """The transforms given on a command line, in order. Raises `UsageError`."""
    steps = [parse_call(text, Parser) for text in arguments.transform]
    if arguments.compact_labels:
        steps.append(make_step("compact_labels", {}))
    return tuple(steps)


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) from "HxW". Raises `UsageError`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if match is None:
        raise UsageError(f"--resize must be HEIGHTxWIDTH, such as 32x32, found {text!r}")
    return int(match[1]), int(match[2])


def output_of(arguments: argparse.Namespace, stem: str) -> str:
    """The output directory; default: `<stem>-<format>` in the current directory."""
    given: str | None = arguments.output_dir
    return f"{stem}-{arguments.output_format}" if given is None else given
