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
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_cifar.data.arrays import BoolArray, Int64Array
from beam_cifar.data.labels import UNLABELLED, unknown_name
from beam_cifar.data.schema import plain_labels
from beam_cifar.filters.xpath_static import NODE_SETS, read_syntax, refusal

if TYPE_CHECKING:
    import pyarrow as pa

FILTER_MODES = ("items", "annotations", "items+annotations")
"""What an expression selects; see `ItemFilter`."""

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_ANSWERS = 1 << 14


@dataclass(frozen=True)
class Decision:
    """What a filter does to the rows of a table.

    Attributes:
        rows: bool `[N]`, the rows that stay.
        labels: bool `[N]`, False where the row loses its label; True where there was none.
    """

    rows: BoolArray
    labels: BoolArray


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
        if self._of_annotations and kind not in NODE_SETS:
            reason = f"gives {kind}, but mode {self.mode!r} needs a path to annotations, as '/item/annotation[...]'"
            raise refusal(self.expression, 1, reason)

    @property
    def _of_annotations(self) -> bool:
        return self.mode != "items"

    @property
    def _evaluator(self) -> _Evaluator:
        return _evaluator(self.expression, self._of_annotations)

    @property
    def sees(self) -> frozenset[str]:
        """The children of `item` that can matter: of `id`, `subset`, `image` (the sizes) and `annotation`.

        Columns behind the others are not looked at. `xpath_static.Syntax` has the rule.
        """
        return self._evaluator.syntax.seen

    def decide(self, table: pa.Table, names: Sequence[str]) -> Decision:
        """Decides the rows of a table.

        Args:
            table: N rows with the columns `id`, `subset`, `height`, `width` and `label` of a block.
            names: class names; a label is an index in them.
        """
        import numpy as np

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
    What it can see is `xpath_static.Syntax.seen`; where `id` is among it, each row is evaluated.
    """

    def __init__(self, expression: str, of_annotations: bool) -> None:
        self.expression = expression
        self._compiled = _compile(expression)
        self.syntax = read_syntax(expression)
        self._of_annotations = of_annotations and self.syntax.kind in NODE_SETS
        self._answers: dict[_Facts, bool] = {}
        # Errors that depend on types show only when it runs: every shape of item is tried before any row is.
        trees = _Trees()
        for size in (None, (32, 32)):
            for label in (None, ("", 0)):
                self._matches(trees.tree(_Facts(size=size, label=label)))

    def select(self, table: pa.Table, names: Sequence[str]) -> BoolArray:
        """Bool `[N]`: whether the item, or its annotation, is selected."""
        import numpy as np

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

    def _groups(self, table: pa.Table, labels: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Groups rows that look alike: one row of each group, and the group `[N]` of each row."""
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
            raise refusal(self.expression, 1, _lower(error)) from error
        if self._of_annotations:
            return any(getattr(node, "tag", None) == "annotation" for node in result)
        return bool(result)

    def _remember(self, facts: _Facts, answer: bool) -> None:
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
        self._answers[facts] = answer


def _plain(column: pa.Array | pa.ChunkedArray) -> Int64Array:
    """An integer column as int64 `[N]`, -1 for null."""
    import numpy as np

    return np.asarray(column.fill_null(-1), dtype=np.int64)


def _compile(expression: str) -> Any:
    """Compiles an expression; libxml2 judges the grammar, and says at which byte it stopped."""
    etree = _etree()
    if not expression.strip():
        raise refusal(expression, 1, "the expression is empty")
    if bad := _NOT_XML.search(expression):
        raise refusal(expression, bad.start() + 1, f"character U+{ord(bad[0]):04X} cannot stand in XML")
    try:
        # EXSLT is not XPath 1.0; and smart strings would keep their tree, which changes with the next row.
        return etree.XPath(expression, regexp=False, smart_strings=False)
    except etree.XPathError as error:
        offset = max((entry.column for entry in error.error_log), default=0)
        before = expression.encode()[:offset].decode(errors="ignore")
        rest = expression[len(before) :]
        found = f"found {rest[:20]!r}" if rest else "the expression ends too early"
        raise refusal(expression, len(before) + 1, f"{_lower(error)}: {found}") from error


def _lower(error: Exception) -> str:
    return str(error)[:1].lower() + str(error)[1:]
