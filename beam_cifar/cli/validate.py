"""`beam-cifar validate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.jobs import images_of, reading_job
from beam_cifar.cli.parser import add_command, add_reading, add_reading_of_images, add_source
from beam_cifar.cli.terminal import print_result
from beam_cifar.data.text import counted
from beam_cifar.errors import DifferencesError

if TYPE_CHECKING:
    from beam_cifar.analysis.validate import Validation


def add(commands: Any) -> None:
    command = add_command(commands, "validate", run)
    add_source(command)
    command.add_argument("--strict", action="store_true", help="treat warnings as errors")
    add_reading_of_images(command)
    add_reading(command)


def run(arguments: argparse.Namespace) -> None:
    """Read every image and check a dataset for problems. Options not listed here are passed to Beam."""
    with reading_job(arguments) as options:
        from beam_cifar.analysis.tally import EXAMPLES, MAX_LISTED
        from beam_cifar.analysis.validate import validate

        found = validate(
            arguments.path,
            arguments.input_format,
            images=images_of(arguments),
            listed=MAX_LISTED if arguments.json else EXAMPLES,
            beam_options=options,
        )
    valid = found.is_valid(strict=arguments.strict)
    counts = {"errors": found.count("error"), "warnings": found.count("warning")}
    print_result(arguments, {"valid": valid, **counts, **asdict(found)}, _shown(found, valid))
    if not valid:
        raise DifferencesError(f"{found.path}: not valid: {_counts(found)}")


def _shown(found: Validation, valid: bool) -> Iterator[str]:
    yield f"{found.title} ({found.format}) at {found.path}: {counted(found.rows, 'row')}"
    for finding in found.findings:
        yield f"{finding.severity:<8} {finding.check:<12} {finding.text}"
        yield from (f"{'':<21} {example}" for example in finding.examples)
    yield f"{'valid' if valid else 'not valid'}: {_counts(found)}"


def _counts(found: Validation) -> str:
    return f"{counted(found.count('error'), 'error')}, {counted(found.count('warning'), 'warning')}"
