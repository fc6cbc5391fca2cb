"""Every format that can be read into every format that can be written: equal data, or exactly the declared loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset, compare
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.registry import get_sink, readable, writable
from beam_cifar.jobs import serial
from tests.helpers.image_trees import batch, encoded, manifest, picture, quickly, write_cifar, write_tree
from tests.helpers.read_only import CLASSES, READ_ONLY

pytestmark = pytest.mark.usefixtures("without_runner")


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images in each format that can be read; in its own words where it has fewer."""
    folder = tmp_path_factory.mktemp("sources")
    batches = {
        name: batch([f"{name[-1]}_{row}.png" for row in range(6)], [row % 4 for row in range(6)], seed)
        for seed, name in enumerate(("data_batch_1", "data_batch_2", "test_batch"))
    }
    return in_every_format(folder, batches)


def in_every_format(folder: Path, batches: dict[str, dict[str, object]]) -> dict[str, Path]:
    """Writes batches of CIFAR-10 in each format that can be read; returns their folders."""
    made = {"cifar": write_cifar(folder / "cifar", batches, CLASSES)}
    made |= {name: write(folder / name) for name, write in READ_ONLY.items()}
    for name in sorted(set(readable()) & set(writable()) - {"cifar"}):
        quickly(made["cifar"], folder / name, name)
        made[name] = folder / name
    return made


def expected(source: Path, target: str, folder: Path) -> Dataset:
    """What a format is to say of a dataset: all of it but what it cannot."""
    losses = get_sink(target).can.losses
    found = Dataset.import_from(str(source))
    if "colour" in losses:
        found.transform("grayscale")
    if "labels" in losses:
        found.transform("remove_annotations")
    return found


# Each format on both sides of the usual one at once, all other pairs where there is time.
PAIRS = [
    pytest.param(source, target, marks=() if "cifar" in (source, target) else pytest.mark.slow)
    for source in readable()
    for target in writable()
    if target in readable()
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_format_becomes_every_other_and_loses_nothing_but_what_it_declares(
    source: str, target: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"save_images": True}
    if "jpeg" in get_sink(target).can.losses:
        options["image_ext"] = ".png"
    if source == "image_dir" and not get_sink(target).can.takes_unlabelled:
        with pytest.raises(InputError, match="18 rows have no label"):
            quickly(sources[source], tmp_path / "out", target, **options)
        return
    if source in ("downsampled_imagenet", "stl10") and target == "cifar_binary":
        options["resize"] = (32, 32)
    quickly(sources[source], tmp_path / "out", target, **options)
    wanted = sources[source]
    losses = get_sink(target).can.losses
    if losses & {"colour", "labels"} or "resize" in options:
        left = expected(wanted, target, tmp_path)
        if "resize" in options:
            left.transform("resize", height=32, width=32)
        left.export(str(tmp_path / "expected"), "cifar", save_images=True)
        wanted = tmp_path / "expected"
    found = compare(str(wanted), str(tmp_path / "out"), ids="ids" not in losses, whole="subsets" in losses)
    assert found.equal, found


@pytest.mark.parametrize("target", [name for name in writable() if name not in readable()])
@pytest.mark.parametrize("source", readable())
def test_formats_that_are_only_written_hold_every_row(
    source: str, target: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    if source == "image_dir" and not get_sink(target).can.takes_unlabelled:
        with pytest.raises(InputError, match="18 rows have no label"):
            quickly(sources[source], tmp_path / "out", target)
        return
    summary = quickly(sources[source], tmp_path / "out", target)
    assert summary.written == summary.read == len(Dataset.import_from(str(sources[source])))
    assert sum(manifest(tmp_path / "out")["subsets"].values()) == summary.written
    if target.startswith("tfds"):  # read as `tfds`
        found = compare(str(sources[source]), str(tmp_path / "out"))
        assert found.equal, found


def odd_sets() -> dict[str, dict[str, dict[str, Any]]]:
    """Sets that not every format can hold."""
    two = [picture(seed, 20, 30).reshape(-1) for seed in (1, 2)]
    sizes = np.empty(2, dtype=object)
    sizes[:] = [picture(1, 8, 8).reshape(-1), picture(2, 9, 7).reshape(-1)]
    return {
        "other size": {
            "train": {
                "data": np.stack(two),
                "image_sizes": [(20, 30)] * 2,
                "labels": [0, 1],
                "filenames": ["x.png", "y.png"],
            }
        },
        "mixed sizes": {
            "train": {"data": sizes, "image_sizes": [(8, 8), (9, 7)], "labels": [0, 1], "filenames": ["x.png", "y.png"]}
        },
        "unlabelled": {"train": batch(["x.png", "y.png"], [0, None])},
        "labels only": {"train": {"data": [], "labels": [0, 1], "filenames": ["x.png", "y.png"]}},
    }


@pytest.mark.parametrize("kind", odd_sets())
@pytest.mark.parametrize("target", writable())
def test_what_a_format_cannot_hold_is_refused_with_a_reason(kind: str, target: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", odd_sets()[kind], CLASSES)
    losses = get_sink(target).can.losses
    options: dict[str, Any] = {"image_ext": ".png"} if "jpeg" in losses else {}
    refused = None
    try:
        quickly(source, tmp_path / "out", target, save_images=True, **options)
    except (InputError, UsageError) as error:
        refused = str(error)
    if refused:
        assert len(refused.splitlines()) == 1
        assert target in refused or "in" in refused.split("/")
        assert not (tmp_path / "out").exists()
    elif target in readable():
        wanted = source
        if losses & {"colour", "labels"}:
            expected(source, target, tmp_path).export(str(tmp_path / "expected"), "cifar", save_images=True)
            wanted = tmp_path / "expected"
        assert compare(str(wanted), str(tmp_path / "out"), ids="ids" not in losses, whole="subsets" in losses).equal


def test_gray_images_stay_gray_where_a_format_has_them(tmp_path: Path) -> None:
    files = {f"cat/{number}.png": encoded(picture(number, channels=1)) for number in range(4)}
    source = write_tree(tmp_path / "in", files)
    for target in writable():
        options: dict[str, Any] = {"image_ext": ".png"} if "jpeg" in get_sink(target).can.losses else {}
        quickly(source, tmp_path / target, target, save_images=True, **options)
        if target in readable() and "labels" not in get_sink(target).can.losses:
            losses = get_sink(target).can.losses
            assert compare(
                str(source), str(tmp_path / target), ids="ids" not in losses, whole="subsets" in losses
            ).equal


@pytest.mark.parametrize("target", writable())
def test_subsets_are_called_as_asked(target: str, sources: dict[str, Path], tmp_path: Path) -> None:
    rules = {"split": {"train": 12, "test": 6}, "source": {"data_batch_1": 6, "data_batch_2": 6, "test_batch": 6}}
    if get_sink(target).subsets.only:
        del rules["source"]
    for rule, names in rules.items():
        quickly(sources["cifar"], tmp_path / rule, target, subset_names=rule)
        assert manifest(tmp_path / rule)["subsets"] == names
