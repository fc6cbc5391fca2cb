"""Steps that look at rows, each against plain Python over single rows."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar import LabelTable
from beam_cifar.cli.parser import Parser
from beam_cifar.data.row_table import View
from beam_cifar.errors import InputError, UsageError
from beam_cifar.naming.ids import natural_key
from beam_cifar.steps.base import Step
from beam_cifar.steps.chance import keys, permutation
from beam_cifar.steps.registry import STEPS, make_step, parse_call, parse_step, step_class
from beam_cifar.steps.subsets import class_sizes, split_sizes
from tests.helpers.step_notes import Notes

ROWS = 5000
PLAIN = LabelTable(("cat", "dog", "ship", "empty", "deer"))
GROUPED = LabelTable(
    ("cat", "car", "dog", "ship", "odd", "empty"), ("animals", "nothing", "vehicles", "people"), (0, 2, 0, 2, None, 3)
)
SUBSETS = ("train_10", "train_2", "test", "nobody")
SEEDS = st.integers(0, 1 << 40)
some = settings(max_examples=3, deadline=None)


class Row(NamedTuple):
    file: int
    row: int
    label: str | None
    subset: str
    id: str | None
    filename: str | None
    size: tuple[int, int] | None


def view_of(rows: Sequence[Row], table: LabelTable = PLAIN, subsets: Sequence[str] = SUBSETS) -> View:
    """A view of plain rows; ids, file names and sizes are left out where the first row has none of them."""

    def texts(values: Sequence[str | None]) -> pa.Array | None:
        return None if None in values else pa.array(values, pa.string())

    numbers = partial(np.array, dtype=np.int32)
    return View(
        files=numbers([row.file for row in rows]),
        rows=numbers([row.row for row in rows]),
        labels=numbers([-1 if row.label is None else table.names.index(row.label) for row in rows]),
        subsets=numbers([subsets.index(row.subset) for row in rows]),
        subset_names=tuple(subsets),
        table=table,
        ids=texts([row.id for row in rows]),
        filenames=texts([row.filename for row in rows]),
        heights=numbers([-1 if row.size is None else row.size[0] for row in rows]),
        widths=numbers([-1 if row.size is None else row.size[1] for row in rows]),
    )


def random_rows(seed: int, table: LabelTable = PLAIN, rows: int = ROWS) -> list[Row]:
    """Rows of all subsets and classes but "nobody" and "empty", in no order; ids repeat in a subset now and then."""
    rng = np.random.default_rng(seed)
    labels = [*(name for name in table.names if name != "empty"), None]
    found = []
    for number, n in enumerate(rng.integers(0, 3 * rows, rows).tolist()):
        # The first classes have most rows.
        label, subset = labels[int(len(labels) * rng.random() ** 1.5)], SUBSETS[int(rng.integers(3))]
        size = None if n % 11 == 0 else (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        name = f"{'abc'[n % 3]}{n}"
        found.append(Row(number % 7, number, label, subset, f"{label}/{name}", f"x.{label}/{name}.png", size))
    return found


def rows_of(view: View) -> list[Row]:
    """The rows of a view, and checks of what holds for every view."""
    for name in ("files", "rows", "labels", "subsets"):
        assert getattr(view, name).dtype == np.int32, name
        assert len(getattr(view, name)) == len(view)
    texts = [[None] * len(view) if t is None else t.to_pylist() for t in (view.ids, view.filenames)]
    sizes = [None] * len(view) if view.heights is None else list(zip(view.heights.tolist(), view.widths.tolist()))  # type: ignore[union-attr]  # noqa: B905
    return [
        Row(file, row, view.table.name(label), view.subset_names[subset], item_id, name, None if size == (-1, -1) else size)
        for file, row, label, subset, item_id, name, size in zip(
            *(column.tolist() for column in (view.files, view.rows, view.labels, view.subsets)), *texts, sizes, strict=True
        )
    ]  # fmt: skip


def applied(name: str, view: View, context: Notes | None = None, **options: Any) -> View:
    return make_step(name, options).apply(view, context or Notes())


def changed(name: str, rows: Sequence[Row], table: LabelTable = PLAIN, **options: Any) -> list[Row]:
    return rows_of(applied(name, view_of(rows, table), **options))


COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "filter": ("-e /item/annotation -m i+a", {"expression": "/item/annotation", "mode": "items+annotations"}),
    "remove_items": ("--id a:b:train --id c:test", {"ids": [("a:b", "train"), ("c", "test")]}),
    "remove_annotations": ("--id a:train", {"ids": {"a": "train"}}),
    "dedupe": ("--scope dataset --prefer train --prefer test", {"prefer": ["train", "test"]}),
    "sort": ("--by label --by size --reverse", {"by": ["label", "size"], "reverse": True}),
    "shuffle": ("--seed -7", {"seed": -7}),
    "rename": ("-e '|a|b|'", {"regex": "|a|b|"}),
    "reindex": ("-s 0", {"start": 0}),
    "id_from_image_name": ("-u", {"ensure_unique": True}),
    "map_subsets": ("-s a:b -s c:", {"mapping": {"a": "b", "c": ""}}),
    "random_split": ("-s train:.8 -s test:.2 --seed 3", {"splits": {"train": 0.8, "test": 0.2}, "seed": 3}),
    "split": ("-t classification -s a:1 --seed 3", {"splits": [("a", 1.0)], "seed": 3}),
    "random_sampler": ("-k 5 -s train --seed 2", {"count": 5, "subset": "train", "seed": 2}),
    "label_random_sampler": ("-k 5 -l a:b:3 -l c:0", {"count": 5, "label_counts": {"a:b": 3, "c": 0}}),
    "remap_labels": ("-l a:b -l c: --default delete", {"mapping": {"a": "b", "c": ""}, "default": "delete"}),
    "project_labels": ("-l b -l a", {"dst_labels": ["b", "a"]}),
    "fine_to_coarse": ("", {}),
    "compact_labels": ("", {}),
    "resize": ("-dw 3 -dh 4", {"width": 3, "height": 4}),
    "crop": ("-dw 3 -dh 4 -x 0 --top 2", {"width": 3, "height": 4, "left": 0, "top": 2}),
    "grayscale": ("", {}),
}


def test_every_step_has_a_command_line_here() -> None:
    assert list(COMMANDS) == list(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_every_entry_is_a_step_of_that_name_with_flags_and_help(name: str) -> None:
    kind = step_class(name)
    assert issubclass(kind, Step)
    assert kind.name == name
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        assert field.metadata["flags"], field.name
        assert field.metadata["help"], field.name


@pytest.mark.parametrize("name", STEPS)
def test_a_command_line_and_python_make_the_same_step(name: str) -> None:
    command, options = COMMANDS[name]
    made = parse_call(f"{name} {command}", Parser)
    assert made == make_step(name, options)
    assert {field.name for field in dataclasses.fields(made)} >= set(options)  # type: ignore[arg-type]
    assert hash(made) == hash(make_step(name, options))


@pytest.mark.parametrize("name", STEPS)
def test_options_survive_json(name: str) -> None:
    step = make_step(name, COMMANDS[name][1])
    written = json.loads(json.dumps(step.options()))
    assert make_step(name, written) == step
    assert make_step(name, written).options() == step.options()


@pytest.mark.parametrize("name", STEPS)
def test_help_shows_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_step(name, ["--help"], Parser)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(step_class(name)):  # type: ignore[arg-type]
        assert set(field.metadata["flags"]) <= set(re.findall(r"[-\w]+", shown))


def test_help_shows_defaults_as_flags_take_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_step("random_split", ["--help"], Parser)
    assert "default: train:0.67, test:0.33" in " ".join(capsys.readouterr().out.split())


def test_a_number_that_is_none_is_named_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_step("resize", ["-dw", "wide", "-dh", "3"], Parser)
    assert stopped.value.code == 2
    assert "invalid int value: 'wide'" in capsys.readouterr().err


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("filter", {"expression": "/item["}, "filter"),
    ("filter", {"expression": "count(annotation)", "mode": "a"}, "needs a path such as"),
    ("filter", {"expression": "/item", "mode": "x"}, "unknown filter mode 'x'"),
    ("remove_items", {}, "option 'ids' is required"),
    ("remove_items", {"ids": [("a",)]}, "option 'ids' must be"),
    ("remove_items", {"ids": "a:train"}, "use ['a:train']"),
    ("dedupe", {"scope": "datset"}, "did you mean 'dataset'"),
    ("dedupe", {"scope": "subset", "prefer": ["a"]}, "omit one"),
    ("sort", {"by": ["ids"]}, "unknown --by 'ids'; did you mean 'id'"),
    ("sort", {"by": []}, "--by is empty"),
    ("sort", {"reverse": "no"}, "option 'reverse' must be bool, found 'no'"),
    ("shuffle", {"seed": None}, "option 'seed' must be int, found None"),
    ("shuffle", {"seed": True}, "option 'seed' must be int, found True"),
    ("shuffle", {"sed": 1}, "shuffle: unknown option 'sed'; did you mean 'seed'"),
    ("rename", {"regex": ""}, "expected |SEARCH|REPLACEMENT|, found ''"),
    ("rename", {"regex": "|"}, "expected |SEARCH|REPLACEMENT|"),
    ("rename", {"regex": "|a"}, "expected |SEARCH|REPLACEMENT|"),
    ("rename", {"regex": "||b|"}, "expected |SEARCH|REPLACEMENT|"),
    ("rename", {"regex": "|a|b|c"}, "must not occur in SEARCH or REPLACEMENT"),
    ("rename", {"regex": "|a|b||"}, "must not occur in SEARCH or REPLACEMENT"),
    ("rename", {"regex": "|(|b|"}, "unterminated subpattern"),
    ("rename", {"regex": r"|a|\1|"}, "invalid group reference"),
    ("rename", {"regex": r"|a|\g<x>|"}, "unknown group name"),
    ("rename", {"regex": r"|a|\q|"}, "bad escape"),
    ("rename", {"regex": "|a|\ud800|"}, "not valid Unicode"),
    ("reindex", {"start": "1"}, "option 'start' must be int, found '1'"),
    ("reindex", {"start": 1 << 63}, "--start must be from"),
    ("map_subsets", {"mapping": [("a", "b"), ("a", "c")]}, "'a' is given two new names, 'b' and 'c'"),
    ("random_split", {"splits": [("a", 0.5), ("b", 0.4)]}, "must sum to 1, found 0.9: a:0.5, b:0.4"),
    ("random_split", {"splits": []}, "must sum to 1, found 0: none"),
    ("random_split", {"splits": [("a", 1.5), ("b", -0.5)]}, "the ratio of subset 'a' must be from 0 to 1, found 1.5"),
    ("random_split", {"splits": [("a", float("nan"))]}, "must be from 0 to 1, found nan"),
    ("random_split", {"splits": [("a", 0.5), ("a", 0.5)]}, "subset 'a' is given twice"),
    ("random_split", {"splits": [("", 1.0)]}, "has no name"),
    ("random_split", {"splits": [("a", "1")]}, "option 'splits' must be"),
    ("split", {"splits": [("a", 0.3)]}, "must sum to 1"),
    ("split", {"task": "detection"}, "must be 'classification', found 'detection': items have one label"),
    ("random_sampler", {"count": 0}, "--count must be at least 1, found 0"),
    ("random_sampler", {"count": "5"}, "option 'count' must be int, found '5'"),
    ("label_random_sampler", {}, "no items would be kept"),
    ("label_random_sampler", {"label_counts": {"cat": 0}}, "no items would be kept"),
    ("label_random_sampler", {"count": -1}, "--count must be 0 or more, found -1"),
    ("label_random_sampler", {"label_counts": {"cat": -1}}, "the count of 'cat' must be 0 or more"),
    ("label_random_sampler", {"label_counts": [("cat", 1), ("cat", 2)]}, "the count of 'cat' is given twice, 1 and 2"),
    ("remap_labels", {"mapping": {}, "default": "drop"}, "unknown --default 'drop'"),
    ("remap_labels", {"mapping": [("a", "b"), ("a", "")]}, "'a' is given two new names, 'b' and ''"),
    ("project_labels", {"dst_labels": []}, "--label is required"),
    ("project_labels", {"dst_labels": ["a", "a"]}, "class 'a' is given twice"),
    ("project_labels", {"dst_labels": ["a", ""]}, "--label is empty"),
    ("project_labels", {"dst_labels": [3]}, "option 'dst_labels' must be"),
    ("resize", {"width": 3}, "option 'height' is required"),
    ("resize", {"width": 0, "height": 3}, "resize: must have sides from 1 to 65500 .* found 3x0"),
    ("resize", {"width": 20000, "height": 20000}, "resize: must have sides from 1"),
    ("resize", {"width": 3.0, "height": 3}, "option 'width' must be int, found 3.0"),
    ("crop", {"width": 3, "height": -1}, "crop: must have sides"),
    ("crop", {"width": 3, "height": 3, "left": -1}, "--left must be 0 or more, found -1"),
    ("crop", {"width": 3, "height": 3, "top": -2}, "--top must be 0 or more, found -2"),
]


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED)
def test_options_that_cannot_be_meant_are_refused_in_one_line(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_step(name, options)
    assert re.search(reason if ".*" in reason else re.escape(reason), str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)


SMALL = [
    Row(0, 0, "cat", "test", "a1", "a1.png", (4, 4)),
    Row(0, 1, None, "train_2", "a2", "b/a2.png", None),
    Row(1, 0, "dog", "train_2", "b", ".png", (9, 9)),
]

REFUSED_BY_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("remove_items", {"ids": {"a3": "train_2"}}, "remove_items: no item 'a3' in subset 'train_2'; did you mean 'a2'?"),
    ("remove_items", {"ids": {"a1": "tets"}}, "unknown subset 'tets'; did you mean 'test'?"),
    ("remove_items", {"ids": {"zzz": "test"}}, "no item 'zzz' in subset 'test'; its ids look like 'a1'"),
    (
        "remove_annotations",
        {"ids": {"b": "nobody"}},
        "remove_annotations: no item 'b' in subset 'nobody'; the subset has no items",
    ),
    ("dedupe", {"prefer": ["trian_2"]}, "unknown subset 'trian_2'; did you mean 'train_2'"),
    ("rename", {"regex": "|a.||"}, "rename: '|a.||' makes id 'a1' in subset 'test' empty"),
    ("map_subsets", {"mapping": {"train": "x"}}, "unknown subset 'train'; did you mean 'train_2' or 'train_10'"),
    ("random_sampler", {"count": 1, "subset": "tes"}, "unknown subset 'tes'; did you mean 'test'"),
    ("label_random_sampler", {"label_counts": {"cta": 1}}, "unknown label 'cta'; did you mean 'cat'"),
    ("remap_labels", {"mapping": {"cta": "x"}}, "unknown label 'cta'; did you mean 'cat'"),
    ("remap_labels", {"mapping": {"cta": ""}}, "unknown label 'cta'; did you mean 'cat'"),
    ("fine_to_coarse", {}, "fine_to_coarse: the dataset has no superclasses"),
]


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED_BY_ROWS)
def test_names_that_no_row_has_are_refused(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        changed(name, SMALL, **options)


def bare(rows: Sequence[Row]) -> list[Row]:
    return [row._replace(id=None, filename=None) for row in rows]


def stripped(view: View, needs: frozenset[str]) -> View:
    """The view without the columns that nobody asked for."""
    unasked: dict[str, Any] = {"id": ["ids"], "filename": ["filenames"], "size": ["heights", "widths"]}
    gone = [name for column, names in unasked.items() if column not in needs for name in names]
    nothing: dict[str, Any] = dict.fromkeys(gone)
    return dataclasses.replace(view, **nothing)


NEEDED: dict[str, list[tuple[dict[str, Any], set[str]]]] = {
    "filter": [
        ({"expression": "/item[annotation]"}, set()),
        ({"expression": '/item[contains(id, "1")]'}, {"id"}),
        ({"expression": "/item[image/width>2 or id=3]"}, {"id", "size"}),
        ({"expression": '/item/annotation[label="cat"]', "mode": "a"}, set()),
    ],
    "remove_items": [({"ids": []}, {"id"})],
    "remove_annotations": [({}, set()), ({"ids": {"a1": "test"}}, {"id"})],
    "sort": [({}, {"id"}), ({"by": ["label", "subset"]}, set()), ({"by": ["filename", "size"]}, {"filename", "size"})],
    "shuffle": [({}, set())],
    "rename": [({"regex": "|a|b|"}, {"id", "filename"})],
    "reindex": [({}, {"id", "filename"})],
    "id_from_image_name": [({}, {"id", "filename"})],
    "map_subsets": [({"mapping": {"test": "train_2"}}, {"id", "filename"})],
    "random_split": [({}, {"id", "filename"})],
    "split": [({}, {"id", "filename"})],
    "random_sampler": [({"count": 2}, set())],
    "label_random_sampler": [({"count": 2}, set())],
    "remap_labels": [({"mapping": {"cat": "dog"}}, set())],
    "project_labels": [({"dst_labels": ["dog"]}, set())],
    "compact_labels": [({}, set())],
    "resize": [({"width": 2, "height": 2}, {"size"})],
    "crop": [({"width": 2, "height": 2}, {"size"})],
    "grayscale": [({}, set())],
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_step_works_with_the_columns_that_it_asks_for(name: str) -> None:
    for options, needs in NEEDED[name]:
        step = make_step(name, options)
        assert step.needs() == needs
        step.apply(stripped(view_of(SMALL), step.needs()), Notes())


@pytest.mark.parametrize("name", [*NEEDED, "fine_to_coarse"])
@pytest.mark.parametrize("subsets", [SUBSETS, ()], ids=["subsets", "no subsets"])
def test_no_rows_stay_no_rows(name: str, subsets: tuple[str, ...]) -> None:
    for options, _ in NEEDED.get(name, [({}, set())]):
        if not (options.get("ids") or options.get("mapping", {}).get("test")):
            assert rows_of(applied(name, view_of([], GROUPED, subsets), **options)) == []


EXPRESSIONS: dict[str, Callable[[Row], bool]] = {
    '/item[annotation/label="dog"]': lambda row: row.label == "dog",
    '/item[contains(id, "7") and subset="test"]': lambda row: "7" in str(row.id) and row.subset == "test",
    "/item[image/width > image/height]": lambda row: row.size is not None and row.size[1] > row.size[0],
    "/item[not(image)]": lambda row: row.size is None,
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("piece", [700, 1 << 16])
def test_filter_keeps_the_rows_that_pass(expression: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.steps.items._PIECE", piece)
    rows = random_rows(len(expression))
    assert changed("filter", rows, expression=expression) == [row for row in rows if EXPRESSIONS[expression](row)]


@pytest.mark.parametrize("mode", ["a", "annotations", "i+a", "a+i", "items+annotations", "annotations+items"])
def test_filter_of_annotations_takes_labels_away(mode: str) -> None:
    rows = random_rows(1)
    wanted = [row._replace(label=row.label if row.label == "cat" else None) for row in rows]
    if "i" in mode.replace("annotations", "a"):
        wanted = [row for row in wanted if row.label]
    assert changed("filter", rows, expression='/item/annotation[label="cat"]', mode=mode) == wanted


def test_filter_that_leaves_nothing_says_so_with_the_label_that_was_meant() -> None:
    notes = Notes()
    assert len(applied("filter", view_of(SMALL), notes, expression='/item[annotation/label="cta"]')) == 0
    assert notes.notices == [
        "filter: none of 3 items matches '/item[annotation/label=\"cta\"]'; did you mean 'cat'?"
    ]  # fmt: skip
    assert len(applied("filter", view_of(SMALL), notes, expression='//annotation[label="cta"]', mode="i+a")) == 0
    assert len(notes.notices) == 2


def test_filter_that_loses_every_label_is_refused() -> None:
    expression = '/item/annotation[label="cta"]'
    with pytest.raises(InputError, match="filter: none of 2 labels matches .*; did you mean 'cat'?"):
        changed("filter", SMALL, expression=expression, mode="a")
    unlabelled = [row._replace(label=None) for row in SMALL]
    assert changed("filter", unlabelled, expression=expression, mode="a") == unlabelled


@some
@given(SEEDS, st.integers(1, 300))
def test_items_and_labels_are_removed_by_id_and_subset(seed: int, count: int) -> None:
    rows = random_rows(seed)
    chosen = {(rows[at].id, rows[at].subset) for at in np.random.default_rng(seed).integers(0, ROWS, count).tolist()}
    gone = [(row.id, row.subset) in chosen for row in rows]
    assert changed("remove_items", rows, ids=sorted(chosen)) == [row for row, is_gone in zip(rows, gone, strict=True) if not is_gone]  # fmt: skip
    assert changed("remove_annotations", rows, ids=sorted(chosen)) == [
        row._replace(label=None) if is_gone else row for row, is_gone in zip(rows, gone, strict=True)
    ]


def test_all_labels_are_removed_where_no_item_is_named() -> None:
    rows = random_rows(1)
    assert changed("remove_annotations", rows) == [row._replace(label=None) for row in rows]
    assert applied("remove_annotations", view_of(rows)).table == PLAIN


SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: natural_key(str(row.id)),
    "filename": lambda row: natural_key(str(row.filename)),
    "label": lambda row: None if row.label is None else PLAIN.names.index(row.label),
    "subset": lambda row: natural_key(row.subset),
    "size": lambda row: None if row.size is None else (row.size[0] * row.size[1], row.size[0]),
}


def sorted_rows(rows: Sequence[Row], by: Sequence[str], reverse: bool) -> list[Row]:
    """By one stable sort a key; rows without one come last."""
    found = list(rows)
    for name in reversed(by):
        key = SORT_KEYS[name]
        with_key = [row for row in found if key(row) is not None]
        # Python's reverse keeps equal elements in order.
        found = sorted(with_key, key=key, reverse=reverse) + [row for row in found if key(row) is None]
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("by", [["id"], ["filename"], ["label"], ["size"], ["subset"], ["label", "size", "id"], ["size", "subset"]])  # fmt: skip
def test_sort_is_that_of_python(by: list[str], reverse: bool) -> None:
    rows = random_rows(len(by))
    made = applied("sort", view_of(rows), by=by, reverse=reverse)
    assert rows_of(made) == sorted_rows(rows, by, reverse)
    names = sorted(SUBSETS, key=natural_key, reverse=reverse) if "subset" in by else list(SUBSETS)
    assert list(made.subset_names) == names


def test_sort_is_by_id_unless_told_otherwise() -> None:
    rows = [SMALL[0]._replace(row=n, id=name) for n, name in enumerate(["a10", "a2", "b", "a1"])]
    assert [row.id for row in changed("sort", rows)] == ["a1", "a2", "a10", "b"]
    assert [row.id for row in changed("sort", rows, reverse=True)] == ["b", "a10", "a2", "a1"]


@given(SEEDS, st.integers(-(1 << 80), 1 << 80))
@some
def test_shuffle_keeps_every_row_and_follows_from_the_seed(rows_seed: int, seed: int) -> None:
    rows = random_rows(rows_seed)
    made = changed("shuffle", rows, seed=seed)
    assert made != rows
    assert Counter(made) == Counter(rows)
    assert made == changed("shuffle", rows, seed=seed)
    assert made != changed("shuffle", rows, seed=seed + 1)


KEYS = [[17418245340152557878, 12862579148021963004, 13175136154925037209], [9432563887682543323, 10533482386995159232]]


def test_random_keys_are_the_same_for_ever() -> None:
    # What was given once must be given again, by any later numpy: splits are published by their seed.
    assert keys(0, "shuffle", 3).tolist() == KEYS[0]
    assert keys(-1, "split", 2).tolist() == KEYS[1]
    assert keys(0, "shuffle", 1000)[:3].tolist() == KEYS[0]
    assert permutation(0, "shuffle", 6).tolist() == sorted(range(6), key=keys(0, "shuffle", 6).tolist().__getitem__)


def test_two_steps_with_one_seed_choose_independently() -> None:
    first, second = (permutation(5, name, ROWS) for name in ("shuffle", "random_split"))
    assert np.count_nonzero(first == second) < 20


def test_a_shuffle_is_uniform() -> None:
    where = Counter(int(np.flatnonzero(permutation(seed, "shuffle", 4) == 0)[0]) for seed in range(2000))
    assert min(where.values()) > 400


def new_name(row: Row, item_id: str) -> Row:
    """The row with another id, and the file name that follows it."""
    if item_id == row.id:
        return row
    return row._replace(id=item_id, filename=item_id + os.path.splitext(str(row.filename))[1])


RENAMINGS: dict[str, Callable[[str], str]] = {
    "|a|x|": lambda text: text.replace("a", "x"),
    r"#/([a-z])(\d+)#_\2\1#": lambda text: re.sub(r"/([a-z])(\d+)", r"_\2\1", text),
    "/^(cat|dog).//": lambda text: text[4:] if text[:3] in ("cat", "dog") else text,
    "|None|none": lambda text: text.replace("None", "none"),
    "|[0-8]+$|é/|": lambda text: text.rstrip("012345678") + ("é/" if text[-1] in "012345678" else ""),
}


@pytest.mark.parametrize("regex", RENAMINGS)
def test_rename_replaces_in_ids(regex: str) -> None:
    rows = random_rows(2)
    made = applied("rename", view_of(rows), regex=regex)
    assert rows_of(made) == [new_name(row, RENAMINGS[regex](str(row.id))) for row in rows]
    assert made.new_ids


def test_rename_that_finds_nothing_changes_nothing_and_says_so() -> None:
    notes = Notes()
    made = applied("rename", view_of(SMALL), notes, regex="|zzz|y|")
    assert rows_of(made) == SMALL
    assert not made.new_ids
    assert notes.notices == ["rename: '|zzz|y|' changes none of 3 ids"]


@pytest.mark.parametrize("start", [1, 0, -5, 10**15])
def test_reindex_counts_in_the_order_of_the_output(start: int) -> None:
    rows = random_rows(3)
    numbers = {}  # type: ignore[var-annotated]
    for subset in SUBSETS:
        for row in rows:
            if row.subset == subset:
                numbers[row.row] = start + len(numbers)
    assert changed("reindex", rows, start=start) == [new_name(row, str(numbers[row.row])) for row in rows]


def test_ids_become_file_names_without_folder_and_extension() -> None:
    rows = random_rows(4)
    wanted = [new_name(row, str(row.filename).split("/")[1].split(".")[0]) for row in rows]
    assert changed("id_from_image_name", rows) == wanted
    unique = changed("id_from_image_name", rows, ensure_unique=True)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for row, plain in zip(unique, wanted, strict=True):
        seen[plain.subset, str(plain.id)] += 1
        count = seen[plain.subset, str(plain.id)]
        assert row.id == (plain.id if count == 1 else f"{plain.id}_{count}")
    assert max(seen.values()) > 1
    assert len({(row.subset, row.id) for row in unique}) == ROWS


@pytest.mark.parametrize(("name", "item_id"), [("a.b.png", "a.b"), ("x/.png", ".png"), ("", "old"), ("x/", "old"), ("c", "c")])  # fmt: skip
def test_odd_file_names_make_ids(name: str, item_id: str) -> None:
    assert changed("id_from_image_name", [SMALL[0]._replace(id="old", filename=name)])[0].id == item_id


@pytest.mark.parametrize(
    ("mapping", "names"),
    [
        ({"test": "a"}, ["train_10", "train_2", "a", "nobody"]),
        ({"train_10": "train_2", "train_2": "train_10"}, ["train_2", "train_10", "test", "nobody"]),
        ({"train_10": "test", "train_2": "test"}, ["test", "nobody"]),
        ({"test": ""}, ["train_10", "train_2", "default", "nobody"]),
        ({"nobody": "test"}, ["train_10", "train_2", "test"]),
        ({}, list(SUBSETS)),
    ],
)
def test_subsets_are_renamed_all_at_once(mapping: dict[str, str], names: list[str]) -> None:
    rows = random_rows(5)
    made = applied("map_subsets", view_of(rows), mapping=mapping)
    assert list(made.subset_names) == names
    assert rows_of(made) == [row._replace(subset=mapping.get(row.subset, row.subset) or "default") for row in rows]


SHARES = st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any).map(
    lambda parts: [(f"s{n}", part / sum(parts)) for n, part in enumerate(parts)]
)  # fmt: skip


@given(SEEDS, SHARES, st.integers(0, 1 << 60))
@some
def test_random_split_gives_every_subset_its_share_at_random(seed: int, splits: Any, chosen: int) -> None:
    rows = random_rows(seed)
    made = applied("random_split", view_of(rows), splits=splits, seed=chosen)
    assert list(made.subset_names) == [name for name, _ in splits]
    assert [row._replace(subset="") for row in rows_of(made)] == [row._replace(subset="") for row in rows]
    done, reached = 0, 0.0
    for name, part in splits:
        size = np.count_nonzero(made.subset(name))
        done, reached = done + size, reached + part
        assert done == int(reached * ROWS + 1e-6)
    assert rows_of(made) == rows_of(applied("random_split", view_of(rows), splits=splits, seed=chosen))


@pytest.mark.parametrize("name", ["random_split", "split"])
def test_another_seed_splits_otherwise_and_every_row_may_go_anywhere(name: str) -> None:
    rows = random_rows(6)
    splits = {"a": 0.5, "b": 0.5}
    first, second = (applied(name, view_of(rows), splits=splits, seed=seed).subsets for seed in (0, 1))
    assert 0.45 < np.mean(first == second) < 0.55
    assert 0.45 < np.mean(first[:1000]) < 0.55


def test_default_splits() -> None:
    rows = random_rows(7)
    assert Counter(row.subset for row in changed("random_split", rows)) == {"train": 3350, "test": 1650}
    assert Counter(row.subset for row in changed("split", rows)) == {"train": 2500, "val": 1000, "test": 1500}


@given(SEEDS, SHARES)
@some
def test_split_gives_every_class_its_share_within_one_item(seed: int, splits: Any) -> None:
    rows = random_rows(seed)
    made = applied("split", view_of(rows), splits=splits, seed=seed)
    found = rows_of(made)
    assert list(made.subset_names) == [name for name, _ in splits]
    assert [row._replace(subset="") for row in found] == [row._replace(subset="") for row in rows]
    of_class, totals = Counter(row.label for row in rows), Counter(row.subset for row in found)
    cells = Counter((row.label, row.subset) for row in found)
    for name, part in splits:
        assert abs(totals[name] - part * ROWS) < 1 + 1e-6
        for label, count in of_class.items():
            assert abs(cells[label, name] - part * count) < 1 + 1e-6
    assert found == rows_of(applied("split", view_of(rows), splits=splits, seed=seed))


@given(st.lists(st.integers(0, 60), max_size=40), SHARES)
@settings(max_examples=200, deadline=None)
def test_sizes_of_classes_and_splits_come_out_even(counts: list[int], splits: Any) -> None:
    sizes = class_sizes(np.array(counts, dtype=np.int64), splits)
    assert sizes.sum(axis=1).tolist() == counts
    assert sizes.sum(axis=0).tolist() == split_sizes(sum(counts), splits).tolist()
    for row, count in zip(sizes.tolist(), counts, strict=True):
        for size, (_, part) in zip(row, splits, strict=True):
            assert -1e-6 < size - int(part * count + 1e-6) < 1 + 1e-6


def test_shares_that_floats_miss_by_a_hair_are_rounded_to_whole_numbers() -> None:
    splits = (("a", 0.29), ("b", 0.71))  # 0.29 * 100 is 28.999999999999996
    assert split_sizes(100, splits).tolist() == [29, 71]
    assert class_sizes(np.array([100, 100]), splits).tolist() == [[29, 71], [29, 71]]


def test_a_split_by_class_mixes_the_rows_of_a_class() -> None:
    rows = [SMALL[0]._replace(row=n) for n in range(100)]
    halves = [row.subset for row in changed("split", rows, splits={"a": 0.5, "b": 0.5})]
    assert Counter(halves) == {"a": 50, "b": 50}
    assert halves != ["a"] * 50 + ["b"] * 50


@given(SEEDS, st.integers(1, ROWS + 100), st.sampled_from([None, "test", "nobody"]))
@some
def test_random_sampler_keeps_a_number_in_order(seed: int, count: int, subset: str | None) -> None:
    rows = random_rows(seed)
    options: dict[str, Any] = {"count": count, "subset": subset, "seed": seed}
    made = changed("random_sampler", rows, **options)
    kept = {row.row for row in made}
    assert made == [row for row in rows if row.row in kept]
    asked = [row for row in rows if subset in (None, row.subset)]
    assert len([row for row in asked if row.row in kept]) == min(count, len(asked))
    assert all(row.row in kept for row in rows if subset not in (None, row.subset))
    assert made == changed("random_sampler", rows, **options)


def test_another_seed_samples_others() -> None:
    rows = random_rows(8)
    for name, count in (("random_sampler", 500), ("label_random_sampler", 50)):
        first, second = ({row.row for row in changed(name, rows, seed=seed, count=count)} for seed in (0, 1))
        assert len(first) == len(second)
        assert len(first & second) < len(first) / 2


def test_a_sample_is_uniform() -> None:
    rows = [SMALL[0]._replace(row=n) for n in range(10)]
    found = Counter(row.row for seed in range(1000) for row in changed("random_sampler", rows, count=3, seed=seed))
    assert min(found.values()) > 230
    assert max(found.values()) < 370


@given(SEEDS, st.integers(0, 400), st.dictionaries(st.sampled_from(PLAIN.names), st.integers(1, 400), min_size=1))
@some
def test_label_random_sampler_keeps_a_number_of_every_class_and_subset(
    seed: int, count: int, label_counts: dict[str, int]
) -> None:
    rows = random_rows(seed)
    options: dict[str, Any] = {"count": count, "label_counts": label_counts, "seed": seed}
    view = applied("label_random_sampler", view_of(rows), **options)
    made = rows_of(view)
    kept = {row.row for row in made}
    assert made == [row for row in rows if row.row in kept]
    before, after = (Counter((row.label, row.subset) for row in each) for each in (rows, made))
    for (label, subset), available in before.items():
        wanted = 0 if label is None else label_counts.get(label, count)
        assert after[label, subset] == min(wanted, available)
    assert view.table == PLAIN
    assert made == changed("label_random_sampler", rows, **options)


def remapped(rows: Sequence[Row], labels: dict[str | None, str | None]) -> list[Row]:
    return [row._replace(label=labels.get(row.label, row.label)) for row in rows]


@pytest.mark.parametrize(
    ("mapping", "labels", "names"),
    [
        ({"cat": "kitten"}, {"cat": "kitten"}, ["kitten", "dog", "ship", "empty", "deer"]),
        ({"cat": "dog"}, {"cat": "dog"}, ["cat", "dog", "ship", "empty", "deer"]),
        ({"cat": "dog", "dog": "cat"}, {"cat": "dog", "dog": "cat"}, ["cat", "dog", "ship", "empty", "deer"]),
        ({"cat": "pet", "dog": "pet"}, {"cat": "pet", "dog": "pet"}, ["pet", "dog", "ship", "empty", "deer"]),
        ({"cat": ""}, {"cat": None}, ["cat", "dog", "ship", "empty", "deer"]),
        ({"cat": "dog", "dog": ""}, {"cat": "dog", "dog": None}, ["cat", "dog", "ship", "empty", "deer"]),
        ({"cat": "cat"}, {}, ["cat", "dog", "ship", "empty", "deer"]),
    ],
)
def test_labels_are_renamed_merged_and_removed_all_at_once(
    mapping: dict[str, str], labels: dict[str | None, str | None], names: list[str]
) -> None:
    rows = random_rows(9)
    made = applied("remap_labels", view_of(rows), mapping=mapping)
    assert rows_of(made) == remapped(rows, labels)
    assert list(made.table.names) == names
    made = applied("remap_labels", view_of(rows), mapping=mapping, default="delete")
    others: dict[str | None, str | None] = {name: None for name in PLAIN.names if name not in mapping}
    assert rows_of(made) == remapped(rows, labels | others)
    assert list(made.table.names) == names


def test_merged_and_removed_classes_are_told() -> None:
    notes = Notes()
    applied("remap_labels", view_of(SMALL), notes, mapping={"cat": "dog", "ship": ""})
    assert notes.notices == [
        "class 'cat' was merged into another; it stays in the table without rows",
        "remap_labels: items of class 'ship' become unlabelled",
    ]
    notes = Notes()
    applied("remap_labels", view_of(SMALL), notes, mapping={"cat": "cat"}, default="delete")
    assert notes.notices == [
        "remap_labels: items of 4 classes ('dog', 'ship', 'empty', 'deer') become unlabelled"
    ]  # fmt: skip


def test_superclasses_are_renamed_and_removed_by_name() -> None:
    rows = random_rows(10, GROUPED)
    made = applied("remap_labels", view_of(rows, GROUPED), mapping={"animals": "beasts"})
    assert rows_of(made) == rows
    assert made.table == dataclasses.replace(GROUPED, coarse_names=("beasts", "nothing", "vehicles", "people"))
    made = applied("remap_labels", view_of(rows, GROUPED), mapping={"animals": ""})
    assert rows_of(made) == remapped(rows, {"cat": None, "dog": None})
    assert made.table == GROUPED
    made = applied("remap_labels", view_of(rows, GROUPED), mapping={"animals": "beasts"}, default="delete")
    assert rows_of(made) == remapped(rows, {"car": None, "ship": None, "odd": None})


@pytest.mark.parametrize(
    ("names", "coarse_names", "parents"),
    [
        (("ship", "cat"), ("animals", "vehicles"), (1, 0)),
        (("dog", "new", "cat"), ("animals",), (0, None, 0)),
        (("new", "odd"), (), ()),
        (("empty", "odd", "car"), ("vehicles", "people"), (1, None, 0)),
        (GROUPED.names, ("animals", "vehicles", "people"), (0, 1, 0, 1, None, 2)),
    ],
)
def test_labels_are_projected_by_name(names: Any, coarse_names: Any, parents: Any) -> None:
    rows = random_rows(11, GROUPED)
    notes = Notes()
    made = applied("project_labels", view_of(rows, GROUPED), notes, dst_labels=names)
    assert made.table == LabelTable(names, coarse_names, parents)
    assert rows_of(made) == [row if row.label in names else row._replace(label=None) for row in rows]
    lost = sum(row.label not in (*names, None) for row in rows)
    assert any(f"{lost:,} {'item becomes' if lost == 1 else 'items become'} unlabelled" in text for text in notes.notices) == (lost > 0)  # fmt: skip
    assert ("project_labels: adds class 'new', with no rows" in notes.notices) == ("new" in names)


def test_labels_without_superclasses_are_projected() -> None:
    made = applied("project_labels", view_of(SMALL), dst_labels=["dog", "cat"])
    assert made.table == LabelTable(("dog", "cat"))
    assert made.labels.tolist() == [1, -1, 0]


def test_superclasses_become_the_classes() -> None:
    rows = random_rows(12, GROUPED)
    notes = Notes()
    made = applied("fine_to_coarse", view_of(rows, GROUPED), notes)
    coarse = {"cat": "animals", "dog": "animals", "car": "vehicles", "ship": "vehicles", "odd": None}
    assert rows_of(made) == remapped(rows, coarse)  # type: ignore[arg-type]
    assert made.table == LabelTable(GROUPED.coarse_names)
    odd = sum(row.label == "odd" for row in rows)
    assert notes.notices == [
        "fine_to_coarse: the 4 superclasses become the classes",
        f"fine_to_coarse: {odd} items become unlabelled, of classes without a superclass",
    ]
    with pytest.raises(UsageError, match="no superclasses"):
        applied("fine_to_coarse", made)


def test_new_numbers_of_classes_and_superclasses_are_told() -> None:
    """Labels are never renumbered silently: by any step that does it."""
    rows = random_rows(3, GROUPED)
    notes = Notes()
    applied("project_labels", view_of(rows, GROUPED), notes, dst_labels=["ship", "cat"])
    assert notes.notices[0] == (
        "project_labels: drops 4 classes ('car', 'dog', 'odd', 'empty') and 2 superclasses ('nothing', 'people'); "
        "the others get new ids"
    )
    notes = Notes()
    applied("project_labels", view_of(rows, GROUPED), notes, dst_labels=list(GROUPED.names)[::-1])
    assert "superclass 'nothing'; the others get new ids" in notes.notices[0]
    notes = Notes()
    cats = [row for row in rows if row.label in ("cat", None)]
    made = applied("compact_labels", view_of(cats, GROUPED), notes)
    assert made.table == LabelTable(("cat",), ("animals",), (0,))
    assert len(notes.notices) == 1
    assert "and 3 superclasses" in notes.notices[0]


@pytest.mark.parametrize("table", [PLAIN, GROUPED])
@given(SEEDS, st.sets(st.sampled_from(["cat", "dog", "ship", "odd", "deer"])))
@some
def test_classes_without_rows_are_dropped(table: LabelTable, seed: int, gone: set[str]) -> None:
    rows = [row for row in random_rows(seed, table) if row.label not in gone]
    notes = Notes()
    made = applied("compact_labels", view_of(rows, table), notes)
    assert rows_of(made) == rows
    used = {row.label for row in rows} - {None}
    assert list(made.table.names) == [name for name in table.names if name in used]
    parent_names = {
        name: None if parent is None else table.coarse_names[parent]
        for name, parent in zip(table.names, table.parents, strict=bool(table.parents))
    }
    kept = {parent_names.get(name) for name in made.table.names}
    assert list(made.table.coarse_names) == [name for name in table.coarse_names if name in kept]
    for name, parent in zip(made.table.names, made.table.parents, strict=bool(made.table.parents)):
        assert parent_names[name] == (None if parent is None else made.table.coarse_names[parent])
    dropped = [name for name in table.names if name not in used]
    assert len(notes.notices) == 1
    assert all(repr(name) in notes.notices[0] for name in dropped)


def test_nothing_is_said_where_every_class_has_rows() -> None:
    notes = Notes()
    table = LabelTable(("cat", "dog"))
    made = applied("compact_labels", view_of(SMALL, table), notes)
    assert (made.table, notes.notices) == (table, [])


def test_unlabelled_rows_alone_leave_an_empty_table() -> None:
    notes = Notes()
    made = applied("compact_labels", view_of([SMALL[1]], GROUPED), notes)
    assert made.table == LabelTable(())
    assert rows_of(made) == [SMALL[1]]
    assert notes.notices == [
        "compact_labels: drops 6 classes ('cat', 'car', 'dog', 'ship', 'odd', ...) and 4 superclasses ('animals', "
        "'nothing', 'vehicles', 'people'); no superclasses are left"
    ]


def test_no_step_loads_beam_before_it_sees_an_image() -> None:
    code = "import sys; from beam_cifar.steps.registry import STEPS, step_class; [step_class(name) for name in STEPS]; "
    code += "assert not [name for name in sys.modules if name.startswith('apache_beam')]"
    subprocess.run([sys.executable, "-c", code], check=True)
