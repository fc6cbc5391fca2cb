"""`beam-cifar report`: what is on the page, that nothing in the data can change it, and how it is written."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import beam_cifar.report.build
from beam_cifar import LabelTable, Stats
from beam_cifar.analysis.stats import DuplicateGroup, SizeCount, SubsetStats
from beam_cifar.errors import InputError, OutputError
from beam_cifar.report.build import MAX_PAGE_BYTES, Written, report
from beam_cifar.report.markup import cut, percent, template_environment, visible
from beam_cifar.report.model import TILE_SIDE, Balance, Provenance, Report, Sheet, Tile
from beam_cifar.report.page import page
from beam_cifar.report.pictures import data_uri
from beam_cifar.report.provenance import read_provenance
from tests.helpers.commands import Command
from tests.helpers.image_trees import Pixels, batch, encoded, picture, quickly, write_cifar, write_tree

HOSTILE = [
    "<script>alert(1)</script>",
    'a"onerror="x',
    "</style><img src=http://x>",
    "line\nbreak\u202e",
    "\ud800",
    "Кот",
    "",
]


class Parsed(HTMLParser):
    """A page as a browser sees it: elements with their attributes, and the text of each table's rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, *cells: str) -> bool:
        return list(cells) in self.rows


def subset_of(name: str, counts: dict[str, int], unlabelled: int = 0, **more: Any) -> SubsetStats:
    rows = sum(counts.values()) + unlabelled
    known: dict[str, Any] = {"images": rows, "sizes": (SizeCount(32, 32, rows),), "mean": (1.0, 2.0, 3.0)}
    known |= {"std": (4.0, 5.0, 6.0), "duplicates": 0, "digest": "0123456789abcdef" * 2}
    return SubsetStats(name=name, rows=rows, unlabelled=unlabelled, labels=counts, **known | more)


def stats_of(*subsets: SubsetStats, labels: LabelTable | None = None, **more: Any) -> Stats:
    rows = sum(subset.rows for subset in subsets)
    images = sum(subset.images for subset in subsets)
    names = tuple(dict.fromkeys(name for subset in subsets for name in subset.labels))
    known: dict[str, Any] = {
        "sizes": (SizeCount(32, 32, images),) if images else (),
        "mean": (125.3, 2, 3),
        "std": (4, 5, 6),
    }
    known |= {"across": {}, "groups": (), "duplicate_groups": 0, "conflicting": 0, "notices": ()}
    known |= {"channels": {"3": images}, "encodings": {"raw": images}}
    unlabelled = sum(subset.unlabelled for subset in subsets)
    table = labels or LabelTable(names)
    known |= {"rows": rows, "images": images, "unlabelled": unlabelled, "labels": table, "subsets": subsets}
    return Stats(path="/data/set", format="cifar", title="CIFAR-10", **known | more)


def drawn(found: Stats, **more: Any) -> Parsed:
    return Parsed(page(Report(found, "set", more.pop("title", "set"), **more)))


TRAIN, TEST = subset_of("data_batch_1", {"cat": 1500, "dog": 20}), subset_of("test_batch", {"cat": 7, "dog": 0}, 3)


# --- markup

PARAGRAPH = template_environment().from_string("""<p title="{{ value }}">{{ text }}</p>""")


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_texts_and_attributes_come_back_as_they_were(text: str, value: str) -> None:
    made = PARAGRAPH.render(text=text, value=value)
    made.encode()
    parsed = Parsed(made)
    assert (parsed.text, parsed.elements) == (visible(text), [("p", {"title": visible(value)})])


@given(st.text(st.characters(codec=None)), st.integers(10, 200))
def test_what_is_cut_takes_no_more_bytes_than_it_may(text: str, most: int) -> None:
    shown = cut(text, most)
    assert len(PARAGRAPH.render(text=shown, value="").encode()) <= most + len('<p title=""></p>')
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


def test_what_does_not_show_is_escaped() -> None:
    assert visible("a\nb\u202e\ud800\x00") == "a\\nb\\u202e\\ud800\\x00"
    assert visible("Кот ✓") == "Кот ✓"


def test_no_template_takes_a_value_for_markup() -> None:
    folder = Path(beam_cifar.report.build.__file__).parent / "templates"
    text = "".join(path.read_text("utf-8") for path in folder.glob("*.html"))
    assert "{{ report.title|cut(NAME_BYTES) }}" in text
    assert not re.search(r"\|\s*safe\b|autoescape|Markup|<script", text)


def test_shares_are_never_rounded_to_none_or_all() -> None:
    assert [percent(part, 10_000) for part in (0, 1, 1250, 9999, 10_000)] == [
        "0 %",
        "< 0.1 %",
        "12.5 %",
        "> 99.9 %",
        "100 %",
    ]


# --- the page


def test_nothing_on_the_page_loads_runs_or_leads_elsewhere() -> None:
    found = drawn(stats_of(TRAIN, TEST), sheets=(Sheet(0, 9, (Tile("a", "s", 1, 1, "data:image/webp;base64,AA"),)),))
    policy = next(meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert all((image["src"] or "").startswith("data:image/") for image in found.all("img"))
    assert all((link["href"] or "").startswith("#") for link in found.all("a"))
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert "url(" not in found.text
    assert "@import" not in found.text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_from_the_data_are_text_wherever_they_stand(hostile: str) -> None:
    usual = _everywhere("usual")
    found = _everywhere(hostile)
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in usual.elements]
    assert [set(attributes) for _, attributes in found.elements] == [
        set(attributes) for _, attributes in usual.elements
    ]
    if hostile:
        assert found.text.count(visible(hostile)) == usual.text.count("usual")


def _everywhere(name: str) -> Parsed:
    subset = subset_of(name, {name: 3})
    labels = LabelTable((name,), (name,), (0,))
    group = DuplicateGroup(((name, name, name), (name, name, name)), 2)
    made = stats_of(subset, labels=labels, groups=(group,), duplicate_groups=1, notices=(name,))
    made = replace(made, title=name, format=name)
    tile = Tile(name, name, 32, 32, "data:,")
    provenance = Provenance(
        name, name, ((name, name),), {name: Balance(3, 3, 0, 0)}, Balance(3, 3, 0, 0), 0, ((name, name, name),), (name,)
    )
    return Parsed(page(Report(made, name, name, (Sheet(0, 3, (tile,)),), (tile,), provenance)))


def test_the_page_is_structured() -> None:
    found = drawn(stats_of(TRAIN, TEST), sheets=(Sheet(0, 9, (Tile("a", "s", 1, 1, "data:,"),)),))
    assert found.all("html") == [{"lang": "en"}]
    assert [tag for tag, _ in found.elements if tag in ("h1", "h2")] == ["h1", *["h2"] * 5]
    assert all(image.get("alt") for image in found.all("img"))
    assert all(cell.get("scope") in ("row", "col") for cell in found.all("th"))
    anchors = {attributes.get("id") for _, attributes in found.elements}
    assert {(link["href"] or "")[1:] for link in found.all("a")} <= anchors
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_subsets_and_classes_have_their_numbers() -> None:
    found = drawn(stats_of(TRAIN, TEST))
    size = "32\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}32"
    assert found.row("data_batch_1", "1,520", "1,520", "0", "0", size, "0123456789abcdef")
    assert found.row("test_batch", "10", "10", "3", "0", size, "0123456789abcdef")
    assert found.row("All", "1,530", "1,530", "3", "0", size, "")
    assert found.row("0cat", "1,500", "7", "1,507")
    assert found.row("1dog", "20", "0", "20")
    assert found.row("unlabelled", "0", "3", "3")


def test_numbered_batches_are_one_piece_of_a_bar() -> None:
    batches = [subset_of(f"data_batch_{number}", {"cat": 10, "dog": number}) for number in (1, 2, 3)]
    found = drawn(stats_of(*batches, subset_of("test_batch", {"cat": 2, "dog": 2})))
    assert found.row("0cat", "30", "2", "32")
    assert "data_batch (3 subsets) 36" in found.text


def test_more_subsets_than_colours_end_in_one_piece() -> None:
    found = drawn(
        stats_of(
            *(subset_of(f"from {name}", {"cat": rows}) for name, rows in zip("abcdefgh", range(1, 9), strict=True))
        )
    )
    assert found.row("0cat", "8", "7", "6", "15", "36")
    assert "5 other subsets 15" in found.text


def test_superclasses_group_their_classes() -> None:
    labels = LabelTable(("cat", "oak", "elm"), ("trees", "animals"), (1, 0, None))
    text = page(Report(stats_of(subset_of("train", {"cat": 4, "oak": 5, "elm": 6}), labels=labels), "set", "set"))
    found, captions = Parsed(text), re.findall(r"<caption><bdi>(.*?)</bdi>", text)
    assert captions == ["trees", "animals", "without superclass"]
    assert found.row("1oak", "5")


def test_classes_of_one_name_are_counted_once() -> None:
    found = drawn(stats_of(subset_of("train", {"cat": 4, "dog": 5}), labels=LabelTable(("cat", "dog", "cat"))))
    assert found.row("0cat", "4")
    assert found.row("2cat (counted with 0)", "0")


@pytest.mark.parametrize("classes", [1, 10, 100, 201, 1000, 2500])
def test_the_text_of_any_number_of_classes_is_small(classes: int) -> None:
    names = [f"{'<&' * 200}{number}" for number in range(classes)]
    labels = LabelTable(tuple(names), tuple(names), tuple(range(classes)))
    subsets = [subset_of(f"{'&' * 300}{letter}", dict.fromkeys(names, 3)) for letter in "abcdefgh"]
    shown = min(classes, 1000)
    sheets = tuple(
        Sheet(label, 24, tuple(Tile("'" * 200, "s") for _ in range(max(1, min(10, 3000 // shown)))))
        for label in range(shown)
    )
    text = page(Report(stats_of(*subsets, labels=labels), "set", "&" * 10_000, sheets))
    assert len(text.encode()) < 2_500_000
    assert text.count("<figure>") == shown


def test_many_subsets_and_sizes_are_summed_up() -> None:
    sizes = tuple(SizeCount(side, 2 * side, 1) for side in range(10, 900))
    found = drawn(stats_of(*(subset_of(f"part {number} of it", {"cat": 1}) for number in range(890)), sizes=sizes))
    assert "690 more subsets with 690 rows" in found.text
    assert (
        "890 sizes (height\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}width), heights from 10 to 899 and widths from 20 to 1,798 pixels."
        in found.text
    )
    assert sum(int(row[1]) for row in found.rows if " to " in row[0]) == 890


def test_channels_are_told_as_bytes_and_as_shares() -> None:
    found = drawn(stats_of(TRAIN))
    assert found.row("Red", "125.30", "4.00", "")
    assert "mean = (0.4914, 0.0078, 0.0118)" in found.text


# --- duplicates


def test_a_leak_between_splits_stands_at_the_top() -> None:
    across = {("data_batch_1", "test_batch"): 4, ("test_batch", "data_batch_1"): 1}
    found = drawn(
        stats_of(
            TRAIN, TEST, across=across, duplicate_groups=1, groups=(DuplicateGroup((("data_batch_1", "x", "cat"),), 5),)
        )
    )
    assert found.text.index(
        "Leak. data_batch_1 and test_batch share images: 1 row of data_batch_1, 4 rows of test_batch"
    ) < found.text.index("Subsets")
    assert found.row("data_batch_1", "test_batchleak", "1", "4")


def test_batches_of_one_split_that_share_images_are_no_leak() -> None:
    other = subset_of("data_batch_2", {"cat": 5})
    across = {
        ("data_batch_1", "data_batch_2"): 2,
        ("data_batch_2", "data_batch_1"): 2,
        ("data_batch_1", "test_batch"): 0,
    }
    found = drawn(stats_of(TRAIN, other, TEST, across=across, duplicate_groups=2, groups=()))
    assert "No leak. train and test share no image." in found.text
    assert found.row("data_batch_1", "data_batch_2", "2", "2")


def test_groups_name_their_rows_and_say_whose_labels_differ() -> None:
    same = DuplicateGroup((("train", "a", "cat"), ("train", "b", "cat")), 2)
    differ = DuplicateGroup((("train", "c", "cat"), ("test", "d", None)), 12)
    found = drawn(stats_of(TRAIN, groups=(same, differ), duplicate_groups=9, conflicting=3))
    assert "9 images occur more than once. For 3 of them the labels differ." in found.text
    assert "The first 2 images" in found.text
    assert "2 timesa train · catb train · cat" in found.text
    assert "12 timeslabels differc train · catd test · unlabelledand 10 more" in found.text


# --- pictures


def uri_pixels(uri: str) -> Pixels:
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    pixels: Pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return pixels


def test_small_pictures_keep_every_pixel() -> None:
    pixels = picture(1)
    assert np.array_equal(uri_pixels(data_uri(pixels, 10_000)), pixels)


@pytest.mark.parametrize(
    ("size", "shown"), [((640, 320), (64, 32)), ((65, 65), (64, 64)), ((2, 3000), (1, 64)), ((1, 1), (1, 1))]
)
def test_large_pictures_are_scaled_down(size: tuple[int, int], shown: tuple[int, int]) -> None:
    for channels in (1, 3):
        pixels = np.full((channels, *size), 90, np.uint8)
        made = uri_pixels(data_uri(pixels, 10_000))
        assert made.shape == (3, *shown)
        assert abs(made.astype(int) - 90).max() <= 3


@pytest.mark.parametrize("most", [50, 400, 900, 3000, 20_000])
def test_a_picture_takes_no_more_than_its_share(most: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, TILE_SIDE, TILE_SIDE), dtype=np.uint8)
    made = data_uri(noise, most)
    assert len(made) <= most
    assert bool(made) == (most >= 900)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 + 9 rows of 7 classes, some without label; train and test share two images."""
    train = batch([f"item_{row}<b>.png" for row in range(40)], [None if row % 8 == 7 else row % 8 for row in range(40)])
    test = batch([f"test_{row}.png" for row in range(9)], [0] * 9, seed=1)
    test["data"][4] = train["data"][5]
    test["data"][6] = train["data"][5]
    names = ["<script>alert(1)</script>", "Кот", "a" * 300, "line\nbreak", "five", "six", "seven", "never"]
    return write_cifar(tmp_path_factory.mktemp("hostile") / "set", {"data_batch_1": train, "test_batch": test}, names)


@pytest.fixture(scope="module")
def written(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, str]:
    made = report(str(hostile), str(tmp_path_factory.mktemp("page") / "page.html"), workers=1)
    return made, Path(made.path).read_text("utf-8")


def test_a_report_has_pictures_of_every_class(written: tuple[Written, str]) -> None:
    made, text = written
    figures = re.findall(
        r"<figcaption>(.*?) ?<span class=\"soft\"> ([\d,]+) images?</span></figcaption>(.*?)</figure>", text
    )
    assert [(int(images), content.count("<img")) for _, images, content in figures] == [(14, 10), *[(5, 5)] * 6, (5, 5)]
    assert figures[-1][0] == "unlabelled"
    assert made.pictures == sum(content.count("<img") for *_, content in figures)


def test_pictures_are_those_of_the_rows_that_they_name(written: tuple[Written, str]) -> None:
    expected = {f"item_{row}": picture(row) for row in range(40)}
    found = re.findall(r'src="(data:[^"]*)" alt="(item_\d+)&lt;b&gt; \(32 . 32\)"', written[1])
    assert len(found) >= 35
    for uri, item_id in found:
        assert np.array_equal(uri_pixels(uri), expected[item_id])


def test_the_leak_of_a_real_set_is_found(written: tuple[Written, str]) -> None:
    parsed = Parsed(written[1])
    assert "Leak. data_batch_1 and test_batch share images: 1 row of data_batch_1, 2 rows of test_batch." in parsed.text
    assert "3 timeslabels differitem_5<b> data_batch_1 · sixtest_4 test_batch" in parsed.text


def test_the_page_tells_nothing_of_the_machine(written: tuple[Written, str], hostile: Path) -> None:
    made, text = written
    assert str(hostile.parent) not in text
    assert str(Path(made.path).parent) not in text
    assert made.bytes == len(text.encode()) < MAX_PAGE_BYTES


def test_equal_sets_have_equal_pages(written: tuple[Written, str], hostile: Path, tmp_path: Path) -> None:
    report(str(hostile), str(tmp_path / "deep" / "er" / "again.html"), workers=2)
    assert (tmp_path / "deep" / "er" / "again.html").read_text("utf-8") == written[1]
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["again.html"]


def test_pictures_fill_what_the_text_leaves(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam_cifar.report.build, "MAX_PAGE_BYTES", 40_000)
    made = report(str(hostile), str(tmp_path / "page.html"), workers=1)
    assert 25_000 < made.bytes <= 40_000
    assert (tmp_path / "page.html").read_text("utf-8").count("<img") == made.pictures + 1


@pytest.mark.parametrize("kind", ["no images", "no rows", "one", "mixed"])
def test_sets_of_little_or_of_many_kinds_have_a_page(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "set"
    if kind == "mixed":
        sizes = [(7, 300), (200, 100), (64, 64), (65, 10), (1, 1)]
        files = {
            f"class {row % 2}/{row}.{kind}": encoded(
                picture(row, *size, 1 + 2 * (row % 2)), kind.upper().replace("JPG", "JPEG")
            )
            for row, size in enumerate(sizes)
            for kind in ("png", "jpg")
        }
        write_tree(source, files)
    else:
        rows = {"no images": 5, "no rows": 0, "one": 1}[kind]
        content = (
            batch([f"{row}.png" for row in range(rows)], [0] * rows)
            if rows
            else {"data": np.empty((0, 3072), np.uint8), "labels": [], "filenames": []}
        )
        if kind == "no images":
            del content["data"]
        write_cifar(source, {"train": content})
    made = report(str(source), str(tmp_path / "page.html"), workers=1)
    found = Parsed((tmp_path / "page.html").read_text("utf-8"))
    assert made.pictures == {"no images": 0, "no rows": 0, "one": 1, "mixed": 10}[kind]
    assert ("There are no images." in found.text) == (made.pictures == 0)


def test_one_subset_is_reported_alone(hostile: Path, tmp_path: Path) -> None:
    made = report(str(hostile), str(tmp_path / "page.html"), subsets=("test",), title="The test batch", workers=1)
    found = Parsed((tmp_path / "page.html").read_text("utf-8"))
    assert made.stats.images == 9
    assert "The test batch" in found.text
    assert "data_batch_1" not in found.text


def test_an_archive_has_a_page(cifar10_archive: Path, tmp_path: Path) -> None:
    made = report(str(cifar10_archive), str(tmp_path / "page.html"), workers=1)
    assert (made.stats.images, made.pictures) == (1203, 100)
    assert "cifar-10-python.tar.gz" in (tmp_path / "page.html").read_text("utf-8")


# --- outputs of this program


@pytest.fixture
def output(without_runner: None, tmp_path: Path) -> Path:
    source = write_cifar(
        tmp_path / "source", {"train": batch(["a", "b", "c", "d"], [0, 1, 1, None]), "test": batch(["e"], [2], seed=1)}
    )
    quickly(source, tmp_path / "out", "imagenet_with_subset_dirs", labels=("cat", "dog"), remaps=("dog:do/g",))
    return tmp_path / "out"


def test_an_output_has_the_balance_of_its_job(output: Path, tmp_path: Path) -> None:
    report(str(output), str(tmp_path / "page.html"), workers=1)
    found = Parsed((tmp_path / "page.html").read_text("utf-8"))
    assert found.row("train", "4", "3", "1", "0")
    assert found.row("All", "5", "3", "2", "0")
    assert found.row("do%2Fg", "do/g", "classes")
    assert "labelscat, dog" in found.text
    assert "remapsdog:do/g" in found.text
    assert "was changed since" not in found.text


def test_an_output_that_was_changed_since_is_told(output: Path, tmp_path: Path) -> None:
    write_tree(output, {"train/cat/more.png": encoded(picture(9))})
    report(str(output), str(tmp_path / "page.html"), workers=1)
    assert "The job wrote 3 rows, but now there are 4: the output has been changed since." in (
        tmp_path / "page.html"
    ).read_text("utf-8")


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"counts": {"read": 3}}', b"\xff\xfe", b"null"])
def test_a_damaged_manifest_is_told_and_costs_nothing_else(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "out.beam_cifar"
    write_tree(folder, {"manifest.json": content})
    with pytest.raises(InputError, match=r"^manifest\.json: not a beam-cifar manifest"):
        read_provenance(str(tmp_path / "out"))
    found = drawn(stats_of(TRAIN), provenance_error="How it was made is not known: why.")
    assert "How it was made is not known: why." in found.text


def test_rows_that_moved_between_subsets_are_explained() -> None:
    provenance = Provenance(
        "1", "CIFAR-10", (), {"a": Balance(9, 0, 0, 0), "b": Balance(0, 9, 0, 0)}, Balance(9, 9, 0, 0), 2, (), ()
    )
    found = drawn(stats_of(TRAIN), provenance=provenance)
    assert "The job moved rows between subsets" in found.text
    assert "2 rows lost their label." in found.text
    wrong = replace(provenance, total=Balance(9, 8, 0, 0))
    assert "The counts do not add up." in drawn(stats_of(TRAIN), provenance=wrong).text


# --- the command


def test_the_command_says_what_it_wrote(command: Command, hostile: Path, tmp_path: Path) -> None:
    code, out, err = command("report", hostile, "-o", tmp_path / "page.html", "--workers", 1, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["output"] == str(tmp_path / "page.html")
    assert facts["bytes"] == (tmp_path / "page.html").stat().st_size
    assert (facts["images"], facts["classes"]) == (49, 8)


def test_an_existing_file_is_only_replaced_on_request(command: Command, hostile: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "page.html"
    page_file.write_text("mine")
    code, _, err = command("report", hostile, "-o", page_file)
    assert (code, page_file.read_text()) == (4, "mine")
    assert "page.html: already exists; replace it with --overwrite" in err
    assert command("report", hostile, "-o", page_file, "--overwrite", "--workers", 1)[0] == 0
    assert page_file.read_text("utf-8").startswith("<!doctype html>")


def test_a_failed_report_leaves_the_old_page_and_nothing_else(command: Command, tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "set", {"train": batch(["a"], [0])})
    (source / "train").write_bytes((source / "train").read_bytes()[:-40])
    (tmp_path / "page.html").write_text("mine")
    code, _, err = command("report", source, "-o", tmp_path / "page.html", "--overwrite", "--workers", 1)
    assert (code, (tmp_path / "page.html").read_text()) == (3, "mine")
    assert "train" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "set"]


def test_a_page_is_never_put_into_the_data_set(hostile: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is inside the dataset"):
        report(str(hostile), str(hostile / "report.html"))
    with pytest.raises(OutputError, match="is a directory; give a file name"):
        report(str(hostile), str(tmp_path))


def test_a_missing_data_set_is_refused(command: Command, tmp_path: Path) -> None:
    code, _, err = command("report", tmp_path / "none", "-o", tmp_path / "page.html")
    assert (code, "none: no such file or directory" in err) == (3, True)
    assert not (tmp_path / "page.html").exists()
