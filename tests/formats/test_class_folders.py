"""Folders of classes as people have them: names that look alike, numbers, and what systems leave behind."""

from __future__ import annotations

import re
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest

from beam_cifar import Dataset, validate
from beam_cifar.errors import InputError
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.jobs import serial
from beam_cifar.naming.components import alike_names, encode_folder
from beam_cifar.planning.survey import find_catalog
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import encoded, picture, quickly, write_tree

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def read_without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


def folder(root: Path, *paths: str) -> Path:
    """A picture of its own at each path."""
    return write_tree(root, {path: encoded(picture(at, 8, 8)) for at, path in enumerate(paths)})


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([NFC, "tea", NFD], rf"classes 'caf\\xe9' and 'cafe\\u0301' differ .* --remap '{NFD}:{NFC}'$"),
        ([NFD, NFC], rf"classes 'caf\\xe9' and 'cafe\\u0301' differ .* --remap '{NFD}:{NFC}'$"),
        (["Cat", "cat", "CAT"], r"classes 'Cat' and 'cat' differ .* --remap 'cat:Cat'$"),
        (["A", "B", "a", "b"], r"2 groups of classes, such as 'A' and 'a', differ .* --remap 'a:A'$"),
        (["a b", "A b"], r"--remap 'A b:a b'$"),
    ],
)
def test_class_names_that_differ_only_in_form_or_case_are_one_notice(names: list[str], shown: str) -> None:
    (notice,) = alike_names(names)
    assert re.search(shown, notice), notice


def test_classes_that_all_differ_are_no_notice() -> None:
    assert alike_names(["cat", "cats", "café", "cafe"]) == []


@pytest.mark.parametrize("steps", [False, True], ids=["counts", "rows"])
def test_a_class_in_two_forms_is_told_by_every_command_until_it_is_joined(steps: bool, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", f"train/{NFC}/1.png", f"test/{NFD}/2.png", "train/tea/3.png")
    told = quickly(source, tmp_path / "out", "npz", steps=(make_step("reindex", {}),) if steps else ()).notices
    assert [notice for notice in told if "Unicode form" in notice] == alike_names([NFC, NFD])
    assert alike_names([NFC, NFD])[0] in validate(str(source)).findings[0].examples
    joined = quickly(source, tmp_path / "joined", "npz", remaps=(f"{NFD}:{NFC}",))
    assert not any("Unicode form" in notice for notice in joined.notices)
    assert joined.labels[NFC] == 2


@pytest.mark.parametrize(
    ("names", "order", "told"),
    [
        (["0", "1", "2", "10"], ["0", "1", "2", "10"], True),
        (["10", "9", "100"], ["9", "10", "100"], True),
        (["00", "01", "10"], ["00", "01", "10"], False),
        (["1", "2", "10", "x"], ["1", "10", "2", "x"], False),
    ],
)
@pytest.mark.parametrize("top", ["", "train/"], ids=["imagenet", "imagenet_with_subset_dirs"])
def test_numbered_class_folders_are_in_the_order_of_numbers(
    top: str, names: list[str], order: list[str], told: bool, tmp_path: Path
) -> None:
    source = folder(tmp_path / "in", *(f"{top}{name}/i{name}.png" for name in names), f"{top}no_label/u.png")
    found = get_source("imagenet_with_subset_dirs" if top else "imagenet").describe(str(source), "")
    assert list(found.labels.names) == order
    assert any("class folders are numbers" in notice for notice in found.notices) == told


LITTER = (
    *(
        "__MACOSX/train/cat/._1.png",
        "@eaDir/x.png",
        "train/@eaDir/x.png",
        "train/cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
    ),
    *(".git/x.png", "train/cat/.DS_Store", "train/cat/._1.png", "train/cat/Thumbs.db", "train/thumbs.db/x.png"),
    *("desktop.ini", "train/cat/desktop.ini", "lost+found/cat/x.png", "train/lost+found/x.png"),
)


def test_what_systems_leave_behind_is_skipped_without_a_word(tmp_path: Path) -> None:
    images = "train/cat/1.png", "train/dog/_DSC0001.png", "test/cat/2.png"
    catalog = get_source("imagenet_with_subset_dirs").describe(str(folder(tmp_path / "in", *images, *LITTER)), "")
    assert detect_format(str(tmp_path / "in"), "") == "imagenet_with_subset_dirs"
    assert [(file.subset, catalog.labels.name(file.label)) for file in catalog.files] == [
        ("test", "cat"),
        ("train", "cat"),
        ("train", "dog"),
    ]
    assert catalog.notices == ()
    assert sum(1 for _ in Dataset.import_from(str(tmp_path / "in"), "image_dir")) == len(images)


def test_litter_in_an_archive_is_skipped(cifar10: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "cifar-10-batches-py"
    shutil.copytree(cifar10, source)
    write_tree(tmp_path / "in", {f"__MACOSX/{source.name}/batches.meta": b"x", f"{source.name}/._test_batch": b"x"})
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    found = get_source("cifar").describe(str(tmp_path / "set.tar"), str(tmp_path))
    assert [file.name for file in found.files] == [f"data_batch_{at}" for at in range(1, 6)] + ["test_batch"]


def test_folders_with_an_underscore_and_empty_ones_are_told(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "cat/1.png", "cat/_small/1.png", "_old/1.png", "_old/2.png")
    (source / "dog").mkdir()
    found = get_source("imagenet").describe(str(source), "")
    assert found.labels.names == ("cat", "dog")
    assert list(found.notices) == [
        f"ignored 1 path other than images in a class folder, such as {source}/cat/_small",
        f"ignored 1 folder with a name that starts with '_', such as {source}/_old; rename those of classes",
        f"1 folder without images, such as {source}/dog",
    ]
    told = get_source("image_dir").describe(str(source), "").notices
    assert len(told) == 1
    assert "2 folders with images and a name that starts with '_', such as '_old'" in told[0]


@pytest.mark.parametrize(
    ("paths", "found", "lost"),
    [
        (
            ["train/x.png", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png"],
            "imagenet_with_subset_dirs",
            "train/x.png",
        ),
        (["train/cat/1.png", "test/cat/3.png", "docs/a.png"], "imagenet_with_subset_dirs", "docs/a.png"),
        (["cat/1.png", "cat/2.png", "dog/3.png", "dog/@eaDir/4.png"], "imagenet", ""),
    ],
)
def test_the_depth_of_most_images_decides(paths: list[str], found: str, lost: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", *paths)
    assert detect_format(str(source), "") == found
    assert any(lost in notice for notice in get_source(found).describe(str(source), "").notices) == bool(lost)


@pytest.mark.parametrize("target", ["imagenet", "imagenet_with_subset_dirs"])
def test_classes_and_subsets_that_look_like_litter_are_written_so_that_they_are_read(
    target: str, tmp_path: Path
) -> None:
    names = ["_x", "__MACOSX", "@eaDir", "thumbs.db", "desktop.ini", "lost+found", ".x"]
    files = {
        f"{encode_folder(name)}/{encode_folder(name)}/{at}.png": encoded(picture(at)) for at, name in enumerate(names)
    }
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", target)
    catalog = get_source(target).describe(str(tmp_path / "out"), "")
    assert sorted(catalog.labels.names) == sorted(names)
    if target != "imagenet":
        assert sorted(file.subset for file in catalog.files) == sorted(names)


NESTED = ("dog/cat/cat_10.jpg", "dog/cat/cat_2.jpg", "dog/a.png", "dog/b/c/1.png", "cat/a%2Fb.png", "cat/1.png")


def items(root: Path, name: str) -> list[tuple[str, str, bytes]]:
    """Class, id and pixels of every item, in order."""
    names = get_source(name).describe(str(root), "").labels.names
    return [
        (names[item.label or 0], item.id, item.image.data.transpose(2, 0, 1).tobytes())
        for item in Dataset.import_from(str(root), name)
    ]


def test_images_below_class_folders_are_read_as_torchvision_walks_them(tmp_path: Path) -> None:
    litter = "dog/cat/.x.png", "dog/@eaDir/1.png", "dog/cat/Thumbs.db", "dog/.git/x.png"
    source = folder(tmp_path / "in", *NESTED, "dog/_old/x/1.png", "dog/_old/2.png", "dog/b/notes.txt", *litter)
    assert items(source, "imagenet") == [
        (*row, picture(NESTED.index(path), 8, 8).tobytes())
        for *row, path in (
            ("cat", "1", "cat/1.png"),
            ("cat", "a/b", "cat/a%2Fb.png"),
            ("dog", "a", "dog/a.png"),
            ("dog", "b/c/1", "dog/b/c/1.png"),
            ("dog", "cat/cat_2", "dog/cat/cat_2.jpg"),
            ("dog", "cat/cat_10", "dog/cat/cat_10.jpg"),
        )
    ]
    assert list(get_source("imagenet").describe(str(source), "").notices) == [
        f"ignored 2 paths other than images in a class folder, such as {source}/dog/_old",
        f"3 images in folders below those of classes, such as {source}/dog/b/c/1.png; ids are the paths below the class",
    ]


@pytest.mark.parametrize("target", ["imagenet", "imagenet_with_subset_dirs"])
def test_ids_of_images_below_class_folders_come_back(target: str, tmp_path: Path) -> None:
    paths = *NESTED, "cat/cat/cat_2.png", "cat/a/b.png"  # with ids that repeat, so that all have their class
    source = folder(tmp_path / "in", *(path if target == "imagenet" else f"train/{path}" for path in paths))
    quickly(source, tmp_path / "out", target, input_format=target)
    found = items(source, target)
    assert {item_id for _, item_id, _ in found} >= {"cat/a/b", "cat/a/b_2", "cat/cat/cat_2", "dog/cat/cat_2"}
    assert sorted(found) == sorted(items(tmp_path / "out", target))


def test_a_link_to_a_folder_above_a_class_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "dog/a.png", "dog/more/b.png")
    (source / "dog" / "more" / "loop").symlink_to(source / "dog")
    with pytest.raises(InputError, match="a link leads to a folder that was already listed; remove the link"):
        get_source("imagenet").describe(str(source), "")


@pytest.mark.parametrize(
    ("paths", "found", "told"),
    [
        (["dog/1.png", "dog/2.png", "cat/1.png", "cat/more/2.png"], "imagenet", "1 image in folders below"),
        (["train/dog/1.png", "train/dog/x/2.png", "test/dog/3.png"], "imagenet_with_subset_dirs", "1 image in folders"),
        (["dog/cat/1.png", "dog/cat/2.png", "cat/1.png"], "imagenet_with_subset_dirs", "ignored 1 path"),
    ],
)
def test_mixed_depths_are_decided_by_most_images_and_told(
    paths: list[str], found: str, told: str, tmp_path: Path
) -> None:
    source = folder(tmp_path / "in", *paths)
    assert detect_format(str(source), "") == found
    assert any(told in notice for notice in get_source(found).describe(str(source), "").notices)


@pytest.mark.parametrize(
    ("paths", "found", "labels"),
    [
        (  # Intel Image Classification
            ["seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/sea/2.jpg", "seg_pred/seg_pred/3.jpg"],
            "imagenet_with_subset_dirs",
            {"seg_train": ["sea"], "seg_test": ["sea"], "seg_pred": [None]},
        ),
        (  # Fruits-360, unpacked
            [
                "fruits/Training/Apple Red 1/0_100.jpg",
                "fruits/Test/Kiwi/3_100.jpg",
                "fruits/test-multiple_fruits/a.jpg",
            ],
            "imagenet_with_subset_dirs",
            {"Training": ["Apple Red 1"], "Test": ["Kiwi"]},
        ),
        (  # with images of no class beside the subsets
            [
                "dataset/training_set/cats/1.jpg",
                "dataset/test_set/dogs/2.jpg",
                "dataset/single_prediction/cat_or_dog.jpg",
            ],
            "imagenet_with_subset_dirs",
            {"training_set": ["cats"], "test_set": ["dogs"]},
        ),
        (  # Imagenette, unpacked, in folders of its name
            ["tiny/tiny/train/n01/1.JPEG", "tiny/tiny/val/n01/2.JPEG"],
            "imagenet_with_subset_dirs",
            {"train": ["n01"], "val": ["n01"]},
        ),
        (  # Stanford Dogs of Kaggle
            ["images/Images/n02-pug/1.jpg", "images/Images/n03-chow/2.jpg"],
            "imagenet_with_subset_dirs",
            {"images": ["n02-pug", "n03-chow"]},
        ),
        (  # a copy of all in itself
            ["cells/ill/a.png", "cells/well/b.png", "cells/cells/ill/a.png", "cells/cells/well/b.png"],
            "imagenet_with_subset_dirs",
            {"cells": ["ill", "well"]},
        ),
        (["cats/cats/1.png", "dogs/dogs/2.png"], "imagenet_with_subset_dirs", {"cats": ["cats"], "dogs": ["dogs"]}),
    ],
)
def test_folders_in_folders_of_their_name_are_no_classes(
    paths: list[str], found: str, labels: dict[str, list[str | None]], tmp_path: Path
) -> None:
    catalog = find_catalog(str(folder(tmp_path / "in", *paths)), None, str(tmp_path))
    read: dict[str, list[str | None]] = {}
    for file in catalog.files:
        read.setdefault(file.subset, []).append(catalog.labels.name(file.label))
    assert catalog.format == found
    assert read == labels


@pytest.mark.parametrize(
    ("paths", "texts", "words"),
    [
        (
            ["train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "test1/1.jpg"],
            (),
            ("'test1', 'train'", "'cat' and 'dog'"),
        ),
        (["train/train/1.jpg", "test/test/2.jpg"], (), ("'test', 'train'",)),
        (["jpg/image_1.jpg", "jpg/image_2.jpg"], ("imagelabels.mat",), ("'jpg'", "imagelabels.mat")),
        (["celeba/1.jpg"], ("list_attr.txt", "README.txt"), ("one folder, 'celeba'", "in list_attr.txt, but")),
        (["celeba/celeba/1.jpg"], ("list_attr.csv",), ("one folder, 'celeba'", "list_attr.csv")),
        (["images/1.jpg", "images/2.jpg", "annotations/masks/1.jpg"], (), ("'images'",)),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_ways_out_that_work(
    paths: list[str], texts: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    source = folder(tmp_path / "in", *paths)
    write_tree(source, dict.fromkeys(texts, b"?"))
    with pytest.raises(InputError) as refused:
        find_catalog(str(source), None, str(tmp_path))
    for word in words:
        assert word in str(refused.value)
    ways = re.findall(r"--input-format (\w+)", str(refused.value))
    assert ways[0] == "image_dir"
    for way in ways:
        assert find_catalog(str(source), way, str(tmp_path)).files


def test_one_folder_of_a_dataset_is_read_in_its_place(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "pets/train/cat/1.png", "pets/test/dog/2.png")
    catalog = find_catalog(str(source), None, str(tmp_path))
    assert (catalog.path, catalog.root) == (str(source), f"{source}/pets")
    assert catalog.notices[0] == f"read from 'pets', the only folder in {source}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pets.zip", "has 1 archive; pass the path of one, such as {}/pets.zip, or unpack"),
        ("1.ppm", "convert them to PNG"),
    ],
)
def test_a_folder_without_a_known_format_says_what_to_do(name: str, words: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {name: b"PK\x05\x06" + bytes(18)})
    with pytest.raises(InputError, match=re.escape(words.format(source))):
        find_catalog(str(source), None, str(tmp_path))
