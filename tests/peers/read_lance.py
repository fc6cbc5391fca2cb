"""Prints what Lance's own library finds in a folder of datasets: `read_lance.py read|change|datasets DIR [CACHE]`.

Runs in the environment of `requirements.txt`, never in this package's own. The output is one JSON object: for each
dataset the digest of its rows (see `digest.py`), of its ids and superclasses, and what the schema says.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import lance  # type: ignore[import-not-found]
import numpy as np
from digest import digest_rows, digest_values
from PIL import Image


def pixels_of(image: bytes | None) -> Any:
    return None if image is None else np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def read(path: Path) -> dict[str, Any]:
    """The rows as a scan finds them; some read at random, and by a filter, must be the same."""
    dataset = lance.dataset(str(path))
    dataset.validate()
    table = dataset.to_table()
    table.validate(full=True)
    some = np.random.default_rng(0).permutation(len(table))[:500].tolist()
    assert dataset.take(some) == table.take(some)
    label = "fine_label" if "fine_label" in table.column_names else "label"
    assert dataset.count_rows(f"{label} = 1") == table[label].to_pylist().count(1)
    assert dataset.count_rows() == len(table) == sum(map(len, dataset.to_batches(batch_size=77)))
    images = map(pixels_of, table["image"].to_pylist())
    return {
        **digest_rows(zip(table[label].to_pylist(), images, strict=True)),
        "ids": digest_values(table["id"].to_pylist()),
        "coarse_label": digest_values(table["coarse_label"].to_pylist()) if label == "fine_label" else None,
        "names": names_of(dataset.schema),
        "fragments": [fragment.count_rows() for fragment in dataset.get_fragments()],
    }


def names_of(schema: Any) -> dict[str, list[str]]:
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return {name: feature["names"] for name, feature in features.items()}


def changed(path: Path) -> dict[str, Any]:
    """What is left after Lance has appended, deleted, indexed and compacted."""
    first = lance.dataset(str(path)).to_table()
    lance.write_dataset(first.slice(0, 3), str(path), mode="append")
    dataset = lance.dataset(str(path))
    dataset.delete("label = 1")
    dataset.create_scalar_index("id", "BTREE")
    dataset.add_columns({"twice": "label * 2"})
    dataset.optimize.compact_files()
    dataset.cleanup_old_versions()
    left = lance.dataset(str(path))
    one = first["id"][-1].as_py()
    return {
        "labels": left.to_table()["label"].to_pylist(),
        "twice": left.to_table()["twice"].to_pylist(),
        "found": left.to_table(filter=f"id = '{one}'")["id"].to_pylist(),
        "fragments": len(left.get_fragments()),
    }


def by_datasets(folder: str, cache: str) -> dict[str, Any]:
    """The splits as `datasets` finds them, from the folder alone."""
    import datasets  # type: ignore[import-not-found]

    found = datasets.load_dataset(folder, cache_dir=cache)
    return {
        name: {
            **digest_rows((row["label"], np.asarray(row["image"])) for row in split),
            "ids": digest_values(split["id"]),
            "names": {"label": split.features["label"].names},
        }
        for name, split in found.items()
    }


if __name__ == "__main__":
    command, folder, *more = sys.argv[1:]
    paths = sorted(Path(folder).glob("*.lance"))
    match command:
        case "read":
            found = {path.name: read(path) for path in paths}
        case "change":
            found = {path.name: changed(path) for path in paths}
        case _:
            found = by_datasets(folder, *more)
    json.dump(found, sys.stdout)
