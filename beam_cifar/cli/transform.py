"""`beam-cifar transform`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.parser import Parser, add_command, add_project
from beam_cifar.cli.project import append_step
from beam_cifar.steps.registry import STEPS, parse_step


def add(commands: Any) -> None:
    command = add_command(commands, "transform", run)
    command.set_defaults(step_arguments=[])
    add_project(command)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("-t", "--transform", choices=list(STEPS), metavar="NAME", help="transform to add")
    what.add_argument("--list", action="store_true", help="list all transforms")


def run(arguments: argparse.Namespace) -> None:
    """Add a transform to a project. Put its options at the end, after --; list them with -- --help."""
    if arguments.list:
        width = max(map(len, STEPS))
        for name, entry in STEPS.items():
            print(f"{name:<{width}}  {entry.title}")
        return
    append_step(arguments, parse_step(arguments.transform, arguments.step_arguments, Parser))
