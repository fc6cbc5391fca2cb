"""The parser of a command line, and the groups of arguments that several commands share."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from beam_cifar.filters.xpath import FILTER_MODES
from beam_cifar.formats.contract.types import SUBSET_NAMES
from beam_cifar.formats.registry import FORMATS, readable, writable
from beam_cifar.options import ON_CLASH


class Parser(argparse.ArgumentParser):
    """Explains a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the nearest choices for a misspelt one."""
        if action.choices is not None and value not in action.choices:
            # argparse would list every choice, of which there may be dozens.
            near = difflib.get_close_matches(str(value), [str(c) for c in action.choices], n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(map(str, action.choices))}"
            what = "/".join(action.option_strings) or action.metavar or action.dest
            if value in FORMATS and action.dest in ("input_format", "format"):
                raise argparse.ArgumentError(None, f"{what}: {value!r} can be written, but not read")
            if value in FORMATS and action.dest == "output_format":
                raise argparse.ArgumentError(None, f"{what}: {value!r} can be read, but not written")
            raise argparse.ArgumentError(None, f"{what}: unknown {value!r}; {hint}")


def parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """Parses a command line; unknown options before "--" belong to Beam, those after it to the exporter or the step."""
    # By hand: argparse itself drops "--", and gives what follows to positional arguments.
    head, rest = (argv, []) if "--" not in argv else (argv[: argv.index("--")], argv[argv.index("--") + 1 :])
    arguments, unknown = parser.parse_known_args(head)
    if not hasattr(arguments, "command"):
        parser.error("no command")
    if hasattr(arguments, "step_arguments"):
        arguments.step_arguments = rest
    elif hasattr(arguments, "save_images"):
        exporter_parser = Parser(prog=arguments.program, add_help=False, allow_abbrev=False)
        add_export_options(exporter_parser)
        exporter_parser.parse_args(rest, arguments)
    elif rest:
        parser.error(f"unexpected arguments after --: {' '.join(rest)}")
    arguments.beam_options = unknown
    if unknown and not getattr(arguments, "takes_beam_options", False):
        hint = "; options of the transform stand after --" if hasattr(arguments, "step_arguments") else ""
        parser.error(f"unknown argument {unknown[0]!r}{hint}")
    return arguments


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None]) -> Parser:
    """Adds a command that `run` carries out; its docstring is the help text."""
    text = run.__doc__
    # Without `allow_abbrev=False` a flag of Beam's that starts like one of ours would be taken for ours, silently.
    made: Parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    made.set_defaults(command=run, program=made.prog, parser=made)
    made.add_argument("-v", "--verbose", action="store_true", help="show tracebacks and Beam's log")
    return made


def add_job(command: Parser, *, output: str | None) -> None:
    """Adds what `convert`, `export` and `merge` share: all that follows the input.

    Args:
        command: the parser.
        output: what stands for an output that is left out; None where it must be given. Where it must, the format need
            not: it follows from the input.
    """
    command.set_defaults(takes_beam_options=True)
    _add_output(command, output)
    _add_changes(command)
    _add_running(command)
    add_export_options(command.add_argument_group("exporter options", "may also stand at the end, after --"))


def _add_output(command: Parser, output: str | None) -> None:
    names = ", ".join(writable())
    command.add_argument("-f", "--output-format", required=output is not None, choices=writable(), metavar="FORMAT",
        help=f"one of: {names}" + ("" if output else "; that of the first dataset if left out"))  # fmt: skip
    command.add_argument("-o", "--output-dir", required=output is None, metavar="OUT",
        help="directory to make" + (f"; {output}" if output else ""))  # fmt: skip


def _add_changes(command: Parser) -> None:
    """Adds what is done to the rows."""
    add = command.add_argument
    add("--on-clash", choices=ON_CLASH, metavar="RULE",
        help="what becomes of items that have the same id and subset in several datasets: error (default), "
        "suffix (the later ones get other ids), first (the later ones are dropped)")  # fmt: skip
    add("--label", action="append", default=[], metavar="NAME",
        help="keep a class, or all classes of a superclass (repeatable)")  # fmt: skip
    add("-e", "--filter", metavar="XPATH",
        help="keep items for which an XPath expression holds, such as '/item[annotation/label=\"dog\"]'")  # fmt: skip
    add("--filter-mode", choices=FILTER_MODES, default="items", metavar="MODE",
        help="what the expression selects: items (default), annotations, items+annotations")  # fmt: skip
    add("--remap", action="append", default=[], metavar="OLD:NEW",
        help="rename a class or superclass, after selecting; classes with one new name merge (repeatable)")  # fmt: skip
    add("--resize", metavar="HxW", help="give every image this height and width")
    add("--images-per-batch", type=int, metavar="N", help="pack exactly N images into every output file")
    add("--limit", type=int, metavar="N", help="keep the first N images only")
    add("--transform", action="append", default=[], metavar="CALL",
        help="a transform with its options, such as 'random_split -s train:.8 -s test:.2', after all of the above "
        "(repeatable); beam-cifar transform --list has all")  # fmt: skip
    add("--compact-labels", action="store_true",
        help="at the end, drop classes without items, and number the others anew")  # fmt: skip


def _add_running(command: Parser) -> None:
    add = command.add_argument
    _add_workers(command)
    add("--plan", action="store_true", help="print what would be done, and stop")
    add("--overwrite", action="store_true", help="replace an existing output")
    add("--resume", action="store_true",
        help="go on where the same job was interrupted; if this one fails, keep its parts")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object")


def add_export_options(parser: Any) -> None:
    """Adds the options of the exporter; where one is given, it counts, before and after "--"."""
    # After "--" the namespace is filled already: a default would overwrite what was given before.
    suppress = argparse.SUPPRESS if isinstance(parser, Parser) else False
    parser.add_argument("--save-images", "--save-media", action="store_true", default=suppress, dest="save_images",
                        help="write pixels in cifar, which can do without; all other formats have them")  # fmt: skip
    parser.add_argument("--save-dataset-meta", action="store_true", default=suppress,
                        help="write dataset_meta.json with the class names (cifar)")  # fmt: skip
    parser.add_argument("--image-ext", metavar="EXT", default=suppress or None,
                        help="extension of the files written, such as .png or .jpg; as found if left out")  # fmt: skip
    parser.add_argument("--subsets", choices=SUBSET_NAMES, metavar="RULE", default=suppress or None,
                        dest="subset_names", help="source: call subsets as in the source; split: as the split that "
                        "they belong to (data_batch_* becomes train); "
                        "as is usual in the format if left out")  # fmt: skip
    parser.add_argument("--keep-empty-classes", action="store_true", default=suppress,
                        help="make a folder also for classes without images "
                        "(imagenet, imagenet_with_subset_dirs)")  # fmt: skip


def add_project(command: Parser) -> None:
    """Adds the project that a command reads or changes."""
    command.add_argument("-p", "--project", default=".", metavar="DIR", help="its folder; here if left out")


def add_source(command: Parser) -> None:
    """Adds the one dataset that a command reads."""
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    add_input_format(command)


def add_input_format(command: Parser) -> None:
    """Adds the format of the dataset that a command reads."""
    command.add_argument(
        "-if", "--input-format", choices=readable(), metavar="FORMAT", help="its format; detected if left out"
    )


def add_subset(command: Parser) -> None:
    """Adds a choice of subsets."""
    command.add_argument("--subset", action="append", default=[], metavar="NAME",
        help="read a subset only (repeatable); train and test stand for all their batches")  # fmt: skip


def add_reading(command: Parser) -> None:
    """Adds what commands share that read a dataset and write none."""
    command.set_defaults(takes_beam_options=True)
    _add_workers(command)
    add_json(command)


def _add_workers(command: Parser) -> None:
    command.add_argument(
        "--workers", type=int, metavar="N", help="local workers; one per core, four at most, if left out"
    )


def add_json(command: Parser) -> None:
    """Adds the choice of a result for programs."""
    command.add_argument("--json", action="store_true", help="print one JSON object")


def list_flags(parser: Parser) -> list[str]:
    """All long flags of a command, to suggest one for a misspelt one."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
