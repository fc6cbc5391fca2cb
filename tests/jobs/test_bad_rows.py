"""Damaged images: refused where they are selected, never looked at where they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar.errors import RowError
from beam_cifar.steps.registry import make_step
from tests.formats.test_webdataset import shard
from tests.helpers.commands import Command
from tests.helpers.image_trees import encoded, manifest, picture, quickly, write_tree

GOOD = encoded(picture(1), "JPEG")
DAMAGED = {
    "cut": (GOOD[: len(GOOD) // 2], "truncated: ends at byte"),
    "other bytes": (b"no image at all", "starts with bytes"),
    "empty": (b"", "starts with bytes"),
}
WITHOUT: dict[str, dict[str, Any]] = {
    "filter": {"filter": '/item[not(id="bad")]'},
    "filter by label": {"filter": '/item[annotation/label="cat"]'},
    "label": {"labels": ("cat",)},
    "limit": {"limit": 3},
    "remove_items": {"steps": (make_step("remove_items", {"ids": [("bad", "default")]}),)},
    "label and a step": {"labels": ("cat",), "steps": (make_step("shuffle", {"seed": 1}),)},
}
"""Selections without the damaged image, the last of its file."""


def image_dir(folder: Path, bad: bytes) -> Path:
    return write_tree(folder, {f"cat/{n}.jpg": GOOD for n in range(3)} | {"dog/bad.jpg": bad})


def parquet(folder: Path, bad: bytes) -> Path:
    folder.mkdir(parents=True)
    images = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate((GOOD, GOOD, GOOD))]
    names = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0, 1], pa.int32()), ["cat", "dog"])
    table = pa.table({"image": [*images, {"bytes": bad, "path": "bad.jpg"}], "label": names.cast(pa.string())})
    pq.write_table(table, folder / "default.parquet")
    return folder


def webdataset(folder: Path, bad: bytes) -> Path:
    members = [
        (f"{name}.{kind}", data)
        for name, image, label in [("0", GOOD, b"cat"), ("1", GOOD, b"cat"), ("2", GOOD, b"cat"), ("bad", bad, b"dog")]
        for kind, data in (("cls", label), ("jpg", image))
    ]
    return shard(folder, members, "default-000000.tar")


SOURCES: dict[str, Callable[[Path, bytes], Path]] = {
    "image_dir": image_dir,
    "parquet": parquet,
    "webdataset": webdataset,
}


@pytest.mark.parametrize("target", ["parquet", "npz", "imagenet"])
@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_not_selected_is_not_looked_at(tmp_path: Path, kind: str, target: str) -> None:
    for name, (bad, reason) in DAMAGED.items():
        source = SOURCES[kind](tmp_path / name / "in", bad)
        with pytest.raises(RowError, match=reason):
            quickly(source, tmp_path / name / "refused", target)
        for how, options in WITHOUT.items():
            output = tmp_path / name / how
            found = quickly(source, output, target, **options)
            assert (found.read - found.filtered, found.written, found.labels["cat"]) == (3, 3, 3), (name, how)
            assert manifest(output)["rows"]["rejected"] == 0


@pytest.mark.parametrize("kind", SOURCES)
def test_a_filter_that_looks_at_images_refuses_one_without_a_header(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](tmp_path / "in", b"no image at all")
    shuffled = {"steps": (make_step("shuffle", {"seed": 1}),)}
    for options in ({}, shuffled):
        with pytest.raises(RowError, match="starts with bytes"):
            quickly(source, tmp_path / "out", "parquet", filter="/item[image/width=32]", **options)


def test_a_damaged_image_in_the_limit_is_refused(tmp_path: Path) -> None:
    source = image_dir(tmp_path / "in", b"no image at all")
    for target in ("parquet", "npz"):
        with pytest.raises(RowError, match="bad.jpg: starts with bytes"):
            quickly(source, tmp_path / "out", target, limit=4)


def test_the_command_line_says_how_to_go_on(tmp_path: Path, command: Command) -> None:
    source = image_dir(tmp_path / "in", GOOD[:-200])
    code, _, told = command("convert", "-i", source, "-f", "parquet", "-o", tmp_path / "out")
    assert code == 3
    assert "truncated: ends at byte" in told
    assert "exclude it with --filter" in told.splitlines()[-1]
