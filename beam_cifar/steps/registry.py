"""The registry of steps: the one place where a transform is listed."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_cifar.data.labels import unknown_name
from beam_cifar.data.loading import load
from beam_cifar.errors import UsageError
from beam_cifar.steps.base import Step


@dataclass(frozen=True)
class StepEntry:
    """A step as lists and help texts show it; its module is imported when it is used.

    Attributes:
        title: one line for people.
        target: "module:class" within this package.
    """

    title: str
    target: str


STEPS: dict[str, StepEntry] = {
    "filter": StepEntry("keep items for which an XPath expression holds", "items:Filter"),
    "remove_items": StepEntry("remove items by id and subset", "items:RemoveItems"),
    "remove_annotations": StepEntry("take the labels of some or all items away", "items:RemoveAnnotations"),
    "dedupe": StepEntry("keep one of the items whose images have the same pixels", "dedupe:Dedupe"),
    "sort": StepEntry("put items in order", "order:Sort"),
    "shuffle": StepEntry("put items in a random order", "order:Shuffle"),
    "rename": StepEntry("change ids by a regular expression", "ids:Rename"),
    "reindex": StepEntry("number items", "ids:Reindex"),
    "id_from_image_name": StepEntry("make the image's file name the id", "ids:IdFromImageName"),
    "map_subsets": StepEntry("rename or merge subsets", "subsets:MapSubsets"),
    "random_split": StepEntry("split items into subsets at random", "subsets:RandomSplit"),
    "split": StepEntry("split items into subsets, every class in the same shares", "subsets:Split"),
    "random_sampler": StepEntry("keep a number of items, chosen at random", "sampling:RandomSampler"),
    "label_random_sampler": StepEntry(
        "keep a number of items of every class, chosen at random", "sampling:LabelRandomSampler"
    ),
    "remap_labels": StepEntry("rename, merge or remove classes", "labels:RemapClasses"),
    "project_labels": StepEntry("choose classes and their order", "labels:ProjectLabels"),
    "fine_to_coarse": StepEntry("make superclasses the classes", "labels:FineToCoarse"),
    "compact_labels": StepEntry("drop classes without items, and number the others anew", "labels:CompactLabels"),
    "resize": StepEntry("give every image one size", "pixels:Resize"),
    "crop": StepEntry("cut a rectangle out of every image", "pixels:Crop"),
    "grayscale": StepEntry("make every image gray", "pixels:Grayscale"),
}


def step_class(name: str) -> type[Step]:
    """The step of that name; raises `UsageError` if there is none."""
    if name not in STEPS:
        raise unknown_name("transform", name, list(STEPS))
    made: type[Step] = load(f"beam_cifar.steps.{STEPS[name].target}")
    return made


def make_step(name: str, options: Mapping[str, Any]) -> Step:
    """The step of that name with some options, by their names in Python. Raises `UsageError`."""
    kind = step_class(name)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for given in options:
        if given not in known:
            error = unknown_name("option", given, list(known))
            raise UsageError(f"{name}: {error}")
    for field in known.values():
        if field.default is dataclasses.MISSING and field.name not in options:
            raise UsageError(f"{name}: option {field.name!r} is missing: {field.metadata['help']}")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: an option has a value of another type: {error}") from error


def parse_step(name: str, arguments: Sequence[str], parser_class: Callable[..., Any]) -> Step:
    """The step of that name with options as on a command line. Raises `UsageError`."""
    kind = step_class(name)
    parser = parser_class(prog=f"beam-cifar transform -t {name} --", description=kind.__doc__, allow_abbrev=False)
    add_options(parser, kind)
    found = {key: value for key, value in vars(parser.parse_args(list(arguments))).items() if value is not None}
    return make_step(name, found)


def parse_call(text: str, parser_class: Callable[..., Any]) -> Step:
    """The step of a text such as "random_split -s train:.8 -s test:.2". Raises `UsageError`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"transform {text!r}: {error}") from error
    if not words:
        raise UsageError("a transform needs a name")
    return parse_step(words[0], words[1:], parser_class)


def add_options(parser: Any, kind: type[Step]) -> None:
    """Adds the flags of a step to a parser; one that is not given is None there."""
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        about = field.metadata
        # None and not the default of the step: only what was given is noted in projects and manifests.
        settings: dict[str, Any] = {"dest": field.name, "default": None, "help": help_text(field)}
        if about.get("switch"):
            parser.add_argument(*about["flags"], action="store_true", **settings)
            continue
        settings["type"] = _parser_of(field)
        if about["choices"]:
            settings["choices"] = about["choices"]
        if about["metavar"]:
            settings["metavar"] = about["metavar"]
        if about["many"]:
            settings["action"] = "append"
        settings["required"] = field.default is dataclasses.MISSING
        parser.add_argument(*about["flags"], **settings)


def help_text(field: dataclasses.Field[Any]) -> str:
    """What help texts say of an option of a step."""
    repeat = " (repeatable)" if field.metadata["many"] else ""
    shown = field.default not in (dataclasses.MISSING, None, "", (), False)
    return f"{field.metadata['help']}{repeat}" + (f"; {_shown(field.default)} if left out" if shown else "")


def _shown(value: Any) -> str:
    """A default as a command line has it: "train:0.67, test:0.33"."""
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)


def _parser_of(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    parse = field.metadata["parse"]
    if parse is None:
        return type(field.default) if isinstance(field.default, (int, float)) else str
    if isinstance(parse, type):
        return parse

    # argparse shows the text of its own error, and hides that of a ValueError.
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed
