"""`beam-cifar convert`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from beam_cifar.cli.jobs import input_of, job_options, output_of, perform, stem_of
from beam_cifar.cli.parser import add_command, add_input_format, add_job
from beam_cifar.options import ConvertOptions


def add(commands: Any) -> None:
    command = add_command(commands, "convert", run)
    add = command.add_argument
    add("-i", "--input-path", required=True, metavar="PATH", help="directory, archive or file to read")
    add_input_format(command)
    add("--merge", action="append", default=[], metavar="PATH[:FORMAT]",
        help="a further dataset, merged with the first before anything else is done (repeatable)")  # fmt: skip
    add("--subset", action="append", default=[], metavar="NAME",
        help="keep a subset (repeatable); train and test stand for all their batches")  # fmt: skip
    add_job(command, output="<source>-<format> here if left out")


def run(arguments: argparse.Namespace) -> None:
    """Convert a dataset into another format. Options that are not listed are handed to Beam."""
    perform(arguments, options_of(arguments))


def options_of(arguments: argparse.Namespace) -> ConvertOptions:
    """The options that a command line of `convert` stands for. Raises `UsageError`."""
    subsets = tuple(arguments.subset)
    return ConvertOptions(
        input_path=arguments.input_path,
        output_dir=output_of(arguments, stem_of(arguments.input_path)),
        output_format=arguments.output_format,
        input_format=arguments.input_format,
        subsets=subsets,
        merged=tuple(replace(input_of(text), subsets=subsets) for text in arguments.merge),
        **job_options(arguments),
    )
