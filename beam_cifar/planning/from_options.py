"""Turns a dataset with steps into the job that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from beam_cifar.options import ConvertOptions, Input
from beam_cifar.steps.base import Step
from beam_cifar.steps.flags import First, KeepLabels, Renamings
from beam_cifar.steps.registry import make_step

SELECTION: dict[str, Any] = {
    "labels": (), "filter": None, "filter_mode": "items", "limit": None, "remaps": (), "resize": None,
}  # fmt: skip
"""Options that are also available as steps, in the order in which they are applied, with their defaults."""


def job_of(source: Input, output_dir: str, output_format: str, **more: Any) -> ConvertOptions:
    """Returns the job that writes a dataset, planned from counts alone (the fast path) if the result is the same.

    Args:
        source: the dataset, with its steps.
        output_dir: directory to create.
        output_format: name of the format to write.
        more: any other fields of `ConvertOptions`; their selections apply after the steps of the dataset.
    """
    options = ConvertOptions(
        input_path=source.path,
        input_format=source.format,
        subsets=source.subsets,
        output_dir=output_dir,
        output_format=output_format,
        **{"merged": source.merged, "on_clash": source.on_clash, "images": source.images, **more},
    )
    if not source.steps:
        return options
    selects = any(getattr(options, name) != left_out for name, left_out in SELECTION.items())
    quick = None if selects or options.by_rows else _as_options(source.steps)
    if quick is not None:
        return replace(options, **quick)
    return replace(options, **SELECTION, steps=(*source.steps, *steps_of(options)))


def steps_of(options: ConvertOptions) -> list[Step]:
    """Returns every step applied to the rows, in order: those implied by options, then the explicit ones."""
    steps: list[Step] = []
    if options.labels:
        steps.append(KeepLabels(options.labels))
    if options.filter is not None:
        steps.append(make_step("filter", {"expression": options.filter, "mode": options.filter_mode}))
    if options.limit is not None:
        steps.append(First(options.limit))
    if options.remaps:
        steps.append(Renamings(options.remaps))
    if options.resize is not None:
        steps.append(make_step("resize", {"height": options.resize[0], "width": options.resize[1]}))
    return [*steps, *options.steps]


def _as_options(steps: tuple[Step, ...]) -> dict[str, Any] | None:
    """Returns options that do the same as some steps, or None if there are no such options."""
    left, asked = list(steps), dict[str, Any]()
    for name, taken in (("filter", _filter_of), ("remap_labels", _remaps_of), ("resize", _size_of)):
        if left and left[0].name == name and (found := taken(left[0].options())) is not None:
            asked |= found
            left.pop(0)
    return None if left else asked


def _filter_of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"filter": options["expression"], "filter_mode": options.get("mode", "items")}


def _remaps_of(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns None if a name contains a colon or a label is removed: `OLD:NEW` cannot express that."""
    pairs = options.get("mapping", [])
    if options.get("default", "keep") != "keep" or any(":" in old + new or not new for old, new in pairs):
        return None
    return {"remaps": tuple(f"{old}:{new}" for old, new in pairs)}


def _size_of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"resize": (options["height"], options["width"])}
