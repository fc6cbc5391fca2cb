"""Recovery: completes or undoes a publish that was killed, before anything else is written to its job folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from beam_cifar.storage.files import (
    FileSet,
    exists,
    file_digest,
    file_sizes,
    is_occupied,
    read_whole,
    remove_tree,
    stamp,
)
from beam_cifar.storage.job_folder import JobFolder
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.staging import inside, read_listing

LISTING = r"files-[0-9a-f]{16}\.jsonl"
"""Pattern of the names of lists of files that a manifest refers to."""
MISSING = FileNotFoundError, NotADirectoryError, IsADirectoryError
"""What says that a file is not there; any other `OSError` says that nobody knows, and is not taken for an answer."""
DAMAGED = ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError
"""What a manifest that is not one of ours raises when it is read."""


def settle(folder: JobFolder) -> None:
    """Completes or undoes a publish that was killed; does nothing in an object store, where nothing is renamed.

    Whoever locks a job folder calls this first (`hold` does): the pending manifest of a killed job is the only record
    of what its output consists of, and the next job would overwrite it. `publish_tree` goes through these states;
    "-" is missing, "any" is there or not:

    | output  | manifest | pending | replaced | replaced manifest | killed                           | then          |
    | ------- | -------- | ------- | -------- | ----------------- | -------------------------------- | ------------- |
    | whole   | its own  | any     | any      | any               | before the renames, or when done | (1) drop rest |
    | old     | -        | any     | -        | old               | before the output was set aside  | (2) undo      |
    | -       | any      | any     | old      | any               | between the renames of folders   | (3) undo      |
    | -       | any      | any     | -        | any               | before the first output          | (4) drop rest |
    | new     | -        | new     | any      | any               | before the manifest              | (5) complete  |
    | another | -        | any     | any      | any               | in (3); then somebody wrote it   | (6) keep old  |

    The moves of each row lead to the same end when they are interrupted and this is called again.

    Raises:
        OSError: a file cannot be read, renamed or removed; what is there stays whole.
    """
    for source, target in pending_moves(folder):
        if target:
            os.replace(source, target)
        elif source == folder.replaced:
            remove_tree(source)
        else:
            os.unlink(source)


def pending_moves(folder: JobFolder) -> list[tuple[str, str]]:
    """Returns what `settle` does: paths to rename, each with its new path, or with "" if it is to be removed."""
    if is_url(folder.output):
        return []
    old, old_manifest = os.path.lexists(folder.replaced), os.path.lexists(folder.replaced_manifest)
    complete = os.path.lexists(folder.manifest)
    if not is_occupied(folder.output):
        put_back = [(folder.replaced, folder.output), (folder.replaced_manifest, folder.manifest)] if old else []
        doomed = [folder.pending_manifest, folder.manifest if old else folder.replaced_manifest]  # (3), (4)
    elif complete:
        put_back, doomed = [], [folder.pending_manifest, folder.replaced_manifest, folder.replaced]  # (1)
    elif old_manifest and not old:
        put_back, doomed = [(folder.replaced_manifest, folder.manifest)], [folder.pending_manifest]  # (2)
    elif exists(folder.pending_manifest) and is_ours(folder.output, read_whole(folder.pending_manifest)):
        put_back = [(folder.pending_manifest, folder.manifest)]  # (5)
        doomed = [folder.replaced_manifest, folder.replaced]
        return [move for move in (*put_back, *((path, "") for path in doomed)) if os.path.lexists(move[0])]
    else:
        put_back, doomed = [], [folder.pending_manifest]  # (6)
    return [move for move in (*((path, "") for path in doomed), *put_back) if os.path.lexists(move[0])]


def is_ours(output: str, manifest: bytes) -> bool:
    """Returns whether a directory has exactly the files of a manifest, by digest.

    Raises:
        OSError: a file is there but cannot be read, so nobody knows.
    """
    count = 0
    with suppress(*MISSING, *DAMAGED):
        for file in manifest_files(output, json.loads(manifest)):
            path, size = os.path.join(output, file["path"]), file["bytes"]
            if stamp(path)[0] != size or file_digest(path) != (size, file["sha256"]):
                return False
            count += 1
        return sum(1 for _ in file_sizes(output)) == count
    return False


def is_complete(folder: JobFolder) -> bool:
    """Returns whether an output has exactly the files of its manifest, by size."""
    try:
        listed = manifest_files(folder.output, json.loads(read_whole(folder.manifest)))
        expected = FileSet.of((file["path"], file["bytes"]) for file in listed)
        return FileSet.of(file_sizes(folder.output)) == expected
    except (*MISSING, *DAMAGED):
        return False


def manifest_files(output: str, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields path, bytes and sha256 of every file in a manifest or in the lists it refers to.

    Raises:
        OSError: a list cannot be read.
        ValueError: a path leads out of the output, or a list is not beside it.
    """
    yield from map(inside, manifest["files"])
    for shard in map(inside, manifest["shards"]):
        if "listing" not in shard:
            yield shard
            continue
        if not re.fullmatch(LISTING, shard["listing"]):
            raise ValueError(f"not the name of a list of files: {shard['listing']!r}")
        for entry in read_listing(os.path.join(JobFolder(output).path, shard["listing"])):
            yield {**entry, "path": os.path.join(shard["path"], entry["path"])}
