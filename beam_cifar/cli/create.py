"""`beam-cifar create`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from beam_cifar import storage
from beam_cifar.cli.parser import add_command
from beam_cifar.errors import OutputError


def add(commands: Any) -> None:
    add = add_command(commands, "create", run).add_argument
    add("-o", "--output-dir", default=".", metavar="DIR", help="project folder; default: current directory")
    add("--name", metavar="NAME", help="project name; default: name of the folder")
    add("--overwrite", action="store_true", help="replace an existing project")


def run(arguments: argparse.Namespace) -> None:
    """Create an empty project."""
    from beam_cifar.dataset.project import Project, project_file

    path = project_file(arguments.output_dir)
    folder = os.path.dirname(path)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise OutputError(f"{folder}: exists and is not a directory; choose another folder")
    if os.path.lexists(path) and not arguments.overwrite:
        raise OutputError(f"{path}: already exists; replace it with --overwrite, or choose another folder with -o")
    name = os.path.basename(folder) or "project" if arguments.name is None else arguments.name
    project = Project(name)
    with storage.writing(folder):
        os.makedirs(folder, exist_ok=True)
    project.save(folder)
    print(f"created project {project.name!r} in {folder}")
