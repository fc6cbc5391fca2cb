"""Text helpers: validation for Unicode and XML, and counts with their nouns for messages, tables and pages."""

from __future__ import annotations

import re
from typing import Final

NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""A character that XML 1.0 does not allow."""

_SINGULAR: Final = {"have": "has", "are": "is", "were": "was"}


def counted(count: int, one: str, many: str = "", *, of: int | None = None, verb: str = "") -> str:
    """Returns a count with its noun, and its verb if there is one.

    Args:
        count: how many.
        one: the noun, singular.
        many: an irregular plural of it.
        of: how many there are in all.
        verb: as it follows a plural.

    >>> counted(1, "row"), counted(2000, "class"), counted(0, "entry")
    ('1 row', '2,000 classes', '0 entries')
    >>> counted(2, "row", verb="have"), counted(1, "row", of=3, verb="have")
    ('2 rows have', '1 of 3 rows has')
    """
    total = count if of is None else of
    regular = re.sub("([^aeiou])y$", r"\1ie", one) + ("es" if one.endswith("s") else "s")
    text = f"{'' if of is None else f'{count:,} of '}{total:,} {one if total == 1 else many or regular}"
    return f"{text} {_SINGULAR.get(verb, f'{verb}s') if count == 1 else verb}" if verb else text


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
