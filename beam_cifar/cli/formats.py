"""`beam-cifar formats`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_cifar.cli.parser import add_command
from beam_cifar.formats.registry import FORMATS, offered


def add(commands: Any) -> None:
    add_command(commands, "formats", run)


def run(arguments: argparse.Namespace) -> None:
    """List the formats that can be read and written."""
    known = {**FORMATS, **offered()}
    width = max(map(len, known))
    for name, entry in known.items():
        how = " ".join(word for word, can in (("read", entry.source), ("write", entry.sink)) if can)
        print(f"{name:<{width}}  {how:<10}  {entry.title}")
