"""Inputs and moments that once broke something, end to end."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar import ConvertOptions, ExportOptions, LabelTable, ReadExamples, convert, storage
from beam_cifar.data.block import Block
from beam_cifar.data.schema import facts_table, image_array, with_images
from beam_cifar.errors import InputError, JobError, UsageError
from beam_cifar.formats.contract.types import SinkOptions
from beam_cifar.formats.kit.splits import ROW_GROUP_BYTES
from beam_cifar.formats.parquet.write import ParquetSink
from beam_cifar.formats.registry import detect_format
from beam_cifar.images.encodings import RAW
from beam_cifar.images.runs import RUN_BYTES, with_pixels
from beam_cifar.jobs.prepare import prepare
from beam_cifar.pipeline.runners import pipeline_options
from beam_cifar.steps.pixels import resize
from beam_cifar.storage import archives
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    encoded,
    images,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows

HOSTILE_SUBSETS = [
    "%2Ftmp%2Fvictim",
    "x%2F..%2F..%2F..%2Fvictim",
    "a%00b",
    "%_",
    "data%2Fx",
    "v1%2E0",
    "_hidden",
    "v2.0",
]


@pytest.mark.parametrize("folder", HOSTILE_SUBSETS)
def test_a_subset_whose_name_is_a_path_stays_inside_a_cifar_output(folder: str, tmp_path: Path) -> None:
    source = write_tree(
        tmp_path / "in", {f"{folder}/a/1.png": encoded(picture(1)), "train/a/2.png": encoded(picture(2))}
    )
    before = set(tmp_path.parent.rglob("*victim*"))
    converted(source, tmp_path / "out", "cifar", save_images=True)
    assert set(tmp_path.parent.rglob("*victim*")) - before == set((tmp_path / "out").rglob("*victim*"))
    names = set(os.listdir(tmp_path / "out")) - {"batches.meta"}
    assert len(names) == 2
    assert not any("." in name or name.startswith("_") for name in names)
    assert len(cifar_rows(tmp_path / "out", sorted(names))) == 2
    renamed = manifest(tmp_path / "out")["renamed"]["subsets"]
    assert list(renamed) == sorted(names - {"train"})


def test_a_batch_keeps_its_name_whatever_it_is_called(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {name: batch([f"{name}.png"], [0]) for name in ("100%", "%2F", "b c")}, ["a"])
    quickly(source, tmp_path / "out", "cifar", save_images=True, remaps=("a:x",))
    assert sorted(os.listdir(tmp_path / "out")) == ["%2F", "100%", "b c", "batches.meta"]


def test_two_subset_folders_that_decode_to_one_name_are_both_read(tmp_path: Path) -> None:
    files = {"xA/c/1.png": encoded(picture(1)), "x%41/c/2.png": encoded(picture(2))}
    summary = converted(write_tree(tmp_path / "in", files), tmp_path / "out", "imagenet_with_subset_dirs")
    assert (summary.read, summary.written) == (2, 2)
    assert len(images(tmp_path / "out")) == 2


def test_a_whole_id_never_meets_the_short_name_of_another_image(tmp_path: Path) -> None:
    files = {"cat/1.png": encoded(picture(1)), "dog/1.png": encoded(picture(2)), "x/cat%2F1.png": encoded(picture(3))}
    merged = ("cat:all", "dog:all", "x:all")
    converted(write_tree(tmp_path / "in", files), tmp_path / "out", "imagenet", remaps=merged)
    assert len(contents(tmp_path / "out")) == 3


def test_detection_does_not_depend_on_the_order_of_the_directory(tmp_path: Path) -> None:
    for number in range(12):
        tree = write_tree(tmp_path / f"{number}", {f"a{number}/x.png": encoded(picture(1)), f"b{number}/c/y.png": b"x"})
        assert detect_format(str(tree), str(tmp_path)) == "imagenet"
        with pytest.raises(InputError, match=r"b\d+/c/y\.png: starts with bytes 78"):
            quickly(tree, tmp_path / "out")


@pytest.mark.parametrize("mode", ["annotations", "items+annotations"])
def test_a_filter_that_takes_every_label_away_is_an_error_with_a_hint(mode: str, cifar10: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet", filter="//annotation[label='dgo']", filter_mode=mode)  # fmt: skip
    with pytest.raises(InputError, match="did you mean 'dog'"):
        convert(options)


def test_a_filter_of_annotations_may_bring_rows_together_only_if_their_ids_differ(tmp_path: Path) -> None:
    rows = {"train": batch(["1.png", "2.png"], [0, 2]), "test": batch(["1.png"], [1])}
    source = write_cifar(tmp_path / "in", rows, ["cat", "dog", "ship"])
    assert len(contents_of(quickly, source, tmp_path / "apart", None)) == 3
    with pytest.raises(UsageError, match="would become the same file"):
        contents_of(quickly, source, tmp_path / "together", "/item/annotation[label='ship']")


def contents_of(run: object, source: Path, output: Path, expression: str | None) -> dict[str, bytes]:
    more = {} if expression is None else {"filter": expression, "filter_mode": "annotations"}
    run(source, output, "imagenet", **more)  # type: ignore[operator]
    return contents(output)


def test_an_image_replaced_by_one_of_the_same_size_during_a_run_is_noticed(tmp_path: Path) -> None:
    first = encoded(picture(1))
    source = write_tree(tmp_path / "in", {"a/1.png": first, "a/2.png": encoded(picture(2))})
    with pytest.raises(InputError, match="changed while"):
        convert(
            ConvertOptions(str(source), str(tmp_path / "out"), "imagenet", workers=1),
            on_start=lambda job: (source / "a" / "1.png").write_bytes(first),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["gone", "cut", "more"])
def test_a_staged_image_that_is_not_as_it_was_written_stops_the_publish(
    harm: str, cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = storage.StagedFolder.commit

    def harmed(folder: storage.StagedFolder) -> None:
        commit(folder)
        staged = sorted(Path(folder._folder).rglob("*.png"))[0]
        {  # type: ignore[operator]
            "gone": staged.unlink,
            "cut": lambda: staged.write_bytes(staged.read_bytes()[:-1]),
            "more": lambda: staged.with_name("more.png").write_bytes(b"x"),
        }[harm]()

    monkeypatch.setattr(storage.StagedFolder, "commit", harmed)
    with pytest.raises(JobError, match="staged files are missing"):
        convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "imagenet", workers=1))
    assert not (tmp_path / "out").exists()


def test_lists_of_files_lie_outside_the_work_folder_only_when_a_manifest_names_them(
    cifar10: Path, tmp_path: Path
) -> None:
    folder = storage.JobFolder(str(tmp_path / "out"))
    with prepare(ConvertOptions(str(cifar10), str(tmp_path / "out"), "imagenet")) as job:
        from beam_cifar.pipeline.convert import start

        real = storage.publish_tree
        seen: list[list[str]] = []

        def looked(*arguments: object, **named: object) -> None:
            seen.append([name for name in os.listdir(folder.path) if name.startswith("files-")])
            real(*arguments, **named)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "publish_tree", looked)
            start(job, pipeline_options([], 1)).wait_until_finish()
    assert seen == [[]]
    named = [shard["listing"] for shard in manifest(tmp_path / "out")["shards"]]
    assert sorted(named) == sorted(name for name in os.listdir(folder.path) if name.startswith("files-"))


def test_archives_that_share_a_folder_for_indexes_do_not_share_an_index(cifar10_archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    with tarfile.open(cifar10_archive) as archive, tarfile.open(other, "w:gz") as repacked:
        for member in reversed(archive.getmembers()):
            repacked.addfile(member, archive.extractfile(member) if member.isfile() else None)
    indexes = {archives.list_members(str(path), str(tmp_path))[1] for path in (cifar10_archive, other)}
    assert len(indexes) == 2
    for path in (cifar10_archive, other):
        assert len(ReadExamples(str(path), scratch=str(tmp_path / "new" / "folder")).labels.names) == 10


def raw_block(count: int, size: tuple[int, int]) -> Block:
    data = bytes(3 * size[0] * size[1])
    facts = facts_table(
        ids=[str(i) for i in range(count)], subset="s", sizes=size, labels=np.zeros(count, np.int64), filenames=["x.png"] * count
    )  # fmt: skip
    return Block(with_images(facts, image_array(data * count, [len(data)] * count), RAW), 0, 0, 0, True, read=None)  # type: ignore[arg-type]


def test_resizing_keeps_each_piece_small_and_no_offset_wraps() -> None:
    made = resize(raw_block(40, (8, 8)), size=(1024, 1024)).table
    assert [len(chunk) for chunk in made.column("image").chunks] == [RUN_BYTES // (3 * 1024 * 1024)] * 8
    pixels = np.broadcast_to(np.zeros((1, 3, 1, 1), np.uint8), (256, 3, 2400, 2400))
    with pytest.raises(ValueError, match="bytes of pixels; at most"):
        with_pixels(raw_block(256, (1, 1)).table, pixels)


def test_blocks_stay_small_where_images_grow(tmp_path: Path) -> None:
    from beam_cifar.jobs.read_part import SourceSettings, read_task

    source = write_cifar(tmp_path / "in", {"train": batch([f"{i}.png" for i in range(60)], [0] * 60)}, ["a"])
    with prepare(ConvertOptions(str(source), str(tmp_path / "out"), "parquet", resize=(1024, 1024))) as job:
        blocks = list(read_task(job.plan.tasks[0], SourceSettings.of(job.plan)))
        assert {len(block.table) for block in blocks} == {5}
        assert sum(shard.rows for shard in job.plan.shards) == 60
        assert job.plan.image_bytes == 60 * 3 * 1024 * 1024


def test_parquet_row_groups_are_cut_at_rows_wherever_blocks_end(tmp_path: Path) -> None:
    options = SinkOptions(LabelTable(("a",)), ExportOptions())
    rng = np.random.default_rng(0)
    images = [rng.bytes(1 << 20) for _ in range(150)]
    facts = facts_table(
        ids=[str(i) for i in range(150)], subset="s", sizes=(1, 1), labels=np.zeros(150, np.int64), filenames=["x.png"] * 150
    )  # fmt: skip
    table = with_images(facts, pa.array(images, pa.binary()), "png")
    digests = set()
    for step in (40, 41, 150):
        with storage.StagedFile(str(tmp_path / f"{step}.parquet"), str(tmp_path / "scratch")) as file:
            writer = ParquetSink().open_part(file, None, 150, options)  # type: ignore[arg-type]
            for start in range(0, 150, step):
                writer.append(table.slice(start, step))
            writer.close()
            file.commit()
        digests.add(file.sha256)
        groups = pq.ParquetFile(tmp_path / f"{step}.parquet").metadata
        rows = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        assert rows == [ROW_GROUP_BYTES >> 20] * 2 + [150 - 2 * (ROW_GROUP_BYTES >> 20)]
    assert len(digests) == 1


def test_more_pixels_than_can_be_read_back_and_more_workers_than_make_sense_are_refused() -> None:
    for options in ({"resize": (12_000, 12_000)}, {"resize": (0, 5)}, {"workers": 100_000}):
        with pytest.raises(UsageError):
            ConvertOptions("in", "out", "imagenet", **options)
