"""The page of all commands and flags, made from the parser, so that it cannot say anything else than `--help`."""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator

INTRODUCTION = (
    "Options of transforms are in [Transforms](../transforms.md), "
    "exit codes in [Guarantees](../guarantees.md#exit-codes)."
)
TITLES = {"positional arguments": "Arguments", "options": "Flags", "exporter options": "Exporter flags"}
"""How the page calls the groups of arguments that the parser has."""


def cli_reference(parser: argparse.ArgumentParser) -> str:
    """The page, in Markdown.

    Args:
        parser: of the program; its commands are subparsers.
    """
    lines = ["# Command line", "", _plain(parser.description or ""), "", INTRODUCTION, "", *_described(parser)]
    if parser.epilog:
        examples = [line.strip() for line in parser.epilog.splitlines()[1:]]
        lines += ["Examples:", "", "```bash", *examples, "```", ""]
    for name, command in commands_of(parser).items():
        lines += [f"## {name}", "", _plain(command.description or ""), "", *_described(command)]
    return "\n".join(lines)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands, by name."""
    kinds = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: command for kind in kinds for name, command in kind.choices.items()}


def _described(parser: argparse.ArgumentParser) -> Iterator[str]:
    """How a parser is called, and a table for each group of its arguments."""
    # Not `format_usage`, which is as wide as the terminal.
    formatter = argparse.HelpFormatter(parser.prog, width=90)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    yield from ("```text", formatter.format_help().strip(), "```", "")
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if not isinstance(each, argparse._SubParsersAction)]
        if not actions:
            continue
        title = TITLES.get(group.title or "", group.title or "")
        yield f"**{_plain(title)}**" + (f", {_plain(group.description)}" if group.description else "")
        yield from ("", "| name | value | meaning |", "| --- | --- | --- |")
        for action in actions:
            yield f"| {_names(action)} | {_value(action)} | {_meaning(action)} |"
        yield ""


def _names(action: argparse.Action) -> str:
    return ", ".join(f"`{name}`" for name in action.option_strings or [str(action.metavar or action.dest)])


def _value(action: argparse.Action) -> str:
    if not action.option_strings or action.nargs == 0:
        return ""
    return f"`{action.metavar or action.dest.upper()}`"


def _meaning(action: argparse.Action) -> str:
    """The help text, and the values to choose from where it does not have them."""
    text = _plain(action.help or "") + (" (required)" if action.required and action.option_strings else "")
    words = set(re.findall(r"[\w+-]+", action.help or ""))
    if action.choices is None or set(map(str, action.choices)) <= words:
        return text
    return f"{text}<br>one of: {', '.join(f'`{choice}`' for choice in action.choices)}"


def _plain(text: str) -> str:
    """A text in which Markdown finds nothing to mark up."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text, quote=False))
