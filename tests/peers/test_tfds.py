"""What TensorFlow Datasets finds in the datasets written: run in its own environment, without TensorFlow (`make test-peers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset, compare, make_sample
from beam_cifar.formats.registry import detect_format
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.peers import found_by, output_of, splits_of
from tests.helpers.reading import unpickled
from tests.peers.digest import digest_rows

CLASSES = ("sea lion", "never used", "поезд, синий")


def read(folder: Path) -> dict[str, Any]:
    """What TFDS finds in a directory; without its environment these tests fail rather than pass unseen."""
    found: dict[str, Any] = found_by("read_tfds.py", folder)
    return found


def test_what_tfds_itself_prepares_is_read(tmp_path: Path) -> None:
    names = [f"{split}_{row % 2}_{row}" for split, rows in (("train", 5), ("test", 3)) for row in range(rows)]
    pictures = {name: picture(seed, 6, 4 + seed) for seed, name in enumerate(names)}
    images = write_tree(tmp_path / "images", {name: encoded(pixels) for name, pixels in pictures.items()})
    output_of("write_tfds.py", tmp_path / "out", images)
    source = tmp_path / "out" / "pets" / "1.0.0"
    assert detect_format(str(source), str(tmp_path)) == "tfds"
    found = Dataset.import_from(source)
    assert list(found.categories.names) == ["sea lion", "поезд"]
    rows = [(item.subset, item.label, item.image.data.tobytes()) for item in found if item.image]
    assert sorted(rows) == sorted(
        (name.split("_")[0], int(name.split("_")[1]), pixels.transpose(1, 2, 0).tobytes())
        for name, pixels in pictures.items()
    )


@pytest.mark.parametrize("target", ["tfds_parquet", "tfds_array_record"])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_files_for_random_access_hold_pixels_labels_ids_and_names(
    kind: str, target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(kind)
    quickly(source, tmp_path / "out", target, images_per_batch=300)
    found = read(tmp_path / "out")
    assert found["splits"] == splits_of(source)
    assert found["counts"] == {split: digests["rows"] for split, digests in found["splits"].items()}
    assert (found["name"], found["shape"], found["supervised"]) == ("dataset/1.0.0", [32, 32, 3], ["image", "label"])
    meta = unpickled(source / ("meta" if kind == "cifar100" else "batches.meta"))
    fine, coarse = meta.get("label_names", meta.get("fine_label_names")), meta.get("coarse_label_names")
    assert found["labels"] == {"label": fine, **({"coarse_label": coarse} if coarse else {})}


def test_tfrecord_has_the_catalog_and_the_files_that_it_names(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "tfds_tfrecord", images_per_batch=300)
    found = read(tmp_path / "out")
    assert found["counts"] == {split: digests["rows"] for split, digests in splits_of(cifar10).items()}
    assert found["labels"] == {"label": unpickled(cifar10 / "batches.meta")["label_names"]}
    named = {name for names in found["files"].values() for name in names}
    assert named == {path.name for path in (tmp_path / "out").iterdir() if ".tfrecord-" in path.name}


def test_array_records_of_six_thousand_images_are_those_of_the_library(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    make_sample(str(source), images=6000)
    quickly(source, out, "tfds_array_record", images_per_batch=1900)
    assert read(out)["splits"] == splits_of(source)
    assert found_by("write_array_records.py", out) == {
        f"dataset-{split}.array_record-{number:05d}-of-{len(rows):05d}": {"records": count, "same": True}
        for split, rows in {"train": (1900, 1900, 1200), "test": (1000,)}.items()
        for number, count in enumerate(rows)
    }
    # They are compressed now.
    found = compare(str(source), str(out))
    assert found.equal, found


def test_unlabelled_rows_and_names_of_any_language(tmp_path: Path) -> None:
    rows = batch(["кошка 1.png", "b.png", "ёж.png"], [2, None, 0])
    source = write_cifar(tmp_path / "in", {"data_batch_1": rows, "обучение-1": rows}, CLASSES)
    quickly(source, tmp_path / "out", "tfds_parquet")
    found, wanted = read(tmp_path / "out"), splits_of(source)
    assert found["splits"] == {"train": wanted["train"], "_________1": wanted["обучение-1"]}
    assert found["labels"] == {"label": list(CLASSES)}


def test_gray_images_and_images_of_several_sizes(tmp_path: Path) -> None:
    gray, wide = picture(1, 20, 30, channels=1), picture(2, 5, 7)
    files = {"cat/a.png": encoded(gray), "cat/b.png": encoded(wide)}
    shown = [np.repeat(gray, 3, axis=0).transpose(1, 2, 0), wide.transpose(1, 2, 0)]
    for name, some, shape in (
        ("all", files, [None, None, 3]),
        ("gray", {"cat/a.png": files["cat/a.png"]}, [20, 30, 1]),
    ):
        quickly(write_tree(tmp_path / name, some), tmp_path / f"{name} out", "tfds_parquet")
        found = read(tmp_path / f"{name} out")
        assert found["shape"] == shape
        pixels = shown if name == "all" else [gray.transpose(1, 2, 0)]
        assert found["splits"]["default"]["sha256"] == digest_rows((0, image) for image in pixels)["sha256"]
