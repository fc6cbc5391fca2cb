"""The work of an expression is bounded before it is evaluated: by nodes visited, and by texts compared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree  # type: ignore[import-untyped]

from beam_cifar.errors import UsageError
from beam_cifar.filters import xpath_static
from beam_cifar.filters.xpath import ItemFilter, _make_tree
from beam_cifar.filters.xpath_static import LONGEST, MOST_VISITS, read_syntax
from tests.filters.test_xpath import Row, as_table


def nested(expression: str, depth: int, innermost: str = "1") -> str:
    """An expression with `{}` in which it stands itself."""
    for _ in range(depth):
        innermost = expression.replace("{}", innermost)
    return innermost


ALPHABET = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
LOWER = f"translate(annotation/label, '{ALPHABET[0]}', '{ALPHABET[1]}')"

SENSIBLE = (
    '/item[annotation/label="dog"]',
    '/item[annotation/label="dog" and subset="test_batch"]',
    "//*",
    "//label",
    '//label[. = "dog"]',
    '//annotation[label="dog"]/../subset[. = "train"]',
    '//*[. = "dog"]',
    '//*[contains(text(), "dog")]',
    "//*[//*[text()]]",
    "//*[.//*[.//*[. = 'dog']]]",
    "//text()[contains(., 'dog')]",
    "count(//*[count(//*) > 3]) > 0",
    "count(//*[count(ancestor::*) > 1]) > 3",
    "//*[following::*[name() = 'label']]",
    "//label[ancestor::annotation[preceding-sibling::image[width > 16]]]",
    "(//label | //subset)[. = 'dog'][1]",
    "//*[last()][position() < 3]",
    "//node()[self::label][. != '']",
    "/descendant::*[7]/following-sibling::*[. = 'dog']",
    "string-length(/) > 100",
    f"contains({LOWER}, 'dog')",
    "contains(id, subset) and not(contains(id, concat(subset, '/', annotation/label)))",
    "starts-with(substring-after(id, '/'), concat(annotation/label, '_'))",
    "/item[" + " or ".join(f'annotation/label="class number {i:05d}"' for i in range(1000)) + "]",
    " | ".join(f'/item/annotation[label="n{i:08d}"]' for i in range(1000)),
    " or ".join(f"contains(annotation/label, 'n{i:08d}')" for i in range(500)),
    " or ".join(f"contains({LOWER}, 'n{i}')" for i in range(200)),
    " or ".join(f"contains(id, subset) and label_id = {i}" for i in range(100)),
    "(" * 30 + "1" + ")" * 30,
    "1" + " + 1" * 3000,
    "-" * 3000 + "1",
    "/item" + "[annotation]" * 1000,
)

HOSTILE = (
    *(nested("count(//*[{}]) > 0", depth) for depth in (4, 5, 6, 10)),
    *(nested(f"count({path}[{{}}]) > 0", 6) for path in ("//node()", "//.", "//*/..", "descendant::*", "(//*)")),
    *(nested(f"//*/{axis}::*[{{}}]", 4) for axis in ("ancestor", "ancestor-or-self", "descendant-or-self")),
    *(nested(f"//node()/{axis}::node()[{{}}]", 4) for axis in ("following", "preceding", "self", "namespace")),
    *(nested(f"//*/{axis}::node()[{{}}]", 4) for axis in ("following-sibling", "preceding-sibling", "child")),
    nested("/item/*/*[{}]/../../*", 6),
    nested("(//*)[{}][{}]", 6),
    nested("sum(//*[{}]) + sum(//text()[{}]) > 1", 5),
    nested("//*[1 = 2 or {}]", 10),
    nested("//*[string(//*[{}]) = '']", 10),
    nested("(//* | //node())[{}]", 20),
    nested("id(//*)[{}]", 20),
    "//*" * 1000,
    "/".join(["/item"] + [".//*/.."] * 1000),
    " | ".join(["//*"] * 4000),
    " or ".join(["//*"] * 4000),
    " = ".join(["//*"] * 4000),
    " or ".join(["contains(., ..)"] * 6000),
    "//*[//*[" + " or ".join(["//*"] * 20) + "]]",
    "concat(" + ", ".join(["//*"] * 2000) + ")",
    "//*[//*[" + nested("translate({}, /, /)", 20, "/") + "]]",
    nested("translate({}, {}, {})", 8, "/"),
    nested("concat({}, {})", 16, "/"),
    nested("contains({}, concat({}, {}))", 8, "/"),
    nested("substring-before({}, {})", 12, "/"),
    f"contains(id, '{'a' * 65_000}')",
    "'" + "a" * LONGEST + "'",
    " | ".join(["a"] * 100_000),
    "a/" * 60_000 + "b",
    "(" * 33 + "1" + ")" * 33,
    "(" * 30_000 + "1" + ")" * 30_000,
    "a[" * 20_000 + "1" + "]" * 20_000,
    "not(" * 10_000 + "1" + ")" * 10_000,
    "1" + " | a" * 16_000,
    "x" * 65_000 + "()",
    "$" + "x" * 65_000,
    "9" * 65_000 + "[1]",
)


def shown(expression: str) -> str:
    return f"{expression[:40]} ({len(expression)})"


@pytest.mark.parametrize("expression", SENSIBLE, ids=shown)
def test_what_a_person_would_write_is_accepted(expression: str) -> None:
    table = as_table([Row("train/dog_1", "train", (32, 32), 1), Row("x" * 255, "s" * 100, None, None)])
    assert len(ItemFilter(expression).decide(table, ["cat", "dog" * 30]).rows) == 2


@pytest.mark.parametrize("expression", HOSTILE, ids=shown)
def test_work_without_bound_is_refused_in_one_line_before_it_is_evaluated(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[Any] = []
    monkeypatch.setattr("beam_cifar.filters.xpath._Evaluator._matches", lambda *_: evaluated.append(1))
    with pytest.raises(UsageError) as caught:
        ItemFilter(expression)
    message = str(caught.value)
    assert not evaluated, message
    assert len(message) < 700
    assert "\n" not in message


@pytest.mark.skipif(etree.LIBXML_VERSION < (2, 11), reason="older ones have no such limit, or do not name it")
@pytest.mark.parametrize("operator", [" + ", " = ", " or ", " | ", "/"])
def test_operators_too_deep_for_libxml2_are_refused_by_it(operator: str) -> None:
    with pytest.raises(UsageError, match=r"--filter 'a.+\.\.\.': column 1: (r|XPath: R)ecursion limit exceeded"):
        ItemFilter(operator.join(["a"] * 6000))


def test_the_refusal_names_the_place_and_what_to_write() -> None:
    expression = nested("count(//*[{}]) > 0", 10)
    with pytest.raises(UsageError) as caught:
        ItemFilter(expression)
    assert str(caught.value) == (
        f"--filter {expression!r}: column 39: up to here in 3 nested '[...]', each item takes over 50,000 visits to "
        "nodes; write '/item/annotation/label' instead of '//' and '*'"
    )


@pytest.mark.parametrize(
    "expression", ["contains(id, subset)", "translate(id, id, 'x')", "//*[//*[contains(., id)]]", "not(id)"]
)
def test_an_item_with_too_much_text_for_an_expression_is_refused(expression: str) -> None:
    rule = ItemFilter(expression)
    most = read_syntax(expression).most_text
    assert most >= 256
    if most < 1 << 20:
        table = as_table([Row("a" * (most + 1), "", None, None)])
        with pytest.raises(UsageError, match=rf"item 'a+' has {most + 1:,} characters of text; this expression can"):
            rule.decide(table, [])
    else:
        assert rule.decide(as_table([Row("a" * 100_000, "", None, None)]), []).rows.tolist() == [False]


def test_the_largest_tree_is_the_one_that_the_bound_is_made_for() -> None:
    item, leaves = _make_tree(True, True)
    for leaf in leaves:
        leaf.text = "x"
    names = [element.tag for element in item.iter()]
    # The root node, which `//node()` leaves out, is a node too.
    assert len(item.xpath("//node()")) + 1 == xpath_static.NODES
    assert len(names) == xpath_static.ELEMENTS
    assert max(map(names.count, names)) == xpath_static.SAME_NAME
    assert max(len(element.xpath("node()")) for element in item.iter()) == xpath_static.CHILDREN
    assert max(len(node.xpath("ancestor-or-self::node()")) for node in item.iter()) == xpath_static.DEPTH - 1
    assert len(item.xpath("//namespace::*")) <= xpath_static.NODES


AXES = (
    *("child", "descendant", "descendant-or-self", "parent", "ancestor", "ancestor-or-self", "self", "attribute"),
    *("following", "preceding", "following-sibling", "preceding-sibling", "namespace"),
)
TESTS = ("*", "node()", "text()", "item", "id", "label", "annotation", "comment()")
STEPS = st.one_of(
    st.sampled_from(["..", ".", "@*"]),
    st.builds("{}::{}{}".format, st.sampled_from(AXES), st.sampled_from(TESTS), st.sampled_from(["", "[TICK]"])),
)


def test_no_path_evaluates_its_predicates_more_often_or_finds_more_than_the_bound() -> None:
    item, leaves = _make_tree(True, True)
    for leaf in leaves:
        leaf.text = "x"
    ticks: list[Any] = []

    def tick(_: Any) -> bool:
        ticks.append(1)
        return True

    etree.FunctionNamespace("urn:test")["tick"] = tick

    @settings(max_examples=300, deadline=None)
    @given(path=st.lists(STEPS, min_size=1, max_size=4), start=st.sampled_from(["", "/", "//", "(//*)[TICK]//"]))
    def check(path: list[str], start: str) -> None:
        expression = start + "/".join(path)
        reader = xpath_static._Reader(expression.replace("TICK", "true()"))
        reader.read()
        ticks.clear()
        found = etree.XPath(expression.replace("TICK", "t:tick()"), namespaces={"t": "urn:test"})(item)
        assert len(ticks) <= reader.visits <= MOST_VISITS
        assert len(found) <= xpath_static.NODES

    check()


NESTED = st.recursive(
    st.sampled_from(["1", "label", "//*", ".", "..", "text()"]),
    lambda inner: st.one_of(
        st.builds("{}::{}[{}]".format, st.sampled_from(AXES), st.sampled_from(TESTS[:3]), inner),
        st.builds("//{}[{}]".format, st.sampled_from(TESTS[:3]), inner),
        st.builds("{} or {}".format, inner, inner),
        st.builds("concat({}, {})".format, inner, inner),
        st.builds("contains({}, {})".format, inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(NESTED)
def test_any_expression_is_refused_or_evaluated(expression: str) -> None:
    table = as_table([Row("train/dog_1", "train", (32, 32), 1)])
    try:
        rule = ItemFilter(expression)
    except UsageError:
        return
    assert len(rule.decide(table, ["cat", "dog"]).rows) == 1
