"""Converts image-classification data sets, first of all CIFAR-10 and CIFAR-100, with Apache Beam."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "BeamCifarError": "beam_cifar.errors",
    "Comparison": "beam_cifar.comparing",
    "Conversion": "beam_cifar.pipeline",
    "ConvertOptions": "beam_cifar.options",
    "Dataset": "beam_cifar.dataset",
    "DatasetItem": "beam_cifar.items",
    "Example": "beam_cifar.example",
    "ExportOptions": "beam_cifar.options",
    "FilterExamples": "beam_cifar.per_image",
    "Image": "beam_cifar.items",
    "Label": "beam_cifar.items",
    "LabelTable": "beam_cifar.labels",
    "ReadExamples": "beam_cifar.per_image",
    "RemapLabels": "beam_cifar.per_image",
    "ResizeExamples": "beam_cifar.per_image",
    "Stats": "beam_cifar.measuring",
    "Summary": "beam_cifar.pipeline",
    "TransformExamples": "beam_cifar.per_image",
    "Validation": "beam_cifar.validation",
    "WriteExamples": "beam_cifar.per_image",
    "compare": "beam_cifar.comparing",
    "convert": "beam_cifar.pipeline",
    "find_error": "beam_cifar.carried",
    "make_sample": "beam_cifar.samples.make",
    "run": "beam_cifar.pipeline",
    "stats": "beam_cifar.measuring",
    "validate": "beam_cifar.validation",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports public names when they are used: the command line must answer before Beam is imported."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from beam_cifar.start import quiet_imports

    with quiet_imports():
        module = importlib.import_module(_PUBLIC[name])
    return getattr(module, name)
