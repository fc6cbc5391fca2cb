"""Prints what TensorFlow Datasets finds in a directory: `read_tfds.py DIR`, without TensorFlow.

Runs in the environment of `requirements.txt`, never in this package's own. The output is one JSON object: for each
split the digest of its rows (see `digest.py`; labels of -1 are None) and ids, read at random where the files allow it;
and what the catalog says of the features.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import tensorflow_datasets as tfds  # type: ignore[import-not-found]
from digest import digest_rows, digest_values


def main(folder: str) -> dict[str, Any]:
    """Opens a dataset without its code."""
    builder = tfds.builder_from_directory(folder)
    features = builder.info.features
    labels = {name: feature.names for name, feature in features.items() if hasattr(feature, "names")}
    found = {
        "name": builder.info.full_name,
        "labels": labels,
        "shape": list(features["image"].shape),
        "supervised": list(builder.info.supervised_keys),
        "counts": {name: split.num_examples for name, split in builder.info.splits.items()},
        "files": {name: sorted(split.filenames) for name, split in builder.info.splits.items()},
    }
    if builder.info.file_format.value == "tfrecord":  # which only TensorFlow reads
        return found
    return {**found, "splits": {name: read(builder.as_data_source(split=name), labels) for name in found["counts"]}}


def read(source: Any, labels: dict[str, list[str]]) -> dict[str, Any]:
    """The digest of a split; the last example is read first, as random access can."""
    last = source[len(source) - 1]
    rows = [*(source[at] for at in range(len(source) - 1)), last]
    numbers = [None if row["label"] == -1 else int(row["label"]) for row in rows]
    pixels = (row["image"] for row in rows)
    return {
        **digest_rows(zip(numbers, pixels, strict=True)),
        "ids": digest_values([row["id"].decode() for row in rows]),
        **{name: digest_values([int(row[name]) for row in rows]) for name in labels if name != "label"},
    }


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
