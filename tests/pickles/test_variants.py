"""What Python's own unpickler reads, held to a few calls, is what we read: in every layout, by every writer, by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest

from beam_cifar.pickles.recognise import Batch, read_batch, read_meta
from tests.helpers import pickle_corpus as corpus
from tests.helpers import pickle_variants as variants


def columns(batch: Batch, file: io.BytesIO) -> dict[str, Any]:
    """A batch as `variants.unpickled` gives it."""
    images, rows = batch.images, []
    if images is not None:
        pixels, lengths = images.read(file, 0, batch.rows)
        size = images.size
        for length in lengths if lengths is not None else [3 * size[0] * size[1]] * batch.rows if size else []:
            rows.append(None if length is None else bytes(pixels[:length]))
            pixels = pixels[length or 0 :]
    return {
        "labels": None if batch.kind is None else list(batch.labels),
        "coarse_labels": None if batch.coarse_labels is None else list(batch.coarse_labels),
        "filenames": None if batch.filenames is None else list(batch.filenames),
        "batch_label": batch.batch_label,
        "data": rows,
    }


def check(data: bytes, pickled: bytes | None = None) -> None:
    """Compares with Python's unpickler, given the file as it was pickled where that cannot read it."""
    expected = variants.unpickled(data if pickled is None else pickled)
    file = io.BytesIO(data)
    found = columns(read_batch(file, "batch"), file)
    assert found.pop("data") == (expected.get("data") or [])
    expected["labels"] = expected.get("labels", expected.get("fine_labels"))
    assert found == {key: expected.get(key) for key in found}


@pytest.mark.parametrize("name", variants.BATCHES)
def test_a_batch_made_by_hand_reads_value_equal(name: str) -> None:
    check(variants.BATCHES[name])


@pytest.mark.parametrize("layout", corpus.LAYOUTS)
def test_a_layout_reads_value_equal_by_every_writer(layout: str) -> None:
    value = corpus.LAYOUTS[layout]().value
    for name, write in corpus.WRITERS.items():
        data = write(value)
        check(data, data.replace(b"\r\n", b"\n") if name.endswith("_text") else None)


@pytest.mark.parametrize("name", variants.METAS)
def test_a_meta_file_made_by_hand_reads_value_equal(name: str) -> None:
    data = variants.METAS[name]
    expected, found = variants.unpickled(data), read_meta(io.BytesIO(data), "meta")
    assert list(found.label_names) == expected.get("label_names", expected.get("fine_label_names"))
    assert list(found.coarse_label_names) == expected.get("coarse_label_names", [])
    assert found.num_vis == expected.get("num_vis")
    assert found.num_cases_per_batch == expected.get("num_cases_per_batch")


def test_there_are_160_good_variants_and_no_two_are_alike() -> None:
    by_hand = [*variants.BATCHES.values(), *variants.METAS.values()]
    assert len(set(by_hand)) == len(by_hand)
    assert len(by_hand) + len(corpus.LAYOUTS) >= 160
    assert len(by_hand) >= 120
