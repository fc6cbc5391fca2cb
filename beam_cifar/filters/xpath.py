"""Datumaro's item filter: an XPath 1.0 expression evaluated on every item, with libxml2.

Each row is an XML document of its own, as Datumaro encodes it for its `--filter`
(`datumaro/components/filter.py`, `DatasetItemEncoder`), without `image/path`, which differs between machines:

    item
      id, subset
      image              only where the row has an image
        height, width, has_data ("1")
      annotation         only where the row has a label
        id ("0"), type ("label"), group ("0"), label (the class name), label_id

Where the expression compares `subset` with a split (`subset="train"`), the subset of batches such as `data_batch_1` is
their split.
Characters not allowed in XML (NUL, other control characters, lone surrogates, U+FFFE, U+FFFF) are replaced by U+FFFD.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from beam_cifar.data.arrays import BoolArray, Int64Array
from beam_cifar.data.labels import UNLABELLED, unknown_name
from beam_cifar.data.schema import plain_labels
from beam_cifar.data.text import NOT_XML
from beam_cifar.filters.xpath_static import LONGEST, NODE_SETS, read_syntax, refusal
from beam_cifar.naming.subsets import split_name

if TYPE_CHECKING:
    import pyarrow as pa

FILTER_MODES = ("items", "annotations", "items+annotations")
"""What an expression selects; see `ItemFilter`."""

_MOST_ANSWERS = 1 << 14
_SHOWN = 40


@dataclass(frozen=True)
class Decision:
    """The result of a filter for the rows of a table.

    Attributes:
        rows: bool `[N]`, the rows to keep.
        labels: bool `[N]`, False for rows that lose their label; True for rows that had none.
    """

    rows: BoolArray
    labels: BoolArray


_COMPARED: Final = {
    name: (
        re.compile(rf"""\b{name}(?:/text\(\)|\s*\[\s*(?:text\(\)|\.))?\s*!?=\s*(["'])(.*?)\1""", re.DOTALL),
        re.compile(rf"""(["'])([^"']*)\1\s*!?=\s*(?:[\w./]*/)?{name}\b"""),
    )
    for name in ("subset", "label")
}
"""Comparisons of an element with a string."""


def _compared(expression: str, name: str) -> frozenset[str]:
    """Returns the strings that an element is compared with."""
    return frozenset(match[2] for pattern in _COMPARED[name] for match in pattern.finditer(expression))


@dataclass(frozen=True)
class ItemFilter:
    """An XPath expression and what it selects.

    Modes: `items` keeps the rows for which the result is true in Python's sense (a non-empty node set, a non-zero
    number, a non-empty string). `annotations` keeps all rows, and the labels whose `annotation` element is in the
    result; other nodes in the result are ignored. `items+annotations` then drops the rows without a label, including
    those that never had one.

    Args:
        expression: XPath 1.0; the context node is the `item` element.
        mode: one of `FILTER_MODES`.

    Raises:
        UsageError: an unknown mode, or an expression that is malformed, uses unknown functions or names, mixes up
            types, may take unbounded time, or does not return a node set where the mode needs one. The message has the
            column, from 1.
    """

    expression: str
    mode: str = "items"

    def __post_init__(self) -> None:
        if self.mode not in FILTER_MODES:
            raise unknown_name("filter mode", self.mode, FILTER_MODES)
        kind = self._evaluator.syntax.kind
        if self._of_annotations and kind not in NODE_SETS:
            reason = f"returns {kind}, but mode {self.mode!r} needs a path such as '/item/annotation[...]'"
            raise refusal(self.expression, 1, reason)

    @property
    def _of_annotations(self) -> bool:
        return self.mode != "items"

    @property
    def _evaluator(self) -> _Evaluator:
        return _evaluator(self.expression, self._of_annotations)

    @property
    def sees(self) -> frozenset[str]:
        """The children of `item` that can affect the result: some of `id`, `subset`, `image` (sizes) and `annotation`.

        Columns behind the others are not read. `xpath_static.Syntax` has the rule.
        """
        return self._evaluator.syntax.seen

    def decide(self, table: pa.Table, names: Sequence[str]) -> Decision:
        """Decides which rows and labels of a table to keep.

        Args:
            table: N rows with the columns `id`, `subset`, `height`, `width` and `label` of a block.
            names: class names, by label.
        """
        import numpy as np

        selected = self._evaluator.select(table, names)
        every = np.ones(len(table), dtype=np.bool_)
        if not self._of_annotations:
            return Decision(selected, every)
        kept = selected | (plain_labels(table) == UNLABELLED)
        return Decision(every if self.mode == "annotations" else selected, kept)

    def unknown_labels(self, names: Sequence[str]) -> list[str]:
        """Returns the strings that labels are compared with and that are no class, in order."""
        return sorted(_compared(self.expression, "label") - {*names})

    def hint(self, names: Sequence[str]) -> str:
        """Returns what to add to the message for a filter that selects nothing: similar class names.

        Returns:
            `"; did you mean 'dog'?"`, or "" if every string in the expression is a class or resembles none.
        """
        for literal in self._evaluator.syntax.literals:
            near = () if literal in names else difflib.get_close_matches(literal, names, n=3, cutoff=0.5)
            if near:
                return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
        return ""


def _etree() -> Any:
    """Returns the XML library, imported with the first filter."""
    from lxml import etree  # type: ignore[import-untyped]

    return etree


class _Facts(NamedTuple):
    """The values of a row that an expression can see; those that it cannot see have their default."""

    id: str = ""
    subset: str = ""
    size: tuple[int, int] | None = None
    label: tuple[str, int] | None = None


class _Trees:
    """One XML tree per shape of item, reused with new texts for every item. Not thread-safe."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, bool], tuple[Any, list[Any]]] = {}

    def tree(self, facts: _Facts) -> Any:
        """Returns the `item` element for some facts; the next call may change it."""
        shape = (facts.size is not None, facts.label is not None)
        if shape not in self._made:
            self._made[shape] = _make_tree(*shape)
        item, leaves = self._made[shape]
        texts = (facts.id, facts.subset, *(facts.size or ()), *(facts.label or ()))
        for leaf, text in zip(leaves, texts, strict=True):
            leaf.text = NOT_XML.sub("\ufffd", str(text))
        return item


def _make_tree(has_image: bool, has_label: bool) -> tuple[Any, list[Any]]:
    """Returns an item element, and its elements whose text varies, in the order of `_Facts`."""
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
    """Returns the compiled expression, cached per process. Raises `UsageError` for an invalid one."""
    return _Evaluator(expression, of_annotations)


class _Evaluator:
    """A compiled expression with a cache of its results; threads may share it.

    Rows that agree in everything that the expression can see (`xpath_static.Syntax.seen`) share one evaluation, also
    across tables. If it can see `id`, each row is evaluated.
    """

    def __init__(self, expression: str, of_annotations: bool) -> None:
        self.expression = expression
        self._compiled = _compile(expression)
        self.syntax = read_syntax(expression)
        self._of_annotations = of_annotations and self.syntax.kind in NODE_SETS
        self._compared = _compared(expression, "subset")
        self._answers: dict[_Facts, bool] = {}
        # Some type errors show only on evaluation: try every shape of item before the first row.
        trees = _Trees()
        for size in (None, (32, 32)):
            for label in (None, ("", 0)):
                self._matches(trees.tree(_Facts(size=size, label=label)))

    def select(self, table: pa.Table, names: Sequence[str]) -> BoolArray:
        """Returns whether each item, or its annotation, is selected: bool `[N]`."""
        import numpy as np

        labels = plain_labels(table)
        by_row = "id" in self.syntax.seen
        chosen, group = (np.arange(len(table)),) * 2 if by_row else self._groups(table, labels)
        trees = _Trees()
        answers = []
        most_text = self.syntax.most_text
        columns = table.select(["id", "subset", "height", "width"]).take(chosen)
        for facts in self._facts(columns, labels[chosen].tolist(), names):
            answer = None if by_row else self._answers.get(facts)
            if answer is None:
                if (text := len(facts.id) + len(facts.subset) + len(facts.label[0] if facts.label else "")) > most_text:
                    item = f"item {facts.id[:_SHOWN]!r} has {text:,} characters of text"
                    raise refusal(self.expression, 1, f"{item}; this expression can take at most {most_text:,}")
                answer = self._matches(trees.tree(facts))
                if not by_row:
                    self._remember(facts, answer)
            answers.append(answer)
        return np.array(answers, dtype=np.bool_)[group]

    def _groups(self, table: pa.Table, labels: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Groups rows that look the same to the expression: one row of each group, and the group `[N]` of each row."""
        import numpy as np

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
        """Returns the facts of each row."""
        seen, rows = self.syntax.seen, len(labels)
        ids = table.column("id").to_pylist() if "id" in seen else [""] * rows
        subsets = map(self._subset, table.column("subset").to_pylist()) if "subset" in seen else [""] * rows
        sizes: list[tuple[int, int] | None] = [None] * rows
        if "image" in seen:
            pairs = zip(table.column("height").to_pylist(), table.column("width").to_pylist(), strict=True)
            sizes = [None if None in pair else pair for pair in pairs]
        annotations: list[tuple[str, int] | None] = [None] * rows
        if "annotation" in seen:
            # A label outside the table is refused elsewhere; here its name is empty, as in Datumaro.
            annotations = [None if n == UNLABELLED else (names[n] if 0 <= n < len(names) else "", n) for n in labels]
        return map(_Facts, ids, subsets, sizes, annotations)

    def _subset(self, name: str) -> str:
        """Returns what an item's subset is to the expression: its split, if it is compared with that and not itself."""
        split = split_name(name)
        return split if split in self._compared and name not in self._compared else name

    def _matches(self, tree: Any) -> bool:
        try:
            result = self._compiled(tree)
        except _etree().XPathError as error:
            raise refusal(self.expression, 1, _lower(error)) from error
        if self._of_annotations:
            return any(getattr(node, "tag", None) == "annotation" for node in result)
        return bool(result)

    def _remember(self, facts: _Facts, answer: bool) -> None:
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[facts] = answer


def _plain(column: pa.Array | pa.ChunkedArray) -> Int64Array:
    """Returns an integer column as int64 `[N]`, with -1 for null."""
    import numpy as np

    return np.asarray(column.fill_null(-1), dtype=np.int64)


def _compile(expression: str) -> Any:
    """Compiles an expression; libxml2 checks the grammar and reports the byte at which it stopped."""
    etree = _etree()
    if not expression.strip():
        raise refusal(expression, 1, "the expression is empty")
    if len(expression) > LONGEST:
        raise refusal(expression, LONGEST + 1, f"the expression has {len(expression):,} characters, over {LONGEST:,}")
    if bad := NOT_XML.search(expression):
        raise refusal(expression, bad.start() + 1, f"character U+{ord(bad[0]):04X} is not allowed in XML")
    try:
        # No EXSLT, which is not XPath 1.0; no smart strings, which would keep a tree that changes with the next row.
        return etree.XPath(expression, regexp=False, smart_strings=False)
    except etree.XPathError as error:
        offset = max((entry.column for entry in error.error_log), default=0)
        before = expression.encode()[:offset].decode(errors="ignore")
        rest = expression[len(before) :]
        found = f"found {rest[:20]!r}" if rest else "the expression ends too early"
        raise refusal(expression, len(before) + 1, f"{_lower(error)}: {found}") from error


def _lower(error: Exception) -> str:
    return str(error)[:1].lower() + str(error)[1:]
