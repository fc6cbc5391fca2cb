"""What a step is: a named change of a dataset, with options that the command line and Python share."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from beam_cifar.data.text import is_unicode
from beam_cifar.errors import UsageError

if TYPE_CHECKING:  # options are made of steps, and must be quick to import
    from beam_cifar.data.block import Block
    from beam_cifar.data.labels import LabelTable
    from beam_cifar.data.row_table import View

Number = TypeVar("Number", int, float)


class StepContext(ABC):
    """What a step may ask beside the rows, and where it leaves what it has to say."""

    @abstractmethod
    def notice(self, text: str) -> None:
        """Leaves one line that a user should know."""

    @abstractmethod
    def add_pixel_step(self, step: PixelStep) -> None:
        """From here on every image goes through a step, when it is written, and in `blocks`."""

    @abstractmethod
    def read_items(self, path: str, table: LabelTable) -> View:
        """The rows of a dataset in the format "items", with labels of a table."""

    @abstractmethod
    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        """Reads the images of a view as later steps see them, in any order of rows.

        Yields:
            Positions in the view, int64 `[M]`, and a block whose table has the images of these rows in this order.
        """


class Step(ABC):
    """A change of a dataset, decided in the plan.

    A step is a frozen dataclass, one field for each option, made by `option`. Values are checked when it is made.
    """

    name: ClassVar[str]
    """What users call it; as `columns`, given in the line of the class."""
    columns: ClassVar[frozenset[str]] = frozenset()
    """What `needs` returns, where that does not depend on options."""
    moves_ids: ClassVar[bool] = False
    """Whether items of one subset may come to have the same id: those that do get others right after it."""

    def __init_subclass__(cls, *, name: str | None = None, columns: Iterable[str] | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            cls.name = name
        if columns is not None:
            cls.columns = frozenset(columns)

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            if each.metadata.get("many"):
                try:
                    # The way around a frozen dataclass; what Python gave as a list is hashable from here on.
                    object.__setattr__(self, each.name, plain_tuple(getattr(self, each.name)))
                except UsageError as error:
                    raise self.refuse(f"{each.name}: {error}") from error
        self._check_types()
        self.check()

    def _check_types(self) -> None:
        """Refuses values of another type than an option has: as a bool, "no" would count as yes."""
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            fits = _FITS.get(str(each.type))
            if fits and not fits(value):
                raise self.refuse(f"option {each.name!r} is {value!r}; expected {each.type}")
            if not is_unicode(_text(value)):
                raise self.refuse(f"option {each.name!r} is {value!r}, which is not valid Unicode")

    def check(self) -> None:  # noqa: B027 (most steps have nothing to refuse)
        """Refuses values that cannot be meant. Raises `UsageError`."""

    def needs(self) -> frozenset[str]:
        """Columns of a view that the step looks at or changes: some of `beam_cifar.data.row_table.COLUMNS`."""
        return self.columns

    @abstractmethod
    def apply(self, view: View, context: StepContext) -> View:
        """The rows after the step.

        Raises:
            UsageError: a name that no class or subset has.
            InputError: a row that the step cannot take.
        """

    def options(self) -> dict[str, Any]:
        """The options by name, in values that JSON knows; those left at their default are left out."""
        found = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if each.default is dataclasses.MISSING or value != each.default:
                found[each.name] = _plain_list(value)
        return found

    def refuse(self, reason: str) -> UsageError:
        """The error for an option that cannot be meant."""
        return UsageError(f"{self.name}: {reason}")


@dataclass(frozen=True)
class PixelStep(Step, columns=("size",)):
    """A step that changes every image; the plan learns only what becomes of their sizes."""

    def apply(self, view: View, context: StepContext) -> View:
        made = self.resized(view)
        context.add_pixel_step(self)
        return made

    def resized(self, view: View) -> View:
        """The rows with the sizes that their images get; the same ones where nothing is said."""
        return view

    @abstractmethod
    def transform(self, block: Block) -> Block:
        """The block with its images changed."""

    def row_bytes(self) -> int:
        """Bytes that every image will have at least, where the step may make them larger."""
        return 0


def row_bytes(steps: Sequence[PixelStep]) -> int:
    """Bytes that every image will have at least."""
    return max((step.row_bytes() for step in steps), default=0)


def changed(block: Block, steps: Sequence[PixelStep]) -> Block:
    """The block after all of some steps."""
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
) -> Any:
    """A field of a step, and the flags of the command line that set it.

    Args:
        flags: such as "-s", "--subset".
        help: one line.
        default: the value where none is given; without one, the option must be given.
        parse: from a text of the command line to a value; raises `ValueError` with the reason.
        many: the flag may be repeated; the field is a tuple. In Python any iterable does, or a mapping for pairs.
        choices: what it may be.
        metavar: what help texts call the value.
    """
    kind = type(default) if default is not dataclasses.MISSING else str
    metadata = {"flags": flags, "help": help, "parse": parse, "many": many, "choices": choices, "metavar": metavar}
    if kind is bool:
        metadata["switch"] = True
    return field(default=default, metadata=metadata)


def pair(text: str) -> tuple[str, str]:
    """Splits "A:B" to (A, B); the last colon parts them, so that A may hold some."""
    first, colon, second = text.rpartition(":")
    if not colon:
        raise ValueError(f"expected A:B, found {text!r}")
    return first, second


def share(text: str) -> tuple[str, float]:
    """Splits "NAME:SHARE" to (name, number)."""
    return _numbered(text, float, "NAME:SHARE, such as train:.8")


def amount(text: str) -> tuple[str, int]:
    """Splits "NAME:COUNT" to (name, number)."""
    return _numbered(text, int, "NAME:COUNT, such as cat:5")


def _numbered(text: str, number: Callable[[str], Number], expected: str) -> tuple[str, Number]:
    name, value = pair(text)
    try:
        return name, number(value)
    except ValueError:
        raise ValueError(f"expected {expected}, found {text!r}") from None


def plain_tuple(value: Any) -> tuple[Any, ...]:
    """Any iterable, or mapping, of values or pairs, as tuples."""
    if isinstance(value, str):
        raise UsageError(f"expected several values, found the text {value!r}; put it into a list")
    items = value.items() if isinstance(value, Mapping) else value
    return tuple(tuple(item) if isinstance(item, (list, tuple)) else item for item in items)


def _is(*kinds: type) -> Callable[[Any], bool]:
    # A bool is an int to `isinstance`, but True is not a number that anybody means.
    return lambda value: isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _all(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a tuple has as many values as there are tests, and each passes its own."""
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
"""What values of a type pass, by how a step writes the type; those of other types all pass."""


def _text(value: Any) -> str:
    """All text in the value of an option."""
    if isinstance(value, tuple):
        return "".join(map(_text, value))
    return value if isinstance(value, str) else ""


def _plain_list(value: Any) -> Any:
    return [_plain_list(item) for item in value] if isinstance(value, tuple) else value
