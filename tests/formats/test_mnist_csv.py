"""MNIST as CSV: what is written byte for byte, what is read, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import Dataset
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats import mnist_csv
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan
from tests.helpers.gray import CLASSES, gray, read_back
from tests.helpers.image_trees import (
    Pixels,
    batch,
    contents,
    converted,
    picture,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def noise(rows: int, height: int = 28, width: int = 28) -> Pixels:
    """Images with values of one, two and three digits."""
    rng = np.random.default_rng(rows)
    return (rng.integers(0, 256, (rows, height, width)) >> rng.integers(0, 8, (rows, height, width))).astype(np.uint8)


def table(images: Pixels, labels: list[int], end: str = "\n") -> bytes:
    """Lines as Datumaro writes them."""
    pixels = images.reshape(len(images), -1).tolist()
    rows = (",".join(map(str, [label, *row])) for label, row in zip(labels, pixels, strict=True))
    return "".join(row + end for row in rows).encode()


def header(height: int = 28, width: int = 28) -> bytes:
    """The first line of the well-known download."""
    names = [f"{row}x{column}" for row in range(1, height + 1) for column in range(1, width + 1)]
    return ",".join(["label", *names]).encode() + b"\n"


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Two training batches and a test batch, with a class that has no rows, and a row without label."""
    labels: dict[str, list[int | None]] = {
        "data_batch_1": [0, 1, 2, 0, 1],
        "data_batch_2": [2, None],
        "test_batch": [1],
    }
    batches = {
        name: batch([f"{name}{row}.png" for row in range(len(found))], found, seed)
        for seed, (name, found) in enumerate(labels.items())
    }
    return write_cifar(tmp_path / "cifar", batches, CLASSES)


def test_files_are_what_datumaro_calls_and_reads_them(cifar: Path, tmp_path: Path, beam: None) -> None:
    summary = converted(cifar, tmp_path / "out", "mnist_csv")
    for name, subsets in {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}.items():
        rows = cifar_rows(cifar, subsets)
        labels = [-1 if row[1] is None else row[1] for row in rows]
        expected = table(np.stack([gray(row[3]) for row in rows]), labels)
        assert (tmp_path / f"out/mnist_{name}.csv").read_bytes() == expected
        assert (tmp_path / f"out/meta_{name}.csv").read_text() == "32,32\n" * len(rows)
    assert (tmp_path / "out/labels.txt").read_text(encoding="utf-8") == "".join(f"{name}\n" for name in CLASSES)
    assert len(contents(tmp_path / "out")) == 5
    assert any("gray" in notice for notice in summary.notices)


def test_a_round_trip_keeps_all_but_colour_and_ids(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist_csv")
    batches = {"test": ["test_batch"], "train": ["data_batch_1", "data_batch_2"]}
    expected = [
        (f"{name}_{number}.png", row[1], gray(row[3]).tobytes())
        for name, subsets in batches.items()
        for number, row in enumerate(cifar_rows(cifar, subsets))
    ]
    assert read_back(tmp_path / "out", tmp_path) == expected
    assert tuple(unpickled(tmp_path / "back/batches.meta")["label_names"]) == CLASSES
    converted(tmp_path / "out", tmp_path / "again", "mnist_csv")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_parts_make_the_same_files(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(cifar, tmp_path / "one", "mnist_csv")
    set_part_bytes(monkeypatch, "mnist_csv", 2 * 3072)
    converted(cifar, tmp_path / "many", "mnist_csv")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.parametrize(("classes", "files"), [(10, 1), (9, 2), (11, 2)])
def test_names_are_written_unless_they_are_what_readers_assume(classes: int, files: int, tmp_path: Path) -> None:
    names = tuple(map(str, range(classes)))
    source = write_cifar(tmp_path / "cifar", {"train": batch(["a.png", "b.png"], [8, 0])}, names)
    converted(source, tmp_path / "out", "mnist_csv", resize=(28, 28))
    assert len(contents(tmp_path / "out")) == files
    assert Dataset.import_from(tmp_path / "out").categories.names == names


def test_a_subset_without_rows_keeps_its_file(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist_csv", filter="/item[subset='data_batch_1']")
    assert (tmp_path / "out/mnist_test.csv").read_bytes() == b""
    assert not (tmp_path / "out/meta_test.csv").exists()
    found = get_source("mnist_csv").describe(str(tmp_path / "out"), "")
    assert [file.subset for file in found.files] == ["test", "train"]
    assert scan(get_source("mnist_csv"), found.files[0], found.labels, Wanted()).rows == 0


@pytest.mark.parametrize("name", ["my set", "mnist_x", "meta_x", "ночь"])
def test_subset_names_survive(name: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {name: batch(["a.png"], [0])})
    notices = converted(source, tmp_path / "out", "mnist_csv").notices
    assert any("the part after the last '_'" in notice for notice in notices) == ("_" in name)
    found = get_source("mnist_csv").describe(str(tmp_path / "out"), "")
    assert [file.subset for file in found.files] == [name]


# --- reading what others made ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", header()])
@pytest.mark.parametrize("final", [b"", b"\n\r\n\n"])
def test_the_well_known_downloads_are_read(end: str, start: bytes, final: bytes, tmp_path: Path) -> None:
    images, labels = noise(5), [5, 0, 4, 1, 9]
    data = start + table(images, labels, end).rstrip(b"\r\n") + final
    source = write_tree(tmp_path / "in", {"mnist_train.csv": data, "fashion-mnist_test.csv": data})
    assert detect_format(str(source), str(tmp_path)) == "mnist_csv"
    rows = [(label, image.tobytes()) for label, image in zip(labels, images, strict=True)]
    expected = [(f"{name}_{row}.png", *rows[row]) for name in ("test", "train") for row in range(5)]
    assert read_back(source, tmp_path) == expected
    assert unpickled(tmp_path / "back/batches.meta")["label_names"] == [str(number) for number in range(10)]


@pytest.mark.parametrize(("delimiter", "name"), [("\t", "train.tsv"), ("\t", "mnist_train.txt"), (";", "train.csv")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("named", [False, True])
def test_tabs_or_semicolons_may_be_between_values(
    delimiter: str, name: str, quoting: Any, named: bool, tmp_path: Path
) -> None:
    images, labels = noise(5), [5, 0, 4, 1, 9]
    source = write_tree(tmp_path / "in", {"notes.txt": b"of no use\n"})
    with (source / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        rows = [[*image.reshape(-1).tolist(), label] for image, label in zip(images, labels, strict=True)]
        if named:
            writer.writerows([[*(f"pixel{number}" for number in range(784)), "class"], *rows])
        else:
            writer.writerows([row[-1], *row[:-1]] for row in rows)
    for path in (source, source / name):
        assert detect_format(str(path), str(tmp_path)) == "mnist_csv"
    assert read_back(source, tmp_path) == [
        (f"train_{row}.png", label, image.tobytes())
        for row, (label, image) in enumerate(zip(labels, images, strict=True))
    ]


def test_one_file_is_a_data_set_too(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "in", {"digits.csv": table(noise(3), [0, 1, 1]), "other.csv": b"a,b\n", "labels.txt": b"a\nb"}
    )
    source = tmp_path / "in/digits.csv"
    assert detect_format(str(source), str(tmp_path)) == "mnist_csv"
    assert [row[:2] for row in read_back(source, tmp_path)] == [
        ("digits_0.png", 0),
        ("digits_1.png", 1),
        ("digits_2.png", 1),
    ]
    assert unpickled(tmp_path / "back/batches.meta")["label_names"] == ["a", "b"]


def test_a_header_may_tell_a_size_that_is_not_square(tmp_path: Path) -> None:
    images = noise(2, 4, 9)
    source = write_tree(tmp_path / "in", {"mnist_x.csv": header(4, 9) + table(images, [0, 1])})
    assert [item.image.size for item in Dataset.import_from(source)] == [(4, 9)] * 2


def test_meta_files_of_datumaro_give_ids_and_sizes(tmp_path: Path) -> None:
    images = noise(2, 4, 9)
    files = {"mnist_x.csv": table(images, [-1, 1]), "meta_x.csv": "имя/a,4,9\nb,9,4\n".encode()}
    items = list(Dataset.import_from(write_tree(tmp_path / "in", files)))
    assert [(item.id, item.label, item.image.size) for item in items] == [("имя/a", None, (4, 9)), ("b", 1, (9, 4))]
    assert items[1].image.data.tobytes() == images[1].tobytes()
    (tmp_path / "in/meta_x.csv").write_text("9,4\n9,4\n")
    assert [(item.id, item.image.size) for item in Dataset.import_from(tmp_path / "in")] == [
        ("x_0", (9, 4)),
        ("x_1", (9, 4)),
    ]
    write_tree(tmp_path / "in", {"mnist_x.csv": table(noise(2), [0, 1]), "meta_x.csv": b"one\ntwo\n"})
    assert [item.id for item in Dataset.import_from(tmp_path / "in")] == ["one", "two"]


def test_rows_are_read_alone_and_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_csv, "CHUNK", 1000)  # less than most lines
    images, labels = noise(300, 18, 18), [row % 101 for row in range(300)]
    source = write_tree(tmp_path / "in", {"mnist_train.csv": header(18, 18) + table(images, labels)})
    catalog = get_source("mnist_csv").describe(str(source), "")
    assert len(catalog.labels.names) == 101
    with get_source("mnist_csv").open_rows(catalog.files[0], catalog.labels) as rows:
        assert list(rows.labels) == labels
        for start, stop in ((0, 1), (123, 131), (299, 300), (5, 5), (0, 300)):
            found = rows.table(start, stop)
            assert found.column("image").to_pylist() == [image.tobytes() for image in images[start:stop]]
        taken = rows.take([7, 8, 250])
        assert taken.column("image").to_pylist() == [images[row].tobytes() for row in (7, 8, 250)]
        assert taken.column("label").to_pylist() == [7, 8, 48]


def test_written_files_are_what_the_csv_module_reads(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    source = write_tree(tmp_path / "in", {"mnist_a.csv": table(pixels, [3])})
    converted(source, tmp_path / "out", "mnist_csv")
    with open(tmp_path / "out/mnist_a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["3", *map(str, range(256))]]


LINE = table(noise(1), [1])
SHORT = LINE.rpartition(b",")[0] + b"\n"
DAMAGED: dict[str, tuple[dict[str, bytes], str]] = {
    "a value too large": ({"mnist_a.csv": LINE * 2 + b"1" + b",256" * 784}, r"mnist_a.csv: row 2: value 1 is '256'; expected 0 to 255"),
    "a value of a thousand": ({"mnist_a.csv": LINE + b"1" + b",0" * 783 + b",1000\n"}, r"row 1: value 784 is '1000'"),
    "a value below zero": ({"mnist_a.csv": LINE + b"1,-1" + b",0" * 783}, r"row 1: value 1 is '-1'"),
    "a value that is no number": ({"mnist_a.csv": LINE + b"1,x" + b",0" * 783}, r"row 1: value 1 is 'x'"),
    "a fraction": ({"mnist_a.csv": LINE + b"1,0.5" + b",0" * 783}, r"row 1: value 1 is '0.5'"),
    "an empty value": ({"mnist_a.csv": LINE + b"1," + b",20" * 783}, r"row 1: value 1 is ''"),
    "a value too few": ({"mnist_a.csv": LINE * 3 + SHORT + LINE}, r"row 3: has 784 values; expected 785, as in the first row"),
    "a value too many": ({"mnist_a.csv": LINE + LINE.strip() + b",0\n"}, r"row 1: has 786 values; expected 785"),
    "values that moved to the next line": ({"mnist_a.csv": LINE + SHORT + b"1," + LINE}, r"row 1: has 784 values"),
    "an empty line between": ({"mnist_a.csv": LINE + b"\n" + LINE}, r"row 1: has 1 value; expected 785"),
    "an image that datumaro had not": ({"mnist_a.csv": LINE + b"1,None\n"}, r"row 1: has 2 values; expected 785"),
    "a quote inside a value": ({"mnist_a.csv": LINE + LINE.replace(b",0,", b',1"2,', 1)}, r"row 1: value \d+ is '1\"2'; expected 0 to 255"),
    "a first row after a space": ({"mnist_a.csv": b" " + LINE * 2}, r"row 0: label is ' 1'"),
    "a first row with a sign": ({"mnist_a.csv": b"+" + LINE * 2}, r"row 0: label is '\+1'"),
    "a first row without label": ({"mnist_a.csv": b"NaN" + LINE[1:] + LINE}, r"row 0: label is 'NaN'"),
    "labels only": ({"mnist_a.csv": b"1\n2\n"}, r"mnist_a.csv: has 1 value per line; expected a label and the pixels of a square"),
    "no square": ({"mnist_a.csv": b"1" + b",0" * 783}, r"mnist_a.csv: has 784 values per line; expected a label"),
    "a label that is no number": ({"mnist_a.csv": LINE + b"x" + LINE[1:]}, r"row 1: label is 'x'; expected a number"),
    "a label that is half a number": ({"mnist_a.csv": LINE + b"1x" + LINE[1:]}, r"row 1: label is '1x'"),
    "a label of only a sign": ({"mnist_a.csv": LINE + b"-" + LINE[1:]}, r"row 1: label is '-'"),
    "a label of many digits": ({"mnist_a.csv": LINE + b"123456789" + LINE[1:]}, r"row 1: label is '123456789'"),
    "a label below -1": ({"mnist_a.csv": LINE + b"-2" + LINE[1:]}, r"row 1: label -2 is outside"),
    "an absurd label": ({"mnist_a.csv": b"70000" + LINE[1:]}, r"has label 70000; labels above 65535 need a labels.txt"),
    "a label outside the names": ({"mnist_a.csv": LINE, "labels.txt": b"one\n"}, r"row 0: label 1 is outside the label table, which has 1"),
    "one subset twice": ({"mnist_a.csv": LINE, "a.csv": LINE}, r"subset 'a' is also in 'a.csv'"),
    "meta file of another length": ({"mnist_a.csv": LINE, "meta_a.csv": b"a\nb\n"}, r"meta_a.csv: expected an id, .* each of 1 row$"),
    "meta file of another size": ({"mnist_a.csv": LINE, "meta_a.csv": b"5,5\n"}, r"meta_a.csv: row 0: size is '5 x 5'; .* has 784 pixels"),
    "meta file without numbers": ({"mnist_a.csv": LINE, "meta_a.csv": b"a,b,c\n"}, r"meta_a.csv: row 0: size is 'b x c'"),
    "meta file that is too large": ({"mnist_a.csv": LINE, "meta_a.csv": bytes(5000)}, r"meta_a.csv: is 5000 bytes, too large"),
    "meta file that is no text": ({"mnist_a.csv": LINE, "meta_a.csv": b"\xff"}, r"meta_a.csv: is not valid UTF-8"),
    "a value too large, after tabs": ({"a.tsv": LINE.replace(b",", b"\t") + b"1" + b"\t256" * 784}, r"a.tsv: row 1: value 1 is '256'"),
    "a value too few, after semicolons": ({"a.csv": (LINE + SHORT).replace(b",", b";")}, r"a.csv: row 1: has 784 values; expected 785"),
    "another delimiter in one row": ({"a.tsv": LINE.replace(b",", b"\t") + LINE.replace(b",", b";")}, r"a.tsv: row 1: has 1 value"),
    "one subset in two files": ({"train.csv": LINE, "train.tsv": LINE}, r"subset 'train' is also in 'train.csv'"),
    "a line without end": ({"mnist_a.csv": LINE + b"7" * 100_000}, r"mnist_a.csv: row 1: has 1 value"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_name_and_row(case: str, tmp_path: Path) -> None:
    files, reason = DAMAGED[case]
    source = write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "cifar", save_images=True)


def test_the_first_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_csv, "MAX_LINE", 1 << 10)
    source = write_tree(tmp_path / "in", {"mnist_a.csv": LINE})
    with pytest.raises(InputError, match=r"mnist_a.csv: has a line of more than 1024 bytes"):
        converted(source, tmp_path / "out", "cifar", input_format="mnist_csv")


@pytest.mark.parametrize(
    "data",
    [
        b"1,2,3,4,5\n",  # a small square, in a file that may be anything
        b"1" + b",0" * 783,
        b"1" + b",300" * 784,
        b"1.5" + b",0" * 784,
        header(),
        b"name,age\nmonday,3\n",
        b"",
    ],
)
def test_other_tables_are_not_detected(data: bytes, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"some.csv": data})
    assert not get_source("mnist_csv").looks_right(str(source), "")
    assert not get_source("mnist_csv").looks_right(str(source / "some.csv"), "")


# --- what is refused in writing ---


def test_images_that_are_not_square_or_of_one_size_are_refused(tmp_path: Path) -> None:
    def content(*sizes: tuple[int, int]) -> dict[str, Any]:
        data = np.empty(len(sizes), dtype=object)
        data[:] = [picture(0, *size).reshape(-1) for size in sizes]
        names = [f"{row}.png" for row in range(len(sizes))]
        return {"data": data, "labels": [0] * len(sizes), "filenames": names, "image_sizes": list(sizes)}

    wide = write_cifar(tmp_path / "wide", {"train": content((8, 16))})
    with pytest.raises(UsageError, match=r"mnist_train.csv: images are 8 x 16.*--resize 16x16"):
        converted(wide, tmp_path / "out", "mnist_csv")
    mixed = write_cifar(tmp_path / "mixed", {"train": content((8, 8), (9, 9))})
    with pytest.raises(
        UsageError, match=r"mnist_train.csv: images differ in size, but mnist_csv needs one size.*--resize"
    ):
        converted(mixed, tmp_path / "out", "mnist_csv")
    converted(mixed, tmp_path / "out", "mnist_csv", resize=(8, 8))


def test_rows_without_image_and_names_with_line_breaks_are_refused(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "cifar", {"train": {"labels": [0], "filenames": ["a.png"], "data": []}})
    with pytest.raises(InputError, match=r"train: 1 row has no image"):
        converted(source, tmp_path / "out", "mnist_csv")
    source = write_cifar(tmp_path / "names", {"train": batch(["a.png"], [0])}, ("a\rb",))
    with pytest.raises(UsageError, match=r"class 'a\\rb' cannot be written as a line"):
        converted(source, tmp_path / "out", "mnist_csv")
    with pytest.raises(UsageError, match=r"--images-per-batch: mnist_csv"):
        converted(source, tmp_path / "out", "mnist_csv", images_per_batch=2)


def test_a_set_can_be_saved_in_its_place(cifar: Path, tmp_path: Path) -> None:
    converted(cifar, tmp_path / "out", "mnist_csv")
    before = contents(tmp_path / "out")
    data = Dataset.import_from(tmp_path / "out")
    data.remove("train_1", "train").save(workers=1)
    after = contents(tmp_path / "out")
    lines = before["mnist_train.csv"].splitlines()
    assert after["mnist_train.csv"].splitlines() == [lines[0], *lines[2:]]
    assert after["mnist_test.csv"] == before["mnist_test.csv"]
    assert set(after) == set(before)


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"\xef\xbb\xbflabel,pixels\n", b"label,pixels\n"])
def test_a_byte_order_mark_is_no_header_and_costs_no_row(start: bytes, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", {"mnist_a.csv": start + LINE * 3})
    catalog = get_source("mnist_csv").describe(str(source), "")
    assert scan(get_source("mnist_csv"), catalog.files[0], catalog.labels, Wanted()).rows == 3


# --- columns that a header names ---


def lines(header: str, *columns: Any) -> bytes:
    """A table of text: each column is a list, or pixels, uint8 `[N, values]`."""
    rows = zip(*columns, strict=True)
    texts = (",".join(map(str, (v for c in row for v in (c if isinstance(c, list) else [c])))) for row in rows)
    return "\n".join([header, *texts]).encode() + b"\n"


def named(count: int, name: str = "pixel", first: int = 0) -> str:
    return ",".join(f"{name}{number:04d}" for number in range(first, first + count))


GRAYS = noise(4, 8, 8)
FLAT = GRAYS.reshape(4, -1).tolist()
RGB = np.random.default_rng(5).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
NAMED: dict[str, tuple[bytes, list[int | None], list[str]]] = {
    "OpenML's mnist_784": (lines(f"{named(64, first=1)},class", FLAT, [4, 2, 7, 0]), [4, 2, 7, 0], []),
    "HAM10000's L": (lines(f"{named(64)},label", FLAT, [2, 2, 6, 0]).replace(b"\n", b"\r\n"), [2, 2, 6, 0], []),
    "an index of pandas": (lines(f",label,{named(64)}", [0, 1, 2, 3], [4, 2, 7, 0], FLAT), [4, 2, 7, 0], ["columns not used: ''"]),
    "MNIST's test.csv": (lines(named(64), FLAT), [None] * 4, ["no labels found"]),
    "ids without labels": (lines(f"id,{named(64)}", list("abcd"), FLAT), [None] * 4, ["no labels found; columns not used: 'id'"]),
    "a name that is not known": (lines(f"letter,{named(64)}", [4, 2, 7, 0], FLAT), [4, 2, 7, 0], ["labels are from column 'letter', the only one beside the pixels"]),
    "numbers of pandas": (lines(",".join(map(str, range(65))), [4, 2, 7, 0], FLAT), [4, 2, 7, 0], ["the first line, the numbers of its columns, is not read as an image; labels are from the first column"]),
    "quoted values": (
        lines(named(64) + ",label", [[f'"{value}"' for value in row] for row in FLAT], ['"4"', '"2"', '"7"', '"0"']),
        [4, 2, 7, 0],
        [],
    ),
    "quoted values without a header": (
        lines("", ['"4"', 2, '"7"', 0], [[f'"{value}"' for value in row] for row in FLAT])[1:], [4, 2, 7, 0], []
    ),
    "quoted names": (lines('"Target","1x1",' + named(62) + ',"8x8"', [4, 2, 7, 0], FLAT), [4, 2, 7, 0], []),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_columns_are_found_by_their_names(name: str, tmp_path: Path) -> None:
    data, labels, notices = NAMED[name]
    source = write_tree(tmp_path / "in", {"a.csv": data})
    assert detect_format(str(source / "a.csv"), str(tmp_path)) == "mnist_csv"
    items = list(Dataset.import_from(source / "a.csv"))
    assert [item.label for item in items] == labels
    assert [item.image.data.tobytes() for item in items] == [image.tobytes() for image in GRAYS]
    found = get_source("mnist_csv").describe(str(source), "").notices
    assert list(found) == [f"a.csv: {notice}" for notice in notices]


def test_three_channels_are_together_in_each_pixel(tmp_path: Path) -> None:
    data = lines(f"{named(192)},label", RGB.reshape(4, -1).tolist(), [4, 2, 7, 0])
    source = write_tree(tmp_path / "in", {"hmnist_8_8_RGB.csv": data})
    items = list(Dataset.import_from(source))
    assert [item.label for item in items] == [4, 2, 7, 0]
    assert [item.image.data.tobytes() for item in items] == [image.tobytes() for image in RGB]
    [notice] = get_source("mnist_csv").describe(str(source), "").notices
    assert "192 values per row are read as 8 x 8 pixels with red, green and blue of each pixel together" in notice


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("order", ["emotion,pixels,Usage", "emotion, Usage, pixels", "emotion,pixels"])
def test_fer2013_has_pixels_in_one_column_and_subsets_in_another(
    order: str, quote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist_csv, "CHUNK", 1000)  # a few lines
    usage = ["Training", "PublicTest", "Training", "PrivateTest"]
    columns: dict[str, Any] = {
        "emotion": [4, 2, 6, 0],
        "pixels": [quote + " ".join(map(str, row)) + quote for row in FLAT],
        "Usage": usage,
    }
    data = lines(order, *(columns[name.strip()] for name in order.split(",")))
    source = write_tree(tmp_path / "in", {"fer2013.csv": data[:-1]}) / "fer2013.csv"
    assert detect_format(str(source), str(tmp_path)) == "mnist_csv"
    items = list(Dataset.import_from(source))
    subsets = usage if "Usage" in order else ["fer2013"] * 4
    expected = list(zip(subsets, columns["emotion"], (image.tobytes() for image in GRAYS), strict=True))
    assert sorted((item.subset, item.label, item.image.data.tobytes()) for item in items) == sorted(expected)
    converted(source, tmp_path / "out", "mnist_csv")
    again = list(Dataset.import_from(tmp_path / "out"))
    assert sorted((item.label, item.image.data.tobytes()) for item in again) == sorted(each[1:] for each in expected)


def test_labels_that_may_be_last_without_a_header_are_told(tmp_path: Path) -> None:
    pixels = np.arange(64 * 40).reshape(40, 64) % 251
    data = lines("", pixels.tolist(), [row % 7 for row in range(40)])[1:]
    source = write_tree(tmp_path / "in", {"mnist_a.csv": data})
    [notice] = get_source("mnist_csv").describe(str(source), "").notices
    assert "the first column (0 to 237) is read as labels; the last one (0 to 6) might be them" in notice
    write_tree(tmp_path / "in", {"mnist_a.csv": table(noise(40), [row % 7 for row in range(40)])})
    assert get_source("mnist_csv").describe(str(source), "").notices == ()


REFUSED: dict[str, tuple[bytes, str]] = {
    "pixels without label or header": (lines("", FLAT)[1:], r"has 64 values per line; .* add a header such as"),
    "too few names": (lines(f"label,{named(63)}", [4, 2, 7, 0], FLAT), r"header has 64 names, row 0 has 65 values"),
    "two names that may be labels": (lines(f"kind,{named(64)},sort", [0] * 4, FLAT, [0] * 4), r"'kind', 'sort' may all be labels"),
    "labels between pixels": (lines(f"{named(32)},label,{named(32, first=32)}", GRAYS.reshape(4, -1)[:, :33].tolist(), GRAYS.reshape(4, -1)[:, 32:].tolist()), r"expected a column of labels before or after"),
    "a table without pixels": (b"ImageId,Label\n1,0\n2,0\n", r"columns are 'ImageId', 'Label'; expected a column of labels"),
    "a bad label at the end": (lines(f"{named(64)},label", FLAT, [1, "x", 2, 3]), r"row 1: label is 'x'; expected a number"),
    "a pixel too large": (lines(f"{named(64)},label", [FLAT[0], [*FLAT[1][:63], 256]], [1, 2]), r"row 1: value 63 is '256'"),
    "a column too few": (lines(f"{named(64)},label", [FLAT[0], FLAT[1][1:]], [1, 2]), r"row 1: has 64 values; expected 65"),
    "a packed pixel too few": (lines("emotion,pixels", [1, 2], [" ".join(map(str, FLAT[0])), " ".join(map(str, FLAT[1][1:]))]), r"row 1: has 64 values; expected 65"),
    "no square after a header": (lines(f"label,{named(63)}", [1], [FLAT[0][1:]]), r"has 64 values per line, 63 of them pixels"),
    "a subset that is no text": (lines(f"label,{named(64)},Usage", [1], FLAT[:1], ["?"]).replace(b"?", b"\xff"), r"row 0: subset is not valid UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_columns_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    data, reason = REFUSED[name]
    source = write_tree(tmp_path / "in", {"mnist_a.csv": data})
    with pytest.raises(InputError, match=reason):
        converted(source, tmp_path / "out", "cifar", save_images=True, input_format="mnist_csv")
