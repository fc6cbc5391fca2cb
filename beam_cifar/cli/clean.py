"""`beam-cifar clean`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.parser import add_command, add_json
from beam_cifar.cli.terminal import print_notices, print_result
from beam_cifar.data.text import counted

if TYPE_CHECKING:
    from beam_cifar.jobs.clean import Cleaned, Found


def add(commands: Any) -> None:
    command = add_command(commands, "clean", run)
    command.add_argument("output_dir", metavar="OUT", help="output path, whether or not it exists")
    command.add_argument("--list", action="store_true", help="list what would be removed, and change nothing")
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    """Remove what interrupted jobs left beside an output. First stop any job still running on a cluster."""
    from beam_cifar.jobs.clean import clean

    cleaned = clean(arguments.output_dir, remove=not arguments.list)
    print_result(arguments, asdict(cleaned), _shown(cleaned, removed=not arguments.list))
    if cleaned.incomplete and cleaned.found:
        hint = "it may be incomplete; convert again with --overwrite"
        print_notices([f"{cleaned.output} has no manifest and {hint}"])


def _shown(cleaned: Cleaned, *, removed: bool) -> list[str]:
    done = "completed" if removed else "would complete"
    lines = [f"{done} the output {cleaned.output}: only its manifest was missing"] if cleaned.completed else []
    if not cleaned.found:
        return [*lines, f"nothing to clean at {cleaned.output}"]
    files, size = sum(found.files for found in cleaned.found), sum(found.bytes for found in cleaned.found)
    verb = "removed" if removed else "would remove"
    lines.append(f"{verb} {counted(files, 'file')}, {size / 1e6:,.1f} MB, left by interrupted jobs at {cleaned.output}")
    return [*lines, *(f"  {_line(found)}" for found in cleaned.found)]


def _line(found: Found) -> str:
    if found.is_upload:
        return f"{found.path}: an incomplete upload"
    return f"{found.path}: {counted(found.files, 'file')}, {found.bytes / 1e6:,.1f} MB"
