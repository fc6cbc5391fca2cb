"""Text helpers: Unicode validation, and counts with their nouns for messages, tables and pages."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """Returns a count with its noun: "1 row", "2,000 rows"; `many` is an irregular plural, default: `one` + "s"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def is_unicode(text: str) -> bool:
    r"""Returns whether a text is valid Unicode, without lone surrogates, which UTF-8 cannot encode.

    >>> is_unicode("café"), is_unicode("caf\udce9")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
