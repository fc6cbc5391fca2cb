"""`beam-cifar filter`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.parser import add_command, add_project
from beam_cifar.cli.project import append_step
from beam_cifar.steps.registry import make_step


def add(commands: Any) -> None:
    command = add_command(commands, "filter", run)
    add_project(command)
    command.add_argument("-e", "--filter", required=True, metavar="XPATH", help="XPath expression, as for convert")
    command.add_argument("-m", "--mode", default="items", metavar="MODE",
        help="what the expression selects: items (default), annotations, items+annotations; or i, a, i+a")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Add a filter to a project."""
    append_step(arguments, make_step("filter", {"expression": arguments.filter, "mode": arguments.mode}))
