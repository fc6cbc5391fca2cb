"""Jobs with an XPath filter, against plain Python over the same rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from beam_cifar.errors import InputError, UsageError
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    encoded,
    folders,
    images,
    listed,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, unpickled


class Row(NamedTuple):
    """A row as the oracle sees it: `label` is a class name or None."""

    subset: str
    id: str
    label: str | None
    pixels: bytes
    height: int = 32
    width: int = 32


Keep = Callable[[Row], bool]


def rows_of(folder: Path) -> list[Row]:
    classes = unpickled(folder / "batches.meta")["label_names"]
    return [
        Row(subset, os.path.splitext(name)[0], None if label is None else classes[label], pixels)
        for subset in batch_names(folder)
        for name, label, _, pixels in cifar_rows(folder, [subset])
    ]


@pytest.fixture(scope="module")
def rows(cifar10: Path) -> list[Row]:
    return rows_of(cifar10)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches in which every fourth row has no label."""
    labels = [[None if row % 4 == 3 else (row + at) % 3 for row in range(20)] for at in range(2)]
    batches = {
        name: batch([f"{name}_{row}.png" for row in range(20)], labels[at], at)
        for at, name in enumerate(("data_batch_1", "test_batch"))
    }
    return write_cifar(tmp_path_factory.mktemp("unlabelled") / "set", batches)


EXPRESSIONS: dict[str, tuple[str, Keep]] = {
    "a class": ('/item[annotation/label="dog"]', lambda row: row.label == "dog"),
    "another class": ('/item[annotation/label!="dog"]', lambda row: row.label is not None and row.label != "dog"),
    "not a class": ('/item[not(annotation/label="dog")]', lambda row: row.label != "dog"),
    "two classes": ('/item[annotation/label="dog" or annotation/label="cat"]', lambda row: row.label in ("dog", "cat")),
    "label ids": ("/item[annotation/label_id>6]", lambda row: row.label in ("horse", "ship", "truck")),
    "a subset": ('/item[subset="data_batch_2"]', lambda row: row.subset == "data_batch_2"),
    "subsets": ('/item[starts-with(subset, "data_")]', lambda row: row.subset.startswith("data_")),
    "ids": ('/item[contains(id, "_s_0000")]', lambda row: "_s_0000" in row.id),
    "number of id": ("/item[substring(id, string-length(id)) = 7]", lambda row: row.id.endswith("7")),
    "size": ("/item[image/width=32 and image/height<33]", lambda row: True),
    "subset and class": (
        '/item[subset="test_batch" and annotation/label="ship"]',
        lambda row: row.subset == "test_batch" and row.label == "ship",
    ),
    "a boolean": ('annotation/label="frog"', lambda row: row.label == "frog"),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_rows_that_an_expression_selects_are_written(
    name: str, cifar10: Path, rows: list[Row], tmp_path: Path
) -> None:
    expression, keep = EXPRESSIONS[name]
    summary = quickly(cifar10, tmp_path / "out", "cifar", filter=expression, save_images=True)
    wanted = [row for row in rows if keep(row)]
    assert wanted
    assert rows_of(tmp_path / "out") == wanted
    assert (summary.read, summary.written, summary.filtered) == (1203, len(wanted), 1203 - len(wanted))
    # No subset is lost, with rows or without.
    assert batch_names(tmp_path / "out") == batch_names(cifar10)


@pytest.mark.parametrize("archive", [False, True], ids=["directory", "archive"])
@pytest.mark.parametrize("target", ["cifar", "parquet", "imagenet"])
def test_a_filter_gives_the_same_rows_whatever_is_read_and_written(
    archive: bool, target: str, cifar10: Path, cifar10_archive: Path, rows: list[Row], tmp_path: Path
) -> None:
    source = cifar10_archive if archive else cifar10
    converted(source, tmp_path / "out", target, filter='/item[annotation/label="dog"]', save_images=True)
    dogs = [row for row in rows if row.label == "dog"]
    if target == "cifar":
        assert rows_of(tmp_path / "out") == dogs
    elif target == "imagenet":
        assert images(tmp_path / "out") == {f"dog/{row.id}.png": row.pixels for row in dogs}
    else:
        found = parquet_rows(tmp_path / "out", "train") + parquet_rows(tmp_path / "out", "test")
        assert found == [(f"{row.id}.png", 5, row.pixels) for row in dogs]


def test_both_flags_filter_on_the_command_line(cifar10: Path, rows: list[Row], run: Run, tmp_path: Path) -> None:
    wanted = [row for row in rows if row.label == "dog"]
    for flag in ("-e", "--filter"):
        done = run("convert", "-i", cifar10, "-f", "cifar", "-o", "out", flag, '/item[annotation/label="dog"]', "--save-images", "--overwrite")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "wrote 120 images" in done.stdout
        assert "read 1,203, filtered 1,083" in done.stdout
        assert rows_of(tmp_path / "out") == wanted


COMBINED: dict[str, tuple[dict[str, Any], Keep]] = {
    "labels": ({"labels": ("dog", "cat")}, lambda row: row.label in ("dog", "cat")),
    "subset": ({"subsets": ("train",)}, lambda row: row.subset != "test_batch"),
    "one batch": ({"subsets": ("data_batch_3",)}, lambda row: row.subset == "data_batch_3"),
    "both": (
        {"subsets": ("test",), "labels": ("ship",)},
        lambda row: (row.subset, row.label) == ("test_batch", "ship"),
    ),
    "a filter by id": ({"labels": ("dog", "ship"), "filter": '/item[contains(id, "3")]'}, lambda row: "3" in row.id and row.label in ("dog", "ship")),
}  # fmt: skip
LIVING = '/item[not(contains(annotation/label, "r"))]'


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("limit", [None, 7])
def test_a_filter_and_other_selections_both_count(
    name: str, limit: int | None, cifar10: Path, rows: list[Row], tmp_path: Path
) -> None:
    options, keep = COMBINED[name]
    options = {"filter": LIVING, **options}
    quickly(cifar10, tmp_path / "out", "cifar", save_images=True, limit=limit, **options)
    wanted = [row for row in rows if keep(row) and (options["filter"] != LIVING or "r" not in str(row.label))]
    assert len(wanted) > 7
    assert rows_of(tmp_path / "out") == wanted[:limit]


@pytest.mark.parametrize("limit", [None, 123, 130])
def test_packed_files_hold_exactly_as_many_rows_as_asked_for(
    limit: int | None, cifar10: Path, rows: list[Row], tmp_path: Path
) -> None:
    converted(
        *(cifar10, tmp_path / "out", "cifar"),
        filter=LIVING,
        labels=("cat", "dog", "ship", "deer"),
        remaps=("dog:wolf", "ship:cat"),
        images_per_batch=41,
        limit=limit,
        save_images=True,
    )
    names = {"cat": "cat", "dog": "wolf", "ship": "cat"}
    wanted = [row._replace(label=names[row.label]) for row in rows if row.label in names][:limit]
    found = rows_of(tmp_path / "out")
    assert [row[1:] for row in found] == [row[1:] for row in wanted]
    for split in ("data", "test"):
        sizes = [
            len(unpickled(tmp_path / "out" / name)["filenames"])
            for name in batch_names(tmp_path / "out")
            if name.startswith(split)
        ]
        assert sizes[:-1] == [41] * (len(sizes) - 1)
        assert sum(sizes) == len([row for row in wanted if row.subset.startswith(split)])


def test_a_filter_looks_at_names_before_they_are_changed(cifar10: Path, rows: list[Row], tmp_path: Path) -> None:
    converted(cifar10, tmp_path / "out", filter='/item[annotation/label="dog"]', remaps=("dog:wolf",))
    assert images(tmp_path / "out") == {f"wolf/{row.id}.png": row.pixels for row in rows if row.label == "dog"}
    with pytest.raises(InputError, match="nothing to write"):
        converted(cifar10, tmp_path / "none", filter='/item[annotation/label="wolf"]', remaps=("dog:wolf",))


MODES: dict[str, tuple[str, Callable[[Row], tuple[bool, bool]]]] = {
    # Expression, and whether a row and its label stay.
    "items": ('/item[annotation/label="dog"]', lambda row: (row.label == "dog", True)),
    "annotations": ('/item/annotation[label="dog"]', lambda row: (True, row.label == "dog")),
    "items+annotations": ('/item/annotation[label="dog"]', lambda row: (row.label == "dog", True)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["cifar", "imagenet", "imagenet_with_subset_dirs"])
def test_modes(mode: str, target: str, unlabelled: Path, tmp_path: Path) -> None:
    expression, decide = MODES[mode]
    output = tmp_path / "out"
    quickly(unlabelled, output, target, filter=expression, filter_mode=mode, save_images=True)
    rows = rows_of(unlabelled)
    wanted = [row if decide(row)[1] else row._replace(label=None) for row in rows if decide(row)[0]]
    if target == "cifar":
        assert rows_of(output) == wanted
    else:
        roots = {row.subset: "" if target == "imagenet" else row.subset + "/" for row in rows}
        assert images(output) == {f"{roots[r.subset]}{r.label or 'no_label'}/{r.id}.png": r.pixels for r in wanted}
    lost = [row for row in rows if row.label and decide(row) == (True, False)]
    dropped = [row for row in rows if not decide(row)[0]]
    counts = manifest(output)["rows"]
    assert counts == {
        "read": 40,
        "written": len(wanted),
        "filtered": len(dropped),
        "unlabelled": len(lost),
        "rejected": 0,
    }
    found = manifest(output)
    assert found["unlabelled"] == len([row for row in wanted if row.label is None])
    assert found["classes"] == {
        name: len([row for row in wanted if row.label == name]) for name in ("cat", "dog", "ship")
    }
    check_balance(found)


def check_balance(found: dict[str, Any]) -> None:
    """Every row read is written, dropped or without its label, by subset and label (no remaps)."""
    counts = found["counts"]
    for subset in counts["read"]:
        for label in (*map(str, range(len(found["labels"]["names"]))), "-1"):
            n = {name: counts[name].get(subset, {}).get(label, 0) for name in counts}
            unlabelled = sum(counts["unlabelled"].get(subset, {}).values()) if label == "-1" else -n["unlabelled"]
            assert n["read"] - n["filtered"] - n["rejected"] + unlabelled == n["written"], (subset, label)


def test_a_mode_on_the_command_line(unlabelled: Path, run: Run, tmp_path: Path) -> None:
    expression = '/item/annotation[label="dog"]'
    arguments = ["convert", "-i", unlabelled, "-f", "imagenet", "-o", "out", "-e", expression]
    done = run(*arguments, "--filter-mode", "annotations")
    assert done.returncode == 0, done.stderr
    assert folders(tmp_path / "out") == {"dog", "no_label"}
    assert len(contents(tmp_path / "out")) == 40
    done = run(*arguments, "--filter-mode", "annotation")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean annotations" in done.stderr
    done = run(*arguments[:-2], "--filter-mode", "annotations")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--filter" in done.stderr


def test_annotations_mode_keeps_row_order_and_all_pixels_in_parquet(unlabelled: Path, tmp_path: Path) -> None:
    quickly(unlabelled, tmp_path / "out", "parquet", filter='/item/annotation[label="dog"]', filter_mode="annotations")
    wanted = [(f"{row.id}.png", 1 if row.label == "dog" else None, row.pixels) for row in rows_of(unlabelled)]
    assert parquet_rows(tmp_path / "out", "train") + parquet_rows(tmp_path / "out", "test") == wanted


MALFORMED: dict[str, tuple[str, int]] = {
    "unclosed": ('/item[annotation/label="dog"', 29),
    "unclosed string": ('/item[annotation/label="dog]', 29),
    "no operand": ("/item[annotation/label=]", 24),
    "two operators": ("/item[id = = 3]", 12),
    "empty": ("", 1),
    "blank": ("  ", 1),
    "unknown function": ("/item[containz(id, 'x')]", 7),
    "too few arguments": ("/item[contains(id)]", 7),
    "a variable": ("/item[id = $name]", 12),
    "an unknown prefix": ("/item[x:label]", 7),
    "empty predicate": ("/item[]", 7),
    "text behind the end": ("/item] and more", 6),
    "a control character": ("/item[id = '\x01']", 13),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_expression_is_one_line_that_names_the_place(
    name: str, cifar10: Path, tmp_path: Path, command: Command
) -> None:
    expression, column = MALFORMED[name]
    output = tmp_path / "out"
    code, out, err = command("convert", "-i", cifar10, "-f", "imagenet", "-o", output, "--filter", expression)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert f"column {column}: " in err
    assert repr(expression) in err
    assert list(tmp_path.iterdir()) == []


def test_a_filter_that_leaves_nothing_names_the_label_that_was_meant(cifar10: Path, run: Run, tmp_path: Path) -> None:
    done = run("convert", "-i", cifar10, "-f", "imagenet", "-o", "out", "-e", '/item[annotation/label="dgo"]')
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done.stderr
    assert "nothing to write: none of 1,203 rows" in done.stderr
    assert "did you mean 'dog'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["cifar", "parquet", "imagenet", "imagenet_with_subset_dirs"])
def test_a_filter_that_leaves_nothing_is_refused_for_every_format(
    target: str, unlabelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to write: none of 40 rows has label 'cat' and passes the filter"):
        converted(unlabelled, tmp_path / "out", target, filter='/item[annotation/label="dog"]', labels=("cat",))
    assert list(tmp_path.iterdir()) == []


def test_a_mode_that_needs_annotations_refuses_what_gives_none(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a path such as"):
        converted(unlabelled, tmp_path / "out", filter="count(annotation)", filter_mode="annotations")


SIZES = {"small": (8, 6), "wide": (8, 64), "tall": (64, 8), "square": (32, 32)}
BY_SIZE: dict[str, Callable[[int, int], bool]] = {
    "/item[image/width > 30]": lambda height, width: width > 30,
    "/item[image/width = image/height]": lambda height, width: width == height,
    "/item[image/width * image/height < 100]": lambda height, width: width * height < 100,
    "/item[image[width=8 and height=64]]": lambda height, width: (height, width) == (64, 8),
}


@pytest.mark.parametrize("expression", BY_SIZE)
@pytest.mark.parametrize("kind", ["cifar", "folders"])
@pytest.mark.parametrize("target", ["imagenet", "cifar"])
def test_a_filter_by_size(expression: str, kind: str, target: str, tmp_path: Path) -> None:
    pictures = {f"{name}{n}": picture(n, *size) for name, size in SIZES.items() for n in range(3)}
    if kind == "folders":
        source = write_tree(tmp_path / "in", {f"cat/{name}.png": encoded(p) for name, p in pictures.items()})
    else:
        data = np.empty(len(pictures), dtype=object)
        data[:] = [pixels.reshape(-1) for pixels in pictures.values()]
        content = {
            "data": data,
            "labels": [0] * len(pictures),
            "filenames": [f"{name}.png" for name in pictures],
            "image_sizes": [pixels.shape[1:] for pixels in pictures.values()],
        }
        source = write_cifar(tmp_path / "in", {"default": content}, ["cat"])
    quickly(source, tmp_path / "out", target, filter=expression, save_images=True)
    wanted = {name: p.tobytes() for name, p in pictures.items() if BY_SIZE[expression](*p.shape[1:])}
    if target == "imagenet":
        assert images(tmp_path / "out") == {f"cat/{name}.png": pixels for name, pixels in wanted.items()}
    else:
        assert {row.id: row.pixels for row in rows_of(tmp_path / "out")} == wanted


def test_a_filter_on_folders_by_class_subset_and_id(unlabelled: Path, tmp_path: Path) -> None:
    quickly(unlabelled, tmp_path / "folders", "imagenet_with_subset_dirs")
    expression = '/item[(annotation/label="dog" and subset="test_batch") or contains(id, "_19")]'
    quickly(tmp_path / "folders", tmp_path / "out", "imagenet_with_subset_dirs", filter=expression)
    wanted = [r for r in rows_of(unlabelled) if (r.subset, r.label) == ("test_batch", "dog") or "_19" in r.id]
    assert images(tmp_path / "out") == {f"{r.subset}/{r.label or 'no_label'}/{r.id}.png": r.pixels for r in wanted}
    assert {row["path"] for row in listed(tmp_path / "out")} == contents(tmp_path / "out").keys() - {"README.md"}
    check_balance(manifest(tmp_path / "out"))
