"""Text: whether it is Unicode, and words that messages, tables and pages share."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """A number with what it counts: "1 row", "2,000 rows"; `many` where that is not `one` and an "s"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def is_unicode(text: str) -> bool:
    r"""Whether a text is valid Unicode: without lone surrogates, which no file in UTF-8 can hold.

    >>> is_unicode("café"), is_unicode("caf\udce9")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
