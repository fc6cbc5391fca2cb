"""Random order that depends only on a seed: the same on every machine and with every version of numpy."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from beam_cifar.steps.base import option

SEED = "random seed, any integer; default: 0"


def seed_option() -> int:
    """Returns the field of a step for its random seed."""
    made: int = option("--seed", default=0, metavar="N", help=SEED)
    return made


def keys(seed: int, name: str, count: int) -> npt.NDArray[np.uint64]:
    """Returns random numbers: uint64 `[N]`.

    They are the raw output of PCG64: numpy guarantees that stream across versions, but not the methods of `Generator`.

    Args:
        seed: any integer.
        name: name of the step, so that two steps with the same seed choose independently.
        count: N.
    """
    digest = hashlib.blake2b(f"{name}:{seed}".encode(), digest_size=16).digest()
    made: npt.NDArray[np.uint64] = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(count)
    return made


def permutation(seed: int, name: str, count: int) -> npt.NDArray[np.intp]:
    """Returns the numbers from 0 to `count` - 1 in random order: int64 `[N]`; see `keys`."""
    return np.argsort(keys(seed, name, count), kind="stable")
