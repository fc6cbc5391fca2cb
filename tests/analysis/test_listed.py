"""What `stats` and `validate` list for people and for programs, and how they read images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beam_cifar import ImageOptions, stats, validate
from beam_cifar.errors import InputError
from beam_cifar.jobs import serial
from tests.helpers.commands import Command
from tests.helpers.image_trees import encoded, picture, write_tree


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """25 images, each once in train and twice in test, and 15 damaged ones."""
    files = {f"{path}{at}.png": encoded(picture(at, 4, 4)) for at in range(25) for path in ("train/cat/", "test/cat/a", "test/dog/b")}  # fmt: skip
    damaged = {f"train/dog/x{at}.png": encoded(picture(at))[:-30] for at in range(15)}
    return write_tree(tmp_path / "in", {**files, **damaged})


@pytest.mark.parametrize(("listed", "found"), [(10, 10), (1000, 25)])
def test_all_groups_and_rows_are_listed_if_asked_for(listed: int, found: int, repeating: Path) -> None:
    for path in (repeating / "train" / "dog").iterdir():
        path.unlink()
    made = stats(str(repeating), listed=listed)
    assert made.duplicate_groups == 25
    assert len(made.groups) == found
    assert [sorted(group.rows) for group in made.groups] == [
        sorted([("test", f"a{at}", "cat"), ("test", f"b{at}", "dog"), ("train", f"{at}", "cat")])
        for at in range(25)[:found]
    ]


@pytest.mark.parametrize(("listed", "rows", "groups"), [(10, 10, 10), (1000, 15, 25)])
def test_all_examples_of_a_finding_are_listed_if_asked_for(
    listed: int, rows: int, groups: int, repeating: Path
) -> None:
    found = {finding.check: finding for finding in validate(str(repeating), listed=listed).findings}
    assert found["rows"].count == 15
    assert len(found["rows"].examples) == rows
    assert found["conflicts"].count == 25
    assert len(found["conflicts"].examples) == groups
    assert found["leaks"].count == 25
    assert len([each for each in found["leaks"].examples if "row 0" in each or " row " in each]) == groups


def test_a_group_of_many_rows_is_listed_up_to_the_bound(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {f"cat/{at}.png": encoded(picture(1, 4, 4)) for at in range(30)})
    assert [(len(group.rows), group.count) for group in stats(str(source)).groups] == [(10, 30)]
    assert [(len(group.rows), group.count) for group in stats(str(source), listed=100).groups] == [(30, 30)]
    (example,) = (each.examples[-1] for each in validate(str(source)).findings if each.check == "duplicates")
    assert example.endswith(" and 20 more")


@pytest.fixture
def transparent(tmp_path: Path) -> Path:
    pixels = np.full((4, 4, 4), 200, np.uint8)
    pixels[3] = 0
    return write_tree(tmp_path / "in", {"cat/a.png": encoded(pixels), "dog/b.png": encoded(picture(1, 4, 4))})


@pytest.mark.parametrize(("alpha", "least"), [("drop", 200), ("white", 255), ("black", 0)])
def test_images_are_read_as_asked(alpha: str, least: int, transparent: Path) -> None:
    with pytest.raises(InputError, match="--alpha"):
        stats(str(transparent))
    assert validate(str(transparent)).count("error") == 1
    images = ImageOptions(alpha=alpha)
    assert validate(str(transparent), images=images).count("error") == 0
    mean = stats(str(transparent), images=images).mean[0]
    assert mean == (least * 16 + int(picture(1, 4, 4)[0].astype(int).sum())) / 32


@pytest.mark.parametrize("verb", ["stats", "validate", "info", "report"])
def test_commands_that_read_take_the_options_for_images(
    verb: str, transparent: Path, tmp_path: Path, command: Command
) -> None:
    more = ["-o", str(tmp_path / "page.html")] if verb == "report" else []
    given = ["--exif", "keep", "--alpha", "white", "--depth", "clip", "--cmyk", "convert", "--rgb"]
    code, out, _ = command(verb, str(transparent), *more, *given, "--json")
    assert code == 0
    assert '"format": "imagenet"' in out
