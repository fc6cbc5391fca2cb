"""Settings that the tasks and the publish step of a job need besides their input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beam_cifar import storage
from beam_cifar.data.labels import LabelMap
from beam_cifar.formats.contract.types import Shard, SinkOptions
from beam_cifar.formats.registry import get_sink
from beam_cifar.planning.plan import ChosenCounts, Plan


@dataclass(frozen=True)
class PublishSettings:
    """What publishing needs besides the accounts of the parts.

    Attributes:
        sink: settings of the sink.
        label_map: maps input labels to output labels.
        declared: number of rows that must have been read; None if a limit stops early.
        facts: contents of the manifest that are known before the start.
        overwrite: whether an existing output may be replaced.
        counts: planned row counts, if the plan chose row by row.
        remarks: what was done to images before the tasks, by kind; see `beam_cifar.images.remarks`.
        foreign: paths of files in the output that are not part of the dataset, kept when it is saved in place.
    """

    sink: SinkSettings
    label_map: LabelMap
    declared: int | None
    facts: dict[str, Any]
    overwrite: bool
    counts: ChosenCounts | None = None
    foreign: tuple[str, ...] = ()
    remarks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SinkSettings:
    """What writing a part needs besides its blocks.

    Attributes:
        format: name of the output format.
        shards: files of the output.
        options: options of the writers.
        folder: folder for staged files.
    """

    format: str
    shards: tuple[Shard, ...]
    options: SinkOptions
    folder: storage.JobFolder

    @classmethod
    def of(cls, plan: Plan, format_name: str, folder: storage.JobFolder) -> SinkSettings:
        """Returns the settings for a plan."""
        return cls(format_name, plan.shards, plan.sink, folder)

    @property
    def many_files(self) -> bool:
        """Whether every image is a separate file."""
        return get_sink(self.format).can.many_files

    def is_whole(self, shard: Shard) -> bool:
        """Returns whether the shard's only part is written directly as its file."""
        sink = get_sink(self.format)
        return shard.parts == 1 and not (sink.can.many_files or sink.can.always_joined)

    def account_path(self, shard: int, part: int) -> str:
        """Returns the path of a finished part's account."""
        return os.path.join(self.folder.accounts, f"{shard:06d}-{part:06d}.json")

    def part_path(self, shard: Shard, part: int) -> str:
        """Returns the path of a finished part, or of its file list; in the staged tree if the part is the shard."""
        if self.is_whole(shard):
            return os.path.join(self.folder.tree, shard.path)
        return os.path.join(self.folder.parts, f"{shard.index:06d}-{part:06d}")

    def open_part(self, shard: Shard, part: int) -> storage.StagedFile | storage.StagedFolder:
        """Returns the staged file or folder that a part is written to."""
        path, folder = self.part_path(shard, part), self.folder
        if self.many_files:
            return storage.StagedFolder(os.path.join(folder.tree, shard.path), path, folder.scratch, folder.guard)
        return folder.stage(path)
