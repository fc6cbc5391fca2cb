"""Bad files are refused with one error, run nothing and take no memory."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar.errors import PickleError
from beam_cifar.pickles import source
from beam_cifar.pickles.recognise import Batch, read_batch, read_meta
from tests.helpers import pickle_corpus as corpus


def small_files() -> dict[str, bytes]:
    value = corpus.batch(
        data=np.arange(24, dtype=np.uint8).reshape(2, 12), labels=[1, 2], filenames=["a", "ж"], mean=np.array([0.5])
    )
    rows = value | {"data": corpus.objects([np.arange(12, dtype=np.uint8), None]), "image_sizes": [(2, 2), (32, 32)]}
    kinds = {"plain": value, "rows": rows}
    return {f"{kind}_{name}": write(kinds[kind]) for kind in kinds for name, write in corpus.WRITERS.items()}


SMALL = small_files()


def read_all(data: bytes) -> Batch:
    """Reads everything there is to read."""
    file = io.BytesIO(data)
    batch = read_batch(file, "bad")
    if batch.images is not None:
        batch.images.read(file, 0, batch.rows)
    return batch


@pytest.mark.parametrize("body", [b"N" * 100_000, b"]" + b"Na" * 2000, b"](" + b"N" * 2000 + b"e"])
def test_values_are_counted_before_they_fill_the_memory(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FREE_BYTES", 1 << 14)
    with pytest.raises(PickleError, match="take more memory"):
        read_all(b"\x80\x02" + body + b".")


@pytest.mark.parametrize("name", corpus.BAD)
def test_refuses(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = corpus.BAD[name](str(marker))
    tracemalloc.start()
    try:
        with pytest.raises(PickleError) as caught:
            read_all(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is PickleError
    assert not marker.exists()
    assert peak < 1.2 * (source.FREE_BYTES + len(data))
    assert 0 <= caught.value.offset <= len(data)
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "empty"),
        ("gzip", "gzip"),
        ("zip", "zip archive"),
        ("torch", "PyTorch"),
        ("text", "not a pickle: starts with b'Hello"),
        ("calls_posix_system", "refused: calls posix.system; expected only numpy's array constructors in a CIFAR file"),
        ("meta_for_batch", "a meta file"),
        ("other_dictionary", "keys found ['classes', 'images']"),
        ("labels_too_few", "'labels' has 4 entries, but 'filenames' has 5 entries"),
        ("rows_too_few", "'labels' has 5 entries, but 'data' has 4 rows"),
        ("string_beyond_the_file", "truncated"),
        ("encode_hex", "'latin1'"),
        ("data_after_stop", "1 byte after the end"),
        ("labels_bool", "'labels' entry 0 is True"),
        ("deep_tuples", "deep"),
        ("billion_laughs", "take more memory than a CIFAR file of 255 bytes needs; refused as a bomb"),
        ("key_twice", "'labels' occurs twice"),
    ],
)
def test_the_reason_says_what_was_found(name: str, words: str) -> None:
    with pytest.raises(PickleError) as caught:
        read_batch(io.BytesIO(corpus.BAD[name]("/nonexistent")), "some/file")
    assert words in caught.value.reason
    assert str(caught.value).startswith("some/file: byte ")


@pytest.mark.parametrize("name", SMALL)
def test_truncation_at_any_byte_is_refused(name: str) -> None:
    data = SMALL[name]
    assert read_all(data).rows == 2
    for length in range(len(data)):
        with pytest.raises(PickleError):
            read_all(data[:length])


@pytest.mark.parametrize("name", SMALL)
def test_a_changed_byte_reads_or_is_refused(name: str) -> None:
    data = SMALL[name]
    for position in range(len(data)):
        for new in (0x28 if position % 2 else 0x68, data[position] ^ 1):
            try:
                read_all(data[:position] + bytes([new]) + data[position + 1 :])
            except PickleError:
                continue


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.randoms(use_true_random=False), st.binary(max_size=8))
def test_spliced_files_read_or_are_refused(name: str, chance: random.Random, patch: bytes) -> None:
    data = SMALL[name]
    other = SMALL[chance.choice(sorted(SMALL))]
    start = chance.randrange(len(data))
    cut = chance.randrange(len(other))
    for changed in (data[:start] + patch + data[start + len(patch) :], data[:start] + other[cut:]):
        for read in (read_all, lambda item: read_meta(io.BytesIO(item), "meta")):
            try:
                read(changed)
            except PickleError:
                continue


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x02", b"\x80\x02}(", b"\x80\x04}("]))
def test_noise_is_refused(noise: bytes, start: bytes) -> None:
    with pytest.raises(PickleError):
        read_batch(io.BytesIO(start + noise), "noise")


BAD_META = {
    "duplicate": {"label_names": ["a", "a"]},
    "duplicate_coarse": {"fine_label_names": ["a"], "coarse_label_names": ["b", "b"]},
    "not_utf8": {"label_names": [b"\xff"]},
    "not_text": {"label_names": [1, 2]},
    "not_a_list": {"label_names": "abc"},
    "both": {"label_names": ["a"], "fine_label_names": ["a"]},
    "batch": corpus.batch(),
    "neither": {"names": ["a"]},
    "coarse_only": {"coarse_label_names": ["a"]},
    "num_vis_text": {"label_names": ["a"], "num_vis": "3072"},
    "num_vis_bool": {"label_names": ["a"], "num_vis": True},
}


@pytest.mark.parametrize("name", BAD_META)
def test_a_bad_meta_file_is_refused(name: str) -> None:
    with pytest.raises(PickleError):
        read_meta(io.BytesIO(corpus.python2(2)(BAD_META[name])), "meta")
