"""Publish: parts become shards, the staged tree becomes the output, the manifest comes last.

Both steps may run twice, or again after half of them: a runner repeats bundles, and a killed job is run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam

from beam_cifar import storage
from beam_cifar.block import Counts, add_counts
from beam_cifar.carried import carried
from beam_cifar.errors import JobError
from beam_cifar.formats import get_format
from beam_cifar.labels import UNLABELLED, LabelMap
from beam_cifar.sink import PartInfo, SinkSettings


@dataclass(frozen=True)
class PublishSettings:
    """What publishing needs besides the accounts of the parts.

    Attributes:
        sink: settings of the sink.
        label_map: where labels went.
        declared: rows that must have been read, or None where a limit stops early.
        facts: the part of the manifest that is known before the start.
        overwrite: whether an existing output may be replaced.
    """

    sink: SinkSettings
    label_map: LabelMap
    declared: int | None
    facts: dict[str, Any]
    overwrite: bool


@dataclass(frozen=True)
class ShardInfo:
    """The account of one finished file of the output.

    Attributes:
        shard: its number.
        bytes: of the file.
        sha256: of the file, hex.
        parts: what it was made from.
    """

    shard: int
    bytes: int
    sha256: str
    parts: tuple[PartInfo, ...]


@dataclass
class Publish(beam.PTransform):
    """Publishes a job: first by shard, in parallel, then once for all.

    Attributes:
        settings: of the job.
    """

    settings: PublishSettings

    def expand(self, parts: beam.PCollection[PartInfo]) -> beam.PCollection[str]:
        """From accounts of parts to the path of the manifest."""
        return (
            parts
            | "KeyByShard" >> beam.Map(lambda part: (part.shard, part)).with_output_types(tuple[int, PartInfo])
            | "GroupParts" >> beam.GroupByKey()
            | "FinishShards" >> beam.ParDo(_FinishShard(self.settings.sink)).with_output_types(ShardInfo)
            | "KeyByJob" >> beam.Map(lambda shard: (0, shard)).with_output_types(tuple[int, ShardInfo])
            | "GroupShards" >> beam.GroupByKey()
            | "FinishJob" >> beam.ParDo(_FinishJob(self.settings)).with_output_types(str)
        )


class _FinishShard(beam.DoFn):
    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings

    def process(self, keyed: tuple[int, Iterable[PartInfo]]) -> Iterator[ShardInfo]:
        with carried():
            info = finish_shard(keyed[0], keyed[1], self._settings)
        yield info


class _FinishJob(beam.DoFn):
    def __init__(self, settings: PublishSettings) -> None:
        self._settings = settings

    def process(self, keyed: tuple[int, Iterable[ShardInfo]]) -> Iterator[str]:
        with carried():
            path = finish_job(keyed[1], self._settings)
        yield path


def finish_shard(number: int, infos: Iterable[PartInfo], settings: SinkSettings) -> ShardInfo:
    """Takes one attempt of each part, checks the files, and joins them where there are several.

    Raises:
        JobError: a part is missing, or two attempts of one differ.
    """
    shard = settings.shards[number]
    parts = tuple(_one_each(infos, shard.parts, lambda info: info.part, shard.path))
    if shard.parts == 1:
        return ShardInfo(number, parts[0].bytes, parts[0].sha256, parts)
    paths = [settings.part_path(shard, info.part) for info in parts]
    for path, info in zip(paths, parts, strict=True):
        _check_size(path, info.bytes)
    with storage.StagedFile(os.path.join(settings.folder.tree, shard.path), settings.folder.scratch) as file:
        get_format(settings.format).join(paths, file, shard, settings.options)
        file.commit()
    return ShardInfo(number, file.bytes_written, file.sha256, parts)


def finish_job(infos: Iterable[ShardInfo], settings: PublishSettings) -> str:
    """Reconciles the counts, completes the tree, moves it into place, and writes the manifest last.

    Returns:
        The path of the manifest.

    Raises:
        JobError: counts that do not add up, or files that are missing.
        OutputError: something else appeared at the output.
    """
    sink = settings.sink
    shards = list(_one_each(infos, len(sink.shards), lambda info: info.shard, sink.folder.output))
    parts = [part for shard in shards for part in shard.parts]
    reconcile(parts, settings)
    files = get_format(sink.format).finish(
        sink.options, [(sink.shards[info.shard], info.bytes, _statistics(info.parts)) for info in shards]
    )
    manifest = _manifest(shards, parts, files, settings)
    expected = {sink.shards[info.shard].path: info.bytes for info in shards}
    if storage.has_sizes(sink.folder.tree, expected):
        for path, content in files.items():
            storage.write_whole(os.path.join(sink.folder.tree, path), content, sink.folder.scratch)
        storage.publish_tree(sink.folder, manifest, is_ours, overwrite=settings.overwrite)
    elif not (_is_published(sink.folder, manifest, expected) or finish_interrupted(sink.folder, manifest)):
        raise JobError(f"{sink.folder.tree}: staged files are missing; run the job again")
    storage.remove_tree(sink.folder.work)
    return sink.folder.manifest


def _is_published(folder: storage.JobFolder, manifest: bytes, expected: dict[str, int]) -> bool:
    """Whether an earlier call did it all."""
    return storage.has_content(folder.manifest, manifest) and storage.has_sizes(folder.output, expected)


def finish_interrupted(folder: storage.JobFolder, manifest: bytes) -> bool:
    """Completes a publish that was killed between moving the tree and writing the manifest, if there was one."""
    if not storage.has_content(folder.pending_manifest, manifest) or not is_ours(folder.output, manifest):
        return False
    storage.promote(folder)
    return True


def is_ours(output: str, manifest: bytes) -> bool:
    """Whether a directory holds exactly the files of a manifest, by digest."""
    content = json.loads(manifest)
    files = [*content["shards"], *content["files"]]
    if storage.files_below(output) != {file["path"] for file in files}:
        return False
    for file in files:
        try:
            if storage.file_digest(os.path.join(output, file["path"])) != (file["bytes"], file["sha256"]):
                return False
        except OSError:
            return False
    return True


def reconcile(parts: Sequence[PartInfo], settings: PublishSettings) -> None:
    """Checks that every row read was written, filtered or rejected, by subset and label.

    Raises:
        JobError: it was not.
    """
    label_map = settings.label_map
    balance: Counts = add_counts(_mapped(part.read, label_map) for part in parts)
    for part in parts:
        balance.subtract(_mapped(part.filtered, label_map))
        balance.subtract(_mapped(part.rejected, label_map))
        balance.subtract(part.written)
    wrong = {key: n for key, n in balance.items() if n}
    if wrong:
        (subset, label), difference = next(iter(wrong.items()))
        raise JobError(
            f"counts do not add up: read - filtered - rejected - written is {difference}, not 0, for subset {subset!r} "
            f"and label {label}; nothing was published"
        )
    read = sum(part.read.total() for part in parts)
    if settings.declared is not None and read != settings.declared:
        raise JobError(f"{read} rows were read, the input files declare {settings.declared}; nothing was published")


def _mapped(counts: Counts, label_map: LabelMap) -> Counts:
    mapped: Counts = Counter()
    for (subset, label), n in counts.items():
        mapped[subset, label_map[label]] += n
    return mapped


def _one_each(infos: Iterable[Any], count: int, number: Any, what: str) -> Iterator[Any]:
    """One account of each number, in order: attempts are equal, or something is not deterministic."""
    found: dict[int, Any] = {}
    for info in infos:
        if found.setdefault(number(info), info) != info:
            raise JobError(f"{what}: two attempts of part {number(info)} differ; nothing was published")
    if sorted(found) != list(range(count)):
        missing = sorted(set(range(count)) - set(found))
        raise JobError(f"{what}: parts {missing[:5]} of {count} are missing; nothing was published")
    return (found[key] for key in sorted(found))


def _check_size(path: str, expected: int) -> None:
    found = os.path.getsize(path)
    if found != expected:
        raise JobError(f"{path}: has {found} bytes, {expected} were written")


def _statistics(parts: Sequence[PartInfo]) -> dict[str, int]:
    names = {name for part in parts for name in part.statistics}
    return {name: sum(part.statistics.get(name, 0) for part in parts) for name in sorted(names)}


def _manifest(
    shards: Sequence[ShardInfo], parts: Sequence[PartInfo], files: dict[str, bytes], settings: PublishSettings
) -> bytes:
    """The manifest: equal jobs have equal ones, so no time, host, path or number of workers."""
    counted = {
        name: add_counts(getattr(part, name) for part in parts) for name in ("read", "written", "filtered", "rejected")
    }
    subsets: dict[str, int] = {}
    for shard in settings.sink.shards:
        subsets[shard.subset] = subsets.get(shard.subset, 0) + shard.rows
    labels = settings.label_map.table
    by_label: dict[int, int] = {}
    for (_, label), n in counted["written"].items():
        by_label[label] = by_label.get(label, 0) + n
    present = [(settings.sink.shards[info.shard], _labels_of(info)) for info in shards]
    content = {
        **settings.facts,
        "labels": asdict(labels),
        "rows": {name: counts.total() for name, counts in counted.items()},
        "subsets": subsets,
        "classes": {labels.names[label]: by_label.get(label, 0) for label in range(len(labels.names))},
        "unlabelled": by_label.get(UNLABELLED, 0),
        "counts": {name: _nested(counts) for name, counts in counted.items()},
        "shards": [
            {
                "path": settings.sink.shards[info.shard].path,
                "subset": settings.sink.shards[info.shard].subset,
                "rows": settings.sink.shards[info.shard].rows,
                "bytes": info.bytes,
                "sha256": info.sha256,
            }
            for info in shards
        ],
        "notices": list(get_format(settings.sink.format).result_notices(settings.sink.options, present)),
        "files": [
            {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ],
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _labels_of(shard: ShardInfo) -> set[int]:
    return {label for part in shard.parts for (_, label), n in part.written.items() if n} - {UNLABELLED}


def _nested(counts: Counts) -> dict[str, dict[str, int]]:
    """Counts as subset -> label id -> rows, in order; "-1" is unlabelled."""
    nested: dict[str, dict[str, int]] = {}
    for (subset, label), n in sorted(counts.items()):
        if n:
            nested.setdefault(subset, {})[str(label)] = n
    return nested
