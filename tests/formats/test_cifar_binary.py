"""CIFAR's binary version: what is written byte for byte, what is read, also from archives, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.cifar.facts import CIFAR100_SUPERCLASSES
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan
from tests.helpers.gray import CLASSES
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    encoded,
    picture,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")

NAMES = "".join(f"{name}\n" for name in CLASSES).encode()
HUNDRED = {"fine_label_names.txt": b"a\nb\nc\n", "coarse_label_names.txt": b"x\ny\n"}


def binary(rows: list[tuple[Any, ...]]) -> bytes:
    """Rows of `cifar_rows`, as the page says they lie."""
    return b"".join(bytes([label] if coarse is None else [coarse, label]) + pixels for _, label, coarse, pixels in rows)


def hundred(labels: list[tuple[int, int]]) -> bytes:
    """Rows of CIFAR-100, (superclass, class)."""
    return b"".join(bytes(pair) + picture(row).tobytes() for row, pair in enumerate(labels))


def ten(labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + picture(row).tobytes() for row, label in enumerate(labels))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Batches whose natural order is not that of their letters."""
    subsets = {"data_batch_2": [0, 1, 2], "data_batch_10": [1], "test_batch": [2, 0]}
    batches = {
        name: batch([f"{name}{row}.png" for row in range(len(labels))], labels, seed)
        for seed, (name, labels) in enumerate(subsets.items())
    }
    return write_cifar(tmp_path / "cifar", batches, CLASSES)


def test_cifar10_is_a_label_and_pixels(cifar: Path, tmp_path: Path, beam: None) -> None:
    converted(cifar, tmp_path / "out", "cifar_binary")
    expected = {
        f"{name}.bin": binary(cifar_rows(cifar, [name])) for name in batch_names(cifar) if name != "batches.meta"
    }
    assert contents(tmp_path / "out") == expected | {"batches.meta.txt": NAMES + b"\n"}


def test_cifar100_is_superclass_class_and_pixels(cifar100: Path, tmp_path: Path) -> None:
    converted(cifar100, tmp_path / "out", "cifar_binary")
    found, names = contents(tmp_path / "out"), unpickled(cifar100 / "meta")
    for name in ("train", "test"):
        assert found.pop(f"{name}.bin") == binary(cifar_rows(cifar100, [name]))
    assert {name: content.decode().split() for name, content in found.items()} == {
        "fine_label_names.txt": names["fine_label_names"],
        "coarse_label_names.txt": names["coarse_label_names"],
    }


@pytest.mark.parametrize("kind", ["cifar", "cifar100"])
def test_a_round_trip_keeps_all_but_ids(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(kind)
    converted(source, tmp_path / "out", "cifar_binary")
    converted(tmp_path / "out", tmp_path / "back", "cifar", save_images=True)
    subsets = [name for name in batch_names(source) if name != "batches.meta"]
    for name in subsets:
        rows = cifar_rows(source, [name])
        expected = [(f"{name}_{number}.png", *row[1:]) for number, row in enumerate(rows)]
        assert cifar_rows(tmp_path / "back", [name]) == expected
    meta = "batches.meta" if kind == "cifar" else "meta"
    keys = ["label_names"] if kind == "cifar" else ["fine_label_names", "coarse_label_names"]
    for key in keys:
        assert unpickled(tmp_path / "back" / meta)[key] == unpickled(source / meta)[key]


def test_parts_make_the_same_files(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(cifar, tmp_path / "one", "cifar_binary")
    set_part_bytes(monkeypatch, "cifar_binary", 2 * 3072)
    converted(cifar, tmp_path / "many", "cifar_binary")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_packed_batches_are_numbered(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "cifar_binary", images_per_batch=3)
    sizes = {name: len(data) // 3073 for name, data in contents(tmp_path / "out").items() if name.endswith(".bin")}
    assert sizes == {"data_batch_1.bin": 3, "data_batch_2.bin": 1, "test_batch.bin": 2}


def test_gray_images_become_three_equal_planes(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"a/a/1.png": encoded(picture(3, channels=1))})
    converted(source, tmp_path / "out", "cifar_binary")
    assert (tmp_path / "out/a.bin").read_bytes() == b"\0" + picture(3, channels=1).tobytes() * 3


def test_whole_files_are_copied_and_chosen_rows_are_not(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"train.bin": hundred([(0, 0), (0, 1), (1, 2)]), **HUNDRED})
    converted(source, tmp_path / "copy", "cifar_binary")
    assert (tmp_path / "copy/train.bin").read_bytes() == (source / "train.bin").read_bytes()
    converted(source, tmp_path / "some", "cifar_binary", labels=("c",))
    assert (tmp_path / "some/train.bin").read_bytes() == bytes([1, 2]) + picture(2).tobytes()
    converted(source, tmp_path / "renamed", "cifar_binary", remaps=("a:b",))
    assert (tmp_path / "renamed/train.bin").read_bytes()[:2] == bytes([0, 1])


@pytest.mark.parametrize("name", ["a b", "_x.y", "ночь"])
def test_subset_names_survive(name: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {f"{name}.bin": ten([0]), "batches.meta.txt": NAMES})
    converted(source, tmp_path / "out", "cifar_binary")
    assert set(contents(tmp_path / "out")) == {f"{name}.bin", "batches.meta.txt"}
    assert list(Dataset.import_from(tmp_path / "out").subsets) == [name]


def test_a_subset_without_rows_keeps_its_file(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "cifar_binary", filter="/item[subset='test_batch']")
    assert (tmp_path / "out/data_batch_2.bin").read_bytes() == b""
    found = get_source("cifar_binary").describe(str(tmp_path / "out"), "")
    assert [file.subset for file in found.files] == ["data_batch_2", "data_batch_10", "test_batch"]


# --- reading what others made ---


def archive(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("place", ["tar.gz", "tar", "folder", "folder deeper"])
def test_the_genuine_layout_is_read_from_archives_and_folders(place: str, tmp_path: Path) -> None:
    labels = {f"data_batch_{number}": [number, 0] for number in range(1, 6)} | {"test_batch": [9]}
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files = {f"cifar-10-batches-bin/{name}.bin": ten(found) for name, found in labels.items()}
    files |= {"cifar-10-batches-bin/batches.meta.txt": "\n".join([*names, "", ""]).encode()}
    files |= {"cifar-10-batches-bin/readme.html": b"<meta>"}
    if place.startswith("tar"):
        source = archive(tmp_path / f"cifar-10-binary.{place}", files, "w:gz" if place == "tar.gz" else "w")
    else:
        source = write_tree(tmp_path / "in", files) / ("" if place == "folder deeper" else "cifar-10-batches-bin")
    assert detect_format(str(source), str(tmp_path)) == "cifar_binary"
    converted(source, tmp_path / "back", "cifar", save_images=True)
    assert unpickled(tmp_path / "back/batches.meta")["label_names"] == names
    for name, found in labels.items():
        rows = cifar_rows(tmp_path / "back", [name])
        assert [row[1] for row in rows] == found
        assert [row[3] for row in rows] == [picture(row).tobytes() for row in range(len(found))]


def test_superclasses_are_learned_from_rows(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"train.bin": hundred([(1, 0), (0, 1), (1, 0)]), **HUNDRED})
    catalog = get_source("cifar_binary").describe(str(source), "")
    assert catalog.labels.parents == (None, None, None)
    assert scan(get_source("cifar_binary"), catalog.files[0], catalog.labels, Wanted()).parents == {
        0: (1, 0),
        1: (0, 1),
    }


def test_superclasses_of_the_genuine_hundred_are_known_without_rows(tmp_path: Path) -> None:
    fine = sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names)
    coarse = sorted(CIFAR100_SUPERCLASSES)
    lists = {"fine_label_names.txt": fine, "coarse_label_names.txt": coarse}
    files = {name: "\n".join(names).encode() for name, names in lists.items()}
    catalog = get_source("cifar_binary").describe(str(write_tree(tmp_path / "in", {"test.bin": b"", **files})), "")
    assert [coarse[parent or 0] for parent in catalog.labels.parents][:2] == ["fruit_and_vegetables", "fish"]


def test_a_lost_superclass_is_said(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"train.bin": hundred([(1, 0), (0, 1)]), **HUNDRED})
    assert not any("lose" in notice for notice in converted(source, tmp_path / "all", "cifar_binary").notices)
    notices = converted(source, tmp_path / "out", "cifar_binary", labels=("a",)).notices
    assert "superclasses of 1 class without rows are lost, such as that of 'b'" in notices


def test_rows_are_read_alone(tmp_path: Path) -> None:
    labels = [(row % 2, row % 2) for row in range(30)]
    source = write_tree(tmp_path / "in", {"train.bin": hundred(labels), **HUNDRED})
    catalog = get_source("cifar_binary").describe(str(source), "")
    with get_source("cifar_binary").open_rows(catalog.files[0], catalog.labels) as rows:
        for start, stop in ((0, 1), (11, 15), (29, 30), (5, 5)):
            found = rows.table(start, stop).column("image").to_pylist()
            assert found == [picture(row).tobytes() for row in range(start, stop)]
        assert rows.take([3, 4, 29]).column("id").to_pylist() == ["train_3", "train_4", "train_29"]
        assert rows.take([3, 29]).column("image").to_pylist() == [picture(row).tobytes() for row in (3, 29)]


TEN = {"data_batch_1.bin": ten([0, 1]), "batches.meta.txt": b"a\nb\n\n"}
DAMAGED: dict[str, tuple[dict[str, bytes], str]] = {
    "cut": (TEN | {"data_batch_1.bin": ten([0, 1])[:-1]}, r"data_batch_1.bin: has 6145 bytes, 3072 more than 1 row; a CIFAR-10 row is 3073"),
    "rows of the other kind": (TEN | {"data_batch_1.bin": hundred([(0, 1)])}, r"data_batch_1.bin: has 3074 bytes, 1 more than 1 row"),
    "a label outside": (TEN | {"data_batch_1.bin": ten([0, 2])}, r"data_batch_1.bin: row 1: label 2 is outside .* 2 classes \(0 to 1\)"),
    "a superclass outside": (HUNDRED | {"train.bin": hundred([(0, 1), (2, 1)])}, r"train.bin: row 1: coarse label 2 is outside .* 2 superclasses"),
    "two superclasses of a class": (
        HUNDRED | {"train.bin": hundred([(0, 1), (0, 1), (1, 1)])},
        r"class 'b' has superclass 'x' in .*train.bin row 0, but 'y' in .*train.bin row 2",
    ),
    "two superclasses in two files": (
        HUNDRED | {"train.bin": hundred([(0, 1)]), "test.bin": hundred([(1, 1)])},
        r"class 'b' has superclass 'y' in .*test.bin row 0, but 'x' in .*train.bin row 0",
    ),
    "one subset twice": (TEN | {"a%41.bin": ten([0]), "aA.bin": ten([0])}, r"aA.bin: subset 'aA' is also in 'a%41.bin'"),
    "no batch": ({"batches.meta.txt": b"a\n"}, r"has class names, but no batch"),
    "no superclasses": ({"fine_label_names.txt": b"a\n", "train.bin": hundred([(0, 0)])}, r"has no 'coarse_label_names.txt'"),
    "names of no superclass": (HUNDRED | {"coarse_label_names.txt": b"\n", "train.bin": b""}, r"coarse_label_names.txt: is empty"),
    "both kinds": (TEN | HUNDRED, r"has both 'batches.meta.txt' \(CIFAR-10\) and"),
    "a blank name": (TEN | {"batches.meta.txt": b"a\n\nb\n"}, r"batches.meta.txt: line 2: found ''"),
    "names that are no text": (TEN | {"batches.meta.txt": b"\xff"}, r"batches.meta.txt: is not UTF-8"),
    "names without end": (TEN | {"batches.meta.txt": bytes((16 << 20) + 1)}, r"batches.meta.txt: is 16777217 bytes; at most 16777216 are supported"),
    "two datasets": (
        {f"{folder}/{name}": data for folder in "ab" for name, data in TEN.items()},
        r"contains several datasets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    files, reason = DAMAGED[case]
    source = write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "cifar", input_format="cifar_binary")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.tar.gz", {f"b/{name}": data for name, data in TEN.items()}, "w:gz")
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a.tar.gz: the archive is truncated or damaged"):
        converted(source, tmp_path / "out", "cifar", input_format="cifar_binary")


def test_other_directories_are_not_detected(cifar: Path, cifar10_archive: Path, tmp_path: Path) -> None:
    looks_right = get_source("cifar_binary").looks_right
    other = archive(tmp_path / "other.tar", {"a/data.bin": b""}, "w")
    plain = write_tree(tmp_path / "plain", {"a.bin": b"", "b/c.bin": b""})
    for path in (cifar, cifar10_archive, other, plain, plain / "a.bin"):
        assert not looks_right(str(path), str(tmp_path))


# --- what is refused in writing ---


def test_images_of_another_size_are_refused_with_a_hint(tmp_path: Path) -> None:
    data = np.empty(2, dtype=object)
    data[:] = [picture(0).reshape(-1), picture(1, 8, 8).reshape(-1)]
    content = {"data": data, "labels": [0, 1], "filenames": ["a.png", "b.png"], "image_sizes": [(32, 32), (8, 8)]}
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": content})
    with pytest.raises(UsageError, match=r"data_batch_1.bin: images differ in size, but cifar_binary needs one size"):
        converted(source, tmp_path / "out", "cifar_binary")
    with pytest.raises(UsageError, match=r"data_batch_1.bin: images are 8 x 8.*--resize 32x32"):
        converted(source, tmp_path / "out", "cifar_binary", resize=(8, 8))
    converted(source, tmp_path / "out", "cifar_binary", resize=(32, 32))
    assert len((tmp_path / "out/data_batch_1.bin").read_bytes()) == 2 * 3073


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (batch(["a.png", "b.png"], [0, None]), r"data_batch_1: 1 row has no label"),
        ({"labels": [0], "filenames": ["a.png"], "data": []}, r"data_batch_1: 1 row has no image"),
    ],
)
def test_rows_without_image_or_label_are_refused(content: dict[str, Any], reason: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": content})
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "cifar_binary")


@pytest.mark.parametrize(
    ("classes", "reason"),
    [(("a\nb",), r"class 'a\\nb' cannot be written"), (tuple(map(str, range(257))), r"257 classes: cifar_binary")],
)
def test_class_names_that_cannot_be_kept_are_refused(classes: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"data_batch_1": batch(["a.png"], [0])}, classes)
    with pytest.raises(UsageError, match=reason):
        converted(source, tmp_path / "out", "cifar_binary")


def test_a_class_in_use_without_superclass_is_refused(tmp_path: Path) -> None:
    hundred_set = write_tree(tmp_path / "hundred", {"train.bin": hundred([(1, 0)]), **HUNDRED})
    ten_set = write_cifar(tmp_path / "ten", {"test": batch(["a.png"], [0])}, ("c",))
    merged = Dataset.merge(Dataset.import_from(hundred_set), Dataset.import_from(ten_set))
    with pytest.raises(InputError, match=r"test.bin: class 'c' has no superclass"):
        merged.export(tmp_path / "out", "cifar_binary", workers=1)


def test_unchanged_files_stay_the_same_files_when_saved_in_place(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "cifar_binary")
    before = (tmp_path / "out/data_batch_2.bin").stat().st_ino
    Dataset.import_from(tmp_path / "out").remove("test_batch_0", "test_batch").save(workers=1)
    assert (tmp_path / "out/data_batch_2.bin").stat().st_ino == before
    assert (tmp_path / "out/test_batch.bin").read_bytes() == binary(cifar_rows(cifar, ["test_batch"])[1:])
