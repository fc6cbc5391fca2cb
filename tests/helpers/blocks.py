"""The blocks of code in a page, and what a shell would make of those with commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.helpers import ROOT

RUN = ("bash", "python")
SHOWN = ("", "text", "json", "xml", "yaml")
"""Languages of blocks that show something, and are not run."""

REASONS = (
    "set-up",
    "needs a bucket",
    "needs a cluster",
    "needs Dataflow",
    "needs other libraries",
    "needs the network",
)
"""Why a block may be left out: what a comment says in the line before it, `<!-- not run: needs a bucket -->`."""

_FENCE = re.compile(r"( *)```(\w*) *$")
_MARK = re.compile(r" *<!-- not run: (.*) -->$")
_PARTING = frozenset({"&&", "||", ";", "|", "&", "(", ")"})


@dataclass(frozen=True)
class Block:
    """A block between fences.

    Attributes:
        page: the file, from the top of the repository.
        line: of its first line of code.
        language: what stands behind the first fence.
        code: without the indentation that the fences have.
        reason: why it is not run; None if it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def runs(self) -> bool:
        """Whether it must work where the tests run."""
        return self.language in RUN and self.reason is None

    @property
    def place(self) -> str:
        """How messages name it."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order; a fence that is left open is refused."""
    name, lines = page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8").splitlines()
    found, start, language = [], None, ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if start is None and fence:
            start, language = number, fence[2]
        elif start is not None and fence and not fence[2]:
            mark = _MARK.match(lines[start - 2]) if start > 1 else None
            code = dedent("\n".join(lines[start : number - 1])) + "\n"
            found.append(Block(name, start + 1, language, code, mark[1] if mark else None))
            start = None
    if start is not None:
        raise ValueError(f"{name}:{start}: this block has no end")
    return found


def marks_of(page: Path) -> int:
    """How many comments of a page say that a block is not run."""
    return sum(bool(_MARK.match(line)) for line in page.read_text(encoding="utf-8").splitlines())


def commands_of(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block for a shell, with their arguments as they are typed."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in words:
            if word in _PARTING:
                yield command
                command = []
            else:
                command.append(word)
        yield command
