"""`beam-cifar merge`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.jobs import images_of, input_of, job_options, perform
from beam_cifar.cli.parser import add_command, add_job
from beam_cifar.cli.terminal import scratch_folder
from beam_cifar.errors import UsageError
from beam_cifar.formats.registry import WRITE
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.survey import find_catalog


def add(commands: Any) -> None:
    command = add_command(commands, "merge", run)
    command.add_argument("paths", nargs="+", metavar="PATH[:FORMAT]", help="two or more directories, archives or files")
    add_job(command, output=None)


def run(arguments: argparse.Namespace) -> None:
    """Merge datasets into one. Options not listed here are passed to Beam."""
    perform(arguments, merge_options(arguments))


def merge_options(arguments: argparse.Namespace) -> ConvertOptions:
    """The options given on a `merge` command line.

    Raises:
        InputError: without `-f`, the first dataset is missing or its format is not recognised.
        UsageError: invalid options.
    """
    first, *others = [input_of(text) for text in arguments.paths]
    if not others:
        raise UsageError(f"merge needs at least two datasets, found only {first.path!r}")
    output_format: str | None = arguments.output_format
    if output_format is None:
        with scratch_folder(arguments) as folder:
            output_format = find_catalog(first.path, first.format, folder).format
        if output_format not in WRITE:
            raise UsageError(f"-f is required, because {output_format} can be read but not written")
    return ConvertOptions(
        input_path=first.path,
        output_dir=arguments.output_dir,
        output_format=output_format,
        input_format=first.format,
        merged=tuple(each.reading(images_of(arguments)) for each in others),
        **job_options(arguments),
    )
