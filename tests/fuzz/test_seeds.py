"""What fuzzing found once stays mended, and every target reads its seeds and some mutants of them."""

from __future__ import annotations

import hashlib
import json
import mmap
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.fuzz import __main__ as fuzzing
from tests.fuzz import targets
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target


def account_of(facts: str) -> bytes:
    return json.dumps([facts, hashlib.sha256(facts.encode()).hexdigest()]).encode()


# The end of numpy's state of a dtype: size, alignment, flags.
_STATE = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"

_META = pickle.dumps({"label_names": ["cat", "dog", "собака"], "num_vis": 3072}, 4)

FOUND: dict[str, tuple[str, Callable[[], bytes]]] = {
    "account nested too deeply": ("account", lambda: b"[" * 100_000),
    "facts of an account nested too deeply": ("account", lambda: account_of("[" * 100_000)),
    "dtype of numbers with the flag of objects": (
        "batch",
        lambda: pickle.dumps({"labels": [1], "data": np.zeros((1, 3), "u1")}, 2).replace(
            _STATE, _STATE[:-2] + b"\x01t"
        ),
    ),
    # Python's own unpickler reads other values than these say.
    "a pixel with a leading zero": (
        "batch",
        lambda: pickle.dumps({"labels": [1], "data": np.array([[10, 55, 30]], object)}, 0).replace(b"I55\n", b"I055\n"),
    ),
    "frame within a frame": ("meta", lambda: _META[:42] + b"\x95" + bytes(8) + _META[42:]),
    "opcode across the end of a frame": ("meta", lambda: _META[:3] + bytes([_META[3] - 20]) + _META[4:]),
    "infinite count in an account": ("account", lambda: account_of('{"read": [["a", 1e999, 1]]}')),
    "infinite count in a manifest": (
        "manifest",
        lambda: b'{"counts": {"read": {"a": {"0": 1e999}}, "filtered": {}, "written": {}, "rejected": {}}}',
    ),
}
"""Target and input of each finding."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SCRATCH", tmp_path)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_refused(name: str) -> None:
    target, make = FOUND[name]
    with pytest.raises(TARGETS[target].errors) as caught:
        TARGETS[target].run(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutants_are_read_or_refused(name: str) -> None:
    target, random = TARGETS[name], Random(7)
    seeds = target.seeds()
    assert seeds
    chosen = [random.choice(seeds) for _ in range(20)]
    for data in chosen + [mutated(data, random, target.mutator) for data in chosen]:
        with suppress(*target.errors):
            target.run(data)


@pytest.mark.parametrize(("limit", "found"), [(100, 0), (50, 1)])
def test_an_input_that_takes_too_much_more_memory_than_the_seeds_is_found(
    limit: int, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(data: bytes) -> None:
        if data != b"seed":
            with mmap.mmap(-1, 70 << 20) as shared:  # which no limit on a process's own data holds back
                for _ in range(70):
                    shared.write(bytes(1 << 20))

    monkeypatch.setattr(fuzzing, "OUT", tmp_path)
    monkeypatch.setattr(fuzzing, "MEMORY", limit << 20)
    monkeypatch.setitem(TARGETS, "hungry", Target(lambda: [b"seed"], run))
    result = fuzzing.fuzz("hungry", 5, 60, 7, None)
    assert 65 < result.grown < 100
    assert result.untyped == found
    assert [Path(each).with_suffix(".why").read_text()[:20] for each in result.findings] == [
        "the process grew by "
    ] * found
