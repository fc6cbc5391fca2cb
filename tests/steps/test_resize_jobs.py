"""Jobs that give all images one size: the pixels are Pillow's, whatever is read and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beam_cifar.errors import UsageError
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import (
    Pixels,
    batch,
    contents,
    converted,
    decoded,
    encoded,
    images,
    listed,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, unpickled

SIZES = [(8, 6), (32, 32), (16, 24), (1, 1), (64, 3), (24, 16), (32, 32)]
TARGETS = [(16, 24), (1, 1), (40, 33)]


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """One image by Pillow itself, as a whole; uint8 [C, H, W]."""
    if pixels.shape[1:] == size:
        return pixels
    planes = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    made = np.asarray(Image.fromarray(planes).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return made[None] if made.ndim == 2 else made.transpose(2, 0, 1)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of 32 x 32."""
    batches = {name: batch([f"{name}{n}.png" for n in range(9)], [n % 3 for n in range(9)], at) for at, name in enumerate(("train", "test"))}  # fmt: skip
    return write_cifar(tmp_path_factory.mktemp("uniform") / "set", batches)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of images of several sizes."""
    return write_cifar(tmp_path_factory.mktemp("mixed") / "set", {"train": mixed_batch()})


def mixed_batch(missing: tuple[int, ...] = ()) -> dict[str, Any]:
    data = np.empty(len(SIZES), dtype=object)
    data[:] = [None if row in missing else picture(row, *size).reshape(-1) for row, size in enumerate(SIZES)]
    names = [f"m{row}.png" for row in range(len(SIZES))]
    return {"data": data, "labels": [row % 3 for row in range(len(SIZES))], "filenames": names, "image_sizes": SIZES}


def rows_of(folder: Path) -> list[tuple[str, str, Pixels]]:
    """(id, class, pixels) of every row."""
    classes = unpickled(folder / "batches.meta")["label_names"]
    sizes = [size for name in batches(folder) for size in image_sizes(unpickled(folder / name))]
    return [
        (os.path.splitext(name)[0], classes[label], np.frombuffer(pixels, np.uint8).reshape(3, *size))
        for (name, label, _, pixels), size in zip(cifar_rows(folder, batches(folder)), sizes, strict=True)
    ]


def batches(folder: Path) -> list[str]:
    return [name for name in ("test", "train") if (folder / name).exists()]


def image_sizes(content: dict[str, Any]) -> list[tuple[int, int]]:
    sizes = content.get("image_sizes", [(32, 32)] * len(content["filenames"]))
    return [(int(height), int(width)) for height, width in sizes]


def wanted(source: Path, size: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        item_id: (class_name, (3, *size), resized(pixels, size).tobytes())
        for item_id, class_name, pixels in rows_of(source)
    }


@pytest.fixture(params=["uniform", "mixed"])
def source(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.parametrize("size", TARGETS)
def test_cifar(size: tuple[int, int], source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "out", "cifar", resize=size, save_images=True)
    found = rows_of(tmp_path / "out")
    assert {item_id: (name, p.shape, p.tobytes()) for item_id, name, p in found} == wanted(source, size)
    for name in batches(source):
        content = unpickled(tmp_path / "out" / name)
        assert content["data"].dtype == np.uint8
        assert content["data"].shape == (len(content["filenames"]), 3 * size[0] * size[1])


@pytest.mark.parametrize("size", TARGETS)
@pytest.mark.parametrize("target", ["imagenet", "imagenet_with_subset_dirs"])
def test_folders(size: tuple[int, int], target: str, source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", target, resize=size)
    found = {}
    for path, content in contents(tmp_path / "out").items():
        if path == "README.md":
            continue
        class_name, name = path.split("/")[-2:]
        found[name.removesuffix(".png")] = (class_name, decoded(content).shape, decoded(content).tobytes())
    assert found == wanted(source, size)


@pytest.mark.parametrize("size", TARGETS)
def test_parquet(size: tuple[int, int], source: Path, tmp_path: Path) -> None:
    quickly(source, tmp_path / "out", "parquet", resize=size)
    found = [row for split in batches(source) for row in parquet_rows(tmp_path / "out", split)]
    names = {item_id + ".png": (name, pixels) for item_id, (name, _, pixels) in wanted(source, size).items()}
    assert {path: (["cat", "dog", "ship"][label], pixels) for path, label, pixels in found} == names


def test_the_size_that_an_image_has_leaves_it_as_it_is(tmp_path: Path) -> None:
    files = {
        "cat/fits.png": encoded(picture(1, 16, 24), compress_level=1),
        "cat/fits.jpg": encoded(picture(2, 16, 24), "JPEG", quality=70),
        "cat/other.png": encoded(picture(3, 24, 16)),
        "dog/other.jpg": encoded(picture(4, 32, 32), "JPEG", quality=70),
        "dog/gray.png": encoded(picture(5, 32, 32, 1)),
    }
    converted(write_tree(tmp_path / "in", files), tmp_path / "out", resize=(16, 24))
    found = contents(tmp_path / "out")
    # Pixels of a JPEG that change are written without a second loss.
    assert sorted(found) == ["cat/fits.jpg", "cat/fits_2.png", "cat/other.png", "dog/gray.png", "dog/other.png"]
    assert found["cat/fits.jpg"] == files["cat/fits.jpg"]
    assert found["cat/fits_2.png"] == files["cat/fits.png"]
    for path, source in {"cat/other.png": "cat/other.png", "dog/gray.png": "dog/gray.png", "dog/other.png": "dog/other.jpg"}.items():  # fmt: skip
        assert (decoded(found[path]) == resized(decoded(files[source]), (16, 24))).all()
        assert decoded(found[path]).shape == (len(decoded(files[source])), 16, 24)


def test_resized_images_can_be_written_as_jpeg(uniform: Path, tmp_path: Path) -> None:
    summary = converted(uniform, tmp_path / "out", resize=(16, 24), image_ext=".jpg")
    assert any("lossy" in notice for notice in summary.notices)
    for item_id, (name, shape, pixels) in wanted(uniform, (16, 24)).items():
        found = decoded((tmp_path / "out" / name / f"{item_id}.jpg").read_bytes())
        error = found.astype(float) - np.frombuffer(pixels, np.uint8).reshape(shape)
        assert 10 * np.log10(255**2 / (error**2).mean()) > 44


def test_rows_without_image_stay_without(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": mixed_batch(missing=(0, 4))})
    quickly(source, tmp_path / "out", "cifar", resize=(4, 5), save_images=True)
    rows = cifar_rows(tmp_path / "out", ["train"])
    assert [row[3] for row in rows] == [
        None if row in (0, 4) else resized(picture(row, *size), (4, 5)).tobytes() for row, size in enumerate(SIZES)
    ]


def test_a_filter_sees_the_size_before(mixed: Path, tmp_path: Path) -> None:
    quickly(mixed, tmp_path / "out", resize=(4, 4), filter="/item[image/width = 32]")
    assert sorted(images(tmp_path / "out")) == ["cat/m6.png", "dog/m1.png"]
    assert {decoded(content).shape for content in contents(tmp_path / "out").values()} == {(3, 4, 4)}


def test_resizing_with_all_else(uniform: Path, tmp_path: Path) -> None:
    converted(
        *(uniform, tmp_path / "out", "cifar"),
        resize=(5, 7),
        labels=("dog", "ship"),
        remaps=("dog:wolf",),
        images_per_batch=4,
        limit=9,
        save_images=True,
    )
    found = [(name, len(unpickled(tmp_path / "out" / name)["filenames"])) for name in batch_names(tmp_path / "out")]
    assert [rows for _, rows in found] == [4, 2, 3], found
    rows = [row for name, _ in found for row in cifar_rows(tmp_path / "out", [name])]
    kept = [row for row in rows_of(uniform) if row[1] != "cat"][:9]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (item_id + ".png", 1 if name == "dog" else 2, resized(pixels, (5, 7)).tobytes())
        for item_id, name, pixels in kept
    ]


def test_the_account_of_resized_images(uniform: Path, tmp_path: Path) -> None:
    quickly(uniform, tmp_path / "out", resize=(16, 24))
    assert manifest(tmp_path / "out")["options"]["resize"] == [16, 24]
    assert {entry["path"]: entry["bytes"] for entry in listed(tmp_path / "out")} == {
        path: len(content) for path, content in contents(tmp_path / "out").items()
    }
    assert manifest(tmp_path / "out")["job"] != _job(uniform, tmp_path / "other", (24, 16))


def _job(source: Path, output: Path, size: tuple[int, int]) -> str:
    quickly(source, output, resize=size)
    job: str = manifest(output)["job"]
    return job


@pytest.mark.parametrize("text", ["16", "16x", "x24", "16x24x3", "0x24", "16x0", "-1x2", "a", "", "1.5x2", "65501x1", "16 x 24", "1e3x1", "9999999x1"])  # fmt: skip
def test_wrong_sizes_are_refused(text: str, uniform: Path, tmp_path: Path, command: Command) -> None:
    code, out, err = command("convert", "-i", uniform, "-f", "imagenet", "-o", tmp_path / "out", f"--resize={text}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--resize" in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_takes_height_first(uniform: Path, run: Run, tmp_path: Path) -> None:
    done = run("convert", "-i", uniform, "-f", "imagenet", "-o", "out", "--resize", "16X24", "--limit", 1)
    assert done.returncode == 0, done.stderr
    (content,) = contents(tmp_path / "out").values()
    assert decoded(content).shape == (3, 16, 24)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (-1, 5), (65501, 1)])
def test_the_same_from_python(size: tuple[int, int], uniform: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resize must have sides from 1 to 65500"):
        converted(uniform, tmp_path / "out", resize=size)
