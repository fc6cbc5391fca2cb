"""`--print-completion`: shell scripts that complete commands, options, option values and file names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh", "tcsh", "fish")
_PATHS = ("PATH", "PATH[:FORMAT]", "A[:FORMAT]", "B[:FORMAT]", "OUT", "DIR", "FILE")
"""Metavars of the arguments that are files or directories."""


class PrintCompletion(argparse.Action):
    """Prints the script for a shell and exits; unlike `shtab.add_argument_to`, imports shtab only when used."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Prints the script and exits."""
        import shtab  # would add 40 ms to every start

        for action in _actions(parser):
            if action.metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, str(values)))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
