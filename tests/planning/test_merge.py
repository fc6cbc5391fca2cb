"""Several datasets become one: classes by name, superclasses that agree, items by id and subset."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from beam_cifar import ConvertOptions, Dataset, DatasetItem, Label, LabelTable, convert
from beam_cifar.errors import UsageError
from beam_cifar.jobs import serial
from beam_cifar.options import Input
from beam_cifar.storage import is_ours
from tests.helpers.image_trees import batch, contents, images, manifest, picture, write_cifar
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, unpickled

Key = tuple[str, str]


pytestmark = pytest.mark.usefixtures("without_runner")


def pixels(item_id: Any, subset: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    planes = picture(zlib.crc32(f"{subset} {item_id}".encode()))
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def made(categories: Any, *items: tuple[Any, int | None] | tuple[Any, int | None, str]) -> Dataset:
    """A dataset of (id, label) or (id, label, subset)."""
    full = [(*each, "train")[:3] for each in items]
    return Dataset.from_iterable(
        [
            DatasetItem(item_id, subset, pixels(item_id, str(subset)), [] if label is None else [Label(int(label))])
            for item_id, label, subset in full
        ],
        categories,
    )


def named(dataset: Dataset) -> dict[Key, str | None]:
    """The class name of every item; each has the pixels that `made` gave it."""
    names = dataset.categories.names
    found = {}
    for each in dataset:
        assert (each.subset, each.id) not in found
        found[each.subset, each.id] = None if each.label is None else names[each.label]
    return found


def written(folder: Path) -> list[tuple[str, str, str | None, str | None, bytes | None]]:
    """(subset, file name, class, superclass, pixels) of every row, by Python's own unpickler."""
    fine = (folder / "meta").exists()
    meta = unpickled(folder / ("meta" if fine else "batches.meta"))
    names = meta["fine_label_names" if fine else "label_names"]
    coarse = meta.get("coarse_label_names", [])
    return [
        (subset, name, None if label is None else names[label], None if parent is None else coarse[parent], image)
        for subset in batch_names(folder)
        for name, label, parent, image in cifar_rows(folder, [subset])
    ]


# CIFAR-10 and CIFAR-100


@pytest.fixture(scope="module")
def both(cifar10: Path, cifar100: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A part of each sample: the batches named differ, so that no id clashes."""
    folder = tmp_path_factory.mktemp("both")
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        for source in (cifar10, cifar100):
            dataset = Dataset.import_from(source)
            numbered: dict[str, int] = {}

            def few(each: DatasetItem, numbered: dict[str, int] = numbered) -> bool:
                numbered[each.subset] = numbered.get(each.subset, 0) + 1
                return numbered[each.subset] <= 60

            dataset.select(few).export(folder / source.name, "cifar", save_images=True)
    return folder / "cifar10", folder / "cifar100"


def expected_of(both: tuple[Path, Path]) -> list[tuple[str, str, str | None, str | None, bytes | None]]:
    return [*written(both[0]), *written(both[1])]


def test_cifar_10_and_cifar_100_become_110_classes(both: tuple[Path, Path], tmp_path: Path, beam: None) -> None:
    ten, hundred = (Dataset.import_from(path) for path in both)
    merged = Dataset.merge(ten, hundred)
    table = merged.categories
    assert table.names == (*ten.categories.names, *hundred.categories.names)
    assert len(table.names) == 110
    assert table.coarse_names == hundred.categories.coarse_names
    assert table.parents == (*[None] * 10, *hundred.categories.parents)
    assert len(merged) == len(ten) + len(hundred)
    merged.export(tmp_path / "out", "cifar", save_images=True, workers=1)
    assert sorted(written(tmp_path / "out"), key=str) == sorted(expected_of(both), key=str)
    again = Dataset.import_from(tmp_path / "out")
    assert again.categories.names == table.names
    assert named(again) == named(merged)
    output = tmp_path / "out"
    assert is_ours(str(output), (tmp_path / "out.beam_cifar" / "manifest.json").read_bytes())


def test_the_merged_set_goes_to_parquet(both: tuple[Path, Path], tmp_path: Path) -> None:
    merged = Dataset.merge(*map(Dataset.import_from, both))
    merged.export(tmp_path / "out", "parquet")
    names, coarse = merged.categories.names, merged.categories.coarse_names
    found = [
        (name, None if label is None else names[label], None if parent in (None, -1) else coarse[parent], image)
        for split in ("train", "test")
        for name, label, parent, image in parquet_rows(tmp_path / "out", split)
    ]
    assert sorted(found, key=str) == sorted((row[1:] for row in expected_of(both)), key=str)


def test_the_merged_set_goes_to_folders(both: tuple[Path, Path], tmp_path: Path) -> None:
    Dataset.merge(*map(Dataset.import_from, both)).export(tmp_path / "out", "imagenet_with_subset_dirs")
    expected = {f"{subset}/{label}/{name}": image for subset, name, label, _, image in expected_of(both)}
    assert images(tmp_path / "out") == expected
    assert len(expected) == len(expected_of(both))


def test_the_order_of_data_sets_is_the_order_of_classes(both: tuple[Path, Path]) -> None:
    ten, hundred = (Dataset.import_from(path) for path in both)
    table = Dataset.merge(hundred, ten).categories
    assert table.names == (*hundred.categories.names, *ten.categories.names)
    assert table.parents == (*hundred.categories.parents, *[None] * 10)


# Classes


def test_labels_follow_the_name_of_their_class() -> None:
    first = made(["cat", "dog"], ("a", 0), ("b", 1), ("u", None))
    second = made(["dog", "ship", "cat"], ("c", 0), ("d", 1), ("e", 2))
    merged = Dataset.merge(first, second)
    assert merged.categories == LabelTable(("cat", "dog", "ship"))
    assert [(each.id, each.label) for each in merged] == [("a", 0), ("b", 1), ("u", None), ("c", 1), ("d", 2), ("e", 0)]
    assert all((each.image.data == pixels(each.id, each.subset)).all() for each in merged)


def test_the_file_of_a_set_whose_classes_move_is_written_anew(tmp_path: Path) -> None:
    made(["cat", "dog"], ("a", 0)).export(tmp_path / "one", "cifar", save_images=True)
    made(["dog", "cat"], ("b", 0, "test")).export(tmp_path / "two", "cifar", save_images=True)
    merged = Dataset.merge(Dataset.import_from(tmp_path / "one"), Dataset.import_from(tmp_path / "two"))
    merged.export(tmp_path / "out", "cifar", save_images=True)
    assert [row[:3] for row in written(tmp_path / "out")] == [("test", "b.png", "dog"), ("train", "a.png", "cat")]
    assert contents(tmp_path / "out")["train"] == contents(tmp_path / "one")["train"]
    assert unpickled(tmp_path / "out" / "test")["labels"] == [1]


def test_agreeing_superclasses_become_one() -> None:
    first = made([("cat", "pet"), ("oak", "tree")], ("a", 0))
    second = made([("fir", "tree"), ("cat", "pet"), ("stone", None)], ("b", 0))
    table = LabelTable(("cat", "oak", "fir", "stone"), ("pet", "tree"), (0, 1, 1, None))
    assert Dataset.merge(first, second).categories == table


def test_a_side_without_superclasses_says_nothing_of_them(tmp_path: Path) -> None:
    plain = made(["oak", "car"], ("a", 0), ("b", 1))
    grouped = made([("cat", "pet"), ("oak", "tree")], ("c", 1), ("d", 0))
    table = LabelTable(("oak", "car", "cat"), ("pet", "tree"), (1, None, 0))
    merged = Dataset.merge(plain, grouped)
    assert merged.categories == table
    merged.export(tmp_path / "out", "cifar", save_images=True)
    assert [row[1:4] for row in written(tmp_path / "out")] == [
        ("a.png", "oak", "tree"),
        ("b.png", "car", None),
        ("c.png", "oak", "tree"),
        ("d.png", "cat", "pet"),
    ]


def test_superclasses_that_contradict_are_refused_with_both_sources(tmp_path: Path) -> None:
    for name, parent in (("one", "pet"), ("two", "beast")):
        made([("cat", parent)], (name, 0)).export(tmp_path / name, "cifar", save_images=True)
    merged = Dataset.merge(Dataset.import_from(tmp_path / "one"), Dataset.import_from(tmp_path / "two"))
    reason = rf"class 'cat' has superclass 'pet' in {tmp_path}/one, but 'beast' in {tmp_path}/two; rename"
    with pytest.raises(UsageError, match=reason):
        len(merged)
    with pytest.raises(UsageError, match=reason):
        merged.export(tmp_path / "out", "cifar", save_images=True)
    assert not (tmp_path / "out").exists()
    renamed = Dataset.import_from(tmp_path / "two").transform("remap_labels", mapping={"beast": "pet"})
    assert Dataset.merge(Dataset.import_from(tmp_path / "one"), renamed).categories == LabelTable(
        ("cat",), ("pet",), (0,)
    )


# Items


def clashing() -> list[Dataset]:
    return [
        made(["x"], ("a", 0), ("b", 0), ("c", 0, "test")),
        made(["y"], ("b", 0), ("d", 0), ("c", 0, "train"), ("b", 0, "test")),
    ]


def test_clashing_ids_are_refused_with_id_and_subset(tmp_path: Path) -> None:
    merged = Dataset.merge(*clashing())
    for use in (len, lambda dataset: dataset.export(tmp_path / "out", "imagenet")):
        with pytest.raises(UsageError, match="'b' is in subset 'train' of more than one dataset") as caught:
            use(merged)
        assert "suffix" in str(caught.value)
        assert "first" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_later_items_get_a_suffix(tmp_path: Path) -> None:
    merged = Dataset.merge(*clashing(), on_clash="suffix")
    assert named(merged) == {
        ("train", "a"): "x",
        ("train", "b"): "x",
        ("train", "b_2"): "y",
        ("train", "d"): "y",
        ("train", "c"): "y",
        ("test", "c"): "x",
        ("test", "b"): "y",
    }
    renamed = merged.get("b_2", "train")
    assert renamed is not None
    assert (renamed.image.data == pixels("b", "train")).all()
    summary = merged.export(tmp_path / "out", "cifar", save_images=True)
    assert [row[1] for row in written(tmp_path / "out")] == [
        "c.png",
        "b.png",
        "a.png",
        "b.png",
        "b_2.png",
        "d.png",
        "c.png",
    ]
    assert any("'b'" in notice and "suffix" in notice for notice in summary.notices)


def test_a_suffix_that_is_taken_is_not_given_again() -> None:
    merged = Dataset.merge(made(["x"], ("b", 0), ("b_2", 0)), made(["x"], ("b", 0), ("b_3", 0)), on_clash="suffix")
    assert sorted(named(merged)) == [("train", name) for name in ("b", "b_2", "b_3", "b_4")]


def test_the_first_item_can_win(tmp_path: Path) -> None:
    merged = Dataset.merge(*clashing(), on_clash="first")
    kept = [("train", "a", "x"), ("train", "b", "x"), ("train", "d", "y"), ("train", "c", "y"), ("test", "c", "x"), ("test", "b", "y")]  # fmt: skip
    assert named(merged) == {(subset, name): label for subset, name, label in kept}
    summary = merged.export(tmp_path / "out", "cifar", save_images=True)
    assert sorted(row[:3] for row in written(tmp_path / "out")) == sorted((s, f"{n}.png", x) for s, n, x in kept)
    assert (summary.read, summary.written, summary.filtered) == (7, 6, 1)


@pytest.mark.parametrize("rule", ["last", "ERROR", ""])
def test_an_unknown_rule_is_refused_at_once(rule: str) -> None:
    with pytest.raises(UsageError, match="must be one of error, suffix, first"):
        Dataset.merge(*clashing(), on_clash=rule)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(UsageError, match="expected Dataset arguments, found 'nothing'"):
        Dataset.merge()
    with pytest.raises(UsageError, match=r"expected Dataset arguments, found \["):
        Dataset.merge([Dataset.from_iterable([])])  # type: ignore[arg-type]


# More than two, and each with its own steps


def three() -> list[Dataset]:
    return [made([name], (name, 0), ("same", 0, f"{name} only")) for name in ("a", "b", "c")]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_three_data_sets_come_in_their_order(order: Sequence[int]) -> None:
    given = three()
    merged = Dataset.merge(*(given[at] for at in order))
    names = ["abc"[at] for at in order]
    assert merged.categories.names == tuple(names)
    assert [each.id for each in merged if each.id != "same"] == names
    assert set(merged.subsets) == {"train", "a only", "b only", "c only"}


def test_a_merged_set_can_be_merged_again(tmp_path: Path) -> None:
    a, b, c = three()
    flat = Dataset.merge(a, b, c)
    for number, nested in enumerate([Dataset.merge(Dataset.merge(a, b), c), Dataset.merge(a, Dataset.merge(b, c))]):
        assert named(nested) == named(flat)
        assert nested.categories == flat.categories
        nested.export(tmp_path / str(number), "cifar", save_images=True)
        flat.export(tmp_path / f"flat{number}", "cifar", save_images=True)
        assert contents(tmp_path / str(number)) == contents(tmp_path / f"flat{number}")


def test_rows_read_are_counted_by_labels_of_the_merged_table(tmp_path: Path) -> None:
    a, b, c = three()
    Dataset.merge(a, Dataset.merge(b, c)).export(tmp_path / "out", "cifar", save_images=True)
    counts = manifest(tmp_path / "out")["counts"]
    assert counts["read"] == counts["written"]


def test_each_data_set_keeps_its_own_steps(tmp_path: Path) -> None:
    small = made(["x"], ("a", 0), ("gone", None)).transform("resize", width=8, height=4).filter("/item[annotation]")
    large = made(["y"], ("b", 0)).transform("remap_labels", mapping={"y": "x"})
    merged = Dataset.merge(small, large)
    assert {each.id: each.image.data.shape for each in merged} == {"a": (4, 8, 3), "b": (32, 32, 3)}
    assert set(named(merged).values()) == {"x"}
    merged.export(tmp_path / "out", "imagenet")
    shapes = {name: len(data) for name, data in images(tmp_path / "out").items()}
    assert shapes == {"x/a.png": 4 * 8 * 3, "x/b.png": 32 * 32 * 3}
    merged.transform("resize", width=2, height=2)
    assert {each.image.data.shape for each in merged} == {(2, 2, 3)}


def test_what_is_done_to_a_data_set_after_merging_is_its_own_affair() -> None:
    first, second = made(["x"], ("a", 0)), made(["y"], ("b", 0))
    merged = Dataset.merge(first, second)
    first.put(DatasetItem("n", "train", None, [Label(0)])).remove("a", "train")
    second.transform("resize", width=1, height=1)
    assert named(merged) == {("train", "a"): "x", ("train", "b"): "y"}
    assert next(iter(second)).image.data.shape == (1, 1, 3)
    assert {each.image.data.shape for each in merged} == {(32, 32, 3)}
    merged.put(DatasetItem("m", "train", None, [Label(1)])).remove("b", "train")
    assert named(merged) == {("train", "a"): "x", ("train", "m"): "y"}
    assert named(second) == {("train", "b"): "y"}


def test_items_that_are_put_count_when_they_are_merged() -> None:
    first = made(["x"], ("a", 0)).put(DatasetItem("n", "train", None, [Label(0)]))
    assert set(named(Dataset.merge(first, made(["y"], ("b", 0))))) == {("train", name) for name in "anb"}


def test_a_merged_set_outlives_its_parts() -> None:
    merged = Dataset.merge(made(["x"], ("a", 0)), made(["y"], ("b", 0)))
    assert [(each.image.data == pixels(each.id, each.subset)).all() for each in merged] == [True, True]


def test_datasets_merge_as_the_command_line_does(tmp_path: Path) -> None:
    one = write_cifar(tmp_path / "one", {"train": batch(["a.png", "b.png"], [2, 0])}, ["cat", "dog", "ship"])
    two = write_cifar(tmp_path / "two", {"train": batch(["b.png"], [0], 3)}, ["ship", "owl"])
    merged = Dataset.merge(Dataset.import_from(one), Dataset.import_from(two), on_clash="suffix")
    merged.export(tmp_path / "api", "cifar", save_images=True)
    convert(
        ConvertOptions(
            str(one), str(tmp_path / "command"), "cifar", merged=(Input(str(two)),), on_clash="suffix", save_images=True
        )
    )
    assert contents(tmp_path / "api") == contents(tmp_path / "command")
    assert [row[:3] for row in written(tmp_path / "api")] == [
        ("train", "a.png", "ship"),
        ("train", "b.png", "cat"),
        ("train", "b_2.png", "ship"),
    ]


def test_a_data_set_without_items_gives_its_classes() -> None:
    merged = Dataset.merge(made(["x"], ("a", 0)), made(["y"]))
    assert merged.categories.names == ("x", "y")
    assert named(merged) == {("train", "a"): "x"}
