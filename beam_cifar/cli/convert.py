"""`beam-cifar convert`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from beam_cifar.cli.jobs import images_of, input_of, job_options, output_of, perform
from beam_cifar.cli.parser import add_command, add_input_format, add_job
from beam_cifar.options import ConvertOptions
from beam_cifar.storage import archives


def add(commands: Any) -> None:
    command = add_command(commands, "convert", run)
    add = command.add_argument
    add("-i", "--input-path", required=True, metavar="PATH", help="directory, archive or file to read")
    add_input_format(command)
    add("--merge", action="append", default=[], metavar="PATH[:FORMAT]",
        help="another dataset to merge with the first, before any selection (repeatable)")  # fmt: skip
    add("--subset", action="append", default=[], metavar="NAME",
        help="keep only this subset (repeatable); train and test select all their batches")  # fmt: skip
    add_job(command, output="<source>-<format> in the current directory")


def run(arguments: argparse.Namespace) -> None:
    """Convert a dataset to another format. Options not listed here are passed to Beam."""
    perform(arguments, options_of(arguments))


def options_of(arguments: argparse.Namespace) -> ConvertOptions:
    """The options given on a `convert` command line. Raises `UsageError`."""
    subsets, images = tuple(arguments.subset), images_of(arguments)
    return ConvertOptions(
        input_path=arguments.input_path,
        output_dir=output_of(arguments, archives.stem(arguments.input_path)),
        output_format=arguments.output_format,
        input_format=arguments.input_format,
        subsets=subsets,
        merged=tuple(replace(input_of(text), subsets=subsets, images=images) for text in arguments.merge),
        **job_options(arguments),
    )
