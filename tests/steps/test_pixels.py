"""Steps that look at images or change them: against Pillow, and dictionaries of bytes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_cifar import LabelTable
from beam_cifar.data.block import Block
from beam_cifar.data.row_table import View
from beam_cifar.data.schema import example_schema, facts_table, image_array, with_images
from beam_cifar.errors import InputError
from beam_cifar.images.encodings import RAW
from beam_cifar.images.gray import to_gray
from beam_cifar.images.resize import resize_images
from beam_cifar.steps.pixels import crop
from beam_cifar.steps.registry import make_step
from tests.helpers.step_notes import Notes

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Picture = tuple[Pixels, str]
"""uint8 [C, H, W], and how it is stored: "raw", "png" or "jpeg"."""

SUBSETS = ("train", "val", "test")


def random_pixels(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> Pixels:
    return rng.integers(0, 256, (channels, height, width), dtype=np.uint8)


def stored(pixels: Pixels, encoding: str) -> bytes:
    if encoding == RAW:
        return pixels.tobytes()
    file = io.BytesIO()
    shown(pixels).save(file, encoding.upper())
    return file.getvalue()


def shown(pixels: Pixels) -> Image.Image:
    """The image that Pillow makes of planes."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def planes(image: Image.Image) -> Pixels:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def as_seen(picture: Picture) -> Image.Image:
    """What Pillow reads of a picture: of a JPEG not the pixels that went into it."""
    pixels, encoding = picture
    return shown(pixels) if encoding == RAW else Image.open(io.BytesIO(stored(pixels, encoding)))


def block_of(pictures: Sequence[Picture | None]) -> Block:
    facts = facts_table(
        ids=[f"i{n}" for n in range(len(pictures))],
        subset="train",
        sizes=[None if picture is None else picture[0].shape[1:] for picture in pictures],
        labels=np.zeros(len(pictures), dtype=np.int64),
        filenames=[f"i{n}.png" for n in range(len(pictures))],
        channels=[None if picture is None else len(picture[0]) for picture in pictures],
    )
    images = [None if picture is None else stored(*picture) for picture in pictures]
    column = image_array(b"".join(i or b"" for i in images), [None if i is None else len(i) for i in images])
    table = with_images(facts, column, [RAW if picture is None else picture[1] for picture in pictures])
    return Block(table, 0, 0, 0, True, Counter({("train", 0): len(pictures)}))


def pictures_of(block: Block) -> list[tuple[tuple[int | None, ...], str, bytes | None]]:
    """(channels, height, width), encoding and image of each row."""
    assert block.table.schema == example_schema()
    return [
        ((row["channels"], row["height"], row["width"]), row["encoding"], row["image"])
        for row in block.table.to_pylist()
    ]


def view_of(sizes: Sequence[tuple[int, int] | None], subsets: Sequence[int] | None = None, **columns: Any) -> View:
    rows = len(sizes)
    return View(
        files=np.zeros(rows, dtype=np.int32),
        rows=np.arange(rows, dtype=np.int32),
        labels=np.arange(rows, dtype=np.int32) % 2,
        subsets=np.array(subsets if subsets is not None else [0] * rows, dtype=np.int32),
        subset_names=SUBSETS,
        table=LabelTable(("cat", "dog")),
        heights=np.array([-1 if size is None else size[0] for size in sizes], dtype=np.int32),
        widths=np.array([-1 if size is None else size[1] for size in sizes], dtype=np.int32),
        **columns,
    )


class Reading(Notes):
    """Gives blocks of some rows each, those of the first files last, as later pixel steps see them."""

    def __init__(self, block: Block, step: int = 700) -> None:
        super().__init__()
        self.block, self.step = block, step

    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        order = np.random.default_rng(0).permutation(len(view))
        for start in range(0, len(view), self.step):
            positions = order[start : start + self.step]
            block = Block(self.block.table.take(pa.array(view.rows[positions])), 0, 0, 0, False, Counter())
            for step in self.pixel_steps:
                block = step.transform(block)
            yield positions, block


SIZES = st.sampled_from([(5, 7), (7, 5), (6, 6), (32, 32), (33, 40)])
PICTURES = st.lists(
    st.one_of(st.none(), st.tuples(SIZES, st.sampled_from([1, 3]), st.sampled_from([RAW, "png", "jpeg"]))), max_size=12
).map(
    lambda kinds: [
        None if kind is None else (random_pixels(np.random.default_rng(n), *kind[0], kind[1]), kind[2])
        for n, kind in enumerate(kinds)
    ]
)
randomly = settings(max_examples=60, deadline=None)


@randomly
@given(PICTURES)
def test_images_become_gray_as_pillow_makes_them(pictures: list[Picture | None]) -> None:
    made = make_step("grayscale", {}).transform(block_of(pictures))  # type: ignore[attr-defined]
    for picture, before, after in zip(pictures, pictures_of(block_of(pictures)), pictures_of(made), strict=True):
        if picture is None or len(picture[0]) == 1:
            assert after == before
        else:
            image = as_seen(picture).convert("L")
            assert after == ((1, *picture[0].shape[1:]), RAW, image.tobytes())


@pytest.mark.parametrize("blue", [0, 1, 77, 128, 254, 255])
def test_every_red_and_green_is_the_gray_of_pillow(blue: int) -> None:
    red, green = np.indices((256, 256), dtype=np.uint8)
    pixels = np.stack([red, green, np.full_like(red, blue)])
    np.testing.assert_array_equal(to_gray(pixels[None])[0, 0], np.asarray(shown(pixels).convert("L")))


def test_gray_arrays_stay_and_other_arrays_are_refused() -> None:
    gray = np.zeros((2, 1, 3, 4), dtype=np.uint8)
    assert to_gray(gray) is gray
    assert to_gray(np.zeros((0, 3, 3, 4), dtype=np.uint8)).shape == (0, 1, 3, 4)
    for wrong in (np.zeros((2, 4, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8), np.zeros((1, 3, 2, 2), np.float32)):
        with pytest.raises(ValueError, match="expected uint8"):
            to_gray(wrong)  # type: ignore[arg-type]


@randomly
@given(PICTURES, st.tuples(*[st.integers(1, 5)] * 2), *[st.one_of(st.none(), st.integers(0, 2))] * 2)
def test_a_rectangle_is_cut_out_of_every_image(
    pictures: list[Picture | None], size: tuple[int, int], left: int | None, top: int | None
) -> None:
    size = (min(size[0], 5 - (top or 0)), min(size[1], 5 - (left or 0)))
    step = make_step("crop", {"height": size[0], "width": size[1], "left": left, "top": top})
    made = step.transform(block_of(pictures))  # type: ignore[attr-defined]
    for picture, before, after in zip(pictures, pictures_of(block_of(pictures)), pictures_of(made), strict=True):
        if picture is None or picture[0].shape[1:] == size:
            assert after == before
            continue
        x = (picture[0].shape[2] - size[1]) // 2 if left is None else left
        y = (picture[0].shape[1] - size[0]) // 2 if top is None else top
        image = as_seen(picture).crop((x, y, x + size[1], y + size[0]))
        assert after == ((len(picture[0]), *size), RAW, planes(image).tobytes())


def test_images_of_the_size_stay_encoded() -> None:
    block = block_of([(random_pixels(np.random.default_rng(0), 6, 6), "png")])
    assert crop(block, size=(6, 6)).table.equals(block.table)


@pytest.mark.parametrize(
    ("options", "least"),
    [({"height": 7, "width": 3}, "7 x 3"), ({"height": 3, "width": 4, "left": 3}, "3 x 7"), ({"height": 3, "width": 3, "top": 9}, "12 x 3")],
)  # fmt: skip
def test_an_image_that_is_too_small_is_named(options: dict[str, int], least: str) -> None:
    step = make_step("crop", options)
    sizes = [(20, 20), None, (6, 6), (6, 5)]
    view = view_of(sizes, [0, 0, 2, 1])
    with pytest.raises(InputError) as refused:
        step.apply(view, Reading(block_of([])))
    assert str(refused.value).startswith(
        "crop: subset 'test': row 2 of its file is 6 x 6 pixels (height x width), expected"
    )
    assert f"at least {least} (and 1 more" in str(refused.value)
    named = view_of(sizes, [0, 0, 2, 1], ids=pa.array(["a", "b", "c", "d"]))
    with pytest.raises(InputError, match="subset 'test': image 'c' is 6 x 6 pixels"):
        step.apply(named, Reading(block_of([])))
    pictures = [None if size is None else (random_pixels(np.random.default_rng(0), *size), RAW) for size in sizes]
    with pytest.raises(InputError, match=f"train: image 'i2' is 6 x 6 pixels .* {least} to crop"):
        step.transform(block_of(pictures))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["resize", "crop"])
def test_the_plan_learns_the_new_sizes(name: str) -> None:
    step = make_step(name, {"height": 4, "width": 6})
    context = Reading(block_of([]))
    made = step.apply(view_of([(8, 9), None, (4, 6)]), context)
    assert made.heights is not None
    assert made.widths is not None
    assert made.heights.tolist() == [4, -1, 4]
    assert made.widths.tolist() == [6, -1, 6]
    assert made.heights.dtype == made.widths.dtype == np.int32
    assert context.pixel_steps == [step]


def test_a_gray_image_keeps_its_size_in_the_plan() -> None:
    step, context = make_step("grayscale", {}), Reading(block_of([]))
    view = view_of([(8, 9), None])
    assert step.apply(view, context) is view
    assert context.pixel_steps == [step]


def test_images_are_resized_as_by_the_transform() -> None:
    pixels = random_pixels(np.random.default_rng(1), 9, 11)
    step = make_step("resize", {"width": 30, "height": 20})
    made = step.transform(block_of([(pixels, "png"), None]))  # type: ignore[attr-defined]
    wanted = resize_images(pixels[None], (20, 30))[0]
    assert pictures_of(made) == [((3, 20, 30), RAW, wanted.tobytes()), ((None, None, None), RAW, None)]
    assert step.row_bytes() == wanted.nbytes  # type: ignore[attr-defined]


def many_pictures(seed: int, count: int = 5000) -> list[Picture | None]:
    """Images with many duplicates, some of them the same pixels in another size, another encoding, or as gray."""
    rng = np.random.default_rng(seed)
    originals = [random_pixels(rng, *[(4, 6), (6, 4), (5, 5)][n // 100 % 3]) for n in range(count // 3)]
    originals += [pixels.reshape(3, *pixels.shape[:0:-1]) for pixels in originals[::7]]
    grays = [random_pixels(rng, 4, 6, 1) for _ in range(count // 20)]
    originals += grays + [np.repeat(pixels, 3, axis=0) for pixels in grays]
    chosen = rng.integers(0, len(originals), count).tolist()
    # Alike images come in runs, as in real sets.
    chosen = [at for start in range(0, count, 500) for at in sorted(chosen[start : start + 500])]
    kinds = np.repeat(rng.choice([RAW, RAW, RAW, "png"], count // 20), 20).tolist()
    return [None if n % 50 == 0 else (originals[at], kind) for n, (at, kind) in enumerate(zip(chosen, kinds, strict=True))]  # fmt: skip


def content(picture: Picture) -> bytes:
    pixels = np.repeat(picture[0], 3 // len(picture[0]), axis=0)
    return bytes(pixels.shape) + pixels.tobytes()


def left_of(pictures: Sequence[Picture | None], subsets: Sequence[int], scope: str, prefer: Sequence[str]) -> list[int]:
    """The rows that stay, by a dictionary of pixels."""
    order = [*prefer, "test", "val", "train"]
    ranks = [order.index(name) for name in SUBSETS]
    best: dict[Any, int] = {}
    for row, picture in enumerate(pictures):
        key = row if picture is None else (content(picture), subsets[row] if scope == "subset" else None)
        if key not in best or ranks[subsets[row]] < ranks[subsets[best[key]]]:
            best[key] = row
    return sorted(best.values())


@pytest.mark.parametrize(
    ("scope", "prefer"), [("dataset", []), ("subset", []), ("dataset", ["test"]), ("dataset", ["val", "test", "val"])]
)
def test_one_of_images_with_the_same_pixels_stays(scope: str, prefer: list[str]) -> None:
    pictures = many_pictures(len(prefer))
    subsets = np.random.default_rng(1).integers(0, 3, len(pictures)).tolist()
    context = Reading(block_of(pictures))
    view = view_of([None] * len(pictures), subsets)
    made = make_step("dedupe", {"scope": scope, "prefer": prefer}).apply(view, context)
    wanted = left_of(pictures, subsets, scope, prefer)
    assert made.rows.tolist() == wanted
    assert made.labels.tolist() == view.labels[wanted].tolist()
    assert 1000 < len(wanted) < 4000
    stays = {content(p): row for row in wanted if (p := pictures[row]) is not None}
    gone = set(range(len(pictures))) - set(wanted)
    across = 0 if scope == "subset" else sum(subsets[row] != subsets[stays[content(pictures[row])]] for row in gone)  # type: ignore[arg-type]
    moved = Counter((subsets[row], subsets[stays[content(pictures[row])]]) for row in gone if pictures[row])  # type: ignore[arg-type]
    lost = [
        f"{n} of {SUBSETS[a]!r} to {SUBSETS[b]!r}"
        for (a, b), n in sorted(moved.items())
        if scope == "dataset" and a != b
    ]
    sides = f" ({', '.join(lost)})" if lost else ""
    assert context.notices == [
        f"dedupe: removed {len(gone)} of 5000 items as duplicates: "
        f"{len(gone) - across} of an item in the same subset, {across} of an item in another{sides}"
    ]


def test_duplicates_are_looked_for_among_images_as_they_are_by_then() -> None:
    pixels = random_pixels(np.random.default_rng(0), 6, 6)
    other = pixels.copy()
    other[:, 0, 0] ^= 1
    context = Reading(block_of([(pixels, RAW), (other, RAW)]), step=1)
    view = view_of([(6, 6)] * 2)
    dedupe = make_step("dedupe", {})
    assert dedupe.apply(view, context).rows.tolist() == [0, 1]
    cut = make_step("crop", {"height": 4, "width": 4}).apply(view, context)
    assert dedupe.apply(cut, context).rows.tolist() == [0]


def test_the_order_of_the_view_says_which_image_stays() -> None:
    pixels = random_pixels(np.random.default_rng(0), 6, 6)
    context = Reading(block_of([(pixels, RAW)] * 3))
    view = view_of([(6, 6)] * 3).take(np.array([2, 0, 1]))
    assert make_step("dedupe", {}).apply(view, context).rows.tolist() == [2]


@pytest.mark.parametrize("count", [0, 4])
def test_rows_without_image_are_no_duplicates(count: int) -> None:
    context = Reading(block_of([None] * count))
    assert len(make_step("dedupe", {}).apply(view_of([None] * count), context)) == count
    assert context.notices[0].startswith(f"dedupe: removed 0 of {count} items")


def test_a_damaged_image_is_refused_by_name() -> None:
    block = block_of([(random_pixels(np.random.default_rng(0), 6, 6), "png")])
    image = pa.array([block.table.column("image")[0].as_py()[:-20]], pa.binary())
    broken = Block(block.table.set_column(2, example_schema().field("image"), image), 0, 0, 0, True, Counter())
    with pytest.raises(InputError, match="train: image 'i0'"):
        make_step("dedupe", {}).apply(view_of([(6, 6)]), Reading(broken))
