"""Paths of images whose ids may name folders: "train/cat 1" lies at `train/cat 1.png`, as Datumaro puts it.

Such paths also stand in lists of images, one a line, where they must have neither a `#` in front nor white space
other than plain spaces. What a path cannot hold is percent-encoded, see `beam_cifar.naming.components`, and decoded
again on reading.
"""

from __future__ import annotations

import re
from typing import Final

from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import decode_name, encode_name

MAX_PATH_BYTES: Final = 1000
"""Longer ones become one cut name: a whole path has 4,096 bytes at most on Linux, 1,024 on macOS."""

# White space that is safe in a file name, but ends a word of a list: written out, as Python's tables may grow.
_NOT_LISTED: Final = re.compile("^#|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def encode_path(item_id: str, suffix: str, *, strict: bool = False) -> str:
    """The path of an image, relative, safe on Linux, macOS and Windows, and different for different ids.

    `suffix` and `strict` are those of `encode_name`.
    """
    *folders, name = item_id.split("/")
    path = "/".join([*(_folder(folder, strict) for folder in folders), encode_word(name, suffix, strict=strict)])
    if len(path) > MAX_PATH_BYTES // 4 and len(path.encode()) > MAX_PATH_BYTES:
        return encode_name(item_id, suffix, strict=True)
    return path


def decode_path(path: str) -> str:
    """The id that `encode_path` made a path of, given without suffix; a cut name is returned as it is."""
    return "/".join(map(decode_name, path.split("/"))) if "%" in path else path


def encode_word(name: str, suffix: str = "", *, strict: bool = False) -> str:
    """One component of such a path: also for names of classes and subsets that stand in a list, or in a file's name."""
    return encode_name(name, suffix, strict=strict or bool(_NOT_LISTED.search(name)))


def stem(path: str) -> str:
    """A path without the extension of its last component."""
    head, dot, extension = path.rpartition(".")
    return head if dot and "/" not in extension else path


def _folder(name: str, strict: bool) -> str:
    """A folder that is called like an image would meet the image of that id."""
    made = encode_word(name, strict=strict)
    if not is_image_name(made):
        return made
    head, _, extension = name.rpartition(".")
    return encode_word(head, f"%2E{extension}", strict=strict)
