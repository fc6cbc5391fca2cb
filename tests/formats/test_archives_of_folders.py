"""Every format is read in place from a `.zip` and a `.tar`, and gives the same rows as from its folder."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from beam_cifar import compare
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import readable
from beam_cifar.jobs import serial
from beam_cifar.planning.survey import find_catalog, survey
from tests.formats.test_any_to_any import in_every_format
from tests.helpers.commands import Command
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_tree

pytestmark = pytest.mark.usefixtures("without_runner")


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    batches = {
        name: batch([f"{name}_{row}.png" for row in range(5)], [0, 1, 2, 3, 1])
        for name in ("data_batch_1", "test_batch")
    }
    return in_every_format(tmp_path_factory.mktemp("sources"), batches)


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


PACKED: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "stored.zip": lambda folder, files: zipped(folder / "set.zip", files, zipfile.ZIP_STORED),
    "deflated.zip": lambda folder, files: zipped(folder / "set.zip", files),
    "wrapped.zip": lambda folder, files: zipped(
        folder / "set.zip", {f"set/{name}": data for name, data in files.items()} | {"__MACOSX/set/._a.png": b"x"}
    ),
    "set.tar": lambda folder, files: tarred(folder / "set.tar", {f"./{name}": data for name, data in files.items()}),
    "set.tar.gz": lambda folder, files: tarred(folder / "set.tar.gz", files),
}
OF_FOLDERS = [name for name in readable() if name != "webdataset"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", OF_FOLDERS)
def test_an_archive_has_the_rows_of_its_folder(
    packed: str, name: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    archive = PACKED[packed](tmp_path, content(sources[name]))

    assert compare(str(archive), str(sources[name])).equal


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", ["cifar", "imagenet", "image_csv"])
def test_a_job_writes_the_same_files(packed: str, name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    archive = PACKED[packed](tmp_path, content(sources[name]))
    quickly(archive, tmp_path / "a", "npz")
    quickly(sources[name], tmp_path / "b", "npz")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_what_was_guessed_or_unpacked_is_told(tmp_path: Path) -> None:
    files = {f"pets/{name}/{row}.png": encoded(picture(row)) for name in ("cat", "dog") for row in range(3)}
    catalog = find_catalog(str(zipped(tmp_path / "a.zip", files)), None, str(tmp_path))
    assert (catalog.format, catalog.path, catalog.labels.names) == ("imagenet", f"{tmp_path}/a.zip", ("cat", "dog"))
    assert catalog.notices == ("read from 'pets', the only folder in the archive",)
    (tmp_path / "index").mkdir()
    catalog = find_catalog(str(tarred(tmp_path / "b.tar.gz", files)), None, str(tmp_path / "index"))
    assert "decompressed to" in catalog.notices[1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("train/cat/1.png", "train/dog/1.png"), ("imagenet_with_subset_dirs", 2)),  # named as a subset
        (("cat/1.png", "cat/2.png"), ("imagenet", 1)),  # may be a class
        (("a/b/cat/1.png", "a/b/dog/1.png"), ("imagenet", 2)),
    ],
)
def test_the_only_folder_is_entered_unless_it_means_something(
    files: tuple[str, ...], expected: tuple[str, int], tmp_path: Path
) -> None:
    images = {name: encoded(picture(row)) for row, name in enumerate(files)}
    catalog = find_catalog(str(zipped(tmp_path / "a.zip", images)), None, str(tmp_path))
    assert (catalog.format, len(catalog.labels.names)) == expected


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz"])
def test_a_folder_named_as_an_archive_is_a_folder(name: str, tmp_path: Path) -> None:
    write_tree(tmp_path / name, {f"{each}/1.png": encoded(picture(1)) for each in ("cat", "dog")})
    catalog = find_catalog(str(tmp_path / name), None, str(tmp_path))
    assert (catalog.format, catalog.labels.names) == ("imagenet", ("cat", "dog"))


def test_an_empty_class_folder_keeps_its_class(tmp_path: Path) -> None:
    files = {"cat/": b"", "dog/1.png": encoded(picture(1)), "eel/1.png": encoded(picture(2))}
    catalog = find_catalog(str(zipped(tmp_path / "a.zip", files)), None, str(tmp_path))
    assert catalog.labels.names == ("cat", "dog", "eel")
    assert [file.label for file in catalog.files] == [1, 2]


def test_members_cross_to_workers(tmp_path: Path) -> None:
    files = {f"{name}/1.png": encoded(picture(1)) for name in ("cat", "dog")}
    catalog = find_catalog(str(zipped(tmp_path / "a.zip", files)), None, str(tmp_path))
    assert pickle.loads(pickle.dumps(catalog)) == catalog


def test_an_archive_that_changed_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {f"{name}/1.png": encoded(picture(1)) for name in ("cat", "dog")})
    catalog = survey(str(path), None, (), str(tmp_path)).catalog
    os.utime(path, (1, 1))
    from beam_cifar.formats.registry import get_source

    with pytest.raises(InputError, match="changed"):
        get_source(catalog.format).read_rows(catalog.files[0], catalog.labels)


def test_damage_names_the_member_and_a_way_out(tmp_path: Path, command: Command) -> None:
    path = zipped(tmp_path / "a.zip", {f"{name}/1.png": encoded(picture(1)) for name in ("cat", "dog")}, 0)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    path.write_bytes(data)
    code, _, error = command(
        "convert", "-i", str(path), "-f", "npz", "-o", str(tmp_path / "out"), "--", "--save-images"
    )
    assert code == 3
    assert len(error.splitlines()) == 1
    assert "a.zip:cat/1.png: " in error
    assert "damaged, download it again" in error
