"""`beam-cifar diff`: equal is what holds the same items, and what differs is named row by row."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_cifar import Comparison, LabelTable, compare
from beam_cifar.analysis import pairing as matching
from beam_cifar.analysis.derive import Measured
from beam_cifar.analysis.diff import EVERYTHING, compared
from beam_cifar.analysis.pairing import pair_up
from beam_cifar.analysis.tally import ROW
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog
from beam_cifar.jobs import serial
from beam_cifar.options import Input
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import batch, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.tables import documented_fields


@pytest.fixture(autouse=True)
def plainly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads without a runner where the runner is not the point."""
    if "beam" not in request.fixturenames:
        monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


def pets(folder: Path, name: str = "train", **changed: Any) -> Path:
    """Four pictures with ids a to d: cat, dog, dog, ship; parts of the batch can be given otherwise."""
    content = {**batch(["a.png", "b.png", "c.png", "d.png"], [0, 1, 1, 2]), **changed}
    return write_cifar(folder, {name: content})


def counts(found: Comparison) -> list[tuple[int, ...]]:
    """Of each subset: only in A, only in B, other labels, other pixels, other sizes, other ids."""
    return [
        tuple(
            each.count
            for each in (subset.only_a, subset.only_b, subset.labels, subset.pixels, subset.sizes, subset.ids)
        )
        for subset in found.subsets
    ]


def test_a_set_equals_itself_in_another_format(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "png", "imagenet_with_subset_dirs")
    found = compare(cifar10, tmp_path / "png", ids=True)
    assert found.equal
    assert (found.tables, found.notices) == ((), ())
    assert [subset.rows for subset in found.subsets] == [(201, 201)] * 3 + [(200, 200)] * 3
    assert all(subset.digests[0] == subset.digests[1] for subset in found.subsets)


def test_gray_equals_colour_with_equal_channels(tmp_path: Path) -> None:
    gray = picture(1, channels=1)
    write_tree(tmp_path / "gray", {"cat/1.png": encoded(gray)})
    write_tree(tmp_path / "rgb", {"cat/1.png": encoded(np.repeat(gray, 3, axis=0))})
    assert compare(tmp_path / "gray", tmp_path / "rgb").equal


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    content = batch(["a.png", "b.png", "c.png", "d.png"], [0, 1, 1, 2])
    turned = {key: content[key][::-1] for key in content}
    one, other = pets(tmp_path / "a"), write_cifar(tmp_path / "b", {"train": turned})
    assert compare(one, other, ids=True).equal


def test_another_label_is_told_with_both_names(tmp_path: Path) -> None:
    found = compare(pets(tmp_path / "a"), pets(tmp_path / "b", labels=[0, 0, 1, None]))
    assert not found.equal
    assert counts(found) == [(0, 0, 2, 0, 0, 0)]
    changes = found.subsets[0].labels.first
    assert [(each.a.subset, each.a.id, each.before, each.after) for each in changes] == [
        ("train", "b", "dog", "cat"),
        ("train", "d", "ship", "no label"),
    ]


def test_a_label_differs_also_where_ids_do(tmp_path: Path) -> None:
    other = pets(tmp_path / "b", labels=[0, 0, 1, 2], filenames=["1.png", "2.png", "3.png", "4.png"])
    found = compare(pets(tmp_path / "a"), other)
    assert counts(found) == [(0, 0, 1, 0, 0, 0)]
    change = found.subsets[0].labels.first[0]
    assert (change.a.id, change.b.id, change.before, change.after) == ("b", "2", "dog", "cat")


def test_one_pixel_is_enough(tmp_path: Path) -> None:
    data = batch(list("abcd"), [0] * 4)["data"]
    data[2, 17] ^= 1
    found = compare(pets(tmp_path / "a"), pets(tmp_path / "b", data=data))
    assert counts(found) == [(0, 0, 0, 1, 0, 0)]
    change = found.subsets[0].pixels.first[0]
    assert (change.a.id, change.b.id, change.a.label) == ("c", "c", "dog")
    assert change.before != change.after


def test_another_size_and_a_missing_image_are_told(tmp_path: Path) -> None:
    one = write_tree(tmp_path / "a", {"cat/1.png": encoded(picture(1)), "cat/2.png": encoded(picture(2))})
    other = write_tree(tmp_path / "b", {"cat/1.png": encoded(picture(1)), "cat/2.png": encoded(picture(2, 28, 30))})
    found = compare(one, other)
    assert counts(found) == [(0, 0, 0, 0, 1, 0)]
    assert [(each.before, each.after) for each in found.subsets[0].sizes.first] == [("32 x 32", "28 x 30")]
    bare = write_cifar(tmp_path / "bare", {"train": {"labels": [0, 1, 1, 2], "filenames": list("abcd")}})
    found = compare(pets(tmp_path / "c"), bare)
    assert counts(found) == [(0, 0, 0, 0, 4, 0)]
    assert {(each.before, each.after) for each in found.subsets[0].sizes.first} == {("32 x 32", "no image")}
    assert compare(bare, bare, ids=True).equal


def test_rows_of_one_side_are_listed(tmp_path: Path) -> None:
    content = batch(["a.png", "b.png", "c.png", "d.png"], [0, 1, 1, 2])
    less = {key: content[key][:3] for key in content}
    more = batch(["a.png", "b.png", "c.png", "e.png"], [0, 1, 1, 2])
    more["data"][3] = picture(77).reshape(-1)
    one = pets(tmp_path / "a")
    found = compare(one, write_cifar(tmp_path / "less", {"train": less}))
    assert (counts(found), found.subsets[0].rows) == ([(1, 0, 0, 0, 0, 0)], (4, 3))
    found = compare(one, write_cifar(tmp_path / "more", {"train": more}))
    assert counts(found) == [(1, 1, 0, 0, 0, 0)]
    (only_a,), (only_b,) = found.subsets[0].only_a.first, found.subsets[0].only_b.first
    assert [(row.subset, row.id, row.label) for row in (only_a, only_b)] == [
        ("train", "d", "ship"),
        ("train", "e", "ship"),
    ]


def test_counts_are_exact_and_ten_are_listed(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(25)]
    one = write_cifar(tmp_path / "a", {"train": batch(names, [0] * 25)})
    other = write_cifar(tmp_path / "b", {"train": batch(names, [0] * 12 + [1] * 13)})
    labels = compare(one, other).subsets[0].labels
    assert (labels.count, [each.a.id for each in labels.first]) == (13, [str(n) for n in range(12, 22)])


def test_rows_are_found_whichever_part_they_are_looked_for_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n}.png" for n in range(40)]
    one, other = batch(names, [n % 3 for n in range(40)]), batch(names, [n % 3 for n in range(40)])
    other["labels"][:5], other["labels"][7] = [2, 2, 0, 1, None], None
    other["data"][30:33] ^= 1
    other["filenames"][36:] = ["w", "x", "y", "z"]
    other["data"][39] ^= 1
    sides = [write_cifar(tmp_path / name, {"train": content}) for name, content in (("a", one), ("b", other))]
    whole = compare(*sides, ids=True)
    assert counts(whole) == [(1, 1, 6, 3, 0, 3)]
    monkeypatch.setattr(matching, "PART_ROWS", 3)
    assert compare(*sides, ids=True) == whole


def test_how_often_an_image_is_there_counts(tmp_path: Path) -> None:
    twice = batch(["a.png", "b.png"], [0, 0])
    twice["data"][1] = twice["data"][0]
    once = batch(["a.png", "b.png"], [0, 0])
    one, other = (write_cifar(tmp_path / n, {"train": c}) for n, c in (("a", twice), ("b", once)))
    found = compare(one, other)
    assert counts(found) == [(0, 0, 0, 1, 0, 0)]
    assert found.subsets[0].pixels.first[0].a.id == "b"


def test_ids_count_when_asked(tmp_path: Path) -> None:
    one, other = pets(tmp_path / "a"), pets(tmp_path / "b", filenames=["a.png", "b.png", "c.png", "z.png"])
    assert compare(one, other).equal
    found = compare(one, other, ids=True)
    assert counts(found) == [(0, 0, 0, 0, 0, 1)]
    assert [(each.before, each.after) for each in found.subsets[0].ids.first] == [("d", "z")]


def test_batches_are_folded_where_names_differ(tmp_path: Path) -> None:
    batches = {f"data_batch_{n}": batch([f"{n}.png", f"{n}b.png"], [0, 1], seed=n) for n in (1, 2)}
    whole = {key: np.concatenate([np.asarray(b[key]) for b in batches.values()]) for key in ("data", "labels")}
    merged = {**whole, "labels": whole["labels"].tolist(), "filenames": [*batches["data_batch_1"]["filenames"], *batches["data_batch_2"]["filenames"]]}  # fmt: skip
    one, other = write_cifar(tmp_path / "a", batches), write_cifar(tmp_path / "b", {"train": merged})
    found = compare(one, other, ids=True)
    assert found.equal
    assert [(subset.name, subset.rows) for subset in found.subsets] == [("train", (4, 4))]
    assert found.notices == (
        "subsets are compared by split, because their names differ: data_batch_1, data_batch_2 and train",
    )
    assert [subset.name for subset in compare(one, one).subsets] == ["data_batch_1", "data_batch_2"]


def test_a_subset_that_is_missing_is_a_difference_unless_all_is_one(tmp_path: Path) -> None:
    one, other = pets(tmp_path / "a", "train"), pets(tmp_path / "b", "val")
    found = compare(one, other)
    assert [(subset.name, subset.rows) for subset in found.subsets] == [("train", (4, 0)), ("val", (0, 4))]
    assert counts(found) == [(4, 0, 0, 0, 0, 0), (0, 4, 0, 0, 0, 0)]
    found = compare(one, other, whole=True)
    assert (found.equal, [subset.name for subset in found.subsets]) == (True, [EVERYTHING])


def test_class_names_decide_and_their_order_is_told(tmp_path: Path) -> None:
    content = batch(["a.png", "b.png"], [0, 1])
    one = write_cifar(tmp_path / "a", {"train": content}, ["cat", "dog"])
    other = write_cifar(tmp_path / "b", {"train": {**content, "labels": [1, 0]}}, ["dog", "cat"])
    found = compare(one, other)
    assert found.equal
    assert found.notices == ("classes are numbered differently: 0 is 'cat' in A, 'dog' in B",)


def test_tables_of_a_hundred_thousand_classes_are_compared_in_seconds() -> None:
    names = tuple(map(str, range(100_000)))
    one, other = (
        Measured(
            Catalog("cifar", "CIFAR-10", "set", table, ()), table, (), np.zeros(0, ROW), np.zeros((0, 3, 256), int), ()
        )
        for table in (LabelTable(names), LabelTable((*names[:0:-1], "other")))
    )
    started = time.process_time()
    found = compared(one, other)
    assert time.process_time() - started < 10
    assert found.notices == (
        "class '0' is only in A, without rows",
        "class 'other' is only in B, without rows",
        "classes are numbered differently: 0 is '1' in A, '99999' in B",
    )


def test_a_class_without_rows_is_a_note_and_one_with_rows_a_difference(tmp_path: Path) -> None:
    content = batch(["a.png", "b.png"], [0, 1])
    one = write_cifar(tmp_path / "a", {"train": content}, ["cat", "dog", "emu"])
    other = write_cifar(tmp_path / "b", {"train": content}, ["cat", "dog"])
    found = compare(one, other)
    assert (found.equal, found.notices) == (True, ("class 'emu' is only in A, without rows",))
    third = write_cifar(tmp_path / "c", {"train": content}, ["cat", "cow"])
    found = compare(other, third)
    assert found.tables == ("class 'dog' is only in A", "class 'cow' is only in B")
    assert counts(found) == [(0, 0, 1, 0, 0, 0)]


def write_cifar100(folder: Path, coarse: Sequence[int], names: Sequence[str] = ("pets", "ships")) -> Path:
    """A CIFAR-100 directory of four pictures."""
    import pickle

    content = batch(list("abcd"), [0, 1, 1, 2])
    content |= {"fine_labels": content.pop("labels"), "coarse_labels": list(coarse)}
    folder.mkdir()
    meta = {"fine_label_names": ["cat", "dog", "ship"], "coarse_label_names": list(names)}
    for name, made in (("meta", meta), ("train", content)):
        (folder / name).write_bytes(pickle.dumps(made, protocol=4))
    return folder


def test_superclasses_are_compared_where_both_sides_have_them(tmp_path: Path) -> None:
    one, other = write_cifar100(tmp_path / "a", [0, 0, 0, 1]), write_cifar100(tmp_path / "b", [0, 1, 1, 1])
    found = compare(one, other)
    assert found.rows_equal
    assert found.tables == ("class 'dog' has superclass 'pets' in A, 'ships' in B",)
    turned = write_cifar100(tmp_path / "c", [1, 1, 1, 0], ["ships", "pets"])
    found = compare(one, turned)
    assert found.equal
    assert found.notices == ("superclasses are numbered differently: 0 is 'pets' in A, 'ships' in B",)
    plain = pets(tmp_path / "d", filenames=list("abcd"))
    found = compare(one, plain, ids=True)
    assert (found.equal, found.notices) == (True, ("only A has superclasses",))


def test_formats_and_subsets_can_be_given(cifar10: Path) -> None:
    found = compare(Input(str(cifar10), "cifar", ("test",)), Input(str(cifar10), subsets=("test_batch",)))
    assert (found.equal, [subset.name for subset in found.subsets]) == (True, ["test_batch"])


def test_a_damaged_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 3: label 7"):
        compare(pets(tmp_path / "a"), pets(tmp_path / "b", labels=[0, 1, 1, 7]))


columns = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30)


@given(columns, columns)
def test_pairs_are_as_many_as_counting_finds(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    sides = [np.array(side, dtype=np.int64).reshape(-1, 2).T for side in (one, other)]
    first, second = pair_up(list(sides[0]), list(sides[1]))
    assert [one[at] for at in first] == [other[at] for at in second]
    assert Counter(one[at] for at in first) == Counter(one) & Counter(other)
    assert len(set(first.tolist())) == len(first)
    assert len(set(second.tolist())) == len(second)


def test_the_command_says_what_differs_and_exits_with_5(tmp_path: Path, command: Command) -> None:
    data = batch(list("abcd"), [0] * 4)["data"]
    data[2, 17] ^= 1
    one, other = pets(tmp_path / "a"), pets(tmp_path / "b", data=data, labels=[0, 0, 1, 2])
    code, out, err = command("diff", one, other)
    lines = out.splitlines()
    assert code == 5
    told = "1 row with a different label, 1 row with different pixels"
    assert err == f"beam-cifar: error: {one} and {other} differ: {told}\n"
    assert lines[2] == "train: differs, 4 rows in A, 4 in B"
    assert lines[3:5] == ["  1 row with a different label", "    train: b: dog -> cat"]
    assert lines[5] == "  1 row with different pixels"
    assert lines[-1] == f"different: {told}"


def test_the_command_is_content_with_equal_sets(tmp_path: Path, command: Command) -> None:
    one = pets(tmp_path / "a")
    code, out, err = command("diff", f"{one}:cifar", one, "--ids", "--whole")
    assert (code, err, out.splitlines()[-1]) == (0, "", "equal")


def test_json_has_all_of_it(tmp_path: Path, command: Command) -> None:
    one, other = pets(tmp_path / "a"), pets(tmp_path / "b", labels=[0, 0, 1, 2])
    code, out, _ = command("diff", one, other, "--json")
    facts = json.loads(out)
    assert (code, facts["equal"]) == (5, False)
    assert facts["subsets"][0]["labels"] == {
        "count": 1,
        "first": [
            {
                "a": {"subset": "train", "id": "b", "label": "dog"},
                "b": {"subset": "train", "id": "b", "label": "cat"},
                "before": "dog",
                "after": "cat",
            }
        ],
    }
    assert [key for key in (*facts, *facts["subsets"][0]) if f"`{key}`" not in documented_fields("diff")] == []


@pytest.mark.slow
def test_beam_gives_the_same(cifar10: Path, cifar10_archive: Path, beam: None) -> None:
    found = compare(cifar10, cifar10_archive, ids=True, workers=2)
    assert (found.equal, sum(subset.rows[0] for subset in found.subsets)) == (True, 1203)


def test_it_runs_as_a_command_of_its_own(cifar10: Path, tmp_path: Path, run: Run) -> None:
    done = run("diff", cifar10, pets(tmp_path / "pets"))
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "differ: 1,203 rows only in A, 4 rows only in B" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["SET", "nowhere"], 3, "nowhere: no such file or directory"),
        (["SET", "SET", "--idz"], 2, "unknown flag --idz; did you mean --ids?"),
        (["SET", "SET:imagenet"], 3, "no image files"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: list[str], code: int, message: str, cifar10: Path, command: Command
) -> None:
    found, out, err = command("diff", *[each.replace("SET", str(cifar10)) for each in arguments])
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert message in err
