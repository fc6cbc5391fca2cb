"""Blocks never leave their fused stage: what would break it ends in one clear refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_cifar import ConvertOptions
from beam_cifar.data.block import Block
from beam_cifar.errors import JobError
from beam_cifar.jobs.prepare import Job, prepare
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.pipeline.blocks import BlockCoder, MapBlocks
from beam_cifar.pipeline.convert import start
from beam_cifar.pipeline.read import ReadBlocks
from beam_cifar.pipeline.runners import pipeline_options
from beam_cifar.pipeline.write import WriteBlocks

MODES = ["in_memory", "multi_threading"]
PROCESSES = "multi_processing"


def same(block: Block, *_: Any) -> Block:
    return block


def halves(block: Block) -> Iterator[Any]:
    yield block if block.number % 2 else beam.pvalue.TaggedOutput("even", block)


def two_sources(blocks: Any, tasks: Any) -> Any:
    settings = blocks.producer.parent.transform.settings
    more = tasks | "None" >> beam.Filter(lambda task: False) | "More" >> ReadBlocks(settings)
    return (blocks, more) | "Flatten" >> beam.Flatten()


def tags_joined(blocks: Any, _: Any) -> Any:
    split = blocks | "Split" >> beam.ParDo(halves).with_outputs("even", main="odd").with_output_types(Block)
    return (split.odd, split.even) | "Flatten" >> beam.Flatten()


def with_side_input(blocks: Any, tasks: Any) -> Any:
    side = beam.pvalue.AsList(tasks | "Count" >> beam.Map(lambda task: task.rows))
    return blocks | "Side" >> beam.Map(same, side).with_input_types(Block, list).with_output_types(Block)


def with_resource_hint(blocks: Any, _: Any) -> Any:
    return blocks | "Hint" >> MapBlocks(same).with_resource_hints(min_ram="1GB")


def reshuffled(blocks: Any, _: Any) -> Any:
    return blocks | "Shuffle" >> beam.Reshuffle()


def untouched(blocks: Any, _: Any) -> Any:
    return blocks | "Same" >> MapBlocks(same)


def run_with(
    middle: Callable[[Any, Any], Any], source: Path, output: Path, options: PipelineOptions, monkeypatch: Any
) -> None:
    """Runs a job whose line has something more in the middle."""

    def build(pipeline: beam.Pipeline, job: Job) -> None:
        tasks = pipeline | beam.Create(job.plan.tasks, reshuffle=False) | beam.Reshuffle()
        blocks = middle(tasks | ReadBlocks(SourceSettings.of(job.plan)), tasks)
        _ = blocks | WriteBlocks(SinkSettings.of(job.plan, "parquet", job.folder))

    monkeypatch.setattr("beam_cifar.pipeline.convert.build_pipeline", build)
    with prepare(ConvertOptions(str(source), str(output), "parquet")) as job:
        start(job, options)


# Worker processes take seconds to start, and refuse in the same place.
@pytest.mark.parametrize("mode", [*MODES, pytest.param(PROCESSES, marks=pytest.mark.large)])
@pytest.mark.parametrize("middle", [two_sources, tags_joined, with_side_input, with_resource_hint, reshuffled])
def test_a_broken_fusion_is_refused_in_one_line(
    middle: Any, mode: str, cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = pipeline_options([f"--direct_running_mode={mode}"], 2)
    with pytest.raises(JobError, match="about to leave its fused stage|blocks out of order") as caught:
        run_with(middle, cifar10, tmp_path / "out", options, monkeypatch)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [*MODES, pytest.param(PROCESSES, marks=pytest.mark.slow)])
def test_the_line_itself_is_fused(mode: str, cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(untouched, cifar10, tmp_path / "out", pipeline_options([f"--direct_running_mode={mode}"], 2), monkeypatch)


def test_blocks_are_sized_without_being_encoded(cifar10: Path, tmp_path: Path) -> None:
    from beam_cifar.jobs.read_part import read_task

    with prepare(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet")) as job:
        block = next(read_task(job.plan.tasks[0], SourceSettings.of(job.plan)))
        assert BlockCoder().estimate_size(block) >= len(block.table) * 3072
        assert isinstance(beam.coders.registry.get_coder(Block), BlockCoder)
