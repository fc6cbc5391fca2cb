"""Datumaro's item filter: an XPath 1.0 expression that is asked of every item, by libxml2.

Each row is an XML document of its own, as Datumaro writes it for its `--filter`
(`datumaro/components/filter.py`, `DatasetItemEncoder`), without `image/path`, which is a name on one machine:

    item
      id, subset
      image              only where the row has an image
        height, width, has_data ("1")
      annotation         only where the row has a label
        id ("0"), type ("label"), group ("0"), label (the class name), label_id

Characters that XML cannot hold (NUL, other control characters, lone surrogates, U+FFFE, U+FFFF) stand as U+FFFD in it.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.errors import UsageError
from beam_cifar.example import plain_labels
from beam_cifar.labels import UNLABELLED, unknown_name

FILTER_MODES = ("items", "annotations", "items+annotations")
"""What the expression selects; see `ItemFilter`."""

_PARTS = frozenset({"id", "subset", "image", "annotation"})
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_ANSWERS = 1 << 14


@dataclass(frozen=True)
class Decision:
    """What a filter does to the rows of a table.

    Attributes:
        rows: bool `[N]`, the rows that stay.
        labels: bool `[N]`, False where the row loses its label; True where there was none.
    """

    rows: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ItemFilter:
    """An XPath expression and what it selects.

    Modes: `items` keeps the rows for which the result is true in Python's sense (a node set that is not empty, a
    number other than 0, a string that is not empty). `annotations` keeps all rows, and the labels whose `annotation`
    element is in the result; other nodes in it count for nothing. `items+annotations` then drops the rows without
    a label, those that never had one included.

    Args:
        expression: XPath 1.0; the context node is the `item` element.
        mode: one of `FILTER_MODES`.

    Raises:
        UsageError: unknown mode, or an expression that is malformed, calls what does not exist, mixes up types,
            or gives no node set where the mode needs one. It names the column, counted from 1.
    """

    expression: str
    mode: str = "items"

    def __post_init__(self) -> None:
        if self.mode not in FILTER_MODES:
            raise unknown_name("filter mode", self.mode, FILTER_MODES)
        kind = self._evaluator.syntax.kind
        if self._of_annotations and kind not in _NODE_SETS:
            reason = f"gives {kind}, but mode {self.mode!r} needs a path to annotations, as '/item/annotation[...]'"
            raise _refusal(self.expression, 1, reason)

    @property
    def _of_annotations(self) -> bool:
        return self.mode != "items"

    @property
    def _evaluator(self) -> _Evaluator:
        return _evaluator(self.expression, self._of_annotations)

    @property
    def sees(self) -> frozenset[str]:
        """The children of `item` that can matter: of `id`, `subset`, `image` (the sizes) and `annotation`.

        Columns behind the others are not looked at. `_Syntax` has the rule.
        """
        return self._evaluator.syntax.seen

    def decide(self, table: pa.Table, names: Sequence[str]) -> Decision:
        """Decides the rows of a table.

        Args:
            table: N rows with the columns `id`, `subset`, `height`, `width` and `label` of `example.SCHEMA`.
            names: class names; a label is an index in them.
        """
        selected = self._evaluator.select(table, names)
        every = np.ones(len(table), dtype=np.bool_)
        if not self._of_annotations:
            return Decision(selected, every)
        kept = selected | (plain_labels(table) == UNLABELLED)
        return Decision(every if self.mode == "annotations" else selected, kept)

    def hint(self, names: Sequence[str]) -> str:
        """What to add to the error for a filter that leaves nothing: the class names near to what was asked for.

        Returns:
            `"; did you mean 'dog'?"`, or nothing where each string of the expression is a class or near to none.
        """
        for literal in self._evaluator.syntax.literals:
            near = difflib.get_close_matches(literal, names, n=3, cutoff=0.5)
            if near and literal not in names:
                return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
        return ""


def _etree() -> Any:
    """The XML library, imported when the first filter is made."""
    from lxml import etree  # type: ignore[import-untyped]

    return etree


class _Facts(NamedTuple):
    """What an expression may see of a row; a part that it cannot see has its default."""

    id: str = ""
    subset: str = ""
    size: tuple[int, int] | None = None
    label: tuple[str, int] | None = None


class _Trees:
    """One tree for each shape of item; only its texts change from item to item. For one thread."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, bool], tuple[Any, list[Any]]] = {}

    def tree(self, facts: _Facts) -> Any:
        """The `item` element of these facts; the next call may change it."""
        shape = (facts.size is not None, facts.label is not None)
        if shape not in self._made:
            self._made[shape] = _make_tree(*shape)
        item, leaves = self._made[shape]
        texts = (facts.id, facts.subset, *(facts.size or ()), *(facts.label or ()))
        for leaf, text in zip(leaves, texts, strict=True):
            leaf.text = _NOT_XML.sub("\ufffd", str(text))
        return item


def _make_tree(has_image: bool, has_label: bool) -> tuple[Any, list[Any]]:
    """An item and those of its elements whose text differs from item to item, in the order of `_Facts`."""
    etree = _etree()
    item = etree.Element("item")
    leaves = [etree.SubElement(item, name) for name in ("id", "subset")]
    if has_image:
        image = etree.SubElement(item, "image")
        leaves += [etree.SubElement(image, name) for name in ("height", "width")]
        etree.SubElement(image, "has_data").text = "1"
    if has_label:
        annotation = etree.SubElement(item, "annotation")
        for name, text in (("id", "0"), ("type", "label"), ("group", "0")):
            etree.SubElement(annotation, name).text = text
        leaves += [etree.SubElement(annotation, name) for name in ("label", "label_id")]
    return item, leaves


@functools.lru_cache(maxsize=16)
def _evaluator(expression: str, of_annotations: bool) -> _Evaluator:
    """The compiled expression, once per process; raises `UsageError` for one that cannot be."""
    return _Evaluator(expression, of_annotations)


class _Evaluator:
    """A compiled expression and the answers that it gave; threads may share it.

    Rows that agree in all that the expression can see share one evaluation, and later tables find the answer ready.
    What it can see is `_Syntax.seen`; where `id` is among it, each row is evaluated.
    """

    def __init__(self, expression: str, of_annotations: bool) -> None:
        self.expression = expression
        self._compiled = _compile(expression)
        self.syntax = _Reader(expression).read()
        self._of_annotations = of_annotations and self.syntax.kind in _NODE_SETS
        self._answers: dict[_Facts, bool] = {}
        trees = _Trees()
        for size in (None, (32, 32)):
            for label in (None, ("", 0)):
                self._matches(trees.tree(_Facts(size=size, label=label)))

    def select(self, table: pa.Table, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Bool `[N]`: whether the item, or its annotation, is selected."""
        labels = plain_labels(table)
        by_row = "id" in self.syntax.seen
        chosen, group = (np.arange(len(table)),) * 2 if by_row else self._groups(table, labels)
        trees = _Trees()
        answers = []
        columns = table.select(["id", "subset", "height", "width"]).take(chosen)
        for facts in self._facts(columns, labels[chosen].tolist(), names):
            answer = None if by_row else self._answers.get(facts)
            if answer is None:
                answer = self._matches(trees.tree(facts))
                if not by_row:
                    self._remember(facts, answer)
            answers.append(answer)
        return np.array(answers, dtype=np.bool_)[group]

    def _groups(
        self, table: pa.Table, labels: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Groups rows that look alike: one row of each group, and the group `[N]` of each row."""
        keys = [np.zeros_like(labels)]
        if "subset" in self.syntax.seen:
            keys.append(_plain(table.column("subset").combine_chunks().dictionary_encode().indices))
        if "image" in self.syntax.seen:
            keys += [_plain(table.column(name)) for name in ("height", "width")]
        if "annotation" in self.syntax.seen:
            keys.append(labels)
        _, first, group = np.unique(np.stack(keys, axis=1), axis=0, return_index=True, return_inverse=True)
        return first, group.reshape(-1)

    def _facts(self, table: pa.Table, labels: Sequence[int], names: Sequence[str]) -> Iterator[_Facts]:
        """What can be seen of each row."""
        seen, rows = self.syntax.seen, len(labels)
        ids = table.column("id").to_pylist() if "id" in seen else [""] * rows
        subsets = table.column("subset").to_pylist() if "subset" in seen else [""] * rows
        sizes: list[tuple[int, int] | None] = [None] * rows
        if "image" in seen:
            pairs = zip(table.column("height").to_pylist(), table.column("width").to_pylist(), strict=True)
            sizes = [None if None in pair else pair for pair in pairs]
        annotations: list[tuple[str, int] | None] = [None] * rows
        if "annotation" in seen:
            # A label outside the table is another check's to refuse; as in Datumaro, its name is empty.
            annotations = [None if n == UNLABELLED else (names[n] if 0 <= n < len(names) else "", n) for n in labels]
        return map(_Facts, ids, subsets, sizes, annotations)

    def _matches(self, tree: Any) -> bool:
        try:
            result = self._compiled(tree)
        except _etree().XPathError as error:
            raise _refusal(self.expression, 1, _lower(error)) from error
        if self._of_annotations:
            return any(getattr(node, "tag", None) == "annotation" for node in result)
        return bool(result)

    def _remember(self, facts: _Facts, answer: bool) -> None:
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[facts] = answer


def _plain(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """An integer column as int64 `[N]`, -1 for null."""
    return np.asarray(column.fill_null(-1), dtype=np.int64)


def _compile(expression: str) -> Any:
    """Compiles an expression; libxml2 judges the grammar, and says at which byte it stopped."""
    etree = _etree()
    if not expression.strip():
        raise _refusal(expression, 1, "the expression is empty")
    if bad := _NOT_XML.search(expression):
        raise _refusal(expression, bad.start() + 1, f"character U+{ord(bad[0]):04X} cannot stand in XML")
    try:
        return etree.XPath(expression, regexp=False, smart_strings=False)
    except etree.XPathError as error:
        offset = max((entry.column for entry in error.error_log), default=0)
        before = expression.encode()[:offset].decode(errors="ignore")
        rest = expression[len(before) :]
        found = f"found {rest[:20]!r}" if rest else "the expression ends too early"
        raise _refusal(expression, len(before) + 1, f"{_lower(error)}: {found}") from error


def _lower(error: Exception) -> str:
    return str(error)[:1].lower() + str(error)[1:]


def _refusal(expression: str, column: int, reason: str) -> UsageError:
    return UsageError(f"--filter {expression!r}: column {column}: {reason}")


# What libxml2 leaves to the evaluation, and then reports without a position or, behind `and`, `or` and empty node
# sets, not at all: functions, their arguments, variables, prefixes, types. All of it is fixed by the text in XPath 1.0.

_NUMBER, _STRING, _BOOLEAN, _NODES = "a number", "a string", "a boolean", "a node set"
_ITEM = "a node set with the item"
_NODE_SETS = (_NODES, _ITEM)

_LIBRARY = {
    _NODES: "id:1",
    _NUMBER: "count:1 last:0 position:0 number:0-1 string-length:0-1 sum:1 floor:1 ceiling:1 round:1",
    _STRING: "name:0-1 local-name:0-1 namespace-uri:0-1 string:0-1 normalize-space:0-1 concat:2-999999 "
    "substring:2-3 substring-before:2 substring-after:2 translate:3",
    _BOOLEAN: "boolean:1 not:1 true:0 false:0 lang:1 contains:2 starts-with:2",
}
"""The core library (XPath 1.0, section 4): what each function gives, and how many arguments it takes."""

_FUNCTIONS = {
    name: (kind, int(counts[0]), int(counts[-1]))
    for kind, functions in _LIBRARY.items()
    for name, *counts in (re.split("[:-](?=[0-9])", function) for function in functions.split())
}
_TAKE_NODES = frozenset({"count", "sum", "name", "local-name", "namespace-uri"})
_NODE_TYPES = frozenset({"node", "text", "comment", "processing-instruction"})
_LEVELS = ("or", "and", "= !=", "< <= > >=", "+ -", "* div mod")
_OPERATORS = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs.split()}
"""Binary operators, but for `|`, and how tightly they bind."""

_NAME = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f][^\x00-\x2c\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]*"
_TOKEN = re.compile(
    r"""(?P<literal>"[^"]*"|'[^']*')"""
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"  # libxml2 reads exponents as well
    rf"|(?P<name>{_NAME}(?::(?!:)(?:{_NAME}|\*))?)"
    r"|(?P<sign>::|//|\.\.|[!<>]=|[^ \t\r\n])"
)
_DEEPEST = 32


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


@dataclass(frozen=True)
class _Syntax:
    """What the text of an expression tells.

    Attributes:
        kind: the type of its result.
        seen: the children of `item` that the result may depend on: those that it names, if it provably reaches
            nothing else, and all otherwise. It reaches nothing else if every path is made of `child` steps by name,
            where `item` is the first step after a leading `/`; if the text of an item is not asked for, that is, a
            path that ends at `item` stands only where existence counts (a result, a predicate, beside `and` or `or`,
            in `boolean`, `not` or `count`); and if no function reads the context node or looks nodes up (`string()`,
            `lang`, `id`). So `.`, `..`, `*`, `//`, `/`, `@`, other axes and node tests like `text()` see all.
        literals: its strings, in order.
    """

    kind: str
    seen: frozenset[str]
    literals: tuple[str, ...]


class _Reader:
    """Reads an expression that libxml2 has compiled: types, names and what it sees, by recursive descent."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.tokens = [_Token(str(m.lastgroup), m[0], m.start() + 1) for m in _TOKEN.finditer(expression)]
        self.tokens += [_Token("end", "", len(expression) + 1)] * 2
        self.at = self.depth = self.predicates = 0
        self.seen: set[str] = set()
        self.literals: list[str] = []

    def read(self) -> _Syntax:
        """Reads all of it.

        Raises:
            UsageError: an unknown function, prefix or variable, a wrong number of arguments, or a value where a node
                set is needed.
        """
        kind = self._operation()
        self._expect("")
        return _Syntax(kind, frozenset(self.seen), tuple(self.literals))

    @property
    def _next(self) -> _Token:
        return self.tokens[self.at]

    def _take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _skip(self, text: str) -> bool:
        found = self._next.text == text
        self.at += found
        return found

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            raise self._refusal(self._next, f"expected {text or 'the end'!r}, found {self._next.text!r}")

    def _refusal(self, token: _Token, reason: str) -> UsageError:
        return _refusal(self.expression, token.column, reason)

    def _need_nodes(self, kind: str, token: _Token, what: str) -> None:
        if kind not in _NODE_SETS:
            raise self._refusal(token, f"{what} needs a node set, found {kind}")

    def _use_value(self, *kinds: str) -> None:
        """Notes that values are used, and not only whether nodes exist: an item's text is all of its texts."""
        if _ITEM in kinds:
            self.seen |= _PARTS

    def _nested(self) -> str:
        """Reads an expression in brackets; the reader, unlike libxml2, has a small stack."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._refusal(self._next, f"brackets are nested more than {_DEEPEST} deep")
        kind = self._operation()
        self.depth -= 1
        return kind

    def _operation(self, weakest: int = 0) -> str:
        left = self._negation()
        while (level := _OPERATORS.get(self._next.text, -1)) >= weakest:
            operator = self._take().text
            right = self._operation(level + 1)
            if operator not in ("or", "and"):
                self._use_value(left, right)
            left = _NUMBER if level >= _OPERATORS["+"] else _BOOLEAN
        return left

    def _negation(self) -> str:
        negated = False
        while self._skip("-"):
            negated = True
        kind = self._union()
        if negated:
            self._use_value(kind)
        return _NUMBER if negated else kind

    def _union(self) -> str:
        first = self._next
        kind = self._path()
        while self._next.text == "|":
            self._need_nodes(kind, first, "'|'")
            self._take()
            first = self._next
            other = self._path()
            self._need_nodes(other, first, "'|'")
            kind = _ITEM if _ITEM in (kind, other) else _NODES
        return kind

    def _path(self) -> str:
        first, called = self._next, self.tokens[self.at + 1].text == "("
        is_call = first.kind == "name" and called and first.text not in _NODE_TYPES
        if not is_call and first.kind not in ("literal", "number") and first.text not in ("(", "$"):
            return self._location()
        kind = self._call() if is_call else self._primary()
        if self._next.text in ("[", "/", "//"):
            self._need_nodes(kind, first, repr(self._next.text))
        self._predicates()
        if self._next.text in ("/", "//"):
            self._steps()
            return _NODES
        return kind

    def _location(self) -> str:
        """Reads a path that starts with a step or a slash."""
        if self._next.text == "/":
            step = self.tokens[self.at + 1]
            if step.text == "item":
                self.at += 2
                self._predicates()
                if self._next.text not in ("/", "//"):
                    return _ITEM
            elif step.kind != "name" and step.text not in (".", "..", "@", "*"):
                self._take()
                self.seen |= _PARTS
                return _NODES
        elif self._next.text != "//":
            self._step()
        self._steps()
        return _NODES

    def _steps(self) -> None:
        while self._next.text in ("/", "//"):
            if self._take().text == "//":
                self.seen |= _PARTS
            self._step()

    def _step(self) -> None:
        if self._next.text in (".", ".."):
            self._take()
            self.seen |= _PARTS
            return
        if self._skip("@"):
            self.seen |= _PARTS
        elif self.tokens[self.at + 1].text == "::":
            if self._take().text != "child":
                self.seen |= _PARTS
            self._take()
        self._node_test()
        self._predicates()

    def _node_test(self) -> None:
        test = self._take()
        if self._skip("("):
            if self._next.kind == "literal":
                self._take()
            self._expect(")")
            self.seen |= _PARTS
        elif test.kind == "name":
            self._check_prefix(test)
            self.seen |= _PARTS if test.text == "item" else _PARTS & {test.text}
        elif test.text == "*":
            self.seen |= _PARTS
        else:
            raise self._refusal(test, f"expected a step, found {test.text!r}")

    def _predicates(self) -> None:
        while self._skip("["):
            self.predicates += 1
            self._nested()
            self.predicates -= 1
            self._expect("]")

    def _primary(self) -> str:
        token = self._take()
        if token.text == "$":
            raise self._refusal(token, f"variable {'$' + self._next.text!r} is not defined; there are none")
        if token.kind == "literal":
            self.literals.append(token.text[1:-1])
            return _STRING
        if token.kind == "number":
            return _NUMBER
        kind = self._nested()
        self._expect(")")
        return kind

    def _call(self) -> str:
        name = self._take()
        self._check_prefix(name)
        if name.text not in _FUNCTIONS:
            raise self._refusal(name, str(unknown_name("function", name.text, tuple(_FUNCTIONS))))
        self._take()
        arguments: list[tuple[_Token, str]] = []
        while self._next.text != ")":
            self._skip(",")
            arguments.append((self._next, self._nested()))
        self._take()
        self._check_call(name, arguments)
        return _FUNCTIONS[name.text][0]

    def _check_call(self, name: _Token, arguments: list[tuple[_Token, str]]) -> None:
        _, least, most = _FUNCTIONS[name.text]
        if not least <= len(arguments) <= most:
            takes = f"{least}" if least == most else f"at least {least}" if most > 3 else f"{least} to {most}"
            plural = "" if takes == "1" else "s"
            raise self._refusal(name, f"{name.text}() takes {takes} argument{plural}, found {len(arguments)}")
        if name.text in ("position", "last") and not self.predicates:
            raise self._refusal(name, f"{name.text}() has a meaning only inside '[...]'")
        if name.text in _TAKE_NODES and arguments:
            self._need_nodes(arguments[0][1], arguments[0][0], f"{name.text}()")
        if name.text in ("id", "lang") or (not arguments and most == 1):
            self.seen |= _PARTS
        if name.text not in ("boolean", "not", "count"):
            self._use_value(*(kind for _, kind in arguments))

    def _check_prefix(self, name: _Token) -> None:
        prefix, colon, _ = name.text.partition(":")
        if colon and prefix != "xml":
            raise self._refusal(name, f"prefix {prefix!r} is not defined; element names have none")
