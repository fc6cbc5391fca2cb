"""Reads and writes folders of images through Datumaro: `folders.py read FORMAT DIR`, `folders.py write FORMAT DIR`.

Runs in the environment of `requirements.txt`, never in this package's own. Both print the items as JSON: subset -> id ->
[class name or null, shape, sha256 of the pixels as RGB].
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from typing import Any

import datumaro  # type: ignore[import-not-found]
import numpy as np
from datumaro.components.media import Image  # type: ignore[import-not-found]
from datumaro.util.image import IMAGE_COLOR_CHANNEL, ImageColorChannel  # type: ignore[import-not-found]

CLASSES = ["cat", "sea lion", "поезд"]
ITEMS: dict[str, dict[str, int | None]] = {
    "train": {"a": 0, "b c": 1, "d/e f": 2, "g": None, "кот": 1},
    "val": {"v1": 2, "v 2": 0},
}


def written(format_name: str, folder: str) -> datumaro.Dataset:
    """Writes a small dataset."""
    items = [
        datumaro.DatasetItem(
            id=item_id,
            subset=subset,
            media=Image.from_numpy(data=_noise(100 * len(subset) + at)),
            annotations=[] if label is None else [datumaro.Label(label)],
        )
        for subset, found in ITEMS.items()
        for at, (item_id, label) in enumerate(found.items())
    ]
    dataset = datumaro.Dataset.from_iterable(items, categories=CLASSES)
    dataset.export(folder, format_name, save_media=True, image_ext=".png")
    return dataset


def _noise(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (5 + seed % 3, 7, 3), dtype=np.uint8)


def facts(items: Iterable[Any], classes: list[str]) -> dict[str, dict[str, Any]]:
    """What there is to know of some items."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        labels = [each.label for each in item.annotations]
        pixels = np.ascontiguousarray(item.media.data[..., ::-1], dtype=np.uint8)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        label = classes[labels[0]] if labels else None
        found.setdefault(item.subset, {})[item.id] = [label, list(pixels.shape), digest]
    return found


if __name__ == "__main__":
    what, name, path = sys.argv[1:]
    # OpenCV's order of channels is the default, and that of pixels in memory whatever is set.
    IMAGE_COLOR_CHANNEL.set(ImageColorChannel.COLOR_BGR)
    dataset = written(name, path) if what == "write" else datumaro.Dataset.import_from(path, name)
    categories = dataset.categories().get(datumaro.AnnotationType.label, [])
    names = [each.name for each in categories]
    parents = {each.name: each.parent for each in categories if each.parent}
    json.dump({"items": facts(dataset, names), "classes": names, "parents": parents}, sys.stdout)
