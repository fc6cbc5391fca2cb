"""Text as HTML: the environment of the templates, and how names and numbers are written in them."""

from __future__ import annotations

import functools
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from beam_cifar.analysis.stats import SizeCount
from beam_cifar.data.text import counted
from beam_cifar.report.model import MAX_SHEETS, TILE_SIDE

if TYPE_CHECKING:
    from jinja2 import Environment

NAME_BYTES: Final = 160
"""Bytes of a name, where there are few names."""
MAX_SUBSETS: Final = 200
"""Subsets that are listed."""
MAX_LINES: Final = 50
"""Lines of any other list."""


@functools.cache
def template_environment() -> Environment:
    """The templates; they escape every value, and make what does not show `visible`."""
    # Only a report needs Jinja2, and its import takes 20 ms.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_template), autoescape=True, finalize=_finalized, undefined=StrictUndefined
    )
    made.globals.update(NAME_BYTES=NAME_BYTES, MAX_SUBSETS=MAX_SUBSETS, MAX_LINES=MAX_LINES)
    made.globals.update(MAX_SHEETS=MAX_SHEETS, TILE_SIDE=TILE_SIDE, counted=counted)
    made.filters.update(cut=cut, number="{:,}".format, percent=percent, size=size_text)
    return made


def _template(name: str) -> str:
    # White space between inline elements shows, so lines are joined: templates can be indented and broken anywhere.
    text = (resources.files("beam_cifar.report") / "templates" / name).read_text("utf-8")
    return "".join(line.strip(" ") for line in text.splitlines())


def _finalized(value: Any) -> Any:
    # Jinja2 calls this for every {{ value }} before it escapes. A `~` between a value and markup escapes by itself,
    # and would leave line breaks and lone surrogates in the page: templates write the two one after the other.
    return value if hasattr(value, "__html__") else visible(str(value))


def visible(text: str) -> str:
    r"""The text with characters that do not show, or have no UTF-8, as escapes.

    >>> print(visible("line\nbreak"))
    line\nbreak
    """
    if text.isprintable():
        return text
    return "".join(char if _shows(char) else char.encode("unicode_escape").decode() for char in text)


def _shows(char: str) -> bool:
    return char.isprintable() or char == "\N{NO-BREAK SPACE}"


def cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most `most` bytes of HTML.

    >>> cut("a long name", 9)
    'a long…'
    """
    if len(text) * 10 <= most or len(_written(text)) <= most:
        return text
    low, high = 0, min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_written(text[:middle])) <= most - 3 else (low, middle - 1)
    return text[:low].rstrip() + "…"


def _written(text: str) -> bytes:
    # Jinja2 writes quotes in a byte less, as &#34; and &#39;: what fits here fits there.
    return escape(visible(text)).encode()


def percent(part: int, whole: int) -> str:
    """A share; never 0 % or 100 % for what is not.

    >>> percent(1, 8), percent(1, 60_000)
    ('12.5 %', '< 0.1 %')
    """
    if part in (0, whole) or not whole:
        return "0 %" if not part else "100 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else "> 99.9 %" if share > 99.9 else f"{share:.1f} %"


def size_text(size: SizeCount) -> str:
    """Height and width, which stay on one line."""
    return f"{size.height:,}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{size.width:,}"
