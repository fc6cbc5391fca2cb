"""The file name of each image, where every image becomes a file of its own.

A name is the image's id, without the folder that the id repeats, in the safe form of `beam_cifar.names`. Where several
images of one folder would get names that some file systems do not tell apart, all of them get the strict form of their
whole id, which is different for different ids. Whether that happens is decided in the plan, on 64-bit digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from beam_cifar.names import clash_key, encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def short_name(item_id: str, filename: str) -> str:
    """The id without its folder, if the rest is the file's own name: "cat/1" of a file "1.png" is "1"."""
    folder, _, last = item_id.rpartition("/")
    return last if folder and filename.rpartition(".")[0] == last else item_id


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


def file_names(
    ids: Sequence[str], filenames: Sequence[str], suffixes: Sequence[str], strict: frozenset[int]
) -> list[str]:
    """The name of each file.

    Args:
        ids: `[N]`.
        filenames: `[N]`, as found.
        suffixes: `[N]`, such as ".png".
        strict: digests of short names that several ids would get.
    """
    short = [short_name(*row) for row in zip(ids, filenames, strict=True)]
    if not strict:
        return [encode_name(name, suffix) for name, suffix in zip(short, suffixes, strict=True)]
    return [
        encode_name(item_id, suffix, strict=True) if digest64(clash_key(name)) in strict else encode_name(name, suffix)
        for item_id, name, suffix in zip(ids, short, suffixes, strict=True)
    ]
