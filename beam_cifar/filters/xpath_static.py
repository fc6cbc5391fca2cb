"""Static analysis of XPath 1.0: errors that libxml2 finds late, the parts of an item that matter, and bounded work."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from beam_cifar.data.labels import unknown_name
from beam_cifar.errors import UsageError

PARTS = frozenset({"id", "subset", "image", "annotation"})
"""The parts of an item."""

# libxml2 checks functions, their arguments, variables, prefixes and types only on evaluation, and then reports errors
# without a position, or, after `and`, `or` and empty node sets, not at all. In XPath 1.0 the text alone decides them.

_NUMBER, _STRING, _BOOLEAN, _NODES = "a number", "a string", "a boolean", "a node set"
_ITEM = "a node set with the item"
NODE_SETS = (_NODES, _ITEM)

_LIBRARY = {
    _NODES: "id:1",
    _NUMBER: "count:1 last:0 position:0 number:0-1 string-length:0-1 sum:1 floor:1 ceiling:1 round:1",
    _STRING: "name:0-1 local-name:0-1 namespace-uri:0-1 string:0-1 normalize-space:0-1 concat:2-999999 "
    "substring:2-3 substring-before:2 substring-after:2 translate:3",
    _BOOLEAN: "boolean:1 not:1 true:0 false:0 lang:1 contains:2 starts-with:2",
}
"""The core library (XPath 1.0, section 4): result type and number of arguments of each function."""

_FUNCTIONS = {
    name: (kind, int(counts[0]), int(counts[-1]))
    for kind, functions in _LIBRARY.items()
    for name, *counts in (re.split("[:-](?=[0-9])", function) for function in functions.split())
}
_TAKE_NODES = frozenset({"count", "sum", "name", "local-name", "namespace-uri"})
_NODE_TYPES = frozenset({"node", "text", "comment", "processing-instruction"})
_LEVELS = ("or", "and", "= !=", "< <= > >=", "+ -", "* div mod")
_OPERATORS = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs.split()}
"""Precedence of the binary operators except `|`."""

_NAME = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f][^\x00-\x2c\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]*"
_TOKEN = re.compile(
    r"""(?P<literal>"[^"]*"|'[^']*')"""
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"  # libxml2 accepts exponents too
    rf"|(?P<name>{_NAME}(?::(?!:)(?:{_NAME}|\*))?)"
    r"|(?P<sign>::|//|\.\.|[!<>]=|[^ \t\r\n])"
)
_DEEPEST = 32
_LONGEST_SHOWN = 300

LONGEST = 1 << 16
"""Characters of the longest expression; one that names 1000 classes has half."""

MOST_VISITS = 50_000
"""Nodes that an expression may visit in one item, some 5 ms: `//label` visits 29, a list of 1000 labels 14,000."""

_MOST_STEPS = 10**10
"""The steps that its string functions may take in one item, by an estimate that is 16 to 64 times too high."""

_LEAST_TEXT = 256

# The largest tree of an item: `xpath._make_tree`.
NODES, ELEMENTS, SAME_NAME, CHILDREN, DEPTH = 24, 13, 2, 5, 4
_WIDTHS = {"child": CHILDREN, "following-sibling": CHILDREN, "preceding-sibling": CHILDREN, "namespace": 2}
_WIDTHS |= {"ancestor": DEPTH, "ancestor-or-self": DEPTH, "parent": 1, "self": 1, "attribute": 1}
"""The most nodes on an axis; on those left out, all."""
_DISJOINT = frozenset({"child", "self", "attribute", "namespace"})
"""Axes on which no node is reached from two others."""
_QUADRATIC = frozenset({"contains", "substring-before", "substring-after", "translate"})


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


@dataclass(frozen=True)
class Syntax:
    """The result of analysing an expression.

    Attributes:
        kind: the type of the result.
        seen: the children of `item` that the result may depend on: those named in the expression if it provably reaches
            no others, and all otherwise. It reaches no others if every path consists of `child` steps by name, with
            `item` as the first step after a leading `/`; if the text of an item is not used, so that a path ending at
            `item` occurs only where its existence matters (as result or predicate, with `and` or `or`, in `boolean`,
            `not` or `count`); and if no function reads the context node or looks up nodes (`string()`, `lang`, `id`).
            Hence `.`, `..`, `*`, `//`, `/`, `@`, other axes and node tests such as `text()` see all.
        literals: the strings in the expression, in order.
        most_text: the characters of text up to which an item can be evaluated in bounded time.
    """

    kind: str
    seen: frozenset[str]
    literals: tuple[str, ...]
    most_text: int


class _Reader:
    """A recursive-descent parser for expressions that libxml2 accepted: finds types, names, the parts seen, and work.

    Work is bounded before the first evaluation, since libxml2 cannot be interrupted: a predicate is evaluated for every
    node before it, so that `//*[//*[...]]` costs 13 times as much with every level. Paths of `contexts` nodes are
    followed in the largest tree of an item, as if every predicate kept everything.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.tokens = [_Token(str(m.lastgroup), m[0], m.start() + 1) for m in _TOKEN.finditer(expression)]
        self.tokens += [_Token("end", "", len(expression) + 1)] * 2
        self.at = self.depth = self.predicates = 0
        self.seen: set[str] = set()
        self.literals: list[str] = []
        self.times = 1  # how often an item evaluates what is being read
        self.visits = self.compared = 0

    def read(self) -> Syntax:
        kind = self._operation()
        self._expect("")
        # The largest text for which visits * text + compared * text**2 stays below the limit.
        a, b = self.compared, self.visits + 1
        most = _MOST_STEPS // b if not a else (math.isqrt(b * b + 4 * a * _MOST_STEPS) - b) // (2 * a)
        most -= max(map(len, self.literals), default=0)
        if most < _LEAST_TEXT:
            found = f"searches in texts are too many, or too deeply nested, for items of {_LEAST_TEXT} characters"
            raise refusal(self.expression, 1, f"{found}; use fewer, or '=' instead of contains()")
        return Syntax(kind, frozenset(self.seen), tuple(self.literals), most)

    def _visit(self, nodes: int) -> None:
        """Counts nodes that an evaluation visits."""
        self.visits += self.times * nodes
        if self.visits > MOST_VISITS:
            inside = f" in {self.predicates} nested '[...]'" if self.predicates else ""
            reason = f"up to here{inside}, each item takes over {MOST_VISITS:,} visits to nodes"
            raise self.refusal(self._next, f"{reason}; write '/item/annotation/label' instead of '//' and '*'")

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
            raise self.refusal(self._next, f"expected {text or 'the end'!r}, found {self._next.text!r}")

    def refusal(self, token: _Token, reason: str) -> UsageError:
        return refusal(self.expression, token.column, reason)

    def _need_nodes(self, kind: str, token: _Token, what: str) -> None:
        if kind not in NODE_SETS:
            raise self.refusal(token, f"{what} needs a node set, found {kind}")

    def _use_value(self, *kinds: str) -> None:
        """Records that the values of nodes are used, not only their existence: the text of an item is all its texts."""
        if _ITEM in kinds:
            self.seen |= PARTS

    def _nested(self) -> str:
        """Reads an expression in brackets; nesting is limited, because Python's stack is smaller than libxml2's."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.refusal(self._next, f"brackets are nested more than {_DEEPEST} deep")
        kind = self._operation()
        self.depth -= 1
        return kind

    def _operation(self, weakest: int = 0) -> str:
        left = self._negation()
        while (level := _OPERATORS.get(self._next.text, -1)) >= weakest:
            operator = self._take().text
            self._visit(1)
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
        self._visit(1)
        if self._next.text in ("[", "/", "//"):
            self._need_nodes(kind, first, repr(self._next.text))
        self._predicates(NODES)
        if self._next.text in ("/", "//"):
            self._steps(NODES)
            return _NODES
        return kind

    def _location(self) -> str:
        """Reads a path that starts with a step or a slash."""
        contexts = 1
        if self._next.text == "/":
            step = self.tokens[self.at + 1]
            if step.text == "item":
                self.at += 2
                self._visit(1)
                self._predicates(1)
                if self._next.text not in ("/", "//"):
                    return _ITEM
            elif step.kind != "name" and step.text not in (".", "..", "@", "*"):
                self._take()
                self._visit(1)
                self.seen |= PARTS
                return _NODES
        elif self._next.text != "//":
            contexts = self._step(1)
        self._steps(contexts)
        return _NODES

    def _steps(self, contexts: int) -> None:
        while self._next.text in ("/", "//"):
            if self._take().text == "//":
                self.seen |= PARTS
                self._visit(contexts * NODES)
                contexts = NODES
            contexts = self._step(contexts)

    def _step(self, contexts: int) -> int:
        """Reads a step from some nodes, and returns to how many it leads."""
        axis = "child"
        if self._next.text in (".", ".."):
            self._take()
            self._visit(contexts)
            self.seen |= PARTS
            return contexts
        if self._skip("@"):
            axis = "attribute"
        elif self.tokens[self.at + 1].text == "::":
            axis = self._take().text
            self._take()
        if axis != "child":
            self.seen |= PARTS
        different = self._node_test()
        if axis == "namespace":
            different = NODES  # each element has its own, all of one name
        width = _WIDTHS.get(axis, NODES)
        visited, matched = contexts * width, contexts * min(width, different)
        if axis == "child" and different == SAME_NAME:
            matched = contexts  # no node has two children of one name
        if axis in _DISJOINT:
            visited, matched = min(visited, NODES), min(matched, different)
        self._visit(visited)
        self._predicates(matched)
        return min(matched, different)

    def _node_test(self) -> int:
        """Reads a node test, and returns how many nodes pass it."""
        test = self._take()
        if self._skip("("):
            if self._next.kind == "literal":
                self._take()
            self._expect(")")
            self.seen |= PARTS
            return NODES
        if test.kind == "name":
            self._check_prefix(test)
            self.seen |= PARTS if test.text == "item" else PARTS & {test.text}
            return SAME_NAME
        if test.text != "*":
            raise self.refusal(test, f"expected a step, found {test.text!r}")
        self.seen |= PARTS
        return ELEMENTS

    def _predicates(self, times: int) -> None:
        while self._skip("["):
            outside, self.times = self.times, self.times * times
            self.predicates += 1
            self._visit(1)
            self._nested()
            self.predicates -= 1
            self.times = outside
            self._expect("]")

    def _primary(self) -> str:
        token = self._take()
        if token.text == "$":
            raise self.refusal(token, f"variable {'$' + self._next.text!r} is not defined; variables are not supported")
        if token.kind == "literal":
            self.literals.append(token.text[1:-1])
            return _STRING
        if token.kind == "number":
            return _NUMBER
        kind = self._nested()
        self._expect(")")
        return kind

    def _call(self) -> str:
        start, name = self.at, self._take()
        self._check_prefix(name)
        if name.text not in _FUNCTIONS:
            raise self.refusal(name, str(unknown_name("function", name.text, tuple(_FUNCTIONS))))
        self._take()
        arguments: list[tuple[_Token, str]] = []
        while self._next.text != ")":
            self._skip(",")
            arguments.append((self._next, self._nested()))
        self._take()
        self._check_call(name, arguments)
        if name.text in _QUADRATIC:
            # Its arguments are at most as many texts as it has tokens, and it may take each character with each other.
            self.compared += self.times * (self.at - start) ** 2
        return _FUNCTIONS[name.text][0]

    def _check_call(self, name: _Token, arguments: list[tuple[_Token, str]]) -> None:
        _, least, most = _FUNCTIONS[name.text]
        if not least <= len(arguments) <= most:
            takes = f"{least}" if least == most else f"at least {least}" if most > 3 else f"{least} to {most}"
            plural = "" if takes == "1" else "s"
            raise self.refusal(name, f"{name.text}() takes {takes} argument{plural}, found {len(arguments)}")
        if name.text in ("position", "last") and not self.predicates:
            raise self.refusal(name, f"{name.text}() is only valid inside '[...]'")
        if name.text in _TAKE_NODES and arguments:
            self._need_nodes(arguments[0][1], arguments[0][0], f"{name.text}()")
        if name.text in ("id", "lang") or (not arguments and most == 1):
            self.seen |= PARTS
        if name.text not in ("boolean", "not", "count"):
            self._use_value(*(kind for _, kind in arguments))

    def _check_prefix(self, name: _Token) -> None:
        prefix, colon, _ = name.text.partition(":")
        if colon and prefix != "xml":
            raise self.refusal(name, f"prefix {prefix!r} is not defined; element names have no prefix")


def read_syntax(expression: str) -> Syntax:
    """Analyses an expression that libxml2 accepted.

    Raises:
        UsageError: an unknown function, prefix or variable, a wrong number of arguments, a value where a node set is
            needed, or more work than `MOST_VISITS`.
    """
    return _Reader(expression).read()


def refusal(expression: str, column: int, reason: str) -> UsageError:
    """Returns the error for an expression; columns count from 1."""
    shown = expression if len(expression) <= _LONGEST_SHOWN else expression[:_LONGEST_SHOWN] + "..."
    return UsageError(f"--filter {shown!r}: column {column}: {reason}")
