"""Beam transforms that finish shards and publish the job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_cifar.jobs.accounts import PartInfo, ShardInfo
from beam_cifar.jobs.finish import finish_job, finish_shard
from beam_cifar.jobs.settings import PublishSettings, SinkSettings
from beam_cifar.pipeline import (
    checked,  # noqa: F401  (its coder guards accounts)
    stores,  # noqa: F401  (how workers reach object stores)
)
from beam_cifar.pipeline.counters import written_to
from beam_cifar.pipeline.errors import carried


@dataclass
class Publish(beam.PTransform):
    """Publishes a job: finishes its shards in parallel, then publishes them all at once.

    Attributes:
        settings: `PublishSettings` of the job; or a side input with it, if it is known only when the job runs.
    """

    settings: Any

    def display_data(self) -> dict[str, str]:
        return {"output": self.settings.sink.folder.output} if isinstance(self.settings, PublishSettings) else {}

    def expand(self, parts: beam.PCollection[PartInfo]) -> beam.PCollection[str]:
        # The facts of a large job are large, and every step they are passed to carries a copy.
        sink = self.settings.sink if isinstance(self.settings, PublishSettings) else self.settings
        return (
            parts
            | "KeyByShard" >> beam.Map(lambda part: (part.shard, part)).with_output_types(tuple[int, PartInfo])
            | "GroupParts" >> beam.GroupByKey()
            | "FinishShards" >> beam.Map(_finish_shard, sink).with_output_types(ShardInfo)
            # One key for all: a single call publishes, and only once every shard is finished.
            | "KeyByJob" >> beam.Map(lambda shard: (0, shard)).with_output_types(tuple[int, ShardInfo])
            | "GroupShards" >> beam.GroupByKey()
            | "FinishJob" >> beam.Map(_finish_job, self.settings).with_output_types(str)
        )


@carried()
def _finish_shard(keyed: tuple[int, Iterable[PartInfo]], settings: PublishSettings | SinkSettings) -> ShardInfo:
    return finish_shard(*keyed, settings.sink if isinstance(settings, PublishSettings) else settings)


@carried()
def _finish_job(keyed: tuple[int, Iterable[ShardInfo]], settings: PublishSettings) -> str:
    manifest = finish_job(keyed[1], settings)
    written_to(settings.sink.folder.output)
    return manifest
