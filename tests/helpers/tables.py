"""The tables of formats and transforms that the pages hold, made from the registries."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from beam_cifar.formats.contract.sink import LOSSES
from beam_cifar.formats.registry import FORMATS, get_sink
from beam_cifar.steps.registry import STEPS, help_text, step_class
from tests.helpers import ROOT


def table_of_formats(folder: str = "docs/formats/") -> str:
    """The table of all formats, with links to their pages in a folder."""
    lines = ["| format | reads | writes | what it is | what writing loses |", "| --- | --- | --- | --- | --- |"]
    for name, entry in FORMATS.items():
        lost = (
            ", ".join(sorted(LOSSES[loss].partition(" (")[0] for loss in get_sink(name).can.losses))
            if entry.sink
            else ""
        )
        can = ("yes" if entry.source else "", "yes" if entry.sink else "")
        cells = (f"[`{name}`]({folder}{name}.md)", *can, entry.title, lost)
        lines.append("| " + " | ".join(cells).replace("|  |", "| |").replace("|  |", "| |").rstrip() + " |")
    return "\n".join(lines) + "\n"


def table_of_steps() -> str:
    """The table of all steps and their options."""
    lines = ["| transform | what it does | options |", "| --- | --- | --- |"]
    for name, entry in STEPS.items():
        options = []
        for field in dataclasses.fields(step_class(name)):  # type: ignore[arg-type]
            metavar = (field.metadata["metavar"] or "").replace("|", "\\|")
            value = "" if field.metadata.get("switch") else f" {metavar or _value_of(field)}"
            flags = list(field.metadata["flags"])
            shown = ", ".join(f"`{flag}`" for flag in flags[:-1]) + ", " * (len(flags) > 1)
            text = help_text(field).replace("|", "\\|")
            options.append(f"{shown}`{flags[-1]}{value}` (`{field.name}`): {text}")
        lines.append(f"| `{name}` | {entry.title} | {'<br>'.join(options)} |")
    return "\n".join(lines) + "\n"


def _value_of(field: dataclasses.Field[Any]) -> str:
    return "\\|".join(field.metadata["choices"]) or field.name.upper()


def documented_fields(command: str) -> str:
    """The cell of the page about `--json` that lists what a command prints."""
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{re.escape(command)}`[^|]* \| (.*) \|$", page, re.MULTILINE)
    assert row is not None
    return row[1]
