"""Paths of images whose ids may contain folders: "train/cat 1" is at `train/cat 1.png`, as in Datumaro.

Such paths are also written to lists of images, one per line, where they must not start with `#` or contain white space
other than plain spaces. Characters not allowed in a path are percent-encoded, see `beam_cifar.naming.components`, and
decoded on reading.
"""

from __future__ import annotations

import re
from typing import Final

from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import decode_name, encode_name

MAX_PATH_BYTES: Final = 1000
"""Longer paths become one truncated name: a whole path has at most 4,096 bytes on Linux, 1,024 on macOS."""

# White space that is safe in a file name but splits words in a list; written out, because Python's tables may grow.
_NOT_LISTED: Final = re.compile("^#|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def encode_path(item_id: str, suffix: str, *, strict: bool = False) -> str:
    """Returns the relative path of an image, safe on Linux, macOS and Windows, and different for different ids.

    `suffix` and `strict` are as for `encode_name`.
    """
    *folders, name = item_id.split("/")
    path = "/".join([*(_folder(folder, strict) for folder in folders), encode_word(name, suffix, strict=strict)])
    if len(path) > MAX_PATH_BYTES // 4 and len(path.encode()) > MAX_PATH_BYTES:
        return encode_name(item_id, suffix, strict=True)
    return path


def decode_path(path: str) -> str:
    """Returns the id from a path of `encode_path`, given without suffix; a truncated name is returned unchanged."""
    return "/".join(map(decode_name, path.split("/"))) if "%" in path else path


def encode_word(name: str, suffix: str = "", *, strict: bool = False, escape: str = "") -> str:
    """Returns a component of such a path; also for class and subset names in a list or in a file name."""
    return encode_name(name, suffix, strict=strict or bool(_NOT_LISTED.search(name)), escape=escape)


def stem(path: str) -> str:
    """Returns a path without the extension of its last component."""
    head, dot, extension = path.rpartition(".")
    return head if dot and "/" not in extension else path


def _folder(name: str, strict: bool) -> str:
    """Encodes a folder name; one that looks like an image name gets its dot escaped, or it could collide with one."""
    made = encode_word(name, strict=strict, escape="_" if name.startswith("_") else "")
    if not is_image_name(made):
        return made
    head, _, extension = name.rpartition(".")
    return encode_word(head, f"%2E{extension}", strict=strict)
