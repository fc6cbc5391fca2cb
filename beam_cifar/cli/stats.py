"""`beam-cifar stats`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_cifar.cli.jobs import images_of, reading_job
from beam_cifar.cli.parser import add_command, add_reading, add_reading_of_images, add_source, add_subset
from beam_cifar.cli.terminal import aligned, percentage, plain, print_result
from beam_cifar.data.text import counted

if TYPE_CHECKING:
    from beam_cifar.analysis.stats import CommonStats, SizeCount, Stats

SHOWN_SIZES = 10
SHOWN_CLASSES = 100
SHOWN_SUBSETS = 8
"""How many sizes, classes and subsets the text output shows; JSON has them all."""


def add(commands: Any) -> None:
    command = add_command(commands, "stats", run)
    add_source(command)
    add_subset(command)
    add_reading_of_images(command)
    add_reading(command)


def run(arguments: argparse.Namespace) -> None:
    """Read every image and show statistics of a dataset. Options not listed here are passed to Beam."""
    with reading_job(arguments) as options:
        from beam_cifar.analysis.stats import stats
        from beam_cifar.analysis.tally import EXAMPLES, MAX_LISTED

        found = stats(
            arguments.path,
            arguments.input_format,
            tuple(arguments.subset),
            images=images_of(arguments),
            listed=MAX_LISTED if arguments.json else EXAMPLES,
            beam_options=options,
        )
    print_result(arguments, _facts(found), _shown(found))


def _facts(found: Stats) -> dict[str, Any]:
    """All statistics, for JSON."""
    table = found.labels
    parents = table.parents or (None,) * len(table.names)
    totals = _class_totals(found)
    return {
        **_named(found, "path format title rows images unlabelled"),
        "classes": [
            {"name": name, "superclass": None if parent is None else table.coarse_names[parent], "rows": totals[name]}
            for name, parent in zip(table.names, parents, strict=True)
        ],
        **_image_facts(found),
        "subsets": [
            {
                **_named(subset, "name rows images unlabelled"),
                "classes": dict(subset.labels),
                **_image_facts(subset),
                **_named(subset, "duplicates digest"),
            }
            for subset in found.subsets
        ],
        "duplicate_groups": found.duplicate_groups,
        "conflicting_groups": found.conflicting,
        "across": [
            {"first": first, "second": second, "rows": rows} for (first, second), rows in found.across.items() if rows
        ],
        "groups": [
            {
                "count": group.count,
                "rows": [dict(zip(("subset", "id", "class"), row, strict=True)) for row in group.rows],
            }
            for group in found.groups
        ],
        "notices": list(found.notices),
    }


def _named(found: CommonStats, names: str) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names.split()}


def _image_facts(found: CommonStats) -> dict[str, Any]:
    return {
        "sizes": [{"height": size.height, "width": size.width, "images": size.rows} for size in found.sizes],
        **_named(found, "channels encodings mean std"),
        "mean_unit": [value / 255 for value in found.mean],
        "std_unit": [value / 255 for value in found.std],
    }


def _shown(found: Stats) -> Iterator[str]:
    """The lines of the text output."""
    yield f"{found.title} ({found.format}) at {found.path}"
    yield f"{counted(found.rows, 'row')}, {found.images:,} with images, {found.unlabelled:,} without a label"
    yield from (f"note: {notice}" for notice in found.notices)
    yield from _shown_subsets(found)
    yield from _shown_classes(found)
    if found.images:
        yield from _shown_images(found)
        yield from _shown_duplicates(found)


def _shown_subsets(found: Stats) -> Iterator[str]:
    lines = [["subset", "rows", "share", "images", "no label", "repeated", "digest"]]
    for subset in found.subsets:
        numbers = [f"{n:,}" for n in (subset.images, subset.unlabelled, subset.duplicates)]
        of_all = percentage(subset.rows, found.rows)
        lines.append([plain(subset.name), f"{subset.rows:,}", of_all, *numbers, subset.digest])
    yield from aligned(lines)


def _shown_classes(found: Stats) -> Iterator[str]:
    """Rows of each class, with a column per subset unless there are too many."""
    subsets = found.subsets if 1 < len(found.subsets) <= SHOWN_SUBSETS else ()
    totals = _class_totals(found)
    lines = [["class", "rows", "share", *(plain(subset.name) for subset in subsets)]]
    for name in list(totals)[:SHOWN_CLASSES]:
        per_subset = (f"{subset.labels[name]:,}" for subset in subsets)
        lines.append([plain(name), f"{totals[name]:,}", percentage(totals[name], found.rows), *per_subset])
    yield from aligned(lines)
    if len(totals) > SHOWN_CLASSES:
        yield f"  and {counted(len(totals) - SHOWN_CLASSES, 'more class')}; list all with --json"


def _class_totals(found: Stats) -> dict[str, int]:
    """Rows of each class over all subsets, in the order of the label table."""
    return {name: sum(subset.labels[name] for subset in found.subsets) for name in dict.fromkeys(found.labels.names)}


def _shown_images(found: Stats) -> Iterator[str]:
    yield f"sizes      {_sizes(found.sizes)}"
    yield f"channels   {_counts(found.channels)}"
    yield f"encodings  {_counts(found.encodings)}"
    for name, values in (("mean", found.mean), ("deviation", found.std)):
        of_255 = " ".join(f"{value:.2f}" for value in values)
        of_1 = " ".join(f"{value / 255:.4f}" for value in values)
        yield f"{name:<9}  R G B {of_255} of 255, {of_1} of 1"


def _sizes(sizes: Sequence[SizeCount]) -> str:
    if len(sizes) == 1:
        return f"{sizes[0].height} x {sizes[0].width}"
    heights, widths = [size.height for size in sizes], [size.width for size in sizes]
    common = sorted(sizes, key=lambda size: -size.rows)[:SHOWN_SIZES]
    listed = ", ".join(f"{size.height} x {size.width} ({size.rows:,})" for size in common)
    more = ", ..." if len(sizes) > SHOWN_SIZES else ""
    return (
        f"{len(sizes):,} different, {min(heights)} to {max(heights)} high, {min(widths)} to {max(widths)} wide: "
        f"{listed}{more}"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _shown_duplicates(found: Stats) -> Iterator[str]:
    if not found.duplicate_groups:
        yield "duplicates none"
        return
    repeated = counted(found.duplicate_groups, "image")
    yield f"duplicates {repeated} in several rows, {found.conflicting:,} with different labels"
    for (first, second), count in found.across.items():
        if count:
            yield f"  {second}: {counted(count, 'row')} with an image that is also in {first}"
    for group in found.groups:
        rows = ", ".join(
            f"{subset}: {item_id} ({'no label' if name is None else name})" for subset, item_id, name in group.rows
        )
        yield f"  {group.count:,} x  {rows}{', ...' if group.count > len(group.rows) else ''}"
    if found.duplicate_groups > len(found.groups):
        yield f"  and {counted(found.duplicate_groups - len(found.groups), 'more image')}"
