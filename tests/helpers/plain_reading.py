"""Readings of data sets without a runner, and small sets to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_cifar.measurement import Settings
    from beam_cifar.plan import Task


def read_plainly(tasks: Sequence[Task], settings: Settings, beam_options: object = None) -> None:
    """Stands for `beam_cifar.measurement.read_all`: the functions behind the pipeline's steps, last task first."""
    from beam_cifar.measurement import write_tally
    from beam_cifar.source import read_task

    for task in reversed(tasks):
        for block in read_task(task, settings.source):
            write_tally(block, settings)
