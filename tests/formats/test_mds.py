"""MosaicML Streaming's shards, read as its MDSReader reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar.formats import mds
from tests.helpers.image_trees import batch, contents, decoded, encoded, picture, quickly, write_cifar, write_tree

pytestmark = pytest.mark.usefixtures("without_runner")


def samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of a subset, by the steps of MDSReader: two offsets, the sizes that vary, the values."""
    found = []
    index = json.loads((folder / "index.json").read_bytes())
    assert index["version"] == 2
    for shard in index["shards"]:
        assert (shard["version"], shard["format"], shard["compression"], shard["zip_data"]) == (2, "mds", None, None)
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        assert int(np.frombuffer(data[:4], np.uint32)[0]) == shard["samples"]
        for row in range(shard["samples"]):
            begin, end = np.frombuffer(data[4 * (row + 1) : 4 * (row + 3)], np.uint32)
            left, sizes = data[begin:end], []
            for size in shard["column_sizes"]:
                if not size:
                    size, left = int(np.frombuffer(left[:4], np.uint32)[0]), left[4:]
                    sizes.append(size)
                else:
                    sizes.append(size)
            sample: dict[str, Any] = {}
            for name, kind, size in zip(shard["column_names"], shard["column_encodings"], sizes, strict=True):
                value, left = left[:size], left[size:]
                sample[name] = value if kind != "int" else int(np.frombuffer(value, np.int64)[0])
                sample[f"{name} kind"] = kind
            assert not left
            found.append(sample)
        last = int(np.frombuffer(data[4 * (shard["samples"] + 1) : 4 * (shard["samples"] + 2)], np.uint32)[0])
        assert last == len(data)
    return found


def test_samples_have_ids_pixels_and_labels(tmp_path: Path) -> None:
    batches = {
        "data_batch_1": batch(["a.png", "кот.png"], [1, 0]),
        "data_batch_2": batch(["c.png"], [None], 1),
        "test_batch": batch(["d.png"], [2], 2),
    }
    quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "mds")
    found = samples(tmp_path / "out" / "train")
    assert [(row["id"].decode(), row["label"]) for row in found] == [("a", 1), ("кот", 0), ("c", -1)]
    assert [decoded(row["image"]).tobytes() for row in found] == [picture(at).tobytes() for at in (0, 1, 1000)]
    assert [(row["id"], row["label"]) for row in samples(tmp_path / "out" / "test")] == [(b"d", 2)]
    table = json.loads((tmp_path / "out" / "test" / "labels.json").read_bytes())
    assert table == {"names": ["cat", "dog", "ship"], "superclasses": [], "parents": []}
    assert len(contents(tmp_path / "out")) == 6


@pytest.mark.parametrize("options", [{"images_per_batch": 2}, {}], ids=["asked for", "by size"])
def test_shards_are_numbered_and_hold_every_row_in_order(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mds, "SHARD_BYTES", 2 * 3072)
    source = write_cifar(tmp_path / "in", {"train": batch([f"{row}.png" for row in range(5)], [0] * 5)})
    quickly(source, tmp_path / "out", "mds", **options)
    names = sorted(path.name for path in (tmp_path / "out" / "train").glob("*.mds"))
    assert names == [f"shard.0000{number}.mds" for number in range(3)]
    assert [row["id"] for row in samples(tmp_path / "out" / "train")] == [b"0", b"1", b"2", b"3", b"4"]


def test_jpeg_files_pass_through_and_a_shard_of_both_kinds_is_called_png(tmp_path: Path) -> None:
    files = {f"train/cat/{at}.jpg": encoded(picture(at), "JPEG") for at in range(2)}
    files["test/cat/2.jpg"], files["test/cat/3.png"] = encoded(picture(2), "JPEG"), encoded(picture(3))
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "mds")
    train, test = (samples(tmp_path / "out" / name) for name in ("train", "test"))
    assert [(row["image"], row["image kind"]) for row in train] == [
        (files[f"train/cat/{at}.jpg"], "jpeg") for at in range(2)
    ]
    assert [(row["image"], row["image kind"]) for row in test] == [
        (files[f"test/cat/{name}"], "png") for name in ("2.jpg", "3.png")
    ]
