"""How an output was made, from its manifest.

The manifest is a file beside the output that anyone may have edited, so it is read only if it has the structure that
`beam_cifar.jobs.finish` writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from beam_cifar.errors import InputError
from beam_cifar.report.model import Balance, Provenance
from beam_cifar.storage import DAMAGED, JobFolder, read_manifest

MAX_MANIFEST_BYTES: Final = 256 << 20
"""Size limit of a manifest, which has a line per class and subset, and per shard."""

# Default values that are not shown, besides empty ones.
_USUAL: Final[dict[str, Any]] = {"filter_mode": "items", "on_clash": "error"}
_COUNTS: Final = ("read", "written", "filtered", "rejected")


def read_provenance(path: str) -> Provenance | None:
    """Returns how an output was made; None for a dataset without a manifest.

    Args:
        path: absolute path of the output.

    Raises:
        InputError: the manifest is damaged.
    """
    manifest = JobFolder(path).manifest
    try:
        text = read_manifest(JobFolder(path), MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{os.path.basename(manifest)}: cannot be read: {error.strerror}") from error
    if text is None:
        return None
    if len(text) > MAX_MANIFEST_BYTES:
        raise InputError(f"{os.path.basename(manifest)}: larger than {MAX_MANIFEST_BYTES:,} bytes")
    try:
        return _provenance(json.loads(text.decode("utf-8", "surrogatepass")))
    except DAMAGED as error:
        raise InputError(f"{os.path.basename(manifest)}: not a beam-cifar manifest") from error


def _provenance(manifest: Mapping[str, Any]) -> Provenance:
    counts = {name: _by_subset(manifest["counts"][name]) for name in _COUNTS}
    subsets = dict.fromkeys(subset for name in _COUNTS for subset in counts[name])
    rows = {name: int(manifest["rows"][name]) for name in (*_COUNTS, "unlabelled")}
    return Provenance(
        version=str(manifest["beam_cifar"]),
        source=str(manifest["source"]),
        options=tuple(_options(manifest["options"])),
        balances={subset: Balance(*(counts[name].get(subset, 0) for name in _COUNTS)) for subset in subsets},
        total=Balance(*(rows[name] for name in _COUNTS)),
        unlabelled=rows["unlabelled"],
        renamed=tuple(
            (str(written), str(original), str(kind))
            for kind, names in manifest["renamed"].items()
            for written, original in names.items()
        ),
        notices=tuple(map(str, manifest["notices"])),
        lost_files=int(manifest.get("quarantine", {}).get("files", 0)),
    )


def _by_subset(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {str(subset): sum(map(int, labels.values())) for subset, labels in counts.items()}


def _options(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the options that were set, with a line per transform."""
    found = []
    for name, value in options.items():
        if name == "steps":
            found += [("transform", f"{step} {_text(given)}".rstrip()) for step, given in value]
        elif value not in (None, False, 0, "", [], {}) and value != _USUAL.get(name):
            found.append((name.replace("_", " "), _text(value)))
    return found


def _text(value: Any) -> str:
    """Returns the value of an option in readable form."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        paired = value and all(isinstance(one, list) for one in value)
        return ", ".join(":".join(map(_text, one)) if paired else _text(one) for one in value)
    return "yes" if value is True else json.dumps(value, ensure_ascii=False)
