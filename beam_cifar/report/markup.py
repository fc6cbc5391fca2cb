"""The environment of the HTML templates, and the formatting of names and numbers."""

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
"""Maximum bytes of a name, unless there are many names."""
MAX_SUBSETS: Final = 200
"""Subsets listed."""
MAX_LINES: Final = 50
"""Lines of other lists."""


@functools.cache
def template_environment() -> Environment:
    """Returns the template environment, which escapes every value and makes unprintable characters `visible`."""
    # Imported late: only reports need Jinja2, and importing it takes 20 ms.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_template), autoescape=True, finalize=_finalized, undefined=StrictUndefined
    )
    made.globals.update(NAME_BYTES=NAME_BYTES, MAX_SUBSETS=MAX_SUBSETS, MAX_LINES=MAX_LINES)
    made.globals.update(MAX_SHEETS=MAX_SHEETS, TILE_SIDE=TILE_SIDE, counted=counted)
    made.filters.update(cut=cut, number="{:,}".format, percent=percent, size=size_text)
    return made


def _template(name: str) -> str:
    # White space between inline elements is visible on a page; joining the lines lets templates be indented freely.
    text = (resources.files("beam_cifar.report") / "templates" / name).read_text("utf-8")
    return "".join(line.strip(" ") for line in text.splitlines())


def _finalized(value: Any) -> Any:
    # Jinja2 calls this for every {{ value }} before escaping it. A `~` between a value and markup would escape without
    # this call, and leave line breaks and lone surrogates in the page, so templates never use it.
    return value if hasattr(value, "__html__") else visible(str(value))


def visible(text: str) -> str:
    r"""Returns the text with unprintable characters and lone surrogates escaped.

    >>> print(visible("line\nbreak"))
    line\nbreak
    """
    if text.isprintable():
        return text
    return "".join(char if _shows(char) else char.encode("unicode_escape").decode() for char in text)


def _shows(char: str) -> bool:
    return char.isprintable() or char == "\N{NO-BREAK SPACE}"


def cut(text: str, most: int) -> str:
    """Returns the text, truncated with an ellipsis if needed, in at most `most` bytes of HTML.

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
    # `escape` writes quotes as &quot; and &#x27;, a byte longer than Jinja2's &#34; and &#39;: an upper bound.
    return escape(visible(text)).encode()


def percent(part: int, whole: int) -> str:
    """Returns a ratio in percent; 0 % and 100 % only if exact.

    >>> percent(1, 8), percent(1, 60_000)
    ('12.5 %', '< 0.1 %')
    """
    if part in (0, whole) or not whole:
        return "0 %" if not part else "100 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else "> 99.9 %" if share > 99.9 else f"{share:.1f} %"


def size_text(size: SizeCount) -> str:
    """Returns height and width, without a line break."""
    return f"{size.height:,}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{size.width:,}"
