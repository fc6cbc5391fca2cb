"""Converts image-classification datasets, such as CIFAR-10 and CIFAR-100, with Apache Beam."""

from __future__ import annotations

import importlib

from beam_cifar.version import __version__ as __version__

# Not from `typing`, which takes 9 ms: until this module is imported, no command can answer to signals.
TYPE_CHECKING = False

if TYPE_CHECKING:  # for type checkers; a test compares it with `_HOMES`
    from typing import Any

    from beam_cifar.analysis.diff import Comparison as Comparison
    from beam_cifar.analysis.diff import compare as compare
    from beam_cifar.analysis.stats import Stats as Stats
    from beam_cifar.analysis.stats import stats as stats
    from beam_cifar.analysis.validate import Validation as Validation
    from beam_cifar.analysis.validate import validate as validate
    from beam_cifar.data.labels import LabelTable as LabelTable
    from beam_cifar.dataset.dataset import Dataset as Dataset
    from beam_cifar.dataset.items import DatasetItem as DatasetItem
    from beam_cifar.dataset.items import Image as Image
    from beam_cifar.dataset.items import Label as Label
    from beam_cifar.errors import BeamCifarError as BeamCifarError
    from beam_cifar.formats.contract.types import ExportOptions as ExportOptions
    from beam_cifar.images.example import Example as Example
    from beam_cifar.images.options import ImageOptions as ImageOptions
    from beam_cifar.jobs.summary import Summary as Summary
    from beam_cifar.options import ConvertOptions as ConvertOptions
    from beam_cifar.pipeline.convert import Conversion as Conversion
    from beam_cifar.pipeline.convert import convert as convert
    from beam_cifar.pipeline.convert import run as run
    from beam_cifar.pipeline.errors import find_error as find_error
    from beam_cifar.pipeline.examples import FilterExamples as FilterExamples
    from beam_cifar.pipeline.examples import RemapLabels as RemapLabels
    from beam_cifar.pipeline.examples import ResizeExamples as ResizeExamples
    from beam_cifar.pipeline.examples import TransformExamples as TransformExamples
    from beam_cifar.pipeline.examples import WriteExamples as WriteExamples
    from beam_cifar.pipeline.read_examples import ReadAllExamples as ReadAllExamples
    from beam_cifar.pipeline.read_examples import ReadExamples as ReadExamples
    from beam_cifar.pipeline.rows import BadExample as BadExample
    from beam_cifar.pipeline.rows import WrittenDataset as WrittenDataset
    from beam_cifar.samples.make import make_sample as make_sample

_HOMES = {
    "analysis.diff": "Comparison compare",
    "analysis.stats": "Stats stats",
    "analysis.validate": "Validation validate",
    "data.labels": "LabelTable",
    "images.example": "Example",
    "dataset.dataset": "Dataset",
    "dataset.items": "DatasetItem Image Label",
    "errors": "BeamCifarError",
    "formats.contract.types": "ExportOptions",
    "images.options": "ImageOptions",
    "jobs.summary": "Summary",
    "options": "ConvertOptions",
    "pipeline.convert": "Conversion convert run",
    "pipeline.errors": "find_error",
    "pipeline.examples": "FilterExamples RemapLabels ResizeExamples TransformExamples WriteExamples",
    "pipeline.read_examples": "ReadAllExamples ReadExamples",
    "pipeline.rows": "BadExample WrittenDataset",
    "samples.make": "make_sample",
}
_PUBLIC = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_PUBLIC)]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # type checkers would accept any name because of it

    def __getattr__(name: str) -> Any:
        """Imports a public name on first use: importing Beam up front would slow down every command."""
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with importlib.import_module("beam_cifar.pipeline.imports").quiet_imports():
            return getattr(importlib.import_module(f"beam_cifar.{_PUBLIC[name]}"), name)
