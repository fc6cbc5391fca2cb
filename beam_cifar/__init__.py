"""Converts image-classification data sets, first of all CIFAR-10 and CIFAR-100, with Apache Beam."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ConvertOptions": "beam_cifar.options",
    "Summary": "beam_cifar.pipeline",
    "convert": "beam_cifar.pipeline",
    "BeamCifarError": "beam_cifar.errors",
    "make_sample": "beam_cifar.sample",
}

__all__ = ["BeamCifarError", "ConvertOptions", "Summary", "__version__", "convert", "make_sample"]


def __getattr__(name: str) -> Any:
    """Imports public names when they are used: the command line must answer before Beam is imported."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
