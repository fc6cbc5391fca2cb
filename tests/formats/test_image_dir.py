"""A folder of images: its names, flat and deep, and when it is taken for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import (
    batch,
    contents,
    encoded,
    images,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def read(folder: Path, output: Path, **options: Any) -> list[tuple[Any, ...]]:
    quickly(folder, output, "cifar", save_images=True, input_format="image_dir", **options)
    return cifar_rows(output)


def test_images_lie_where_their_ids_say(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "x/b c.png"], [0, None]), "test": batch(["../up.png"], [1], 2)}
    quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "image_dir")
    assert images(tmp_path / "out") == {
        "a.png": picture(0).tobytes(),
        "x/b c.png": picture(1).tobytes(),
        "%2E%2E/up.png": picture(2000).tobytes(),
    }
    assert {shard["path"] for shard in manifest(tmp_path / "out")["shards"]} == {""}


def test_paths_without_extension_are_ids_in_natural_order(tmp_path: Path) -> None:
    names = ["a10.png", "a2.JPG", "x/y/1.jpeg", "x/y/z/deep.png", "%3F.png", "50%-off.png", "b.c.png"]
    folder = write_tree(
        tmp_path / "in",
        {name: encoded(picture(at), "PNG" if name.endswith("png") else "JPEG") for at, name in enumerate(names)},
    )
    write_tree(tmp_path / "in" / "more", {"notes.txt": b"no image", ".hidden.png": b"x"})
    found = read(folder, tmp_path / "out")
    assert [name for name, *_ in found] == [
        "50%-off.png",
        "?.png",
        "a2.JPG",
        "a10.png",
        "b.c.png",
        "x/y/1.jpeg",
        "x/y/z/deep.png",
    ]
    assert {label for _, label, *_ in found} == {None}
    assert found[3][3] == picture(0).tobytes()
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == []


def test_images_with_one_id_get_different_ones(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", {"a.jpg": encoded(picture(1), "JPEG"), "a.png": encoded(picture(2))})
    summary = quickly(folder, tmp_path / "out", "image_dir", image_ext=".png")
    assert sorted(contents(tmp_path / "out")) == ["a.png", "a_2.png"]
    assert any("1 row with the file name" in notice for notice in summary.notices)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.png"], "image_dir"),
        (["a.jpg", "notes.txt"], "image_dir"),
        (["x/y/z/a.png"], "image_dir"),
        (["x/a.png"], "imagenet"),
        (["x/y/a.png"], "imagenet_with_subset_dirs"),
        (["notes.txt"], None),
        ([".a.png"], None),
    ],
)
def test_a_tree_that_nothing_else_claims_is_detected(paths: list[str], expected: str | None, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", {path: encoded(picture(1)) for path in paths})
    assert detect_format(str(folder), str(tmp_path)) == expected


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "bomb", "folder", "pipe", "circle", "missing"])
def test_what_is_no_tree_of_images_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    folder, good = tmp_path / "in", encoded(picture(1))
    header = good[:16] + (50_000).to_bytes(4, "big") * 2 + good[24:]
    bad = {"empty": b"", "cut": good[:60], "text": b"no image", "bomb": header}.get(damage)
    write_tree(folder, {"good.png": good, **({} if bad is None else {"bad.png": bad})})
    reason = r"bad\.png: "
    if damage == "folder":
        (folder / "good.png").unlink()
        (folder / "bad.png").mkdir()
        reason = "in: no image files found"
    elif damage == "pipe":
        os.mkfifo(folder / "bad.png")
        reason = r"bad\.png: not a file"
    elif damage == "circle":
        (folder / "x").mkdir()
        (folder / "x" / "bad.png").symlink_to(folder)
        reason = r"bad\.png: a link leads to a folder that was already listed"
    elif damage == "missing":
        folder = tmp_path / "missing"
        reason = "missing: no"
    with pytest.raises((InputError, UsageError), match=reason):
        read(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_changes_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", {"a.png": encoded(picture(1))})
    source = get_source("image_dir")
    catalog = source.describe(str(folder), str(tmp_path))
    write_tree(folder, {"x/b.png": encoded(picture(2))})
    with pytest.raises(InputError, match="the folder changed"), source.open_rows(catalog.files[0], catalog.labels):
        pass


def test_encoded_images_pass_through_byte_for_byte(tmp_path: Path) -> None:
    files = {"a/b.JPG": encoded(picture(1), "JPEG", quality=60), "c.png": encoded(picture(2, channels=1))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "image_dir", input_format="image_dir")
    assert contents(tmp_path / "out") == files


def test_equal_ids_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    batches = {"train": batch(["x/a.png"], [0]), "test": batch(["x/a.png"], [1], 2)}
    with pytest.raises(UsageError, match=r"test row 0 and .*train row 0 would become the same file"):
        quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "image_dir")
    assert not (tmp_path / "out").exists()
