"""Manifests: what an output is made of, and whether it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from beam_cifar import storage

MANIFEST_VERSION = 1
"""Of the form of a manifest, `manifest.schema.json`: it grows when a reader of the old form would misread the new."""


def finish_interrupted(folder: storage.JobFolder, manifest: bytes) -> bool:
    """Completes a publish that was killed between moving the tree and writing the manifest, if there was one."""
    if not storage.has_content(folder.pending_manifest, manifest) or not is_ours(folder.output, manifest):
        return False
    storage.promote(folder)
    return True


def is_ours(output: str, manifest: bytes) -> bool:
    """Whether a directory holds exactly the files of a manifest, by digest."""
    count = 0
    try:
        for file in manifest_files(output, json.loads(manifest)):
            if storage.file_digest(os.path.join(output, file["path"])) != (file["bytes"], file["sha256"]):
                return False
            count += 1
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return sum(1 for _ in storage.file_sizes(output)) == count


def is_complete(folder: storage.JobFolder) -> bool:
    """Whether an output holds the files of its manifest, by size, and no others."""
    try:
        listed = manifest_files(folder.output, json.loads(storage.read_whole(folder.manifest)))
        expected = storage.Tally.of((file["path"], file["bytes"]) for file in listed)
        return storage.Tally.of(storage.file_sizes(folder.output)) == expected
    except (OSError, ValueError, KeyError, TypeError):
        return False


def manifest_files(output: str, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields path, bytes and sha256 of every file that a manifest names, itself or by a list beside it.

    Raises:
        OSError: a list cannot be read.
    """
    yield from manifest["files"]
    for shard in manifest["shards"]:
        if "listing" not in shard:
            yield shard
            continue
        listing = os.path.join(storage.JobFolder(output).path, shard["listing"])
        for entry in storage.read_listing(listing):
            yield {**entry, "path": os.path.join(shard["path"], entry["path"])}
