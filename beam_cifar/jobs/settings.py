"""What the tasks and the publish step of a job need besides their input."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
        label_map: where labels went.
        declared: rows that must have been read, or None where a limit stops early.
        facts: the part of the manifest that is known before the start.
        overwrite: whether an existing output may be replaced.
        counts: what the plan says of the rows, where it chose them one by one.
        foreign: paths of files in the output that are no part of the dataset, and stay where it is saved in place.
    """

    sink: SinkSettings
    label_map: LabelMap
    declared: int | None
    facts: dict[str, Any]
    overwrite: bool
    counts: ChosenCounts | None = None
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class SinkSettings:
    """What every part needs besides its blocks.

    Attributes:
        format: name of the output format.
        shards: files of the output.
        options: of the writers.
        folder: where to stage.
    """

    format: str
    shards: tuple[Shard, ...]
    options: SinkOptions
    folder: storage.JobFolder

    @classmethod
    def of(cls, plan: Plan, format_name: str, folder: storage.JobFolder) -> SinkSettings:
        """The settings of a plan."""
        return cls(format_name, plan.shards, plan.sink, folder)

    @property
    def many_files(self) -> bool:
        """Whether every image is a file of its own."""
        return get_sink(self.format).can.many_files

    def is_whole(self, shard: Shard) -> bool:
        """Whether the only part of a shard is its file."""
        sink = get_sink(self.format)
        return shard.parts == 1 and not (sink.can.many_files or sink.can.always_joined)

    def account_path(self, shard: int, part: int) -> str:
        """Where a finished part leaves its account."""
        return os.path.join(self.folder.accounts, f"{shard:06d}-{part:06d}.json")

    def part_path(self, shard: Shard, part: int) -> str:
        """Where a finished part lies, or the list of its files; in the staged tree already where it is the shard."""
        if self.is_whole(shard):
            return os.path.join(self.folder.tree, shard.path)
        return os.path.join(self.folder.parts, f"{shard.index:06d}-{part:06d}")

    def open_part(self, shard: Shard, part: int) -> storage.StagedFile | storage.StagedFolder:
        """What a part is written to."""
        path, folder = self.part_path(shard, part), self.folder
        if self.many_files:
            return storage.StagedFolder(os.path.join(folder.tree, shard.path), path, folder.scratch, folder.guard)
        return folder.stage(path)
