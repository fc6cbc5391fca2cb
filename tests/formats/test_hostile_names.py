"""Names from data become files and folders: whatever they are, they stay in the output, apart, and can be told back."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from os.path import splitext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.registry import get_source
from beam_cifar.naming.components import decode_name, encode_name
from beam_cifar.naming.image_files import short_name
from tests.helpers.image_trees import (
    contents,
    converted,
    decoded,
    encoded,
    listed,
    manifest,
    picture,
    quickly,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import tree, unpickled

LAYOUTS = ["imagenet", "imagenet_with_subset_dirs"]

NAMES = [
    # Ways out of a folder.
    "..", ".", "...", "../../x", "..\\..\\x", "/etc/x", "//server/share", "C:\\x", "c:x", "a/../../../../../../x",
    "a/b", "a//b", "a/", "/", "./a", "~", "~root", "-rf", "--help", "$HOME", "`id`", "a;b", "a|b", "*", "?", "<x>",
    # What some systems cannot hold.
    "", " ", "a b", " lead", "trail ", "trail.", "dots...", "nul\0byte", "new\nline", "tab\t", "\r", "\x01\x1b[31m", "\x7f",
    "con", "CON ", "Aux.txt", "nul", "com1", "LPT9.x", "com¹", "a:stream", "back\\slash", '"quoted"', "'single'",
    # What stands for something here.
    "no_label", "%2F", "%2f", "a%2Fb", "%", "%%", "%_", "%-", "100%", "%25", "%-0123456789abcdef0123456789abcdef",
    # Too long.
    "x" * 300, "x" * 299 + "y", "ы" * 300, "ы" * 299 + "я", "%" * 200, "😀" * 80, "x" * 251, "x" * 252, "/" * 90,
    # Alike for some systems.
    "Case", "case", "CASE", "caf\u00e9", "cafe\u0301", "CAFÉ", "stra\u00dfe", "strasse", "STRASSE", "\ufb01le", "file",
    "Å", "\u212b", "A\u030a", "\u0131", "I", "i", "\u017f", "s", "a\u200db", "ab",
    # Extensions inside names.
    ".png", "x.jpg", "x.jpg.png", "x", ".hidden", "archive.tar.gz", "x.PNG",
    # Scripts, directions, invisible characters.
    "кошка", "猫", "😀", "👩‍👩‍👧", "\u202egpj.exe", "\u200b", "a\u200fb", "\ufeffbom", "\u00a0", "\u3000", "\u2028", "\U000e0041",
    "\ufffe", "١٢", "٣.٤",
]  # fmt: skip
assert len(set(NAMES)) == len(NAMES) > 100


def hostile_set(root: Path, filenames: list[str], labels: list[int | None], classes: list[str], name: str) -> Path:
    """A CIFAR-10 directory with a small picture of its own for each row."""
    data = np.stack([picture(row, 2, 2).reshape(-1) for row in range(len(filenames))])
    data[:, 0], data[:, 1] = np.divmod(np.arange(len(filenames)), 256)
    rows = {"data": data, "labels": labels, "filenames": filenames, "image_sizes": [(2, 2)] * len(filenames)}
    return write_cifar(root, {name: rows}, classes)


def expected_ids(filenames: list[str]) -> list[str]:
    """Names without extension; repetitions are numbered."""
    ids = [os.path.splitext(name)[0] for name in filenames]
    for row, item_id in enumerate(ids):
        number = 2
        while ids[row] in ids[:row] or (number > 2 and ids[row] in ids[row + 1 :]):
            ids[row] = f"{item_id}_{number}"
            number += 1
    return ids


def everything(root: Path, *apart: str) -> dict[str, Any]:
    """All below a folder but some of the top, links and empty folders included."""
    paths = (path for path in root.rglob("*") if path.relative_to(root).parts[0] not in apart)
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def check_names(output: Path) -> None:
    """Every name can stand on Linux, macOS and Windows, beside the others of its folder."""
    for folder, folders, files in os.walk(output):
        keys = set()
        for name in (*folders, *files):
            assert len(name.encode()) <= 255
            assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]|^[ .]|[ .]$', name), name
            assert not re.fullmatch(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])( *\..*)?", name, re.IGNORECASE), name
            invisible = [char for char in name if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
            assert not invisible, (name, invisible)
            keys.add(unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()))
        assert len(keys) == len(folders) + len(files), folder


def told(output: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Subset, class ("" for unlabelled), id and pixels of every file, by what the manifest and its lists say."""
    renamed = manifest(output)["renamed"].get("classes", {})
    for entry in listed(output):
        folder, name = entry["path"].split("/")[-2:]
        class_name = "" if folder == "no_label" else renamed.get(folder, folder)
        item_id = entry["id"] if "id" in entry else decode_name(name.rpartition(".")[0])
        yield entry["subset"], class_name, item_id, decoded((output / entry["path"]).read_bytes()).tobytes()


def read_back(output: Path, target: str) -> Iterator[tuple[str, str | None, str, bytes]]:
    """Subset, class, id and pixels of every row by the package's own source."""
    source = get_source(target)
    catalog = source.describe(str(output), "")
    for file in catalog.files:
        with source.open_rows(file, catalog.labels) as reader:
            for row in reader.table(0, reader.rows).to_pylist():
                label = None if row["label"] is None else catalog.labels.names[row["label"]]
                yield row["subset"], label, row["id"], decoded(row["image"]).tobytes()


def pixels_of(row: int) -> bytes:
    pixels = picture(row, 2, 2).reshape(-1)
    pixels[0], pixels[1] = divmod(row, 256)
    return pixels.tobytes()


@pytest.mark.parametrize("target", LAYOUTS)
def test_hostile_ids(target: str, tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "c"
    names = [name + ".png" for name in (*NAMES, f"{tmp_path}/evil", "Case", "case", "../../x")]
    source = hostile_set(root / "in", names, [0] * len(names), ["cat"], "train")
    before = everything(tmp_path)
    output = root / "out"
    converted(source, output, target)
    after = everything(tmp_path)
    beside = str(output) + ".beam_cifar"
    outside = {p: c for p, c in after.items() if not (p + "/").startswith((f"{output}/", f"{beside}/"))}
    assert outside == before
    check_names(output)
    folder = "cat" if target == "imagenet" else "train/cat"
    assert len(contents(output)) == len(names)
    assert {path.rpartition("/")[0] for path in contents(output)} == {folder}
    ids = expected_ids(names)
    wanted = {("train", "cat", item_id, pixels_of(row)) for row, item_id in enumerate(ids)}
    assert len(wanted) == len(names)
    assert set(told(output)) == wanted
    cut = {decode_name(Path(entry["path"]).stem): entry["id"] for entry in listed(output) if "id" in entry}
    assert all(len(item_id.encode()) > 80 for item_id in cut.values())
    assert len(cut) < 10
    subset = "default" if target == "imagenet" else "train"
    found = {(item_id, pixels) for s, c, item_id, pixels in read_back(output, target) if (s, c) == (subset, "cat")}
    assert {(cut.get(item_id, item_id), pixels) for item_id, pixels in found} == {row[2:] for row in wanted}


def test_hostile_ids_through_folders_twice_give_the_same_folders(tmp_path: Path) -> None:
    names = [name + ".png" for name in NAMES]
    source = hostile_set(tmp_path / "in", names, [row % 2 for row in range(len(names))], ["cat", "%2E"], "train")
    quickly(source, tmp_path / "once")
    quickly(tmp_path / "once", tmp_path / "twice")
    once, twice = contents(tmp_path / "once"), contents(tmp_path / "twice")
    # A name that was cut is a plain name on reading, and is cut again with a digest of its own.
    cut = re.compile(r"%-[0-9a-f]{32}\.png$")
    assert {path: content for path, content in once.items() if not cut.search(path)} == {
        path: content for path, content in twice.items() if not cut.search(path)
    }
    assert sorted(once.values()) == sorted(twice.values())


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("keep", [False, True], ids=["used", "all"])
def test_hostile_class_names(target: str, keep: bool, tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "c"
    classes = [*NAMES, f"{tmp_path}/evil", "NO_LABEL", "No_label", "%6Eo_label"]
    rows = len(classes) // 2 if keep else len(classes)
    labels: list[int | None] = [*range(rows), None]
    source = hostile_set(root / "in", [f"{row}.png" for row in range(rows + 1)], labels, classes, "train")
    before = everything(tmp_path)
    output = root / "out"
    quickly(source, output, target, keep_empty_classes=keep)
    outside = {p: c for p, c in everything(tmp_path).items() if not p.startswith(str(output))}
    assert outside == before
    check_names(output)
    inner = output if target == "imagenet" else output / "train"
    assert len(os.listdir(inner)) == len(classes) + 1
    assert all(path.is_dir() for path in inner.iterdir())
    names = [*classes[:rows], None]
    wanted = {("train", name or "", str(row), pixels_of(row)) for row, name in enumerate(names)}
    assert set(told(output)) == wanted
    assert manifest(output)["classes"].keys() == set(classes)
    found = {(class_name, item_id): pixels for _, class_name, item_id, pixels in read_back(output, target)}
    uncut = [row for row, name in enumerate(names) if name is None or len(name.encode()) < 80]
    assert len(uncut) > rows - 10
    for row in uncut:
        assert found[names[row], str(row)] == pixels_of(row)
    assert len(found) == rows + 1


SUBSETS = [
    "train", "no_label", "CON", "nul", "com1", " lead", "trail ", "new\nline", "tab\t", "\x01", "\x7f", "back\\slash", "a:b", "a|b", "*", "?",
    '"', "%2F", "%", "%_", "100%", "кошка", "😀", "\u202ex", "\u200b", "-rf", "$HOME", "~", "ы" * 120, "x" * 250, "cat", "default", "e\u0301",
    ".val", "v1.0", "..", "a/b", "_x", "batches.meta", "labels.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def subsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch with a single image for every subset name."""
    source = tmp_path_factory.mktemp("subsets") / "in"
    batches = {
        encode_name(name, escape="._"): {
            "data": picture(row).reshape(1, -1),
            "labels": [0],
            "filenames": [f"{row}.png"],
        }
        for row, name in enumerate(SUBSETS)
    }
    return write_cifar(source, batches, ["cat"])


@pytest.mark.parametrize("target", LAYOUTS)
def test_hostile_subset_names(target: str, subsets: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    converted(subsets, output, target)
    check_names(output)
    wanted = {(name, str(row), picture(row).tobytes()) for row, name in enumerate(SUBSETS)}
    assert {(subset, item_id, pixels) for subset, _, item_id, pixels in told(output)} == wanted
    assert manifest(output)["subsets"] == dict.fromkeys(sorted(SUBSETS), 1)
    found = {(subset, item_id, pixels) for subset, _, item_id, pixels in read_back(output, target)}
    if target == "imagenet":
        assert found == {("default", *row[1:]) for row in wanted}
        return
    assert len(set(os.listdir(output)) - {"README.md"}) == len(SUBSETS)
    originals = {**manifest(output)["renamed"]["subsets"]}
    assert {(originals.get(subset, subset), *rest) for subset, *rest in found} == wanted


@pytest.mark.parametrize("pair", [("train", "Train"), ("caf\u00e9", "cafe\u0301"), ("straße", "STRASSE")], ids=ascii)
def test_subsets_that_some_systems_do_not_tell_apart_are_refused_as_folders(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    batches = {name: {"data": picture(0).reshape(1, -1), "labels": [0], "filenames": [f"{name}.png"]} for name in pair}
    source = write_cifar(tmp_path / "in", batches, ["cat"])
    with pytest.raises(UsageError, match="would both become .* on some file systems"):
        quickly(source, tmp_path / "out", "imagenet_with_subset_dirs")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    quickly(source, tmp_path / "out")
    check_names(tmp_path / "out")
    assert len(contents(tmp_path / "out").keys() - {"README.md"}) == 2


def test_hostile_ids_and_classes_are_only_data_in_parquet(tmp_path: Path) -> None:
    names = [name + ".png" for name in (*NAMES, f"{tmp_path}/evil", "Case")]
    source = hostile_set(tmp_path / "in", names, [*range(len(NAMES)), 0, None], NAMES, "train")
    before = everything(tmp_path)
    converted(source, tmp_path / "out", "parquet")
    assert everything(tmp_path, "out", "out.beam_cifar") == before
    assert sorted(tree(tmp_path / "out")) == ["data/train-00000-of-00001.parquet"]
    rows = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet").to_pylist()
    assert [row["img"]["path"] for row in rows] == [item_id + ".png" for item_id in expected_ids(names)]
    assert [decoded(row["img"]["bytes"]).tobytes() for row in rows] == [pixels_of(row) for row in range(len(names))]
    assert [row["label"] for row in rows] == [*range(len(NAMES)), 0, None]


def test_hostile_names_survive_cifar(tmp_path: Path) -> None:
    names = [name + ".png" for name in NAMES]
    source = hostile_set(tmp_path / "in", names, [0] * len(names), NAMES, "train")
    quickly(source, tmp_path / "out", "cifar", save_images=True, images_per_batch=len(names))
    written = unpickled(tmp_path / "out" / "train")["filenames"]
    assert written == [
        name if splitext(name)[0] == item else item + splitext(name)[1]
        for name, item in zip(names, expected_ids(names), strict=True)
    ]
    assert len(set(written)) == len(names)
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == NAMES


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"], ids=ascii)
def test_names_that_are_no_unicode_text_are_refused(name: str, tmp_path: Path) -> None:
    source = hostile_set(tmp_path / "in", [name, "b"], [0, 0], ["cat"], "train")
    with pytest.raises(InputError, match=r"in/train: byte \d+: text is not valid UTF-8"):
        quickly(source, tmp_path / "out")
    source = hostile_set(tmp_path / "classes", ["a", "b"], [0, 0], [name], "train")
    with pytest.raises(InputError, match=r"classes/batches\.meta: byte \d+: text is not valid UTF-8"):
        quickly(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "classes"}


# `list_folder` leaves a scandir iterator to the garbage collector when it refuses.
@pytest.mark.parametrize("place", ["cat/\udcff.png", "\udcff/a.png"], ids=["file", "folder"])
def test_files_whose_names_are_no_unicode_text_are_refused(place: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"cat/a.png": encoded(picture(0)), place: encoded(picture(1))})
    with pytest.raises(InputError, match="not valid Unicode"):
        quickly(source, tmp_path / "out", input_format="imagenet")
    assert not (tmp_path / "out").exists()


def test_a_shortened_name_is_never_that_of_another_row(tmp_path: Path) -> None:
    # An id that looks as if a folder had been put in front of it, beside the id that is left without.
    assert short_name("x/1", "1.png") == "1"
    rows = {"data": np.zeros((2, 12), np.uint8), "labels": [0, 0], "filenames": ["1.png", "x/1.png"]}
    source = write_cifar(tmp_path / "in", {"train": rows | {"image_sizes": [(2, 2)] * 2}}, ["x"])
    quickly(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["x/1.png", "x/x%2F1.png"]
