"""The manifest of an output."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from beam_cifar.data.block import Counts
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.formats.contract.types import ShardResult
from beam_cifar.formats.registry import get_sink
from beam_cifar.images.remarks import notices_of
from beam_cifar.jobs.accounts import ShardInfo
from beam_cifar.jobs.settings import PublishSettings, SinkSettings

MANIFEST_VERSION = 1
"""Version of `manifest.schema.json`; increased when a reader of the old form would misread the new one."""


def manifest_bytes(
    shards: Sequence[ShardInfo],
    counted: dict[str, Counts],
    files: dict[str, bytes],
    foreign: Sequence[dict[str, Any]],
    results: Sequence[ShardResult],
    settings: PublishSettings,
) -> bytes:
    """Returns the manifest. Equal jobs have equal manifests, so it has no time, host, path or number of workers."""
    subsets: Counter[str] = Counter()
    for shard in settings.sink.shards:
        subsets[shard.subset] += shard.rows
    labels = settings.label_map.table
    by_label: Counter[int] = Counter()
    for (_, label), n in counted["written"].items():
        by_label[label] += n
    remarks = Counter(settings.remarks)
    for result in results:
        remarks.update(result.statistics)
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
        "notices": [*sink.result_notices(settings.sink.options, results), *notices_of(remarks)],
        "files": [
            {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        + [{"path": path, "bytes": size, "sha256": digest} for info in shards for path, size, digest in info.beside]
        + list(foreign),
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _named_subsets(written: Counts, shards: Iterable[str], settings: PublishSettings) -> list[str]:
    """Returns the subset names of the output before the format changed them."""
    naming, options = get_sink(settings.sink.format).subsets, settings.sink.options.export
    names = [naming.asked(subset, options) for subset, _ in written]
    known = set(map(naming.letters, names))
    return sorted({*names, *(name for name in shards if name not in known)})


def _source_labels(settings: PublishSettings) -> dict[str, Any]:
    """Returns the class names for label ids of rows read, filtered and unlabelled, if the output has others."""
    names = settings.counts.names if settings.counts else ()
    return {"source_labels": list(names)} if names and names != settings.label_map.table.names else {}


def _shard_entry(info: ShardInfo, sink: SinkSettings) -> dict[str, Any]:
    shard = sink.shards[info.shard]
    entry = {"path": shard.path, "subset": shard.subset, "rows": shard.rows, "bytes": info.bytes, "sha256": info.sha256}
    return entry | ({"files": info.files, "listing": info.listing} if info.listing else {})


def _nested(counts: Counts) -> dict[str, dict[str, int]]:
    """Returns counts as subset -> label id -> rows, in order; "-1" is unlabelled."""
    nested: dict[str, dict[str, int]] = {}
    for (subset, label), n in sorted(counts.items()):
        if n:
            nested.setdefault(subset, {})[str(label)] = n
    return nested
