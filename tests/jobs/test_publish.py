"""Publishing may be killed at any step, or run twice, and the right output stands at the end."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from beam_cifar import ConvertOptions, convert, storage
from beam_cifar.errors import JobError, OutputError
from beam_cifar.jobs import serial
from beam_cifar.jobs.accounts import PartInfo, ShardInfo, reconcile
from beam_cifar.jobs.clean import clean
from beam_cifar.jobs.finish import finish_job, finish_shard, publish_settings
from beam_cifar.jobs.prepare import Job, prepare
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.jobs.settings import PublishSettings, SinkSettings
from beam_cifar.jobs.write_part import OpenPart
from beam_cifar.steps.encode import encode_images
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.image_trees import killed, quickly
from tests.helpers.reading import cifar_rows, tree


@pytest.mark.parametrize("overwrite", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["new", "overwrite"])
def test_a_publish_killed_before_any_step_is_completed_by_the_next_run(
    overwrite: bool, cifar10: Path, tmp_path: Path
) -> None:
    convert(ConvertOptions(str(cifar10), str(tmp_path / "right"), "cifar", labels=("dog",), save_images=True))
    right, old = tree(tmp_path / "right"), tree(cifar10)
    output = tmp_path / "out"
    options = ConvertOptions(
        str(cifar10), str(output), "cifar", labels=("dog",), save_images=True, overwrite=overwrite, workers=1
    )
    for step in range(1, 50):
        for path in (output, tmp_path / "out.beam_cifar"):
            storage.remove_tree(str(path))
        if overwrite:
            shutil.copytree(cifar10, output)
        code = killed(step, options)
        if code == 0:
            break
        assert code == 9
        if output.exists() and not (tmp_path / "out.beam_cifar" / "replaced").exists():
            assert tree(output) in ([right, old] if overwrite else [right])
        complete = not storage.is_unfinished(storage.JobFolder(str(output)))
        if complete and output.exists() and not overwrite:
            with pytest.raises(OutputError, match="is not empty"):
                convert(options)
        else:
            convert(options)
        assert tree(output) == right
        assert names_beside(output) == COMPLETE
    assert step > 3


def test_an_output_that_was_set_aside_comes_back_when_the_next_job_fails(cifar10: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    quickly(cifar10, output, "cifar")
    old, manifest = tree(output), tree(tmp_path / "out.beam_cifar")
    step = 1
    while output.exists():
        assert killed(step, ConvertOptions(str(cifar10), str(output), "cifar", labels=("dog",), overwrite=True)) == 9
        step += 1
    with pytest.raises(OutputError):
        convert(ConvertOptions(str(cifar10), str(output), "cifar"))
    clean(str(output))  # what the killed job staged is not for a refused command to remove
    assert tree(output) == old
    assert tree(tmp_path / "out.beam_cifar") == manifest


def test_an_unfinished_output_of_another_job_is_not_taken_for_ours(cifar10: Path, tmp_path: Path) -> None:
    folder = storage.JobFolder(str(tmp_path / "out"))
    os.makedirs(folder.path)
    Path(folder.pending_manifest).write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    with pytest.raises(OutputError, match="is not empty"):
        convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar"))
    assert (tmp_path / "out" / "precious").read_text() == "data"


@pytest.fixture
def finished(cifar10: Path, tmp_path: Path) -> tuple[PublishSettings, list[ShardInfo]]:
    """A job whose parts are all staged, in this process and without a runner."""
    options = ConvertOptions(
        str(cifar10), str(tmp_path / "out"), "parquet", labels=("dog",), remaps=("dog:cat",), card=True
    )
    with prepare(options) as job:
        source = SourceSettings.of(job.plan)
        # Without its run: on another machine, whose attempts may come late, nobody knows that the job ended.
        sink = SinkSettings.of(job.plan, "parquet", replace(job.folder, run=""))
        settings = publish_settings(job, sink)
    infos = [finish_shard(task.shard, [part_of(task, source, sink)], sink) for task in job.plan.tasks]
    return settings, infos


def part_of(task: object, source: SourceSettings, sink: SinkSettings) -> PartInfo:
    from beam_cifar.steps.remap import remap_labels
    from beam_cifar.steps.select import select_rows

    open_part = None
    for block in read_task(task, source):  # type: ignore[arg-type]
        if open_part is None:
            open_part = OpenPart(sink, sink.shards[block.shard], block.part)
        kept = remap_labels(select_rows(block, selection=source.selection), targets=(0, 1, 2, 3, 4, 3, 6, 7, 8, 9))
        info = open_part.append(encode_images(kept, encodings=("png",)))
    assert info is not None
    return info


@pytest.mark.parametrize("target", ["mnist", "datumaro"], ids=["joined", "beside"])
def test_a_job_that_lost_its_output_joins_nothing(target: str, cifar10: Path, tmp_path: Path) -> None:
    def lost(number: int, infos: list[PartInfo], sink: SinkSettings) -> ShardInfo:
        os.unlink(sink.folder.begun)
        return finish_shard(number, infos, sink)

    def start(job: Job, beam_options: object) -> None:
        with mock.patch("beam_cifar.jobs.serial.finish_shard", lost):
            serial.run(replace(job, folder=replace(job.folder, guarded=True)))

    with (
        mock.patch("beam_cifar.pipeline.convert.start", start),
        pytest.raises(JobError, match="another job took over the output"),
    ):
        convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), target, workers=1))
    assert not (tmp_path / "out").exists()


def test_finishing_a_job_twice_changes_nothing(
    finished: tuple[PublishSettings, list[ShardInfo]], tmp_path: Path
) -> None:
    settings, infos = finished
    finish_job(infos, settings)
    once = tree(tmp_path)
    finish_job([*infos, *infos], settings)
    assert tree(tmp_path) == once
    assert (tmp_path / "out" / "README.md").exists()


def test_an_attempt_that_comes_late_does_not_touch_what_is_published(
    finished: tuple[PublishSettings, list[ShardInfo]], tmp_path: Path
) -> None:
    settings, infos = finished
    finish_job(infos, settings)
    once = tree(tmp_path)
    late = Path(settings.sink.folder.tree) / "README.md"
    late.parent.mkdir(parents=True)
    late.write_text("half a tree")
    manifest = Path(settings.sink.folder.manifest).read_bytes()
    for overwrite in (False, True):
        storage.publish_tree(settings.sink.folder, manifest, overwrite=overwrite)
        storage.remove_tree(settings.sink.folder.work)
        assert tree(tmp_path) == once


@pytest.mark.parametrize("name", ["README.md", "data/test-00000-of-00001.parquet", "another"])
def test_an_output_is_ours_only_if_every_file_is(
    name: str, finished: tuple[PublishSettings, list[ShardInfo]], tmp_path: Path
) -> None:
    settings, infos = finished
    manifest = Path(finish_job(infos, settings)).read_bytes()
    assert storage.is_ours(str(tmp_path / "out"), manifest)
    (tmp_path / "out" / name).write_bytes(b"something else")
    assert not storage.is_ours(str(tmp_path / "out"), manifest)


def test_a_missing_shard_is_refused(finished: tuple[PublishSettings, list[ShardInfo]], tmp_path: Path) -> None:
    settings, infos = finished
    with pytest.raises(JobError, match=r"parts \[1\] of 2 are missing"):
        finish_job(infos[:1] if infos[0].shard == 0 else infos[1:], settings)
    assert not (tmp_path / "out").exists()


def test_a_staged_file_of_another_size_is_refused(
    finished: tuple[PublishSettings, list[ShardInfo]], tmp_path: Path
) -> None:
    settings, infos = finished
    staged = Path(settings.sink.folder.tree) / settings.sink.shards[0].path
    staged.write_bytes(staged.read_bytes()[:-1])
    with pytest.raises(JobError, match="some of the 2 staged files are missing"):
        finish_job(infos, settings)
    assert not (tmp_path / "out").exists()


def test_two_attempts_that_differ_are_refused(finished: tuple[PublishSettings, list[ShardInfo]]) -> None:
    settings, infos = finished
    part = infos[0].parts[0]
    with pytest.raises(JobError, match="two attempts at part 0 differ"):
        finish_shard(part.shard, [part, replace(part, sha256="0")], settings.sink)


@pytest.mark.parametrize("column", ["read", "written", "filtered", "rejected"])
def test_a_single_row_too_many_in_any_count_is_refused(
    column: str, finished: tuple[PublishSettings, list[ShardInfo]]
) -> None:
    settings, infos = finished
    parts = [part for info in infos for part in info.parts]
    reconcile(parts, settings)
    wrong = replace(parts[0], **{column: getattr(parts[0], column) + Counter({("test_batch", 3): 1})})
    with pytest.raises(JobError, match="counts do not add up"):
        reconcile([wrong, *parts[1:]], settings)


def test_rows_that_are_lost_and_not_counted_are_refused(finished: tuple[PublishSettings, list[ShardInfo]]) -> None:
    settings, infos = finished
    parts = [part for info in infos for part in info.parts]
    with pytest.raises(JobError, match="the input files declare 1204"):
        reconcile(parts, replace(settings, declared=1204))


def test_files_written_by_a_killed_run_do_not_show_in_the_next(cifar10: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "out.beam_cifar" / "work-0123456789abcdef" / "tree" / "stray"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half a file")
    convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar", save_images=True))
    assert cifar_rows(tmp_path / "out") == cifar_rows(cifar10)
    assert names_beside(tmp_path / "out") == COMPLETE
