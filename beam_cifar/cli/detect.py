"""`beam-cifar detect`."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from beam_cifar import storage
from beam_cifar.cli.parser import add_command
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format
from beam_cifar.pipeline.imports import quiet_workers


def add(commands: Any) -> None:
    """Adds the command and its arguments."""
    command = add_command(commands, "detect", run, "Name the format of a directory, archive or file.")
    command.add_argument("path", metavar="PATH", help="directory, archive or file")


def run(arguments: argparse.Namespace) -> None:
    """Prints the name of the format."""
    path = storage.absolute(arguments.path, "input")
    if not (storage.is_folder(path) or storage.is_file(path)):
        raise InputError(f"{path}: no such file or directory")
    with quiet_workers(verbose=arguments.verbose), tempfile.TemporaryDirectory(prefix="beam_cifar-") as folder:
        name = detect_format(path, folder)
    if name is None:
        raise InputError(f"{path}: no known format; beam-cifar formats lists those that can be read")
    print(name)
