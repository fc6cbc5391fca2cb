"""Folders of images, written and read: names, pixels and encodings, what is refused, and how they are published."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.JpegImagePlugin import JpegImageFile

from beam_cifar import ConvertOptions, LabelTable, storage
from beam_cifar.errors import InputError, OutputError, UsageError
from beam_cifar.formats.imagenet import ImagenetSink
from beam_cifar.naming.ids import natural_key
from beam_cifar.naming.image_files import short_name
from beam_cifar.steps.registry import make_step
from tests.helpers.commands import Run
from tests.helpers.faults import COMPLETE, names_beside
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    decoded,
    encoded,
    folders,
    images,
    killed,
    listed,
    manifest,
    picture,
    quickly,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, tree, unpickled

LAYOUTS = ["imagenet", "imagenet_with_subset_dirs"]


def expected_images(source: Path, target: str, extension: str = "") -> dict[str, bytes]:
    """Path and pixels of every row of a CIFAR-10 directory, as they should be written."""
    classes = unpickled(source / "batches.meta")["label_names"]
    found = {}
    for subset in batch_names(source):
        for name, label, _, pixels in cifar_rows(source, [subset]):
            folder = "no_label" if label is None else classes[label]
            path = f"{folder}/{os.path.splitext(name)[0] + extension if extension else name}"
            found[path if target == "imagenet" else f"{subset}/{path}"] = pixels
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three batches with unlabelled rows and all classes in each."""
    folder = tmp_path_factory.mktemp("small") / "small"
    names = [[f"{subset}{row}.png" for row in range(8)] for subset in "abc"]
    labels = [0, 1, 2, None, 0, 1, 1, 0]
    batches = [batch(names[number], labels, number) for number in range(3)]
    return write_cifar(folder, dict(zip(["data_batch_1", "data_batch_2", "test_batch"], batches, strict=True)))


@pytest.fixture(scope="module")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG files by Pillow, with metadata and at levels that this package would not choose."""
    from PIL.PngImagePlugin import PngInfo

    remark = PngInfo()
    remark.add_text("Comment", "kept")
    files = {
        f"{name}/{name}_{number}.png": encoded(picture(7 * number + at), compress_level=1, pnginfo=remark)
        for at, name in enumerate(("cat", "dog", "no_label"))
        for number in (1, 2, 10)
    }
    return write_tree(tmp_path_factory.mktemp("pngs") / "pngs", files)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG files by Pillow at its own quality, with three extensions."""
    files = {
        f"{name}/{name}_{number}{extension}": encoded(picture(7 * number + at), "JPEG", quality=75, comment=b"kept")
        for at, name in enumerate(("cat", "dog"))
        for number, extension in enumerate((".jpg", ".jpeg", ".JPG"))
    }
    return write_tree(tmp_path_factory.mktemp("jpegs") / "jpegs", files)


# --- written from CIFAR ---------------------------------------------------------------------------------------------


def test_the_second_example_of_the_format_page_as_typed(
    run: Run, cifar10: Path, cifar10_archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "X.tar.gz").symlink_to(cifar10_archive)
    dog = '/item[annotation/label="dog"]'
    done = run(
        *("convert", "--input-format", "cifar", "--input-path", "X.tar.gz"),
        *("--output-format", "imagenet", "--filter", dog),
    )
    assert done.returncode == 0, done.stderr
    output = tmp_path / "X-imagenet"
    dogs = {path: pixels for path, pixels in expected_images(cifar10, "imagenet").items() if path.startswith("dog/")}
    assert len(dogs) == 120
    assert images(output) == dogs
    assert {path.name for path in tmp_path.iterdir()} == {"X.tar.gz", "X-imagenet", "X-imagenet.beam_cifar"}
    assert done.stderr.count("note:") == 2  # subsets, and classes without folders


def test_red_stays_red(tmp_path: Path) -> None:
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    data = np.stack([np.repeat(np.array(colour, np.uint8), 1024) for colour in colours.values()])
    rows = {"data": data, "labels": [0, 1, 2], "filenames": list(colours)}
    source = write_cifar(tmp_path / "in", {"train": rows}, list(colours))
    quickly(source, tmp_path / "png")
    quickly(source, tmp_path / "jpeg", image_ext=".jpg")
    for name, colour in colours.items():
        png, jpeg = contents(tmp_path / "png"), contents(tmp_path / "jpeg")
        assert decoded(png[f"{name}/{name}.png"])[:, 5, 7].tolist() == list(colour)
        assert np.abs(decoded(jpeg[f"{name}/{name}.jpg"])[:, 5, 7] - np.array(colour)).max() <= 2


@pytest.mark.parametrize("target", LAYOUTS)
def test_every_image_of_every_batch_lies_where_its_subset_and_class_say(
    target: str, small: Path, tmp_path: Path
) -> None:
    summary = converted(small, tmp_path / "out", target)
    assert images(tmp_path / "out") == expected_images(small, target)
    assert summary.files == summary.written == summary.read == 24
    assert summary.labels == {"cat": 9, "dog": 9, "ship": 3, "(unlabelled)": 3}
    # Readers number cat, dog, no_label, ship.
    assert len(summary.notices) == (2 if target == "imagenet" else 1)
    assert summary.losses == (("subsets",) if target == "imagenet" else ())
    assert "no_label included" in summary.notices[-1]
    classes = {"cat", "dog", "ship", "no_label"}
    if target == "imagenet":
        assert folders(tmp_path / "out") == classes
    else:
        subsets = batch_names(small)
        assert folders(tmp_path / "out") == {*subsets, *(f"{subset}/{name}" for subset in subsets for name in classes)}


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("kept", ["dog", "cat"])
def test_a_class_without_images_has_no_folder_and_one_notice_says_so_where_ids_shift(
    target: str, kept: str, small: Path, tmp_path: Path
) -> None:
    summary = quickly(small, tmp_path / "out", target, labels=(kept,))
    assert {path.rpartition("/")[2] for path in folders(tmp_path / "out")} - set(batch_names(small)) == {kept}
    shifted = [notice for notice in summary.notices if "other label ids" in notice]
    others = [notice for notice in summary.notices if "output has no" not in notice]
    assert len(others) == len(shifted) == (kept == "dog")  # cat is the first class: its id stays
    if shifted:
        assert "2 of 3 classes have no images" in shifted[0]
        assert "--keep-empty-classes" in shifted[0]


@pytest.mark.parametrize("target", LAYOUTS)
def test_empty_classes_are_kept_on_request(target: str, small: Path, tmp_path: Path) -> None:
    summary = quickly(small, tmp_path / "out", target, labels=("dog",), keep_empty_classes=True)
    roots = [""] if target == "imagenet" else [f"{subset}/" for subset in batch_names(small)]
    wanted = {f"{root}{name}" for root in roots for name in ("cat", "dog", "ship")}
    assert folders(tmp_path / "out") >= wanted
    assert {path for path in folders(tmp_path / "out") if path + "/" not in roots} == wanted
    assert [notice for notice in summary.notices if "output has no" not in notice] == list(summary.notices[-1:])
    assert "some class folders are empty" in summary.notices[-1]


def test_classes_in_another_order_than_their_names_are_noticed(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a", "b"], [0, 1])}, ["dog", "cat"])
    summary = quickly(source, tmp_path / "out", keep_empty_classes=True)
    assert len(summary.notices) == 1
    assert "not in the order of their folder names" in summary.notices[0]


def test_a_folder_of_unlabelled_images_among_the_classes_is_noticed(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a", "b", "c"], [0, 1, None])}, ["dog", "ship"])
    # torchvision and datasets number dog, no_label, ship.
    summary = quickly(source, tmp_path / "out")
    assert any("other label ids" in notice for notice in summary.notices)


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".JPG"])
def test_a_jpeg_extension_gives_jpeg_files_of_high_quality(extension: str, small: Path, tmp_path: Path) -> None:
    summary = converted(small, tmp_path / "out", image_ext=extension)
    assert len([notice for notice in summary.notices if "lossy" in notice]) == 1, summary.notices
    wanted = expected_images(small, "imagenet", extension)
    found = contents(tmp_path / "out")
    assert found.keys() == wanted.keys()
    reference = opened_jpeg(encoded(picture(0), "JPEG", quality=95))
    for path, content in found.items():
        assert opened_jpeg(content).quantization == reference.quantization
        assert sampling(content) == [(1, 1), (1, 1), (1, 1)]
        original = np.frombuffer(wanted[path], np.uint8).reshape(3, 32, 32).astype(float)
        pixels = decoded(content).astype(float)
        for channel in range(3):
            assert psnr(pixels[channel], original[channel]) > 44
            assert psnr(pixels[channel], original[(channel + 1) % 3]) < 20


def opened_jpeg(content: bytes) -> JpegImageFile:
    return JpegImageFile(io.BytesIO(content))


def psnr(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    error = float(((found - wanted) ** 2).mean())
    return 10 * np.log10(255**2 / error) if error else np.inf


def sampling(jpeg: bytes) -> list[tuple[int, int]]:
    """Sampling factors of the components, from the frame header (ITU-T T.81, B.2.2)."""
    place = 2
    while not 0xC0 <= jpeg[place + 1] <= 0xC2:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    components = jpeg[place + 9]
    factors = [jpeg[place + 11 + 3 * number] for number in range(components)]
    return [(factor >> 4, factor & 15) for factor in factors]


def test_the_sampling_that_these_tests_find_is_the_files_own() -> None:
    assert sampling(encoded(picture(0), "JPEG", subsampling=2)) == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("extension", [".webp", ".gif", ".bmp", ".txt"])
def test_another_extension_is_refused(extension: str, small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--image-ext {extension}: .* \.png, \.jpg, \.jpeg"):
        converted(small, tmp_path / "out", image_ext=extension)
    assert list(tmp_path.iterdir()) == []


def test_an_error_reaches_the_shell_as_one_line_and_an_exit_code(run: Run, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"cat/a.png": b"no image"})
    done = run("convert", "-i", source, "-f", "imagenet_with_subset_dirs", "-o", "out")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "in/cat/a.png: starts with bytes 6e 6f" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


@pytest.mark.parametrize("target", LAYOUTS)
def test_one_id_in_two_subsets_is_refused_where_they_share_folders(target: str, tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "b.png"], [0, 0]), "test": batch(["c.png", "b.png"], [1, 0], 1)}
    source = write_cifar(tmp_path / "in", batches)
    if target == "imagenet":
        with pytest.raises(UsageError, match=r"test row 1 and .*train row 1 would become the same file: .* --subset"):
            quickly(source, tmp_path / "out", target)
        assert not (tmp_path / "out").exists()
    else:
        quickly(source, tmp_path / "out", target)
        assert images(tmp_path / "out") == expected_images(source, target)


def test_one_id_in_two_classes_is_two_files(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png"], [0]), "test": batch(["a.png"], [1], 1)}
    source = write_cifar(tmp_path / "in", batches)
    quickly(source, tmp_path / "out")
    assert images(tmp_path / "out") == expected_images(source, "imagenet")


def test_rows_without_image_are_refused_with_advice_that_works(tmp_path: Path) -> None:
    data = np.empty(3, dtype=object)
    data[:] = [picture(0).reshape(-1), None, picture(1).reshape(-1)]
    rows = {"labels": [0, 1, 2], "filenames": ["a", "b", "c"], "data": data, "image_sizes": [(32, 32)] * 3}
    source = write_cifar(tmp_path / "in", {"train": rows})
    with pytest.raises(InputError, match=r"train: row 1: no image.*--filter '/item\[image\]'"):
        quickly(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    quickly(source, tmp_path / "out", filter="/item[image]")
    assert sorted(images(tmp_path / "out")) == ["cat/a.png", "ship/c.png"]


def test_packing_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images-per-batch"):
        quickly(small, tmp_path / "out", images_per_batch=3)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two classes are named 'cat'"):
        ImagenetSink().check_labels(LabelTable(("cat", "dog", "cat")))


# --- back in --------------------------------------------------------------------------------------------------------


def rows_by_id(folder: Path) -> dict[tuple[str, str], tuple[str | None, bytes]]:
    """(subset, id) -> (class name, pixels) of a CIFAR-10 directory."""
    classes = unpickled(folder / "batches.meta")["label_names"]
    return {
        (subset, os.path.splitext(name)[0]): (None if label is None else classes[label], pixels)
        for subset in batch_names(folder)
        for name, label, _, pixels in cifar_rows(folder, [subset])
    }


@pytest.mark.parametrize("target", LAYOUTS)
def test_cifar_through_folders_and_back_has_the_same_rows(target: str, small: Path, tmp_path: Path) -> None:
    quickly(small, tmp_path / "folders", target)
    quickly(tmp_path / "folders", tmp_path / "back", "cifar", save_images=True, input_format=target)
    wanted = rows_by_id(small)
    if target == "imagenet":
        wanted = {("default", item_id): row for (_, item_id), row in wanted.items()}
    assert rows_by_id(tmp_path / "back") == wanted
    assert unpickled(tmp_path / "back" / "batches.meta")["label_names"] == ["cat", "dog", "ship"]


@pytest.mark.parametrize("target", LAYOUTS)
def test_the_layout_is_detected(target: str, small: Path, tmp_path: Path) -> None:
    quickly(small, tmp_path / "folders", target, labels=("cat",), keep_empty_classes=True)
    quickly(tmp_path / "folders", tmp_path / "back", "cifar")
    assert manifest(tmp_path / "back")["options"]["input_format"] == target
    # A class that has a folder keeps its id, images or not.
    assert unpickled(tmp_path / "back" / "batches.meta")["label_names"] == ["cat", "dog", "ship"]


@pytest.mark.parametrize("kind", ["pngs", "jpegs"])
@pytest.mark.parametrize("target", LAYOUTS)
def test_encoded_images_pass_through_byte_for_byte(
    kind: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    summary = quickly(source, tmp_path / "out", target)
    root = tmp_path / "out" / ("" if target == "imagenet" else "default")
    assert contents(root) == contents(source)
    assert not any("lossy" in notice for notice in summary.notices)


def test_pngs_reach_parquet_byte_for_byte_and_in_natural_order(pngs: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    quickly(pngs, tmp_path / "out", "parquet")
    (path,) = (tmp_path / "out" / "data").iterdir()
    rows = pq.read_table(path).to_pylist()
    order = [f"{name}_{number}.png" for name in ("cat", "dog", "no_label") for number in (1, 2, 10)]
    assert [row["img"]["path"] for row in rows] == order
    assert [row["label"] for row in rows] == [0] * 3 + [1] * 3 + [None] * 3
    wanted = contents(pngs)
    assert [row["img"]["bytes"] for row in rows] == [wanted[f"{name.rpartition('_')[0]}/{name}"] for name in order]


def test_jpegs_reach_parquet_with_the_pixels_that_they_decode_to(jpegs: Path, tmp_path: Path) -> None:
    quickly(jpegs, tmp_path / "out", "parquet")
    wanted = sorted((os.path.splitext(name)[0].rpartition("/")[2], pixels) for name, pixels in images(jpegs).items())
    found = [(os.path.splitext(path)[0], pixels) for path, _, pixels in parquet_rows(tmp_path / "out", "default")]
    assert sorted(found) == wanted


def test_a_png_extension_decodes_jpegs(jpegs: Path, tmp_path: Path) -> None:
    quickly(jpegs, tmp_path / "out", image_ext=".png")
    assert all(content.startswith(b"\x89PNG") for content in contents(tmp_path / "out").values())
    wanted = {os.path.splitext(name)[0] + ".png": pixels for name, pixels in images(jpegs).items()}
    assert images(tmp_path / "out") == wanted


def test_a_jpeg_extension_keeps_jpegs_and_encodes_pngs(jpegs: Path, tmp_path: Path) -> None:
    files = {"cat/j.jpeg": encoded(picture(1), "JPEG", quality=60), "cat/p.png": encoded(picture(2))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", image_ext=".jpg")
    found = contents(tmp_path / "out")
    assert sorted(found) == ["cat/j.jpg", "cat/p.jpg"]
    assert found["cat/j.jpg"] == files["cat/j.jpeg"]
    assert psnr(decoded(found["cat/p.jpg"]).astype(float), picture(2).astype(float)) > 38


def test_the_content_says_what_a_file_is_not_its_name(tmp_path: Path) -> None:
    files = {"cat/a.png": encoded(picture(1), "JPEG"), "cat/b.jpeg": encoded(picture(2))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out")
    assert contents(tmp_path / "out") == {"cat/a.jpg": files["cat/a.png"], "cat/b.png": files["cat/b.jpeg"]}


LOAD = """
import hashlib, json, sys
import datasets, numpy
found = {}
for name, split in datasets.load_dataset("imagefolder", data_dir=sys.argv[1]).items():
    rows = [
        [row["label"], hashlib.sha256(numpy.asarray(row["image"]).transpose(2, 0, 1).tobytes()).hexdigest()]
        for row in split
    ]
    found[name] = {"rows": sorted(rows), "names": split.features["label"].names}
print(json.dumps(found))
"""


@pytest.mark.parametrize("target", LAYOUTS)
def test_load_dataset_finds_labels_and_pixels(target: str, tmp_path: Path) -> None:
    # It takes folders, and files, called train and test for splits.
    batches = {name: batch([f"{at}_{row}" for row in range(9)], [row % 3 for row in range(9)], at) for at, name in enumerate(("test", "train"))}  # fmt: skip
    source = write_cifar(tmp_path / "in", batches)
    quickly(source, tmp_path / "out", target)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    wanted: dict[str, list[list[Any]]] = {}
    for subset in ("test", "train"):
        rows = wanted.setdefault("train" if target == "imagenet" else subset, [])
        rows += [[label, hashlib.sha256(pixels).hexdigest()] for _, label, _, pixels in cifar_rows(source, [subset])]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        split: {"rows": sorted(rows), "names": ["cat", "dog", "ship"]} for split, rows in wanted.items()
    }


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", LAYOUTS)
def test_names_that_repeat_between_classes_stay(target: str, tmp_path: Path) -> None:
    files = {f"{name}/{n}.png": encoded(picture(n)) for name in ("cat", "dog", "no_label", "a%2Fb") for n in (1, 2, 10)}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", target)
    assert contents(tmp_path / "out" / ("" if target == "imagenet" else "default")) == files


def test_names_that_repeat_between_classes_are_told_apart_in_cifar(tmp_path: Path) -> None:
    files = {f"{name}/1.png": encoded(picture(n)) for n, name in enumerate(("cat", "dog"))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "cifar", save_images=True)
    found = rows_by_id(tmp_path / "out")
    assert {item_id: row[0] for (_, item_id), row in found.items()} == {"cat/1": "cat", "dog/1": "dog"}


def test_names_that_differ_by_extension_alone_are_told_apart_and_do_not_grow(tmp_path: Path) -> None:
    files = {
        "cat/a.png": encoded(picture(1)),
        "cat/a.jpg": encoded(picture(2), "JPEG"),
        "dog/a.png": encoded(picture(3)),
    }
    summary = quickly(write_tree(tmp_path / "in", files), tmp_path / "out")
    wanted = {"cat/a.jpg": files["cat/a.jpg"], "cat/a_2.png": files["cat/a.png"], "dog/a.png": files["dog/a.png"]}
    assert contents(tmp_path / "out") == wanted
    assert len([notice for notice in summary.notices if "earlier row" in notice]) == 1
    quickly(tmp_path / "out", tmp_path / "again", "imagenet_with_subset_dirs")
    assert contents(tmp_path / "again" / "default") == wanted


@pytest.mark.parametrize(
    ("item_id", "filename", "short"),
    [
        ("cat/1", "1.png", "1"),
        ("cat/1_2", "1.jpg", "1_2"),
        ("a/b/1", "1.png", "1"),
        ("cat/x/y", "x/y.png", "x/y"),
        ("cat/1", "2.png", "cat/1"),
        ("cat/1", "cat/1.png", "cat/1"),
        ("cat/11", "1.png", "cat/11"),
        ("cat/1_x", "1.png", "cat/1_x"),
        ("/1", "1.png", "/1"),
        ("cat/", ".png", ""),
        ("1", "1.png", "1"),
    ],
)
def test_the_folder_that_an_id_repeats_is_left_out_of_the_name(item_id: str, filename: str, short: str) -> None:
    assert short_name(item_id, filename) == short


def test_names_that_differ_by_zeros_alone_have_one_order() -> None:
    names = ["a1", "a01", "a001", "a2", "a10", "a", "b1", "10", "9", ""]
    orders = {tuple(sorted(random.Random(seed).sample(names, len(names)), key=natural_key)) for seed in range(20)}
    assert orders == {("", "9", "10", "a", "a001", "a01", "a1", "a2", "a10", "b1")}


def test_folders_whose_names_mean_one_class_stay_apart(tmp_path: Path) -> None:
    files = {"cat/a.png": encoded(picture(1)), "%63at/b.png": encoded(picture(2))}
    quickly(write_tree(tmp_path / "in", files), tmp_path / "out", "cifar", save_images=True)
    assert unpickled(tmp_path / "out" / "batches.meta")["label_names"] == ["%63at", "cat"]
    assert {item_id: row[0] for (_, item_id), row in rows_by_id(tmp_path / "out").items()} == {"a": "cat", "b": "%63at"}


# --- what lies among the images -------------------------------------------------------------------------------------


def test_stray_files_are_noted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    wanted = {"cat/a.png": encoded(picture(1)), "dog/b.png": encoded(picture(2))}
    hidden = dict.fromkeys((".DS_Store", "cat/.hidden.png", ".git/config", ".thumbs/cat/a.png"), b"?")
    source = write_tree(tmp_path / "in", {**wanted, **hidden})
    assert quickly(source, tmp_path / "out").notices == ()
    assert contents(tmp_path / "out") == wanted
    write_tree(source, {"dog/notes.txt": b"x", "cat/Thumbs.db": b"x", "lost.png": encoded(picture(3))})
    (notice,) = quickly(source, tmp_path / "again").notices
    assert "ignored 2 paths other than images in a class folder" in notice
    assert contents(tmp_path / "again") == wanted


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no image": ({"cat/b.png": b"no image"}, r"in/cat/b\.png: starts with bytes 6e 6f"),
    "an empty file": ({"cat/b.png": b""}, r"in/cat/b\.png: starts with bytes \(none\)"),
    "a class of empty files": ({"dog/b.png": b""}, r"in/dog/b\.png: starts with bytes \(none\)"),
    "a PNG without its end": ({"cat/b.png": encoded(picture(1))[:-20]}, r"in/cat/b\.png: truncated: ends at byte"),
    "a PNG cut in its header": (
        {"cat/b.png": encoded(picture(1))[:20]},
        r"in/cat/b\.png: truncated: ends within its header",
    ),
    "a JPEG without its end": (
        {"cat/b.jpg": encoded(picture(1), "JPEG")[:-40]},
        r"in/cat/b\.jpg: truncated: ends at byte",
    ),
    "a JPEG cut in its header": (
        {"cat/b.jpg": encoded(picture(1), "JPEG")[:40]},
        r"in/cat/b\.jpg: truncated: ends within",
    ),
    "a flipped bit": (
        {"cat/b.png": bytes(byte ^ (at == 90) for at, byte in enumerate(encoded(picture(1))))},
        r"in/cat/b\.png: damaged: wrong checksum of the chunk at byte 33",
    ),
    "a PPM": ({"cat/b.png": encoded(picture(1), "PPM")}, r"in/cat/b\.png: starts with bytes 50 36 0a"),
    "no image in a folder below": ({"cat/more/b.png": b"no image"}, r"in/cat/more/b\.png: starts with bytes 6e 6f"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_image_is_refused_by_file_and_reason(name: str, tmp_path: Path) -> None:
    files, message = REFUSED[name]
    source = write_tree(tmp_path / "in", {"cat/a.png": encoded(picture(0)), **files})
    with pytest.raises(InputError, match=message):
        quickly(source, tmp_path / "out", input_format="imagenet")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


# `list_folder` leaves a scandir iterator to the garbage collector when it refuses.
@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"cat/a.png": encoded(picture(0))})
    if kind == "pipe":
        os.mkfifo(source / "cat" / "b.png")
    else:
        (source / "cat" / "b.png").symlink_to("nowhere")
    for options in ({}, {"input_format": "imagenet"}):
        with pytest.raises(InputError, match=r"in/cat/b\.png: not a file"):
            quickly(source, tmp_path / "out", **options)


def test_a_hidden_broken_link_is_left_out(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"cat/a.png": encoded(picture(0))})
    (source / "cat" / ".#a.png").symlink_to("somebody@host.1234")  # Emacs makes such links while a file is edited
    quickly(source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["cat/a.png"]


def test_an_image_that_cannot_be_decoded_is_named_with_its_class(tmp_path: Path) -> None:
    # Sound chunks that hold too few rows of pixels.
    pixels = zlib.compress(b"\0" * 97 * 16)
    damaged = encoded(picture(0, 1, 1))[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    )
    source = write_tree(tmp_path / "in", {"cat/1.png": encoded(picture(0)), "dog/1.png": damaged})
    with pytest.raises(InputError, match=r"dog/1(\.png)?\b.*damaged"):
        quickly(source, tmp_path / "out", "cifar", save_images=True)


@pytest.mark.parametrize(
    "files", [{}, {"cat/notes.txt": b"x"}, {"a.png": encoded(picture(0))}], ids=["nothing", "no images", "no folders"]
)
@pytest.mark.parametrize("name", LAYOUTS)
def test_trees_without_images_are_refused(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match="no image files found in .*<class>/"):
        quickly(source, tmp_path / "out", input_format=name)
    if "a.png" not in files:
        with pytest.raises(InputError, match=r"empty|no known format"):
            quickly(source, tmp_path / "out")


def test_links_to_images_and_folders_are_followed(tmp_path: Path) -> None:
    files = write_tree(tmp_path / "store", {"a.png": encoded(picture(0)), "cats/b.png": encoded(picture(1))})
    (tmp_path / "in" / "dog").mkdir(parents=True)
    (tmp_path / "in" / "dog" / "a.png").symlink_to(files / "a.png")
    (tmp_path / "in" / "cat").symlink_to(files / "cats")
    quickly(tmp_path / "in", tmp_path / "out")
    wanted = {"dog/a.png": encoded(picture(0)), "cat/b.png": encoded(picture(1))}
    assert contents(tmp_path / "out") == wanted
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_gray_images_stay_as_they_are_and_become_rgb_in_cifar(tmp_path: Path) -> None:
    files = {"cat/g.png": encoded(picture(1, channels=1)), "cat/j.jpg": encoded(picture(2, channels=1), "JPEG")}
    source = write_tree(tmp_path / "in", {**files, "dog/c.png": encoded(picture(3))})
    quickly(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)
    quickly(source, tmp_path / "cifar", "cifar", save_images=True)
    found = {name: pixels for name, _, _, pixels in cifar_rows(tmp_path / "cifar")}
    wanted = {"g": decoded(files["cat/g.png"]), "j": decoded(files["cat/j.jpg"]), "c": picture(3)}
    assert {os.path.splitext(name)[0]: pixels for name, pixels in found.items()} == {
        name: np.broadcast_to(pixels, (3, 32, 32)).tobytes() for name, pixels in wanted.items()
    }


def test_images_of_mixed_sizes_keep_theirs(tmp_path: Path) -> None:
    sizes = {"a": (5, 9), "b": (32, 32), "c": (1, 1), "d": (40, 3), "e": (5, 9)}
    files = {f"cat/{name}.png": encoded(picture(n, *size)) for n, (name, size) in enumerate(sizes.items())}
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "cifar", "cifar", save_images=True)
    found = unpickled(tmp_path / "cifar" / "default")
    assert [tuple(size) for size in found["image_sizes"]] == list(sizes.values())
    quickly(tmp_path / "cifar", tmp_path / "back")
    assert images(tmp_path / "back") == images(source)
    assert {name: decoded(content).shape for name, content in contents(tmp_path / "back").items()} == {
        f"cat/{name}.png": (3, *size) for name, size in sizes.items()
    }


# --- the job --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", LAYOUTS)
def test_the_manifest_accounts_for_every_file(target: str, small: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    quickly(small, output, target, labels=("cat", "dog"), remaps=("dog:wolf",))
    found = manifest(output)
    files = {entry["path"]: (entry["bytes"], entry["sha256"]) for entry in listed(output)}
    files |= {entry["path"]: (entry["bytes"], entry["sha256"]) for entry in found["files"]}
    assert files == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in contents(output).items()
    }
    by_subset = Counter(entry["subset"] for entry in listed(output))
    assert by_subset == found["subsets"] == dict.fromkeys(batch_names(small), 6)
    for shard in found["shards"]:
        content = (tmp_path / "out.beam_cifar" / shard["listing"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        assert shard["files"] == shard["rows"] == len(content.splitlines())
        assert shard["bytes"] == sum(json.loads(line)["bytes"] for line in content.splitlines())
    listings = {shard["listing"] for shard in found["shards"]}
    assert set(names_beside(output)) == {*COMPLETE, *listings}
    assert found["rows"] == {"read": 24, "written": 18, "filtered": 6, "unlabelled": 0, "rejected": 0}
    assert found["classes"] == {"cat": 9, "wolf": 9, "ship": 0}
    assert found["counts"]["filtered"] == {name: {"-1": 1, "2": 1} for name in batch_names(small)}


RUNS: dict[str, tuple[int, list[str]]] = {
    "again": (1, []),
    "2 threads": (2, ["--direct_running_mode=multi_threading"]),
    "4 workers in memory": (4, ["--direct_running_mode=in_memory"]),
    "2 processes": (2, ["--direct_running_mode=multi_processing"]),
    "every bundle twice": (1, ["--direct_runner_bundle_repeat=1"]),
}


@pytest.fixture(scope="module")
def once(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("once")
    converted(small, folder / "out", filter='/item[annotation/label!="ship"]')
    return tree(folder)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "process" in name else name for name in RUNS]
)
def test_files_and_manifest_are_the_same_whoever_runs_the_job(
    name: str, small: Path, once: dict[str, str], tmp_path: Path
) -> None:
    workers, flags = RUNS[name]
    converted(small, tmp_path / "out", "imagenet", *flags, workers=workers, filter='/item[annotation/label!="ship"]')
    assert tree(tmp_path) == once


def test_a_folder_of_several_parts_is_whole_and_in_order(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_part_bytes(monkeypatch, "imagenet", 3 * 3072)
    quickly(small, tmp_path / "out", "imagenet_with_subset_dirs")
    assert images(tmp_path / "out") == expected_images(small, "imagenet_with_subset_dirs")
    names = [Path(entry["path"]).stem for entry in listed(tmp_path / "out")]
    assert names == [f"{subset}{row}" for subset in "abc" for row in range(8)]


def test_overwriting_leaves_nothing_of_the_old_output(small: Path, tmp_path: Path) -> None:
    beside = tmp_path / "out.beam_cifar"
    converted(small, tmp_path / "out", "imagenet_with_subset_dirs")
    with pytest.raises(OutputError, match="is not empty"):
        converted(small, tmp_path / "out")
    converted(small, tmp_path / "out", labels=("dog",), overwrite=True)
    wanted = expected_images(small, "imagenet")
    assert images(tmp_path / "out") == {path: wanted[path] for path in wanted if path.startswith("dog/")}
    assert len(list(beside.iterdir())) == 2 + 3
    assert {entry["path"] for entry in listed(tmp_path / "out")} == set(contents(tmp_path / "out"))
    converted(small, tmp_path / "out", "cifar", overwrite=True)
    assert names_beside(tmp_path / "out") == COMPLETE


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_a_publish_killed_before_any_step_is_completed_by_the_next_run(
    overwrite: bool, small: Path, tmp_path: Path
) -> None:
    old, output, beside = tmp_path / "old", tmp_path / "out", tmp_path / "out.beam_cifar"
    quickly(small, old, "imagenet_with_subset_dirs")
    quickly(small, tmp_path / "right", labels=("dog",))
    right, replaced = tree(tmp_path / "right"), tree(old)
    final = tree(tmp_path / "right.beam_cifar")
    again: dict[str, Any] = {"labels": ("dog",), "overwrite": overwrite}
    options = ConvertOptions(str(small), str(output), "imagenet", workers=1, **again)
    for step in range(1, 50):
        for path in (output, beside):
            storage.remove_tree(str(path))
        if overwrite:
            for path, source in ((output, old), (beside, tmp_path / "old.beam_cifar")):
                write_tree(path, contents(source))
        code = killed(step, options)
        if code == 0:
            break
        assert code == 9
        if output.exists() and not (beside / "replaced").exists():
            assert tree(output) in ([right, replaced] if overwrite else [right])
        try:
            quickly(small, output, **again)
        except OutputError:  # the job was complete, and cleaned up
            assert not overwrite
            assert (beside / "manifest.json").exists()
            assert not list(beside.glob("work-*"))
        assert tree(output) == right
        # Where the killed job was complete, nobody had to look at what it left in its own folder.
        left = {name for name in tree(beside) if name.startswith("work-") or name == "lock"}
        assert {name: digest for name, digest in tree(beside).items() if name not in left} == final
    assert step > 3


@pytest.mark.parametrize("target", ["imagenet_with_subset_dirs", "datumaro"])
@pytest.mark.parametrize("steps", [(), ("shuffle",)], ids=["quick", "by rows"])
def test_ids_that_meet_when_batches_become_a_split_are_refused(
    target: str, steps: tuple[str, ...], tmp_path: Path
) -> None:
    batches = {name: batch(["a.png"], [0], seed) for seed, name in enumerate(("data_batch_1", "data_batch_2"))}
    source = write_cifar(tmp_path / "in", batches)
    made = tuple(make_step(step, {}) for step in steps)
    quickly(source, tmp_path / "out", target, steps=made)
    with pytest.raises(UsageError, match="would become the same file"):
        quickly(source, tmp_path / "folded", target, subset_names="split", steps=made)
