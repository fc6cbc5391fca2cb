"""Converts image-classification data sets, first of all CIFAR-10 and CIFAR-100, with Apache Beam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beam_cifar.loading import load
from beam_cifar.start import quiet_imports
from beam_cifar.version import __version__ as __version__

if TYPE_CHECKING:  # what checkers see; a test holds it against `_HOMES`
    from beam_cifar.carried import find_error as find_error
    from beam_cifar.comparing import Comparison as Comparison
    from beam_cifar.comparing import compare as compare
    from beam_cifar.dataset import Dataset as Dataset
    from beam_cifar.errors import BeamCifarError as BeamCifarError
    from beam_cifar.example import Example as Example
    from beam_cifar.items import DatasetItem as DatasetItem
    from beam_cifar.items import Image as Image
    from beam_cifar.items import Label as Label
    from beam_cifar.labels import LabelTable as LabelTable
    from beam_cifar.measuring import Stats as Stats
    from beam_cifar.measuring import stats as stats
    from beam_cifar.options import ConvertOptions as ConvertOptions
    from beam_cifar.options import ExportOptions as ExportOptions
    from beam_cifar.per_image import FilterExamples as FilterExamples
    from beam_cifar.per_image import ReadExamples as ReadExamples
    from beam_cifar.per_image import RemapLabels as RemapLabels
    from beam_cifar.per_image import ResizeExamples as ResizeExamples
    from beam_cifar.per_image import TransformExamples as TransformExamples
    from beam_cifar.per_image import WriteExamples as WriteExamples
    from beam_cifar.pipeline import Conversion as Conversion
    from beam_cifar.pipeline import convert as convert
    from beam_cifar.pipeline import run as run
    from beam_cifar.samples.make import make_sample as make_sample
    from beam_cifar.summary import Summary as Summary
    from beam_cifar.validation import Validation as Validation
    from beam_cifar.validation import validate as validate

_HOMES = {
    "beam_cifar.carried": "find_error",
    "beam_cifar.comparing": "Comparison compare",
    "beam_cifar.dataset": "Dataset",
    "beam_cifar.errors": "BeamCifarError",
    "beam_cifar.example": "Example",
    "beam_cifar.items": "DatasetItem Image Label",
    "beam_cifar.labels": "LabelTable",
    "beam_cifar.measuring": "Stats stats",
    "beam_cifar.options": "ConvertOptions ExportOptions",
    "beam_cifar.per_image": "FilterExamples ReadExamples RemapLabels ResizeExamples TransformExamples WriteExamples",
    "beam_cifar.pipeline": "Conversion convert run",
    "beam_cifar.samples.make": "make_sample",
    "beam_cifar.summary": "Summary",
    "beam_cifar.validation": "Validation validate",
}
_PUBLIC = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_PUBLIC)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Imports public names when they are used: the command line must answer before Beam is imported."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with quiet_imports():
        return load(f"{_PUBLIC[name]}:{name}")
