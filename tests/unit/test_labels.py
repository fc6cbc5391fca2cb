from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_cifar import LabelTable
from beam_cifar.data.labels import UNLABELLED, LabelMap, remap_table, split_renamings
from beam_cifar.errors import UsageError

ANIMALS = LabelTable(("cat", "dog", "cow", "pike", "a:b"), ("pets", "farm", "fish"), (0, 0, 1, 2, None))


def remapped(table: LabelTable, renamings: list[str]) -> LabelMap:
    return remap_table(table, split_renamings(table, renamings))


def renamed(*renamings: str) -> dict[str, str]:
    """What name each class' rows end up with."""
    made = remapped(ANIMALS, list(renamings))
    return {name: made.table.names[made.targets[i]] for i, name in enumerate(ANIMALS.names)}


def test_a_superclass_stands_for_its_classes() -> None:
    assert ANIMALS.select(["pets", "cow"]) == {0, 1, 2}


def test_an_unknown_label_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown label 'dgo'; did you mean 'dog'\?"):
        ANIMALS.select(["dgo"])


def test_a_new_name_renames_in_place_and_keeps_the_id() -> None:
    made = remapped(ANIMALS, ["dog:hound"])
    assert made.table.names == ("cat", "hound", "cow", "pike", "a:b")
    assert made.is_identity


def test_an_existing_name_merges_and_the_superclass_follows() -> None:
    made = remapped(ANIMALS, ["dog:cow"])
    assert made.targets == (0, 2, 2, 3, 4)
    assert made.table.parents[made.targets[1]] == 1
    assert made.table.names == ANIMALS.names


def test_several_classes_merge_into_a_new_name() -> None:
    assert renamed("dog:pet", "cat:pet") == {"cat": "pet", "dog": "pet", "cow": "cow", "pike": "pike", "a:b": "a:b"}


def test_renamings_happen_all_at_once() -> None:
    assert renamed("cat:dog", "dog:cat") == {"cat": "dog", "dog": "cat", "cow": "cow", "pike": "pike", "a:b": "a:b"}
    assert renamed("cat:x", "dog:cat", "cow:dog")["cow"] == "dog"


def test_a_class_without_superclass_takes_that_of_the_rows_it_gets() -> None:
    made = remapped(ANIMALS, ["cow:a:b"])
    assert made.table.parents[4] == 1


def test_names_may_hold_colons() -> None:
    assert renamed("a:b:c")["a:b"] == "c"


def test_a_superclass_is_renamed_or_merged() -> None:
    assert remapped(ANIMALS, ["pets:house"]).table.coarse_names == ("house", "farm", "fish")
    merged = remapped(ANIMALS, ["pets:farm"])
    assert merged.table.parents == (1, 1, 1, 2, None)
    assert merged.is_identity


@pytest.mark.parametrize("renaming", ["dog", "dog:", "hound:dog", ":dog"])
def test_a_malformed_or_unknown_renaming_is_refused(renaming: str) -> None:
    with pytest.raises(UsageError):
        remapped(ANIMALS, [renaming])


def test_two_new_names_for_one_class_are_refused() -> None:
    with pytest.raises(UsageError, match="two new names"):
        remapped(ANIMALS, ["dog:a", "dog:b"])


def test_unlabelled_stays_unlabelled() -> None:
    assert remapped(ANIMALS, ["dog:cow"])[UNLABELLED] == UNLABELLED


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefxyz"), max_size=6))
def test_every_row_gets_the_name_asked_for_and_names_stay_unique(moves: dict[str, str]) -> None:
    table = LabelTable(tuple("abcdef"))
    made = remapped(table, [f"{old}:{new}" for old, new in moves.items()])
    assert [made.table.names[target] for target in made.targets] == [moves.get(name, name) for name in "abcdef"]
    assert len(set(made.table.names)) == 6
