"""How an output was made: the part of its manifest that a reader of the page wants to know.

The manifest lies beside the output, may have been edited, and is taken for what it says only where it has the shape
that `beam_cifar.jobs.finish` gives it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from beam_cifar.errors import InputError
from beam_cifar.report.model import Balance, Provenance
from beam_cifar.storage import JobFolder, open_file

MAX_MANIFEST_BYTES: Final = 256 << 20
"""Of a manifest: it has a line for each class of each subset, and for each shard."""

# Options that say nothing where they have these values.
_USUAL: Final[dict[str, Any]] = {"filter_mode": "items", "on_clash": "error"}
_COUNTS: Final = ("read", "written", "filtered", "rejected")


def read_provenance(path: str) -> Provenance | None:
    """How an output was made, or None for a dataset that is no output of this program.

    Args:
        path: absolute, of the output.

    Raises:
        InputError: there is a manifest that is damaged.
    """
    manifest = JobFolder(path).manifest
    try:
        with open_file(manifest) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{os.path.basename(manifest)}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise InputError(f"{os.path.basename(manifest)}: has more than {MAX_MANIFEST_BYTES:,} bytes")
    try:
        return _provenance(json.loads(text.decode("utf-8", "surrogatepass")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{os.path.basename(manifest)}: is not a manifest of this program") from error


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
    )


def _by_subset(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {str(subset): sum(map(int, labels.values())) for subset, labels in counts.items()}


def _options(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options that were set, transforms one by one."""
    told = []
    for name, value in options.items():
        if name == "steps":
            told += [("transform", f"{step} {_text(given)}".rstrip()) for step, given in value]
        elif value not in (None, False, 0, "", [], {}) and value != _USUAL.get(name):
            told.append((name.replace("_", " "), _text(value)))
    return told


def _text(value: Any) -> str:
    """An option as people write it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(one)}" for key, one in value.items())
    if isinstance(value, list):
        paired = value and all(isinstance(one, list) for one in value)
        return ", ".join(":".join(map(_text, one)) if paired else _text(one) for one in value)
    return "yes" if value is True else json.dumps(value, ensure_ascii=False)
