"""Datumaro's own format: its JSON as written and as other versions write it, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.datumaro import DatumaroSink
from beam_cifar.formats.kit import annotations as kit_annotations
from beam_cifar.formats.kit import json_stream
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, contents, encoded, images, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def content(items: list[Any], names: tuple[str, ...] = ("cat", "dog"), **more: Any) -> dict[str, Any]:
    """What Datumaro writes, without what it leaves out."""
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    return {"infos": {}, "categories": {"label": {"labels": labels, "attributes": []}}, "items": items, **more}


def item(item_id: str, label: int | None = None, path: str | None = None, **more: Any) -> dict[str, Any]:
    annotations = [] if label is None else [{"id": 0, "type": "label", "group": 0, "label_id": label}]
    return {"id": item_id, "annotations": annotations, "image": {"path": path or f"{item_id}.png"}, **more}


def written(folder: Path, subsets: dict[str, Any]) -> Path:
    """A dataset with two images in each subset, as Datumaro or somebody's script would write it."""
    texts = {
        f"annotations/{name}.json": found if isinstance(found, bytes) else json.dumps(found).encode()
        for name, found in subsets.items()
    }
    pictures = {
        f"images/{name}/{image}.png": encoded(picture(10 * number + at))
        for number, name in enumerate(subsets)
        for at, image in enumerate("ab")
    }
    return write_tree(folder, {**texts, **pictures})


def read(folder: Path, output: Path, **options: Any) -> list[tuple[Any, ...]]:
    quickly(folder, output, "cifar", save_images=True, input_format="datumaro", **options)
    return cifar_rows(output)


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "d/e f.png", 'q"\\.png'], [1, 0, None]), "test": batch(["a.png"], [1], 4)}
    quickly(write_cifar(tmp_path / "in", batches, ["猫", "sea\nlion"]), tmp_path / "out", "datumaro")
    label = {"id": 0, "type": "label", "attributes": {}, "group": 0}
    size = [32, 32]
    train = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text("utf-8"))
    assert train == {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {
            "label": {
                "labels": [
                    {"name": "猫", "parent": "", "attributes": []},
                    {"name": "sea\nlion", "parent": "", "attributes": []},
                ],
                "label_groups": [],
                "attributes": [],
            }
        },
        "items": [
            {"id": "a", "annotations": [{**label, "label_id": 1}], "image": {"path": "a.png", "size": size}},
            {"id": "d/e f", "annotations": [{**label, "label_id": 0}], "image": {"path": "d/e f.png", "size": size}},
            {"id": 'q"\\', "annotations": [], "image": {"path": "q%22%5C.png", "size": size}},
        ],
    }
    assert list(train) == ["dm_format_version", "media_type", "infos", "categories", "items"]
    assert images(tmp_path / "out" / "images") == {
        "train/a.png": picture(0).tobytes(),
        "train/d/e f.png": picture(1).tobytes(),
        "train/q%22%5C.png": picture(2).tobytes(),
        "test/a.png": picture(4000).tobytes(),
    }
    assert len(contents(tmp_path / "out")) == 6


def test_superclasses_are_parents_and_come_back_in_order(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", "datumaro", limit=150, subsets=("train",))
    meta = unpickled(cifar100 / "meta")
    found = json.loads((tmp_path / "out" / "annotations" / "train.json").read_bytes())
    parents = {label["name"]: label["parent"] for label in found["categories"]["label"]["labels"]}
    for _, fine, coarse, _ in cifar_rows(cifar100, ["train"])[:150]:
        assert parents[meta["fine_label_names"][fine]] == meta["coarse_label_names"][coarse]
    quickly(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)
    assert unpickled(tmp_path / "back" / "meta")["coarse_label_names"] == meta["coarse_label_names"]
    assert [row[1:] for row in cifar_rows(tmp_path / "back")] == [
        row[1:] for row in cifar_rows(cifar100, ["train"])[:150]
    ]


def test_parents_without_our_list_are_superclasses_in_the_order_of_classes(tmp_path: Path) -> None:
    found = content([item("a", 0)], ("cat", "oak", "dog", "thing"))
    for label, parent in zip(found["categories"]["label"]["labels"], ("pet", "tree", "pet", None), strict=True):
        label["parent"] = parent
    for infos in ({}, {"superclasses": "no list"}, {"superclasses": ["pet"]}, {"superclasses": ["pet", "pet", "tree"]}):
        folder = written(tmp_path / str(len(list(tmp_path.iterdir()))), {"train": {**found, "infos": infos}})
        table = get_source("datumaro").describe(str(folder), str(tmp_path)).labels
        assert table == LabelTable(("cat", "oak", "dog", "thing"), ("pet", "tree"), (0, 1, 0, None))


def test_other_annotations_are_left_out_and_counted(tmp_path: Path) -> None:
    boxes = [{"id": 0, "type": "bbox", "bbox": [0, 0, 1, 1], "label_id": 1}, {"type": "caption", "caption": "x"}]
    items = [item("a", 1), item("b", 0)]
    items[0]["annotations"] += boxes
    items[1]["annotations"] = [*boxes, {"type": ["odd"]}]
    summary = quickly(written(tmp_path / "in", {"train": content(items)}), tmp_path / "out", "cifar", save_images=True)
    assert [row[:2] for row in cifar_rows(tmp_path / "out")] == [("a.png", 1), ("b.png", None)]
    assert any(
        "5 annotations that are not image labels" in each and "bbox: 2, caption: 2, unknown: 1" in each
        for each in summary.notices
    )


def test_images_are_found_as_older_versions_put_them(tmp_path: Path) -> None:
    items = [
        item("a", 0),
        item("old", 1),
        {"id": "b", "image": {"path": ""}},
        {"id": "bare"},
        item("lost", 0, "x/y.png"),
    ]
    folder = written(tmp_path / "in", {"train": content(items)})
    write_tree(folder, {"images/old.png": encoded(picture(5)), "images/train/b.jpg": encoded(picture(6), "JPEG")})
    found = read(folder, tmp_path / "out")
    assert [(name, label, pixels is None) for name, label, _, pixels in found] == [
        ("a.png", 0, False),
        ("old.png", 1, False),
        ("b.jpg", None, False),
        ("bare", None, True),
        ("lost.png", 0, True),
    ]
    assert found[1][3] == picture(5).tobytes()


def test_categories_may_follow_the_items(tmp_path: Path) -> None:
    found = content([item("a", 1), item("b", 0)])
    late = {"items": found["items"], "more": [1, {"x": None}], "categories": found["categories"]}
    folder = written(tmp_path / "in", {"train": late})
    assert [row[:2] for row in read(folder, tmp_path / "out")] == [("a.png", 1), ("b.png", 0)]


def test_files_larger_than_a_piece_are_read_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 7)
    folder = written(tmp_path / "in", {"train": content([item("a", 1), item("b", 0)]), "val": content([item("a", 0)])})
    read(folder, tmp_path / "out")
    assert batch_names(tmp_path / "out") == ["train", "val"]
    assert [row[1] for row in cifar_rows(tmp_path / "out")] == [1, 0, 0]


def test_coco_is_not_taken_for_it(tmp_path: Path) -> None:
    coco = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "x"}], "annotations": []}
    folder = written(tmp_path / "coco", {"train": coco})
    assert not get_source("datumaro").looks_right(str(folder), "")
    with pytest.raises(InputError, match="are names of subsets and not of classes"):
        detect_format(str(folder), str(tmp_path))
    folder = written(tmp_path / "own", {"train": content([item("a", 1)])})
    assert detect_format(str(folder), str(tmp_path)) == "datumaro"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item("x", 2), "row 1: has label 2; expected 0 to 1"),
        (item("x", -1), "row 1: label is -1; expected a class number"),
        (item("x", 1 << 70), "row 1: label is 1180"),
        ({"id": "x", "annotations": [{"type": "label", "label_id": True}]}, "row 1: label is True"),
        ({"id": "x", "annotations": [{"type": "label"}]}, "row 1: label is None"),
        ({"id": "x", "annotations": {"type": "label"}}, "row 1: annotations are not a list"),
        ({"id": "x", "annotations": [7]}, "row 1: annotations are not a list"),
        (
            {"id": "x", "annotations": [{"type": "label", "label_id": n} for n in (0, 1)]},
            "row 1: has 2 labels \\(0, 1\\); at most one",
        ),
        (item("x", 0, "../../a.png"), r"row 1: image path '\.\./\.\./a\.png'"),
        (item("x", 0, "/etc/a.png"), "row 1: image path '/etc/a.png'"),
        ({"id": "../../a", "image": {}}, "row 1: image path"),
        ({"id": "x", "image": {"path": 5}}, "row 1: image path is missing"),
        ({"id": "x", "image": "a.png"}, "row 1: image path is missing"),
        ({"id": 5}, "row 1: id is missing or not valid text: '5'"),
        ({"id": "\ud800"}, "row 1: id is missing"),
        ({}, "row 1: id is missing"),
        ([], "row 1: id is missing"),
    ],
)
def test_an_item_that_cannot_be_kept_is_refused_by_number(bad: Any, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train": content([item("a", 0), bad, item("b", 1)])})
    with pytest.raises(InputError, match=rf"train\.json: {reason}"):
        read(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (b'{"items": [{"id": "a"}', "is not valid JSON: unexpected end of file"),
        (b'{"items": {"id": "a"}}', r"expected '\['"),
        (b"[]", "expected '{'"),
        (b'{"categories": {}}', "has no 'items'"),
        (b'{"items": [], "items": []}', "key 'items' occurs twice"),
        (b'{"items": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "nested too deep"),
        (b'{"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b', "items": []}', "nested too deep"),
        (b'{"categories": {"label": {"labels": [5]}}, "items": []}', "has no list of labels"),
        (b'{"categories": {"label": {"labels": [{"name": 5}]}}, "items": []}', "class name is '5'"),
        (b'{"categories": {"label": {"labels": [{"name": "\\ud800"}]}}, "items": []}', "class name is"),
        (b'{"items": []}', "have no rows"),
        (b"", "unexpected end of file"),
        (b'{"categories": {}, "items": []}{"items": []}', "expected the end of the file"),
    ],
)
def test_a_file_that_is_not_datumaros_is_refused_by_name(found: bytes, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train": found})
    with pytest.raises(InputError, match=reason) as refused:
        read(folder, tmp_path / "out")
    assert str(refused.value).startswith(str(folder)) or "rows" in reason
    assert len(str(refused.value)) < 500


def test_subsets_with_different_classes_are_refused(tmp_path: Path) -> None:
    subsets = {"a": content([item("a", 0)]), "b": content([item("a", 0)], ("dog", "cat"))}
    with pytest.raises(InputError, match=r"b\.json: classes differ from .*a\.json"):
        read(written(tmp_path / "in", subsets), tmp_path / "out")


def test_a_file_that_changes_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    folder, source = written(tmp_path / "in", {"train": content([item("a", 0)])}), get_source("datumaro")
    catalog = source.describe(str(folder), str(tmp_path))
    (folder / "annotations" / "train.json").write_text("{}")
    kit_annotations._contents.cache_clear()  # as in another process
    with pytest.raises(InputError, match=r"train\.json: the file changed"):
        scan(source, catalog.files[0], catalog.labels, Wanted())


@pytest.mark.parametrize(
    "table",
    [
        LabelTable(("a", "b", "a")),
        LabelTable(("a", "")),
        LabelTable(("a", "\ud800")),
        LabelTable(("a",), ("x", "x"), (0,)),
        LabelTable(("a",), ("",), (0,)),
    ],
)
def test_classes_that_datumaro_refuses_are_refused(table: LabelTable) -> None:
    with pytest.raises(UsageError, match="which Datumaro refuses; rename (one|it) with --remap"):
        DatumaroSink().check_labels(table)


def test_subsets_of_any_name_have_their_file_and_folder(tmp_path: Path) -> None:
    batches = {"té st": batch(["a.png"], [0]), "x%y": batch(["a.png"], [1], 2), "s" * 253: batch(["a.png"], [1], 3)}
    source = write_cifar(tmp_path / "in", batches)
    quickly(source, tmp_path / "out", "datumaro")
    found = set(contents(tmp_path / "out"))
    assert found >= {"annotations/té st.json", "annotations/x%25y.json", "images/té st/a.png", "images/x%25y/a.png"}
    assert len(found) == 6
    quickly(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)
    assert Counter(cifar_rows(tmp_path / "back")) == Counter(cifar_rows(source))
