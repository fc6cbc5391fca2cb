"""COCO with a category for each image: its JSON as written and as others write it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.coco import CocoSink
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import batch, contents, encoded, images, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": ""}]


def image(image_id: Any, name: Any, **more: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "width": 32, "height": 32, **more}


def label(image_id: Any, category_id: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image_id, "category_id": category_id, **more}


def written(folder: Path, content: Any, subset: str = "train") -> Path:
    """A subset with two images, as somebody's script would write it."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    pictures = {f"images/{subset}/{name}.png": encoded(picture(at)) for at, name in enumerate("ab")}
    return write_tree(folder, {f"annotations/labels_{subset}.json": text, **pictures})


def content(found: list[Any], annotations: list[Any], categories: Any = CATEGORIES, **more: Any) -> dict[str, Any]:
    return {"annotations": annotations, "images": found, "categories": categories, **more}


def rows_of(folder: Path, output: Path) -> list[tuple[str, str | None, bool]]:
    """Id, class and whether there is an image, of each row."""
    quickly(folder, output, "cifar", save_images=True)
    names = unpickled(output / "batches.meta")["label_names"]
    return [
        (name.rpartition(".")[0], None if number is None else names[number], pixels is not None)
        for name, number, _, pixels in cifar_rows(output)
    ]


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "d/e f.png", 'q"\\.png'], [1, None, 0]), "test": batch(["a.png"], [1], 4)}
    quickly(write_cifar(tmp_path / "in", batches, ["猫", "sea\nlion"]), tmp_path / "out", "coco")
    size = {"width": 32, "height": 32}
    assert json.loads((tmp_path / "out/annotations/labels_train.json").read_text("utf-8")) == {
        "info": {},
        "licenses": [],
        "categories": [
            {"id": 1, "name": "猫", "supercategory": ""},
            {"id": 2, "name": "sea\nlion", "supercategory": ""},
        ],
        "images": [
            {"id": 1, "file_name": "a.png", **size},
            {"id": 2, "file_name": "d/e f.png", **size},
            {"id": 3, "file_name": "q%22%5C.png", **size},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2}, {"id": 2, "image_id": 3, "category_id": 1}],
    }
    assert images(tmp_path / "out" / "images") == {
        "train/a.png": picture(0).tobytes(),
        "train/d/e f.png": picture(1).tobytes(),
        "train/q%22%5C.png": picture(2).tobytes(),
        "test/a.png": picture(4000).tobytes(),
    }
    assert len(contents(tmp_path / "out")) == 6


def test_classes_are_in_the_order_of_their_ids_and_annotations_in_any(tmp_path: Path) -> None:
    found = [image(9, "b.png"), image(2, "a.png"), image(5, "lost.png")]
    folder = written(tmp_path / "in", content(found, [label(2, 7), label(5, 7), label(9, 3)], info={"year": 2017}))
    assert detect_format(str(folder), str(tmp_path)) == "coco"
    assert get_source("coco").describe(str(folder), str(tmp_path)).labels == LabelTable(("cat", "dog"))
    assert rows_of(folder, tmp_path / "out") == [("b", "cat", True), ("a", "dog", True), ("lost", "dog", False)]


def test_supercategories_are_superclasses(tmp_path: Path) -> None:
    categories = [
        {"id": number, "name": name, "supercategory": parent}
        for number, name, parent in ((1, "cat", "pet"), (2, "oak", "tree"), (3, "dog", "pet"), (4, "thing", None))
    ]
    folder = written(tmp_path / "in", content([image(1, "a.png")], [], categories))
    table = get_source("coco").describe(str(folder), str(tmp_path)).labels
    assert table == LabelTable(("cat", "oak", "dog", "thing"), ("pet", "tree"), (0, 1, 0, None))


def test_images_without_an_annotation_are_unlabelled_and_one_may_be_repeated(tmp_path: Path) -> None:
    found = content([image(0, "a.png"), image(1, "b.png")], [label(1, 3), label(1, 3)])
    assert rows_of(written(tmp_path / "in", found), tmp_path / "out") == [("a", None, True), ("b", "cat", True)]


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    annotations = [label(1, 3, bbox=[0, 0, 1, 1]), label(8, 3), label(9, 99), label(2, 3, bbox=[])]
    folder = written(tmp_path / "in", content([image(1, "a.png"), image(2, "b.png")], annotations))
    notices = quickly(folder, tmp_path / "out", "npz").notices
    assert "ignored 3 annotations that are not image labels (bbox: 1, of images that are not listed: 2)" in " ".join(
        notices
    )


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (content([image(1, "a.png")], [label(1, 3), label(1, 7)]), "row 0.* has several categories .*at most one"),
        (content([image(1, "a.png")], [label(1, 4)]), "row 0.* category_id is 4; expected that of a category"),
        (content([image(1, "a.png")], [label(1, "3")]), "row 0.* category_id is no whole number"),
        (content([image(1, "a.png")], [label("1", 3)]), r"annotation 1 \(from 1\): image_id is '1'; expected"),
        (content([image(1, "a.png")], [None]), "image_id is 'None'; expected"),
        (content([image("1", "a.png")], []), "row 0.* id is '1'; expected a whole number"),
        (content([image(1 << 80, "a.png")], []), "row 0.* expected a whole number"),
        (content([image(True, "a.png")], []), "row 0.* expected a whole number"),
        (content([image(1, "a.png"), image(1, "b.png")], [label(1, 3)]), "row 0.*id is 1, which another image has too"),
        (content([image(1, 5)], []), "row 0.* file_name is missing or not valid text: '5'"),
        (content(["a.png"], []), "row 0.* file_name is missing"),
        (content([image(1, "../a.png")], []), "row 0.* leaves the image folder"),
        (content([image(1, "a\ud800.png")], []), "row 0.* file_name is missing or not valid text"),
        (content([image(1, "a.png")], [], [{"id": 1, "name": 5}]), "category name is '5'; expected valid Unicode"),
        (content([image(1, "a.png")], [], [{"id": -1, "name": "x"}]), "ids of categories are not different whole"),
        (content([image(1, "a.png")], [], CATEGORIES * 2), "ids of categories are not different whole numbers"),
        (content([image(1, "a.png")], [], {}), "'categories' is not a list of objects"),
        ({"annotations": [], "categories": []}, "has no 'images'; expected COCO's format"),
        (b'{"images": [], "images": []}', "key 'images' occurs twice"),
        (b'{"images": {}}', r"expected '\['"),
        (b'{"images": [', "is not valid JSON"),
        (b'{"images": [' + b"[" * 100_000, "is not valid JSON"),
        (b"", "is not valid JSON: unexpected end of file"),
        (b"\xff", "UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_row(found: Any, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", found)
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "npz", input_format="coco")
    assert str(refused.value).startswith(str(folder))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("cat", "cat"), ("cat", ""), ("cat", "\ud800")])
def test_classes_that_readers_cannot_tell_apart_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="which Datumaro refuses"):
        CocoSink().check_labels(LabelTable(names))


def test_files_of_objects_and_of_datumaro_are_not_taken_for_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", content([image(1, "a.png")], []))
    (folder / "annotations/labels_train.json").rename(folder / "annotations/instances_train.json")
    assert not get_source("coco").looks_right(str(folder), str(tmp_path))
    quickly(write_cifar(tmp_path / "c", {"labels_x": batch(["a.png"], [0])}), tmp_path / "theirs", "datumaro")
    assert detect_format(str(tmp_path / "theirs"), str(tmp_path)) == "datumaro"


def test_a_long_name_of_a_subset_is_one_name_of_file_and_folder(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"x" * 248: batch(["a.png"], [0])})
    quickly(source, tmp_path / "out", "coco")
    (name,) = [path.name for path in (tmp_path / "out" / "images").iterdir()]
    assert [path.name for path in (tmp_path / "out/annotations").iterdir()] == [f"labels_{name}.json"]
    assert rows_of(tmp_path / "out", tmp_path / "back") == [("a", "cat", True)]
