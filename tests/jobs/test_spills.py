"""Rows that are moved through spills become the same output, byte for byte; a damaged spill is never another row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar import make_sample, storage
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import BeamCifarError, JobError
from beam_cifar.formats.registry import get_sink, writable
from beam_cifar.jobs import serial, spill
from beam_cifar.jobs.prepare import rehearsed
from beam_cifar.options import ConvertOptions, Input
from beam_cifar.planning import moves, spills
from beam_cifar.planning.plan import Spill
from beam_cifar.steps.registry import make_step
from tests.helpers.commands import Command
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.image_trees import contents, converted, manifest, quickly, set_part_bytes, write_tree

SPLITS = {"splits": [["train", 0.5], ["val", 0.3], ["test", 0.2]], "seed": 5}
ORDERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "shuffle": [("shuffle", {"seed": 3})],
    "sort": [("sort", {"by": ["label", "id"]})],
    "random_split": [("random_split", SPLITS)],
    "sample": [("random_sampler", {"count": 200, "seed": 2})],
    "shuffle a filtered half": [("filter", {"expression": "/item[annotation/label_id < 5]"}), ("shuffle", {"seed": 3})],
    "shuffle what was resized": [("resize", {"height": 9, "width": 9}), ("shuffle", {"seed": 3})],
    "as it is": [],
}
FEW = ("cifar", "parquet", "imagenet")


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as Parquet: 300 rows of training in one row group, 60 of test in groups of 25."""
    folder = tmp_path_factory.mktemp("groups")
    make_sample(str(folder / "cifar"), kind="cifar10", images=360, seed=7)
    quickly(folder / "cifar", folder / "parquet", "parquet")
    for file in (folder / "parquet").rglob("*.parquet"):
        pq.write_table(pq.read_table(file), file, row_group_size=25 if "test" in file.name else None)
    return folder / "parquet"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a job of 360 rows have many spills, runs, buckets and parts."""
    monkeypatch.setattr(moves, "SPILL_BYTES", 60_000)
    monkeypatch.setattr(moves, "BUCKET_BYTES", 40_000)
    monkeypatch.setattr(spills, "RUN_BYTES", 60_000)
    for target in writable():
        if get_sink(target).can.part_bytes:
            set_part_bytes(monkeypatch, target, 100_000)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the spills that are written in this process from now on."""
    made = []
    write_spill = spill.write_spill

    def noting(each: Any, *arguments: Any) -> spill.SpillInfo:
        made.append(each.number)
        return write_spill(each, *arguments)

    for place in ("beam_cifar.jobs.serial", "beam_cifar.pipeline.spill"):
        monkeypatch.setattr(f"{place}.write_spill", noting)
    return made


def both(source: Path, folder: Path, target: str, **options: Any) -> Iterator[Path]:
    """Outputs of a job that moves no row, and of one that does."""
    for name, worth in (("read in place", 1e9), ("moved", 0.0)):
        with mock.patch.object(moves, "WORTH", worth):
            quickly(source, folder / name, target, save_images=True, **options)
        yield folder / name


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in writable()]
)
def test_moved_rows_become_the_same_output(
    target: str, order: str, groups: Path, tmp_path: Path, written: list[int]
) -> None:
    steps = [make_step(*step) for step in ORDERS[order]]
    if "resize" in dict(ORDERS[order]) and get_sink(target).name == "cifar_binary":
        pytest.skip("it has 32 x 32 pixels only")
    expected, found = both(groups, tmp_path, target, steps=tuple(steps))
    assert len(written) > 2
    assert contents(found) == contents(expected)
    facts = [manifest(each) for each in (expected, found)]
    if order != "as it is":  # whose plan differs
        assert facts[0] == facts[1]
    assert [each.pop("job") for each in facts]
    assert facts[0] == facts[1]


@pytest.mark.usefixtures("small")
def test_rows_of_several_datasets_are_moved_or_read_in_place(
    groups: Path, cifar10: Path, tmp_path: Path, written: list[int]
) -> None:
    renumbered = make_step("reindex", {"start": 1000}), make_step("resize", {"height": 20, "width": 20})
    merged = (Input(str(cifar10)), Input(str(groups), steps=renumbered))
    more = {"merged": merged, "on_clash": "suffix", "steps": (make_step("shuffle", {"seed": 1}),)}
    expected, found = both(groups, tmp_path, "imagenet_with_subset_dirs", **more)
    assert len(written) > 4
    assert contents(found) == contents(expected)
    assert manifest(found) == manifest(expected)


@pytest.mark.usefixtures("small")
def test_a_rehearsed_job_moves_the_same_rows(groups: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(groups), str(tmp_path / "out"), "parquet", steps=(make_step("shuffle", {"seed": 3}),))
    with rehearsed(options) as job:
        assert len(job.plan.moves.spills) > 2
        assert not len(job.plan.moves.rows)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--direct_running_mode", "multi_threading"),
        pytest.param(("--direct_running_mode", "multi_processing"), marks=pytest.mark.slow),
    ],
    ids=lambda flags: flags[1] if flags else "in_memory",
)
def test_the_runner_waits_for_all_spills(flags: tuple[str, ...], groups: Path, tmp_path: Path) -> None:
    steps = (make_step("shuffle", {"seed": 3}),)
    quickly(groups, tmp_path / "expected", "parquet", steps=steps)
    converted(groups, tmp_path / "out", "parquet", *flags, steps=steps, workers=2 if flags else 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    assert names_beside(tmp_path / "out") == COMPLETE


def test_a_large_row_group_is_moved_without_being_asked(
    groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[int]
) -> None:
    quickly(groups, tmp_path / "expected", "imagenet")
    assert not written
    set_part_bytes(monkeypatch, "imagenet", 100_000)
    quickly(groups, tmp_path / "out", "imagenet")
    assert written
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    written.clear()
    quickly(groups, tmp_path / "limited", "imagenet", limit=40)
    assert not written


@pytest.mark.usefixtures("small")
def test_finished_spills_are_kept(
    groups: Path, tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (make_step("shuffle", {"seed": 3}),)
    quickly(groups, tmp_path / "expected", "imagenet", steps=steps)
    count = len(written)
    assert written == list(range(count))
    with monkeypatch.context() as patch:
        patch.setattr(serial, "write_account", mock.Mock(side_effect=[None, None, JobError("full")]))
        with pytest.raises(JobError, match="full"):
            quickly(groups, tmp_path / "out", "imagenet", steps=steps, resume=True)
    (work,) = (tmp_path / "out.beam_cifar").glob("work-*")
    there = sorted((work / "spills").iterdir())
    assert len(there) == count
    there[1].write_bytes(there[1].read_bytes()[:-1])
    there[2].unlink()
    data = there[3].read_bytes()
    there[3].write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    there[0].write_bytes(data)
    written.clear()
    quickly(groups, tmp_path / "out", "imagenet", steps=steps, resume=True)
    assert written == [0, 1, 2, 3]
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    assert names_beside(tmp_path / "out")[-2:] == COMPLETE


def test_a_spill_is_not_taken_for_another_one(tmp_path: Path) -> None:
    folder = spills.SpillFolder(str(tmp_path), (Spill(0, 0, 1), Spill(1, 0, 1)), 1)
    for number, name in enumerate(("cat", "dog")):
        row = {"subset": "train", "id": name, "filename": f"{name}.png", "label": number, "encoding": "raw"}
        table = pa.Table.from_pylist([row], example_schema())
        with storage.StagedFile(folder.file(number), str(tmp_path)) as file:
            writer = spills.SpillWriter(file, number)
            writer.append(table, np.array([number], np.int32), np.array([7]))
            writer.close()
            file.commit()
    assert [folder.is_whole(each) for each in folder.spills] == [True, True]
    assert folder.take(0, np.array([0, 1], np.int32), 7).column("id").to_pylist() == ["cat", "dog"]
    Path(folder.file(0)).write_bytes(Path(folder.file(1)).read_bytes())
    assert [folder.is_whole(each) for each in folder.spills] == [False, True]


@pytest.mark.usefixtures("small")
def test_a_damaged_spill_ends_the_job(groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "out", {"old": b"old"})
    steps = (make_step("shuffle", {"seed": 3}),)
    write_spill, changes = spill.write_spill, list[Any]()

    def damaging(each: Any, source: Any, folder: Any) -> spill.SpillInfo:
        info = write_spill(each, source, folder)
        if each.number == 1:
            path = Path(source.spilled.file(1))
            path.write_bytes(changes[0](path.read_bytes()))
        return info

    monkeypatch.setattr(serial, "write_spill", damaging)

    def flip(share: float) -> Any:
        return lambda data: data[: (at := int(share * (len(data) - 1)))] + bytes([data[at] ^ 8]) + data[at + 1 :]

    for change in (
        *map(flip, (0.05, 0.3, 0.6, 0.9, 0.999, 1.0)),
        *(lambda data, n=n: data[:n] for n in (0, 10, 100, -20, -1)),
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
    ):
        changes[:] = [change]
        with pytest.raises(JobError, match=r"file of moved rows is damaged: .*; run the job again$"):
            quickly(groups, tmp_path / "out", "imagenet", steps=steps, overwrite=True)
        assert contents(tmp_path / "out") == {"old": b"old"}
        assert not (tmp_path / "out.beam_cifar").exists()


def test_spills_of_other_rows_are_refused(groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (make_step("shuffle", {"seed": 3}),)
    monkeypatch.setattr(moves, "WORTH", 0.0)
    read_batch = spill.read_batch  # type: ignore[attr-defined]

    def others(*arguments: Any) -> Any:
        moved = read_batch(*arguments)
        rows = moved.column("row").to_numpy().copy()
        rows[3], rows[4] = rows[4], rows[3]
        return moved.set_column(0, moved.schema.field(0), [rows])

    monkeypatch.setattr(spill, "read_batch", others)
    with pytest.raises(BeamCifarError, match=r"have other rows than planned, from row \d+ on"):
        quickly(groups, tmp_path / "out", "imagenet", steps=steps)


@pytest.mark.usefixtures("small")
def test_the_plan_says_what_is_moved(groups: Path, command: Command) -> None:
    arguments = ("convert", "-i", str(groups), "-o", "unused", "-f", "imagenet", "--transform", "shuffle", "--plan")
    facts = json.loads(command(*arguments, "--json")[1])
    assert facts["spills"] > 2
    assert 300 * 1000 < facts["spill_bytes"] < 360 * 4000
    assert f"rows are moved through {facts['spills']} spills, about 1 MB" in command(*arguments)[1]
