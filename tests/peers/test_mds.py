"""What MosaicML's own library finds in the shards written, and the bytes that it writes itself (`make test-peers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from beam_cifar import make_sample
from tests.helpers.image_trees import batch, decoded, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.peers import found_by, splits_of
from tests.peers.digest import Row, digest_rows, digest_values


def found_in(folder: Path) -> Any:
    """What the script finds; the library leaves locks in the folder for temporary files."""
    return found_by("read_mds.py", folder, folder.with_name("copy"), TMPDIR=str(folder.parent))


def shown(*shards: int) -> dict[str, Any]:
    """What is to be found beside rows: both readers see the same, and the library writes the same bytes."""
    return {"local": True, "shards": [*shards], "differ": []}


def test_streaming_finds_every_pixel_and_label_of_6000_images_and_writes_the_same_bytes(tmp_path: Path) -> None:
    make_sample(str(tmp_path / "in"), images=6000)
    quickly(tmp_path / "in", tmp_path / "out", "mds", images_per_batch=1900)
    wanted = splits_of(tmp_path / "in")
    assert found_in(tmp_path / "out") == {
        "train": {**wanted["train"], **shown(1900, 1900, 1200)},
        "test": {**wanted["test"], **shown(1000)},
    }


def test_streaming_finds_jpeg_files_as_they_are(tmp_path: Path) -> None:
    files = {f"{name}/cat/{at}.jpg": encoded(picture(at), "JPEG") for at, name in enumerate(("train", "train", "test"))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "mds")
    rows: list[Row] = [(0, decoded(content).transpose(1, 2, 0)) for content in files.values()]
    assert found_in(tmp_path / "out") == {
        "train": {**digest_rows(rows[:2]), "ids": digest_values(["0", "1"]), **shown(2)},
        "test": {**digest_rows(rows[2:]), "ids": digest_values(["2"]), **shown(1)},
    }


def test_streaming_finds_names_of_any_language_and_rows_without_label(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"обучение 1": batch(["кот 1.png", "b/c.png"], [None, 2])})
    quickly(source, tmp_path / "out", "mds")
    rows = [(label, np.ascontiguousarray(picture(at).transpose(1, 2, 0))) for at, label in enumerate((-1, 2))]
    wanted = {**digest_rows(rows), "ids": digest_values(["кот 1", "b/c"]), **shown(2)}
    assert found_in(tmp_path / "out") == {"обучение 1": wanted}
