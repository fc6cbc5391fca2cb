"""`beam-cifar validate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from beam_cifar.cli.convert import beam_options_of
from beam_cifar.cli.tables import plain
from beam_cifar.errors import DifferencesError
from beam_cifar.start import quiet_workers
from beam_cifar.validation import Validation, validate
from beam_cifar.words import counted


def run(arguments: argparse.Namespace) -> None:
    """Prints what all checks found. Raises `DifferencesError` if that is too much."""
    options = beam_options_of(arguments)
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
