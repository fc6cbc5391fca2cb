"""Sample sets: genuine layout and names, reproducible bytes, natural pixels."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beam_cifar import make_sample
from beam_cifar.errors import OutputError, UsageError
from beam_cifar.formats.cifar import facts
from beam_cifar.pickles.recognise import Meta
from beam_cifar.pickles.write import write_meta
from beam_cifar.samples.drawing import draw_images
from beam_cifar.samples.make import plan_batches
from tests.helpers.reading import unpickled

# The start of the SHA-256 of 130 drawn images, with numpy 2.
DRAWN = {"cifar10": "1920b843cfd578c3", "cifar100": "f4f7b3d6f88a7592"}
TRAINING = [f"data_batch_{number}" for number in range(1, 6)]


def batches(directory: Path) -> dict[str, dict[str, Any]]:
    names = [path.name for path in directory.iterdir() if not path.suffix and "meta" not in path.name]
    return {name: unpickled(directory / name) for name in sorted(names)}


def sample_dir(path: Path, kind: str = "cifar10", images: int = 60, seed: int = 0) -> Path:
    """Makes a sample set in a new or empty directory, and returns the directory."""
    make_sample(str(path), kind=kind, images=images, seed=seed)
    return path


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def mean_png_size(pixels: np.ndarray) -> float:
    sizes = []
    for image in pixels.transpose(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        sizes.append(file.tell())
    return float(np.mean(sizes))


def test_cifar100_has_20_superclasses_of_5_and_100_names_in_order() -> None:
    names = [name for names in facts.CIFAR100_SUPERCLASSES.values() for name in names]
    assert list(facts.CIFAR100_SUPERCLASSES) == sorted(facts.CIFAR100_SUPERCLASSES)
    assert [len(names) for names in facts.CIFAR100_SUPERCLASSES.values()] == [5] * 20
    assert len(set(names)) == 100
    assert list(facts.CIFAR100_NAMES) == sorted(names)
    coarse_names = list(facts.CIFAR100_SUPERCLASSES)
    for fine, coarse in enumerate(facts.CIFAR100_COARSE_OF_FINE):
        assert facts.CIFAR100_NAMES[fine] in facts.CIFAR100_SUPERCLASSES[coarse_names[coarse]]


def test_the_superclass_of_the_first_classes_is_the_genuine_one() -> None:
    # Fine labels 0 to 9 (apple ... bottle) and their coarse labels, as in the genuine archive.
    assert facts.CIFAR100_COARSE_OF_FINE[:10] == (4, 1, 14, 8, 0, 6, 7, 7, 18, 3)


def test_names_have_the_md5_of_the_genuine_meta_files() -> None:
    meta10 = Meta("cifar10", facts.CIFAR10_NAMES, num_cases_per_batch=10_000, num_vis=3072)
    meta100 = Meta("cifar100", facts.CIFAR100_NAMES, tuple(facts.CIFAR100_SUPERCLASSES))
    for meta, expected in ((meta10, facts.CIFAR10_MD5["batches.meta"]), (meta100, facts.CIFAR100_MD5["meta"])):
        file = io.BytesIO()
        write_meta(file, meta)
        assert hashlib.md5(file.getvalue()).hexdigest() == expected


def test_cifar10_is_laid_out_as_the_genuine_set(tmp_path: Path) -> None:
    paths = make_sample(str(tmp_path / "set"), images=120)
    assert [Path(path).name for path in paths] == [*TRAINING, "test_batch", "batches.meta", "readme.html"]
    assert sorted(paths) == sorted(str(path) for path in (tmp_path / "set").iterdir())
    meta = unpickled(tmp_path / "set" / "batches.meta")
    assert meta == {"num_cases_per_batch": 20, "label_names": list(facts.CIFAR10_NAMES), "num_vis": 3072}
    found = batches(tmp_path / "set")
    assert [len(batch["labels"]) for batch in found.values()] == [20] * 6
    assert found["data_batch_2"]["batch_label"] == "training batch 2 of 5"
    assert found["test_batch"]["batch_label"] == "testing batch 1 of 1"
    assert found["test_batch"]["data"].shape == (20, 3072)


def test_cifar100_is_laid_out_as_the_genuine_set(tmp_path: Path) -> None:
    paths = make_sample(str(tmp_path), kind="cifar100", images=600)
    assert [Path(path).name for path in paths] == ["train", "test", "meta", "file.txt~"]
    meta = unpickled(tmp_path / "meta")
    assert meta["fine_label_names"] == list(facts.CIFAR100_NAMES)
    assert meta["coarse_label_names"] == list(facts.CIFAR100_SUPERCLASSES)
    train, test = unpickled(tmp_path / "train"), unpickled(tmp_path / "test")
    assert (train["data"].shape, test["data"].shape) == ((500, 3072), (100, 3072))
    assert train["batch_label"] == "training batch 1 of 1"
    for batch in (train, test):
        assert batch["coarse_labels"] == [facts.CIFAR100_COARSE_OF_FINE[label] for label in batch["fine_labels"]]
        assert np.bincount(batch["fine_labels"]).tolist() == [len(batch["fine_labels"]) // 100] * 100


def test_pixels_in_the_files_are_the_drawn_ones_in_order(tmp_path: Path) -> None:
    make_sample(str(tmp_path), kind="cifar100", images=2600, seed=3)
    train = unpickled(tmp_path / "train")
    assert train["data"].shape == (2167, 3072)
    assert len(np.unique(train["data"], axis=0)) == 2167


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("images", range(1, 13))
def test_small_sets_hold_exactly_the_images_asked_for(tmp_path: Path, images: int, kind: str) -> None:
    found = batches(sample_dir(tmp_path / "set", kind, images))
    rows = [len(batch["data"]) for batch in found.values()]
    assert sum(rows) == images
    assert min(rows) >= 1
    assert len(rows) == min(images, 6 if kind == "cifar10" else 2)


def test_sixty_thousand_make_the_genuine_batches() -> None:
    assert [plan.rows for plan in plan_batches("cifar10", 60_000)] == [10_000] * 6
    assert [plan.rows for plan in plan_batches("cifar100", 60_000)] == [50_000, 10_000]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("images", [60_001, 75_000, 600_000, 6_000_000])
def test_larger_sets_have_more_batches_of_the_genuine_size(images: int, kind: str) -> None:
    *training, test = plan_batches(kind, images)
    size = 10_000 if kind == "cifar10" else 50_000
    assert test.rows == 10_000
    assert {plan.rows for plan in training[:-1]} == {size}
    assert sum(plan.rows for plan in training) == images - 10_000
    assert len({plan.name for plan in training}) == len(training)
    assert training[-1].batch_label == f"training batch {len(training)} of {len(training)}"
    assert training[-1].name == (f"data_batch_{len(training)}" if kind == "cifar10" else f"train_{len(training)}")


def test_file_names_are_unique_in_the_set_and_of_genuine_form(tmp_path: Path) -> None:
    for kind in ("cifar10", "cifar100"):
        found = batches(sample_dir(tmp_path / kind, kind, 600))
        names = [name for batch in found.values() for name in batch["filenames"]]
        assert len(set(names)) == 600
        assert all(name[-14:-10].endswith("_s_") or name[-13:-10] == "_s_" for name in names)
        assert 22 < np.mean([len(name) for name in names]) < 26


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    seeds = {"a": 7, "b": 7, "c": 8}
    first, again, other = (digests(sample_dir(tmp_path / name, images=30, seed=seeds[name])) for name in seeds)
    assert first == again
    assert all(first[name] != other[name] for name in [*TRAINING, "test_batch"])


def test_drawn_bytes_do_not_change_between_machines() -> None:
    for kind, expected in DRAWN.items():
        pixels = draw_images(1, np.arange(130) % 10, kind)
        assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == expected


@pytest.mark.parametrize(("kind", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_pngs_of_drawn_images_are_as_large_as_genuine_ones(kind: str, classes: int) -> None:
    pixels = draw_images(0, np.arange(500) % classes, kind)
    assert pixels.shape == (500, 3, 32, 32)
    assert pixels.dtype == np.uint8
    assert 2000 < mean_png_size(pixels) < 2600


def test_drawing_no_images_gives_an_empty_array() -> None:
    assert draw_images(0, np.empty(0, np.int64), "cifar10").shape == (0, 3, 32, 32)


def test_images_of_a_class_resemble_each_other_more_than_those_of_others() -> None:
    labels = np.arange(2000) % 10
    pixels = draw_images(2, labels, "cifar10").astype(np.float64)
    means = np.array([pixels[labels == label].mean(axis=0) for label in range(10)])
    fresh_labels = np.arange(500) % 10
    fresh = draw_images(3, fresh_labels, "cifar10").astype(np.float64)
    guesses = ((fresh[:, None] - means) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert (guesses == fresh_labels).mean() > 0.2


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_an_archive_holds_the_same_files_in_the_genuine_directory(tmp_path: Path, kind: str) -> None:
    expected = digests(sample_dir(tmp_path / "set", kind, 24))
    archive = tmp_path / "set.tar.gz"
    assert make_sample(str(archive), kind=kind, images=24, tar=True) == [str(archive)]
    directory = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[kind]
    with tarfile.open(archive) as members:
        files = {info.name: file.read() for info in members if (file := members.extractfile(info))}
        assert all(info.mtime == 0 for info in members.getmembers())
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
        f"{directory}/{name}": digest for name, digest in expected.items()
    }


def test_an_archive_is_one_gzip_member_with_reproducible_bytes(tmp_path: Path) -> None:
    first, again = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    for path in (first, again):
        make_sample(str(path), images=24, tar=True)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4)
    whole = io.BytesIO(first.read_bytes())
    with gzip.GzipFile(fileobj=whole) as unpacked:
        assert len(unpacked.read()) % 512 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cifar20", "images": 6}, "'cifar20'; expected one of cifar10, cifar100"),
        ({"images": 0}, "0 images"),
        ({"images": 6, "seed": -1}, "seed is -1"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_sample(str(tmp_path / "set"), **arguments)
    assert not (tmp_path / "set").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"mine")
    with pytest.raises(OutputError, match="not empty"):
        make_sample(str(tmp_path), images=6)
    with pytest.raises(OutputError, match="already exists"):
        make_sample(str(kept), images=6, tar=True)
    with pytest.raises(OutputError, match="is a directory"):
        make_sample(str(tmp_path), images=6, tar=True)
    assert kept.read_bytes() == b"mine"


def test_importing_the_sample_maker_loads_neither_beam_nor_arrow() -> None:
    code = (
        "import sys, beam_cifar.samples.make; sys.exit(any(name in sys.modules for name in ('apache_beam', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
