"""`beam-cifar detect`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar import storage
from beam_cifar.cli.parser import add_command
from beam_cifar.cli.terminal import scratch_folder
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format


def add(commands: Any) -> None:
    command = add_command(commands, "detect", run)
    command.add_argument("path", metavar="PATH", help="directory, archive or file")


def run(arguments: argparse.Namespace) -> None:
    """Print the format of a directory, archive or file."""
    path = storage.absolute(arguments.path, "input")
    with storage.reading(path):
        if not (storage.is_folder(path) or storage.is_file(path)):
            raise InputError(f"{path}: no such file or directory")
    with scratch_folder(arguments) as folder:
        name = detect_format(path, folder)
    if name is None:
        raise InputError(f"{path}: unknown format; list the readable ones with beam-cifar formats")
    print(name)
