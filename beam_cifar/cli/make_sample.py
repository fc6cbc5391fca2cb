"""`beam-cifar make-sample`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from beam_cifar.cli.parser import add_command
from beam_cifar.cli.terminal import plain
from beam_cifar.data.text import counted


def add(commands: Any) -> None:
    add = add_command(commands, "make-sample", run).add_argument
    add("output", metavar="OUT", help="directory to create, or archive with --tar")
    add("--kind", choices=["cifar10", "cifar100"], default="cifar10", help="dataset to imitate; default: cifar10")
    add("--images", type=int, default=60_000, metavar="N", help="number of images; default: 60000")
    add("--seed", type=int, default=0, metavar="S", help="random seed; default: 0")
    add("--tar", action="store_true", help="write a .tar.gz archive, like the genuine ones")


def run(arguments: argparse.Namespace) -> None:
    """Generate a realistic sample dataset in the byte layout of genuine CIFAR files."""
    from beam_cifar.samples.make import make_sample

    made = make_sample(
        arguments.output, kind=arguments.kind, images=arguments.images, seed=arguments.seed, tar=arguments.tar
    )
    size = sum(os.path.getsize(path) for path in made)
    images, files = counted(arguments.images, "image"), counted(len(made), "file")
    print(plain(f"wrote {images} to {arguments.output} ({files}, {size / 1e6:,.1f} MB)"))
