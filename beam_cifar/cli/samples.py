"""`beam-cifar make-sample`."""

from __future__ import annotations

import argparse
import os


def run(arguments: argparse.Namespace) -> None:
    """Draws the set and prints what was written."""
    from beam_cifar.samples.make import make_sample

    made = make_sample(
        arguments.output, kind=arguments.kind, images=arguments.images, seed=arguments.seed, tar=arguments.tar
    )
    size = sum(os.path.getsize(path) for path in made)
    print(f"drew {arguments.images:,} images to {arguments.output} ({len(made)} files, {size / 1e6:,.1f} MB)")
