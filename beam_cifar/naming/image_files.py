"""File names of images in formats with a file per image.

A name is the id of the image, without the folder that the id repeats, in the safe form of
`beam_cifar.naming.components`. If several images in one folder would get names that some file system does not
distinguish, all of them get the strict form of their whole id, which is different for different ids. The plan decides
that, from 64-bit digests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from beam_cifar.naming.components import clash_key, encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


_NUMBER: Final = re.compile("(?:_[0-9]+)?")


def short_name(item_id: str, filename: str) -> str:
    """Returns the id without its folder, if the rest is the file name: "1" for the id "cat/1" of a file "1.png".

    The rest may end in a number that makes it unique: "1_2" for the id "cat/1_2" of a file "1.jpg".
    """
    if "/" not in item_id:
        return item_id
    stem = filename.rpartition(".")[0]
    folder, _, rest = item_id.rpartition("/" + stem)
    return stem + rest if folder and _NUMBER.fullmatch(rest) else item_id


def digest64(text: str) -> int:
    """Returns a 64-bit BLAKE2b digest, the same on every machine."""
    # Not `hash`, which differs between processes; and not the names, which would fill the memory by the million.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def digests(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Returns the digest of each text: uint64 `[N]`."""
    import numpy as np

    return np.fromiter(map(digest64, texts), dtype=np.uint64)


def name_digests(ids: Sequence[str], filenames: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Returns the digest of each short name, equal for names that may collide on a file system: uint64 `[N]`."""
    return digests(clash_key(short_name(*row)) for row in zip(ids, filenames, strict=True))


def whole_digests(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Returns the digest of each whole id as a name, as in `name_digests`: uint64 `[N]`."""
    return digests(map(clash_key, ids))


def file_names(
    names: Sequence[str],
    ids: Sequence[str],
    suffixes: Sequence[str],
    strict: frozenset[int],
    encode: Callable[..., str] = encode_name,
) -> list[str]:
    """Returns the name of each file: the short one, or the strict form of the whole id if several would get that.

    Short names, ids and suffixes are `[N]`; `strict` has the digests of short names that several ids would get, and
    `encode` is `encode_name` or a function with the same arguments.
    """
    return [
        encode(item_id, suffix, strict=True) if strict and digest64(clash_key(name)) in strict else encode(name, suffix)
        for name, item_id, suffix in zip(names, ids, suffixes, strict=True)
    ]
