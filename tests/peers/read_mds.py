"""Reads the shards of MosaicML Streaming in a directory, and writes them again: `read_mds.py DIR COPY`.

Runs in the environment of `requirements.txt`, never in this package's own. The output is one JSON object: for each
subset its digest (see `digest.py`) and its ids as `StreamingDataset` streams them, whether `LocalDataset` has the same,
its samples per shard, and the files to which `MDSWriter` gives other bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch_stub
from digest import digest_rows, digest_values

base = torch_stub.streaming()


def digest(samples: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What there is to know of samples."""
    read = [(sample["id"], sample["label"], np.asarray(sample["image"])) for sample in samples]
    return {**digest_rows(row[1:] for row in read), "ids": digest_values([row[0] for row in read])}


def write_again(shards: list[Any], out: Path) -> None:
    """Writes the same samples into the same shards."""
    columns = dict(zip(shards[0].column_names, shards[0].column_encodings, strict=True))
    with base.format.MDSWriter(columns=columns, out=str(out)) as writer:
        for shard in shards:
            for sample in shard:
                writer.write({**sample, "image": with_its_file(sample["image"])})
            # What `write` does when a shard is full.
            writer.flush_shard()
            writer._reset_cache()


def with_its_file(image: Any) -> Any:
    """An image that is saved as the bytes that it was read from: Pillow's own deflate would give others."""
    assert isinstance(image.fp, BytesIO)
    content = image.fp.getvalue()
    image.save = lambda out, **options: out.write(content)
    return image


def main(folder: Path, copy: Path) -> dict[str, Any]:
    """Reads and writes all subsets."""
    found = {}
    for subset in sorted(path.name for path in folder.iterdir()):
        local = base.local.LocalDataset(str(folder), subset)
        streamed = digest(base.dataset.StreamingDataset(local=str(folder), split=subset, shuffle=False, batch_size=1))
        write_again(local.shards, copy / subset)
        files = {path.name: path.read_bytes() for path in (copy / subset).iterdir()}
        found[subset] = {
            **streamed,
            "local": digest(local[at] for at in range(len(local))) == streamed,
            "shards": [shard.samples for shard in local.shards],
            "differ": sorted(name for name, data in files.items() if (folder / subset / name).read_bytes() != data),
        }
    return found


if __name__ == "__main__":
    json.dump(main(*map(Path, sys.argv[1:])), sys.stdout)
