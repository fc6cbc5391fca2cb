"""Pascal VOC: the lists as Datumaro and the genuine sets have them, which list is which, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import ExportOptions, LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats import voc
from beam_cifar.formats.contract.types import Shard, SinkOptions, Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.formats.voc import CLASSES, VocSink
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, contents, encoded, manifest, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
MAIN = "ImageSets/Main"


def written(folder: Path, lists: Mapping[str, str | bytes], label_map: str | None = "cat:::\ndog:::\n") -> Path:
    """A dataset with three images, as somebody's script would write it."""
    files = {f"JPEGImages/{name}.png": encoded(picture(at)) for at, name in enumerate("abc")}
    texts = {f"{MAIN}/{name}.txt": text.encode() if isinstance(text, str) else text for name, text in lists.items()}
    named = {} if label_map is None else {"labelmap.txt": label_map.encode()}
    return write_tree(folder, {**named, **texts, **files})


def read(folder: Path, output: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Id and class of every row, by subset."""
    quickly(folder, output, "cifar", save_images=True, input_format="voc_classification")
    classes = unpickled(output / "batches.meta")["label_names"]
    return {
        subset: [
            (name.rpartition(".")[0], None if label is None else classes[label])
            for name, label, *_ in cifar_rows(output, [subset])
        ]
        for subset in batch_names(output)
    }


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "b c.png", "d/e.png", "f.png"], [2, 0, 2, None]), "val": batch(["z"], [0], 4)}
    source = write_cifar(tmp_path / "in", batches, ["cat", "sea lion", "a:b"])
    quickly(source, tmp_path / "out", "voc_classification")
    found = contents(tmp_path / "out")
    assert {name: text.decode() for name, text in found.items() if name.endswith(".txt")} == {
        "labelmap.txt": "# label:color_rgb:parts:actions\ncat:::\nsea lion:::\na%3Ab:::\n",
        f"{MAIN}/train.txt": "a\nb c\nd/e\nf\n",
        f"{MAIN}/cat_train.txt": "a -1\nb c  1\nd/e -1\n",
        f"{MAIN}/sea lion_train.txt": "a -1\nb c -1\nd/e -1\n",
        f"{MAIN}/a%3Ab_train.txt": "a  1\nb c -1\nd/e  1\n",
        f"{MAIN}/val.txt": "z\n",
        f"{MAIN}/cat_val.txt": "z  1\n",
        f"{MAIN}/sea lion_val.txt": "z -1\n",
        f"{MAIN}/a%3Ab_val.txt": "z -1\n",
    }
    names = {name for name in found if not name.endswith(".txt")}
    assert names == {f"JPEGImages/{name}.jpg" for name in ("a", "b c", "d/e", "f", "z")}
    assert all(found[name].startswith(b"\xff\xd8") for name in names)
    assert list((tmp_path / "out" / "Annotations").iterdir()) == []


def test_jpeg_files_pass_through_and_others_become_jpeg_with_a_notice(tmp_path: Path) -> None:
    content = encoded(picture(1), "JPEG", quality=60)
    files = {"cat/a.jpeg": content, "dog/b.png": encoded(picture(2))}
    summary = quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "voc_classification")
    assert (tmp_path / "out" / "JPEGImages" / "a.jpg").read_bytes() == content
    assert any("lossy" in notice for notice in summary.notices)
    quickly(tmp_path / "in", tmp_path / "png", "voc_classification", image_ext=".png", labels=("dog",))
    assert (tmp_path / "png" / "JPEGImages" / "b.png").read_bytes() == files["dog/b.png"]


def test_the_genuine_twenty_classes_are_known_without_a_label_map(tmp_path: Path) -> None:
    lists = {
        "train": "a\nb\n",
        "val": "c\n",
        "trainval": "a\nb\nc\n",
        "aeroplane_train": "a -1\nb  1\n",
        "aeroplane_val": "c -1\n",
        "aeroplane_trainval": "a -1\nb  1\nc -1\n",
        "person_train": "a  0\nb -1\n",
        "person_trainval": "a  0\nb -1\nc  1\n",
    }
    found = read(written(tmp_path / "in", lists, None), tmp_path / "out")
    assert found == {
        "train": [("a", None), ("b", "aeroplane")],
        "val": [("c", None)],
        "trainval": [("a", None), ("b", "aeroplane"), ("c", "person")],
    }
    assert tuple(unpickled(tmp_path / "out" / "batches.meta")["label_names"]) == CLASSES
    assert len(CLASSES) == 20


def test_other_classes_are_told_by_their_files_without_a_label_map(tmp_path: Path) -> None:
    lists = {"my_set": "a\nb\n", "sea_lion_my_set": "a 1\nb -1\n", "fox_my_set": "a\t-1\nb\t1\r\n", "other": "c\n"}
    found = read(written(tmp_path / "in", lists, None), tmp_path / "out")
    assert found == {"my_set": [("a", "sea_lion"), ("b", "fox")], "other": [("c", None)]}
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["fox", "sea_lion"]


@pytest.mark.parametrize(
    ("lists", "label_map", "expected"),
    [
        ({"train": "a\nb\n", "cat_train": "a  1\nb -1\n", "fox_train": "a -1\nb  1\n"}, None, ("cat", "fox")),
        ({"train": "a\nb\n", "cat_train": "a  1\nb -1\n", "fox_train": "a -1\nb  1\n"}, "cat:::\n", ("cat", "fox")),
        ({"train": "a\nb\n", "owl_train": "a 1\nb -1\n", "fox_train": "b  1\n"}, None, ("owl", "fox")),
        ({"train": "a\nb\n", "cat_train": "a 1\n", "fox_train": "b 1\n", "dog_val": "c -1\n"}, None, ("cat", "fox")),
        ({"train": "a\nb\n", "owl_train": "a 1\n", "fox_train": "b 1\n", "elk_train": ""}, None, ("owl", "fox")),
    ],
)
def test_a_list_with_1_and_minus_1_is_a_class_list_whatever_its_name(
    lists: dict[str, str], label_map: str | None, expected: tuple[str, str], tmp_path: Path
) -> None:
    found = read(written(tmp_path / "in", lists, label_map), tmp_path / "out")
    assert found == {"train": list(zip("ab", expected, strict=True))}
    notices = get_source("voc_classification").describe(str(tmp_path / "in"), "").notices
    assert any("'fox'" in notice for notice in notices) == (label_map is not None)
    assert any("dog_val.txt; add" in notice for notice in notices) == ("dog_val" in lists)


def test_ids_that_end_in_a_number_are_no_class_list(tmp_path: Path) -> None:
    source = written(tmp_path / "in", {"train": "a 1\nb -1\n", "my_set": "c 1\n"}, None)
    assert read(source, tmp_path / "out") == {"train": [("a 1", None), ("b -1", None)], "my_set": [("c 1", None)]}


def test_names_with_underscores_are_told_apart_by_known_subsets(tmp_path: Path) -> None:
    lists = {"x": "a\n", "a_x": "a 1\n", "a_b_x": "a -1\n", "b_c": "b\n", "a_b_c": "b -1\n", "a_b_b_c": "b 1\n"}
    found = read(written(tmp_path / "in", lists, "a:::\na_b:::\n"), tmp_path / "out")
    assert found == {"x": [("a", "a")], "b_c": [("b", "a_b")]}


def test_comments_colours_and_blank_lines_are_left_out(tmp_path: Path) -> None:
    lists = {"train": "# ids\n\na\n  b  \n", "dog_train": "# id\n\na  1 \nb -1 \nelsewhere 1\n"}
    label_map = "# label:color_rgb:parts:actions\nbackground:0,0,0::\n\ndog:1,2,3:head,tail:run\n"
    found = read(written(tmp_path / "in", lists, label_map), tmp_path / "out")
    assert found == {"train": [("a", "dog"), ("b", None)]}
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["background", "dog"]


def test_an_id_that_a_list_repeats_has_its_label_each_time(tmp_path: Path) -> None:
    source = get_source("voc_classification")
    folder = written(tmp_path / "in", {"train": "a\nb\na\n", "dog_train": "a 1\nb -1\n"})
    catalog = source.describe(str(folder), str(tmp_path))
    with source.open_rows(catalog.files[0], catalog.labels) as rows:
        facts = rows.facts(0, 3).to_pylist()
    assert [(row["id"], row["label"]) for row in facts] == [("a", 1), ("b", None), ("a_2", 1)]


def test_an_image_of_several_extensions_is_found_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train": "a\nb\n"})
    jpeg = encoded(picture(7), "JPEG")
    write_tree(folder, {"JPEGImages/a.jpg": jpeg, "JPEGImages/b.txt": b"no image"})
    quickly(folder, tmp_path / "out", "image_dir", input_format="voc_classification")
    assert (tmp_path / "out" / "a.jpg").read_bytes() == jpeg
    assert sorted(contents(tmp_path / "out")) == ["a.jpg", "b.png"]


def test_the_folders_of_the_layout_are_not_taken_for_classes(tmp_path: Path) -> None:
    assert detect_format(str(written(tmp_path / "in", {"train": "a\n"})), str(tmp_path)) == "voc_classification"
    bare = write_tree(tmp_path / "bare", {"JPEGImages/a.png": encoded(picture(1)), f"{MAIN}/x.csv": b""})
    assert detect_format(str(bare), str(tmp_path)) == "imagenet"


@pytest.mark.parametrize(
    ("lists", "label_map", "reason"),
    [
        (
            {"train": "a\n", "cat_train": "a 1\n", "dog_train": "a 1\n"},
            "cat:::\ndog:::\n",
            r"train\.txt: row 0: 'a' has classes",
        ),
        (
            {"train": "a\n", "cat_train": "a 2\n"},
            "cat:::\n",
            r"cat_train\.txt: line 1: found 'a 2'; expected an id and",
        ),
        ({"train": "a\n", "cat_train": "b -1\n1\n"}, "cat:::\n", r"cat_train\.txt: line 2: found '1'"),
        ({"train": "../a\n"}, "cat:::\n", r"train\.txt: row 0: image path '\.\./a"),
        ({"train": "/etc/a\n"}, "cat:::\n", r"train\.txt: row 0: image path '/etc/a"),
        ({"train": b"a\xff\n"}, "cat:::\n", r"train\.txt: line 1: is not UTF-8"),
        ({"train": b"a" * 70_000}, "cat:::\n", r"train\.txt: line 1: is longer than"),
        ({"train": "a\n", "cat_train": b"a" * 70_000}, "cat:::\n", r"cat_train\.txt: line 1: is longer than"),
        ({"train": "a\n"}, "cat:::\ndog:::\ncat:::\n", r"labelmap\.txt: line 3: class 'cat' is already on line 1"),
        ({}, "cat:::\n", r"ImageSets/Main: cannot be read"),
        ({"train": "# none\n"}, "cat:::\n", "have no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file_and_row(
    lists: dict[str, str | bytes], label_map: str, reason: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "in", lists, label_map)
    (tmp_path / "a.png").write_bytes(encoded(picture(9)))
    with pytest.raises(InputError, match=reason):
        read(folder, tmp_path / "out")


@pytest.mark.parametrize("changed", ["labelmap.txt", f"{MAIN}/train.txt", f"{MAIN}/dog_train.txt"])
def test_a_list_that_changes_after_it_was_planned_is_refused(changed: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train": "a\n", "dog_train": "a 1\n"})
    source = get_source("voc_classification")
    catalog = source.describe(str(folder), str(tmp_path))
    (folder / changed).write_text("fox:::\nbear:::\n")
    with pytest.raises(InputError, match="changed while it was being converted"):
        scan(source, catalog.files[0], catalog.labels, Wanted())


def test_class_names_that_no_line_holds_survive(tmp_path: Path) -> None:
    classes = ["#1", "a:b", "x\ny", " ", "", "a/b", "..", "Cat", "cat", "\u3000wide"]
    rows = batch([f"{row}.png" for row in range(len(classes))], list(range(len(classes))))
    source = write_cifar(tmp_path / "in", {"a_b": rows}, classes)
    quickly(source, tmp_path / "out", "voc_classification")
    catalog = get_source("voc_classification").describe(str(tmp_path / "out"), str(tmp_path))
    assert catalog.labels.names == tuple(classes)
    names = [name.lower() for name in contents(tmp_path / "out")]
    assert len(set(names)) == len(names)
    assert manifest(tmp_path / "out")["renamed"]["subsets"] == {"a%5Fb": "a_b"}
    source_of = get_source("voc_classification")
    with source_of.open_rows(catalog.files[0], catalog.labels) as opened:
        assert list(opened.labels) == list(range(len(classes)))


def test_names_that_make_no_file_are_refused() -> None:
    options = SinkOptions(LabelTable(("y" * 200,)), ExportOptions())
    shard = Shard(0, "s" * 60, "", 1, 1, None, True)
    with pytest.raises(UsageError, match="give a file name of 265 bytes"):
        VocSink().check_shard(shard, options)
    with pytest.raises(UsageError, match="is too long for a file name"):
        VocSink().check_labels(LabelTable(("y" * 300,)))
    with pytest.raises(UsageError, match="two classes are named 'x'"):
        VocSink().check_labels(LabelTable(("x", "x")))


def test_more_lines_than_a_disk_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SinkOptions(LabelTable(tuple(map(str, range(1000)))), ExportOptions())
    with pytest.raises(UsageError, match=r"1000 class files of 1280000 lines, at least \d{10} bytes"):
        VocSink().check_shard(Shard(0, "train", "", 1_280_000, 1000, None, True), options)
    VocSink().check_shard(Shard(0, "train", "", 50_000, 1000, None, True), options)
    monkeypatch.setattr(voc, "MAX_CLASS_BYTES", 10)
    with pytest.raises(UsageError, match="class files of 2 lines"):
        quickly(
            write_cifar(tmp_path / "in", {"train": batch(["a", "b"], [0, 1])}), tmp_path / "out", "voc_classification"
        )
    assert not (tmp_path / "out").exists()


def test_options_of_other_kinds_are_refused(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a"], [0])})
    options: list[dict[str, Any]] = [{"image_ext": ".webp"}, {"images_per_batch": 3}]
    for option in options:
        with pytest.raises(UsageError, match="--image"):
            quickly(source, tmp_path / "out", "voc_classification", **option)
