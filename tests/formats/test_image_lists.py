"""What folders of images with lists share: paths made of ids, long JSON read in pieces, and round trips."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar import ExportOptions, LabelTable, storage
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Shard, SinkOptions
from beam_cifar.formats.kit import json_stream
from beam_cifar.formats.kit.image_lists import is_inside, list_images, plain_path
from beam_cifar.formats.kit.json_stream import JsonStream
from beam_cifar.formats.kit.rows import found_in
from beam_cifar.formats.registry import detect_format, get_sink, get_source
from beam_cifar.naming.id_paths import decode_path, encode_path, stem
from beam_cifar.options import Input
from tests.helpers.image_trees import (
    batch,
    contents,
    encoded,
    manifest,
    picture,
    quickly,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import batch_names, cifar_rows, tree, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
LISTED = ["imagenet_txt", "voc_classification", "datumaro", "coco", "cvat", "open_images"]
ALL = [*LISTED, "image_dir"]


def rows_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """(id, class name, pixels) of the rows of a CIFAR-10 directory, by subset."""
    classes = unpickled(folder / "batches.meta")["label_names"]
    return {
        subset: [
            (os.path.splitext(name)[0], None if label is None else classes[label], pixels)
            for name, label, _, pixels in cifar_rows(folder, [subset])
        ]
        for subset in batch_names(folder)
    }


def back(source: Path, folder: Path, target: str, **options: Any) -> Path:
    """A CIFAR directory through a format and back."""
    quickly(source, folder / target, target, **{"image_ext": ".png", **options})
    quickly(folder / target, folder / f"{target} back", "cifar", save_images=True, input_format=target)
    return folder / f"{target} back"


# --- paths ----------------------------------------------------------------------------------------------------------


@given(st.text(), st.booleans())
def test_a_path_is_safe_and_gives_the_id_back(item_id: str, strict: bool) -> None:
    path = encode_path(item_id, ".png", strict=strict)
    assert path.endswith(".png")
    assert is_inside(path)
    assert plain_path(path) == path
    assert path.split() == [path] or set(path) & set(" ") == {" "}
    assert not path.startswith("#")
    for component in path.split("/"):
        assert component
        assert component not in (".", "..")
        assert len(component.encode()) <= 255
    if len(item_id) < 20:
        assert decode_path(stem(path)) == item_id


@given(st.lists(st.text(alphabet="aA/.%# \u00a0png", max_size=8), unique=True, max_size=20))
def test_different_ids_have_different_paths_and_none_is_the_folder_of_another(ids: list[str]) -> None:
    paths = [encode_path(item_id, ".png") for item_id in ids]
    assert len(set(paths)) == len(paths)
    folders = {path[:at] for path in paths for at, char in enumerate(path) if char == "/"}
    assert not folders & set(paths)


def test_a_path_that_no_disk_takes_becomes_one_name() -> None:
    path = encode_path("/".join(["folder"] * 400), ".png")
    assert "/" not in path
    assert len(path) <= 255
    assert path != encode_path("/".join(["folder"] * 401), ".png")


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "/etc/x.png", "..", "a\0.png"])
def test_paths_that_leave_the_folder_are_told(path: str) -> None:
    assert not is_inside(path)


# --- finding images -------------------------------------------------------------------------------------------------


def test_a_tree_is_listed_once_with_its_folders_and_without_hidden_names(tmp_path: Path) -> None:
    files = {name: b"x" * at for at, name in enumerate(["b.png", "a/z.png", "a/b/c.jpg", ".hidden.png", "a/.h/d.png"])}
    found = list_images(str(write_tree(tmp_path / "in", files)))
    assert [(entry.name, entry.size) for entry in found] == [("a/b/c.jpg", 2), ("a/z.png", 1), ("b.png", 0)]
    rows = found.rows(np.array([2, -1]))
    assert (rows["image"].to_pylist(), rows["size"].to_pylist()) == (["b.png", None], [0, None])
    assert all(Path(entry.path).stat().st_mtime_ns == entry.mtime for entry in found)


def test_images_are_found_in_a_folder_among_others_of_like_names(tmp_path: Path) -> None:
    names = ["a-b/x.png", "a.b/x.png", "a/b/x.png", "a/x.png", "a/é.png", "a0/x.png", "ab/x.png", "x.png", "é/x.png"]
    tree = list_images(str(write_tree(tmp_path / "in", dict.fromkeys(names, b"x"))))
    assert tree.names.to_pylist() == sorted(names)
    for folder in ("", "a-b/", "a.b/", "a/", "a/b/", "a0/", "ab/", "é/", "a/é/", "b/"):
        for names_in_folder in (["x.png", "é.png", "missing.png", "b/x.png", ""], ["x.png"], ["b/x.png", "b/y.png"]):
            paths = [f"{folder}{name}" for name in names_in_folder]
            places = tree.find(pa.array(paths)).tolist()
            assert [tree.names[place].as_py() if place >= 0 else None for place in places] == [
                path if path in names else None for path in paths
            ]
    assert tree.find(pa.array([], pa.string())).tolist() == []
    assert tree.find(pa.array([None, "a/x.png"])).tolist() == [-1, names.index("a/x.png")]


def test_a_folder_that_is_not_there_is_an_empty_tree(tmp_path: Path) -> None:
    assert len(list_images(str(tmp_path / "missing"))) == 0


def test_links_that_lead_in_circles_are_refused_and_others_followed(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", {"x.png": b"x"})
    write_tree(tmp_path / "in", {"a/b.png": b"y"})
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    assert [entry.name for entry in list_images(str(tmp_path / "in"))] == ["a/b.png", "there/x.png"]
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match=r"a/up: a link leads to a folder that was already listed"):
        list_images(str(tmp_path / "in"))


def test_the_first_of_equal_texts_is_found() -> None:
    import pyarrow as pa

    found = found_in(pa.array(["b", "x", "a"]), pa.array(["a", "b", "b", "a", "b"]))
    assert found.tolist() == [1, -1, 0]


# --- JSON in pieces -------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read_whole(content: bytes) -> dict[str, Any]:
    stream = JsonStream(io.BytesIO(content), "x.json")
    return {key: list(stream.elements()) if stream.at("[") else stream.value() for key in stream.members()}


@given(st.dictionaries(st.text(), values, max_size=5), st.sampled_from([None, 1]), st.integers(1, 9), st.booleans())
@settings(max_examples=40)
def test_pieces_give_what_the_whole_gives(content: dict[str, Any], indent: int | None, size: int, plain: bool) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=plain).encode("utf-8", "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_BYTES", size)
        assert read_whole(text) == json.loads(text)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "character 0: .* unexpected end of file"),
        (b"[1]", "expected '{'"),
        (b'{"a": 1', "unexpected end of file"),
        (b'{"a": [1, 2', "unexpected end of file"),
        (b'{"a": [1 2]}', "character 9: .*expected ']'"),
        (b'{"a": "x', "Unterminated string"),
        (b'{"a" 1}', "expected ':'"),
        (b"{1: 1}", "expected a key"),
        (b'{"a": nope}', "Expecting value"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": {"b": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}", "nested too deep"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=rf"x\.json.*{reason}"):
        read_whole(content)


def test_a_value_that_does_not_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 100)
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1000)
    stream = io.BytesIO(b'{"a": "' + b"x" * 1_000_000)
    with pytest.raises(InputError, match="incomplete after"):
        JsonStream(stream, "x.json").value()
    assert stream.tell() < 5000


# --- round trips ----------------------------------------------------------------------------------------------------

IDS = [
    "plain",
    "two words",
    "a/b/c",
    "a.png/b",
    "a",
    "#1",
    "..",
    "\u00a0x\u3000",
    "Кот",
    "50%",
    'say "x"',
    "A",
    "tab\tx",
]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Ids, classes and subsets of all kinds, a class without images, and rows without label."""
    labels = [None if row == 3 else row % 4 for row in range(len(IDS))]
    batches = {
        "data_batch_1": batch([f"{name}.png" for name in IDS], labels),
        "te st_é": batch(["1.png", "2.png"], [3, 0], 5),
    }
    return write_cifar(tmp_path / "in", batches, ["sea lion", "a,b", "Поезд", "100%", "unused", "CON", "con"])


@pytest.mark.parametrize("target", LISTED)
def test_ids_classes_subsets_and_pixels_survive(target: str, hostile: Path, tmp_path: Path) -> None:
    found = back(hostile, tmp_path, target, subset_names="source")
    assert rows_of(found) == rows_of(hostile)
    assert unpickled(found / "batches.meta") == unpickled(hostile / "batches.meta") | {"num_vis": 3072} | {
        "num_cases_per_batch": 13
    }


def test_a_folder_of_images_keeps_ids_and_pixels(hostile: Path, tmp_path: Path) -> None:
    wanted = sorted((name, pixels) for rows in rows_of(hostile).values() for name, _, pixels in rows)
    found = rows_of(back(hostile, tmp_path, "image_dir"))
    assert set(found) == {"default"}
    assert sorted((name, pixels) for name, _, pixels in found["default"]) == wanted
    assert {label for _, label, _ in found["default"]} == {None}


@pytest.mark.parametrize("target", ALL)
def test_the_format_is_detected_and_no_other_claims_it(target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    quickly(source, tmp_path / "out", target)
    assert detect_format(str(tmp_path / "out"), str(tmp_path)) == target


def test_the_layout_of_folders_of_classes_is_not_claimed(tmp_path: Path) -> None:
    for name, path in {"one": "cat/a.png", "two": "train/cat/a.png", "none": "x.txt"}.items():
        write_tree(tmp_path / name, {path: encoded(picture(1))})
    found = {name: detect_format(str(tmp_path / name), str(tmp_path)) for name in ("one", "two", "none")}
    assert found == {"one": "imagenet", "two": "imagenet_with_subset_dirs", "none": None}


@pytest.mark.parametrize("target", ALL)
def test_any_number_of_parts_gives_the_same_bytes(
    target: str, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"labels": ("sea lion", "a,b", "Поезд")}
    quickly(hostile, tmp_path / "one", target, **options)
    set_part_bytes(monkeypatch, target, 1)
    quickly(hostile, tmp_path / "many", target, **options)
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


@pytest.mark.parametrize("target", LISTED)
def test_a_subset_without_rows_keeps_its_list(target: str, tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "b.png"], [0, 1]), "test": batch(["c.png"], [1], 2)}
    source = write_cifar(tmp_path / "in", batches)
    found = back(source, tmp_path, target, labels=("cat",))
    assert {subset: len(rows) for subset, rows in rows_of(found).items()} == {"train": 1, "test": 0}


@pytest.mark.parametrize("target", ALL)
def test_one_id_in_two_subsets_is_refused_where_they_share_a_folder(target: str, tmp_path: Path) -> None:
    batches = {"train": batch(["x/a.png", "b.png"], [0, 0]), "test": batch(["x/a.png"], [1], 1)}
    source = write_cifar(tmp_path / "in", batches)
    if target in ("coco", "datumaro"):
        assert rows_of(back(source, tmp_path, target)) == rows_of(source)
        return
    with pytest.raises(UsageError, match=r"would become the same file.*--subset"):
        quickly(source, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ALL)
def test_ids_that_differ_in_case_alone_have_files_that_differ_in_more(target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["x/a.png", "X/a.png", "x/A.png"], [0, 0, 1])})
    found = back(source, tmp_path, target)
    names = [name for name in contents(tmp_path / target) if name.endswith(".png")]
    assert len({name.lower() for name in names}) == len(names) == 3
    assert {row[0] for rows in rows_of(found).values() for row in rows} == {"x/a", "X/a", "x/A"}


@pytest.mark.parametrize("target", ["imagenet_txt", "voc_classification", "image_dir"])
def test_ids_of_several_data_sets_meet_whatever_their_files_are_called(target: str, tmp_path: Path) -> None:
    files = {f"{name}/1.png": encoded(picture(at)) for at, name in enumerate(("cat", "dog"))}
    write_tree(tmp_path / "folders", files)  # ids are cat/1 and dog/1, of files that are both called 1.png
    write_cifar(tmp_path / "cifar", {"train": batch(["cat/1.png"], [0])})
    merged = (Input(str(tmp_path / "cifar")),)
    with pytest.raises(UsageError, match="'cat/1' in subset .* would become the same file"):
        quickly(tmp_path / "folders", tmp_path / "out", target, merged=merged)
    quickly(tmp_path / "folders", tmp_path / "both", "datumaro", merged=merged)
    assert {name for name in contents(tmp_path / "both") if name.endswith(".png")} == {
        "images/default/cat/1.png",
        "images/default/dog/1.png",
        "images/train/cat/1.png",
    }


@pytest.mark.parametrize("target", LISTED)
def test_folders_of_classes_keep_the_ids_that_told_them_apart(target: str, tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": encoded(picture(at)) for at, name in enumerate(("cat", "dog")) for number in "12"}
    source = write_tree(tmp_path / "in", files)
    found = rows_of(back(source, tmp_path, target))["default"]
    assert [(name, label) for name, label, _ in found] == [
        ("cat/1", "cat"),
        ("cat/2", "cat"),
        ("dog/1", "dog"),
        ("dog/2", "dog"),
    ]


@pytest.mark.parametrize("target", LISTED)
def test_images_of_mixed_sizes_and_gray_ones_pass_through_byte_for_byte(target: str, tmp_path: Path) -> None:
    files = {
        "cat/gray.png": encoded(picture(1, channels=1)),
        "cat/wide.png": encoded(picture(2, 5, 9)),
        "no_label/high.png": encoded(picture(3, 40, 2)),
    }
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "out", target, image_ext=".png")
    found = {name.rpartition("/")[2]: content for name, content in contents(tmp_path / "out").items()}
    assert {name: found[name] for name in ("gray.png", "wide.png", "high.png")} == {
        name.rpartition("/")[2]: content for name, content in files.items()
    }


@pytest.mark.parametrize("target", ALL)
def test_rows_without_image_are_refused_with_a_way_out(target: str, tmp_path: Path) -> None:
    data = np.empty(2, dtype=object)
    data[:] = [picture(0).reshape(-1), None]
    rows = {"data": data, "labels": [0, 1], "filenames": ["a.png", "b.png"], "image_sizes": [(32, 32)] * 2}
    source = write_cifar(tmp_path / "in", {"train": rows})
    with pytest.raises(InputError, match=r"train: row 1: no image.*--filter '/item\[image\]'"):
        quickly(source, tmp_path / "out", target)


@pytest.mark.parametrize("target", LISTED)
def test_a_listed_image_that_is_missing_is_a_row_without_image(target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    quickly(source, tmp_path / "out", target, image_ext=".png")
    for path in (tmp_path / "out").rglob("a.png"):
        path.unlink()
    quickly(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)
    assert [(name[0], label, pixels is None) for name, label, _, pixels in cifar_rows(tmp_path / "back")] == [
        ("a", 0, True),
        ("b", 1, False),
    ]


@pytest.mark.parametrize("target", ALL)
def test_an_image_that_changes_between_plan_and_reading_is_noticed(target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    quickly(source, tmp_path / "out", target, image_ext=".png")
    reader = get_source(target)
    if target in ("coco", "cvat", "datumaro", "open_images"):  # reads all on describing
        catalog = reader.describe(str(tmp_path / "out"), str(tmp_path))
        next((tmp_path / "out").rglob("a.png")).write_bytes(b"other")
        with reader.open_rows(catalog.files[0], catalog.labels) as rows, pytest.raises(InputError, match="changed"):
            rows.table(0, 2)
        return
    catalog = reader.describe(str(tmp_path / "out"), str(tmp_path))
    next((tmp_path / "out").rglob("a.png")).write_bytes(b"other")
    with (
        pytest.raises(InputError, match="changed while it was being converted"),
        reader.open_rows(catalog.files[0], catalog.labels),
    ):
        pass


@pytest.mark.parametrize("target", ALL)
def test_a_damaged_image_is_refused_by_name(target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    quickly(source, tmp_path / "out", target, image_ext=".png")
    path = next((tmp_path / "out").rglob("b.png"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"b\.png"):
        quickly(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)


@pytest.mark.parametrize("target", ALL)
def test_a_real_run_gives_what_the_plain_one_gives(target: str, beam: None, hostile: Path, tmp_path: Path) -> None:
    from tests.helpers.image_trees import converted

    converted(hostile, tmp_path / "real", target)
    quickly(hostile, tmp_path / "plain", target)
    assert tree(tmp_path / "real") == tree(tmp_path / "plain")
    assert manifest(tmp_path / "real")["shards"] == manifest(tmp_path / "plain")["shards"]


@pytest.mark.parametrize("target", LISTED)
def test_the_losses_say_what_the_others_keep(target: str) -> None:
    assert get_sink(target).can.losses <= {"superclasses", "jpeg"}
    assert get_sink(target).can.keeps_empty_subsets


def test_a_tree_stamp_tells_every_change(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a/b.png": b"y", "c.png": b"z"})
    before = storage.listing_stamp(list_images(str(tmp_path / "in")))
    assert storage.listing_stamp(list_images(str(tmp_path / "in"))) == before
    (tmp_path / "in" / "a" / "b.png").rename(tmp_path / "in" / "a" / "d.png")
    assert storage.listing_stamp(list_images(str(tmp_path / "in"))) != before


def test_lists_longer_than_what_is_written_at_once_are_whole(tmp_path: Path) -> None:
    rows, classes = 25_000, ("cat", "dog", "none")
    options = SinkOptions(LabelTable(classes), ExportOptions())
    for target in LISTED:
        sink = get_sink(target)
        shard = Shard(0, "train", sink.shard_path("train", 0, 1), rows, rows, (2, 3), True)
        root = sink.image_folders(options)[0]  # type: ignore[attr-defined]
        entries = (
            {"path": f"{root}/{row}.png".lstrip("/"), "label": str(row % 2), "height": "2", "width": "3"}
            for row in range(rows)
        )
        listing = tmp_path / f"{target}.jsonl"
        listing.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        files = storage.StagedFiles(str(tmp_path / target), str(tmp_path / "scratch"))
        sink.complete([str(listing)], files, shard, options)
        assert {path: size for path, size, _ in files.made} == {
            name: len(content) for name, content in contents(tmp_path / target).items()
        }
    found = (tmp_path / "imagenet_txt" / "train.txt").read_text().splitlines()
    assert found == [f"{row}.png {row % 2}" for row in range(rows)]
    items = json.loads((tmp_path / "datumaro" / "annotations" / "train.json").read_bytes())["items"]
    assert [(item["id"], item["annotations"][0]["label_id"]) for item in items] == [
        (str(row), row % 2) for row in range(rows)
    ]
    main = tmp_path / "voc_classification" / "ImageSets" / "Main"
    assert (main / "train.txt").read_text().splitlines() == list(map(str, range(rows)))
    for label, name in enumerate(classes):
        lines = (main / f"{name}_train.txt").read_text().splitlines()
        assert lines == [f"{row} {1 if row % 2 == label else -1: d}" for row in range(rows)]
