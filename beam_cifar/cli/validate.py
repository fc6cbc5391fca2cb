"""`beam-cifar validate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.jobs import beam_options_of
from beam_cifar.cli.parser import add_command, add_reading, add_source
from beam_cifar.cli.terminal import plain
from beam_cifar.data.text import counted
from beam_cifar.errors import DifferencesError
from beam_cifar.pipeline.imports import quiet_workers

if TYPE_CHECKING:
    from beam_cifar.analysis.validate import Validation


def add(commands: Any) -> None:
    """Adds the command and its arguments."""
    text = "Read every image, and check a data set. Options that are not listed are handed to Beam."
    command = add_command(commands, "validate", run, text)
    add_source(command)
    command.add_argument("--strict", action="store_true", help="warnings count as errors")
    add_reading(command)


def run(arguments: argparse.Namespace) -> None:
    """Prints what all checks found. Raises `DifferencesError` if that is too much."""
    options = beam_options_of(arguments)
    from beam_cifar.analysis.validate import validate

    with quiet_workers(verbose=arguments.verbose):
        found = validate(arguments.path, arguments.input_format, beam_options=options)
    valid = found.is_valid(strict=arguments.strict)
    facts = _facts(found, valid)
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else "\n".join(_shown(found, valid)))
    if not valid:
        raise DifferencesError(f"{found.path}: is not valid: {_counts(found)}")


def _facts(found: Validation, valid: bool) -> dict[str, Any]:
    return {"valid": valid, "errors": found.count("error"), "warnings": found.count("warning"), **asdict(found)}


def _shown(found: Validation, valid: bool) -> Iterator[str]:
    yield f"{found.title} ({found.format}) at {found.path}: {counted(found.rows, 'row')}"
    for finding in found.findings:
        yield f"{finding.severity:<8} {finding.check:<12} {plain(finding.text)}"
        yield from (f"{'':<21} {plain(example)}" for example in finding.examples)
    yield f"{'valid' if valid else 'not valid'}: {_counts(found)}"


def _counts(found: Validation) -> str:
    return f"{counted(found.count('error'), 'error')}, {counted(found.count('warning'), 'warning')}"
