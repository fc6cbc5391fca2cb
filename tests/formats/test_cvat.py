"""CVAT for images: its XML as written, as CVAT and others write it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from beam_cifar import LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats import cvat
from beam_cifar.formats.cvat import CvatSink
from beam_cifar.formats.registry import detect_format, get_source
from tests.helpers.image_trees import batch, contents, encoded, images, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")
LABELS = "".join(f"<label><name>{name}</name><type>tag</type></label>" for name in ("dog", "cat"))
TASK = f"<meta><task><id>7</id><name>x</name><labels>{LABELS}</labels></task></meta>"
PROJECT = (
    "<meta><project><name>p</name><tasks><task><subset>Train</subset></task><task><subset>val</subset></task>"
    f"<task><subset>Train</subset></task></tasks><labels>{LABELS}</labels></project></meta>"
)


def image(name: str, *tags: str, **more: str) -> str:
    attributes = {"id": "0", "name": name, "width": "32", "height": "32", **more}
    shown = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    inner = "".join(f'<tag label="{tag}" source="manual"/>' for tag in tags)
    return f"<image {shown}>{inner}</image>"


def written(folder: Path, content: str | bytes, meta: str = TASK, name: str = "train.xml") -> Path:
    """A file with two images, as somebody's program would write it."""
    if isinstance(content, str):
        content = f"<annotations><version>1.1</version>{meta}{content}</annotations>".encode()
    return write_tree(folder, {name: content, **{f"images/{at}.png": encoded(picture(n)) for n, at in enumerate("ab")}})


def rows_of(folder: Path, output: Path) -> dict[str, list[tuple[str, str | None, bool]]]:
    """Id, class and whether there is an image, of each row by subset."""
    quickly(folder, output, "cifar", save_images=True)
    names = unpickled(output / "batches.meta")["label_names"]
    return {
        subset: [
            (name.rpartition(".")[0], None if number is None else names[number], pixels is not None)
            for name, number, _, pixels in cifar_rows(output, [subset])
        ]
        for subset in batch_names(output)
    }


def test_the_files_are_those_of_the_layout(tmp_path: Path) -> None:
    batches = {"train": batch(["a.png", "d/e &'f.png", 'q"\\.png'], [1, None, 0]), "te_st": batch(["b.png"], [2], 4)}
    classes = ["猫", "sea\nlion", " <\"a\"> & 'b'\t\r"]
    quickly(write_cifar(tmp_path / "in", batches, classes), tmp_path / "out", "cvat")
    root = ElementTree.parse(tmp_path / "out" / "train.xml").getroot()
    assert (root.tag, root.findtext("version"), root.findtext("meta/task/size")) == ("annotations", "1.1", "3")
    assert [each.text for each in root.iterfind("meta/task/labels/label/name")] == classes
    found = [(dict(each.attrib), [dict(tag.attrib) for tag in each]) for each in root.iterfind("image")]
    size = {"width": "32", "height": "32"}
    assert found == [
        ({"id": "0", "name": "a.png", **size}, [{"label": "sea\nlion", "source": "manual"}]),
        ({"id": "1", "name": "d/e &'f.png", **size}, []),
        ({"id": "2", "name": "q%22%5C.png", **size}, [{"label": "猫", "source": "manual"}]),
    ]
    (tag,) = ElementTree.parse(tmp_path / "out" / "te_st.xml").getroot().iterfind("image/tag")
    assert tag.attrib["label"] == classes[2]
    assert images(tmp_path / "out" / "images") == {
        "a.png": picture(0).tobytes(),
        "d/e &'f.png": picture(1).tobytes(),
        "q%22%5C.png": picture(2).tobytes(),
        "b.png": picture(4000).tobytes(),
    }
    assert len(contents(tmp_path / "out")) == 6


def test_a_project_has_the_images_of_several_subsets(tmp_path: Path) -> None:
    content = image("a.png", "cat", subset="Train") + image("c.png", subset="val") + image("b.png", "dog", subset="val")
    folder = written(tmp_path / "in", content, PROJECT, "annotations.xml")
    write_tree(tmp_path / "in", {"images/val/c.png": encoded(picture(5))})
    assert detect_format(str(folder), str(tmp_path)) == "cvat"
    assert get_source("cvat").describe(str(folder), str(tmp_path)).labels == LabelTable(("dog", "cat"))
    assert rows_of(folder, tmp_path / "out") == {
        "Train": [("a", "cat", True)],
        "val": [("c", None, True), ("b", "dog", True)],
    }


@pytest.mark.parametrize(("said", "subset"), [("<subset>Train</subset>", "Train"), ("<subset></subset>", "train")])
def test_the_subset_of_a_task_is_what_it_says_or_the_name_of_the_file(said: str, subset: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", image("a.png", "cat"), TASK.replace("<labels>", f"{said}<labels>"))
    assert rows_of(folder, tmp_path / "out") == {subset: [("a", "cat", True)]}


def test_what_follows_a_long_meta_and_several_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.storage.COPY_BYTES", 7)
    content = image("a.png", "cat", subset="Train") + image("b.png", "dog", "dog", subset="val")
    folder = written(tmp_path / "in", content, PROJECT)
    assert rows_of(folder, tmp_path / "out") == {"Train": [("a", "cat", True)], "val": [("b", "dog", True)]}


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    shapes = '<box label="cat" xtl="0"><attribute name="x">1</attribute></box><mask/><thing/>'
    content = (
        image("a.png", "cat").replace("</image>", f"{shapes}</image>") + '<track id="0" label="dog"><box/></track>'
    )
    content = content.replace('"32">', '"32" subset="val">')
    notices = quickly(written(tmp_path / "in", content, PROJECT), tmp_path / "out", "npz").notices
    expected = "ignored 4 annotations that are not image labels (box: 1, mask: 1, track: 1, unknown: 1)"
    assert expected in " ".join(notices)


BOMB = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotations><image name="&y;"/></annotations>'
ELSEWHERE = b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><annotations/>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (image("a.png", "cat", "dog"), r"row 0.* has several tags \('cat', 'dog'\); at most one"),
        (image("a.png", "bird"), "row 0.* tag 'bird' is not a label in <meta>; expected one of its 2 labels"),
        (image("a.png", ""), "row 0.* tag '' is not a label"),
        (image("", "cat"), "row 0.* has no name; expected the path of an image"),
        (image("../a.png", "cat"), "row 0.* leaves the image folder"),
        (image("/a.png", "cat"), "row 0.* leaves the image folder"),
        ("<image id='0'></img>", "is not valid XML: Opening and ending tag mismatch"),
        ("<x>" * 200, "has elements 101 deep; at most 100"),
        (image("&unknown;.png"), "is not valid XML: Entity 'unknown' not defined"),
        (b"<annotations><image", "is not valid XML"),
        (b"", "is not valid XML"),
        (b"\xff", "is not valid XML"),
        (b'<annotations><image name="\x00"/></annotations>', "is not valid XML"),
        (b"<annotations>\x00</annotations>", "is not valid XML: .*Char 0x0 out of allowed range"),
        (b"<annotation><folder/></annotation>", "starts with <annotation>; expected CVAT's <annotations>"),
        (BOMB, "has a DOCTYPE, which is not read because of its entities; remove it"),
        (ELSEWHERE, "has a DOCTYPE"),
        (b"<annotations><meta><label><name>" + b"x" * 70_000, "a name has over 65536 characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_file_and_row(content: str | bytes, reason: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", content)
    with pytest.raises(InputError, match=reason) as refused:
        quickly(folder, tmp_path / "out", "npz", input_format="cvat")
    assert str(refused.value).startswith(str(folder))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [{"subset": "test"}, {}])
def test_an_image_of_a_project_without_a_known_subset_is_refused_once(more: dict[str, str], tmp_path: Path) -> None:
    folder = written(tmp_path / "in", image("a.png", "cat", subset="val") + image("b.png", "cat", **more), PROJECT)
    with pytest.raises(InputError, match=r"train\.xml: row 0: subset is .*; expected one of those in <meta>"):
        quickly(folder, tmp_path / "out", "npz")
    summary = quickly(folder, tmp_path / "out", "npz", on_error="quarantine")
    assert (summary.read, summary.written) == (2, 1)


def test_too_many_subsets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "MAX_SUBSETS", 1)
    with pytest.raises(InputError, match=r"train\.xml: has 2 subsets; at most 1 are supported"):
        quickly(written(tmp_path / "in", image("a.png"), PROJECT), tmp_path / "out", "npz")


def test_a_subset_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", image("a.png", "cat"))
    written(folder, image("a.png", "dog"), TASK.replace("<labels>", "<subset>train</subset><labels>"), "two.xml")
    with pytest.raises(InputError, match=r"two\.xml: has subset 'train', as .*train\.xml has; expected one file for"):
        quickly(folder, tmp_path / "out", "npz")


def test_classes_that_differ_between_files_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", image("a.png", "cat"))
    written(tmp_path / "in", image("b.png"), TASK.replace("dog", "ox"), "val.xml")
    with pytest.raises(InputError, match=r"val\.xml: classes differ from .*train\.xml"):
        quickly(folder, tmp_path / "out", "npz")


@pytest.mark.parametrize("name", ["a\x01", "\x00", "\ufffe"])
def test_classes_that_xml_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="characters that XML does not allow; rename it with --remap"):
        CvatSink().check_labels(LabelTable(("cat", name)))


def test_other_xml_is_not_taken_for_it(tmp_path: Path) -> None:
    tree = {f"{name}/1.png": encoded(picture(at)) for at, name in enumerate(("cat", "dog"))}
    for stray in (b"<annotation><folder/></annotation>", b"<annotations><x/></annotations>", b"not XML", b"", BOMB):
        folder = write_tree(tmp_path / "in", {**tree, "notes.xml": stray})
        assert detect_format(str(folder), str(tmp_path)) == "imagenet"
