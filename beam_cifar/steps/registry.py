"""The registry of transforms, and how to create one from options."""

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
    """A transform as lists and help texts show it; its module is imported on first use.

    Attributes:
        title: one-line description.
        target: "module:class" within this package.
    """

    title: str
    target: str


STEPS: dict[str, StepEntry] = {
    "filter": StepEntry("keep items that match an XPath expression", "items:Filter"),
    "remove_items": StepEntry("remove items by id and subset", "items:RemoveItems"),
    "remove_annotations": StepEntry("remove the labels of some or all items", "items:RemoveAnnotations"),
    "dedupe": StepEntry("remove items whose images have the same pixels as another", "dedupe:Dedupe"),
    "sort": StepEntry("sort items", "order:Sort"),
    "shuffle": StepEntry("shuffle items", "order:Shuffle"),
    "rename": StepEntry("change ids with a regular expression", "ids:Rename"),
    "reindex": StepEntry("replace ids with numbers", "ids:Reindex"),
    "id_from_image_name": StepEntry("use the image's file name as the id", "ids:IdFromImageName"),
    "map_subsets": StepEntry("rename or merge subsets", "subsets:MapSubsets"),
    "random_split": StepEntry("split items into subsets at random", "subsets:RandomSplit"),
    "split": StepEntry("split items into subsets with the same ratios in every class", "subsets:Split"),
    "random_sampler": StepEntry("keep a random sample of items", "sampling:RandomSampler"),
    "label_random_sampler": StepEntry("keep a random sample of every class", "sampling:LabelRandomSampler"),
    "remap_labels": StepEntry("rename, merge or remove classes", "labels:RemapClasses"),
    "project_labels": StepEntry("select classes and their order", "labels:ProjectLabels"),
    "fine_to_coarse": StepEntry("replace classes with their superclasses", "labels:FineToCoarse"),
    "compact_labels": StepEntry("drop classes without items and renumber the others", "labels:CompactLabels"),
    "resize": StepEntry("resize every image to one size", "pixels:Resize"),
    "crop": StepEntry("crop every image to a rectangle", "pixels:Crop"),
    "grayscale": StepEntry("convert every image to gray", "pixels:Grayscale"),
}


def step_class(name: str) -> type[Step]:
    """Returns the class of a transform. Raises `UsageError` for an unknown name."""
    if name not in STEPS:
        raise unknown_name("transform", name, list(STEPS))
    made: type[Step] = load(f"beam_cifar.steps.{STEPS[name].target}")
    return made


def make_step(name: str, options: Mapping[str, Any]) -> Step:
    """Returns a transform with options under their Python names. Raises `UsageError`."""
    kind = step_class(name)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for given in options:
        if given not in known:
            error = unknown_name("option", given, list(known))
            raise UsageError(f"{name}: {error}")
    for field in known.values():
        if field.default is dataclasses.MISSING and field.name not in options:
            raise UsageError(f"{name}: option {field.name!r} is required: {field.metadata['help']}")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: an option has the wrong type: {error}") from error


def parse_step(name: str, arguments: Sequence[str], parser_class: Callable[..., Any]) -> Step:
    """Returns a transform with options in command-line form. Raises `UsageError`."""
    kind = step_class(name)
    parser = parser_class(prog=f"beam-cifar transform -t {name} --", description=kind.__doc__, allow_abbrev=False)
    add_options(parser, kind)
    found = {key: value for key, value in vars(parser.parse_args(list(arguments))).items() if value is not None}
    return make_step(name, found)


def parse_call(text: str, parser_class: Callable[..., Any]) -> Step:
    """Returns the transform given as text, such as "random_split -s train:.8 -s test:.2". Raises `UsageError`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"transform {text!r}: {error}") from error
    if not words:
        raise UsageError("a transform needs a name")
    return parse_step(words[0], words[1:], parser_class)


def add_options(parser: Any, kind: type[Step]) -> None:
    """Adds the flags of a step to a parser; flags that are not given parse to None."""
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        about = field.metadata
        # None and not the default of the step: projects and manifests record only what was given.
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
    """Returns the help text of an option of a step."""
    repeat = " (repeatable)" if field.metadata["many"] else ""
    shown = field.default not in (dataclasses.MISSING, None, "", (), False)
    return f"{field.metadata['help']}{repeat}" + (f"; default: {_shown(field.default)}" if shown else "")


def _shown(value: Any) -> str:
    """A default in command-line form: "train:0.67, test:0.33"."""
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)


def _parser_of(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    parse = field.metadata["parse"]
    if parse is None:
        return type(field.default) if isinstance(field.default, (int, float)) else str
    if isinstance(parse, type):
        return parse

    # argparse hides the text of a ValueError, and shows that of its own error type.
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed
