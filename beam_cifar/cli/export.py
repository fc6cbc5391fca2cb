"""`beam-cifar export`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from beam_cifar.cli.jobs import images_of, job_options, output_of, perform
from beam_cifar.cli.parser import add_command, add_job, add_project


def add(commands: Any) -> None:
    command = add_command(commands, "export", run)
    add_project(command)
    add_job(command, output="<project>-<format> in the current directory")


def run(arguments: argparse.Namespace) -> None:
    """Write a project's dataset in a given format. Options not listed here are passed to Beam."""
    from beam_cifar.dataset.project import Project, project_file
    from beam_cifar.planning.from_options import job_of

    project = Project.load(arguments.project)
    folder = os.path.dirname(project_file(arguments.project))
    output = output_of(arguments, os.path.basename(folder) or project.name)
    source = project.source().reading(images_of(arguments))
    perform(arguments, job_of(source, output, arguments.output_format, **job_options(arguments)))
