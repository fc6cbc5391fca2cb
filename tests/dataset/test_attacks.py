"""What attacks on datasets in Python, and on jobs that look at the whole set, have found."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import ConvertOptions, Dataset, DatasetItem, Label, LabelTable, storage
from beam_cifar.errors import InputError, UsageError
from beam_cifar.jobs.prepare import plan_only
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import batch, contents, manifest, picture, quickly, write_cifar
from tests.helpers.reading import tree

pytestmark = pytest.mark.usefixtures("without_runner")


def item(item_id: str, subset: str, value: int, label: int = 0) -> DatasetItem:
    return DatasetItem(item_id, subset, np.full((4, 4, 3), value, np.uint8), [Label(label)])


def values(dataset: Dataset) -> dict[tuple[str, str], int]:
    return {(each.id, each.subset): int(each.image.data[0, 0, 0]) for each in dataset}


@pytest.fixture
def meeting() -> Dataset:
    """Two subsets with the same ids, which come to be one."""
    items = [item("a", "tr", 1), item("b", "tr", 2), item("a", "te", 3), item("b", "te", 4)]
    made = Dataset.from_iterable(items, ["x", "y"])
    return made.transform("map_subsets", mapping={"tr": "q", "te": "q"})


SHOWN = {("a", "q"): 1, ("b", "q"): 2, ("a_2", "q"): 3, ("b_2", "q"): 4}


def test_later_steps_see_the_ids_that_are_shown(meeting: Dataset) -> None:
    assert values(meeting) == SHOWN
    meeting.put(item("c", "q", 5))
    assert values(meeting) == SHOWN | {("c", "q"): 5}
    meeting.put(item("a_2", "q", 6)).remove("b", "q")
    assert values(meeting) == {("a", "q"): 1, ("a_2", "q"): 6, ("b_2", "q"): 4, ("c", "q"): 5}
    meeting.filter('/item[id="a_2" or id="c"]')
    assert values(meeting) == {("a_2", "q"): 6, ("c", "q"): 5}


def test_what_a_job_writes_has_the_ids_that_are_shown(meeting: Dataset, tmp_path: Path) -> None:
    meeting.remove("a_2", "q").export(tmp_path / "out", "cifar", save_images=True)
    assert values(Dataset.import_from(tmp_path / "out")) == {k: v for k, v in SHOWN.items() if k != ("a_2", "q")}


@pytest.mark.parametrize("rule", ["error", "first", "suffix"])
def test_merging_drops_nothing_of_one_data_set_alone(meeting: Dataset, rule: str) -> None:
    other = Dataset.from_iterable([item("other", "q", 9)], ["x"])
    assert values(Dataset.merge(meeting, other, on_clash=rule)) == SHOWN | {("other", "q"): 9}


def test_ids_that_a_renaming_makes_equal_stay_apart() -> None:
    dataset = Dataset.from_iterable([item("1", "q", 1), item("2", "q", 2)], ["x"]).transform("rename", regex="|[12]|k|")
    dataset.put(item("z", "q", 3))
    assert values(dataset) == {("k", "q"): 1, ("k_2", "q"): 2, ("z", "q"): 3}


def test_packed_files_are_not_taken_for_subsets_when_they_are_saved(tmp_path: Path) -> None:
    items = [item(f"p{i}", "data_batch_1", i) for i in range(5)]
    items += [item(f"q{i}", "data_batch_2", 100 + i) for i in range(20)]
    dataset = Dataset.from_iterable(items, ["x"])
    dataset.export(tmp_path / "out", "cifar", save_images=True, images_per_batch=5)
    dataset.remove("p0", "data_batch_1").save()
    found = Dataset.import_from(tmp_path / "out")
    assert sorted(values(found).values()) == [*range(1, 5), *range(100, 120)]


def test_the_label_of_an_item_that_was_put_goes_by_name(tmp_path: Path) -> None:
    write_cifar(tmp_path / "in", {"one": batch(["a.png", "b.png"], [0, 1])}, classes=["x", "y", "z"])
    first, second = (Dataset.import_from(tmp_path / "in") for _ in range(2))
    second.put(item("new", "one", 1, label=1))
    assert len(second) == 3
    first.transform("project_labels", dst_labels=["z", "y"]).save()
    second.save()
    found = Dataset.import_from(tmp_path / "in")
    new = found.get("new", "one")
    assert new is not None
    assert new.label is not None
    assert found.categories.name(new.label) == "y"
    third = Dataset.import_from(tmp_path / "in").put(item("more", "one", 1, label=1))
    assert len(third) == 4
    found.transform("project_labels", dst_labels=["z"]).save()
    with pytest.raises(UsageError, match="has label 'y', which is no longer a category"):
        third.save()


def test_a_save_that_was_killed_between_its_renames_is_taken_back(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"one": batch(["a.png"], [0])})
    before = tree(source)
    folder = storage.JobFolder(str(source), "0" * 16)
    os.makedirs(folder.path)
    storage.begin(folder, "")
    os.rename(source, folder.replaced)
    assert len(Dataset.import_from(source)) == 1
    assert tree(source) == before
    os.rename(source, folder.replaced)
    quickly(source, tmp_path / "out", "parquet")
    assert tree(source) == before
    # Not below a job that is about to put its own there.
    with storage.hold(folder):
        os.rename(source, folder.replaced)
        with pytest.raises(InputError, match="no such file"):
            Dataset.import_from(source)
        os.rename(folder.replaced, source)


def test_counts_beyond_all_bounds_take_what_there_is() -> None:
    dataset = Dataset.from_iterable([item("a", "q", 1)], ["x"])
    dataset.transform("label_random_sampler", count=10**30, label_counts={"x": 10**40})
    dataset.transform("random_sampler", count=10**30)
    assert len(dataset) == 1


def test_a_table_with_a_name_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="class 'x' is given twice"):
        Dataset.from_iterable([], LabelTable(("x", "x", "y")))


def test_a_step_that_is_refused_is_taken_back() -> None:
    dataset = Dataset.from_iterable([item("a", "q", 1)], ["x"])
    dataset.transform("remap_labels", mapping={"zz": "y"}).transform("reindex")
    with pytest.raises(UsageError, match="unknown label 'zz'"):
        len(dataset)
    assert [each.id for each in dataset] == ["a"]
    assert [each.id for each in dataset.transform("reindex")] == ["1"]


def test_looking_again_does_only_what_is_new(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"one": batch([f"{i}.png" for i in range(9)], [0] * 9)})
    dataset = Dataset.import_from(source)
    asked = []
    dataset.select(lambda each: asked.append(each.id) or True)  # type: ignore[func-returns-value]
    for number in range(5):
        dataset.put(item(f"new{number}", "one", number))
        assert len(dataset) == 10 + number
    assert len(asked) == 9
    dataset.transform("sort", by=["size", "id"])  # needs what was not looked at before
    assert [each.id for each in dataset][:5] == [f"new{i}" for i in range(5)]


def test_pixel_steps_meet_the_same_items_however_often_one_looks() -> None:
    sizes = []
    for looks in (False, True):
        dataset = Dataset.from_iterable([item("a", "q", 1)], ["x"])
        for number in range(3):
            dataset.transform("resize", width=5 + number, height=7)
            assert not looks or len(dataset) == 1 + number
            dataset.put(item(f"put{number}", "q", 2))
        sizes.append({each.id: each.image.data.shape for each in dataset})
    assert sizes[0] == sizes[1] == {"a": (7, 7, 3), "put0": (7, 7, 3), "put1": (7, 7, 3), "put2": (4, 4, 3)}


def test_items_that_were_taken_out_stay_as_they_were() -> None:
    """Whatever is done to the dataset before their image is asked for."""
    dataset = Dataset.from_iterable([item(str(i), "q", i) for i in range(3)], ["x"])
    before, waiting, subset = list(dataset), iter(dataset), dataset.subsets["q"]
    first = next(waiting)
    dataset.transform("resize", width=9, height=8).put(item("new", "q", 7))
    assert [each.image.data.shape for each in dataset] == [(8, 9, 3)] * 3 + [(4, 4, 3)]
    for items in (before, [first, *waiting], list(subset)):
        assert [(each.id, each.image.data.shape) for each in items] == [(str(i), (4, 4, 3)) for i in range(3)]


def test_removing_thousands_is_one_step() -> None:
    dataset = Dataset.from_iterable((item(str(i), "q", 1) for i in range(3000)), ["x"])
    for number in range(2999):
        dataset.remove(number, "q")
    assert [each.id for each in dataset] == ["2999"]
    assert dataset.remove("2999", "q").put(item("2999", "q", 7)) is dataset
    assert values(dataset) == {("2999", "q"): 7}


def test_notices_of_an_export_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "beam_cifar"):
        Dataset.from_iterable([item("a", "q", 1)], ["x"]).export(tmp_path / "out", "cifar")
    assert [record.message for record in caplog.records if record.name == "beam_cifar"] == [
        "cifar output has no pixels (--save-images writes them)"
    ]


def test_importing_leaves_the_log_of_a_program_alone() -> None:
    code = """
import logging, sys
logging.disable(logging.INFO)
from beam_cifar import Dataset, convert, ReadExamples
assert logging.root.manager.disable == logging.INFO
assert all("beam_cifar" not in type(finder).__module__ for finder in sys.meta_path)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "apitools" not in done.stderr


def test_the_manifest_says_what_the_ids_of_source_labels_mean(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"one": batch(["a.png", "b.png", "c.png"], [0, 1, 2])})
    step = make_step("project_labels", {"dst_labels": ["ship", "cat"]})
    quickly(source, tmp_path / "out", "parquet", steps=(step,))
    told = manifest(tmp_path / "out")
    assert told["labels"]["names"] == ["ship", "cat"]
    assert told["source_labels"] == ["cat", "dog", "ship"]
    assert told["counts"]["read"] == {"one": {"0": 1, "1": 1, "2": 1}}
    assert told["counts"]["unlabelled"] == {"one": {"1": 1}}
    assert told["counts"]["written"] == {"one": {"-1": 1, "0": 1, "1": 1}}


def test_a_set_without_superclasses_is_named_when_it_is_merged(tmp_path: Path) -> None:
    grouped = LabelTable(("a", "b"), ("letters",), (0, None))
    with_parents = Dataset.from_iterable([item("1", "q", 1)], grouped)
    plain = Dataset.from_iterable([item("2", "q", 2)], ["c"])
    summary = Dataset.merge(with_parents, plain).export(tmp_path / "out", "parquet")
    assert [n for n in summary.notices if "superclass" in n] == [
        "class 'c': no superclass, because a merged dataset has none"
    ]
    summary = Dataset.merge(with_parents, Dataset.from_iterable([item("2", "q", 2)], grouped)).export(
        tmp_path / "same", "parquet"
    )
    assert not [n for n in summary.notices if "superclass" in n]


def test_a_batch_that_a_filter_keeps_whole_is_still_copied(tmp_path: Path) -> None:
    items = [DatasetItem(str(i), "one", picture(i).transpose(1, 2, 0), [Label(0)]) for i in range(4)]
    Dataset.from_iterable(items, ["x"]).export(tmp_path / "in", "cifar", save_images=True)
    for mode, copied in (("items", True), ("annotations", False)):
        expression = '/item[subset="one"]/annotation' if mode == "annotations" else '/item[subset="one"]'
        asked: dict[str, Any] = {"filter": expression, "filter_mode": mode, "save_images": True}
        options = ConvertOptions(str(tmp_path / "in"), str(tmp_path / mode), "cifar", **asked)
        assert [task.copy for task in plan_only(options, str(tmp_path))[1].tasks] == [copied]
        quickly(tmp_path / "in", tmp_path / mode, "cifar", **asked)
        assert contents(tmp_path / "in")["one"] == contents(tmp_path / mode)["one"]
