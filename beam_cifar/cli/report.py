"""`beam-cifar report`."""

from __future__ import annotations

import argparse
import json

from beam_cifar.cli.convert import beam_options_of
from beam_cifar.start import quiet_workers
from beam_cifar.words import counted


def run(arguments: argparse.Namespace) -> None:
    """Writes the page, and prints where it is and what it is about."""
    options = beam_options_of(arguments)
    with quiet_workers(verbose=arguments.verbose):
        from beam_cifar.report.build import report

        made = report(
            arguments.path,
            arguments.output,
            arguments.input_format,
            tuple(arguments.subset),
            title=arguments.title,
            overwrite=arguments.overwrite,
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
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(f"wrote {made.path}: {made.bytes / 1e6:,.1f} MB")
    images, pictures = counted(made.stats.images, "image"), counted(made.pictures, "picture")
    classes = counted(len(made.stats.labels.names), "class", "classes")
    print(f"  {made.stats.title}, {images}, {classes}, {pictures}")
