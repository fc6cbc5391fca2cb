"""`beam-cifar import`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.parser import add_command, add_project, add_subset
from beam_cifar.cli.terminal import print_notices, scratch_folder
from beam_cifar.data.text import counted
from beam_cifar.formats.registry import READ
from beam_cifar.planning.summaries import select_files
from beam_cifar.planning.survey import find_catalog
from beam_cifar.storage import archives

if TYPE_CHECKING:
    from beam_cifar.dataset.project import Project


def add(commands: Any) -> None:
    command = add_command(commands, "import", run)
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    command.add_argument("-f", "--format", choices=READ, metavar="FORMAT", help="input format; default: detected")
    add_project(command)
    command.add_argument("-n", "--name", metavar="NAME", help="name of the source; default: derived from the path")
    add_subset(command)


def run(arguments: argparse.Namespace) -> None:
    """Add a dataset to a project, by reference."""
    from beam_cifar.dataset.project import Project, ProjectSource

    project = Project.load(arguments.project)
    subsets = tuple(arguments.subset)
    with scratch_folder(arguments) as folder:
        found = find_catalog(arguments.path, arguments.format, folder)
    select_files(found, subsets)  # refuses unknown subsets
    name = _unused(project, archives.stem(found.path)) if arguments.name is None else arguments.name
    source = ProjectSource(name, found.path, found.format, subsets)
    replace(project, sources=(*project.sources, source)).save(arguments.project)
    files, classes = counted(len(found.files), "file"), counted(len(found.labels.names), "class")
    if twice := [known.name for known in project.sources if (known.path, known.subsets) == (found.path, subsets)]:
        print_notices([f"already imported as {twice[0]!r}; their items will clash"])
    print(f"imported {name!r}: {found.title} ({found.format}), {files}, {classes}")


def _unused(project: Project, stem: str) -> str:
    """A source name not yet used in the project: the stem, or the stem with a number."""
    taken = {source.name for source in project.sources}
    stem = stem or "source"
    candidates = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)
