"""`beam-cifar convert`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, TextIO

from beam_cifar.errors import UsageError
from beam_cifar.options import ConvertOptions, ExportOptions

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_cifar.job import Job
    from beam_cifar.pipeline import Summary
    from beam_cifar.plan import Plan


def run(arguments: argparse.Namespace) -> None:
    """Converts, or prints the plan."""
    started_at = time.monotonic()
    options = options_of(arguments)
    if arguments.plan:
        if arguments.beam_options:
            _import_beam(arguments)  # refuses unknown flags
        _print_plan(options, as_json=arguments.json)
        return
    from beam_cifar.cli.progress import Progress
    from beam_cifar.cli.start import quiet_workers

    convert, beam_options = _import_beam(arguments)
    said: list[str] = []
    with quiet_workers(verbose=arguments.verbose) as terminal, Progress(terminal) as progress:

        def started(job: Job) -> None:
            said.extend(job.plan.notices)
            _print_notices(said, terminal)
            progress.start(job)

        summary = convert(options, beam_options, on_start=started)
    summary = replace(summary, seconds=round(time.monotonic() - started_at, 3))
    if arguments.json:
        fields = asdict(summary)
        names = "version format output read written filtered quarantined subsets labels seconds"
        print(json.dumps({name: fields[name] for name in names.split()}, ensure_ascii=False))
    else:
        print(describe(summary))
    _print_notices(notice for notice in summary.notices if notice not in said)


def options_of(arguments: argparse.Namespace) -> ConvertOptions:
    """The options that a command line stands for. Raises `UsageError`."""
    return ConvertOptions(
        input_path=arguments.input_path,
        output_dir=default_output(arguments.input_path, arguments.output_format)
        if arguments.output_dir is None
        else arguments.output_dir,
        output_format=arguments.output_format,
        input_format=arguments.input_format,
        subsets=tuple(arguments.subset),
        labels=tuple(arguments.label),
        remaps=tuple(arguments.remap),
        filter=arguments.filter,
        filter_mode=arguments.filter_mode,
        resize=size_of(arguments.resize),
        limit=arguments.limit,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        **{field.name: getattr(arguments, field.name) for field in fields(ExportOptions)},
    )


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) from "HxW". Raises `UsageError`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if match is None:
        raise UsageError(f"--resize takes HEIGHTxWIDTH, such as 32x32, found {text!r}")
    return int(match[1]), int(match[2])


def default_output(input_path: str, output_format: str) -> str:
    """`<source>-<format>` in the current directory."""
    from beam_cifar.archives import SUFFIXES

    name = os.path.basename(os.path.abspath(input_path))
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return f"{name}-{output_format}"


def describe(summary: Summary) -> str:
    """The result for people."""
    rate = summary.written / max(summary.seconds, 1e-9)
    subsets = ", ".join(f"{name} {rows:,}" for name, rows in summary.subsets.items())
    lines = [
        f"wrote {summary.written:,} images as {summary.format} to {summary.output}",
        f"  {subsets}",
        f"  {summary.files} files, {summary.bytes / 1e6:,.1f} MB, in {summary.seconds:.1f} s ({rate:,.0f} images/s)",
    ]
    if summary.filtered or summary.quarantined:
        lines.append(f"  read {summary.read:,}, filtered {summary.filtered:,}, quarantined {summary.quarantined:,}")
    return "\n".join(lines)


def _import_beam(arguments: argparse.Namespace) -> tuple[Callable[..., Summary], PipelineOptions]:
    """Imports the pipeline; checks the flags that are Beam's."""
    from beam_cifar.cli.start import beam_imports

    with beam_imports(verbose=arguments.verbose):
        from beam_cifar import runner
        from beam_cifar.pipeline import convert
    from beam_cifar.cli.arguments import list_flags, make_parser

    options = runner.pipeline_options(arguments.beam_options, arguments.workers, list_flags(make_parser()))
    return convert, options


def _print_notices(notices: Iterable[str], stream: TextIO | None = None) -> None:
    for notice in notices:
        print(f"beam-cifar: note: {notice}", file=stream or sys.stderr, flush=True)


def _print_plan(options: ConvertOptions, *, as_json: bool) -> None:
    from beam_cifar.cli.start import quiet_workers
    from beam_cifar.job import plan_only

    with quiet_workers(verbose=False), tempfile.TemporaryDirectory(prefix="beam_cifar-") as folder:
        found, plan = plan_only(options, folder)
    if as_json:
        print(json.dumps(_plan_facts(options, plan, found.catalog.title), ensure_ascii=False))
        return
    _print_notices(plan.notices)
    print(f"{found.catalog.title}: {plan.declared:,} rows in {len(plan.files)} files, {plan.rows:,} of them to write")
    for shard in plan.shards:
        tasks = [task for task in plan.tasks if task.shard == shard.index]
        sources = dict.fromkeys(plan.files[segment.file].name for task in tasks for segment in task.segments)
        how = "copied from" if tasks[0].copy else "from"
        print(f"  {shard.path or shard.subset}: {shard.rows:,} rows {how} {', '.join(sources)}")


def _plan_facts(options: ConvertOptions, plan: Plan, source: str) -> dict[str, object]:
    return {
        "source": source,
        "options": options.meaning(),
        "declared": plan.declared,
        "written": plan.rows,
        "labels": list(plan.label_map.table.names),
        "shards": [asdict(shard) for shard in plan.shards],
        "tasks": [asdict(task) for task in plan.tasks],
        "notices": list(plan.notices),
    }
