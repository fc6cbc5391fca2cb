"""`Dataset`: what it shows of datasets and items, what is done to them, what `export` and `save` leave on disk."""

from __future__ import annotations

import ast
import errno
import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from beam_cifar import BeamCifarError, Dataset, DatasetItem, Image, Label, LabelTable, compare, make_sample, storage
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from beam_cifar.jobs import serial
from beam_cifar.pipeline import convert as pipeline
from beam_cifar.steps.flags import First
from beam_cifar.storage import is_ours
from tests.helpers import ROOT
from tests.helpers.image_trees import (
    batch,
    contents,
    converted,
    encoded,
    images,
    manifest,
    picture,
    write_cifar,
    write_tree,
)
from tests.helpers.pickle_corpus import global_call
from tests.helpers.reading import batch_names, cifar_rows, parquet_rows, unpickled

EXAMPLES = ROOT / "examples"
RUNNERS = {"plain": serial.run, "real": pipeline.start}

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Seen = dict[tuple[str, str], tuple[int | None, tuple[tuple[int, ...], bytes] | None]]


pytestmark = pytest.mark.usefixtures("without_runner")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pixels(seed: int, height: int = 32, width: int = 32, channels: int = 3) -> Pixels:
    """A smooth image, uint8 [H, W, C]."""
    return np.ascontiguousarray(picture(seed, height, width, channels).transpose(1, 2, 0))


def item(item_id: Any, label: int | None = 0, subset: str = "train", height: int = 32, width: int = 32) -> DatasetItem:
    """An item with a picture of its own."""
    image = pixels(zlib.crc32(f"{subset} {item_id}".encode()), height, width)
    return DatasetItem(item_id, subset, image, [] if label is None else [Label(label)])


def shown(items: Iterable[DatasetItem]) -> Seen:
    """Everything that items show: label, shape and pixels by subset and id; ids must not repeat."""
    found: Seen = {}
    for each in items:
        image = each.image.data if isinstance(each.image, Image) else each.image
        key = each.subset, str(each.id)
        assert key not in found
        found[key] = each.label, None if image is None else (image.shape, image.tobytes())
    return found


def order(items: Iterable[DatasetItem]) -> list[str]:
    return [each.id for each in items]


def files_state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time and bytes of every file."""
    return {
        name: (os.stat(folder / name).st_ino, os.stat(folder / name).st_mtime_ns, content)
        for name, content in contents(folder).items()
    }


def is_whole(output: Path) -> bool:
    """Whether a directory holds exactly what its manifest says."""
    path = output.with_name(output.name + ".beam_cifar") / "manifest.json"
    return is_ours(str(output), path.read_bytes())


def reread(folder: Path) -> Seen:
    return shown(Dataset.import_from(folder))


# The page


PAGE_EXAMPLE_1 = """
dataset = Dataset.from_iterable([
    DatasetItem(id=0, image=np.ones((32, 32, 3)),
        annotations=[Label(3)]
    ),
    DatasetItem(id=1, image=np.ones((32, 32, 3)),
        annotations=[Label(8)]
    )
], categories=['airplane', 'automobile', 'bird', 'cat', 'deer',
               'dog', 'frog', 'horse', 'ship', 'truck'])

dataset.export('./dataset', format='cifar')
"""


def test_the_pages_import_and_export_write_the_image_of_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beam: None
) -> None:
    source = write_cifar(tmp_path / "cifar", {"train": batch(["a.png", "b.png"], [2, 0]), "test": batch(["c"], [1], 5)})
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.import_from(str(source), "cifar")
    dataset.export("save_dir", "imagenet", save_images=True)
    classes = ("cat", "dog", "ship")
    expected = {
        f"{classes[label]}/{os.path.splitext(name)[0]}.png": found for name, label, _, found in cifar_rows(source)
    }
    assert images(tmp_path / "save_dir") == expected
    assert len(expected) == 3


def test_example_1_is_the_pages() -> None:
    code = ast.parse((EXAMPLES / "custom_dataset.py").read_text("utf-8")).body
    imports = [line for line in code if isinstance(line, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(line) for line in imports] == [
        "import numpy as np",
        "from beam_cifar import Dataset, DatasetItem, Label",
    ]
    assert ast.dump(ast.Module(code[1 + len(imports) :], [])) == ast.dump(ast.parse(PAGE_EXAMPLE_1))


def test_example_1_writes_labels_and_names_of_its_items(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "custom_dataset.py")], cwd=tmp_path, check=True, timeout=120)
    assert sorted(os.listdir(tmp_path / "dataset")) == ["batches.meta", "default"]
    written = unpickled(tmp_path / "dataset" / "default")
    assert (written["labels"], written["filenames"]) == ([3, 8], ["0.png", "1.png"])
    assert len(written["data"]) == 0
    assert unpickled(tmp_path / "dataset" / "batches.meta")["label_names"][3:6] == ["cat", "deer", "dog"]


def test_example_2_writes_the_dogs_alone(tmp_path: Path) -> None:
    rows = {"train": batch(["a.png", "b.png", "c.png"], [1, 0, 1]), "test": batch(["d.png"], [1], 5)}
    write_cifar(tmp_path / "pets", rows)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(EXAMPLES / "dogs.sh"), "pets"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120, env={**os.environ, "PATH": path})
    dogs = {f"dog/{row[0]}": row[3] for row in cifar_rows(tmp_path / "pets") if row[1] == 1}
    assert images(tmp_path / "pets-imagenet") == dogs
    assert len(dogs) == 3


def test_save_media_is_another_name_of_save_images(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1), item(2)], ["cat"])
    dataset.export(tmp_path / "images", "cifar", save_images=True)
    dataset.export(tmp_path / "media", "cifar", save_media=True)
    dataset.export(tmp_path / "neither", "cifar")
    assert contents(tmp_path / "images") == contents(tmp_path / "media") != contents(tmp_path / "neither")


# Items to CIFAR and back


def test_items_with_and_without_label_come_back(tmp_path: Path) -> None:
    items = [item("a", 1), item("b", None), item("c", 0, "test"), item("a", None, "test")]
    Dataset.from_iterable(items, ["cat", "dog"]).export(tmp_path / "out", "cifar", save_images=True)
    rows = {name: cifar_rows(tmp_path / "out", [name]) for name in ("train", "test")}
    assert [row[:2] for row in rows["train"]] == [("a.png", 1), ("b.png", None)]
    assert [row[:2] for row in rows["test"]] == [("c.png", 0), ("a.png", None)]
    planar = [each.image.transpose(2, 0, 1).tobytes() for each in items]
    assert [row[3] for row in rows["train"] + rows["test"]] == planar
    assert reread(tmp_path / "out") == shown(items)


def test_labels_without_images_come_back(tmp_path: Path) -> None:
    items = [
        DatasetItem(1, "train", None, [Label(1)]),
        DatasetItem(2, "train"),
        DatasetItem(1, "test", None, [Label(0)]),
    ]
    Dataset.from_iterable(items, ["cat", "dog"]).export(tmp_path / "out", "cifar", save_images=True)
    assert unpickled(tmp_path / "out" / "train")["labels"] == [1, None]
    assert unpickled(tmp_path / "out" / "test")["labels"] == [0]
    assert all(not len(unpickled(tmp_path / "out" / name)["data"]) for name in ("train", "test"))
    assert reread(tmp_path / "out") == shown(items) == {("train", "1"): (1, None), ("train", "2"): (None, None), ("test", "1"): (0, None)}  # fmt: skip


def test_images_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    Dataset.from_iterable([item(1), item(2, 1, "test")], ["cat", "dog"]).export(tmp_path / "out", "cifar")
    assert reread(tmp_path / "out") == {("train", "1"): (0, None), ("test", "2"): (1, None)}


def test_images_of_different_sizes_come_back(tmp_path: Path) -> None:
    items = [item(1, height=5, width=7), item(2, height=32, width=32), item(3, None, height=64, width=1)]
    Dataset.from_iterable(items, ["cat"]).export(tmp_path / "out", "cifar", save_images=True)
    written = unpickled(tmp_path / "out" / "train")
    assert [tuple(size) for size in written["image_sizes"]] == [(5, 7), (32, 32), (64, 1)]
    assert [row.tobytes() for row in written["data"]] == [each.image.transpose(2, 0, 1).tobytes() for each in items]
    assert reread(tmp_path / "out") == shown(items)


def test_cyrillic_and_spaces_come_back_from_ids_classes_and_subsets(tmp_path: Path) -> None:
    items = [item("кот 1", 0, "обучение один"), item("пёс с пробелом", 1, "b c")]  # noqa: RUF001
    dataset = Dataset.from_iterable(items, ["кошка серая", "a dog"])
    dataset.export(tmp_path / "out put", "cifar", save_images=True)
    assert set(batch_names(tmp_path / "out put")) == {"обучение один", "b c"}
    assert unpickled(tmp_path / "out put" / "batches.meta")["label_names"] == ["кошка серая", "a dog"]
    assert reread(tmp_path / "out put") == shown(items)
    dataset.export(tmp_path / "tree", "imagenet_with_subset_dirs")
    assert reread(tmp_path / "tree") == {  # classes are numbered in the order of their folders
        key: (1 - (label or 0), image) for key, (label, image) in shown(items).items()
    }


def test_ids_with_folders_keep_any_extension_and_need_no_categories(tmp_path: Path) -> None:
    items = [
        DatasetItem("q/1", "train", Image(pixels(1), path="q/1.JPEG")),
        DatasetItem("a/b/c/2", "train", Image(pixels(2), path="a/b/c/2.bmp")),
    ]
    dataset = Dataset.from_iterable(items)
    dataset.export(tmp_path / "out", "cifar", save_images=True)
    assert unpickled(tmp_path / "out" / "train")["filenames"] == ["q/1.JPEG", "a/b/c/2.bmp"]
    again = Dataset.import_from(tmp_path / "out")
    assert again.categories == LabelTable(())
    assert [(each.id, each.image.path) for each in again] == [("q/1", "q/1.JPEG"), ("a/b/c/2", "a/b/c/2.bmp")]
    assert shown(again) == shown(items)


def test_items_without_image_and_without_label_lie_beside_others(tmp_path: Path) -> None:
    items = [item("both", 1), DatasetItem("label", "train", None, [Label(0)]), item("image", None), DatasetItem("none", "train")]  # fmt: skip
    Dataset.from_iterable(items, ["cat", "dog"]).export(tmp_path / "out", "cifar", save_images=True)
    written = unpickled(tmp_path / "out" / "train")
    assert written["labels"] == [1, 0, None, None]
    assert [row is None for row in written["data"]] == [False, True, False, True]
    assert reread(tmp_path / "out") == shown(items)


PARENTS = [("cat", "pet"), ("oak", "tree"), ("dog", "pet"), ("stone", None)]


def test_cifar_100_comes_back_with_superclasses_and_an_unlabelled_item(tmp_path: Path) -> None:
    items = [item(1, 2), item(2, 1), item(3, None), item(4, 0, "test"), item(5, 3, "test")]
    Dataset.from_iterable(items, PARENTS).export(tmp_path / "out", "cifar", save_images=True)
    assert unpickled(tmp_path / "out" / "meta")["coarse_label_names"] == ["pet", "tree"]
    assert [row[1:3] for row in cifar_rows(tmp_path / "out", ["train"])] == [(2, 0), (1, 1), (None, None)]
    assert [row[1:3] for row in cifar_rows(tmp_path / "out", ["test"])] == [(0, 0), (3, None)]
    assert reread(tmp_path / "out") == shown(items)
    table = LabelTable(("cat", "oak", "dog", "stone"), ("pet", "tree"), (0, 1, 0, None))
    assert Dataset.import_from(tmp_path / "out").categories == table


def test_cifar_100_comes_back_without_images(tmp_path: Path) -> None:
    items = [DatasetItem(n, "train", None, [] if n == 3 else [Label(n)]) for n in range(4)]
    Dataset.from_iterable(items, PARENTS).export(tmp_path / "out", "cifar", save_images=True)
    written = unpickled(tmp_path / "out" / "train")
    assert (written["fine_labels"], written["coarse_labels"]) == ([0, 1, 2, None], [0, 1, 0, None])
    assert not len(written["data"])
    assert reread(tmp_path / "out") == shown(items)


@pytest.mark.parametrize("categories", [["кот", "b"], [("кот", "pets"), ("b", "things")]], ids=["cifar10", "cifar100"])
def test_dataset_meta_comes_back(categories: Any, tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1, 1), item(2, 0)], categories)
    dataset.export(tmp_path / "out", "cifar", save_images=True, save_dataset_meta=True)
    assert json.loads((tmp_path / "out" / "dataset_meta.json").read_text("utf-8")) == {"labels": ["кот", "b"]}
    again = Dataset.import_from(tmp_path / "out")
    assert again.categories == dataset.categories
    assert shown(again) == shown(dataset)
    (tmp_path / "out" / "dataset_meta.json").write_text('{"label_map": {"0": "one", "1": "two"}}')
    assert Dataset.import_from(tmp_path / "out").categories.names == ("one", "two")


# Importing


def test_both_kinds_are_recognised_beside_stray_files(tmp_path: Path) -> None:
    plain = write_cifar(tmp_path / "plain", {"b": batch(["1.png"], [1])})
    table = LabelTable(("x", "y"), ("p", "q"), (1, 0))
    fine = tmp_path / "fine"
    Dataset.from_iterable([item(1, 0, height=9, width=4), item(2, 1)], table).export(fine, "cifar", save_images=True)
    for folder in (plain, fine):
        write_tree(folder, {"file.txt~": b"x", "readme.html": b"x", "sub/notes": b"x"})
    assert Dataset.import_from(plain).categories == LabelTable(("cat", "dog", "ship"))
    found = Dataset.import_from(fine)
    assert found.categories == table
    assert [each.image.size for each in found] == [(9, 4), (32, 32)]
    assert list(Dataset.import_from(plain).subsets) == ["b"]
    assert list(found.subsets) == ["train"]


def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        Dataset.import_from(tmp_path / "nothing")
    with pytest.raises(InputError, match="no known format"):
        Dataset.import_from(write_tree(tmp_path / "odd", {"x.txt": b"x"}))
    with pytest.raises(UsageError, match="unknown input format 'cifra'; did you mean 'cifar'"):
        Dataset.import_from(tmp_path / "odd", "cifra")


@pytest.mark.parametrize("use", [len, list, lambda d: d.subsets, lambda d: d.export("out", "cifar", save_images=True)])
def test_a_hostile_batch_is_refused_by_whatever_reads_it(
    use: Callable[[Dataset], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_cifar(tmp_path / "in", {"good": batch(["1.png"], [1])})
    marker = tmp_path / "marker"
    hostile = global_call("posix", "system")(str(marker))
    (source / "bad").write_bytes(hostile)
    with pytest.raises(InputError, match=r"bad.*posix"):
        use(Dataset.import_from(source))
    assert not marker.exists()
    pickle.loads(hostile)
    assert marker.exists()  # so the file would have done it
    assert not (tmp_path / "out").exists()


def test_a_hostile_meta_file_is_refused_by_import_from(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"good": batch(["1.png"], [1])})
    (source / "batches.meta").write_bytes(global_call("posix", "system")(str(tmp_path / "marker")))
    with pytest.raises(InputError, match=r"batches\.meta.*posix"):
        Dataset.import_from(source)
    assert not (tmp_path / "marker").exists()


# from_iterable


@pytest.mark.parametrize("given", [7, "text", ("a", 1), 1.5, None, np.int64(3), True])
def test_an_id_is_anything_and_its_text_counts(given: Any) -> None:
    dataset = Dataset.from_iterable([DatasetItem(given, "train")])
    assert order(dataset) == [str(given)]
    assert dataset.get(given, "train") is not None


@pytest.mark.parametrize(
    "given",
    [pixels(1), pixels(1).astype(float), pixels(1).astype(np.int64), pixels(1).tolist(), np.asfortranarray(pixels(1))],
    ids=["uint8", "float", "int64", "lists", "fortran"],
)
def test_whole_values_of_any_type_become_pixels(given: Any) -> None:
    (found,) = Dataset.from_iterable([DatasetItem(1, image=given)])
    assert found.image.data.dtype == np.uint8
    assert (found.image.data == pixels(1)).all()


@pytest.mark.parametrize("given", [pixels(1, channels=1), pixels(1, channels=1)[:, :, 0]], ids=["HW1", "HW"])
def test_gray_stays_gray(given: Pixels, tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([DatasetItem(1, image=given, annotations=[Label(0)])], ["cat"])
    assert next(iter(dataset)).image.data.tobytes() == given.tobytes()
    dataset.export(tmp_path / "out", "imagenet")
    assert images(tmp_path / "out") == {"cat/1.png": given.tobytes()}


def test_files_pass_through_byte_for_byte(tmp_path: Path) -> None:
    png, jpeg = encoded(picture(1), optimize=True), encoded(picture(2), "JPEG", quality=60)
    write_tree(tmp_path / "in", {"1.png": png, "photo.jpeg": jpeg})
    items = [
        DatasetItem(1, image=str(tmp_path / "in" / "1.png"), annotations=[Label(0)]),
        DatasetItem("photo", image=tmp_path / "in" / "photo.jpeg", annotations=[Label(0)]),
        DatasetItem("a/photo", image=Image(path=tmp_path / "in" / "photo.jpeg"), annotations=[Label(0)]),
        DatasetItem("bytes", image=jpeg, annotations=[Label(0)]),
        DatasetItem("named", image=Image(png, path="elsewhere.png"), annotations=[Label(0)]),
        DatasetItem("late", image=Image(lambda: memoryview(jpeg)), annotations=[Label(0)]),
    ]
    dataset = Dataset.from_iterable(items, ["cat"])
    for path in (tmp_path / "in").iterdir():
        path.unlink()  # everything was read
    dataset.export(tmp_path / "out", "imagenet")
    expected = {"1.png": png, "photo.jpeg": jpeg, "a%2Fphoto.jpeg": jpeg, "bytes.jpg": jpeg, "named.png": png, "late.jpg": jpeg}  # fmt: skip
    assert contents(tmp_path / "out") == {f"cat/{name}": content for name, content in expected.items()}


def test_items_of_one_data_set_go_into_another_as_they_are(tmp_path: Path) -> None:
    files = {"cat/1.jpg": encoded(picture(1), "JPEG"), "dog/2.PNG": encoded(picture(2), optimize=True)}
    source = Dataset.import_from(write_tree(tmp_path / "in", files))
    copied = Dataset.from_iterable(iter(source), source.categories)
    first = source.get(1)
    assert first is not None
    copied.put(DatasetItem("3", "default", first.image, [Label(1)]))
    assert [each.image.data.shape for each in copied] == [(32, 32, 3)] * 3
    copied.export(tmp_path / "out", "imagenet")
    assert contents(tmp_path / "out") == files | {"dog/3.jpg": files["cat/1.jpg"]}


FRACTIONS = np.full((2, 2, 3), 0.5)
REFUSED: dict[str, tuple[DatasetItem, str]] = {
    "fractions": (DatasetItem(7, image=FRACTIONS), "fractional values, such as 0.5; expected integers"),
    "too_large": (DatasetItem(7, image=np.full((2, 2, 3), 256)), "values from 256 to 256; expected 0 to 255"),
    "negative": (DatasetItem(7, image=np.full((2, 2, 3), -1)), "values from -1 to -1"),
    "nan": (DatasetItem(7, image=np.full((2, 2, 3), np.nan)), "values from nan"),
    "infinite": (DatasetItem(7, image=np.full((2, 2, 3), np.inf)), "values from inf"),
    "rgba": (DatasetItem(7, image=np.zeros((2, 2, 4), np.uint8)), r"shape \(2, 2, 4\)"),
    "two_channels": (DatasetItem(7, image=np.zeros((2, 2, 2), np.uint8)), r"shape \(2, 2, 2\)"),
    "flat": (DatasetItem(7, image=np.zeros(3072, np.uint8)), r"shape \(3072,\)"),
    "batch": (DatasetItem(7, image=np.zeros((1, 2, 2, 3), np.uint8)), r"shape \(1, 2, 2, 3\)"),
    "hollow": (DatasetItem(7, image=np.zeros((0, 2, 3), np.uint8)), "0 x 2; expected 1 to"),
    "ragged": (DatasetItem(7, image=[[1, 2], [3]]), "image is not an array"),
    "booleans": (DatasetItem(7, image=np.ones((2, 2), bool)), "dtype bool"),
    "objects": (DatasetItem(7, image=np.full((2, 2), None)), "dtype object"),
    "two_labels": (DatasetItem(7, annotations=[Label(0), Label(1)]), "has 2 labels; at most one is supported"),
    "label_outside": (DatasetItem(7, annotations=[Label(2)]), "label 2 is out of range; the dataset has 2 categories"),
    "label_negative": (DatasetItem(7, annotations=[Label(-1)]), "label -1 is out of range"),
    "label_name": (DatasetItem(7, annotations=["cat"]), r"expected Label\(number\), found 'cat'"),  # type: ignore[list-item]
    "label_bool": (DatasetItem(7, annotations=[Label(True)]), r"expected Label\(number\)"),
    "label_alone": (
        DatasetItem(7, annotations=Label(0)),  # type: ignore[arg-type]
        r"annotations must be a list of labels, found Label\(label=0\)",
    ),
    "missing_file": (DatasetItem(7, image="missing.png"), "missing.png: cannot be read: No such file"),
    "damaged_png": (DatasetItem(7, image=encoded(picture(1))[:-20]), "item '7'"),
    "no_image": (DatasetItem(7, image=b"BM not an image that is read"), "item '7'"),
    "surrogate_id": (DatasetItem("7\ud800"), "not valid Unicode"),
    "surrogate_subset": (DatasetItem(7, "\udfff"), "not valid Unicode"),
    "empty_id": (DatasetItem(""), "the id is empty"),
    "empty_subset": (DatasetItem(7, ""), "the subset name is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_something_is_refused(name: str, temporary: Path) -> None:
    given, reason = REFUSED[name]
    with pytest.raises(InputError, match=reason) as caught:
        Dataset.from_iterable([item("good"), given], ["cat", "dog"])
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()
    assert os.listdir(temporary) == []


def test_an_id_is_there_once_in_a_subset() -> None:
    assert len(Dataset.from_iterable([DatasetItem(1, "a"), DatasetItem(1, "b")])) == 2
    with pytest.raises(InputError, match="two items of subset 'a' have the id '1'"):
        Dataset.from_iterable(
            [DatasetItem(1, "a"), *(DatasetItem(n, "a") for n in range(2, 1500)), DatasetItem("1", "a")]
        )


def test_something_else_than_an_item_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a DatasetItem, found dict"):
        Dataset.from_iterable([{"id": 1}])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="put: expected a DatasetItem, found str"):
        Dataset.from_iterable([item(1)], ["cat"]).put("1")  # type: ignore[arg-type]


def test_a_generator_is_read_once_and_not_kept_in_memory() -> None:
    alive = most = made = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def generate() -> Iterator[DatasetItem]:
        nonlocal alive, most, made
        for number in range(5_000):
            image = np.full((64, 64, 3), number % 256, np.uint8)
            weakref.finalize(image, gone)
            alive, made = alive + 1, made + 1
            most = max(most, alive)
            yield DatasetItem(number, image=image)

    tracemalloc.start()
    try:
        dataset = Dataset.from_iterable(generate())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made == 5_000 == len(dataset)
    assert most <= 1_001
    assert peak < 40e6  # of 61 MB of pixels, as they come and as they are kept
    last = dataset.get(4_999)
    assert last is not None
    assert last.image.data.max() == 4_999 % 256


def test_temporary_folders_go_with_the_data_set(temporary: Path, cifar10_archive: Path) -> None:
    dataset = Dataset.from_iterable([item(1)], ["cat"]).put(item(2))
    assert len(dataset) == 2
    imported = Dataset.import_from(cifar10_archive)
    sizes = []
    for number in range(3):
        len(imported.put(DatasetItem(number)))
        sizes.append(sum(map(len, contents(temporary).values())))
    assert sizes[0] > 1e6  # what is unpacked of the archive
    assert sizes[2] < 1.1 * sizes[0]  # and once
    del dataset, imported
    gc.collect()
    assert os.listdir(temporary) == []


def test_items_can_be_kept_in_a_folder_that_is_named(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1)], ["cat"], folder=tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    assert shown(dataset) == shown([item(1)])
    del dataset
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_data_set_may_start_empty(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([], ["cat", "dog"])
    assert len(dataset) == 0
    assert dict(dataset.subsets) == {}
    dataset.put(item(1, 1))
    dataset.export(tmp_path / "out", "cifar", save_images=True)
    assert set(os.listdir(tmp_path / "out")) == {"batches.meta", "train"}
    assert reread(tmp_path / "out") == shown([item(1, 1)])


# Categories


def test_categories_are_names_or_pairs_or_a_table() -> None:
    assert Dataset.from_iterable([item(1)], ["a", "b"]).categories == LabelTable(("a", "b"))
    pairs = [("a", "y"), ("b", None), ("c", "x"), ("d", "y")]
    table = LabelTable(("a", "b", "c", "d"), ("y", "x"), (0, None, 1, 0))
    assert Dataset.from_iterable([item(1)], pairs).categories == table  # superclasses as they first appear
    assert Dataset.from_iterable([item(1)], table).categories == table
    assert Dataset.from_iterable([item(1)], iter(["a"])).categories == LabelTable(("a",))
    assert Dataset.from_iterable([item(1, None)]).categories == LabelTable(())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["a", "b", "a"], "class 'a' is given twice"),
        ([("a", "x"), ("a", "y")], "class 'a' is given twice"),
        ("cat", "expected a list of names, found 'cat'"),
        ([("a", 1)], r"expected a name or \(name, superclass\), found \('a', 1\)"),
        ([(1, "a")], "expected a name"),
    ],
)
def test_categories_that_are_none_are_refused(given: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Dataset.from_iterable([item(1, None)], given)


@pytest.mark.parametrize("given", [[1], [("a", "b", "c")], [None], 5])
def test_categories_of_another_shape_are_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="categories: expected"):
        Dataset.from_iterable([item(1, None)], given)


# Looking


def some() -> list[DatasetItem]:
    return [item("b", 0), item("a", 1), item("x", None, "test"), item("c", 2), item("b", 1, "test")]


NAMES = ["cat", "dog", "ship"]


def test_items_come_by_subset_in_the_order_given() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    assert len(dataset) == 5
    assert [(each.subset, each.id) for each in dataset] == [("train", "b"), ("train", "a"), ("train", "c"), ("test", "x"), ("test", "b")]  # fmt: skip
    assert list(dataset) != []
    assert order(dataset) == order(dataset)
    assert {name: (len(part), order(part)) for name, part in dataset.subsets.items()} == {
        "train": (3, ["b", "a", "c"]),
        "test": (2, ["x", "b"]),
    }
    assert shown(dataset.subsets["test"]) == shown([some()[2], some()[4]])


def test_get_finds_an_item_by_id_and_subset() -> None:
    dataset = Dataset.from_iterable([*some(), item(5, 2, "default")], NAMES)
    assert shown([dataset.get("b", "test")]) == shown([some()[4]])  # type: ignore[list-item]
    found = dataset.get(5)
    assert found is not None
    assert found.label == 2
    assert dataset.get("x", "train") is None
    assert dataset.get("b", "nowhere") is None


def test_an_archive_that_nobody_holds_can_be_iterated(cifar10_archive: Path, cifar10: Path) -> None:
    pictures: list[tuple[str, int | None, bytes]] = []
    for each in Dataset.import_from(cifar10_archive):
        if len(pictures) == 5:
            break
        gc.collect()
        pictures.append((each.id, each.label, each.image.data.transpose(2, 0, 1).tobytes()))
    assert pictures == [(os.path.splitext(row[0])[0], row[1], row[3]) for row in cifar_rows(cifar10)[:5]]


def test_an_image_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    files = {f"a/{number}.png": encoded(picture(number)) for number in range(3)}
    dataset = Dataset.import_from(write_tree(tmp_path / "in", files))
    items = iter(dataset)
    first = next(items)
    (tmp_path / "in" / "a" / "2.png").unlink()
    assert [first.id, next(items).id, next(items).id] == ["0", "1", "2"]
    with pytest.raises(InputError, match=r"in/a"):
        _ = first.image.data


# Changing


def test_put_adds_and_replaces() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    new = DatasetItem("a", "train", pixels(99, 8, 8), [Label(2)])
    assert dataset.put(new).put(item("n", 0, "val")) is dataset
    expected = shown(some()) | shown([new, item("n", 0, "val")])
    assert shown(dataset) == expected
    assert list(dataset.subsets) == ["train", "test", "val"]


def test_remove_takes_a_subset_with_its_last_item() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    dataset.remove("x", "test").remove("b", "test").remove("nothing", "train").remove("b", "nowhere")
    assert order(dataset) == ["b", "a", "c"]
    assert list(dataset.subsets) == ["train"]
    assert order(dataset.put(item("x", 0, "test")).remove("a", "train")) == ["b", "c", "x"]


def test_an_item_that_is_removed_can_be_put_again_and_again() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    dataset.put(item("n")).remove("n", "train").put(item("n", 1)).put(item("n", 2))
    found = dataset.get("n", "train")
    assert found is not None
    assert found.label == 2
    assert len(dataset) == 6


def test_an_item_that_cannot_be_put_is_refused_until_it_is_removed() -> None:
    dataset = Dataset.from_iterable([item(1)], ["cat"]).put(item(2, 7))
    for _ in range(2):
        with pytest.raises(InputError, match="label 7 is out of range"):
            len(dataset)
    assert order(dataset.remove(2, "train")) == ["1"]


def test_thousands_of_items_can_be_put() -> None:
    dataset = Dataset.from_iterable([item("first")], ["cat"])
    for number in range(2_500):
        dataset.put(DatasetItem(number, "train"))
    assert len(dataset) == 2_501
    assert order(dataset)[-1] == "2499"


def test_the_subset_of_a_put_item_may_be_left_out(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1, 0, "default"), item(2)], ["cat"])
    dataset.export(tmp_path / "out", "cifar", save_images=True)
    new = DatasetItem(1, None, pixels(5), [])  # type: ignore[arg-type]
    dataset.put(new).save()
    assert reread(tmp_path / "out") == shown([item(2)]) | {("default", "1"): (None, ((32, 32, 3), pixels(5).tobytes()))}


def test_a_pixel_step_counts_for_the_items_before_it_alone() -> None:
    dataset = Dataset.from_iterable([item(1), item(2)], ["cat"])
    dataset.transform("resize", width=16, height=8).put(item(2, height=5, width=5)).put(item(3, height=5, width=5))
    assert {each.id: each.image.data.shape for each in dataset} == {"1": (8, 16, 3), "2": (5, 5, 3), "3": (5, 5, 3)}
    dataset.transform("resize", width=4, height=4).remove(1, "train")
    assert {each.id: each.image.data.shape for each in dataset} == {"2": (4, 4, 3), "3": (4, 4, 3)}


def test_the_images_written_are_the_images_shown(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1), item(2)], ["cat"])
    dataset.transform("resize", width=16, height=8).put(item(3)).transform("grayscale")
    seen = {f"cat/{key[1]}.png": image[1] for key, (_, image) in shown(dataset).items() if image}
    dataset.export(tmp_path / "out", "imagenet")
    assert images(tmp_path / "out") == seen
    assert [len(image) for image in seen.values()] == [8 * 16, 8 * 16, 32 * 32]


# Selecting and transforming


def test_filter_takes_an_expression_or_a_function() -> None:
    assert order(Dataset.from_iterable(some(), NAMES).filter('/item[annotation/label="dog"]')) == ["a", "b"]
    assert order(Dataset.from_iterable(some(), NAMES).filter(lambda each: each.label in (1, None))) == ["a", "x", "b"]
    assert order(Dataset.from_iterable(some(), NAMES).select(lambda each: each.subset == "test")) == ["x", "b"]


def test_filter_of_annotations_takes_labels_and_items() -> None:
    for more in ({"mode": "annotations"}, {"filter_annotations": True}):
        found = Dataset.from_iterable(some(), NAMES).filter('/item/annotation[label="dog"]', **more)
        assert [each.label for each in found] == [None, 1, None, None, 1]
    for more in ({"mode": "items+annotations"}, {"filter_annotations": True, "remove_empty": True}):
        found = Dataset.from_iterable(some(), NAMES).filter('/item/annotation[label="dog"]', **more)
        assert order(found) == ["a", "b"]


@pytest.mark.parametrize("expression", ["/item[", "/item[annotation/label='dog'", "nonsense(("])
def test_an_expression_that_cannot_be_evaluated_is_refused_at_once(expression: str) -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    with pytest.raises(UsageError):
        dataset.filter(expression)
    assert len(dataset) == 5


def test_unknown_transforms_and_options_are_refused_at_once() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    with pytest.raises(UsageError, match="resize"):
        dataset.transform("resise", width=1, height=1)
    with pytest.raises(UsageError):
        dataset.transform("resize", width=1)
    assert order(dataset) == order(Dataset.from_iterable(some(), NAMES))


def test_a_function_sees_pixels_as_steps_before_it_left_them() -> None:
    bright = DatasetItem("bright", "train", np.full((32, 32, 3), 250, np.uint8))
    dataset = Dataset.from_iterable([bright, item("dark")], ["cat"]).transform("resize", width=16, height=16)
    sizes = []

    def is_bright(each: DatasetItem) -> bool:
        sizes.append(each.image.data.shape)
        return bool(each.image.data.min() > 240)

    assert order(dataset.filter(is_bright).transform("resize", width=4, height=4)) == ["bright"]
    assert set(sizes) == {(16, 16, 3)}
    assert next(iter(dataset)).image.data.shape == (4, 4, 3)


def test_transforms_by_name_follow_each_other() -> None:
    dataset = Dataset.from_iterable(some(), NAMES)
    dataset.transform("remap_labels", mapping={"cat": "dog"}).filter('/item[annotation/label="dog"]')
    dataset.transform("map_subsets", mapping={"test": "val"}).transform("reindex", start=10)
    assert [(each.id, each.subset, each.label) for each in dataset] == [("10", "train", 1), ("11", "train", 1), ("12", "val", 1)]  # fmt: skip


CHAINS: dict[str, tuple[Callable[[Dataset], Dataset], dict[str, Any]]] = {
    "nothing": (lambda d: d, {}),
    "filter": (lambda d: d.filter('/item[annotation/label="dog"]'), {"filter": '/item[annotation/label="dog"]'}),
    "remap": (lambda d: d.transform("remap_labels", mapping={"cat": "dog"}), {"remaps": ("cat:dog",)}),
    "resize": (lambda d: d.transform("resize", width=8, height=9), {"resize": (9, 8)}),
    "all": (
        lambda d: (
            d.filter('/item/annotation[label="dog" or label="ship"]', filter_annotations=True)
            .transform("remap_labels", mapping=[("ship", "x:y")])
            .transform("resize", height=40, width=16)
        ),
        {
            "filter": '/item/annotation[label="dog" or label="ship"]',
            "filter_mode": "annotations",
            "remaps": ("ship:x:y",),
            "resize": (40, 16),
        },
    ),
}


@pytest.mark.parametrize("target", ["cifar", "parquet", "imagenet", "imagenet_with_subset_dirs"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_writes_what_the_command_line_writes_whatever_path_it_takes(
    name: str, target: str, tmp_path: Path
) -> None:
    chain, options = CHAINS[name]
    rows = {
        "data_batch_1": batch([f"{n}.png" for n in range(6)], [0, 1, 2, 1, None, 0], batch_label="one of many"),
        "test_batch": batch([f"t{n}.png" for n in range(4)], [2, 1, 0, 1], 7),
    }
    source = write_cifar(tmp_path / "in", rows)
    converted(source, tmp_path / "command", target, save_images=True, **options)
    chain(Dataset.import_from(source)).export(tmp_path / "quick", target, save_images=True)
    chain(Dataset.import_from(source)).transform(First(10**9)).export(tmp_path / "rows", target, save_images=True)
    assert contents(tmp_path / "quick") == contents(tmp_path / "command")
    assert contents(tmp_path / "rows") == contents(tmp_path / "command")
    assert len(contents(tmp_path / "command")) > 1


def test_renaming_takes_names_with_colons_as_they_are(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1)], ["a:b", "c"])
    with pytest.raises(UsageError, match="'a'"):
        dataset.transform("remap_labels", mapping={"a": "b:c"}).export(tmp_path / "out", "cifar")


def test_a_real_run_writes_what_a_plain_one_does(tmp_path: Path, beam: None) -> None:
    def made() -> Dataset:
        return Dataset.from_iterable(some(), NAMES).put(item("n", 1, "val")).transform("resize", width=9, height=9)

    made().export(tmp_path / "beam", "cifar", save_images=True, workers=2)
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        made().export(tmp_path / "plain", "cifar", save_images=True)
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")
    assert is_whole(tmp_path / "beam")


def test_export_replaces_only_when_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        Dataset.from_iterable([item(1)], ["cat"]).export(output, "cifar", save_images=True)
        other = Dataset.from_iterable([item(2)], ["cat"])
        with pytest.raises(OutputError, match="exists and is not empty"):
            other.export(output, "cifar", save_images=True)
        other.export(output, "cifar", save_images=True, overwrite=True)
        assert reread(output) == shown([item(2)])


# Saving in place


def items_of_three() -> list[DatasetItem]:
    return [item(number, number % 3, subset) for subset in ("a", "b", "c") for number in range(4)]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A CIFAR-10 directory of three subsets, with files that are no part of it."""
    Dataset.from_iterable(items_of_three(), NAMES).export(tmp_path / "set", "cifar", save_images=True)
    write_tree(tmp_path / "set", {"readme.html": b"<html>", "sub/folder/notes": b"x", "file.txt~": b"y"})
    return tmp_path / "set"


FOREIGN = {"readme.html", "sub/folder/notes", "file.txt~"}


@pytest.mark.parametrize("runner", ["plain", "real"])
def test_save_touches_changed_subsets_alone(runner: str, three: Path) -> None:
    before = files_state(three)
    dataset = Dataset.import_from(three)
    new = DatasetItem(1, "b", pixels(77), [Label(2)])
    dataset.put(new).put(item("n", 0, "d")).remove(0, "b")
    for number in range(4):
        dataset.remove(number, "c")
    with mock.patch("beam_cifar.pipeline.convert.start", RUNNERS[runner]):
        summary = dataset.save()
    after = files_state(three)
    assert summary is not None
    assert set(after) == {"batches.meta", "a", "b", "d", *FOREIGN}
    assert {name for name in after if after[name] == before.get(name)} >= {"a", *FOREIGN}
    assert after["b"] != before["b"]
    assert unpickled(three / "batches.meta") == {"label_names": NAMES, "num_cases_per_batch": 4, "num_vis": 3072}
    left = [each for each in items_of_three() if each.subset == "a" or (each.subset == "b" and each.id > 1)]
    assert reread(three) == shown([*left, new, item("n", 0, "d")])
    assert is_whole(three)
    assert {entry["path"] for entry in manifest(three)["files"] if entry.get("foreign")} == FOREIGN


def test_save_without_changes_does_nothing(three: Path) -> None:
    before = files_state(three)
    dataset = Dataset.import_from(three)
    assert len(dataset) == 12
    assert dataset.save() is None
    assert dataset.put(item("n", 0, "a")).save() is not None
    assert dataset.save() is None
    assert files_state(three)["b"] == before["b"]


def test_save_twice_keeps_both_changes(three: Path) -> None:
    dataset = Dataset.import_from(three)
    dataset.put(item("n", 1, "a")).save()
    between = files_state(three)
    dataset.put(item("m", 1, "b")).remove(0, "b").save()
    after = files_state(three)
    assert after["a"] == between["a"]
    assert reread(three) == shown(
        [e for e in items_of_three() if (e.subset, e.id) != ("b", 0)] + [item("n", 1, "a"), item("m", 1, "b")]
    )
    assert shown(dataset) == reread(three)
    assert set(after) > FOREIGN
    assert is_whole(three)


def test_removing_what_is_not_there_changes_nothing(three: Path) -> None:
    dataset = Dataset.import_from(three)
    dataset.remove("missing", "a").remove(1, "missing").save()
    assert reread(three) == shown(items_of_three())
    assert is_whole(three)


def test_save_after_a_filter_drops_emptied_subsets(three: Path) -> None:
    Dataset.import_from(three).filter('/item[subset!="c"]').save()
    assert set(os.listdir(three)) == {"batches.meta", "a", "b", "readme.html", "sub", "file.txt~"}
    assert reread(three) == shown(each for each in items_of_three() if each.subset != "c")
    assert is_whole(three)


def test_save_after_a_transform_writes_all_subsets(three: Path) -> None:
    before = files_state(three)
    dataset = Dataset.import_from(three).transform("remap_labels", mapping={"cat": "lynx"})
    dataset.transform("resize", width=8, height=8).save()
    after = files_state(three)
    assert all(after[name] != before[name] for name in ("a", "b", "c", "batches.meta"))
    assert all(after[name] == before[name] for name in FOREIGN)
    found = Dataset.import_from(three)
    assert found.categories.names == ("lynx", "dog", "ship")
    assert {each.image.data.shape for each in found} == {(8, 8, 3)}
    assert [(each.id, each.label) for each in found] == [(str(each.id), each.label) for each in items_of_three()]
    assert is_whole(three)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("remap_labels", {"mapping": {"cat": "dog"}}),
        ("remap_labels", {"mapping": [], "default": "delete"}),
        ("remove_annotations", {}),
    ],
)
def test_labels_can_change_under_a_table_that_stays(name: str, options: dict[str, Any], three: Path) -> None:
    new = {0: 1, 1: 1, 2: 2} if options.get("mapping") else {}
    Dataset.import_from(three).transform(name, **options).save()
    assert {key: label for key, (label, _) in reread(three).items()} == {
        key: new.get(label or 0) for key, (label, _) in shown(items_of_three()).items()
    }


def test_save_writes_to_where_items_were_exported_last(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable(items_of_three(), NAMES)
    with pytest.raises(UsageError, match="export it first"):
        dataset.save()
    dataset.export(tmp_path / "out", "cifar", save_images=True)
    before = files_state(tmp_path / "out")
    assert dataset.save() is None
    dataset.remove(1, "a").save()
    after = files_state(tmp_path / "out")
    assert (after["b"], after["c"]) == (before["b"], before["c"])
    assert reread(tmp_path / "out") == shown([e for e in items_of_three() if (e.subset, e.id) != ("a", 1)])


def test_save_can_add_the_images_that_an_export_left_out(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable(items_of_three(), NAMES)
    dataset.export(tmp_path / "out", "cifar")
    dataset.save(save_images=True)
    assert reread(tmp_path / "out") == shown(items_of_three())
    dataset.remove(1, "a").save()
    assert all(row[3] is not None for row in cifar_rows(tmp_path / "out"))


def test_save_finds_a_set_that_lies_a_folder_deeper(three: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    three.rename(outer / "cifar-10-batches-py")
    (outer / "beside.txt").write_text("x")
    before = files_state(outer / "cifar-10-batches-py")
    Dataset.import_from(outer).remove(1, "a").save()
    after = files_state(outer / "cifar-10-batches-py")
    assert (after["b"], after["c"]) == (before["b"], before["c"])
    assert len(reread(outer)) == 11
    assert (outer / "beside.txt").exists()
    assert is_whole(outer / "cifar-10-batches-py")


def test_save_leaves_files_in_another_style_as_they_are(tmp_path: Path) -> None:
    rows = {name: batch(["1.png", "2.png"], [0, None], seed) for seed, name in enumerate(("a", "b"))}
    source = write_cifar(tmp_path / "set", rows, protocol=5)
    before = files_state(source)
    dataset = Dataset.import_from(source)
    expected = shown(dataset)
    dataset.put(item("n", 2, "b")).save()
    after = files_state(source)
    assert after["a"] == before["a"]
    assert after["b"][2].startswith(b"\x80\x02")  # rewritten in the style that all readers share
    assert reread(source) == expected | shown([item("n", 2, "b")])
    assert is_whole(source)


def test_save_keeps_custom_class_names(three: Path) -> None:
    (three / "dataset_meta.json").write_text('{"label_map": {"0": "x", "1": "y", "2": "z"}}')
    before = files_state(three)
    Dataset.import_from(three).put(item("n", 2, "b")).save()
    assert json.loads((three / "dataset_meta.json").read_text()) == {"labels": ["x", "y", "z"]}
    assert Dataset.import_from(three).categories.names == ("x", "y", "z")
    assert files_state(three)["a"] == before["a"]
    assert is_whole(three)


def test_save_does_not_make_custom_class_names(three: Path) -> None:
    Dataset.import_from(three).put(item("n", 2, "b")).save()
    assert not (three / "dataset_meta.json").exists()


def test_a_locked_output_stays_whole(three: Path) -> None:
    dataset = Dataset.import_from(three).put(item("n", 1, "a"))
    before = files_state(three)
    lock = storage.hold(storage.JobFolder(str(three)))
    with lock, pytest.raises(OutputError, match="another job"):
        dataset.save()
    assert files_state(three) == before
    dataset.save()
    assert len(reread(three)) == 13


@pytest.mark.parametrize("change", ["link", "replace", "rename"])
def test_a_failing_disk_leaves_the_set_whole(change: str, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.import_from(three).put(item("n", 1, "a"))
    before = files_state(three)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, change, full)
        if change == "link":
            patched.setattr("shutil.copy2", full)
        with pytest.raises((BeamCifarError, OSError)):
            dataset.save()
    assert files_state(three) == before
    dataset.save()
    assert reread(three) == shown([*items_of_three(), item("n", 1, "a")])
    assert is_whole(three)


@pytest.mark.parametrize("layout", ["imagenet", "imagenet_with_subset_dirs"])
def test_folders_of_images_are_saved_in_place(layout: str, tmp_path: Path) -> None:
    items = [item(f"{subset}{number}", number, subset) for subset in ("u", "v") for number in range(3)]
    Dataset.from_iterable(items, NAMES).export(tmp_path / "tree", layout)
    write_tree(tmp_path / "tree", {"readme.html": b"r"})
    dataset = Dataset.import_from(tmp_path / "tree", layout)
    subset = "default" if layout == "imagenet" else "v"
    before = contents(tmp_path / "tree")
    dataset.put(item("new", 1, subset)).remove("v0", subset).remove("v2", subset).save()
    prefix = "" if layout == "imagenet" else "v/"
    expected = {name for name in before if name not in (f"{prefix}cat/v0.png", f"{prefix}ship/v2.png")}
    after = contents(tmp_path / "tree")
    assert set(after) == expected | {f"{prefix}dog/new.png"}
    assert all(after[name] == before[name] for name in expected)
    assert after["readme.html"] == b"r"
    assert is_whole(tmp_path / "tree")


@pytest.mark.parametrize("layout", ["imagenet_txt", "voc_classification", "datumaro"])
def test_images_that_no_list_names_stay_when_saved_in_place(layout: str, tmp_path: Path) -> None:
    items = [item(f"{subset}{number}", number, subset) for subset in ("u", "v") for number in range(3)]
    Dataset.from_iterable(items, NAMES).export(tmp_path / "out", layout, image_ext=".png")
    folders = {str(Path(name).parent) for name in contents(tmp_path / "out") if name.endswith(".png")}
    more = {f"{folder}/{name}": encoded(picture(9)) for folder in folders for name in ("more.png", "deep/er.png")}
    write_tree(tmp_path / "out", more)
    Dataset.import_from(tmp_path / "out", layout).put(item("new", 1, "u")).remove("v0", "v").save()
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in more} == more
    expected = [*(each for each in items if each.id != "v0"), item("new", 1, "u")]
    assert reread(tmp_path / "out") == shown(expected)
    assert is_whole(tmp_path / "out")


def test_an_image_that_no_list_names_and_an_item_of_its_name_are_refused(tmp_path: Path) -> None:
    Dataset.from_iterable([item("a", 0), item("b", 1)], NAMES).export(tmp_path / "out", "imagenet_txt")
    write_tree(tmp_path / "out", {"images/more.png": encoded(picture(9))})
    before = contents(tmp_path / "out")
    with pytest.raises(
        OutputError, match=r"images/more\.png: not part of the dataset, but a new file of it has the same name"
    ):
        Dataset.import_from(tmp_path / "out", "imagenet_txt").put(item("more", 1)).save()
    assert contents(tmp_path / "out") == before


def test_images_that_are_no_jpeg_stay_so_when_saved_in_place(tmp_path: Path) -> None:
    """Also those of a format that makes images JPEG by itself."""
    items = [item(number, number) for number in range(3)]
    Dataset.from_iterable(items, NAMES).export(tmp_path / "out", "voc_classification", image_ext=".png")
    Dataset.import_from(tmp_path / "out").put(item(3, 0)).save()
    assert reread(tmp_path / "out") == shown([*items, item(3, 0)])


def test_parquet_is_saved_in_place_with_subsets_that_did_not_change(tmp_path: Path) -> None:
    Dataset.from_iterable([item(1, 0, "train"), item(2, 1, "test")], NAMES).export(
        tmp_path / "out", "parquet", card=True
    )
    Dataset.import_from(tmp_path / "out").put(item(3, 2, "test")).save()
    assert reread(tmp_path / "out") == shown([item(1, 0, "train"), item(2, 1, "test"), item(3, 2, "test")])
    assert b"num_examples: 2" in contents(tmp_path / "out")["README.md"]
    assert is_whole(tmp_path / "out")


def test_a_format_that_cannot_be_read_is_saved_anew_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1), item(2)], ["cat"])
    dataset.export(tmp_path / "out", "tfds_parquet")
    own = set(contents(tmp_path / "out"))
    write_tree(tmp_path / "out", {"notes.txt": b"n"})
    dataset.put(item(3)).save()
    assert manifest(tmp_path / "out")["rows"]["written"] == 3
    assert set(contents(tmp_path / "out")) == own | {"notes.txt"}
    assert is_whole(tmp_path / "out")
    (tmp_path / "out.beam_cifar" / "manifest.json").unlink()
    before = files_state(tmp_path / "out")
    with pytest.raises(OutputError, match="its manifest is missing"):
        dataset.put(item(4)).save()
    assert files_state(tmp_path / "out") == before


def test_parquet_that_lost_its_manifest_is_saved_with_a_card_that_is_true(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1), item(2)], ["cat"])
    dataset.export(tmp_path / "out", "parquet", card=True)
    write_tree(tmp_path / "out", {"notes.txt": b"n"})
    (tmp_path / "out.beam_cifar" / "manifest.json").unlink()
    dataset.put(item(3)).save()
    assert [row[0] for row in parquet_rows(tmp_path / "out", "train")] == ["1.png", "2.png", "3.png"]
    names = {"README.md", "croissant.json", "data/train-00000-of-00001.parquet", "notes.txt"}
    assert set(contents(tmp_path / "out")) == names
    assert b"num_examples: 3" in contents(tmp_path / "out")["README.md"]
    assert is_whole(tmp_path / "out")


@pytest.mark.parametrize("target", ["missing", "/", "readme.html"])
def test_a_link_that_saving_would_lose_is_refused(target: str, three: Path) -> None:
    os.symlink(target, three / "link.x")
    before = contents(three)
    with pytest.raises(OutputError, match=r"link\.x: not part of the dataset, and would be lost"):
        Dataset.import_from(three).put(item("n", 1, "a")).save()
    assert contents(three) == before
    assert os.readlink(three / "link.x") == target


def test_a_batch_that_is_a_link_becomes_a_file(three: Path) -> None:
    (three / "c").rename(three.parent / "elsewhere")
    os.symlink("../elsewhere", three / "c")
    Dataset.import_from(three).put(item("n", 1, "a")).save()
    assert reread(three) == shown([*items_of_three(), item("n", 1, "a")])
    assert not (three / "c").is_symlink()
    assert (three.parent / "elsewhere").exists()


def test_the_file_of_a_subset_stays_the_same_also_under_another_name(tmp_path: Path) -> None:
    dataset = Dataset.from_iterable([item(1, 0, "v1.0"), item(2, 0, "_x"), item(3, 0, "a/b")], ["cat"])
    dataset.export(tmp_path / "out", "cifar", save_images=True)
    before = files_state(tmp_path / "out")
    dataset.put(item(4, 0, "_x")).save()
    after = files_state(tmp_path / "out")
    assert {name for name in after if after[name] == before[name]} == {"a%2Fb", "v1%2E0"}
    assert sorted(row[0] for row in cifar_rows(tmp_path / "out")) == ["1.png", "2.png", "3.png", "4.png"]
    assert is_whole(tmp_path / "out")


def test_what_cannot_be_saved_in_place_says_so(cifar10_archive: Path, three: Path) -> None:
    for dataset in (Dataset.import_from(cifar10_archive), Dataset.import_from(three, subsets=["a"])):
        with pytest.raises(UsageError, match="export it first"):
            dataset.put(item("n", 1, "a")).save()


def test_a_set_that_would_lose_its_last_item_stays_whole(three: Path) -> None:
    dataset = Dataset.import_from(three)
    before = files_state(three)
    with pytest.raises(InputError, match="nothing to write"):
        dataset.select(lambda each: False).save()
    assert files_state(three) == before


def test_an_io_error_is_a_job_error(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    dataset = Dataset.import_from(three).put(item("n", 1, "a"))
    monkeypatch.setattr(os, "makedirs", full)
    with pytest.raises(JobError, match="cannot be written: No space left"):
        dataset.save()


def test_the_block_of_the_docs_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    make_sample("cifar-10-python.tar.gz", images=600, seed=1, tar=True)
    write_tree(tmp_path / "more-images", {f"{name}/{name}.png": encoded(picture(1)) for name in ("cat", "hamster")})
    made: dict[str, Any] = {}
    exec(block, made)
    assert set(contents(tmp_path / "both")) == {"batches.meta", "train", "test", "default"}
    assert {path.split("/")[1] for path in contents(tmp_path / "pets")} == {"cat", "dog"}


def test_ids_stay_with_their_images_where_file_names_repeat(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "a.png", "b.png"], [0, 1, 0])})
    Dataset.import_from(source).transform("shuffle", seed=3).export(tmp_path / "out", "cifar", save_images=True)
    assert compare(source, tmp_path / "out", ids=True).equal


def test_a_set_with_annotations_that_are_not_read_is_not_saved_over(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {"train": batch(["a.png", "b.png"], [0, 1])})
    Dataset.import_from(source).export(tmp_path / "out", "datumaro")
    path = tmp_path / "out" / "annotations" / "train.json"
    told = json.loads(path.read_text())
    told["items"][0]["annotations"].append({"id": 1, "type": "bbox", "bbox": [1, 2, 3, 4], "label_id": 0})
    path.write_text(json.dumps(told))
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=r"1 annotation that is not .* \(bbox: 1\), which saving would lose"):
        Dataset.import_from(tmp_path / "out").transform("shuffle").save()
    assert contents(tmp_path / "out") == before
