"""The base classes of steps: named changes of a dataset, with options shared by the command line and Python."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from beam_cifar.data.text import is_unicode
from beam_cifar.errors import UsageError

if TYPE_CHECKING:  # `options` imports steps, and must import fast
    from beam_cifar.data.block import Block
    from beam_cifar.data.labels import LabelTable
    from beam_cifar.data.row_table import View

Number = TypeVar("Number", int, float)


class StepContext(ABC):
    """What a step can use besides the rows, and where it reports notices."""

    @abstractmethod
    def notice(self, text: str) -> None:
        """Adds a one-line notice for the user."""

    @abstractmethod
    def add_pixel_step(self, step: PixelStep) -> None:
        """Adds a step that every image goes through from here on, when it is written and in `blocks`."""

    @abstractmethod
    def read_items(self, path: str, table: LabelTable) -> View:
        """Returns the rows of a dataset in the format "items", with labels from the given table."""

    @abstractmethod
    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        """Reads the images of a view as this step sees them, in any order.

        Yields:
            Positions in the view, int64 `[M]`, and a block whose table has the images of these rows in the same order.
        """


class Step(ABC):
    """A change of a dataset, applied to the plan.

    A step is a frozen dataclass with one field per option, created by `option`. Values are checked on construction.
    """

    name: ClassVar[str]
    """Name of the transform; given as the class keyword `named`."""
    columns: ClassVar[frozenset[str]] = frozenset()
    """The result of `needs`, if it does not depend on options; given as a class keyword."""
    moves_ids: ClassVar[bool] = False
    """Whether the step can give two items of a subset the same id; if so, repeated ids are replaced right after it."""
    only_drops: ClassVar[bool] = False
    """Whether the step only drops rows, by id, subset, label or place, so that bad ones can still be there."""
    reads: ClassVar[bool] = False
    """Whether the step reads images with `StepContext.blocks`."""

    # Not `name`: that is an argument of ABCMeta's own in Python 3.10.
    def __init_subclass__(cls, *, named: str | None = None, columns: Iterable[str] | None = None) -> None:
        super().__init_subclass__()
        if named is not None:
            cls.name = named
        if columns is not None:
            cls.columns = frozenset(columns)

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            if each.metadata.get("many"):
                try:
                    # A frozen dataclass allows no plain assignment; lists become tuples, so that steps are hashable.
                    object.__setattr__(self, each.name, plain_tuple(getattr(self, each.name)))
                except UsageError as error:
                    raise self.refuse(f"{each.name}: {error}") from error
        self._check_types()
        self.check()

    def _check_types(self) -> None:
        """Refuses values of the wrong type: as a bool, the text "no" would count as true."""
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            fits = _FITS.get(str(each.type))
            if fits and not fits(value):
                raise self.refuse(f"option {each.name!r} must be {each.type}, found {value!r}")
            if not is_unicode(_text(value)):
                raise self.refuse(f"option {each.name!r}: {value!r} is not valid Unicode")

    def check(self) -> None:  # noqa: B027 (most steps have nothing to refuse)
        """Raises `UsageError` for invalid values."""

    def needs(self) -> frozenset[str]:
        """Columns of a view that the step reads or changes: a subset of `beam_cifar.data.row_table.COLUMNS`."""
        return self.columns

    @abstractmethod
    def apply(self, view: View, context: StepContext) -> View:
        """Returns the rows after the step.

        Raises:
            UsageError: an unknown class or subset.
            InputError: a row that the step does not support.
        """

    def options(self) -> dict[str, Any]:
        """The options that determine the output and differ from their default, by name, as JSON values."""
        return self._given(paths=False)

    def paths(self) -> dict[str, Any]:
        """The other options, which no manifest has: paths of lists that the step writes."""
        return self._given(paths=True)

    def _given(self, *, paths: bool) -> dict[str, Any]:
        found = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            changed = each.default is dataclasses.MISSING or value != each.default
            if changed and bool(each.metadata.get("path")) == paths:
                found[each.name] = _plain_list(value)
        return found

    def refuse(self, reason: str) -> UsageError:
        """Returns the error for an invalid option."""
        return UsageError(f"{self.name}: {reason}")


@dataclass(frozen=True)
class PixelStep(Step, columns=("size",)):
    """A step that changes the pixels of every image; the plan records only the new sizes."""

    def apply(self, view: View, context: StepContext) -> View:
        made = self.resized(view)
        context.add_pixel_step(self)
        return made

    def resized(self, view: View) -> View:
        """Returns the rows with the new sizes of their images; default: unchanged."""
        return view

    @abstractmethod
    def transform(self, block: Block) -> Block:
        """Returns the block with its images changed."""

    def row_bytes(self) -> int:
        """Lower bound in bytes of every image after the step; 0 if the step does not enlarge images."""
        return 0


def row_bytes(steps: Sequence[PixelStep]) -> int:
    """Lower bound in bytes of every image after some steps."""
    return max((step.row_bytes() for step in steps), default=0)


def changed(block: Block, steps: Sequence[PixelStep]) -> Block:
    """Returns the block after the given steps."""
    for step in steps:
        block = step.transform(block)
    return block


def option(
    *flags: str,
    help: str,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] | None = None,
    many: bool = False,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    path: bool = False,
) -> Any:
    """Returns a field of a step, with the command-line flags that set it.

    Args:
        flags: such as "-s", "--subset".
        help: one line of help text.
        default: the default value; without one, the option is required.
        parse: converts the text given on the command line; raises `ValueError` with the reason.
        many: the flag may be repeated, and the field is a tuple; Python accepts any iterable, or a mapping for pairs.
        choices: valid values.
        metavar: name of the value in help texts.
        path: the value is the path of a list that the step writes, and does not change the rows.
    """
    kind = type(default) if default is not dataclasses.MISSING else str
    metadata = {"flags": flags, "help": help, "parse": parse, "many": many, "choices": choices, "metavar": metavar}
    metadata["path"] = path
    if kind is bool:
        metadata["switch"] = True
    return field(default=default, metadata=metadata)


def pair(text: str) -> tuple[str, str]:
    """Splits "A:B" into (A, B) at the last colon, so that A may contain colons."""
    first, colon, second = text.rpartition(":")
    if not colon:
        raise ValueError(f"expected A:B, found {text!r}")
    return first, second


def share(text: str) -> tuple[str, float]:
    """Splits "NAME:RATIO" into (name, number)."""
    return _numbered(text, float, "NAME:RATIO, such as train:.8")


def amount(text: str) -> tuple[str, int]:
    """Splits "NAME:COUNT" into (name, number)."""
    return _numbered(text, int, "NAME:COUNT, such as cat:5")


def _numbered(text: str, number: Callable[[str], Number], expected: str) -> tuple[str, Number]:
    name, value = pair(text)
    try:
        return name, number(value)
    except ValueError:
        raise ValueError(f"expected {expected}, found {text!r}") from None


def plain_tuple(value: Any) -> tuple[Any, ...]:
    """Converts an iterable or mapping of values or pairs to nested tuples."""
    if isinstance(value, str):
        raise UsageError(f"expected a list of values, found {value!r}; use [{value!r}]")
    items = value.items() if isinstance(value, Mapping) else value
    return tuple(tuple(item) if isinstance(item, (list, tuple)) else item for item in items)


def _is(*kinds: type) -> Callable[[Any], bool]:
    # To `isinstance` a bool is an int, but True as a number is always a mistake.
    return lambda value: isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _all(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Returns a test for tuples in which each value passes the test at its position."""
    return lambda value: (
        isinstance(value, tuple) and len(value) == len(tests) and all(t(v) for t, v in zip(tests, value, strict=True))
    )


def _many(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(test, value))


_FITS: dict[str, Callable[[Any], bool]] = {
    "bool": _is(bool),
    "int": _is(int),
    "int | None": _is(int, type(None)),
    "str": _is(str),
    "str | None": _is(str, type(None)),
    "tuple[str, ...]": _many(_is(str)),
    "tuple[tuple[str, str], ...]": _many(_all(_is(str), _is(str))),
    "tuple[tuple[str, int], ...]": _many(_all(_is(str), _is(int))),
    "tuple[tuple[str, float], ...]": _many(_all(_is(str), _is(int, float))),
}
"""Tests of option values by the annotation of the field; fields with other annotations are not tested."""


def _text(value: Any) -> str:
    """All text in an option value, concatenated."""
    if isinstance(value, tuple):
        return "".join(map(_text, value))
    return value if isinstance(value, str) else ""


def _plain_list(value: Any) -> Any:
    return [_plain_list(item) for item in value] if isinstance(value, tuple) else value
