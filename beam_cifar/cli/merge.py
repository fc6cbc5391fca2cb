"""`beam-cifar merge`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.jobs import input_of, job_options, perform
from beam_cifar.cli.parser import add_command, add_job
from beam_cifar.cli.terminal import scratch_folder
from beam_cifar.errors import UsageError
from beam_cifar.formats.registry import writable
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.survey import find_catalog


def add(commands: Any) -> None:
    command = add_command(commands, "merge", run)
    command.add_argument("paths", nargs="+", metavar="PATH[:FORMAT]", help="directories or archives, two or more")
    add_job(command, output=None)


def run(arguments: argparse.Namespace) -> None:
    """Merge datasets into one. Options that are not listed are handed to Beam."""
    perform(arguments, merge_options(arguments))


def merge_options(arguments: argparse.Namespace) -> ConvertOptions:
    """The options that a command line of `merge` stands for.

    Raises:
        InputError: the first dataset, whose format is wanted, is not there or not recognised.
        UsageError: options that cannot be meant.
    """
    first, *others = [input_of(text) for text in arguments.paths]
    if not others:
        raise UsageError(f"merge takes two datasets or more, in a row; found only {first.path!r}")
    output_format: str | None = arguments.output_format
    if output_format is None:
        with scratch_folder(arguments) as folder:
            output_format = find_catalog(first.path, first.format, folder).format
        if output_format not in writable():
            raise UsageError(f"-f is needed: {output_format} can be read, but not written")
    return ConvertOptions(
        input_path=first.path,
        output_dir=arguments.output_dir,
        output_format=output_format,
        input_format=first.format,
        merged=tuple(others),
        **job_options(arguments),
    )
