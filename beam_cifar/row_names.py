"""The file name of each image, where every image becomes a file of its own.

A name is the image's id, without the folder that the id repeats, in the safe form of `beam_cifar.names`. Where several
images of one folder would get names that some file systems do not tell apart, all of them get the strict form of their
whole id, which is different for different ids. Whether that happens is decided in the plan, on 64-bit digests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from beam_cifar.names import clash_key, encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NUMBER: Final = re.compile("(?:_[0-9]+)?")


def short_name(item_id: str, filename: str) -> str:
    """The id without its folder, if the rest is the file's own name: "cat/1" of a file "1.png" is "1".

    The rest may have a number that makes it unique: "cat/1_2" of a file "1.jpg" is "1_2".
    """
    if "/" not in item_id:
        return item_id
    stem = filename.rpartition(".")[0]
    folder, _, rest = item_id.rpartition("/" + stem)
    return stem + rest if folder and _NUMBER.fullmatch(rest) else item_id


def digest64(text: str) -> int:
    """Eight bytes of BLAKE2b, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def digests(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """The digest of each text: uint64 `[N]`."""
    import numpy as np

    made = (hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts)
    return np.frombuffer(b"".join(made), dtype="<u8").astype(np.uint64)


def name_digests(ids: Sequence[str], filenames: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The digest of each short name, equal for names that some file systems do not tell apart: uint64 `[N]`."""
    return digests(clash_key(short_name(*row)) for row in zip(ids, filenames, strict=True))


def whole_digests(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The digest of each id as a name, as in `name_digests`: uint64 `[N]`."""
    return digests(map(clash_key, ids))


def strict_names(
    folders: npt.NDArray[np.int64],
    names: npt.NDArray[np.uint64],
    ids: npt.NDArray[np.uint64],
    wholes: npt.NDArray[np.uint64],
) -> tuple[frozenset[int], tuple[int, int] | None]:
    """Finds names that several images of one folder would get.

    Args:
        folders: int64 `[N]`, a number for the folder of each image.
        names: uint64 `[N]`, the digests of their short names.
        ids: uint64 `[N]`, the digests of their ids.
        wholes: uint64 `[N]`, the digests of their ids as names.

    Returns:
        The digests of such names; and the positions of the first two images of one folder that have the same id as
        well, which nothing can tell apart.
    """
    import numpy as np

    order = np.lexsort((ids, names, folders))
    by_folder, by_name, by_id = folders[order], names[order], ids[order]
    same = (by_folder[1:] == by_folder[:-1]) & (by_name[1:] == by_name[:-1])
    twice = np.flatnonzero(same & (by_id[1:] == by_id[:-1]))
    strict = np.unique(by_name[1:][same])
    # The whole id of one may be the short name of another, which must then give way as well.
    while len(strict) < len(grown := np.union1d(strict, np.intersect1d(wholes[np.isin(names, strict)], names))):
        strict = grown
    found = frozenset(strict.tolist())
    if not len(twice):
        return found, None
    first, second = sorted(order[twice[0] : twice[0] + 2].tolist())
    return found, (first, second)


def file_names(
    names: Sequence[str],
    ids: Sequence[str],
    suffixes: Sequence[str],
    strict: frozenset[int],
    encode: Callable[..., str] = encode_name,
) -> list[str]:
    """The name of each file: the short one, or the strict form of the whole id where several would get that.

    Args:
        names: `[N]`, short names.
        ids: `[N]`.
        suffixes: `[N]`, such as ".png".
        strict: digests of short names that several ids would get.
        encode: `encode_name`, or what takes the same arguments.
    """
    return [
        encode(item_id, suffix, strict=True) if strict and digest64(clash_key(name)) in strict else encode(name, suffix)
        for name, item_id, suffix in zip(names, ids, suffixes, strict=True)
    ]
