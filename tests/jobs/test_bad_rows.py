"""Damaged rows: refused where they are selected, never looked at where they are not, and set aside on request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from isal import isal_zlib

from beam_cifar.errors import InputError, RowError, UsageError
from beam_cifar.formats.registry import writable
from beam_cifar.options import ConvertOptions
from beam_cifar.steps.registry import make_step
from tests.formats.test_webdataset import shard
from tests.helpers.commands import Command
from tests.helpers.image_trees import (
    contents,
    converted,
    encoded,
    killed,
    manifest,
    picture,
    quickly,
    set_part_bytes,
    write_tree,
)

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
    assert "leave out such rows with --on-error quarantine" in told.splitlines()[-1]


ASIDE: dict[str, Any] = {"on_error": "quarantine"}


def listed(output: Path) -> list[dict[str, Any]]:
    """The list of bad rows."""
    text = (output.with_name(output.name + ".beam_cifar") / "quarantine.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", SOURCES)
def test_damaged_images_are_set_aside(tmp_path: Path, kind: str) -> None:
    for name, (bad, reason) in DAMAGED.items():
        source = SOURCES[kind](tmp_path / name / "in", bad)
        good = tmp_path / name / "good"
        for target in writable() if name == "cut" else ("npz",):
            output = tmp_path / name / target
            found = quickly(source, output, target, **ASIDE)
            assert (found.read, found.written, found.filtered, found.quarantined) == (4, 3, 0, 1)
            (entry,) = listed(output)
            assert reason in entry["reason"]
            assert not entry["reason"].startswith(entry["file"] + ": ")  # both stand in the entry
            assert f"row {entry['row']}: " not in entry["reason"]
            assert (entry["subset"], entry["stage"], entry["bytes"]) == ("default", "image", len(bad))
            assert entry["sha256"] == hashlib.sha256(bad).hexdigest()
            assert manifest(output)["quarantine"] == {"listing": "quarantine.jsonl", "rows": 1}
            quickly(source, good, target, filter='/item[not(id="bad")]', overwrite=True)
            assert contents(output) == contents(good), target


def test_an_image_is_decoded_where_the_job_decodes_it(tmp_path: Path) -> None:
    """The bytes between header and end are damaged: only a decoder finds out, and formats of encoded images copy them."""
    png = encoded(picture(3))
    at = png.index(b"IDAT")
    data = b"\0" * 40
    size, crc = len(data).to_bytes(4, "big"), isal_zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    bad = png[: at - 4] + size + b"IDAT" + data + crc + b"\0\0\0\0IEND\xaeB`\x82"
    source = write_tree(tmp_path / "in", {"cat/0.png": png, "cat/bad.png": bad})
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("parquet", {}, 2),
        ("npz", {}, 1),
        ("parquet", {"resize": (8, 8)}, 1),
        ("parquet", {"steps": (make_step("dedupe", {}),)}, 1),
        ("imagenet", {"image_ext": ".jpg"}, 1),
    ]
    for number, (target, options, kept) in enumerate(cases):
        found = quickly(source, tmp_path / str(number), target, **ASIDE, **options)
        assert (found.written, found.quarantined) == (kept, 2 - kept), (target, options)


def test_selection_comes_first(tmp_path: Path) -> None:
    source = image_dir(tmp_path / "in", b"no image at all")
    for how, options in WITHOUT.items():
        found = quickly(source, tmp_path / how, "npz", **ASIDE, **options)
        assert (found.written, found.filtered, found.quarantined) == (3, 1, 0), how
        assert "quarantine" not in manifest(tmp_path / how)
    found = quickly(source, tmp_path / "image", "npz", **ASIDE, filter="/item[image/width=32]")
    assert (found.written, found.quarantined) == (3, 1)


def test_bad_labels_are_set_aside(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": GOOD, "path": f"{n}.jpg"} for n in range(4)], "label": pa.array([0, 7, 1, -5])}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(rows).replace_schema_metadata(meta), tmp_path / "in" / "default.parquet")
    found = quickly(tmp_path / "in", tmp_path / "out", "npz", **ASIDE)
    assert (found.written, found.quarantined, found.labels) == (2, 2, {"cat": 1, "dog": 1})
    assert [(entry["row"], entry["stage"]) for entry in listed(tmp_path / "out")] == [(1, "read"), (3, "read")]


def test_the_same_output_from_any_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.planning.quarantine.MAX_ROWS", 3)
    for target in ("npz", "imagenet"):
        set_part_bytes(monkeypatch, target, 9000)
    names = {f"{label}/{n}.jpg": encoded(picture(n), "JPEG") for label in ("cat", "dog") for n in range(12)}
    bad = {"cat/3.jpg": b"", "cat/4.jpg": GOOD[:-9], "dog/11.jpg": b"no"}
    source = write_tree(tmp_path / "in", {**names, **bad})
    for target in ("npz", "imagenet"):
        quickly(source, tmp_path / "one", target, **ASIDE, keep_bad_rows=True, overwrite=True)
        converted(source, tmp_path / "two", target, **ASIDE, keep_bad_rows=True, workers=2, overwrite=True)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        beside = [contents(tmp_path / f"{name}.beam_cifar") for name in ("one", "two")]
        assert {name: data for name, data in beside[0].items() if "inputs" not in name} == {
            name: data for name, data in beside[1].items() if "inputs" not in name
        }
        kept = {name: data for name, data in beside[0].items() if name.startswith("quarantine/")}
        assert kept == {"quarantine/0.bin": b"", "quarantine/1.jpg": GOOD[:-9], "quarantine/2.bin": b"no"}
        assert [entry["path"] for entry in listed(tmp_path / "one")] == [str(source / name) for name in bad]
    quickly(source, tmp_path / "one", "npz", labels=("dog",), limit=3, overwrite=True)
    assert not [name for name in contents(tmp_path / "one.beam_cifar") if "quarantine" in name]


def test_a_killed_job_keeps_its_list(tmp_path: Path) -> None:
    source = image_dir(tmp_path / "in", b"no image at all")
    quickly(source, tmp_path / "whole", "npz", **ASIDE, keep_bad_rows=True)
    output = tmp_path / "out"
    for step in range(1, 9):
        quickly(source, output, "npz", labels=("cat",), overwrite=True)
        asked = ConvertOptions(str(source), str(output), "npz", **ASIDE, keep_bad_rows=True, overwrite=True, workers=1)
        if not killed(step, asked):
            break
        quickly(source, output, "npz", **ASIDE, keep_bad_rows=True, overwrite=True, resume=True)
        assert contents(output) == contents(tmp_path / "whole")
        beside = [contents(tmp_path / f"{name}.beam_cifar") for name in ("out", "whole")]
        kept = [{name: data for name, data in each.items() if "inputs" not in name} for each in beside]
        assert kept[0] == kept[1], step
    assert step > 4


@pytest.mark.parametrize(
    ("limit", "allowed"), [("0", False), ("1", False), ("2", True), ("49.9%", False), ("50%", True), ("100%", True)]
)
def test_a_limit_of_bad_rows(tmp_path: Path, limit: str, allowed: bool) -> None:
    source = write_tree(tmp_path / "in", {"cat/0.jpg": GOOD, "cat/1.jpg": GOOD, "cat/2.jpg": b"", "cat/3.jpg": b"x"})
    if allowed:
        assert quickly(source, tmp_path / "out", "npz", **ASIDE, max_errors=limit).quarantined == 2
        return
    with pytest.raises(InputError, match=r"2.jpg: starts with bytes \(none\).*raise --max-errors"):
        quickly(source, tmp_path / "out", "npz", **ASIDE, max_errors=limit)
    assert [path.name for path in tmp_path.iterdir() if path.name != "in" and list(path.iterdir())] == []


def test_nothing_is_left(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"cat/0.jpg": b"", "cat/1.jpg": b"x"})
    with pytest.raises(InputError, match="nothing to write: none of 2 rows is left .*2 bad rows were set aside"):
        quickly(source, tmp_path / "out", "parquet", **ASIDE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_error": "skip"},
        {"max_errors": "5"},
        {"keep_bad_rows": True},
        {**ASIDE, "max_errors": "many"},
        {**ASIDE, "max_errors": "101%"},
        {**ASIDE, "max_errors": "-1"},
    ],
)
def test_options_that_contradict(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--on-error|--max-errors"):
        ConvertOptions("in", "out", "npz", **wrong)


def test_on_the_command_line(tmp_path: Path, command: Command) -> None:
    source = image_dir(tmp_path / "in", GOOD[:-200])
    asked = ("convert", "-i", source, "-f", "parquet", "-o", tmp_path / "out", "--json", "--on-error", "quarantine")
    code, out, _ = command(*asked, "--max-errors", "25%")
    assert (code, json.loads(out)["quarantined"]) == (0, 1)
    code, _, told = command(*asked, "--max-errors", "0", "--overwrite")
    assert code == 3
    assert "1 of 4 rows is bad, but --max-errors is 0" in told.splitlines()[-1]
    assert len(listed(tmp_path / "out")) == 1


def test_a_filter_by_id_leaves_out_a_bad_row(tmp_path: Path) -> None:
    """A row whose label is bad: a filter by id drops it, one by label cannot know."""
    rows = {"image": [{"bytes": GOOD, "path": f"{n}.jpg"} for n in range(3)], "label": pa.array([0, 7, 1])}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(rows).replace_schema_metadata(meta), tmp_path / "in" / "default.parquet")
    for target in ("npz", "imagenet", "parquet"):
        found = quickly(tmp_path / "in", tmp_path / target, target, filter='/item[not(id="1")]')
        assert (found.read, found.written, found.filtered, found.quarantined) == (3, 2, 1, 0)
    for wrong in ({"filter": '/item[annotation/label="cat"]'}, {"labels": ("cat",)}, {"filter": '/item[not(id="0")]'}):
        with pytest.raises(RowError, match="row 1: label 7 is outside"):
            quickly(tmp_path / "in", tmp_path / "out", "npz", **wrong)
