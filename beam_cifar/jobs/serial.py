"""Runs a whole job in this process, one task after another, without a runner; writes the same files, byte for byte.

Tests use it because it is quick, and it shows that Beam is only one way to run a job.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from beam_cifar.data.block import Block
from beam_cifar.jobs.accounts import PartInfo
from beam_cifar.jobs.finish import finish_job, finish_shard, publish_settings
from beam_cifar.jobs.prepare import Job
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.jobs.resume import left_to_do
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.jobs.spill import check_spills, left_to_move, write_spill
from beam_cifar.jobs.write_part import copy_file, write_account, write_part
from beam_cifar.planning.plan import Plan, Task
from beam_cifar.steps.base import changed
from beam_cifar.steps.encode import encode_images
from beam_cifar.steps.remap import remap_labels
from beam_cifar.steps.select import select_rows


def run(job: Job, beam_options: object = None) -> None:
    """Runs a prepared job and publishes it; `beam_options` is ignored, and lets this stand in for a pipeline.

    Raises:
        BeamCifarError: the input is damaged, or the output cannot be written.
    """
    plan = job.plan
    source = SourceSettings.of(plan, job.folder)
    sink = SinkSettings.of(plan, job.options.output_format, job.folder)
    infos: dict[int, list[PartInfo]] = {}
    for part in job.finished:
        infos.setdefault(part.shard, []).append(part)
    change = functools.partial(transformed_block, plan=plan)
    tasks = left_to_do(job)
    spills = left_to_move(source, resumed=job.resumed) if any(not task.copy for task in tasks) else ()
    check_spills([write_spill(spill, source, job.folder) for spill in spills], spills)
    for task in tasks:
        info = copy_file(task, source, sink) if task.copy else write_part(task, source, sink, change)
        write_account(info, sink)
        infos.setdefault(task.shard, []).append(info)
    finish_job([finish_shard(shard, infos[shard], sink) for shard in infos], publish_settings(job, sink))


def transformed_block(block: Block, plan: Plan) -> Block:
    """Returns a block after everything that a plan does to it, in order: select, rename, change pixels, encode."""
    block = remap_labels(select_rows(block, selection=plan.selection), targets=plan.label_map.targets)
    block = changed(block, plan.pixel_steps)
    return encode_images(block, encodings=plan.encodings) if plan.encodings else block


def for_each_block(
    function: Callable[[Block], None], tasks: Sequence[Task], source: SourceSettings, *ignored: object
) -> None:
    """Calls a function with every block of some tasks, last task first, so that callers cannot rely on the order."""
    for task in reversed(tasks):
        for block in read_task(task, source):
            function(block)
