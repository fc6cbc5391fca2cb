"""Lists the bad rows that a job sets aside, and keeps their bytes, beside the manifest of its output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from beam_cifar import storage
from beam_cifar.data.block import WHOLE_FILE, BadRow
from beam_cifar.errors import BeamCifarError
from beam_cifar.formats.contract.source import RowReader, StoredImage
from beam_cifar.formats.registry import get_source
from beam_cifar.images.header import JPEG_START, PNG_START
from beam_cifar.planning.plan import Plan


def write_quarantine(plan: Plan, folder: storage.JobFolder, *, keep: bool) -> None:
    """Stages the list of a plan's bad rows as JSON Lines, in the order of the input, after the files that are lost.

    To `keep` them, the bytes of each go to `quarantine/<line>.<extension>`.
    """
    with storage.StagedFile(folder.staged_quarantine, folder.scratch, folder.guard) as file:
        for number, (entry, data) in enumerate(_entries(plan)):
            line = json.dumps(entry, ensure_ascii=False) + "\n"
            file.write(line.encode("utf-8", "surrogatepass"))
            if keep and data is not None:
                path = os.path.join(folder.staged_bad_rows, f"{number}.{_extension(data)}")
                storage.write_whole(path, data, folder.scratch, folder.guard)
        file.sync()
        file.commit()


def _entries(plan: Plan) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Yields the entry of each bad row, and its bytes where they are known, one at a time."""
    for bad in plan.set_aside.get(WHOLE_FILE, ()):
        yield (
            {"file": bad.file, "row": None, "subset": bad.subset or None, "stage": bad.stage, "reason": bad.error},
            None,
        )
    for number in sorted(plan.set_aside.keys() - {WHOLE_FILE}):
        yield from _entries_of(plan, number, sorted(plan.set_aside[number], key=lambda bad: bad.row))


def _entries_of(plan: Plan, number: int, rows: Sequence[BadRow]) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Yields the entries of the bad rows of one file, which is opened once."""
    for bad, found in zip(rows, _stored(plan, number, rows), strict=True):
        entry: dict[str, Any] = {"file": bad.file, "row": bad.row, "subset": bad.subset}
        entry |= {"stage": bad.stage, "reason": bad.error}
        if found.path:
            entry["path"] = found.path
        if found.offset is not None:
            entry["offset"] = found.offset
        if found.data is not None:
            entry |= {"bytes": len(found.data), "sha256": hashlib.sha256(found.data).hexdigest()}
        yield entry, found.data


def _stored(plan: Plan, number: int, bad_rows: Sequence[BadRow]) -> Iterator[StoredImage]:
    """Yields what is stored of each bad row, nothing for one that cannot be read at all."""
    file = plan.files[number]
    origin = plan.origins[file.source]
    with ExitStack() as stack:
        reader: RowReader | None = None
        with suppress(BeamCifarError, OSError):
            reader = stack.enter_context(get_source(origin.format).open_rows(file, origin.labels))
        for bad in bad_rows:
            found = StoredImage()
            if reader is not None:
                with suppress(BeamCifarError, OSError):
                    found = reader.stored(bad.row)
            yield found


def _extension(data: bytes) -> str:
    if data.startswith(JPEG_START):
        return "jpg"
    return "png" if data.startswith(PNG_START) else "bin"
