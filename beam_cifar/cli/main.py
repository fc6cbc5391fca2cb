"""The entry point: builds the parser, runs one command, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from beam_cifar.cli import (
    clean,
    convert,
    create,
    detect,
    diff,
    export,
    filter_,
    formats,
    import_,
    info,
    make_sample,
    merge,
    project,
    report,
    stats,
    transform,
    validate,
)
from beam_cifar.cli.completion import SHELLS, PrintCompletion
from beam_cifar.cli.interrupts import Interrupts
from beam_cifar.cli.parser import Parser, parse
from beam_cifar.cli.terminal import plain
from beam_cifar.errors import BeamCifarError
from beam_cifar.version import __version__

COMMANDS = (
    *(convert, create, import_, filter_, transform, project, export, merge, clean),
    *(info, stats, report, diff, validate, detect, formats, make_sample),
)
"""In the order of the help text."""

EXAMPLES = """\
examples:
  beam-cifar convert -i cifar-10-python.tar.gz -f parquet -o cifar10-parquet
  beam-cifar convert -i cifar-100-python -f cifar -o people --label people -- --save-images
  beam-cifar convert -i cifar-10-python.tar.gz -f imagenet -o dogs --filter '/item[annotation/label="dog"]'
  beam-cifar create && beam-cifar import cifar-10-python.tar.gz && beam-cifar export -f imagenet
  beam-cifar info cifar-10-python.tar.gz --checksums
  beam-cifar diff cifar-10-python.tar.gz cifar10-parquet
"""

# Arrow's own allocators hold on to freed memory; the system's returns it, at the same speed.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code; see docs/guarantees.md.
    """
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may contain what the terminal cannot encode
    arguments = parse(make_parser(), list(sys.argv[1:] if argv is None else argv))
    verbose = bool(getattr(arguments, "verbose", False))
    with Interrupts(quiet=not verbose) as interrupts:
        try:
            return _run(arguments, interrupts, verbose)
        except BaseException:
            if not interrupts.seen:
                raise
            if verbose:
                traceback.print_exc()
            interrupts.leave(interrupts.seen)


def _run(arguments: argparse.Namespace, interrupts: Interrupts, verbose: bool) -> int:
    try:
        arguments.command(arguments)
        _flush()
    except BaseException as error:
        # Any exception: runners turn an interrupt in a worker into an error of their own.
        if interrupts.seen:
            raise
        return _explained(error, verbose)
    if interrupts.seen:  # a library swallowed the exception
        raise KeyboardInterrupt
    return 0


def make_parser() -> Parser:
    """Returns the parser for all commands."""
    parser = Parser(
        prog="beam-cifar",
        description="Convert image-classification datasets, such as CIFAR-10 and CIFAR-100, with Apache Beam.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"beam-cifar {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a shell completion script and exit: {', '.join(SHELLS)}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


def _explained(failure: BaseException, verbose: bool) -> int:
    """Prints why a command failed, in one line, and returns its exit code; raises unexpected errors again."""
    try:
        # Raised again so that `except` can tell the types apart and `print_exc` finds the traceback.
        raise failure
    except BeamCifarError as error:
        return _fail(str(error), error.exit_code, verbose)
    except BrokenPipeError:
        # The reader of our output has gone; without this, the interpreter would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'storage'}: {error.strerror or error}", 1, verbose)
    except MemoryError:
        return _fail("out of memory", 1, verbose)


def _flush() -> None:
    if sys.stdout is not None:  # the caller may have closed it
        sys.stdout.flush()


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    line = plain(" ".join(message.split("\n")))
    print(f"beam-cifar: error: {line}", file=sys.stderr, flush=True)
    return code
