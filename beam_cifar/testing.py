"""Helpers for tests that need a data set."""

from __future__ import annotations

import os

from beam_cifar.sample import make_sample


def sample_dir(path: str | os.PathLike[str], kind: str = "cifar10", images: int = 60, seed: int = 0) -> str:
    """Makes a sample set in a new or empty directory and returns the directory; see `beam_cifar.sample.make_sample`."""
    out = os.fspath(path)
    make_sample(out, kind=kind, images=images, seed=seed)
    return out
