"""`beam-cifar report`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.jobs import images_of, reading_job
from beam_cifar.cli.parser import add_command, add_reading, add_reading_of_images, add_source, add_subset
from beam_cifar.cli.terminal import print_result
from beam_cifar.data.text import counted


def add(commands: Any) -> None:
    command = add_command(commands, "report", run)
    add_source(command)
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="HTML file to create")
    add_subset(command)
    command.add_argument("--title", metavar="TEXT", help="page title; default: name of the dataset")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_reading_of_images(command)
    add_reading(command)


def run(arguments: argparse.Namespace) -> None:
    """Write an illustrated one-page HTML report on a dataset. Options not listed here are passed to Beam."""
    with reading_job(arguments) as options:
        from beam_cifar.report.build import report

        made = report(
            arguments.path,
            arguments.output,
            arguments.input_format,
            tuple(arguments.subset),
            title=arguments.title,
            overwrite=arguments.overwrite,
            images=images_of(arguments),
            beam_options=options,
        )
    facts = {
        "output": made.path,
        "bytes": made.bytes,
        "format": made.stats.format,
        "images": made.stats.images,
        "classes": len(made.stats.labels.names),
        "pictures": made.pictures,
    }
    images, pictures = counted(made.stats.images, "image"), counted(made.pictures, "picture")
    classes = counted(len(made.stats.labels.names), "class")
    about = f"  {made.stats.title}, {images}, {classes}, {pictures}"
    print_result(arguments, facts, [f"wrote {made.path}: {made.bytes / 1e6:,.1f} MB", about])
