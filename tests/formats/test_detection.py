"""A format that cannot be seen is not another one: a damaged or unreadable file never turns a dataset into other classes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format, readable
from tests.formats.test_any_to_any import in_every_format
from tests.helpers.commands import Command
from tests.helpers.image_trees import batch, encoded, picture, write_tree

pytestmark = pytest.mark.usefixtures("without_runner")
IMAGES = (".png", ".jpg")


def cannot_be_read(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a file: its first page cannot be read by anyone (EIO)


DAMAGES: dict[str, Callable[[Path, bytes], object]] = {
    "unreadable": lambda path, _: cannot_be_read(path),
    "a folder": lambda path, _: path.mkdir(),
    "a broken link": lambda path, _: path.symlink_to("/nowhere/at/all"),
    "a pipe": lambda path, _: os.mkfifo(path),
    "empty": lambda path, _: path.write_bytes(b""),
    "cut": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "other bytes": lambda path, data: path.write_bytes(bytes(at * 37 % 251 for at in range(len(data)))),
    "not UTF-8": lambda path, data: path.write_bytes(data[:2] + b"\xff\xfe" + data[4:]),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    batches = {name: batch([f"{name}_{row}.png" for row in "ab"], [0, 1]) for name in ("data_batch_1", "test_batch")}
    return in_every_format(folder, batches)


def described(folder: Path) -> list[Path]:
    """The files that say what the images are."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in IMAGES)


def answer(folder: Path) -> str | None:
    """The format of a folder, or what is said instead."""
    try:
        return detect_format(str(folder), str(folder))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", sorted(readable()))
def test_a_damaged_file_never_makes_another_format_of_a_dataset(
    name: str, damage: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    count = len(described(sources[name]))
    every = slice(0, count)
    for number, chosen in enumerate([*(slice(at, at + 1) for at in range(min(count, 6))), every]):
        folder = tmp_path / str(number)
        shutil.copytree(sources[name], folder)
        for path in described(folder)[chosen]:
            data = path.read_bytes()
            path.unlink()
            DAMAGES[damage](path, data)
        found = answer(folder)
        refused = str(found).startswith((f"{folder}/", f"{folder}: ")) and "--input-format" in str(found)
        assert found in (name, None) or refused, found


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
@pytest.mark.parametrize("name", sorted(set(readable()) - {"cifar", "downsampled_imagenet"}))
def test_a_folder_that_may_not_be_listed_is_an_error_or_no_matter(name: str, sources: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as place:  # not below pytest's folder, which only its owner may enter
        os.chmod(place, 0o755)
        folder = Path(place, "in")
        shutil.copytree(sources[name], folder)
        user = os.geteuid()
        for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            path.chmod(0)
            if not user:
                os.seteuid(65534)
            try:
                found = answer(folder)
            finally:
                os.seteuid(user)
                path.chmod(0o755)
            assert found == name or str(found).startswith(f"{path}: cannot be read: Permission denied"), found


def test_the_error_names_the_file_the_format_and_the_way_out(
    sources: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(sources["datumaro"], folder)
    first = folder / "annotations" / "data_batch_1.json"
    first.unlink()
    cannot_be_read(first)
    line = (
        f"beam-cifar: error: {first}: cannot be read: Input/output error; without it the format is uncertain "
        "(perhaps datumaro): restore or remove it, or name the format with --input-format\n"
    )
    for verb in ("detect", "info"):
        assert command(verb, str(folder)) == (3, "", line)
    assert command("info", str(folder), "--input-format", "imagenet_with_subset_dirs")[0] == 0


def test_a_file_known_by_name_is_not_missing_when_something_else_has_its_name(
    sources: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    for name, known in (("mnist", "labels.txt"), ("webdataset", "labels.json"), ("voc_classification", "labelmap.txt")):
        folder = tmp_path / name
        shutil.copytree(sources[name], folder)
        (folder / known).unlink()
        (folder / known).mkdir()
        code, _, error = command("info", str(folder))
        assert code == 3
        assert f"{folder / known}: is a folder" in error


def test_a_file_that_is_no_dataset_has_no_format(tmp_path: Path) -> None:
    for name in ("notes.txt", "image.png", "no-extension"):
        (tmp_path / name).write_bytes(b"text")
        assert detect_format(str(tmp_path / name), str(tmp_path)) is None


def test_two_formats_in_one_folder_are_an_error_that_names_both(
    sources: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(sources["npz"], folder)
    shutil.copytree(sources["parquet"], folder, dirs_exist_ok=True)
    code, out, error = command("info", str(folder))
    assert (code, out) == (3, "")
    assert error.startswith(f"beam-cifar: error: {folder}: has files of several formats: parquet and npz; name the one")
    assert command("info", str(folder), "--input-format", "npz")[0] == 0


def test_a_format_that_is_sure_wins_over_images_that_lie_there_too(sources: dict[str, Path], tmp_path: Path) -> None:
    for name in ("cifar", "npz", "parquet", "datumaro"):
        folder = tmp_path / name
        shutil.copytree(sources["imagenet"], folder)
        shutil.copytree(sources[name], folder, dirs_exist_ok=True)
        assert detect_format(str(folder), str(tmp_path)) == name


def test_a_guess_from_images_alone_is_told(sources: dict[str, Path], command: Command) -> None:
    said = "note: only images were found, so they are read as image_dir without labels; if labels are elsewhere"
    assert said in command("info", str(sources["image_dir"]))[1]
    assert said not in command("info", str(sources["image_dir"]), "--input-format", "image_dir")[1]


def test_an_unknown_format_says_what_is_there_and_what_the_nearest_format_misses(
    tmp_path: Path, command: Command
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "archive.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(26))
    code, _, error = command("info", str(tmp_path))
    assert code == 3
    assert "no known format; files there: 1 .7z, 1 .npz, 1 .txt; as npz: " in error
    assert "--input-format" in error
    assert "unpack it" in command("info", str(tmp_path / "archive.7z"))[2]


@pytest.mark.parametrize("names", [["train", "test"], ["Training", "VAL"], ["images"], ["data", "dev", "all"]])
@pytest.mark.parametrize("deep", ["", "set/"])
def test_folders_named_as_subsets_are_no_classes_unless_the_format_is_named(
    names: list[str], deep: str, tmp_path: Path, command: Command
) -> None:
    folder = write_tree(tmp_path / "in", {f"{deep}{name}/1.png": encoded(picture(1)) for name in names})
    name = "imagenet_with_subset_dirs" if deep else "imagenet"
    (folder / "answers.csv").write_text("a;b\n")
    code, _, error = command("info", str(folder))
    assert code == 3
    assert len(error.splitlines()) == 1
    for word in (*map(repr, names), "answers.csv", "--input-format image_dir", f"--input-format {name}"):
        assert word in error
    for chosen in (name, "image_dir"):
        assert command("info", str(folder), "--input-format", chosen)[0] == 0
    write_tree(folder, {f"{deep}cat/1.png": encoded(picture(2))})
    assert detect_format(str(folder), str(tmp_path)) == name


def test_features_without_files_of_tfds_are_no_dataset(tmp_path: Path, command: Command) -> None:
    (tmp_path / "features.json").write_text("{}")
    code, _, error = command("info", str(tmp_path))
    assert code == 3
    assert "no known format; files there: 1 .json; as tfds: " in error
