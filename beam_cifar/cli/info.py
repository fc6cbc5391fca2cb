"""`beam-cifar info`."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from beam_cifar import storage
from beam_cifar.cli.jobs import images_of
from beam_cifar.cli.parser import add_command, add_json, add_reading_of_images, add_source
from beam_cifar.cli.terminal import print_result, scratch_folder
from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.text import counted
from beam_cifar.errors import UsageError
from beam_cifar.formats.cifar.facts import CIFAR10_MD5, CIFAR100_MD5
from beam_cifar.formats.contract.types import FileSummary, Wanted
from beam_cifar.naming.components import alike_names
from beam_cifar.planning.summaries import label_counts, learn_parents
from beam_cifar.planning.survey import Survey, survey
from beam_cifar.storage import archives

GENUINE = {"CIFAR-10": CIFAR10_MD5, "CIFAR-100": CIFAR100_MD5}


def add(commands: Any) -> None:
    command = add_command(commands, "info", run)
    add_source(command)
    command.add_argument(
        "--checksums", action="store_true", help="show MD5 checksums, and which files match the official archives"
    )
    add_reading_of_images(command)
    add_json(command)


def run(arguments: argparse.Namespace) -> None:
    """Show what a dataset contains, without reading pixels."""
    with scratch_folder(arguments) as folder:
        wanted, images = Wanted(sizes=True), images_of(arguments)
        found = survey(arguments.path, arguments.input_format, (), folder, wanted, images=images)
        facts = _facts(found)
        if arguments.checksums:
            facts["checksums"] = _checksums(found)
    print_result(arguments, facts, _shown(facts))


def _facts(found: Survey) -> dict[str, Any]:
    labels = learn_parents(found.catalog, found.summaries)
    counts: Counter[int] = Counter()
    for summary in found.summaries:
        counts.update(label_counts(summary))
    return {
        "path": found.catalog.path,
        "format": found.catalog.format,
        "title": found.catalog.title,
        "rows": sum(s.rows for s in found.summaries),
        "bad_rows": sum(s.bad_count for s in found.summaries),
        "unlabelled": counts.pop(UNLABELLED, 0),
        "subsets": [_subset(*each) for each in by_key((s.file.subset, s) for s in found.summaries).items()],
        "classes": _by_class(labels.names, counts),
        "superclasses": {
            name: [labels.names[i] for i, parent in enumerate(labels.parents) if parent == coarse]
            for coarse, name in enumerate(labels.coarse_names)
        },
        "notices": [*found.catalog.notices, *alike_names(labels.names)],
    }


def _by_class(names: Sequence[str], counts: Mapping[int, int]) -> dict[str, int]:
    """Rows of each class; classes with the same name are counted together."""
    found = dict.fromkeys(names, 0)
    for label, name in enumerate(names):
        found[name] += counts.get(label, 0)
    return found


def _subset(name: str, members: Sequence[FileSummary]) -> dict[str, Any]:
    """The facts of a subset, from its files: a single file in CIFAR, one folder per class in ImageNet."""
    sizes = {summary.size for summary in members if summary.images}
    size = sizes.pop() if len(sizes) == 1 else None
    bad_rows = [bad for summary in members for bad in summary.bad_rows]
    return {
        "name": name,
        "rows": sum(summary.rows for summary in members),
        "images": sum(summary.images for summary in members),
        "size": list(size) if size else None,
        "bad_rows": sum(summary.bad_count for summary in members),
        "first_bad_row": str(bad_rows[0]) if bad_rows else None,
        "repeated_names": sum(summary.duplicates for summary in members),
    }


def _checksums(found: Survey) -> dict[str, dict[str, str | None]]:
    """The MD5 of every file, and the genuine file it matches. Raises `UsageError` for one file per image."""
    if storage.is_folder(found.catalog.files[0].blob.path):
        raise UsageError(
            f"--checksums: {found.catalog.format} has one file per image; no checksums are known for these"
        )
    sums: dict[str, dict[str, str | None]] = {}
    if archives.is_archive(found.catalog.path):
        with storage.open_file(found.catalog.path) as archive:
            sums[os.path.basename(found.catalog.path)] = _named(storage.digest_of(archive, "md5"))
    for file in (*found.catalog.meta_files, *found.catalog.files):
        with storage.open_blob(file.blob, file.shown) as stream:
            sums[file.name] = _named(storage.digest_of(stream, "md5"))
    return sums


def _named(md5: str) -> dict[str, str | None]:
    genuine = {known: f"{title} {name}" for title, sums in GENUINE.items() for name, known in sums.items()}
    return {"md5": md5, "genuine": genuine.get(md5)}


def _shown(facts: dict[str, Any]) -> list[str]:
    lines = [f"{facts['title']} ({facts['format']}) at {facts['path']}", counted(facts["rows"], "row")]
    lines += [f"note: {notice}" for notice in facts["notices"]]
    for subset in facts["subsets"]:
        number, noun = counted(subset["rows"], "row").split()
        line = f"  {subset['name']:<16} {number:>9} {noun}"
        if subset["images"] != subset["rows"]:
            line += f", {subset['images']:,} with images"
        if subset["images"]:
            line += f", {subset['size'][0]} x {subset['size'][1]}" if subset["size"] else ", sizes differ"
        if subset["bad_rows"]:
            line += f", {counted(subset['bad_rows'], 'bad row')}; first: {subset['first_bad_row']}"
        if subset["repeated_names"]:
            line += f", {counted(subset['repeated_names'], 'repeated name')}"
        lines.append(line)
    names = facts["superclasses"] or {"": list(facts["classes"])}
    parents = f" in {counted(len(names), 'superclass')}" if facts["superclasses"] else ""
    lines.append(counted(len(facts["classes"]), "class") + parents)
    for parent, members in names.items():
        if not members:
            continue
        shown = ", ".join(f"{name} {facts['classes'][name]:,}" for name in members)
        lines.append(f"  {parent + ': ' if parent else ''}{shown}")
    if facts["unlabelled"]:
        lines.append(f"  unlabelled {facts['unlabelled']:,}")
    for name, found in facts.get("checksums", {}).items():
        verdict = f"genuine {found['genuine']}" if found["genuine"] else "not a genuine file"
        lines.append(f"  {found['md5']}  {name}  ({verdict})")
    return lines
