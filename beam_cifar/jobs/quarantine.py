"""Lists the bad rows that a job sets aside, and keeps their bytes, beside the manifest of its output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from beam_cifar import storage
from beam_cifar.data.block import BadRow
from beam_cifar.errors import BeamCifarError
from beam_cifar.formats.contract.source import StoredImage
from beam_cifar.formats.registry import get_source
from beam_cifar.images.header import JPEG_START, PNG_START
from beam_cifar.planning.plan import Plan


def quarantine_list(plan: Plan) -> bytes:
    """Returns the list of a plan's bad rows as JSON Lines, in the order of the input."""
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry, _ in _entries(plan))
    return "".join(lines).encode("utf-8", "surrogatepass")


def write_quarantine(plan: Plan, content: bytes, folder: storage.JobFolder, *, keep: bool) -> None:
    """Stages the list of bad rows and, to `keep` them, the bytes of each as `quarantine/<line>.<extension>`."""
    storage.write_whole(folder.staged_quarantine, content, folder.scratch, folder.guard)
    for number, (_, data) in enumerate(_entries(plan) if keep else ()):
        if data is not None:
            path = os.path.join(folder.staged_bad_rows, f"{number}.{_extension(data)}")
            storage.write_whole(path, data, folder.scratch, folder.guard)


def _entries(plan: Plan) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Yields the entry of each bad row, and its bytes where they are known, one at a time."""
    for number, bad in sorted(plan.set_aside, key=lambda each: (each[0], each[1].row)):
        found = _stored(plan, number, bad)
        entry: dict[str, Any] = {"file": bad.file, "row": bad.row, "subset": bad.subset}
        entry |= {"stage": bad.stage, "reason": bad.error}
        if found.path:
            entry["path"] = found.path
        if found.offset is not None:
            entry["offset"] = found.offset
        if found.data is not None:
            entry |= {"bytes": len(found.data), "sha256": hashlib.sha256(found.data).hexdigest()}
        yield entry, found.data


def _stored(plan: Plan, number: int, bad: BadRow) -> StoredImage:
    file = plan.files[number]
    origin = plan.origins[file.source]
    with suppress(BeamCifarError, OSError), get_source(origin.format).open_rows(file, origin.labels) as rows:
        return rows.stored(bad.row)
    return StoredImage()


def _extension(data: bytes) -> str:
    if data.startswith(JPEG_START):
        return "jpg"
    return "png" if data.startswith(PNG_START) else "bin"
