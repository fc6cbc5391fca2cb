"""Each transform against plain Python, on random blocks."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_cifar.data.block import Block, row_counts, spans
from beam_cifar.data.schema import example_schema, facts_table, image_array, plain_labels, with_images
from beam_cifar.errors import InputError, JobError
from beam_cifar.filters.selection import Selection
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.images.encodings import RAW
from beam_cifar.planning.plan import Origin
from beam_cifar.steps.encode import encode_images
from beam_cifar.steps.remap import remap_labels
from beam_cifar.steps.select import select_rows

SIZES = [(32, 32), (5, 9), (5, 4), (1, 1), None]


def block_of(labels: list[int], sizes: list[tuple[int, int] | None], subset: str = "train") -> Block:
    rng = np.random.default_rng(len(labels))
    images = [None if s is None else rng.integers(0, 256, 3 * s[0] * s[1], dtype=np.uint8).tobytes() for s in sizes]
    facts = facts_table(
        ids=[str(i) for i in range(len(labels))],
        subset=subset,
        sizes=sizes,
        labels=np.array(labels, dtype=np.int64),
        filenames=[f"{i}.png" for i in range(len(labels))],
    )
    column = image_array(b"".join(i or b"" for i in images), [None if i is None else len(i) for i in images])
    table = with_images(facts, column, RAW)
    return Block(table, 0, 0, 0, True, Counter((subset, label) for label in labels))


BLOCKS = st.lists(st.tuples(st.integers(-1, 4), st.sampled_from(SIZES)), max_size=60).map(
    lambda rows: block_of([label for label, _ in rows], [size for _, size in rows])
)


def only(labels: frozenset[int] | None, expression: str | None = None, mode: str = "items") -> Selection:
    return Selection(tuple("abcde"), labels, None if expression is None else ItemFilter(expression, mode))


@given(BLOCKS, st.frozensets(st.integers(0, 4)))
@settings(deadline=None)
def test_a_selection_by_label_keeps_exactly_those_rows_and_counts_the_others(
    block: Block, labels: frozenset[int]
) -> None:
    kept = select_rows(block, selection=only(labels))
    assert kept.table.to_pylist() == [row for row in block.table.to_pylist() if row["label"] in labels]
    assert kept.table.schema == example_schema()
    assert kept.read == row_counts(kept.table) + kept.filtered


@given(BLOCKS, st.one_of(st.none(), st.frozensets(st.integers(0, 4))))
@settings(deadline=None)
def test_a_selection_by_filter_and_label_keeps_rows_that_pass_both(block: Block, labels: frozenset[int] | None) -> None:
    kept = select_rows(block, selection=only(labels, '/item[annotation/label="b" or image/width=9]'))
    expected = [
        row
        for row in block.table.to_pylist()
        if (row["label"] == 1 or row["width"] == 9) and (labels is None or row["label"] in labels)
    ]
    assert kept.table.to_pylist() == expected
    assert kept.read == row_counts(kept.table) + kept.filtered


@given(BLOCKS)
@settings(deadline=None)
def test_a_filter_of_annotations_takes_labels_away_and_counts_them(block: Block) -> None:
    kept = select_rows(block, selection=only(None, '/item/annotation[label="b"]', "annotations"))
    assert kept.table.to_pylist() == [
        {**row, "label": row["label"] if row["label"] == 1 else None} for row in block.table.to_pylist()
    ]
    lost = Counter(row["label"] for row in block.table.to_pylist()) - Counter({1: 10**9, None: 10**9})
    assert {label: n for (_, label), n in kept.unlabelled.items()} == dict(lost)


@given(BLOCKS, st.tuples(*[st.integers(0, 4)] * 5))
@settings(deadline=None)
def test_remap_labels_changes_labels_alone(block: Block, targets: tuple[int, ...]) -> None:
    made = remap_labels(block, targets=targets)
    old = plain_labels(block.table).tolist()
    assert plain_labels(made.table).tolist() == [targets[label] if label >= 0 else -1 for label in old]
    assert made.table.drop_columns("label") == block.table.drop_columns("label")
    assert made.table.schema == example_schema()


@given(BLOCKS)
@settings(deadline=None)
def test_encoded_images_have_the_same_pixels(block: Block) -> None:
    made = encode_images(block, encodings=("png",))
    assert made.table.schema == example_schema()
    for before, after in zip(block.table.to_pylist(), made.table.to_pylist(), strict=True):
        if before["image"] is None:
            assert after["image"] is None
            continue
        image = np.asarray(Image.open(io.BytesIO(after["image"])))
        assert image.shape == (before["height"], before["width"], 3)
        assert image.transpose(2, 0, 1).tobytes() == before["image"]
        assert after["encoding"] == "png"


def test_images_of_the_wanted_encoding_pass_through() -> None:
    once = encode_images(block_of([1], [(5, 9)]), encodings=("png",))
    assert encode_images(once, encodings=("png",)) is once


def test_filtering_sliced_and_chunked_tables_keeps_pixels() -> None:
    block = block_of([0, 1, 2, 3] * 5, [(5, 9)] * 20)
    chunked = pa.concat_tables([block.table.slice(3, 7), block.table.slice(12, 5)])
    kept = encode_images(select_rows(replace(block, table=chunked), selection=only(frozenset({1}))), encodings=("png",))
    expected = [row["image"] for row in chunked.to_pylist() if row["label"] == 1]
    found = [
        np.asarray(Image.open(io.BytesIO(i))).transpose(2, 0, 1).tobytes() for i in kept.table["image"].to_pylist()
    ]
    assert found == expected


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 10**8))
def test_spans_cover_every_row_once_within_the_limits(start: int, rows: int, row_bytes: int) -> None:
    pieces = spans(start, start + rows, row_bytes)
    assert [row for first, end in pieces for row in range(first, end)] == list(range(start, start + rows))
    assert all(end - first <= 1000 and (end - first) * row_bytes <= max(16 << 20, row_bytes) for first, end in pieces)


def test_a_rejected_row_fails_the_job_in_the_sink(cifar10: Any, tmp_path: Any) -> None:
    from beam_cifar import ConvertOptions
    from beam_cifar.data.block import BadRow
    from beam_cifar.jobs.prepare import prepare
    from beam_cifar.jobs.read_part import SourceSettings, read_task
    from beam_cifar.jobs.settings import SinkSettings
    from beam_cifar.jobs.write_part import OpenPart

    with prepare(ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar")) as job:
        sink = SinkSettings.of(job.plan, "cifar", job.folder)
        block = next(read_task(job.plan.tasks[0], SourceSettings.of(job.plan)))
        part = OpenPart(sink, sink.shards[block.shard], block.part)
        bad = BadRow("data_batch_1", 7, "data_batch_1", "read", "is broken")
        with pytest.raises(InputError, match="data_batch_1: row 7: is broken"):
            part.append(replace(block, rejected=(bad,)))
        with pytest.raises(JobError, match="blocks out of order"):
            part.append(replace(block, number=1))
        with pytest.raises(JobError, match="were planned"):
            part.append(replace(block, table=block.table.slice(1)))
        part.abandon()


def test_rows_that_a_reader_cannot_keep_travel_in_the_block(tmp_path: Any) -> None:
    import pickle

    from beam_cifar import LabelTable
    from beam_cifar.formats.registry import get_source
    from beam_cifar.jobs.read_part import SourceSettings, read_task
    from beam_cifar.planning.plan import Segment, Task

    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    data = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
    (tmp_path / "train").write_bytes(pickle.dumps({"labels": [0, 9, 1, 0], "data": data}))
    files = get_source("cifar").describe(str(tmp_path), str(tmp_path)).files
    settings_ = SourceSettings((Origin("cifar", LabelTable(("a", "b"))),), files, only(None))
    (block,) = read_task(Task(0, 0, 3, (Segment(0, 0, 4, 0, 3),)), settings_)
    assert [row["id"] for row in block.table.to_pylist()] == ["train_0", "train_2", "train_3"]
    assert [row["image"] for row in block.table.to_pylist()] == [data[i].tobytes() for i in (0, 2, 3)]
    assert [(bad.row, bad.stage) for bad in block.rejected] == [(1, "read")]
    assert block.read.total() == len(block.table) + len(block.rejected)
