"""Docstrings end with an example that has no heading of its own; on the site it gets one."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Gives the example of a docstring a heading, as the parser of Google's style wants it."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Changes the docstring of a class, a function or an attribute, where it has an example."""
        if obj.docstring:
            obj.docstring.value = with_heading(obj.docstring.value)


def with_heading(text: str) -> str:
    """A docstring whose example is a section."""
    return re.sub(r"\n\n(>>> .*)\Z", _section, text, flags=re.DOTALL)


def _section(match: re.Match[str]) -> str:
    return "\n\nExamples:\n" + re.sub("^(?=.)", "    ", match[1], flags=re.MULTILINE)
