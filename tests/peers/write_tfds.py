"""Prepares a small dataset by TensorFlow Datasets, without TensorFlow: `write_tfds.py DIR IMAGES`.

Runs in the environment of `requirements.txt`, never in this package's own. `IMAGES` is a folder of encoded images named
`<split>_<label>_<id>`; TFDS stores them as they are. TFRecord files would need TensorFlow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds  # type: ignore[import-not-found]

IMAGES = Path(sys.argv[2])


class Pets(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Two splits of images of any size."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["sea lion", "поезд"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted(IMAGES.glob(f"{split}_*")):
            yield path.name, {"image": path, "label": int(path.name.split("_")[1])}


if __name__ == "__main__":
    Pets(data_dir=sys.argv[1], file_format="parquet").download_and_prepare()
