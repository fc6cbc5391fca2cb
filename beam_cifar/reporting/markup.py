"""HTML without templates: every text is escaped unless it is markup already."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset({"col", "img", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str | None, **attributes: str | int | None) -> Markup:
    """An element; content that is no `Markup` is escaped, None is left out.

    Args:
        tag: its name.
        content: texts and markup, in order.
        attributes: by name, `_` standing for `-`, one at the end dropped (`class_`); None is left out.
    """
    start = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(visible(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{start}>" if tag in _VOID else f"<{tag}{start}>{joined(*content)}</{tag}>")


def joined(*content: str | None) -> Markup:
    """Several pieces, one after the other; see `element`."""
    return Markup("".join(part if isinstance(part, Markup) else escape(visible(part)) for part in content if part))


def name(text: str) -> Markup:
    """A name from the data, in a direction of its own: Hebrew does not turn the text around it."""
    return element("bdi", text or "(empty)")


def visible(text: str) -> str:
    r"""The text with what does not show, or cannot be written as UTF-8, as an escape such as `\n` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if _shows(char) else char.encode("unicode_escape").decode() for char in text)


def _shows(char: str) -> bool:
    return char.isprintable() or char == "\N{NO-BREAK SPACE}"


def cut(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, in at most so many bytes of HTML."""
    if len(text) * 10 <= most or len(_written(text)) <= most:
        return text
    low, high = 0, min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_written(text[:middle])) <= most - 3 else (low, middle - 1)
    return text[:low].rstrip() + "…"


def _written(text: str) -> bytes:
    return escape(visible(text)).encode()


def number(value: int) -> str:
    """A count with separators."""
    return f"{value:,}"


def percent(part: int, whole: int) -> str:
    """A share, such as "12.5 %"; never 0 or 100 for what is not."""
    if part in (0, whole) or not whole:
        return "0 %" if not part else "100 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else "> 99.9 %" if share > 99.9 else f"{share:.1f} %"
