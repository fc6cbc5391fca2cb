"""ImageNet with lists: what the lists say, as they are written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.imagenet_txt import ImagenetTxtSink
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, encoded, images, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")


def written(folder: Path, lists: dict[str, str | bytes], names: str = "cat\ndog\n", **more: bytes) -> Path:
    """A dataset with two images, as somebody's script would write it."""
    files = {"images/a.png": encoded(picture(1)), "images/b c.png": encoded(picture(2)), **more}
    texts = {name: text.encode() if isinstance(text, str) else text for name, text in lists.items()}
    return write_tree(folder, {"synsets.txt": names.encode(), **texts, **files})


def read(folder: Path, output: Path, **options: Any) -> list[tuple[Any, ...]]:
    quickly(folder, output, "cifar", save_images=True, input_format="imagenet_txt", **options)
    return cifar_rows(output)


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "b c.png", "d/e f.png"], [2, 0, None]), "test": batch(["z.png"], [1], 4)}
    quickly(write_cifar(tmp_path / "in", batches, ["cat", "sea lion", "猫"]), tmp_path / "out", "imagenet_txt")
    found = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").glob("*") if path.is_file()}
    assert found == {
        "synsets.txt": "cat\nsea lion\n猫\n",
        "train.txt": 'a.png 2\n"b c".png 0\n"d/e f".png \n',
        "test.txt": "z.png 1\n",
    }
    rows = [picture(seed).tobytes() for seed in (0, 1, 2, 4000)]
    assert images(tmp_path / "out" / "images") == dict(
        zip(["a.png", "b c.png", "d/e f.png", "z.png"], rows, strict=True)
    )


def test_lines_of_other_hands_are_understood(tmp_path: Path) -> None:
    lines = '\ufeffa.png 1\r\n\r\n"b c".png   0  \n./a.png\nmissing.JPEG 1\n"b c.png" 1\n.//a.png 0 0'
    found = read(written(tmp_path / "in", {"train.txt": lines}), tmp_path / "out")
    assert [(name, label, pixels and pixels[:9]) for name, label, _, pixels in found] == [
        ("a.png", 1, picture(1).tobytes()[:9]),
        ("b c.png", 0, picture(2).tobytes()[:9]),
        ("./a.png", None, picture(1).tobytes()[:9]),
        ("missing.JPEG", 1, None),
        ("b c_2.png", 1, picture(2).tobytes()[:9]),
        (".//a.png", 0, picture(1).tobytes()[:9]),
    ]


def test_names_repeat_in_a_list_and_a_notice_says_so(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train.txt": "a.png 0\na.png 1\n"})
    summary = quickly(folder, tmp_path / "out", "cifar", save_images=True)
    assert any("1 row with the file name" in notice for notice in summary.notices)


def test_jpeg_files_pass_through_with_their_extension(tmp_path: Path) -> None:
    content = encoded(picture(3), "JPEG")
    folder = write_tree(
        tmp_path / "in", {"synsets.txt": b"x\n", "t.txt": b"n01/a.JPEG 0\n", "images/n01/a.JPEG": content}
    )
    quickly(folder, tmp_path / "out", "imagenet_txt")
    assert (tmp_path / "out" / "images" / "n01" / "a.JPEG").read_bytes() == content
    assert (tmp_path / "out" / "t.txt").read_text() == "n01/a.JPEG 0\n"


@pytest.mark.parametrize("name", ["synsets", "\u017fynsets"])
def test_a_subset_called_as_the_file_of_the_classes_gets_another_name(name: str, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {name: batch(["a.png"], [1])})
    quickly(source, tmp_path / "out", "imagenet_txt")
    assert (tmp_path / "out" / "synsets.txt").read_text() == "cat\ndog\nship\n"
    quickly(tmp_path / "out", tmp_path / "back", "cifar")
    assert unpickled(tmp_path / "back" / name)["labels"] == [1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.png 0 1", "row 1: has 2 labels \\(0, 1\\); at most one"),
        ("a.png 2", "row 1: has label 2; expected 0 to 1"),
        ("a.png -1", "row 1: label is '-1'"),
        ("b c.png 1", "row 1: label is 'c.png'; .*quotes around a path with spaces"),
        ("a.png 99999999999999999999", "row 1: label is '9999"),
        ("a.png ٣", "row 1: label is '٣'"),
        ("../secret.png 0", "row 1: image path '../secret.png'"),
        ("x/../../secret.png 0", "row 1: image path"),
        ("/etc/secret.png 0", "row 1: image path '/etc/secret.png'"),
        ('x "b c".png 0', "row 1: quotes do not enclose a path"),
        ('"b c.png 0', "row 1: quotes do"),
    ],
)
def test_a_row_that_cannot_be_kept_is_refused_by_number(line: str, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train.txt": f"a.png 0\n{line}\na.png 1\n"})
    with pytest.raises(InputError, match=rf"train\.txt: {reason}"):
        read(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lists", "names", "reason"),
    [
        ({"train.txt": b"a.png 0\n\xff.png 1\n"}, "cat\n", r"train\.txt: line 2: is not UTF-8"),
        ({"train.txt": b"a" * 70_000}, "cat\n", r"train\.txt: line 1: is longer than 65536 bytes"),
        ({"train.txt": "a.png 0\n"}, "cat\n\ndog\n", r"synsets\.txt: line 2: is empty"),
        ({"train.txt": "a.png 0\n"}, "", r"row 0: has label 0; expected none"),
        ({}, "cat\n", r"in: has no image list"),
        ({"train.txt": "\n\n"}, "cat\n", "have no rows"),
    ],
)
def test_a_data_set_that_is_not_one_is_refused(
    lists: dict[str, str | bytes], names: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        read(written(tmp_path / "in", lists, names), tmp_path / "out")


def test_names_of_classes_are_asked_for(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train.txt": "a.png 0\n"})
    (folder / "synsets.txt").unlink()
    assert detect_format(str(folder), str(tmp_path)) == "image_csv"  # a list of images and labels, without names
    with pytest.raises(InputError, match=r"synsets\.txt: cannot be read: No such file"):
        read(folder, tmp_path / "out")


def test_a_list_that_changes_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    folder, source = written(tmp_path / "in", {"train.txt": "a.png 0\n"}), get_source("imagenet_txt")
    catalog = source.describe(str(folder), str(tmp_path))
    (folder / "train.txt").write_text("a.png 1\n\n")
    with pytest.raises(InputError, match=r"train\.txt: the file changed"):
        scan(source, catalog.files[0], catalog.labels, Wanted())


def test_a_list_with_other_labels_is_another_input(tmp_path: Path) -> None:
    source, digests = get_source("imagenet_txt"), set()
    for label in (0, 1):
        folder = written(tmp_path / str(label), {"train.txt": f"a.png {label}\n"})
        catalog = source.describe(str(folder), str(tmp_path))
        digests.add(scan(source, catalog.files[0], catalog.labels, Wanted()).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", " a", "a ", "\u00a0a", "\ud800"])
def test_a_class_that_is_not_a_line_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be written as a line of synsets\.txt; rename it with --remap"):
        ImagenetTxtSink().check_labels(LabelTable(("cat", name)))


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two classes are named 'cat'"):
        ImagenetTxtSink().check_labels(LabelTable(("cat", "dog", "cat")))


def test_superclasses_are_lost_and_declared(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", "imagenet_txt", limit=20)
    catalog = get_source("imagenet_txt").describe(str(tmp_path / "out"), str(tmp_path))
    assert catalog.labels == LabelTable(tuple(unpickled(cifar100 / "meta")["fine_label_names"]))


def test_a_list_of_nothing_but_bad_rows_is_refused_soon(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", {"train.txt": "a.png x\n" * 20_000})
    with pytest.raises(InputError, match=r"train.txt: row 10000: label is 'x'.* \(after 10000 other bad rows"):
        read(folder, tmp_path / "out")
