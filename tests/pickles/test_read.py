"""Every layout by every writer reads value-equal."""

from __future__ import annotations

import ast
import hashlib
import io
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

import beam_cifar.pickles
from beam_cifar.errors import PickleError
from beam_cifar.pickles.recognise import Meta, read_batch, read_meta
from beam_cifar.pickles.rows import Images
from tests.helpers import pickle_corpus as corpus

VARIANTS = [(layout, writer) for layout in corpus.LAYOUTS for writer in corpus.WRITERS]


def lengths_of(images: Sequence[bytes | None]) -> list[int | None]:
    return [None if image is None else len(image) for image in images]


def check_rows(
    images: Images | None, file: BinaryIO, expected: Sequence[bytes | None] | None, start: int, stop: int
) -> None:
    assert images is not None
    assert expected is not None
    data, lengths = images.read(file, start, stop)
    assert bytes(data) == b"".join(image or b"" for image in expected[start:stop])
    if lengths is None:
        assert images.size is not None
        height, width = images.size
        lengths = [3 * height * width] * (stop - start)
    assert list(lengths) == lengths_of(expected[start:stop])
    sizes = images.sizes(start, stop)
    assert [size and 3 * size[0] * size[1] for size in sizes] == lengths_of(expected[start:stop])


@pytest.mark.parametrize(("layout", "writer"), VARIANTS)
def test_reads_value_equal(layout: str, writer: str) -> None:
    case = corpus.LAYOUTS[layout]()
    file = io.BytesIO(corpus.WRITERS[writer](case.value))
    batch = read_batch(file, "batch")
    assert batch.rows == len(case.labels)
    assert batch.kind == case.kind
    assert tuple(batch.labels) == case.labels
    assert batch.coarse_labels == case.coarse
    assert batch.filenames == case.names
    assert batch.batch_label == case.label
    assert batch.python2_style is (case.styled and writer == "python2_2")
    if case.images is None:
        assert batch.images is None
        return
    images = batch.images
    assert images is not None
    assert (images.rows, images.size) == (batch.rows, case.size)
    assert (images.present, images.missing) == (batch.rows - case.images.count(None), case.images.count(None))
    assert images.nbytes == sum(map(len, filter(None, case.images)))
    rows = batch.rows
    ranges = {
        (0, rows),
        (0, 0),
        (0, min(1, rows)),
        (rows // 3, rows),
        (rows // 3, rows // 2 + 1),
        (max(rows - 1, 0), rows),
    }
    for start, stop in ranges:
        if stop <= rows:
            check_rows(images, file, case.images, start, stop)


def test_a_long_name_that_repeats_is_refused_before_it_takes_memory() -> None:
    names = b"T" + (60_000).to_bytes(4, "little") + b"x" * 60_000 + b"q\x01" + b"h\x01" * 19_999
    data = b"\x80\x02}(U\x06labels](" + b"N" * 20_000 + b"eU\x09filenames](" + names + b"eu."
    tracemalloc.start()
    try:
        with pytest.raises(PickleError, match="take more memory than a CIFAR file of 120036 bytes needs"):
            read_batch(io.BytesIO(data), "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6


def test_a_short_name_that_repeats_is_kept() -> None:
    data = pickle.dumps({"labels": [0] * 20_000, "filenames": ["image.png"] * 20_000, "data": []}, 2)
    assert read_batch(io.BytesIO(data), "x").filenames == ("image.png",) * 20_000


def test_structure_digest_leaves_out_exactly_the_pixels() -> None:
    case = corpus.standard()
    data = corpus.python2(2)(case.value)
    pixels = corpus.PIXELS.tobytes()
    expected = hashlib.sha256(data.replace(pixels, b"")).hexdigest()
    assert read_batch(io.BytesIO(data), "x").structure_sha256 == expected


@pytest.mark.parametrize("layout", ["standard", "object_rows", "tiny_rows", "tiny_images", "object_planes_fortran"])
def test_structure_digest_does_not_depend_on_pixels(layout: str) -> None:
    case = corpus.LAYOUTS[layout]()
    data = corpus.python2(2)(case.value)
    assert case.images is not None
    pixels = case.images[1]
    assert pixels is not None
    assert pixels in data or layout == "object_planes_fortran"
    other = data.replace(pixels, bytes(reversed(pixels)))
    digests = {read_batch(io.BytesIO(item), "x").structure_sha256 for item in (data, other)}
    assert len(digests) == 1


def test_a_raw_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(corpus.python3(4)(corpus.large_payload().value))
    with path.open("rb", buffering=0) as file:
        batch = read_batch(file, "batch")
        check_rows(batch.images, file, corpus.large_payload().images, 17, 90)


@pytest.mark.parametrize("writer", ["python2_0", "python2_2", "python3_0", "python3_2", "python3_4"])
@pytest.mark.parametrize("layout", ["large_payload", "fortran", "mixed_sizes"])
def test_a_file_that_shrank_is_refused(layout: str, writer: str) -> None:
    data = corpus.WRITERS[writer](corpus.LAYOUTS[layout]().value)
    batch = read_batch(io.BytesIO(data), "batch")
    assert batch.images is not None
    with pytest.raises(PickleError):
        batch.images.read(io.BytesIO(data[:200]), 0, batch.rows)


def test_rows_out_of_range_are_an_index_error() -> None:
    file = io.BytesIO(corpus.styled())
    batch = read_batch(file, "x")
    assert batch.images is not None
    with pytest.raises(IndexError):
        batch.images.read(file, 0, corpus.ROWS + 1)


@pytest.mark.parametrize("layout", ["standard", "fortran", "object_ints", "mixed_sizes", "object_rows_with_none"])
def test_a_batch_travels_between_processes(layout: str) -> None:
    case = corpus.LAYOUTS[layout]()
    file = io.BytesIO(corpus.python3(2)(case.value))
    batch = read_batch(file, "x")
    copy = pickle.loads(pickle.dumps(batch))
    check_rows(copy.images, file, case.images, 1, 4)


META10 = {"num_cases_per_batch": 10000, "label_names": ["cat", "dog", "кит"], "num_vis": 3072}
META100 = {"fine_label_names": ["apple", "bear"], "coarse_label_names": ["fruit", "large"]}


@pytest.mark.parametrize("writer", corpus.WRITERS)
def test_meta_files_are_read(writer: str) -> None:
    write = corpus.WRITERS[writer]
    assert read_meta(io.BytesIO(write(META10)), "m") == Meta("cifar10", ("cat", "dog", "кит"), (), 10000, 3072)
    expected = Meta("cifar100", ("apple", "bear"), ("fruit", "large"), None, None)
    assert read_meta(io.BytesIO(write(META100)), "m") == expected
    arrays = {"label_names": np.array(["cat", "dog"]), b"num_vis": np.int64(3072)}
    assert read_meta(io.BytesIO(write(arrays)), "m") == Meta("cifar10", ("cat", "dog"), (), None, 3072)


def test_a_batch_of_ten_thousand_rows_takes_little_memory() -> None:
    rows = 10_000
    data = corpus.styled(
        data=np.zeros((rows, 3072), np.uint8),
        labels=[1] * rows,
        filenames=[f"some_picture_s_{row:06}.png" for row in range(rows)],
    )
    file = io.BytesIO(data)
    tracemalloc.start()
    batch = read_batch(file, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.python2_style
    assert peak < 8e6


def test_nothing_in_the_package_unpickles_or_imports() -> None:
    folder = Path(beam_cifar.pickles.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        words |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
        forbidden = {
            "pickle",
            "pickletools",
            "Unpickler",
            "find_class",
            "eval",
            "exec",
            "__import__",
            "import_module",
            "marshal",
        }
        assert not words & forbidden, path


def test_importing_the_package_imports_no_array_library() -> None:
    code = "import sys, beam_cifar.pickles; print([m for m in ('numpy', 'pyarrow', 'pickle') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
