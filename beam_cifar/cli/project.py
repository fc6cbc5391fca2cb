"""`beam-cifar project`, and what the commands that change a project share."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.parser import add_command, add_project
from beam_cifar.steps.base import Step

if TYPE_CHECKING:
    from beam_cifar.dataset.project import Project


def add(commands: Any) -> None:
    command = add_command(commands, "project", run)
    add_project(command)
    command.add_argument("--json", action="store_true", help="print the project file")


def run(arguments: argparse.Namespace) -> None:
    """Show the sources and transforms of a project."""
    from beam_cifar.dataset.project import Project, project_file

    project = Project.load(arguments.project)
    folder = os.path.dirname(project_file(arguments.project))
    print(project.text(folder).rstrip("\n") if arguments.json else _shown(project, folder))


def append_step(arguments: argparse.Namespace, step: Step) -> None:
    """Adds a step to a project and prints it."""
    from beam_cifar.dataset.project import Project

    project = Project.load(arguments.project)
    replace(project, steps=(*project.steps, step)).save(arguments.project)
    print(f"added transform {len(project.steps) + 1}: {_called(step)}")


def _shown(project: Project, folder: str) -> str:
    from beam_cifar.dataset.project import FILE_NAME, reference

    lines = [f"project {project.name!r} in {folder}", "sources:" if project.sources else "no sources"]
    for number, source in enumerate(project.sources, 1):
        place = _plain(reference(source.path, folder))
        line = f"  {number}. {_plain(source.name)}: {source.format or 'format detected'}, {place}"
        lines.append(line + (f", subsets {', '.join(map(_plain, source.subsets))}" if source.subsets else ""))
    if len(project.sources) > 1:
        lines.append(f"on clash: {project.on_clash}")
    lines.append("transforms:" if project.steps else "no transforms")
    lines += [f"  {number}. {_called(step)}" for number, step in enumerate(project.steps, 1)]
    lines.append(f"to change it, edit {FILE_NAME} in that folder")
    return "\n".join(lines)


def _called(step: Step) -> str:
    """A step with its options, as the text output shows it."""
    options = ", ".join(f"{name}={value!r}" for name, value in (step.options() | step.paths()).items())
    return f"{step.name} {options}".rstrip()


def _plain(text: str) -> str:
    """The text on one line, quoted if it has characters that a terminal cannot show."""
    return text if text.isprintable() else repr(text)
