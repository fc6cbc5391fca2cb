"""Unique ids: repetitions are found among any texts, in slices of arrays too."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_cifar.naming import ids
from beam_cifar.naming.ids import unique_ids, unique_texts

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["", "a", "aa", "ab"]))


@given(TEXTS, st.integers(0, 3))
def test_texts_are_made_unique_as_a_list_is(texts: list[str], skipped: int) -> None:
    made, repeated = unique_texts(pa.array(texts, pa.string())[skipped:])
    assert (made.to_pylist(), repeated) == unique_ids(texts[skipped:])
    assert len(set(made.to_pylist())) == len(made)


@pytest.mark.parametrize("step", [1, 64, 1 << 17])
def test_a_repetition_far_away_is_found(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(ids, "_HASHED_BYTES", step)
    texts = [f"{row:05d}" for row in range(3000)]
    assert unique_texts(pa.array(texts))[1] == 0
    made, repeated = unique_texts(pa.array([*texts, "x" * 70_000, "00007"]))
    assert repeated == 1
    assert made[-1].as_py() == "00007_2"


def test_bytes_in_another_order_are_another_text() -> None:
    texts = ["ab", "ba", "a\0", "\0a", "a", "aa", ""]
    assert unique_texts(pa.array(texts)) == (pa.array(texts), 0)


def test_an_equal_hash_is_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_may_repeat", lambda _: True)
    texts = pa.array(["a", "b"])
    assert unique_texts(texts) == (texts, 0)
