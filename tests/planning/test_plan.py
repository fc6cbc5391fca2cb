from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar import ConvertOptions, LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import CHUNK_ROWS, Catalog, FileSummary, SourceFile
from beam_cifar.formats.registry import get_sink
from beam_cifar.planning.by_counts import make_plan
from beam_cifar.planning.plan import Plan
from beam_cifar.planning.summaries import select_files
from beam_cifar.storage import Blob

TABLE = LabelTable(("a", "b", "c"))


def summary(name: str, labels: list[int]) -> FileSummary:
    file = SourceFile(name, name, name, Blob(name, 0, len(labels), (0, 0, 0)))
    chunks = tuple(Counter(labels[i : i + CHUNK_ROWS]) for i in range(0, len(labels), CHUNK_ROWS))
    nbytes = 3072 * len(labels)
    return FileSummary(file, len(labels), chunks, len(labels), nbytes, nbytes, (32, 32), batch_label=name)


def plan_of(files: dict[str, list[int]], target: str = "cifar", part_bytes: int = 1 << 40, **options: object) -> Plan:
    summaries = [summary(name, labels) for name, labels in files.items()]
    catalog = Catalog("cifar", "CIFAR-10", "in", TABLE, tuple(s.file for s in summaries))
    asked = ConvertOptions("in", "out", target, save_images=True, **options)  # type: ignore[arg-type]
    return make_plan(catalog, summaries, get_sink(target), asked, part_bytes)


def carried_out(
    plan: Plan, files: dict[str, list[int]]
) -> tuple[list[list[tuple[str, int]]], Counter[tuple[str, int]]]:
    """The surviving rows of each shard in order, and how often each row was owned."""
    shards: dict[int, list[tuple[int, list[tuple[str, int]]]]] = {shard.index: [] for shard in plan.shards}
    owned: Counter[tuple[str, int]] = Counter()
    for task in plan.tasks:
        rows: list[tuple[str, int]] = []
        for segment in task.segments:
            name = plan.files[segment.file].name
            labels = files[name]
            keep = plan.selection.labels
            survives = [keep is None or label in keep for label in labels]
            first, end = segment.owned(survives[segment.start : segment.stop])
            owned.update((name, row) for row in range(first, end))
            rows += [(name, row) for row in range(first, end) if survives[row]]
        assert len(rows) == task.rows
        shards[task.shard].append((task.part, rows))
    return [[row for _, rows in sorted(parts) for row in rows] for parts in shards.values()], owned


LABELS = st.one_of(
    st.lists(st.integers(-1, 2), max_size=40).map(lambda labels: labels * 90),
    st.builds(lambda n, label: [label] * n, st.integers(0, 3500), st.integers(-1, 2)),
)


@settings(max_examples=300, deadline=None)
@given(
    files=st.lists(LABELS, min_size=1, max_size=4),
    keep=st.sets(st.sampled_from("abc")),
    pack=st.one_of(st.none(), st.integers(1, 4000)),
    limit=st.one_of(st.none(), st.integers(1, 6000)),
    target=st.sampled_from(["cifar", "parquet"]),
    part_rows=st.integers(300, 5000),
)
def test_every_row_has_one_owner_and_survivors_keep_their_order(
    files: list[list[int]], keep: set[str], pack: int | None, limit: int | None, target: str, part_rows: int
) -> None:
    named = {f"data_batch_{i + 1}": labels for i, labels in enumerate(files)}
    wanted = {TABLE.names.index(name) for name in keep}
    survivors = [
        (name, row) for name, labels in named.items() for row, label in enumerate(labels) if not keep or label in wanted
    ][:limit]
    asked = {"labels": tuple(sorted(keep)), "images_per_batch": pack, "limit": limit}
    if not survivors:
        with pytest.raises(InputError):
            plan_of(named, target, part_rows * 3072, **asked)
        return
    plan = plan_of(named, target, part_rows * 3072, **asked)
    shards, owned = carried_out(plan, named)
    assert [row for rows in shards for row in rows] == survivors
    assert [len(rows) for rows in shards] == [shard.rows for shard in plan.shards]
    assert set(owned.values()) <= {1}
    if limit is None:
        assert len(owned) == plan.declared == sum(map(len, files))
    if pack is not None:
        assert all(len(rows) == pack for rows in shards[:-1])
        assert len(shards[-1]) <= pack


def test_batches_follow_the_source_by_default_and_are_copied() -> None:
    files = {"data_batch_1": [0] * 10, "data_batch_2": [1] * 7, "test_batch": [2] * 3}
    plan = plan_of(files)
    assert [(shard.path, shard.rows) for shard in plan.shards] == [(name, len(rows)) for name, rows in files.items()]


def test_a_cut_at_a_chunks_last_survivor_owns_each_row_once() -> None:
    files = {"train": [0] * 500 + [1] * 500 + [0] * 1000}
    plan = plan_of(files, labels=("a",), images_per_batch=500)
    assert set(carried_out(plan, files)[1].values()) == {1}
    assert plan.exhaustive
    assert not plan_of(files, limit=3).exhaustive


def test_packed_batches_are_numbered_and_splits_stay_apart() -> None:
    files = {"data_batch_1": [0] * 10, "data_batch_2": [1] * 7, "test_batch": [2] * 6}
    plan = plan_of(files, images_per_batch=5)
    assert [(s.path, s.rows, s.batch_label) for s in plan.shards] == [
        ("data_batch_1", 5, "training batch 1 of 4"),
        ("data_batch_2", 5, "training batch 2 of 4"),
        ("data_batch_3", 5, "training batch 3 of 4"),
        ("data_batch_4", 2, "training batch 4 of 4"),
        ("test_batch_1", 5, "testing batch 1 of 2"),
        ("test_batch_2", 1, "testing batch 2 of 2"),
    ]


def test_a_group_that_fits_one_batch_keeps_its_name() -> None:
    plan = plan_of({"train": [0] * 10, "test": [1] * 3}, images_per_batch=10)
    assert [shard.path for shard in plan.shards] == ["train", "test"]


def test_a_batch_that_follows_one_file_keeps_its_label_and_others_are_called_by_their_place() -> None:
    files = {"data_batch_3": [0] * 10, "data_batch_4": [0] * 2, "test_batch": [1] * 3}
    plan = plan_of(files)
    assert [(s.path, s.batch_label) for s in plan.shards] == [(name, name) for name in files]
    plan = plan_of(files, subset_names="split")
    assert [(s.path, s.batch_label) for s in plan.shards] == [
        ("train", "training batch 1 of 1"),
        ("test", "test_batch"),
    ]


def test_a_batch_that_lost_all_its_rows_keeps_its_label() -> None:
    plan = plan_of({"data_batch_3": [0] * 10, "data_batch_4": [1] * 3}, labels=("a",))
    assert [(s.rows, s.batch_label) for s in plan.shards] == [(10, "data_batch_3"), (0, "data_batch_4")]


def test_parquet_shards_are_even_and_follow_raw_size_alone() -> None:
    plan = plan_of({f"data_batch_{i}": [0] * 10_000 for i in range(1, 6)} | {"test_batch": [1] * 10_000}, "parquet")
    assert [(shard.path, shard.rows) for shard in plan.shards] == [
        *((f"data/train-{i:05d}-of-00005.parquet", 10_000) for i in range(5)),
        ("data/test-00000-of-00001.parquet", 10_000),
    ]


def test_long_tasks_come_first() -> None:
    plan = plan_of({"data_batch_1": [0] * 5, "data_batch_2": [0] * 50, "data_batch_3": [0] * 20})
    assert [task.rows for task in plan.tasks] == [50, 20, 5]


def test_a_payload_beyond_a_python_2_string_is_refused_with_advice() -> None:
    with pytest.raises(UsageError, match="--images-per-batch 699050 or less"):
        plan_of({"train": [0] * 699_051})
    assert plan_of({"train": [0] * 699_050}).rows == 699_050


def test_a_subset_with_no_rows_left_is_an_empty_batch_in_cifar_and_no_split_in_parquet() -> None:
    files = {"train": [0] * 10, "test": [1] * 3}
    assert [(s.path, s.rows) for s in plan_of(files, labels=("a",)).shards] == [("train", 10), ("test", 0)]
    plan = plan_of(files, "parquet", labels=("a",))
    assert [shard.subset for shard in plan.shards] == ["train"]
    assert any("'test' has no rows left" in notice for notice in plan.notices)
    assert carried_out(plan, files)[1].total() == 13


def test_train_and_test_stand_for_their_batches() -> None:
    files = tuple(summary(name, []).file for name in ("data_batch_1", "data_batch_2", "test_batch"))
    catalog = Catalog("cifar", "CIFAR-10", "in", TABLE, files)
    assert [file.name for file in select_files(catalog, ["train"])] == ["data_batch_1", "data_batch_2"]
    assert [file.name for file in select_files(catalog, ["data_batch_2", "test"])] == ["data_batch_2", "test_batch"]
    with pytest.raises(UsageError, match="did you mean 'train'"):
        select_files(catalog, ["trian"])


def test_the_same_plan_has_the_same_digest_and_another_a_different_one() -> None:
    files = {"train": [0] * 10}
    summaries = [summary(name, labels) for name, labels in files.items()]
    digests = {
        plan_of(files, **options).digest(summaries, {}) for options in ({}, {}, {"limit": 9}, {"remaps": ("a:x",)})
    }
    assert len(digests) == 3
