"""Publish: parts become shards, the staged tree becomes the output, the manifest comes last.

Both steps may run twice, or again after half of them: a runner repeats bundles, and a killed job is run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam

from beam_cifar import storage
from beam_cifar.block import Counts, add_counts
from beam_cifar.carried import carried
from beam_cifar.errors import JobError, OutputError
from beam_cifar.formats import get_sink
from beam_cifar.formats.base import FileSink, Shard, ShardResult
from beam_cifar.in_place import foreign_files
from beam_cifar.job import Job
from beam_cifar.labels import UNLABELLED, LabelMap
from beam_cifar.manifests import MANIFEST_VERSION, finish_interrupted, is_ours
from beam_cifar.memory import give_back
from beam_cifar.plan import ChosenCounts
from beam_cifar.sink import COUNTED, PartInfo, SinkSettings


@dataclass(frozen=True)
class PublishSettings:
    """What publishing needs besides the accounts of the parts.

    Attributes:
        sink: settings of the sink.
        label_map: where labels went.
        declared: rows that must have been read, or None where a limit stops early.
        facts: the part of the manifest that is known before the start.
        overwrite: whether an existing output may be replaced.
        counts: what the plan says of the rows, where it chose them one by one.
        foreign: paths of files in the output that are no part of the data set, and stay where it is saved in place.
    """

    sink: SinkSettings
    label_map: LabelMap
    declared: int | None
    facts: dict[str, Any]
    overwrite: bool
    counts: ChosenCounts | None = None
    foreign: tuple[str, ...] = ()


def publish_settings(job: Job, sink: SinkSettings) -> PublishSettings:
    """What the publish step of a job needs."""
    declared = job.plan.declared if job.plan.exhaustive else None
    foreign = tuple(foreign_files(job.options)) if job.options.kept is not None else ()
    return PublishSettings(
        sink, job.plan.label_map, declared, job.facts, job.options.overwrite, job.plan.counts, foreign
    )


@dataclass(frozen=True)
class ShardInfo:
    """The account of one finished shard of the output.

    Attributes:
        shard: its number.
        files: how many it is made of.
        bytes: of these.
        sha256: of the file, or of the list of files, hex.
        parts: what it was made from.
        listing: name of the list of files beside the manifest; empty where the shard is one file.
        beside: path, bytes and hex sha256 of further files of the shard.
    """

    shard: int
    files: int
    bytes: int
    sha256: str
    parts: tuple[PartInfo, ...]
    listing: str = ""
    beside: tuple[tuple[str, int, str], ...] = ()


@dataclass
class Publish(beam.PTransform):
    """Publishes a job: first by shard, in parallel, then once for all.

    Attributes:
        settings: of the job, `PublishSettings`; or a side input of one, where it is known only when the job runs.
    """

    settings: Any

    def display_data(self) -> dict[str, str]:
        """The output, where it is known before the start."""
        return {"output": self.settings.sink.folder.output} if isinstance(self.settings, PublishSettings) else {}

    def expand(self, parts: beam.PCollection[PartInfo]) -> beam.PCollection[str]:
        """From accounts of parts to the path of the manifest."""
        # The facts of a large job are large, and carried by each step that is given them.
        sink = self.settings.sink if isinstance(self.settings, PublishSettings) else self.settings
        return (
            parts
            | "KeyByShard" >> beam.Map(lambda part: (part.shard, part)).with_output_types(tuple[int, PartInfo])
            | "GroupParts" >> beam.GroupByKey()
            | "FinishShards" >> beam.ParDo(_FinishShard(), sink).with_output_types(ShardInfo)
            | "KeyByJob" >> beam.Map(lambda shard: (0, shard)).with_output_types(tuple[int, ShardInfo])
            | "GroupShards" >> beam.GroupByKey()
            | "FinishJob" >> beam.ParDo(_FinishJob(), self.settings).with_output_types(str)
        )


class _FinishShard(beam.DoFn):
    def process(
        self, keyed: tuple[int, Iterable[PartInfo]], settings: PublishSettings | SinkSettings
    ) -> Iterator[ShardInfo]:
        with carried():
            sink = settings.sink if isinstance(settings, PublishSettings) else settings
            info = finish_shard(keyed[0], keyed[1], sink)
        yield info


class _FinishJob(beam.DoFn):
    def process(self, keyed: tuple[int, Iterable[ShardInfo]], settings: PublishSettings) -> Iterator[str]:
        with carried():
            path = finish_job(keyed[1], settings)
        yield path


def finish_shard(number: int, infos: Iterable[PartInfo], settings: SinkSettings) -> ShardInfo:
    """Takes one attempt of each part, checks the files, and joins them where there are several.

    Raises:
        JobError: a part is missing, or two attempts of one differ.
    """
    shard, sink = settings.shards[number], get_sink(settings.format)
    parts = tuple(one_each(infos, shard.parts, lambda info: info.part, shard.path))
    if not isinstance(sink, FileSink):
        return _finish_folder(number, parts, settings)
    if settings.is_whole(shard):
        return ShardInfo(number, 1, parts[0].bytes, parts[0].sha256, parts)
    paths = [settings.part_path(shard, info.part) for info in parts]
    for path, info in zip(paths, parts, strict=True):
        _check_size(path, info.bytes)
    give_back()  # what the parts took
    with settings.folder.stage(os.path.join(settings.folder.tree, shard.path)) as file:
        sink.join(paths, file, shard, settings.options)
        file.commit()
    return ShardInfo(number, 1, file.bytes_written, file.sha256, parts, beside=_beside_written(paths, shard, settings))


def _beside_written(paths: Sequence[str], shard: Shard, settings: SinkSettings) -> tuple[tuple[str, int, str], ...]:
    folder = settings.folder
    files = storage.StagedFiles(folder.tree, folder.scratch, folder.guard)
    get_sink(settings.format).complete(paths, files, shard, settings.options)
    return tuple(files.made)


def _finish_folder(number: int, parts: Sequence[PartInfo], settings: SinkSettings) -> ShardInfo:
    """Checks every file of a shard, and joins the lists of its parts to one beside the manifest."""
    shard, folder = settings.shards[number], settings.folder
    # Named by what the parts' accounts say, so that a later call finds it when the parts are gone.
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    name = f"files-{digest[:16]}.jsonl"
    paths = [settings.part_path(shard, part.part) for part in parts]
    if all(map(storage.is_file, paths)):
        storage.join_listings(paths, folder.staged_listing(name), folder.scratch)
    elif not storage.is_file(folder.listing(name)):
        raise JobError(f"{folder.work}: lists of staged files are missing; run the job again")
    _, digest = storage.file_digest(folder.listing(name))
    total = sum(part.bytes for part in parts)
    files = sum(part.files for part in parts)
    beside = _beside_written([folder.listing(name)], shard, settings)
    return ShardInfo(number, files, total, digest, tuple(parts), name, beside)


def finish_job(infos: Iterable[ShardInfo], settings: PublishSettings) -> str:
    """Reconciles the counts, completes the tree, moves it into place, and writes the manifest last.

    Returns:
        The path of the manifest.

    Raises:
        JobError: counts that do not add up, or files that are missing.
        OutputError: something else appeared at the output.
    """
    sink = settings.sink
    shards = list(one_each(infos, len(sink.shards), lambda info: info.shard, sink.folder.output))
    parts = [part for shard in shards for part in shard.parts]
    counts = reconcile(parts, settings)
    writer, results = get_sink(sink.format), [_result(info, sink) for info in shards]
    files = writer.finish(sink.options, results)
    foreign = _foreign(settings, {*files, *(path for info in shards for path, _, _ in info.beside)})
    manifest = manifest_bytes(shards, counts, files, foreign, results, settings)
    _refuse_taken_names(foreign, sink.folder)
    expected = storage.Tally.of(_data_files(shards, sink))
    kept = {*files, *(entry["path"] for entry in foreign)}
    if _holds(sink.folder.tree, expected, kept):
        for path, content in files.items():
            storage.write_whole(os.path.join(sink.folder.tree, path), content, sink.folder.scratch)
        for path in writer.folders(sink.options, results):
            storage.make_folder(os.path.join(sink.folder.tree, path))
        for entry in foreign:
            there, staged = (os.path.join(folder, entry["path"]) for folder in (sink.folder.output, sink.folder.tree))
            storage.stage_link(there, staged, sink.folder.scratch)
        storage.publish_tree(
            sink.folder,
            manifest,
            is_ours,
            overwrite=settings.overwrite,
            listings=[info.listing for info in shards if info.listing],
        )
    elif not (_is_published(sink.folder, manifest, expected, kept) or finish_interrupted(sink.folder, manifest)):
        written = sum(info.files for info in shards)
        raise JobError(f"{sink.folder.tree}: not all of the {written} staged files are there; run the job again")
    storage.remove_tree(sink.folder.work)
    return sink.folder.manifest


def _foreign(settings: PublishSettings, written: Set[str]) -> list[dict[str, Any]]:
    """What the manifest says of files that stay, and are no part of the data set: none that is written anew."""
    found = []
    for path in sorted(set(settings.foreign) - written):
        size, digest = storage.file_digest(os.path.join(settings.sink.folder.output, path))
        found.append({"path": path, "bytes": size, "sha256": digest, "foreign": True})
    return found


def _refuse_taken_names(foreign: Sequence[dict[str, Any]], folder: storage.JobFolder) -> None:
    for entry in foreign:
        staged = os.path.join(folder.tree, entry["path"])
        if storage.exists(staged) and storage.file_digest(staged) != (entry["bytes"], entry["sha256"]):
            there = os.path.join(folder.output, entry["path"])
            raise OutputError(f"{there}: is no file of the data set, and one of it has its name now; move it")


def _data_files(shards: Sequence[ShardInfo], sink: SinkSettings) -> Iterator[tuple[str, int]]:
    """Path and bytes of every file that the shards are made of."""
    for info in shards:
        path = sink.shards[info.shard].path
        yield from ((beside, size) for beside, size, _ in info.beside)
        if not info.listing:
            yield path, info.bytes
            continue
        for entry in storage.read_listing(sink.folder.listing(info.listing)):
            yield os.path.join(path, entry["path"]), entry["bytes"]


def _holds(tree: str, expected: storage.Tally, others: Set[str]) -> bool:
    """Whether a tree holds these data files and no other ones; `others` may be there or not.

    One file that was written over another is one too few.
    """
    try:
        found = storage.Tally.of((path, size) for path, size in storage.file_sizes(tree) if path not in others)
    except FileNotFoundError:
        return False
    return found == expected


def _is_published(folder: storage.JobFolder, manifest: bytes, expected: storage.Tally, others: Set[str]) -> bool:
    """Whether an earlier call did it all."""
    return storage.has_content(folder.manifest, manifest) and _holds(folder.output, expected, others)


def reconcile(parts: Sequence[PartInfo], settings: PublishSettings) -> dict[str, Counts]:
    """Checks that every row read was written, filtered or rejected, by subset and label.

    Returns:
        The counts of all rows, by the names in `COUNTED`.

    Raises:
        JobError: it was not.
    """
    counted = {name: add_counts(getattr(part, name) for part in parts) for name in COUNTED}
    if settings.counts is None:
        _check_balance(counted, settings)
        return counted
    planned = settings.counts
    wrong = {key: (planned.written[key], counted["written"][key]) for key in planned.written | counted["written"]}
    wrong = {key: pair for key, pair in wrong.items() if pair[0] != pair[1]}
    if wrong or counted["read"].total() != counted["written"].total():
        (subset, label), pair = next(iter(wrong.items()), (("", UNLABELLED), (0, 0)))
        raise JobError(
            f"counts do not add up: {pair[0]} rows were planned and {pair[1]} written for subset {subset!r} and label "
            f"{label}, {counted['read'].total()} read and {counted['written'].total()} written in all; nothing was "
            "published"
        )
    told = {"read": planned.read, "filtered": planned.filtered, "unlabelled": planned.unlabelled}
    if planned.read.total() != planned.filtered.total() + counted["written"].total():
        raise JobError("counts do not add up: rows read are not rows written and filtered; nothing was published")
    return counted | told


def _check_balance(counted: Mapping[str, Counts], settings: PublishSettings) -> None:
    """Checks the counts of rows that were filtered while they were read."""
    balance = _mapped(counted["read"], settings.label_map)
    for name in ("filtered", "rejected", "unlabelled"):
        balance.subtract(_mapped(counted[name], settings.label_map))
    for (subset, _), n in counted["unlabelled"].items():
        balance[subset, UNLABELLED] += n
    balance.subtract(counted["written"])
    wrong = {key: n for key, n in balance.items() if n}
    if wrong:
        (subset, label), difference = next(iter(wrong.items()))
        raise JobError(
            f"counts do not add up: read - filtered - rejected - written is {difference}, not 0, for subset {subset!r} "
            f"and label {label}; nothing was published"
        )
    read = counted["read"].total()
    if settings.declared is not None and read != settings.declared:
        raise JobError(f"{read} rows were read, the input files declare {settings.declared}; nothing was published")


def _mapped(counts: Counts, label_map: LabelMap) -> Counts:
    mapped: Counts = Counter()
    for (subset, label), n in counts.items():
        mapped[subset, label_map[label]] += n
    return mapped


def one_each(infos: Iterable[Any], count: int, number: Any, what: str) -> Iterator[Any]:
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
    found = storage.stamp(path)[0]
    if found != expected:
        raise JobError(f"{path}: has {found} bytes, {expected} were written")


def _result(info: ShardInfo, sink: SinkSettings) -> ShardResult:
    statistics: Counter[str] = Counter()
    for part in info.parts:
        statistics.update(part.statistics)
    labels = {label for part in info.parts for (_, label), n in part.written.items() if n}
    return ShardResult(sink.shards[info.shard], info.bytes, labels, statistics)


def manifest_bytes(
    shards: Sequence[ShardInfo],
    counted: dict[str, Counts],
    files: dict[str, bytes],
    foreign: Sequence[dict[str, Any]],
    results: Sequence[ShardResult],
    settings: PublishSettings,
) -> bytes:
    """The manifest: equal jobs have equal ones, so no time, host, path or number of workers."""
    subsets: Counter[str] = Counter()
    for shard in settings.sink.shards:
        subsets[shard.subset] += shard.rows
    labels = settings.label_map.table
    by_label: Counter[int] = Counter()
    for (_, label), n in counted["written"].items():
        by_label[label] += n
    sink = get_sink(settings.sink.format)
    content = {
        "manifest_version": MANIFEST_VERSION,
        **settings.facts,
        "labels": asdict(labels),
        "rows": {name: counts.total() for name, counts in counted.items()},
        "subsets": subsets,
        "classes": {name: by_label[label] for label, name in enumerate(labels.names)},
        "unlabelled": by_label[UNLABELLED],
        "counts": {name: _nested(counts) for name, counts in counted.items()},
        **_source_labels(settings),
        "renamed": sink.renamed(settings.sink.options.labels, _named_subsets(counted["written"], subsets, settings)),
        "shards": [_shard_entry(info, settings.sink) for info in shards],
        "notices": list(sink.result_notices(settings.sink.options, results)),
        "files": [
            {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        + [{"path": path, "bytes": size, "sha256": digest} for info in shards for path, size, digest in info.beside]
        + list(foreign),
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _named_subsets(written: Counts, shards: Iterable[str], settings: PublishSettings) -> list[str]:
    """The subsets of the output, in the names that they had before the format changed them."""
    naming, options = get_sink(settings.sink.format).subsets, settings.sink.options.export
    names = [naming.asked(subset, options) for subset, _ in written]
    known = set(map(naming.letters, names))
    return sorted({*names, *(name for name in shards if name not in known)})


def _source_labels(settings: PublishSettings) -> dict[str, Any]:
    """The classes that label ids of rows read, filtered and unlabelled mean, where those of the output are others."""
    names = settings.counts.names if settings.counts else ()
    return {"source_labels": list(names)} if names and names != settings.label_map.table.names else {}


def _shard_entry(info: ShardInfo, sink: SinkSettings) -> dict[str, Any]:
    shard = sink.shards[info.shard]
    entry = {"path": shard.path, "subset": shard.subset, "rows": shard.rows, "bytes": info.bytes, "sha256": info.sha256}
    return entry | ({"files": info.files, "listing": info.listing} if info.listing else {})


def _nested(counts: Counts) -> dict[str, dict[str, int]]:
    """Counts as subset -> label id -> rows, in order; "-1" is unlabelled."""
    nested: dict[str, dict[str, int]] = {}
    for (subset, label), n in sorted(counts.items()):
        if n:
            nested.setdefault(subset, {})[str(label)] = n
    return nested
