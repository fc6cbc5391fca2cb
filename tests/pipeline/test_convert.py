"""Whole conversions in this process, read back by other code."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import ConvertOptions, Summary, convert
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.image_trees import set_part_bytes
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, tree, unpickled


def converted(source: Path, output: Path, target: str = "cifar", *beam: str, **options: Any) -> Summary:
    options = {"save_images": True, "workers": 1, **options}
    return convert(ConvertOptions(str(source), str(output), target, **options), beam)


def write_set(folder: Path, batches: dict[str, dict[str, Any]], meta: dict[str, Any] | None = None) -> Path:
    """A dataset as somebody's Python 3 script would write it."""
    folder.mkdir()
    meta = meta or {"label_names": ["a", "b", "c"]}
    (folder / ("meta" if "fine_label_names" in meta else "batches.meta")).write_bytes(pickle.dumps(meta))
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch))
    return folder


def batch(labels: list[Any], **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(len(labels))
    data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    return {"labels": labels, "data": data, "filenames": [f"{i}.png" for i in range(len(labels))], **more}


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_an_unchanged_set_is_copied_byte_for_byte(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    summary = converted(source, tmp_path / "out")
    expected = {name: digest for name, digest in tree(source).items() if name not in ("readme.html", "file.txt~")}
    assert tree(tmp_path / "out") == expected
    assert summary.read == summary.written == sum(summary.subsets.values())


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("style", ["python2", "protocol4"])
def test_repacked_rows_are_equal_and_in_order(
    kind: str, style: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    if style == "protocol4":
        source = protocol4(source, tmp_path / "source")
    converted(source, tmp_path / "out", images_per_batch=300)
    sizes = {name: len(unpickled(tmp_path / "out" / name)["filenames"]) for name in batch_names(tmp_path / "out")}
    for split in ("data_batch", "test", "train"):
        of_split = [name for name in sizes if name.startswith(split)]
        assert [sizes[name] for name in of_split[:-1]] == [300] * (len(of_split) - 1)
        rows = cifar_rows(tmp_path / "out", of_split)
        assert rows == cifar_rows(source, [name for name in batch_names(source) if name.startswith(split)])
    meta_file = "batches.meta" if kind == "cifar10" else "meta"
    renumbered = {"num_cases_per_batch": 300} if kind == "cifar10" else {}
    assert unpickled(tmp_path / "out" / meta_file) == unpickled(source / meta_file) | renumbered


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_python_3_set_is_rewritten_in_the_one_style(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    genuine: Path = request.getfixturevalue(kind)
    converted(protocol4(genuine, tmp_path / "source"), tmp_path / "out")
    for name in batch_names(genuine):
        assert cifar_rows(tmp_path / "out", [name]) == cifar_rows(genuine, [name])
        written, size = (tmp_path / "out" / name).stat().st_size, (genuine / name).stat().st_size
        assert abs(written - size) <= 0.001 * size
    # Another conversion finds nothing to rewrite.
    converted(tmp_path / "out", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


def protocol4(source: Path, folder: Path) -> Path:
    """The same set as a Python 3 script would save it."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix in ("", ".meta"):
            (folder / path.name).write_bytes(pickle.dumps(unpickled(path), protocol=4))
    return folder


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar"])
def test_an_archive_is_read_in_place(suffix: str, cifar10: Path, cifar10_archive: Path, tmp_path: Path) -> None:
    source = cifar10_archive
    if suffix == ".tar":
        source = tmp_path / "cifar.tar"
        with tarfile.open(source, "w") as archive:
            archive.add(cifar10, "cifar-10-batches-py")
    converted(source, tmp_path / "out", workers=2)
    assert cifar_rows(tmp_path / "out") == cifar_rows(cifar10)


def test_a_folder_above_the_data_set_is_understood(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cifar-10-batches-py").symlink_to(cifar10)
    assert converted(tmp_path / "root", tmp_path / "out").written == 1203


def test_parquet_holds_the_same_pixels_names_and_labels(cifar10: Path, tmp_path: Path) -> None:
    summary = converted(cifar10, tmp_path / "out", "parquet")
    train = [name for name in batch_names(cifar10) if name.startswith("data")]
    expected = [(name, label, pixels) for name, label, _, pixels in cifar_rows(cifar10, train)]
    assert parquet_rows(tmp_path / "out", "train") == expected
    assert summary.subsets == {"train": len(expected), "test": 1203 - len(expected)}


def test_parquet_of_cifar100_has_fine_and_coarse_labels(cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", "parquet")
    expected = [(name, fine, coarse, pixels) for name, fine, coarse, pixels in cifar_rows(cifar100, ["test"])]
    assert parquet_rows(tmp_path / "out", "test") == expected


def test_a_label_keeps_its_rows_only_and_ids_stay(cifar10: Path, tmp_path: Path) -> None:
    summary = converted(cifar10, tmp_path / "out", labels=("dog", "cat"))
    expected = [row for row in cifar_rows(cifar10) if row[1] in (5, 3)]
    assert cifar_rows(tmp_path / "out") == expected
    assert summary.read == 1203
    assert summary.filtered == 1203 - len(expected)
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"][5] == "dog"


def test_a_superclass_keeps_all_its_classes(cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", labels=("people",))
    names = unpickled(cifar100 / "meta")["coarse_label_names"]
    rows = cifar_rows(tmp_path / "out")
    assert rows == [row for row in cifar_rows(cifar100) if names[row[2]] == "people"]
    assert len({row[1] for row in rows}) == 5


def test_merged_classes_take_the_label_and_superclass_of_the_one_they_join(cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", remaps=("girl:tiger", "boy:tiger"))
    meta = unpickled(cifar100 / "meta")
    fine, coarse = meta["fine_label_names"], meta["coarse_label_names"]
    moved = {fine.index("girl"), fine.index("boy")}
    target = (fine.index("tiger"), coarse.index("large_carnivores"))
    expected = [(n, *(target if f in moved else (f, c)), p) for n, f, c, p in cifar_rows(cifar100)]
    assert cifar_rows(tmp_path / "out") == expected


def test_a_renamed_class_changes_the_meta_file_alone(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", remaps=("dog:Собака",))
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"][5] == "Собака"
    assert (tmp_path / "out" / "data_batch_1").read_bytes() == (cifar10 / "data_batch_1").read_bytes()


def test_the_train_split_selects_all_its_batches(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", subsets=("train",))
    assert batch_names(tmp_path / "out") == [f"data_batch_{i}" for i in range(1, 6)]


def test_a_limit_keeps_the_first_images(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", limit=321, labels=("ship", "frog"))
    expected = [row for row in cifar_rows(cifar10) if row[1] in (8, 6)][:321]
    assert cifar_rows(tmp_path / "out") == expected


def test_pixels_are_left_out_unless_asked_for(cifar10: Path, tmp_path: Path) -> None:
    summary = converted(cifar10, tmp_path / "out", save_images=False)
    assert [row[:3] for row in cifar_rows(tmp_path / "out")] == [row[:3] for row in cifar_rows(cifar10)]
    assert len(unpickled(tmp_path / "out" / "data_batch_1")["data"]) == 0
    assert summary.losses == ("pixels",)
    assert "cifar output has no pixels (--save-images writes them)" in summary.notices


def test_images_of_any_size_rows_without_image_and_without_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(32, 32), (5, 9), None, (40, 1)]
    rows = [None if s is None else rng.integers(0, 256, 3 * s[0] * s[1], dtype=np.uint8) for s in shapes]
    data = np.empty(4, dtype=object)
    data[:] = rows
    mixed = batch([0, None, 2, "b"], data=data, image_sizes=[s or (32, 32) for s in shapes])
    source = write_set(tmp_path / "in", {"my subset": mixed, "second": batch([1, 1])})
    converted(source, tmp_path / "out")
    out = unpickled(tmp_path / "out" / "my subset")
    assert [None if row is None else row.tobytes() for row in out["data"]] == [
        None if row is None else row.tobytes() for row in rows
    ]
    assert [tuple(size) for size in out["image_sizes"]] == [(32, 32), (5, 9), (32, 32), (40, 1)]
    assert out["labels"] == [0, None, 2, 1]
    converted(source, tmp_path / "parquet", "parquet")
    found = parquet_rows(tmp_path / "parquet", "my_subset")
    assert [row[-1] for row in found] == [None if row is None else row.tobytes() for row in rows]
    assert [row[1] for row in found] == [0, None, 2, 1]


def test_other_square_sizes_are_read_and_written_with_image_sizes(tmp_path: Path) -> None:
    data = np.arange(2 * 3 * 64, dtype=np.uint8).reshape(2, 192)
    source = write_set(tmp_path / "in", {"train": batch([0, 1], data=data, image_sizes=[(8, 8), (8, 8)])})
    converted(source, tmp_path / "out")
    out = unpickled(tmp_path / "out" / "train")
    assert out["data"].tobytes() == data.tobytes()
    assert [tuple(size) for size in out["image_sizes"]] == [(8, 8), (8, 8)]


def test_repeated_file_names_get_unique_ids_and_a_notice(tmp_path: Path) -> None:
    names = ["a.png", "a.jpg", "b.png", "a.png", "a_2.png"]
    source = write_set(tmp_path / "in", {"train": batch([0] * 5, filenames=names)})
    summary = converted(source, tmp_path / "out", "parquet")
    paths = [row[0] for row in parquet_rows(tmp_path / "out", "train")]
    assert paths == ["a.png", "a_3.png", "b.png", "a_4.png", "a_2.png"]
    assert any("2 rows with the file name" in notice for notice in summary.notices)
    converted(source, tmp_path / "cifar")
    # Rows may come in another order: a repeated name would then give its image another's id.
    assert unpickled(tmp_path / "cifar" / "train")["filenames"] == ["a.png", "a_3.jpg", "b.png", "a_4.png", "a_2.png"]


def test_without_file_names_ids_come_from_the_row(tmp_path: Path) -> None:
    nameless = batch([0, 1])
    del nameless["filenames"]
    converted(write_set(tmp_path / "in", {"train": nameless}), tmp_path / "out")
    assert unpickled(tmp_path / "out" / "train")["filenames"] == ["train_0.png", "train_1.png"]


def test_an_image_extension_replaces_the_one_found(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", image_ext=".jpeg", limit=3)
    found = [Path(name).stem for name, *_ in cifar_rows(cifar10)[:3]]
    assert [row[0] for row in cifar_rows(tmp_path / "out")] == [f"{stem}.jpeg" for stem in found]


@pytest.mark.parametrize("content", [{"labels": ["x", "y", "z"]}, {"label_map": {"1": "y", "0": "x", "2": "z"}}])
def test_dataset_meta_replaces_the_names_and_is_written_on_request(content: dict[str, Any], tmp_path: Path) -> None:
    source = write_set(tmp_path / "in", {"train": batch([0, 2])})
    (source / "dataset_meta.json").write_text(json.dumps(content))
    summary = converted(source, tmp_path / "out", save_dataset_meta=True)
    assert summary.labels == {"x": 1, "y": 0, "z": 1}
    assert json.loads((tmp_path / "out" / "dataset_meta.json").read_text()) == {"labels": ["x", "y", "z"]}
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["x", "y", "z"]


def test_dataset_meta_names_the_fine_classes_of_cifar100(tmp_path: Path) -> None:
    meta = {"fine_label_names": ["a", "b"], "coarse_label_names": ["P", "Q"]}
    rows = {"fine_labels": [0, 1, None], "coarse_labels": [1, 0, None], "filenames": ["1.png", "2.png", "3.png"]}
    source = write_set(tmp_path / "in", {"train": rows | {"data": batch([0] * 3)["data"]}}, meta)
    (source / "dataset_meta.json").write_text('{"labels": ["x", "y"]}')
    converted(source, tmp_path / "out", save_dataset_meta=True)
    assert unpickled(tmp_path / "out" / "meta") == {"fine_label_names": ["x", "y"], "coarse_label_names": ["P", "Q"]}
    assert [row[1:3] for row in cifar_rows(tmp_path / "out")] == [(0, 1), (1, 0), (None, None)]


def test_unlabelled_cifar10_under_the_keys_of_cifar100_is_understood(tmp_path: Path) -> None:
    rows = batch([None, None])
    rows |= {"fine_labels": rows.pop("labels"), "coarse_labels": [None, None]}
    converted(write_set(tmp_path / "in", {"train": rows}), tmp_path / "out")
    assert unpickled(tmp_path / "out" / "train")["labels"] == [None, None]


def test_a_shard_is_joined_from_parts_and_equals_the_one_written_at_once(
    cifar100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"remaps": ("girl:tiger",), "save_dataset_meta": True, "workers": 2}
    converted(cifar100, tmp_path / "once", **asked)
    set_part_bytes(monkeypatch, "cifar", 150 * 3072)
    converted(cifar100, tmp_path / "joined", **asked)
    assert tree(tmp_path / "joined") == tree(tmp_path / "once")


def test_the_manifest_accounts_for_every_row(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", labels=("dog",), remaps=("dog:cat",))
    manifest = json.loads((tmp_path / "out.beam_cifar" / "manifest.json").read_text())
    rows = manifest["rows"]
    assert rows["read"] == 1203 == rows["written"] + rows["filtered"] + rows["rejected"]
    assert manifest["counts"]["written"]["test_batch"].keys() == {"3"}
    assert {shard["path"]: shard["sha256"] for shard in manifest["shards"]} == {
        name: digest for name, digest in tree(tmp_path / "out").items() if name != "batches.meta"
    }
    assert str(tmp_path) not in json.dumps(manifest)


def test_nothing_but_the_data_set_is_in_the_output_and_only_the_notes_of_the_job_beside_it(
    cifar10: Path, tmp_path: Path
) -> None:
    converted(cifar10, tmp_path / "out", "parquet", workers=2)
    assert set(tree(tmp_path / "out")) == {"data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"}
    assert names_beside(tmp_path / "out") == COMPLETE


def test_overwrite_replaces_everything(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", "parquet")
    with pytest.raises(OutputError, match="--overwrite"):
        converted(cifar10, tmp_path / "out")
    converted(cifar10, tmp_path / "out", overwrite=True)
    assert set(tree(tmp_path / "out")) == {*batch_names(cifar10), "batches.meta"}
    assert names_beside(tmp_path / "out") == COMPLETE


def test_an_existing_empty_directory_is_filled(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert converted(cifar10, tmp_path / "out").written == 1203


BAD_SETS: dict[str, tuple[dict[str, Any], str]] = {
    "a label beyond the table": (
        batch([0, 3]),
        r"train: row 1: label 3 is outside the label table, which has 3 classes",
    ),
    "a negative label": (batch([-1]), "label -1 is outside"),
    "an unknown name": (batch(["z"]), "label 'z' is not in the label table"),
    "more images than labels": (batch([0], data=np.zeros((2, 3072), np.uint8)), "1 .*2 "),
    "labels of the other kind": (batch([0]) | {"fine_labels": [0], "coarse_labels": [0]}, "(?i)label"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_bad_rows_are_refused_with_file_and_reason_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    rows, message = BAD_SETS[name]
    source = write_set(tmp_path / "in", {"train": rows})
    with pytest.raises(InputError, match=message) as caught:
        converted(source, tmp_path / "out" / "deep")
    assert "train" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_class_with_two_superclasses_is_refused_naming_the_rows(tmp_path: Path) -> None:
    meta = {"fine_label_names": ["a", "b"], "coarse_label_names": ["P", "Q"]}
    data = batch([0, 0])["data"]
    within = {"fine_labels": [0, 0], "coarse_labels": [0, 1], "data": data}
    source = write_set(tmp_path / "in", {"train": within}, meta)
    with pytest.raises(InputError, match=r"class 'a' has superclass 'P' in .*train row 0, but 'Q' in .*train row 1"):
        converted(source, tmp_path / "out")
    across = {"train": within | {"coarse_labels": [0, 0]}, "test": within | {"coarse_labels": [1, 1]}}
    source = write_set(tmp_path / "in2", across, meta)
    with pytest.raises(InputError, match=r"class 'a' has superclass .*test row 0, but .*train row 0"):
        converted(source, tmp_path / "out")


def test_cifar10_mixed_with_cifar100_is_refused(tmp_path: Path) -> None:
    rows = {"fine_labels": [0], "coarse_labels": [0], "data": batch([0])["data"]}
    with pytest.raises(InputError, match="is a CIFAR-100 batch, but the meta file next to it is for CIFAR-10"):
        converted(write_set(tmp_path / "in", {"train": rows}), tmp_path / "out")
    source = write_set(tmp_path / "both", {"train": batch([0])})
    (source / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a"], "coarse_label_names": ["P"]}))
    with pytest.raises(InputError, match="has both 'batches.meta'"):
        converted(source, tmp_path / "out")


def test_an_output_that_is_or_holds_or_lies_in_the_input_is_refused(cifar10: Path, tmp_path: Path) -> None:
    for output in (cifar10, cifar10 / "deeper", cifar10.parent):
        with pytest.raises(UsageError, match="the in|the out"):
            converted(cifar10, output, overwrite=True)
    (tmp_path / "link").symlink_to(cifar10)
    with pytest.raises(UsageError, match="is the input itself"):
        converted(tmp_path / "link", cifar10, overwrite=True)


def test_a_second_job_on_the_same_output_is_refused(cifar10: Path, tmp_path: Path) -> None:
    def second(_: object) -> None:
        with pytest.raises(OutputError, match="another job"):
            converted(cifar10, tmp_path / "out")

    options = ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar", save_images=True, workers=1)
    assert convert(options, on_start=second).written == 1203


def test_an_input_that_changes_after_the_plan_is_refused(cifar10: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for path in cifar10.iterdir():
        (source / path.name).write_bytes(path.read_bytes())

    def change(_: object) -> None:
        (source / "data_batch_2").write_bytes((source / "data_batch_3").read_bytes())

    options = ConvertOptions(str(source), str(tmp_path / "out"), "parquet", workers=1)
    with pytest.raises(InputError, match="data_batch_2: the file changed"):
        convert(options, on_start=change)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_full_disk_is_refused_before_the_start(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_cifar.storage.free_bytes", lambda path: 1000)
    with pytest.raises(JobError, match="the disk has 0 KiB free, but the output needs about 3,[0-9]+ KiB"):
        converted(cifar10, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_options_are_checked_before_any_input_is_read() -> None:
    base = ConvertOptions("in", "out", "cifar")
    for wrong in ({"images_per_batch": 0}, {"limit": -1}, {"workers": 0}, {"image_ext": "png"}):
        with pytest.raises(UsageError, match="must"):
            dataclasses.replace(base, **wrong)


def test_a_class_missing_from_one_file_of_cifar100_is_noticed_for_datumaros_sake(
    cifar100: Path, tmp_path: Path
) -> None:
    def noticed(name: str, **options: Any) -> bool:
        return any(
            "Datumaro cannot import" in notice for notice in converted(cifar100, tmp_path / name, **options).notices
        )

    assert not noticed("all")
    assert not noticed("everywhere or nowhere", labels=("people",))
    assert noticed("packed", images_per_batch=100)


@pytest.mark.parametrize("target", ["cifar", "parquet"])
@pytest.mark.parametrize("remaps", [("people:vehicles_1",), ("people:trees", "trees:people")])
def test_superclasses_that_merge_or_swap_change_the_coarse_labels_of_rows(
    remaps: tuple[str, ...], target: str, cifar100: Path, tmp_path: Path
) -> None:
    converted(cifar100, tmp_path / "out", target, remaps=remaps)
    names = unpickled(cifar100 / "meta")["coarse_label_names"]
    new = dict(remap.split(":") for remap in remaps)
    expected = [
        names.index(new.get(names[coarse], names[coarse])) for _, _, coarse, _ in cifar_rows(cifar100, ["test"])
    ]
    if target == "parquet":
        assert [row[2] for row in parquet_rows(tmp_path / "out", "test")] == expected
    else:
        assert [row[2] for row in cifar_rows(tmp_path / "out", ["test"])] == expected


def test_one_archive_is_converted_again_and_again_in_one_process(cifar10_archive: Path, tmp_path: Path) -> None:
    for _ in range(3):
        converted(cifar10_archive, tmp_path / "out", "parquet", overwrite=True)
    with pytest.raises(OutputError):
        converted(cifar10_archive, tmp_path / "out", "parquet")
    assert converted(cifar10_archive, tmp_path / "other", "parquet").written == 1203


def test_subsets_that_would_fold_into_one_split_are_refused(tmp_path: Path) -> None:
    for number, (one, two) in enumerate([("a-b", "a_b"), ("поезд", "самол"), ("data_batch_1", "train"), ("X", "x")]):
        source = write_set(tmp_path / str(number), {one: batch([0]), two: batch([1, 2])})
        if one == "data_batch_1":
            assert converted(source, tmp_path / "out", "parquet").subsets == {"train": 3}
        else:
            with pytest.raises(UsageError, match="would both become"):
                converted(source, tmp_path / "out2", "parquet")


def test_overwriting_an_equal_output_removes_what_was_added_to_it(cifar10: Path, tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "added").write_text("by hand")
    converted(cifar10, tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before


def test_what_others_keep_in_the_job_folder_is_left_alone(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "out.beam_cifar").mkdir()
    (tmp_path / "out.beam_cifar" / "notes.txt").write_text("mine")
    converted(cifar10, tmp_path / "out")
    assert (tmp_path / "out.beam_cifar" / "notes.txt").read_text() == "mine"


def test_an_input_in_the_job_folder_and_a_linked_job_folder_are_refused(cifar10: Path, tmp_path: Path) -> None:
    before = tree(cifar10)
    (tmp_path / "out.beam_cifar").symlink_to(cifar10)
    with pytest.raises(UsageError, match="is not a directory"):
        converted(cifar10, tmp_path / "out")
    (tmp_path / "out.beam_cifar").unlink()
    source = write_set(tmp_path / "out.beam_cifar", {"train": batch([0])})
    with pytest.raises(UsageError, match="in the staging directory"):
        converted(source, tmp_path / "out")
    assert (source / "train").exists()
    assert tree(cifar10) == before


@pytest.mark.parametrize("names", [["a_1", "a_2", "a_1_1", "b"]])
def test_packed_batches_never_share_a_path(names: list[str], tmp_path: Path) -> None:
    source = write_set(tmp_path / "in", {name: batch([0] * (4 if name == "a_1_1" else 5)) for name in names})
    with pytest.raises(UsageError, match="two output files would both be named"):
        converted(source, tmp_path / "out", images_per_batch=4 if len(names) > 3 else 100)


@pytest.mark.parametrize("kind", ["broken link", "pipe", "device"])
def test_a_batch_that_is_no_file_is_refused_and_a_folder_is_not_a_batch(kind: str, tmp_path: Path) -> None:
    source = write_set(tmp_path / "in", {"train": batch([0])})
    (source / "folder").mkdir()
    assert converted(source, tmp_path / "out").written == 1
    if kind == "pipe":
        os.mkfifo(source / "more")
    else:
        (source / "more").symlink_to("/nowhere" if kind == "broken link" else "/dev/zero")
    with pytest.raises(InputError, match="more: not a file"):
        converted(source, tmp_path / "out2")


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    from beam_cifar.storage import open_blob, whole_file

    (tmp_path / "batch").write_bytes(b"before")
    with pytest.raises(InputError, match="changed while"), open_blob(whole_file(str(tmp_path / "batch")), "batch"):
        (tmp_path / "batch").write_bytes(b"after!")
        os.utime(tmp_path / "batch", ns=(1, 1))


def test_names_that_are_not_unicode_are_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path / "in", {"train": batch([0])})
    (source / "dataset_meta.json").write_text('{"labels": ["\\ud800"]}')
    with pytest.raises(InputError, match="not valid Unicode"):
        converted(source, tmp_path / "out")
