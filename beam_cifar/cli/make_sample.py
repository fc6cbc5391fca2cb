"""`beam-cifar make-sample`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from beam_cifar.cli.parser import add_command


def add(commands: Any) -> None:
    command = add_command(commands, "make-sample", run)
    command.add_argument("output", metavar="OUT", help="directory to make, or archive with --tar")
    command.add_argument("--kind", choices=["cifar10", "cifar100"], default="cifar10", help="default: cifar10")
    command.add_argument("--images", type=int, default=60_000, metavar="N", help="default: 60000")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    command.add_argument("--tar", action="store_true", help="make a .tar.gz, as the genuine ones are")


def run(arguments: argparse.Namespace) -> None:
    """Draw a realistic dataset in the genuine byte layout."""
    from beam_cifar.samples.make import make_sample

    made = make_sample(
        arguments.output, kind=arguments.kind, images=arguments.images, seed=arguments.seed, tar=arguments.tar
    )
    size = sum(os.path.getsize(path) for path in made)
    print(f"drew {arguments.images:,} images to {arguments.output} ({len(made)} files, {size / 1e6:,.1f} MB)")
