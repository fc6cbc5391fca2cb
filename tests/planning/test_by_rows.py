"""Jobs that are planned row by row: the same as the quick plan where both can do it, and the same however they run."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_cifar import ConvertOptions
from beam_cifar.errors import InputError, JobError, UsageError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.registry import get_source
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import plan_only
from beam_cifar.options import Input
from beam_cifar.planning.chosen_rows import read_rows
from beam_cifar.planning.plan import Inputs, Origin
from beam_cifar.planning.summaries import scan
from beam_cifar.steps.flags import First
from beam_cifar.steps.registry import STEPS, make_step
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    differences,
    encoded,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)

EVERYTHING = (First(10**9),)
"""A step that changes nothing, and makes a job be planned row by row."""

OPTIONS: dict[str, dict[str, Any]] = {
    "filter": {"expression": '/item[annotation/label!="dog"]'},
    "remove_items": {"ids": []},
    "remove_annotations": {},
    "dedupe": {},
    "sort": {"by": ["label", "id"]},
    "shuffle": {"seed": 3},
    "rename": {"regex": "|_s_|-|"},
    "reindex": {"start": 7},
    "id_from_image_name": {},
    "map_subsets": {"mapping": {"data_batch_1": "first", "data_batch_2": "first"}},
    "random_split": {"splits": [("train", 0.7), ("val", 0.1), ("test", 0.2)]},
    "split": {"splits": [("a", 0.5), ("b", 0.5)], "seed": 1},
    "random_sampler": {"count": 300},
    "label_random_sampler": {"count": 20, "label_counts": {"dog": 5}},
    "remap_labels": {"mapping": {"dog": "cat", "ship": ""}},
    "project_labels": {"dst_labels": ["truck", "dog", "unicorn"]},
    "fine_to_coarse": {},
    "compact_labels": {},
    "resize": {"width": 9, "height": 12},
    "crop": {"width": 20, "height": 16},
    "grayscale": {},
}


@pytest.mark.parametrize("name", STEPS)
def test_every_transform_writes_the_same_bytes_on_one_worker_and_on_four(
    name: str, cifar10: Path, cifar100: Path, tmp_path: Path
) -> None:
    source = cifar100 if name == "fine_to_coarse" else cifar10
    steps = (make_step(name, OPTIONS[name]),)
    made = []
    for workers in (1, 4):
        output = tmp_path / str(workers) / "out"
        converted(source, output, "parquet", steps=steps, images_per_batch=100, workers=workers)
        made.append((contents(output), manifest(output)))
    assert not differences(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]
    assert len(made[0][0]) > 2


SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "as it is": ("cifar", {"save_images": True}),
    "labels only": ("cifar", {}),
    "packed": ("cifar", {"save_images": True, "images_per_batch": 70}),
    "one batch as its split": ("cifar", {"save_images": True, "subsets": ("data_batch_2",), "subset_names": "split"}),
    "a few classes": ("cifar", {"save_images": True, "labels": ("dog", "ship"), "remaps": ("dog:ship",)}),
    "a filter": ("parquet", {"filter": '/item[annotation/label="dog" or subset="test_batch"]'}),
    "annotations": (
        "cifar",
        {"filter": '/item/annotation[label="dog"]', "filter_mode": "annotations", "save_images": True},
    ),
    "resized": ("cifar", {"resize": (7, 9), "save_images": True}),
    "limited": ("parquet", {"limit": 321, "labels": ("cat", "dog")}),
    "folders": ("imagenet", {"subsets": ("test",)}),
    "folders of JPEG files": ("imagenet_with_subset_dirs", {"image_ext": ".jpg", "labels": ("dog",)}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_quick_plan_and_the_one_by_rows_write_the_same(case: str, cifar10: Path, tmp_path: Path) -> None:
    target, options = SAME[case]
    quickly(cifar10, tmp_path / "quick", target, **options)
    quickly(cifar10, tmp_path / "rows", target, steps=EVERYTHING, **options)
    assert contents(tmp_path / "quick") == contents(tmp_path / "rows")
    quick, rows = manifest(tmp_path / "quick"), manifest(tmp_path / "rows")
    for name in ("labels", "subsets", "classes", "unlabelled", "shards", "files", "renamed"):
        assert quick[name] == rows[name], name
    if case != "limited":
        assert quick["rows"] == rows["rows"]
        assert quick["counts"] == rows["counts"]


def test_both_plans_agree_on_mixed_sizes_and_rows_without_image_or_label(tmp_path: Path) -> None:
    images = [picture(1, 5, 7), None, picture(2, 32, 32), picture(3, 5, 7)]
    data = [None if image is None else image.reshape(-1) for image in images]
    sizes = [None if image is None else image.shape[1:] for image in images]
    content = {
        "data": data,
        "image_sizes": sizes,
        "labels": [0, 1, None, 2],
        "filenames": ["a.png", "b.png", "c.png", "b.png"],
    }
    source = write_cifar(tmp_path / "in", {"one": content, "two": batch(["x.png"], [1])})
    for target, options in (("cifar", {"save_images": True}), ("parquet", {}), ("cifar", {})):
        outputs = [tmp_path / f"{target}-{len(options)}-{kind}" for kind in ("quick", "rows")]
        for output, steps in zip(outputs, ((), EVERYTHING), strict=True):
            quickly(source, output, target, steps=steps, **options)
        assert contents(outputs[0]) == contents(outputs[1])


def test_unchanged_files_are_copied_also_by_rows(cifar10: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar", save_images=True, steps=EVERYTHING)
    _, plan = plan_only(options, str(tmp_path))
    assert all(task.copy for task in plan.tasks)
    _, plan = plan_only(ConvertOptions(**{**vars(options), "steps": (make_step("shuffle", {}),)}), str(tmp_path))
    assert not any(task.copy for task in plan.tasks)


@pytest.mark.parametrize("subset", ["data_batch_2", "test_batch"])
@pytest.mark.parametrize("target", ["cifar", "cifar_binary"])
def test_both_plans_copy_the_same_files(subset: str, target: str, cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "in", target, save_images=True)
    asked: dict[str, Any] = {"subsets": (subset,), "subset_names": "split", "save_images": True}
    copied = []
    for steps in ((), EVERYTHING):
        options = ConvertOptions(str(tmp_path / "in"), str(tmp_path / "out"), target, steps=steps, **asked)
        copied.append([task.copy for task in plan_only(options, str(tmp_path))[1].tasks])
    assert copied == [[True], [True]]


def test_an_archive_gives_what_its_directory_gives(cifar10: Path, cifar10_archive: Path, tmp_path: Path) -> None:
    steps = (make_step("shuffle", {}), make_step("random_split", {}))
    for source, name in ((cifar10, "directory"), (cifar10_archive, "archive")):
        converted(source, tmp_path / name, "cifar", steps=steps, save_images=True)
    assert contents(tmp_path / "directory") == contents(tmp_path / "archive")
    assert names_beside(tmp_path / "archive") == COMPLETE


def test_shuffled_rows_keep_pixels_label_and_name_together(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", "cifar", save_images=True, steps=(make_step("shuffle", {"seed": 5}),))
    before, after = (
        [pickle.loads((folder / name).read_bytes(), encoding="latin1") for name in ("train", "test")]
        for folder in (cifar100, tmp_path / "out")
    )
    for old, new in zip(before, after, strict=True):
        names = ["filenames", "fine_labels", "coarse_labels"]
        rows = [sorted(zip(*(each[n] for n in names), map(bytes, each["data"]), strict=True)) for each in (old, new)]
        assert rows[0] == rows[1]
        assert old["filenames"] != new["filenames"]


def test_every_layout_of_a_pickle_gives_single_rows(tmp_path: Path) -> None:
    """Whatever way pixels lie in the file, rows taken here and there are those of the whole."""
    source, checked = get_source("cifar"), 0
    for name, data in _layouts().items():
        folder = tmp_path / str(checked)
        folder.mkdir()
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}, protocol=2))
        (folder / "batch").write_bytes(data)
        catalog = source.describe(str(folder), "")
        with source.open_rows(catalog.files[0], catalog.labels) as rows:
            wanted = [row for row in (0, 1, 3, 6, 7, 9) if row < rows.rows]
            assert rows.take(wanted) == rows.table(0, rows.rows).take(pa.array(wanted)), name
        checked += 1
    assert checked >= 5


def _layouts() -> dict[str, bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 3 * 6 * 6), dtype=np.uint8)
    common = {"labels": list(range(10)), "filenames": [f"{i}.png" for i in range(10)]}
    shaped = pixels.reshape(10, 3, 6, 6)
    rows = {
        "two dimensions": pixels,
        "four dimensions": shaped,
        "Fortran order": np.asfortranarray(pixels),
        "Fortran order, four dimensions": np.asfortranarray(shaped),
        "a list": list(pixels),
        "a list of planes": [np.asfortranarray(image) for image in shaped],
        "objects": np.array([*map(list, pixels.tolist())], dtype=object),
    }
    return {
        f"{name}, protocol {protocol}": pickle.dumps({"data": data, **common}, protocol=protocol)
        for name, data in rows.items()
        for protocol in (0, 2, 4)
    }


def test_rows_of_many_files_come_in_the_order_asked_for(tmp_path: Path) -> None:
    """More files than are kept open, and images too large to be read all together."""
    batches = {
        f"b{number:02d}": batch([f"{number}-{row}.png" for row in range(3)], [0, 1, 2], seed=number)
        for number in range(40)
    }
    source = get_source("cifar")
    catalog = source.describe(str(write_cifar(tmp_path / "in", batches)), "")
    inputs = Inputs(catalog.files, (Origin("cifar", catalog.labels),), (3072,) * 40)
    files = np.random.default_rng(2).permutation(np.repeat(np.arange(40, dtype=np.int32), 3))
    rows = np.random.default_rng(3).integers(0, 3, 120).astype(np.int32)
    for row_bytes in (0, 9 << 20):
        tables = list(read_rows(files, rows, inputs, row_bytes=row_bytes))
        found = pa.concat_tables(tables)
        assert found.column("filename").to_pylist() == [f"{f}-{r}.png" for f, r in zip(files, rows, strict=True)]
        assert max(map(len, tables)) == (1 if row_bytes else 120)
        for f, r, image in zip(files, rows, found.column("image").to_pylist(), strict=True):
            assert image == picture(1000 * int(f) + int(r)).tobytes()


def test_subsets_that_meet_give_repeated_ids_a_number(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    source = write_cifar(tmp_path / "in", {"one": batch(names, [0, 1]), "two": batch(names, [1, 2], seed=1)})
    step = make_step("map_subsets", {"mapping": {"one": "all_of_it", "two": "all_of_it"}})
    summary = quickly(source, tmp_path / "out", steps=(step,))
    assert any(
        "2 items repeat an id of their subset, such as 'a' in 'all_of_it'; a suffix was added" in notice
        for notice in summary.notices
    )
    assert sorted(contents(tmp_path / "out")) == ["cat/a.png", "dog/a_2.png", "dog/b.png", "ship/b_2.png"]
    quickly(source, tmp_path / "back", "cifar", steps=(step,), save_images=True)
    assert pickle.loads((tmp_path / "back/all_of_it").read_bytes(), encoding="latin1")["filenames"] == [
        "a.png",
        "b.png",
        "a_2.png",
        "b_2.png",
    ]


def test_the_counts_tell_what_was_dropped_and_what_lost_its_label(cifar10: Path, tmp_path: Path) -> None:
    steps = tuple(
        make_step(name, options)
        for name, options in (("remap_labels", {"mapping": {"dog": ""}}), ("random_sampler", {"count": 500}))
    )
    quickly(cifar10, tmp_path / "out", "parquet", steps=steps)
    rows = manifest(tmp_path / "out")["rows"]
    assert rows["read"] == 1203
    assert (rows["written"], rows["filtered"], rows["rejected"]) == (500, 703, 0)
    assert rows["unlabelled"] == manifest(tmp_path / "out")["unlabelled"] > 20


def test_a_step_that_leaves_nothing_is_refused(cifar10: Path, tmp_path: Path) -> None:
    step = make_step("filter", {"expression": '/item[annotation/label="dgo"]'})
    with pytest.raises(InputError, match="nothing to write: none of 1,203 rows is left.*did you mean 'dog'"):
        quickly(cifar10, tmp_path / "out", "parquet", steps=(step, make_step("shuffle", {})))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.beam_cifar").exists()


def test_an_id_in_two_subsets_is_refused_where_all_share_one_tree(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"one": batch(["a.png"], [0]), "two": batch(["a.png"], [0], seed=1)})
    with pytest.raises(UsageError, match="'a' in subset 'one' and 'a' in subset 'two' would become the same file"):
        quickly(source, tmp_path / "out", steps=EVERYTHING)


def test_rows_without_image_are_refused_where_images_are_files(tmp_path: Path) -> None:
    content = {"data": [None, picture(1).reshape(-1)], "labels": [0, 1], "filenames": ["a.png", "b.png"]}
    source = write_cifar(tmp_path / "in", {"one": content})
    with pytest.raises(InputError, match=r"one: row 0: no image"):
        quickly(source, tmp_path / "out", steps=EVERYTHING)


def test_a_batch_that_changes_in_mid_run_is_refused(tmp_path: Path) -> None:
    from unittest import mock

    source = write_cifar(tmp_path / "in", {"one": batch(["a.png", "b.png"], [0, 1])})

    def meddle(job: Any, options: Any = None) -> None:
        (source / "one").write_bytes(pickle.dumps(batch(["a.png", "b.png"], [1, 1])))
        serial.run(job)

    with (
        mock.patch("beam_cifar.pipeline.convert.start", meddle),
        pytest.raises(InputError, match="the file changed while it was being converted"),
    ):
        converted(source, tmp_path / "out", "cifar", steps=(make_step("shuffle", {}),), save_images=True)


def test_rows_that_get_lost_on_the_way_are_noticed(cifar10: Path, tmp_path: Path) -> None:
    from unittest import mock

    def lose(job: Any, options: Any = None) -> None:
        from beam_cifar.jobs import read_part as source

        read = source.read_chosen  # type: ignore[attr-defined]
        with mock.patch.object(
            source, "read_chosen", lambda *a: ((t.slice(0, max(0, len(t) - 1)), last) for t, last in read(*a))
        ):
            serial.run(job)

    with mock.patch("beam_cifar.pipeline.convert.start", lose), pytest.raises(JobError, match="part 0 received"):
        converted(cifar10, tmp_path / "out", "parquet", steps=EVERYTHING)


def test_images_of_a_folder_are_taken_here_and_there(tmp_path: Path) -> None:
    files = {
        f"{'ab'[n % 2]}/{n:02d}.{'png' if n % 3 else 'jpg'}": encoded(picture(n), "PNG" if n % 3 else "JPEG")
        for n in range(20)
    }
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "out", steps=(make_step("shuffle", {}), make_step("random_sampler", {"count": 11})))
    made = contents(tmp_path / "out")
    assert len(made) == 11
    assert made.items() <= contents(source).items()


def test_a_manifest_states_the_steps_and_no_paths(cifar10: Path, tmp_path: Path) -> None:
    step = make_step("random_split", {"splits": {"a": 0.5, "b": 0.5}, "seed": 4})
    other = write_cifar(tmp_path / "other", {"more": batch(["z.png"], [0])}, classes=["cat"])
    quickly(cifar10, tmp_path / "out", "parquet", steps=(step,), merged=(Input(str(other)),))
    told = manifest(tmp_path / "out")["options"]
    assert told["steps"] == [["random_split", {"splits": [["a", 0.5], ["b", 0.5]], "seed": 4}]]
    assert str(tmp_path) not in json.dumps(told)


def test_a_summary_of_columns_is_what_the_rows_hold(cifar10: Path) -> None:
    source = get_source("cifar")
    catalog = source.describe(str(cifar10), "")
    wanted = Wanted(columns=frozenset({"id", "filename", "size", "label"}))
    summary = scan(source, catalog.files[0], catalog.labels, wanted)
    content = pickle.load(io.BytesIO((cifar10 / "data_batch_1").read_bytes()), encoding="latin1")
    assert summary.columns is not None
    assert summary.columns.column("filename").to_pylist() == content["filenames"]
    assert summary.columns.column("label").to_pylist() == content["labels"]
    assert set(summary.columns.column("height").to_pylist()) == {32}
