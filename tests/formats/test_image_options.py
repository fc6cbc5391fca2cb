"""Images as people have them: on their side, transparent, deep or CMYK, in a job, a dataset and a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image, ImageOps

from beam_cifar import ConvertOptions, Dataset, ImageOptions, ReadExamples, WriteExamples, convert
from beam_cifar.beam import local_options
from beam_cifar.errors import InputError
from beam_cifar.options import Input
from tests.helpers.commands import Command

pytestmark = pytest.mark.usefixtures("without_runner")
TURNED = "1 image was turned upright by its EXIF orientation; pass --exif keep to leave pixels as they are stored"


def on_its_side(path: Path, orientation: int = 6, size: tuple[int, int] = (12, 20), seed: int = 0) -> Path:
    """Writes a JPEG file with an orientation, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(
        path, "JPEG", exif=exif
    )
    return path


def upright(path: Path) -> Any:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)))


def stored(path: Path) -> Any:
    return np.asarray(Image.open(path))


def written(tmp_path: Path, output_format: str, **options: Any) -> tuple[Path, tuple[str, ...]]:
    out = tmp_path / "out"
    made = convert(ConvertOptions(str(tmp_path / "in"), str(out), output_format, overwrite=True, **options))
    return out, made.notices


@pytest.mark.parametrize(("exif", "turn", "told"), [("apply", upright, [TURNED]), ("keep", stored, [])])
def test_pixels_are_upright_where_they_are_decoded(tmp_path: Path, exif: str, turn: Any, told: list[str]) -> None:
    path, images = on_its_side(tmp_path / "in/a/x.jpg"), ImageOptions(exif=exif)
    out, notices = written(tmp_path, "npz", images=images)
    assert (np.load(next(out.glob("*.npz")))["images"][0] == turn(path)).all()
    assert [text for text in notices if "EXIF" in text] == told
    out, notices = written(tmp_path, "imagenet", image_ext=".png", images=images)
    assert (stored(out / "a/x.png") == turn(path)).all()
    assert [text for text in notices if "EXIF" in text] == told
    out, notices = written(tmp_path, "imagenet", resize=turn(path).shape[:2], images=images)
    assert [text for text in notices if "EXIF" in text] == []
    out, notices = written(tmp_path, "npz", resize=(4, 4), images=images)
    resized = Image.fromarray(turn(path)).resize((4, 4), Image.Resampling.BICUBIC)
    assert (np.load(next(out.glob("*.npz")))["images"][0] == np.asarray(resized)).all()


@pytest.mark.parametrize("exif", ["apply", "keep"])
@pytest.mark.parametrize("output_format", ["imagenet", "image_dir"])
def test_files_that_pass_keep_their_bytes(tmp_path: Path, output_format: str, exif: str) -> None:
    path = on_its_side(tmp_path / "in/a/x.jpg")
    out, notices = written(tmp_path, output_format, images=ImageOptions(exif=exif))
    assert next(out.rglob("x.jpg")).read_bytes() == path.read_bytes()
    assert not [text for text in notices if "EXIF" in text]


def test_images_of_both_kinds_agree_in_size_where_they_are_shown(tmp_path: Path) -> None:
    on_its_side(tmp_path / "in/a/x.jpg", 6, (12, 20))
    on_its_side(tmp_path / "in/a/y.jpg", 1, (20, 12), 1)
    out, _ = written(tmp_path, "npz")
    assert np.load(next(out.glob("*.npz")))["images"].shape == (2, 20, 12, 3)
    with pytest.raises(Exception, match="images differ in size"):
        written(tmp_path, "npz", images=ImageOptions(exif="keep"))


def rgba(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(3).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_new_pixels_are_png_files_and_others_stay(tmp_path: Path) -> None:
    pixels, path = rgba(tmp_path / "in/a/x.png"), on_its_side(tmp_path / "in/a/y.jpg")
    out, _ = written(tmp_path, "imagenet", images=ImageOptions(alpha="drop"))
    assert (stored(out / "a/x.png") == pixels[..., :3]).all()
    assert (out / "a/y.jpg").read_bytes() == path.read_bytes()
    first = (out / "a/x.png").read_bytes()
    out, _ = written(tmp_path, "imagenet", images=ImageOptions(alpha="drop"))
    assert (out / "a/x.png").read_bytes() == first
    Image.fromarray(pixels, "CMYK").save(tmp_path / "in/a/z.jpg")
    out, _ = written(tmp_path, "imagenet", images=ImageOptions(cmyk="convert", alpha="drop"))
    assert (stored(out / "a/z.png") == np.asarray(Image.open(tmp_path / "in/a/z.jpg").convert("RGB"))).all()


def test_a_file_is_not_copied_whole_if_its_images_change(tmp_path: Path) -> None:
    pixels = rgba(tmp_path / "in/a/x.png")
    first, _ = written(tmp_path, "parquet")
    first.rename(tmp_path / "first")
    out = tmp_path / "second"
    convert(ConvertOptions(str(tmp_path / "first"), str(out), "parquet", images=ImageOptions(alpha="drop")))
    assert (next(iter(Dataset.import_from(out))).image.data == pixels[..., :3]).all()


def test_merged_datasets_are_read_in_their_own_way(tmp_path: Path) -> None:
    one, other = rgba(tmp_path / "in/a/x.png"), rgba(tmp_path / "other/a/y.png")
    more = Input(str(tmp_path / "other"), images=ImageOptions(alpha="black"))
    out, _ = written(tmp_path, "image_dir", merged=(more,), images=ImageOptions(alpha="drop"))
    assert (stored(next(out.rglob("x.png"))) == one[..., :3]).all()
    ground = Image.new("RGB", (5, 6))
    ground.paste(Image.fromarray(other[..., :3]), mask=Image.fromarray(other[..., 3]))
    assert (stored(next(out.rglob("y.png"))) == np.asarray(ground)).all()


def test_a_dataset_in_python_has_the_same_pixels(tmp_path: Path) -> None:
    path, pixels = on_its_side(tmp_path / "in/a/x.jpg"), rgba(tmp_path / "in/a/y.png")
    for exif, turn in (("apply", upright), ("keep", stored)):
        made = Dataset.import_from(tmp_path / "in", images=ImageOptions(exif=exif, alpha="drop"))
        items = {item.id: item.image for item in made}
        assert (items["x"].data == turn(path)).all()
        assert items["x"].size == turn(path).shape[:2]
        assert (items["y"].data == pixels[..., :3]).all()
        made.transform("dedupe").transform("resize", width=3, height=4).export(tmp_path / exif, "npz")
        resized = Image.fromarray(turn(path)).resize((3, 4), Image.Resampling.BICUBIC)
        assert (np.load(next((tmp_path / exif).glob("*.npz")))["images"][0] == np.asarray(resized)).all()


def test_examples_in_a_pipeline_have_the_same_pixels(tmp_path: Path) -> None:
    path, pixels = on_its_side(tmp_path / "in/a/x.jpg"), rgba(tmp_path / "in/a/y.png")
    expected = [("x", stored(path).tobytes()), ("y", pixels[..., :3].tobytes())]
    with beam.Pipeline(options=local_options()) as pipeline:
        examples = pipeline | ReadExamples(tmp_path / "in", images=ImageOptions(exif="keep", alpha="drop"))
        assert_that(examples | beam.Map(lambda each: (each.id, each.array().tobytes())), equal_to(expected))


def test_saving_in_place_writes_new_pixels(tmp_path: Path) -> None:
    pixels = rgba(tmp_path / "in/a/x.png")
    Dataset.import_from(tmp_path / "in", images=ImageOptions(alpha="drop")).save()
    assert (stored(tmp_path / "in/a/x.png") == pixels[..., :3]).all()


def test_a_pipeline_tells_what_it_turned(tmp_path: Path) -> None:
    path = on_its_side(tmp_path / "in/a/x.jpg")
    with beam.Pipeline(options=local_options()) as pipeline:
        source = ReadExamples(tmp_path / "in")
        _ = pipeline | source | WriteExamples(tmp_path / "out", "npz", source.labels)
    assert (np.load(next((tmp_path / "out").glob("*.npz")))["images"][0] == upright(path)).all()
    assert json.loads((tmp_path / "out.beam_cifar/manifest.json").read_text())["notices"] == [TURNED]


def test_a_step_of_a_merged_dataset_tells_what_it_turned(tmp_path: Path) -> None:
    on_its_side(tmp_path / "in/a/x.jpg")
    on_its_side(tmp_path / "other/a/y.jpg")
    one = Dataset.import_from(tmp_path / "in").transform("resize", width=4, height=4)
    made = Dataset.merge(one, Dataset.import_from(tmp_path / "other")).export(tmp_path / "out", "image_dir")
    assert [text for text in made.notices if "EXIF" in text] == [TURNED]


def test_by_default_they_are_refused_where_pixels_are_needed(tmp_path: Path) -> None:
    rgba(tmp_path / "in/a/x.png")
    with pytest.raises(InputError, match="image 'x': has transparent pixels; expected none: pass --alpha drop, white"):
        written(tmp_path, "npz")


def test_flags_of_the_command_line_are_the_options(tmp_path: Path, command: Command) -> None:
    pixels = rgba(tmp_path / "in/a/x.png")
    given = "convert", "-i", tmp_path / "in", "-f", "imagenet", "-o", tmp_path / "out"
    assert command(*given, "--alpha", "drop", "--rgb")[0] == 0
    assert (stored(tmp_path / "out/a/x.png") == pixels[..., :3]).all()


def as_rgb(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def saved(path: Path, kind: str, **options: Any) -> bytes:
    """Writes an image of some kind; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path, kind, **options)
    return path.read_bytes()


KINDS = {
    "a.webp": "WEBP",
    "b.gif": "GIF",
    "c.bmp": "BMP",
    "d.tiff": "TIFF",
    "e.tif": "TIFF",
    "f.jfif": "JPEG",
    "g.jpe": "JPEG",
}


@pytest.mark.parametrize(
    "output_format", ["imagenet", "image_dir", "imagenet_txt", "datumaro", "parquet", "webdataset"]
)
def test_other_kinds_pass_through_where_readers_take_them(tmp_path: Path, output_format: str) -> None:
    files = {name: saved(tmp_path / "in/cat" / name, kind) for name, kind in KINDS.items()}
    out, notices = written(tmp_path, output_format)
    back = tmp_path / "back"
    convert(ConvertOptions(str(out), str(back), "image_dir", input_format=output_format))
    found = {path.name: path.read_bytes() for path in back.rglob("*.*") if path.name[0] in "abcdefg"}
    assert sorted(found.values()) == sorted(files.values())
    assert not [text for text in notices if "frame" in text]
    if output_format == "imagenet":
        assert {path.name: path.read_bytes() for path in out.rglob("*.*")} == files


@pytest.mark.parametrize(("output_format", "images"), [("npz", 7), ("tfds_parquet", 7), ("voc_classification", 7)])
def test_other_kinds_are_decoded_where_readers_do_not_take_them(
    tmp_path: Path, output_format: str, images: int
) -> None:
    for name, kind in KINDS.items():
        saved(tmp_path / "in/cat" / name, kind)
    out, _ = written(tmp_path, output_format)
    if output_format == "npz":
        pixels = np.load(next(out.glob("*.npz")))["images"]
        assert all((made == as_rgb(tmp_path / "in/cat" / name)).all() for made, name in zip(pixels, KINDS, strict=True))
    assert len(list(out.rglob("*.jpg"))) == (images if output_format == "voc_classification" else 0)


def test_the_first_bytes_say_what_a_file_is(tmp_path: Path) -> None:
    gif = saved(tmp_path / "in/cat/x.jpg", "GIF")
    out, _ = written(tmp_path, "imagenet")
    assert (out / "cat/x.gif").read_bytes() == gif
    out, _ = written(tmp_path, "npz")
    expected = as_rgb(tmp_path / "in/cat/x.jpg")
    assert (np.load(next(out.glob("*.npz")))["images"][0] == expected).all()


def test_frames_that_are_not_read_are_told(tmp_path: Path) -> None:
    more = [Image.new("RGB", (5, 6), colour) for colour in ("red", "blue")]
    saved(tmp_path / "in/cat/x.gif", "GIF", save_all=True, append_images=more)
    saved(tmp_path / "in/cat/y.gif", "GIF")
    _, notices = written(tmp_path, "npz")
    assert [text for text in notices if "frame" in text] == [
        "1 image was decoded from its first frame or page alone; files that pass through keep all of them"
    ]
