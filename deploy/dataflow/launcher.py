"""Launcher of the Dataflow Flex Template: submits a conversion, which starts when this program has ended.

Its own flags are the parameters in metadata.json; all other flags are Beam's.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from beam_cifar import BeamCifarError
from beam_cifar.cli.convert import options_of
from beam_cifar.cli.jobs import beam_options_of
from beam_cifar.cli.main import make_parser
from beam_cifar.cli.parser import parse


def command_line(flags: Sequence[str]) -> list[str]:
    """Returns the `beam-cifar` command line for the flags of the template."""
    parser = argparse.ArgumentParser(prog="launcher.py", allow_abbrev=False)
    for name in ("input_path", "output_dir", "output_format"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--arguments", default="")
    parser.add_argument("--runner", default="DataflowRunner")
    own, beam = parser.parse_known_args(flags)
    return [
        "convert",
        f"--input-path={own.input_path}",
        f"--output-dir={own.output_dir}",
        f"--output-format={own.output_format}",
        f"--runner={own.runner}",
        *beam,
        *shlex.split(own.arguments),
    ]


def main(flags: Sequence[str]) -> int:
    """Submits the job to Dataflow without waiting: the template starts it once the launcher exits."""
    arguments = parse(make_parser(), command_line(flags))
    from beam_cifar import run
    from beam_cifar.pipeline.convert import translate
    from beam_cifar.pipeline.runners import is_dry_run

    try:
        options, beam_options = options_of(arguments), beam_options_of(arguments)
        if is_dry_run(beam_options):
            job, _ = translate(options, beam_options)
        else:
            job = run(options, beam_options).job
    except BeamCifarError as error:
        print(f"launcher: error: {error}", file=sys.stderr)
        return error.exit_code
    what = "already complete, from an interrupted job" if job.done else f"{len(job.plan.tasks):,} tasks"
    print(f"launcher: {job.folder.output}: {what}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
