"""Reads or writes shards through the package webdataset: `webdataset_shards.py read DIR`, `... write DIR`.

Runs in the environment of `requirements.txt`, never in this package's own. Reading prints one JSON object: for each
subset its digest (see `digest.py`) and its keys. Writing reads rows from the standard input, a JSON list of objects with
"subset" and the members of a sample, images as hexadecimal numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import webdataset  # type: ignore[import-not-found]
from digest import digest_rows, digest_values


def read(folder: Path) -> dict[str, Any]:
    """Through `WebDataset` with its own decoders, without shuffling."""
    digests = {}
    for subset in dict.fromkeys(path.name.rpartition("-")[0] for path in sorted(folder.glob("*.tar"))):
        shards = [str(path) for path in sorted(folder.glob(f"{subset}-*.tar"))]
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
        images = [sample.get("png", sample.get("jpg")) for sample in samples]
        labels = [sample.get("cls") for sample in samples]
        pixels = [None if image is None else np.asarray(image) for image in images]
        digests[subset] = {
            **digest_rows(zip(labels, pixels, strict=True)),
            "names": digest_values([sample["json"]["id"] for sample in samples]),
            "keys": len({sample["__key__"] for sample in samples}),
        }
    return digests


def write(folder: Path) -> None:
    """Through `ShardWriter`, three samples a shard."""
    rows = json.load(sys.stdin)
    for subset in dict.fromkeys(row["subset"] for row in rows):
        with webdataset.ShardWriter(str(folder / f"{subset}-%06d.tar"), maxcount=3, verbose=0) as sink:
            for row in (row for row in rows if row["subset"] == subset):
                sink.write({kind: _plain(value) for kind, value in row.items() if kind != "subset"})


def _plain(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value


if __name__ == "__main__":
    if sys.argv[1] == "read":
        json.dump(read(Path(sys.argv[2])), sys.stdout)
    else:
        write(Path(sys.argv[2]))
