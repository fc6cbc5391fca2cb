"""The command-line parser, and the groups of arguments that several commands share."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from beam_cifar.filters.xpath import FILTER_MODES
from beam_cifar.formats.contract.types import LAYOUTS, SUBSET_NAMES
from beam_cifar.formats.registry import READ, WRITE, writable
from beam_cifar.images.options import CHOICES
from beam_cifar.options import ON_CLASH, ON_ERROR


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports usage errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with code 2."""
        print(f"{self.prog}: error: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggests the nearest choices for a misspelt one."""
        if action.choices is not None and value not in action.choices:
            # argparse would list every choice, of which there may be dozens.
            near = difflib.get_close_matches(str(value), [str(c) for c in action.choices], n=3, cutoff=0.45)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(map(str, action.choices))}"
            what = "/".join(action.option_strings) or action.metavar or action.dest
            if action.choices is READ and value in WRITE:
                raise argparse.ArgumentError(None, f"{what}: {value!r} can be written but not read")
            if action.choices is WRITE and value in READ:
                raise argparse.ArgumentError(None, f"{what}: {value!r} can be read but not written")
            raise argparse.ArgumentError(None, f"{what}: unknown {value!r}; {hint}")


def parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """Parses a command line: unknown options before "--" are Beam's, those after it the exporter's or the step's."""
    # Split by hand: argparse drops "--" and treats what follows as positional arguments.
    head, rest = (argv, []) if "--" not in argv else (argv[: argv.index("--")], argv[argv.index("--") + 1 :])
    arguments, unknown = parser.parse_known_args(head)
    if not hasattr(arguments, "command"):
        parser.error("no command given")
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
        hint = "; put the transform's options after --" if hasattr(arguments, "step_arguments") else ""
        parser.error(f"unknown argument {unknown[0]!r}{hint}")
    return arguments


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None]) -> Parser:
    """Adds a command carried out by `run`, whose docstring is the help text; the list of commands has its start."""
    text = run.__doc__ or ""
    # Abbreviations would silently turn a Beam flag that is a prefix of one of ours into ours.
    made: Parser = commands.add_parser(name, help=text.partition(".")[0], description=text, allow_abbrev=False)
    made.set_defaults(command=run, program=made.prog, parser=made)
    made.add_argument("-v", "--verbose", action="store_true", help="show tracebacks and Beam's log")
    return made


def add_job(command: Parser, *, output: str | None) -> None:
    """Adds the options that `convert`, `export` and `merge` share: all but the input.

    Args:
        command: the parser.
        output: the default of `-o` for the help; None makes `-o` required and `-f` optional (the input's format).
    """
    command.set_defaults(takes_beam_options=True)
    _add_output(command, output)
    _add_changes(command)
    add_reading_of_images(command)
    _add_running(command)
    add_export_options(command.add_argument_group("exporter options", "may also be given at the end, after --"))


def _add_output(command: Parser, output: str | None) -> None:
    names = ", ".join(writable())
    command.add_argument("-f", "--output-format", required=output is not None, choices=WRITE, metavar="FORMAT",
        help=f"one of: {names}" + ("" if output else "; default: format of the first dataset"))  # fmt: skip
    command.add_argument("-o", "--output-dir", required=output is None, metavar="OUT",
        help="directory to create" + (f"; default: {output}" if output else ""))  # fmt: skip


def _add_changes(command: Parser) -> None:
    """Adds the options that select and change rows."""
    add = command.add_argument
    add("--on-clash", choices=ON_CLASH, metavar="RULE",
        help="what to do with items that have the same id and subset in several datasets: error (default), "
        "suffix (later ones get new ids), first (later ones are dropped)")  # fmt: skip
    add("--label", action="append", default=[], metavar="NAME",
        help="keep only this class, or all classes of this superclass (repeatable)")  # fmt: skip
    add("-e", "--filter", metavar="XPATH",
        help="keep items that match an XPath expression, such as '/item[annotation/label=\"dog\"]'")  # fmt: skip
    add("--filter-mode", choices=FILTER_MODES, default="items", metavar="MODE",
        help="what the expression selects: items (default), annotations, items+annotations")  # fmt: skip
    add("--remap", action="append", default=[], metavar="OLD:NEW",
        help="rename a class or superclass, after selection; classes with the same new name are merged "
        "(repeatable)")  # fmt: skip
    add("--resize", metavar="HxW", help="resize every image to this height and width, in pixels")
    add("--images-per-batch", type=int, metavar="N", help="images per output file; the last of a subset may have fewer")
    add("--limit", type=int, metavar="N", help="keep only the first N images")
    add("--transform", action="append", default=[], metavar="CALL",
        help="apply a transform with its options after all of the above, such as 'random_split -s train:.8 "
        "-s test:.2' (repeatable); list all with beam-cifar transform --list")  # fmt: skip
    add("--compact-labels", action="store_true",
        help="finally, drop classes without items and renumber the others")  # fmt: skip


def add_reading_of_images(command: Parser) -> None:
    """Adds the options for images that 8-bit gray or RGB cannot hold, or that are stored on their side."""
    add = command.add_argument
    add("--exif", choices=CHOICES["exif"], default="apply", metavar="RULE",
        help="where pixels are decoded, turn them upright by their EXIF orientation (apply, the default), or keep "
        "them as they are stored")  # fmt: skip
    add("--alpha", choices=CHOICES["alpha"], metavar="RULE",
        help="what to do with transparent pixels: drop (ignore the transparency), white or black (put them on that "
        "background); default: refuse them where pixels are decoded")  # fmt: skip
    add("--depth", choices=CHOICES["depth"], metavar="RULE",
        help="what to do with 16 bits per sample: scale (divide by 257, rounded) or clip (at most 255); default: "
        "refuse them where pixels are decoded")  # fmt: skip
    add("--cmyk", choices=CHOICES["cmyk"], metavar="RULE",
        help="what to do with CMYK images: convert (to RGB as Pillow does, without a profile); default: refuse them "
        "where pixels are decoded")  # fmt: skip
    add("--rgb", action="store_true",
        help="convert every other image to 8-bit RGB as Pillow's convert('RGB') does, gray ones as well; the options "
        "above come first")  # fmt: skip


def _add_running(command: Parser) -> None:
    add = command.add_argument
    _add_workers(command)
    add("--on-error", choices=ON_ERROR, default="fail", metavar="RULE",
        help="what to do with bad rows, such as damaged images: fail (default), or quarantine (leave them out and list "
        "them in OUT.beam_cifar/quarantine.jsonl)")  # fmt: skip
    add("--max-errors", metavar="LIMIT",
        help="with --on-error quarantine: fail if more rows are bad than this number, or percentage of the input such "
        "as 1%%; default: no limit")  # fmt: skip
    add("--keep-bad-rows", action="store_true",
        help="with --on-error quarantine: keep the images of bad rows in OUT.beam_cifar/quarantine/")  # fmt: skip
    add("--plan", action="store_true", help="print the plan and exit, without writing anything")
    add("--strict", action="store_true",
        help="refuse to lose pixels, colour, labels, subsets, ids or superclasses")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the output directory with everything in it")
    add("--resume", action="store_true",
        help="continue an interrupted run of the same job; if this run fails, keep its finished parts")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object")


def add_export_options(parser: Any) -> None:
    """Adds the options of the exporter, which may be given before or after "--"."""
    # The namespace is already filled when "--" is reached: a default would overwrite a value given before.
    suppress = argparse.SUPPRESS if isinstance(parser, Parser) else False
    parser.add_argument("--save-images", "--save-media", action="store_true", default=suppress, dest="save_images",
                        help="include pixels in cifar, where they are optional; other formats always do")  # fmt: skip
    parser.add_argument("--save-dataset-meta", action="store_true", default=suppress,
                        help="write dataset_meta.json with the class names (cifar)")  # fmt: skip
    parser.add_argument("--image-ext", metavar="EXT", default=suppress or None, help="extension of image files, such "
                        "as .jpg; default: as in the source, or .png for raw pixels")  # fmt: skip
    parser.add_argument("--subsets", choices=SUBSET_NAMES, metavar="RULE", default=suppress or None,
                        dest="subset_names", help="name subsets as in the source, or by their split (data_batch_* "
                        "becomes train): source or split; default: depends on the output format")  # fmt: skip
    parser.add_argument("--keep-empty-classes", action="store_true", default=suppress,
                        help="also create folders for classes without images "
                        "(imagenet, imagenet_with_subset_dirs)")  # fmt: skip
    parser.add_argument("--layout", choices=LAYOUTS, metavar="NAME", default=suppress or None, help="genuine: write "
                        "data_batch_1 to data_batch_5 and test_batch, as in CIFAR-10, or with superclasses train and "
                        "test, as in CIFAR-100 (cifar)")  # fmt: skip
    parser.add_argument("--card", action="store_true", default=suppress, help="write README.md, a dataset card for the "
                        "Hugging Face Hub, and croissant.json (parquet, webdataset); pandas, pyarrow and Polars then "
                        "read OUT/data, not OUT (parquet); the folders of splits for datasets, where it would not "
                        "find them (imagenet)")  # fmt: skip


def add_project(command: Parser) -> None:
    """Adds the option for the project that a command reads or changes."""
    command.add_argument("-p", "--project", default=".", metavar="DIR",
        help="project folder; default: current directory")  # fmt: skip


def add_source(command: Parser) -> None:
    """Adds the arguments for the one dataset that a command reads."""
    command.add_argument("path", metavar="PATH", help="directory, archive or file")
    add_input_format(command)


def add_input_format(command: Parser) -> None:
    """Adds the option for the format of the dataset that a command reads."""
    command.add_argument(
        "-if", "--input-format", choices=READ, metavar="FORMAT", help="input format; default: detected"
    )


def add_subset(command: Parser) -> None:
    """Adds the option that selects subsets."""
    command.add_argument("--subset", action="append", default=[], metavar="NAME",
        help="read only this subset (repeatable); train and test select all their batches")  # fmt: skip


def add_reading(command: Parser) -> None:
    """Adds the options shared by commands that read a dataset but write none."""
    command.set_defaults(takes_beam_options=True)
    _add_workers(command)
    add_json(command)


def _add_workers(command: Parser) -> None:
    command.add_argument(
        "--workers", type=int, metavar="N", help="number of local workers; default: one per core, at most four"
    )


def add_json(command: Parser) -> None:
    """Adds the option for JSON output."""
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")


def list_flags(parser: Parser) -> list[str]:
    """All long flags of a command, from which to suggest one for a misspelling."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
