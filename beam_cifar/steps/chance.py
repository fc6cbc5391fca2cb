"""Random order that a seed alone decides, the same on every machine and with every version of numpy."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from beam_cifar.steps.base import option

SEED = "what the random choice depends on, any whole number; 0 if left out"


def seed_option() -> int:
    """The field of a step that sets its seed."""
    made: int = option("--seed", default=0, metavar="N", help=SEED)
    return made


def keys(seed: int, name: str, count: int) -> npt.NDArray[np.uint64]:
    """Random numbers: uint64 `[N]`.

    They are what PCG64 itself puts out: numpy keeps that stream as it is, but not what its `Generator` makes of it.

    Args:
        seed: any integer.
        name: of the step, so that two steps with one seed choose independently.
        count: N.
    """
    digest = hashlib.blake2b(f"{name}:{seed}".encode(), digest_size=16).digest()
    made: npt.NDArray[np.uint64] = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(count)
    return made


def permutation(seed: int, name: str, count: int) -> npt.NDArray[np.intp]:
    """The numbers from 0 to `count` in a random order: int64 `[N]`; see `keys`."""
    return np.argsort(keys(seed, name, count), kind="stable")
