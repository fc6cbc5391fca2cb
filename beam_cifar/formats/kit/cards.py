"""Dataset cards: the YAML at the start of README.md, which tells Hugging Face `datasets` the files of each split.

Facts: https://huggingface.co/docs/hub/datasets-manual-configuration, and `data_files.py` and `splits.py` of datasets
5.2.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from beam_cifar.formats.contract.types import ShardResult

CARD: Final = "README.md"
"""The file name of a card."""

_KEYWORDS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# `SPLIT_KEYWORDS` between `NON_WORDS_CHARS`, and `SPLIT_PATTERN_SHARDED`.
_HAS_KEYWORD: Final = re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(_KEYWORDS)})(?:$|[-._ 0-9])|-[0-9]{{5}}-of-[0-9]{{5}}")


def has_split_keyword(name: str) -> bool:
    """Returns whether `datasets` may take a file or folder name for that of a split.

    >>> from beam_cifar.formats.kit.cards import has_split_keyword
    >>> [name for name in ("train", "dev kit", "a_test.png", "trains", "Test") if has_split_keyword(name)]
    ['train', 'dev kit', 'a_test.png']
    """
    return _HAS_KEYWORD.search(name) is not None


def are_splits(folders: Iterable[str]) -> bool:
    """Returns whether `datasets` takes each of some folders for a split of its own, going by their names.

    >>> from beam_cifar.formats.kit.cards import are_splits
    >>> are_splits(["train", "val"]), are_splits(["train", "training"]), are_splits(["train", "data_batch_1"])
    (True, False, False)
    """
    splits = [_KEYWORDS.get(folder) for folder in folders]
    return None not in splits and len(set(splits)) == len(splits)


def split_name_of(name: str) -> str:
    """Returns a name that `datasets` takes for a split (`splits.py`: words with single dots between).

    It does not start with "_" or ".": pyarrow and Spark skip such files.
    """
    word = re.sub(r"[^A-Za-z0-9_.]|(?<![A-Za-z0-9_])\.|\.(?![A-Za-z0-9_])", "_", name)
    return word if word and word[0] != "_" else f"subset{word}"


def config_lines(paths: Mapping[str, str]) -> list[str]:
    """Returns the lines of the default configuration.

    Args:
        paths: the files of each split, as a pattern relative to the card; see `literal`.
    """
    lines = ["configs:", "- config_name: default", "  data_files:"]
    for split, path in paths.items():
        lines += [f"  - split: {quoted(split)}", f"    path: {quoted(path)}"]
    return lines


def has_card(folder: str) -> bool:
    """Returns whether a local folder has a card: a README.md without YAML is somebody's own text."""
    with suppress(FileNotFoundError, NotADirectoryError), open(os.path.join(folder, CARD), "rb") as file:
        return file.read(3) == b"---"
    return False


def split_rows(shards: Iterable[ShardResult]) -> dict[str, int]:
    """Returns the number of images of each subset that was written."""
    rows = Counter[str]()
    for result in shards:
        rows[result.shard.subset] += result.shard.rows
    return dict(rows)


def text_lines(rows: Mapping[str, int]) -> list[str]:
    """Returns the lines of a card after its configuration: the task, and a table of the images of each split."""
    lines = ["task_categories:", "- image-classification", "---", "", "# Image classification dataset", ""]
    return [*lines, "| split | images |", "| --- | --- |", *(f"| {name} | {count} |" for name, count in rows.items())]


def literal(name: str) -> str:
    """Returns a pattern that matches nothing but a name."""
    return re.sub(r"[*?\[]", r"[\g<0>]", name)


def quoted(text: str) -> str:
    """Returns a YAML double-quoted scalar: JSON, plus escapes for control characters that YAML forbids."""
    found = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", found)
