"""Names by which columns of tables are recognised as labels, or as something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

LABEL_NAMES: Final = (
    *("label", "labels", "cls", "class", "class_name", "target", "targets", "y", "category", "fine_label"),
    *("class_label", "label_name", "category_name", "breed", "species", "diagnosis", "dx", "choice"),
    *("label_id", "class_id", "category_id", "class_idx", "label_idx"),
)
"""Names of columns of labels, in lower case with "_"; the first one found is used."""

MAX_LISTED: Final = 8
"""Maximum number of columns that a message lists."""

_OTHER: Final = re.compile(
    r"(.*[_ -])?(id|idx|index|key|url|uri|path|file|file ?name|name|hash|md5|sha\d*|caption|text|prompt|description"
    r"|title|alt|width|height|size|channels|split|subset|fold|source|license|date|time|timestamp)s?"
    r"|\w*(id|name|path|url)|txt|json|__.*__|unnamed: \d+|",
    re.IGNORECASE,
)


def plain_name(name: str) -> str:
    """Returns a name without what spellings differ in, as in "Class ID", "class_id" and "ClassId"."""
    return re.sub(r"[\W_]+", "", name.lower())


_PLAIN: Final = {plain_name(name): rank for rank, name in reversed(list(enumerate(LABEL_NAMES)))}


def label_rank(name: str) -> int:
    """Returns how well a name suits a column of labels: 0 is best; -1 for a name that does not say so.

    >>> from beam_cifar.formats.kit.label_columns import label_rank
    >>> label_rank("label"), label_rank("Class"), label_rank("caption")
    (0, 3, -1)
    """
    return _PLAIN.get(plain_name(name), -1)


def by_rank(names: Iterable[str]) -> list[str]:
    """Returns the names that suit a column of labels, the best first."""
    return sorted((name for name in names if label_rank(name) >= 0), key=label_rank)


def is_no_label(name: str) -> bool:
    """Returns whether a name says that a column is something else than labels: an id, a path, a caption, a size.

    >>> from beam_cifar.formats.kit.label_columns import is_no_label
    >>> is_no_label("image_id"), is_no_label("Caption"), is_no_label("taste")
    (True, True, False)
    """
    return label_rank(name) < 0 and _OTHER.fullmatch(name.strip()) is not None


def listed(names: Sequence[str]) -> str:
    """Returns names for a message: quoted, the first few, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(f"{name[:80]!r}" for name in names[:MAX_LISTED]) + more
