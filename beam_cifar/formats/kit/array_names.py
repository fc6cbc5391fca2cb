"""Finds which arrays hold images and which hold labels, by the names of arrays and of files with one array."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

IMAGES: Final = "images"
LABELS: Final = "labels"
_WORDS: Final = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data"), IMAGES),
    **dict.fromkeys(("labels", "label", "targets", "target", "y"), LABELS),
}
_RANKS: Final = {word: rank for rank, word in enumerate(_WORDS)}
_ANY: Final = "|".join(_WORDS)
_LAST: Final = re.compile(rf"(?:(.+)[-_. ])?({_ANY})", re.IGNORECASE | re.DOTALL)
_FIRST: Final = re.compile(rf"({_ANY})[-_. ](.+)", re.IGNORECASE | re.DOTALL)
SPLITS: Final = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Names of splits, in the conventional order; the alphabet would put test before train."""


class ArrayRole(NamedTuple):
    """What the name of an array says about it.

    Attributes:
        kind: `IMAGES` or `LABELS`.
        split: the rest of the name, such as "train"; "" if it is only the word.
        word: the word that says so, in lower case.
    """

    kind: str
    split: str
    word: str


def role_of(name: str) -> ArrayRole | None:
    """Returns what a name says about an array, None if nothing.

    >>> from beam_cifar.formats.kit.array_names import role_of
    >>> role_of("X_train"), role_of("train_labels")
    (ArrayRole(kind='images', split='train', word='x'), ArrayRole(kind='labels', split='train', word='labels'))
    >>> role_of("weights") is None
    True
    """
    if match := _LAST.fullmatch(name):
        split, word = match[1] or "", match[2].lower()
    elif match := _FIRST.fullmatch(name):
        split, word = match[2], match[1].lower()
    else:
        return None
    return ArrayRole(_WORDS[word], split, word)


def images_by_split(names: Iterable[str]) -> dict[str, str]:
    """Returns split -> name of its images, in the conventional order; of several names the most specific word wins."""
    found = _by_rank(names, IMAGES, "")
    return {split: found[split][0] for split in sorted(found, key=lambda split: (_order(split), split))}


def labels_by_split(names: Iterable[str], images: Mapping[str, str]) -> dict[str, str]:
    """Returns split -> name of its labels, "" if there are none.

    Args:
        names: names of the arrays.
        images: name of the images of each split; `x` goes with `y`, any other word with `labels` first.
    """
    known = list(names)
    found = {}
    for split, name in images.items():
        role = role_of(name)
        partner = "y" if role and role.word == "x" else "labels"
        found[split] = _by_rank(known, LABELS, partner).get(split, [""])[0]
    return found


def _by_rank(names: Iterable[str], kind: str, preferred: str) -> dict[str, list[str]]:
    found: dict[str, list[tuple[bool, int, str]]] = {}
    for name in names:
        role = role_of(name)
        if role and role.kind == kind:
            found.setdefault(role.split, []).append((role.word != preferred, _RANKS[role.word], name))
    return {split: [name for _, _, name in sorted(ranked)] for split, ranked in found.items()}


def _order(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def short_splits(splits: Collection[str]) -> dict[str, str]:
    """Returns split -> its last word if that names a split and no two become equal: `kmnist-train` is `train`.

    >>> from beam_cifar.formats.kit.array_names import short_splits
    >>> short_splits(["kmnist-train", "kmnist-test"])
    {'kmnist-train': 'train', 'kmnist-test': 'test'}
    >>> short_splits(["kmnist-train", "k49-train"])
    {'kmnist-train': 'kmnist-train', 'k49-train': 'k49-train'}
    """
    last = {split: re.split("[-_. ]", split)[-1] for split in splits}
    short = {split: word if word.lower() in SPLITS else split for split, word in last.items()}
    return short if len(set(short.values())) == len(short) else {split: split for split in splits}
