"""Text helpers: validation for Unicode and XML, and counts with their nouns for messages, tables and pages."""

from __future__ import annotations

import re
from typing import Final

NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""A character that XML 1.0 does not allow."""


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
