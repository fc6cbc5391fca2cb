"""The commands that make, change, show and export a project."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.cli.arguments import Parser
from beam_cifar.cli.convert import job_options, output_of, perform, stem_of
from beam_cifar.errors import OutputError
from beam_cifar.job import find_catalog
from beam_cifar.plan import select_files
from beam_cifar.project import FILE_NAME, Project, ProjectSource, project_file, reference
from beam_cifar.start import quiet_workers
from beam_cifar.steps import STEPS, make_step, parse_step

if TYPE_CHECKING:
    from beam_cifar.steps.base import Step


def create(arguments: argparse.Namespace) -> None:
    """Makes an empty project."""
    path = project_file(arguments.output_dir)
    folder = os.path.dirname(path)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise OutputError(f"{folder}: exists and is not a directory; choose another folder")
    if os.path.lexists(path) and not arguments.overwrite:
        raise OutputError(f"{path}: exists; pass --overwrite to replace it, or choose another folder with -o")
    name = os.path.basename(folder) or "project" if arguments.name is None else arguments.name
    project = Project(name)
    with storage.writing(folder):
        os.makedirs(folder, exist_ok=True)
    project.save(folder)
    print(f"created project {project.name!r} in {folder}")


def import_(arguments: argparse.Namespace) -> None:
    """Adds a data set to a project."""
    project = Project.load(arguments.project)
    subsets = tuple(arguments.subset)
    with quiet_workers(verbose=arguments.verbose), tempfile.TemporaryDirectory(prefix="beam_cifar-") as folder:
        found = find_catalog(arguments.path, arguments.format, folder)
    select_files(found, subsets)  # refuses an unknown one
    name = _unused(project, stem_of(found.path)) if arguments.name is None else arguments.name
    source = ProjectSource(name, found.path, found.format, subsets)
    replace(project, sources=(*project.sources, source)).save(arguments.project)
    files, classes = len(found.files), len(found.labels.names)
    if twice := [known.name for known in project.sources if (known.path, known.subsets) == (found.path, subsets)]:
        print(f"beam-cifar: note: the same data set is {twice[0]!r}; their items will clash", file=sys.stderr)
    print(f"imported {name!r}: {found.title} ({found.format}), {_count(files, 'file')}, {_count(classes, 'class')}")


def filter_(arguments: argparse.Namespace) -> None:
    """Adds a filter to a project."""
    _append(arguments, make_step("filter", {"expression": arguments.filter, "mode": arguments.mode}))


def transform(arguments: argparse.Namespace) -> None:
    """Adds a transform to a project, or lists all."""
    if arguments.list:
        width = max(map(len, STEPS))
        for name, entry in STEPS.items():
            print(f"{name:<{width}}  {entry.title}")
        return
    _append(arguments, parse_step(arguments.transform, arguments.step_arguments, Parser))


def show(arguments: argparse.Namespace) -> None:
    """Prints what a project holds."""
    project = Project.load(arguments.project)
    folder = os.path.dirname(project_file(arguments.project))
    print(project.text(folder).rstrip("\n") if arguments.json else _shown(project, folder))


def export(arguments: argparse.Namespace) -> None:
    """Writes what a project holds."""
    project = Project.load(arguments.project)
    more = job_options(arguments)
    if arguments.on_clash is not None:
        more["on_clash"] = arguments.on_clash
    folder = os.path.dirname(project_file(arguments.project))
    output = output_of(arguments, os.path.basename(folder) or project.name)
    perform(arguments, project.options(output, arguments.output_format, **more))


def _append(arguments: argparse.Namespace, step: Step) -> None:
    project = Project.load(arguments.project)
    replace(project, steps=(*project.steps, step)).save(arguments.project)
    print(f"added transform {len(project.steps) + 1}: {_called(step)}")


def _unused(project: Project, stem: str) -> str:
    """A name that no source of a project has: the stem, or the stem with a number."""
    taken = {source.name for source in project.sources}
    stem = stem or "source"
    candidates = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)


def _shown(project: Project, folder: str) -> str:
    lines = [f"project {project.name!r} in {folder}", "sources:" if project.sources else "no sources"]
    for number, source in enumerate(project.sources, 1):
        place = _plain(reference(source.path, folder))
        line = f"  {number}. {_plain(source.name)}: {source.format or 'format detected'}, {place}"
        lines.append(line + (f", subsets {', '.join(map(_plain, source.subsets))}" if source.subsets else ""))
    if len(project.sources) > 1:
        lines.append(f"items that clash: {project.on_clash}")
    lines.append("transforms:" if project.steps else "no transforms")
    lines += [f"  {number}. {_called(step)}" for number, step in enumerate(project.steps, 1)]
    lines.append(f"to change this, edit {FILE_NAME} there")
    return "\n".join(lines)


def _called(step: Step) -> str:
    """A step with its options, for people."""
    options = ", ".join(f"{name}={value!r}" for name, value in step.options().items())
    return f"{step.name} {options}".rstrip()


def _plain(text: str) -> str:
    """A text in one line: quoted where a terminal could not show it as it is."""
    return text if text.isprintable() else repr(text)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")
