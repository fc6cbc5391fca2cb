"""The oracle of these tests is lxml itself, on a full tree for each row, built here and shared by nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree  # type: ignore[import-untyped]

from beam_cifar.data.schema import example_schema
from beam_cifar.errors import UsageError
from beam_cifar.filters.xpath import FILTER_MODES, Decision, ItemFilter

NAMES = ("cat", "dog", "<dog> & 'cat'", 'say "cat"', "собака", "nul\0 and \x1b", "x", "", "10")
IDS = (
    "x",
    "dog",
    "",
    "a<b>&c",
    "it's",
    'say "dog"',
    "кот/1",
    "nul\0",
    "\x7f\ufffe\r\n",
    "1",
    "0",
    "train",
    "32",
    "item",
)
SUBSETS = ("train", "test", "batch_1", "", "x", "валидация\x01")
SIZES = (None, (32, 32), (28, 28), (32, 48), (500, 1), (1, 32))


class Row(NamedTuple):
    id: str
    subset: str
    size: tuple[int, int] | None
    label: int | None


def make_rows(count: int, ids: Sequence[str], subsets: Sequence[str], sizes: Sequence[Any], labels: int) -> list[Row]:
    rng = np.random.default_rng(7)
    rows = []
    for i in range(count):
        own = ids[i % len(ids)] if i % 3 else f"{ids[i % len(ids)]}_{i:05d}"
        size, label = sizes[rng.integers(len(sizes))], int(rng.integers(-1, labels))  # type: ignore[call-overload]
        rows.append(Row(own, subsets[rng.integers(len(subsets))], size, None if label < 0 else label))  # type: ignore[call-overload]
    return rows


def as_table(rows: Sequence[Row]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "subset": [row.subset for row in rows],
        "image": [None if row.size is None else b"pixels" for row in rows],
        "encoding": ["raw"] * len(rows),
        "height": [row.size and row.size[0] for row in rows],
        "width": [row.size and row.size[1] for row in rows],
        "channels": [row.size and 3 for row in rows],
        "label": [row.label for row in rows],
        "filename": [f"{i}.png" for i in range(len(rows))],
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in example_schema()], schema=example_schema())


def in_xml(text: object) -> str:
    kept = "\t\n\r"
    return "".join("\ufffd" if (c < " " and c not in kept) or c in "\ufffe\uffff" else c for c in str(text))


def as_tree(row: Row) -> Any:
    item = etree.Element("item")
    etree.SubElement(item, "id").text = in_xml(row.id)
    etree.SubElement(item, "subset").text = in_xml(row.subset)
    if row.size is not None:
        image = etree.SubElement(item, "image")
        etree.SubElement(image, "height").text = str(row.size[0])
        etree.SubElement(image, "width").text = str(row.size[1])
        etree.SubElement(image, "has_data").text = "1"
    if row.label is not None:
        annotation = etree.SubElement(item, "annotation")
        etree.SubElement(annotation, "id").text = "0"
        etree.SubElement(annotation, "type").text = "label"
        etree.SubElement(annotation, "group").text = "0"
        etree.SubElement(annotation, "label").text = in_xml(NAMES[row.label])
        etree.SubElement(annotation, "label_id").text = str(row.label)
    return item


ROWS = make_rows(211, IDS, SUBSETS, SIZES, len(NAMES))
TABLE = as_table(ROWS)
TREES = [as_tree(row) for row in ROWS]
# Many rows that differ in nothing but the id, for rules of sharing.
TWINS = make_rows(40, ("x", "dog", "1", "train", ""), ("train", "x"), (None, (32, 32)), 2)
TWIN_TABLE = as_table(TWINS)
TWIN_TREES = [as_tree(row) for row in TWINS]


def expected(expression: str, mode: str, trees: Sequence[Any]) -> tuple[list[bool], list[bool]]:
    """Rows and labels that stay, by plain evaluation."""
    compiled = etree.XPath(expression)
    if mode == "items":
        return [bool(compiled(tree)) for tree in trees], [True] * len(trees)
    rows, labels = [], []
    for tree in trees:
        has = tree.find("annotation") is not None
        chosen = any(getattr(node, "tag", None) == "annotation" for node in compiled(tree))
        rows.append(chosen or mode == "annotations")
        labels.append(chosen or not has)
    return rows, labels


def decided(decision: Decision) -> tuple[list[bool], list[bool]]:
    return decision.rows.tolist(), decision.labels.tolist()


VALUES = [
    "true()",
    "false()",
    "0",
    "1 div 0",
    "0 div 0",
    "''",
    "'any'",
    "annotation/label = 'dog'",
    '/item/annotation/label = "собака"',
    "/item/annotation/label='nul\ufffd and \ufffd'",
    "/item/id = 'nul\ufffd'",
    "count(annotation)",
    "count(/item[subset='train'])",
    "count(//text()) > 6",
    "string(/item/subset)",
    "string-length(id) > 3",
    "sum(/item/image/height | /item/image/width) >= 64",
    "number(annotation/label_id) mod 2",
    "-annotation/label_id",
    "floor(image/width div 10) = 3",
    "concat(subset, '/', annotation/label) = 'train/cat'",
    "substring-before(id, '_')",
    "translate(normalize-space(annotation/label), 'dog', 'DOG') = 'DOG'",
    "boolean(image) != boolean(annotation)",
    "/item = 'xtrain'",
    "string-length(/child::item) > 12",
    "contains(/item, 'dog')",
    "name(/item/*[last()]) = 'annotation'",
    "lang('en')",
    "string()",
    "number() = 1",
    "not(image) or annotation/label != 'cat' and subset = 'test'",
    "image/height * 2 - 1 < image/width + 1",
    "annotation/type = 'label' and annotation/group = 0",
]
PATHS = [
    "/item",
    "/",
    "//id",
    "/item/..",
    "/item[annotation]/..",
    '/item[annotation/label="dog"]',
    "/item[annotation/label='dog' or annotation/label=\"cat\"]/annotation",
    "/item[not(annotation)]",
    "/item[contains(annotation/label, 'at')]",
    "/item[starts-with(annotation/label, '<')]",
    "/item/annotation[label='<dog> & ' or contains(label, '&')]",
    "/item/annotation[label_id > 2][position() = last()]",
    "/item/annotation[1]",
    "/item/annotation[2]",
    "/item/annotation[id=0]",
    "/item/annotation[id=../id]",
    "/item/annotation[../subset = 'train']",
    "/item/annotation[/item/id = 'dog']",
    "/item[subset='batch_1']/annotation",
    "/item[subset='']",
    "/item[image/height > 30 and image/width <= 32]",
    "/item[image/has_data = 1]/annotation[label != 'dog']",
    "/item[image/has_data]",
    "/item[id='x']/annotation",
    "/item[contains(., 'x')]",
    "/item[.='xtrain']",
    "/item/*[1]",
    "/item/*",
    "/item/*[text()='dog']",
    "//*[. = 'x']",
    "//annotation[label]",
    "/descendant::annotation[child::label = 'x']",
    "/item[descendant::id = 'dog']",
    "/item[self::*='x']",
    "/item[child::id]/child::annotation",
    "/item/annotation/label/ancestor::annotation",
    "/item/image/following-sibling::annotation",
    "/item/id/following::*[self::annotation]",
    "annotation | image",
    "(//label | //id)[. = 'dog']/..",
    "(/item)[annotation]/annotation",
    "id('x')",
    "@id | //@*",
    "namespace::*",
    "/item/node()",
    "/item/annotation/text() | /item/annotation",
    "/item[count(*) = 4]/annotation",
    "/item[/item/image]/annotation",
    "/item[zzz] | annotation[label='собака']",
    "/item[comment() or processing-instruction('x')]",
    "/ item [ annotation / label = 'dog' ]",
    "/item\n[image]\t/annotation",
]


@pytest.mark.parametrize("expression", VALUES + PATHS)
def test_items_are_kept_as_by_plain_evaluation(expression: str) -> None:
    decision = ItemFilter(expression).decide(TABLE, NAMES)
    assert decided(decision) == expected(expression, "items", TREES)


@pytest.mark.parametrize("mode", FILTER_MODES[1:])
@pytest.mark.parametrize("expression", PATHS)
def test_annotations_are_kept_as_by_plain_evaluation(expression: str, mode: str) -> None:
    decision = ItemFilter(expression, mode).decide(TABLE, NAMES)
    assert decided(decision) == expected(expression, mode, TREES)


# An expression is composed of what lets rows share an evaluation and of one kind of thing that may forbid it: with
# several of them, one would hide that another is overlooked.
SAFE = ("subset", "image", "annotation", "annotation/label", "image/height", "zzz")
RISKY_TESTS = ("id", "item", "*", "node()", "text()")
RISKY_AXES = ("@", "self::", "descendant::", "descendant-or-self::", "parent::", "ancestor::", "ancestor-or-self::")
RISKY_AXES += ("following::", "following-sibling::", "preceding::", "preceding-sibling::", "/")  # type: ignore[assignment]
RISKY_PATHS = (".", "..", "(/)", "/item", "(/item)[1]", "/item | subset", "id(subset)", "/child::item")
RISKY_VALUES = (
    "string()",
    "contains(string(), 'x')",
    "number() = 1",
    "string-length() > 4",
    "normalize-space()",
    "name()",
)
RISKS = (None, "steps out", *RISKY_TESTS, *RISKY_AXES, *RISKY_PATHS, *RISKY_VALUES)
LITERALS = ("'x'", "'dog'", "'xtrain'", '"train"', "'1'", "''", "0", "1", "4", "32", "true()")
OF_PATHS = ("{p}", "{p} = {l}", "{p} = {p}", "{l} != {p}", "count({p}) > 1", "contains({p}, {l})", "string({p}) = {l}")
OF_PATHS += ("-({p}) = -1", "string-length({p}) > 4", "name({p}) = 'id'", "normalize-space({p}) = {l}", "not({p})")  # type: ignore[assignment]
OF_PATHS += ("boolean({p})", "sum({p}) > 1", "{p} + 1 > 1", "1 * {p} < 2", "starts-with({p}, {l})")  # type: ignore[assignment]
OF_VALUES = ("{v} and {v}", "{v} or {v}", "({v}) = ({v})", "not({v})", "concat({v}, {v}) != {l}", "boolean({v})")


@st.composite
def paths(draw: st.DrawFn, depth: int, risk: str | None) -> str:
    def predicates() -> str:
        if depth <= 0 or draw(st.booleans()):
            return ""
        return f"[{draw(values(depth - 1, risk, inside=True))}]"

    if risk in RISKY_PATHS and draw(st.booleans()):
        return risk if risk.endswith(".") else risk + predicates()
    made = draw(st.sampled_from(["", "/item/", "/item{}/", "child::"])).format(predicates())
    if risk in RISKY_TESTS and draw(st.booleans()):
        return made + risk + predicates()
    if risk in RISKY_AXES and draw(st.booleans()):
        made = "/item/" if made == "child::" else made or "./"
        return made + risk + draw(st.sampled_from(["label", "id", "*", "item"])) + predicates()
    made += draw(st.sampled_from(SAFE)) + predicates()
    return f"({made})[1]/.." if risk == "steps out" and draw(st.booleans()) else made


@st.composite
def values(draw: st.DrawFn, depth: int, risk: str | None, inside: bool = False) -> str:
    if risk in RISKY_VALUES and draw(st.booleans()):
        return risk
    positions = ("position() = {l}", "last() > 1", "{l}") if inside else ()
    shape: str = draw(st.sampled_from((*OF_PATHS, *(OF_VALUES if depth > 0 else ()), *positions)))
    for hole, filler in (
        ("{p}", paths(depth, risk)),
        ("{l}", st.sampled_from(LITERALS)),
        ("{v}", values(depth - 1, risk)),
    ):
        while hole in shape:
            shape = shape.replace(hole, draw(filler), 1)
    return shape


risks = st.sampled_from(RISKS)
composed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@composed
@given(risks.flatmap(lambda risk: values(2, risk)))
def test_composed_expressions_keep_the_rows_of_plain_evaluation(expression: str) -> None:
    decision = ItemFilter(expression).decide(TWIN_TABLE, NAMES)
    assert decided(decision) == expected(expression, "items", TWIN_TREES)


@composed
@given(risks.flatmap(lambda risk: paths(2, risk)), st.sampled_from(FILTER_MODES[1:]))
def test_composed_paths_keep_the_annotations_of_plain_evaluation(expression: str, mode: str) -> None:
    decision = ItemFilter(expression, mode).decide(TWIN_TABLE, NAMES)
    assert decided(decision) == expected(expression, mode, TWIN_TREES)


EVERYTHING = {"id", "subset", "image", "annotation"}


@pytest.mark.parametrize(
    ("expression", "seen"),
    [
        ("/item[annotation/label='dog']", {"annotation"}),
        ("/item/annotation[label='dog' or label_id > 3]", {"annotation"}),
        ("/item[image/height > 32 and subset = 'train']", {"image", "subset"}),
        ("/item[id='x']", {"id"}),
        ("count(/item) = 1 or not(/item[subset])", {"subset"}),
        ("true()", set()),
        ("/item = 'x'", EVERYTHING),
        ("string(/item[annotation])", EVERYTHING),
        ("(/item)[1] + 1", EVERYTHING),
        ("-/item", EVERYTHING),
        ("subset | /item = 'x'", EVERYTHING),
        ("/item[string()]", EVERYTHING),
        ("/item[.]", EVERYTHING),
        ("//label", EVERYTHING),
        ("/item/*", EVERYTHING),
        ("/item/annotation[../subset]", EVERYTHING),
        ("annotation/label/preceding::type", EVERYTHING),
        ("/item/text()", EVERYTHING),
        ("/", EVERYTHING),
        ("/item[@id]", EVERYTHING),
        ("/child::item = 'x'", EVERYTHING),
        ("lang(subset) or id(subset)", EVERYTHING),
    ],
)
def test_a_filter_knows_what_it_looks_at(expression: str, seen: set[str]) -> None:
    assert ItemFilter(expression).sees == seen


REFUSED = [
    ("", 1, "the expression is empty"),
    (" \t", 1, "the expression is empty"),
    ("/item[", 7, "ends too early"),
    ("/item]", 6, "found ']'"),
    ("/item[annotation/label='dog]", 29, "unfinished literal"),
    ("/item[собака='x' and]", 21, "found ']'"),
    ("/item & 1", 7, "found '& 1'"),
    ("1 2", 3, "found '2'"),
    ("/item/annotation/count()", 24, "invalid expression"),
    ("/item[.[1]]", 8, "invalid predicate"),
    ("count(item", 11, "ends too early"),
    ("/item\n[id='a'\nand]", 18, "found ']'"),
    ("/item[cuont(annotation) = 1]", 7, "unknown function 'cuont'; did you mean 'count'"),
    ("false() and matches(id, 'x')", 13, "unknown function 'matches'"),
    ("/item[contains(id)]", 7, "contains() takes 2 arguments, found 1"),
    ("/item[zzz[not()]]", 11, "not() takes 1 argument, found 0"),
    ("concat('a')", 1, "concat() takes at least 2 arguments, found 1"),
    ("substring('a', 1, 2, 3)", 1, "substring() takes 2 to 3 arguments, found 4"),
    ("/item/x:annotation", 7, "prefix 'x' is not defined"),
    ("x:f()", 1, "prefix 'x' is not defined"),
    ("/item[id = $id]", 12, "variable '$id' is not defined"),
    ("/item[id='7'][count('a')]", 21, "count() needs a node set, found a string"),
    ("true() or 'a' | id", 11, "'|' needs a node set, found a string"),
    ("id | 1", 6, "'|' needs a node set, found a number"),
    ("(1 = 1)/id", 1, "'/' needs a node set, found a boolean"),
    ("position() = 1", 1, "position() is only valid inside '[...]'"),
    ("/item\0", 6, "character U+0000 is not allowed in XML"),
    ("'\udcff'", 2, "character U+DCFF is not allowed in XML"),
    ("(" * 40 + "1" + ")" * 40, 34, "nested more than 32 deep"),
]


@pytest.mark.parametrize(("expression", "column", "reason"), REFUSED)
def test_a_broken_expression_is_refused_with_its_column(
    expression: str, column: int, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        ItemFilter(expression)
    assert str(refused.value).startswith(f"--filter {expression!r}: column {column}: ")
    assert reason in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert 1 <= column <= len(expression) + 1
    assert capfd.readouterr() == ("", "")


@given(
    st.lists(st.sampled_from([*"/[]()@.,|=-*", "item", "id", "'x'", "1", "and", " ", "::", "not", "child"]), max_size=7)
)
@settings(max_examples=200, deadline=None)
def test_what_lxml_cannot_evaluate_is_refused_and_nothing_else_escapes(tokens: list[str]) -> None:
    expression = "".join(tokens)
    try:
        made = ItemFilter(expression)
    except UsageError:
        return
    assert decided(made.decide(TWIN_TABLE, NAMES)) == expected(expression, "items", TWIN_TREES)


@pytest.mark.parametrize("mode", FILTER_MODES[1:])
@pytest.mark.parametrize(
    ("expression", "kind"),
    [("count(annotation)", "a number"), ("'x'", "a string"), ("annotation/label='x'", "a boolean")],
)
def test_annotation_modes_need_a_path(expression: str, kind: str, mode: str) -> None:
    ItemFilter(expression)
    with pytest.raises(UsageError, match=f"column 1: returns {kind}, but mode '.*annotations' needs a path such as"):
        ItemFilter(expression, mode)


def test_an_unknown_mode_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown filter mode 'item'; did you mean 'items'"):
        ItemFilter("/item", "item")


def test_items_without_a_label_stay_in_one_annotation_mode_and_go_in_the_other() -> None:
    rows = [Row("a", "train", None, None), Row("b", "train", None, 0), Row("c", "train", None, 1)]
    expression = "/item/annotation[label='dog']"
    kept = ItemFilter(expression, "annotations").decide(as_table(rows), NAMES)
    assert decided(kept) == ([True, True, True], [True, False, True])
    dropped = ItemFilter(expression, "items+annotations").decide(as_table(rows), NAMES)
    assert decided(dropped) == ([False, False, True], [True, False, True])


@pytest.mark.parametrize(
    "expression", ["/item[annotation/label='dog']", "/item[id='x']", "//*[.='32']", "image/height"]
)
def test_deciding_in_blocks_equals_deciding_at_once(expression: str) -> None:
    made = ItemFilter(expression)
    whole = made.decide(TABLE, NAMES)
    blocks = [made.decide(TABLE.slice(start, 17), NAMES) for start in range(0, len(TABLE), 17)]
    chunked = made.decide(pa.concat_tables([TABLE.slice(0, 5), TABLE.slice(5, 0), TABLE.slice(5)]), NAMES)
    assert np.concatenate([block.rows for block in blocks]).tolist() == whole.rows.tolist() == chunked.rows.tolist()
    assert decided(made.decide(TABLE.slice(0, 0), NAMES)) == ([], [])


def test_other_class_names_give_other_answers_to_the_same_filter() -> None:
    made = ItemFilter("/item[annotation/label='dog']")
    table = as_table([Row("a", "train", None, 0), Row("b", "train", None, 1)])
    assert made.decide(table, ("cat", "dog")).rows.tolist() == [False, True]
    assert made.decide(table, ("dog", "cat")).rows.tolist() == [True, False]
    assert made.decide(table, ("dog",)).rows.tolist() == [True, False]


def test_a_filter_can_be_sent_and_compared() -> None:
    made = ItemFilter("/item[annotation/label='dog']/annotation", "annotations")
    made.decide(TABLE, NAMES)
    sent = pickle.loads(pickle.dumps(made))
    assert sent == made
    assert hash(sent) == hash(made)
    assert made != ItemFilter(made.expression)
    assert decided(sent.decide(TABLE, NAMES)) == decided(made.decide(TABLE, NAMES))


def test_threads_can_share_a_filter() -> None:
    made = ItemFilter("//*[. = 'x' or . = 'dog']")
    whole = made.decide(TABLE, NAMES).rows.tolist()
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: made.decide(TABLE, NAMES).rows.tolist(), range(16)):
            assert result == whole


def test_the_hint_names_classes_near_to_a_string_that_is_none() -> None:
    names = ("cat", "dog", "deer")
    assert ItemFilter("/item[subset='train' and annotation/label='dgo']").hint(names) == "; did you mean 'dog'?"
    assert ItemFilter('/item[annotation/label="der"]').hint(names) == "; did you mean 'deer'?"
    assert ItemFilter("/item[annotation/label='dog']").hint(names) == ""
    assert ItemFilter("/item[subset='zzz' or image/height > 3]").hint(names) == ""


@pytest.mark.parametrize(
    ("expression", "unknown"),
    [
        ('/item[annotation/label="dgo" or "cta" != annotation/label]', ["cta", "dgo"]),
        ('/item[annotation[label/text()="dgo"]]', ["dgo"]),
        ('/item[annotation/label="dog" and subset="x" and id="y"]', []),
        ('/item[starts-with(annotation/label, "d")]', []),
    ],
)
def test_strings_that_labels_are_compared_with_are_classes(expression: str, unknown: list[str]) -> None:
    assert ItemFilter(expression).unknown_labels(["dog", "cat"]) == unknown


def test_importing_the_module_does_not_import_lxml() -> None:
    code = "import sys, beam_cifar.filters.xpath; sys.exit('lxml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
