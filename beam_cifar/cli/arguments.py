"""The commands and their arguments."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from beam_cifar import __version__
from beam_cifar.cli.completion import SHELLS, PrintCompletion
from beam_cifar.formats import FORMATS, readable, writable
from beam_cifar.options import FILTER_MODES, ON_CLASH, SUBSET_NAMES
from beam_cifar.steps import STEPS

EXAMPLES = """\
examples:
  beam-cifar convert -i cifar-10-python.tar.gz -f parquet -o cifar10-parquet
  beam-cifar convert -i cifar-100-python -f cifar -o people --label people -- --save-images
  beam-cifar convert -i cifar-10-python.tar.gz -f imagenet -o dogs --filter '/item[annotation/label="dog"]'
  beam-cifar create && beam-cifar import cifar-10-python.tar.gz && beam-cifar export -f imagenet
  beam-cifar info cifar-10-python.tar.gz --checksums
  beam-cifar diff cifar-10-python.tar.gz cifar10-parquet
"""


class Parser(argparse.ArgumentParser):
    """Explains a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the nearest choices for a misspelt one."""
        if action.choices is not None and value not in action.choices:
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


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="beam-cifar",
        description="Convert image-classification data sets, first of all CIFAR-10 and CIFAR-100, with Apache Beam.",
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
        help=f"print a completion script for a shell, and stop: {', '.join(SHELLS)}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    for add in (
        _add_convert,
        *_PROJECT_COMMANDS,
        _add_merge,
        _add_clean,
        _add_info,
        *_MEASURING_COMMANDS,
        _add_detect,
        _add_formats,
        _add_make_sample,
    ):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str) -> Parser:
    made: Parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    made.set_defaults(command=run, program=made.prog)
    made.add_argument("-v", "--verbose", action="store_true", help="show tracebacks and Beam's log")
    return made


def _add_convert(commands: Any) -> None:
    from beam_cifar.cli import convert

    text = "Convert a data set into another format. Options that are not listed are handed to Beam."
    command = _command(commands, "convert", convert.run, text)
    add = command.add_argument
    add("-i", "--input-path", required=True, metavar="PATH", help="directory, archive or file to read")
    add("-if", "--input-format", choices=readable(), metavar="FORMAT", help="its format; detected if left out")
    add("--merge", action="append", default=[], metavar="PATH[:FORMAT]",
        help="a further data set, merged with the first before anything else is done (repeatable)")  # fmt: skip
    add("--subset", action="append", default=[], metavar="NAME",
        help="keep a subset (repeatable); train and test stand for all their batches")  # fmt: skip
    _add_job(command, output="<source>-<format> here if left out")


def _add_export(commands: Any) -> None:
    from beam_cifar.cli import projects

    text = "Write what a project holds. Options that are not listed are handed to Beam."
    command = _command(commands, "export", projects.export, text)
    _add_project(command)
    _add_job(command, output="<project>-<format> here if left out")


def _add_merge(commands: Any) -> None:
    from beam_cifar.cli import convert

    text = "Merge data sets into one. Options that are not listed are handed to Beam."
    command = _command(commands, "merge", convert.merge, text)
    command.add_argument("paths", nargs="+", metavar="PATH[:FORMAT]", help="directories or archives, two or more")
    _add_job(command, output=None)


def _add_clean(commands: Any) -> None:
    from beam_cifar.cli import cleaning

    text = "Remove what killed jobs left of an output. Stop first what may still run on a cluster."
    command = _command(commands, "clean", cleaning.run, text)
    command.add_argument("output_dir", metavar="OUT", help="the output, whether it is there or not")
    command.add_argument("--list", action="store_true", help="only list what would be removed")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_job(command: Parser, *, output: str | None) -> None:
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
    command.add_argument(
        "-f",
        "--output-format",
        required=output is not None,
        choices=writable(),
        metavar="FORMAT",
        help=f"one of: {names}" + ("" if output else "; that of the first data set if left out"),
    )
    command.add_argument(
        "-o",
        "--output-dir",
        required=output is None,
        metavar="OUT",
        help="directory to make" + (f"; {output}" if output else ""),
    )


def _add_changes(command: Parser) -> None:
    """Adds what is done to the rows."""
    add = command.add_argument
    add("--on-clash", choices=ON_CLASH, metavar="RULE",
        help="what becomes of items that have the same id and subset in several data sets: error (default), "
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
    add("--workers", type=int, metavar="N", help="local workers; one per core, four at most, if left out")
    add("--plan", action="store_true", help="print what would be done, and stop")
    add("--overwrite", action="store_true", help="replace an existing output")
    add(
        "--resume",
        action="store_true",
        help="go on where the same job was interrupted; if this one fails, keep its parts",
    )
    add("--json", action="store_true", help="print the result as one JSON object")


def add_export_options(parser: Any) -> None:
    """Adds the options of the exporter; where one is given, it counts, before and after "--"."""
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


def _add_create(commands: Any) -> None:
    from beam_cifar.cli import projects

    command = _command(commands, "create", projects.create, "Make an empty project.")
    command.add_argument("-o", "--output-dir", default=".", metavar="DIR", help="its folder; here if left out")
    command.add_argument("--name", metavar="NAME", help="its name; that of the folder if left out")
    command.add_argument("--overwrite", action="store_true", help="replace an existing project")


def _add_import(commands: Any) -> None:
    from beam_cifar.cli import projects

    command = _command(commands, "import", projects.import_, "Add a data set to a project, by reference.")
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    command.add_argument("-f", "--format", choices=readable(), metavar="FORMAT", help="detected if left out")
    _add_project(command)
    command.add_argument("-n", "--name", metavar="NAME", help="what to call it; made from the path if left out")
    _add_subset(command)


def _add_filter(commands: Any) -> None:
    from beam_cifar.cli import projects

    command = _command(commands, "filter", projects.filter_, "Add a filter to what a project does.")
    _add_project(command)
    command.add_argument("-e", "--filter", required=True, metavar="XPATH", help="as for convert")
    command.add_argument("-m", "--mode", default="items", metavar="MODE",
        help="what the expression selects: items (default), annotations, items+annotations; or i, a, i+a")  # fmt: skip


def _add_transform(commands: Any) -> None:
    from beam_cifar.cli import projects

    text = "Add a transform to what a project does. Its options stand at the end, after --; -- --help explains them."
    command = _command(commands, "transform", projects.transform, text)
    command.set_defaults(step_arguments=[])
    _add_project(command)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("-t", "--transform", choices=list(STEPS), metavar="NAME", help="which one")
    what.add_argument("--list", action="store_true", help="list all transforms")


def _add_show(commands: Any) -> None:
    from beam_cifar.cli import projects

    command = _command(commands, "project", projects.show, "Show what a project holds.")
    _add_project(command)
    command.add_argument("--json", action="store_true", help="print the project's file")


_PROJECT_COMMANDS = (_add_create, _add_import, _add_filter, _add_transform, _add_show, _add_export)


def _add_project(command: Parser) -> None:
    command.add_argument("-p", "--project", default=".", metavar="DIR", help="its folder; here if left out")


def _add_info(commands: Any) -> None:
    from beam_cifar.cli import inspect

    command = _command(commands, "info", inspect.info, "Show what a data set holds, without reading pixels.")
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    command.add_argument(
        "-if", "--input-format", choices=readable(), metavar="FORMAT", help="its format; detected if left out"
    )
    command.add_argument("--checksums", action="store_true", help="md5 of every file, compared with the genuine ones")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_stats(commands: Any) -> None:
    from beam_cifar.cli import measure

    text = "Read every image, and show what a data set is made of. Options that are not listed are handed to Beam."
    command = _command(commands, "stats", measure.run, text)
    _add_source(command)
    _add_subset(command)
    _add_reading(command)


def _add_diff(commands: Any) -> None:
    from beam_cifar.cli import diff

    text = "Compare two data sets, whatever their formats. Options that are not listed are handed to Beam."
    command = _command(commands, "diff", diff.run, text)
    for name in ("a", "b"):
        command.add_argument(name, metavar=f"{name.upper()}[:FORMAT]", help="directory, archive or file")
    command.add_argument("--ids", action="store_true", help="items must have the same ids as well")
    command.add_argument("--whole", action="store_true", help="compare all rows as one set, whatever their subsets")
    _add_reading(command)


def _add_validate(commands: Any) -> None:
    from beam_cifar.cli import validate

    text = "Read every image, and check a data set. Options that are not listed are handed to Beam."
    command = _command(commands, "validate", validate.run, text)
    _add_source(command)
    command.add_argument("--strict", action="store_true", help="warnings count as errors")
    _add_reading(command)


def _add_report(commands: Any) -> None:
    from beam_cifar.cli import report

    text = "Write one HTML page about a data set, with pictures. Options that are not listed are handed to Beam."
    command = _command(commands, "report", report.run, text)
    _add_source(command)
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="HTML file to make")
    _add_subset(command)
    command.add_argument("--title", metavar="TEXT", help="of the page; the data set's name if left out")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _add_reading(command)


def _add_source(command: Parser) -> None:
    """Adds the one data set that a command reads."""
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    command.add_argument(
        "-if", "--input-format", choices=readable(), metavar="FORMAT", help="its format; detected if left out"
    )


def _add_subset(command: Parser) -> None:
    command.add_argument("--subset", action="append", default=[], metavar="NAME",
        help="read a subset only (repeatable); train and test stand for all their batches")  # fmt: skip


def _add_reading(command: Parser) -> None:
    """Adds what commands share that read a data set and write none."""
    command.set_defaults(takes_beam_options=True)
    command.add_argument(
        "--workers", type=int, metavar="N", help="local workers; one per core, four at most, if left out"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")


_MEASURING_COMMANDS = (_add_stats, _add_report, _add_diff, _add_validate)


def _add_detect(commands: Any) -> None:
    from beam_cifar.cli import inspect

    command = _command(commands, "detect", inspect.detect, "Name the format of a directory, archive or file.")
    command.add_argument("path", metavar="PATH", help="directory, archive or file")


def _add_formats(commands: Any) -> None:
    from beam_cifar.cli import inspect

    _command(commands, "formats", inspect.formats, "List the formats that can be read and written.")


def _add_make_sample(commands: Any) -> None:
    from beam_cifar.cli import samples

    command = _command(commands, "make-sample", samples.run, "Draw a realistic data set in the genuine byte layout.")
    command.add_argument("output", metavar="OUT", help="directory to make, or archive with --tar")
    command.add_argument("--kind", choices=["cifar10", "cifar100"], default="cifar10", help="default: cifar10")
    command.add_argument("--images", type=int, default=60_000, metavar="N", help="default: 60000")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    command.add_argument("--tar", action="store_true", help="make a .tar.gz, as the genuine ones are")


def list_flags(parser: Parser, command: str) -> Sequence[str]:
    """All long flags of a command, to suggest one for a misspelt one."""
    actions = parser._subparsers._group_actions[0].choices[command]._actions  # type: ignore[union-attr,index]
    return [name for action in actions for name in action.option_strings if name.startswith("--")]
