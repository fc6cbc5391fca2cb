"""`beam-cifar stats`: what it says of a set is what numpy and hashlib say of the pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_cifar import Example, LabelTable, Stats, stats
from beam_cifar.analysis.derive import repeats_of
from beam_cifar.analysis.stats import SizeCount
from beam_cifar.analysis.tally import ROW, decode_tally, tally_of
from beam_cifar.data import block
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.example import table_of
from beam_cifar.jobs import serial
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import unpickled
from tests.helpers.tables import documented_fields


@pytest.fixture(autouse=True)
def plainly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads without a runner where the runner is not the point."""
    if "beam" not in request.fixturenames:
        monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two batches of 3 and 2 pictures; one is without label."""
    batches = {
        "data_batch_1": batch(["a.png", "b.png", "c.png"], [0, 1, None], seed=1),
        "test_batch": batch(["d.png", "e.png"], [1, 1], seed=2),
    }
    return write_cifar(tmp_path / "small", batches)


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    """All pixels of a batch that somebody else's unpickler reads, uint8 [N, 3, H * W]."""
    data = unpickled(path)["data"]
    return np.asarray(data).reshape(len(data), 3, -1)


def item_digest(pixels: np.ndarray[Any, Any] | None, name: str | None, item_id: str = "") -> int:
    """The digest of an item as the module's docstring has it, from the specification alone."""
    image = b"no image"
    if pixels is not None:
        planes = pixels if len(pixels) == 3 else np.repeat(pixels, 3, axis=0)
        content = struct.pack("<II", *planes.shape[1:]) + planes.tobytes()
        image = b"image" + hashlib.blake2b(content, digest_size=16).digest()
    label = b"no label" if name is None else b"label" + struct.pack("<Q", len(name.encode())) + name.encode()
    end = b"id" + item_id.encode() if item_id else b""
    return int.from_bytes(hashlib.blake2b(image + label + end, digest_size=16).digest(), "little")


def test_rows_are_counted_by_subset_and_class(small: Path) -> None:
    found = stats(str(small))
    assert (found.rows, found.images, found.unlabelled, found.format, found.title) == (5, 5, 1, "cifar", "CIFAR-10")
    assert [(s.name, s.rows, s.images, s.unlabelled) for s in found.subsets] == [
        ("data_batch_1", 3, 3, 1),
        ("test_batch", 2, 2, 0),
    ]
    assert [dict(s.labels) for s in found.subsets] == [{"cat": 1, "dog": 1, "ship": 0}, {"cat": 0, "dog": 2, "ship": 0}]
    assert list(found.subsets[0].labels) == ["cat", "dog", "ship"]


def test_mean_and_deviation_are_those_of_all_pixels(cifar10: Path) -> None:
    found = stats(str(cifar10))
    whole = np.concatenate([pixels_of(cifar10 / subset.name) for subset in found.subsets]).astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, whole.std(axis=(0, 2)), rtol=1e-12)
    for subset in found.subsets:
        own = pixels_of(cifar10 / subset.name).astype(np.float64)
        np.testing.assert_allclose(subset.mean, own.mean(axis=(0, 2)), rtol=1e-12)
        np.testing.assert_allclose(subset.std, own.std(axis=(0, 2)), rtol=1e-12)


def test_every_pixel_counts_once_where_sizes_differ(tmp_path: Path) -> None:
    shapes = [(8, 8), (8, 8), (20, 12), (1, 1), (300, 400)]
    pictures = [picture(n, *shape) for n, shape in enumerate(shapes)]
    files = {f"cat/{n}.png": encoded(each) for n, each in enumerate(pictures)}
    found = stats(str(write_tree(tmp_path / "tree", files)))
    flat = np.concatenate([each.reshape(3, -1) for each in pictures], axis=1).astype(np.float64)
    np.testing.assert_allclose(found.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, flat.std(axis=1), rtol=1e-12)
    assert found.sizes == (SizeCount(1, 1, 1), SizeCount(8, 8, 2), SizeCount(20, 12, 1), SizeCount(300, 400, 1))
    assert (dict(found.channels), dict(found.encodings)) == ({"3": 5}, {"png": 5})


def test_gray_counts_as_three_equal_channels(tmp_path: Path) -> None:
    gray = picture(1, channels=1)
    rgb = np.repeat(gray, 3, axis=0)
    alone = stats(str(write_tree(tmp_path / "gray", {"cat/1.png": encoded(gray)})))
    coloured = stats(str(write_tree(tmp_path / "rgb", {"cat/1.png": encoded(rgb)})))
    assert (dict(alone.channels), dict(coloured.channels)) == ({"1": 1}, {"3": 1})
    assert (alone.mean, alone.std) == (coloured.mean, coloured.std)
    assert alone.mean == (pytest.approx(gray.mean()),) * 3  # type: ignore[comparison-overlap]
    assert alone.subsets[0].digest == coloured.subsets[0].digest


def test_gray_pixels_and_missing_images_stand_between_others() -> None:
    gray, colour = picture(1, 5, 7, channels=1), picture(2, 5, 7)
    png = encoded(np.repeat(gray, 3, axis=0), "PNG")
    made = [(gray.tobytes(), "raw", 1), (None, "raw", None), (colour.tobytes(), "raw", 3), (png, "png", 3)]
    table = table_of(
        Example(str(n), "train", image, encoding, image and 5, image and 7, channels, None, "")  # type: ignore[arg-type]
        for n, (image, encoding, channels) in enumerate(made)
    )
    whole = block.Block(table.select(example_schema().names), 3, 0, 0, last=True, read=Counter(), row=10)
    found = tally_of(whole, "train", LabelTable(("cat",)))
    assert bytes(found.rows["digest"][0]) == bytes(found.rows["digest"][3])
    assert found.rows[["file", "row", "label", "channels"]].tolist() == [
        (3, 10, -1, 1),
        (3, 11, -1, 0),
        (3, 12, -1, 3),
        (3, 13, -1, 3),
    ]
    assert found.total == sum(item_digest(each, None) for each in (gray, None, colour, gray)) % 2**128
    flat = np.concatenate([np.repeat(gray, 3, axis=0)] * 2 + [colour], axis=1).reshape(3, -1)
    assert found.histogram.tolist() == [np.bincount(plane, minlength=256).tolist() for plane in flat]
    again = decode_tally(found.encoded())
    assert (again.rows.tobytes(), again.total, again.rejected) == (found.rows.tobytes(), found.total, ())


def test_the_digest_is_the_documented_one(small: Path) -> None:
    found = stats(str(small))
    pictures = [picture(1000 + row) for row in range(3)]
    items = zip(pictures, ["cat", "dog", None], strict=True)
    assert found.subsets[0].digest == f"{sum(item_digest(*item) for item in items) % 2**128:032x}"


def test_rows_without_image_have_their_own_mark(tmp_path: Path) -> None:
    content = {"labels": [0, 1], "filenames": ["a.png", "b.png"]}
    found = stats(str(write_cifar(tmp_path / "set", {"train": content})))
    assert (found.rows, found.images, found.sizes, found.mean, found.std) == (2, 0, (), (), ())
    expected = (item_digest(None, "cat") + item_digest(None, "dog")) % 2**128
    assert found.subsets[0].digest == f"{expected:032x}"
    assert found.duplicate_groups == 0


def test_other_formats_and_encodings_have_the_same_digest(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "png", "imagenet_with_subset_dirs")
    raw, png = stats(str(cifar10)), stats(str(tmp_path / "png"))
    assert [(s.name, s.digest) for s in raw.subsets] == [(s.name, s.digest) for s in png.subsets]
    assert (raw.mean, raw.std, dict(raw.encodings), dict(png.encodings)) == (
        png.mean,
        png.std,
        {"raw": 1203},
        {"png": 1203},
    )


def test_images_that_repeat_are_found_within_and_across_subsets(tmp_path: Path) -> None:
    first = batch(list("abcd"), [0, 1, 0, 2], seed=1)
    second = batch(list("efg"), [0, 0, 1], seed=2)
    first["data"][2] = first["data"][0]  # c is a, same label
    first["data"][3] = first["data"][0]  # d is a, another label
    second["data"][0] = first["data"][1]  # e is b, another label
    second["data"][1] = first["data"][0]  # f is a
    found = stats(str(write_cifar(tmp_path / "set", {"train": first, "val": second})))
    assert [s.duplicates for s in found.subsets] == [2, 0]
    assert dict(found.across) == {("train", "val"): 2, ("val", "train"): 4}
    assert (found.duplicate_groups, found.conflicting) == (2, 2)
    assert [(group.count, group.rows) for group in found.groups] == [
        (4, (("train", "a", "cat"), ("train", "c", "cat"), ("train", "d", "ship"), ("val", "f", "cat"))),
        (2, (("train", "b", "dog"), ("val", "e", "cat"))),
    ]


def test_a_missing_label_contradicts_nothing(tmp_path: Path) -> None:
    content = batch(list("abc"), [0, None, 0], seed=1)
    content["data"][:] = content["data"][0]
    found = stats(str(write_cifar(tmp_path / "set", {"train": content})))
    assert (found.duplicate_groups, found.conflicting, found.subsets[0].duplicates) == (1, 0, 2)


def test_equal_bytes_in_another_shape_are_another_image(tmp_path: Path) -> None:
    pixels = picture(1, 4, 9)
    files = {"cat/1.png": encoded(pixels), "cat/2.png": encoded(pixels.reshape(3, 9, 4))}
    assert stats(str(write_tree(tmp_path / "tree", files))).duplicate_groups == 0


def test_at_most_ten_groups_of_ten_rows_are_listed(tmp_path: Path) -> None:
    content = batch([f"{n}.png" for n in range(40)], [0] * 40)
    content["data"] = content["data"][[0] * 15 + [15 + n // 2 for n in range(25)]]
    found = stats(str(write_cifar(tmp_path / "set", {"train": content})))
    assert (len(found.groups), found.duplicate_groups) == (10, 13)
    assert [(group.count, len(group.rows)) for group in found.groups][:2] == [(15, 10), (2, 2)]


def test_blocks_and_workers_make_no_difference(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats(str(cifar10))
    monkeypatch.setattr(block, "MAX_ROWS", 7)
    assert stats(str(cifar10)) == whole


@pytest.mark.parametrize("workers", [1, 3])
def test_beam_gives_the_same(workers: int, cifar100: Path, monkeypatch: pytest.MonkeyPatch, beam: None) -> None:
    found = stats(str(cifar100), workers=workers)
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)
    assert found == stats(str(cifar100))
    assert (found.rows, len(found.labels.coarse_names), len(found.labels.parents)) == (2407, 20, 100)


def test_bundles_that_run_twice_count_once(cifar10: Path, monkeypatch: pytest.MonkeyPatch, beam: None) -> None:
    found = stats(str(cifar10), beam_options=["--direct_runner_bundle_repeat=1"])
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)
    assert found == stats(str(cifar10))


def test_an_archive_is_read_as_it_is(cifar10: Path, cifar10_archive: Path) -> None:
    whole, packed = stats(str(cifar10)), stats(str(cifar10_archive))
    assert dataclasses.replace(packed, path=whole.path) == whole


def test_subsets_can_be_chosen(cifar10: Path) -> None:
    assert [s.name for s in stats(str(cifar10), subsets=["test"]).subsets] == ["test_batch"]
    assert len(stats(str(cifar10), subsets=["train"]).subsets) == 5
    with pytest.raises(UsageError, match="did you mean 'test'"):
        stats(str(cifar10), subsets=["tset"])


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    good = encoded(picture(1))
    spoilt = bytearray(good)
    spoilt[60] ^= 255
    tree = write_tree(tmp_path / "tree", {"cat/1.png": good, "cat/2.png": bytes(spoilt)})
    with pytest.raises(InputError, match=r"2\.png.*damaged"):
        stats(str(tree))


def test_an_image_that_only_a_decoder_finds_damaged_is_named(tmp_path: Path) -> None:
    jpeg = encoded(picture(1), "JPEG")
    start = jpeg.index(b"\xff\xda")
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": jpeg, "cat/2.jpg": jpeg[: start + 8] + b"\xff\xd9"})
    with pytest.raises(InputError, match=r"cat: row 1: image '2'"):
        stats(str(tree))


def test_a_label_outside_the_table_is_refused(tmp_path: Path) -> None:
    tree = write_cifar(tmp_path / "set", {"train": batch(["a", "b"], [0, 9])})
    with pytest.raises(InputError, match="row 1: label 9 is outside the label table"):
        stats(str(tree))


def test_no_row_is_no_error(tmp_path: Path) -> None:
    empty = {"data": np.zeros((0, 3072), np.uint8), "labels": [], "filenames": []}
    found = stats(str(write_cifar(tmp_path / "set", {"train": empty})))
    assert (found.rows, found.mean, [s.digest for s in found.subsets]) == (0, (), ["0" * 32])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(-1, 2)), max_size=40))
def test_repeats_are_those_that_counting_finds(drawn: list[tuple[int, int, int]]) -> None:
    """Each row is (image, or 0 for none; subset; label)."""
    rows = np.zeros(len(drawn), ROW)
    subsets = np.array([subset for _, subset, _ in drawn], dtype=np.int64)
    for row, (image, _, label) in zip(rows, drawn, strict=True):
        row["digest"], row["channels"], row["label"] = (image % 2, image // 2), 3 * bool(image), label
    found = repeats_of(rows)
    members: dict[int, list[int]] = {}
    for at, (image, _, _) in enumerate(drawn):
        if image:
            members.setdefault(image, []).append(at)
    groups = [group for group in members.values() if len(group) > 1]
    assert [found.group(n) for n in range(len(found))] == groups
    shared = np.zeros((3, 3), int)
    for group in groups:
        counts = Counter(drawn[at][1] for at in group)
        for i in counts:
            for j in counts:
                shared[i, j] += counts[j] - (i == j)
    assert found.shared(subsets, 3).tolist() == shared.tolist()
    labels = [{drawn[at][2] for at in group} - {-1} for group in groups]
    assert found.conflicting(rows["label"]).tolist() == [n for n, each in enumerate(labels) if len(each) > 1]
    across = [{drawn[at][1] for at in group} for group in groups]
    assert found.leaking(subsets).tolist() == [n for n, each in enumerate(across) if len(each) > 1]
    within = [max(Counter(drawn[at][1] for at in group).values()) for group in groups]
    assert found.within(subsets).tolist() == [n for n, most in enumerate(within) if most > 1]


def test_json_has_all_of_it(small: Path, command: Command) -> None:
    code, out, err = command("stats", small, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert list(facts) == [
        *("path", "format", "title", "rows", "images", "unlabelled", "classes", "sizes", "channels", "encodings"),
        *("mean", "std", "mean_unit", "std_unit", "subsets", "duplicate_groups", "conflicting_groups", "across"),
        *("groups", "notices"),
    ]
    assert facts["classes"][1] == {"name": "dog", "superclass": None, "rows": 3}
    assert facts["sizes"] == [{"height": 32, "width": 32, "images": 5}]
    assert facts["mean_unit"] == [pytest.approx(value / 255) for value in facts["mean"]]
    assert facts["subsets"][1]["classes"] == {"cat": 0, "dog": 2, "ship": 0}


def test_the_docs_name_every_key_of_the_json(small: Path, command: Command) -> None:
    facts = json.loads(command("stats", small, "--json")[1])
    assert [key for key in (*facts, *facts["subsets"][0]) if f"`{key}`" not in documented_fields("stats")] == []


def test_people_see_a_short_table(tmp_path: Path, command: Command) -> None:
    content = batch(["a", "b", "c"], [0, 1, None])
    content["data"][1] = content["data"][0]
    other = batch(["d"], [0])
    path = write_cifar(tmp_path / "set", {"train": content, "test": other}, ["a\nb", "dog"])
    code, out, _ = command("stats", path)
    lines = out.splitlines()
    assert code == 0
    assert lines[1] == "4 rows, 4 with images, 1 without a label"
    assert any(line.split()[:6] == ["train", "3", "75.0", "%", "3", "1"] for line in lines)
    assert any(line.split()[:4] == [r"a\nb", "2", "50.0", "%"] for line in lines)
    assert "sizes      32 x 32" in lines
    assert "duplicates 1 image in several rows, 1 with different labels" in out
    assert r"3 x  test: d (a\nb), train: a (a\nb), train: b (dog)" in out


@pytest.mark.slow
def test_it_runs_as_a_command_of_its_own(cifar10: Path, run: Run, tmp_path: Path) -> None:
    done = run("stats", cifar10, "--json", "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"] == 1203
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "nowhere: no such file or directory"),
        (["SET", "--subset", "tset"], 2, "unknown subset"),
        (["SET", "--jsn"], 2, "unknown flag --jsn; did you mean --json?"),
        (["SET", "--workers", "0"], 2, "workers"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: list[str], code: int, message: str, cifar10: Path, command: Command
) -> None:
    found, out, err = command("stats", *[str(cifar10) if each == "SET" else each for each in arguments])
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert message in err


def test_the_result_is_public() -> None:
    assert {field.name for field in dataclasses.fields(Stats)} >= {"subsets", "across", "groups", "conflicting"}
