"""Transforms for pipelines of Beam YAML, as `beam_cifar/providers.yaml` names them.

Labels do not travel with the images, so a transform that needs them is told where they are: `labels` is a list of class
names, or the path of a dataset or of a manifest.
"""

# Without `annotations` of `__future__`: Beam YAML reads the types.
from typing import Any, Optional

import apache_beam as beam

from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.images.options import ImageOptions
from beam_cifar.pipeline.dead_letters import HandlesErrors
from beam_cifar.pipeline.examples import FilterExamples, RemapLabels, ResizeExamples, WriteExamples
from beam_cifar.pipeline.incoming import label_table
from beam_cifar.pipeline.read_examples import ReadExamples, labels_of


def read_image_dataset(
    path: Any,
    format: Optional[str] = None,  # noqa: UP045
    subsets: Optional[list[str]] = None,  # noqa: UP045
    scratch: Optional[str] = None,  # noqa: UP045
    exif: str = "apply",
    alpha: Optional[str] = None,  # noqa: UP045
    depth: Optional[str] = None,  # noqa: UP045
    cmyk: Optional[str] = None,  # noqa: UP045
    rgb: bool = False,
    error_handling: Optional[dict[str, str]] = None,  # noqa: UP045
) -> beam.PTransform:
    """Reads datasets as one row per image.

    Args:
        path: directory or archive of a dataset, one file of it, a pattern, or a list of these.
        format: its format; default: detected.
        subsets: names of the subsets to read; default: all.
        scratch: folder, visible to all workers, for indexes of compressed archives.
        exif: "apply" or "keep": what becomes of the EXIF orientation where pixels are decoded.
        alpha: "drop", "white" or "black": what becomes of transparent pixels; default: refused.
        depth: "scale" or "clip": what becomes of 16 bits per sample; default: refused.
        cmyk: "convert" makes CMYK RGB; default: refused.
        rgb: convert all other images to RGB as well.
        error_handling: `output` is the name of an output for rows that cannot be read.
    """
    images = ImageOptions(exif=exif, alpha=alpha, depth=depth, cmyk=cmyk, rgb=rgb)
    return _handling(ReadExamples(path, format, subsets or (), scratch, images), error_handling)


def filter_images(
    filter: str,
    labels: Any,
    mode: str = "items",
    error_handling: Optional[dict[str, str]] = None,  # noqa: UP045
) -> beam.PTransform:
    """Keeps the images that match an XPath expression.

    Args:
        filter: the expression, such as '/item[annotation/label="dog"]'.
        labels: class names, or the path of a dataset or manifest that has them.
        mode: what it selects: "items", "annotations" or "items+annotations".
        error_handling: `output` is the name of an output for images that cannot be processed.
    """
    return _handling(FilterExamples(filter, _table(labels), mode), error_handling)


def remap_labels(
    renamings: dict[str, str],
    labels: Any,
    error_handling: Optional[dict[str, str]] = None,  # noqa: UP045
) -> beam.PTransform:
    """Gives classes other names; label ids stay, unless two classes get the same name.

    Args:
        renamings: new name of each class that gets one.
        labels: class names, or the path of a dataset or manifest that has them.
        error_handling: `output` is the name of an output for images that cannot be processed.
    """
    return _handling(RemapLabels(renamings, _table(labels)), error_handling)


def resize_images(
    height: int,
    width: int,
    error_handling: Optional[dict[str, str]] = None,  # noqa: UP045
) -> beam.PTransform:
    """Resizes all images to one size.

    Args:
        height: in pixels.
        width: in pixels.
        error_handling: `output` is the name of an output for images that cannot be processed.
    """
    return _handling(ResizeExamples((height, width)), error_handling)


def write_image_dataset(
    path: str,
    format: Any,
    labels: Any,
    renamings: Optional[dict[str, str]] = None,  # noqa: UP045
    overwrite: bool = False,
    save_images: bool = True,
    image_ext: Optional[str] = None,  # noqa: UP045
    images_per_batch: Optional[int] = None,  # noqa: UP045
) -> beam.PTransform:
    """Writes images as a dataset, or as one of each format; returns a row that says what was written, for each.

    Args:
        path: directory to create.
        format: name of the format to write, or a list of names.
        labels: class names, or the path of a dataset or manifest that has them.
        renamings: those that `RemapLabels` was given, if it was.
        overwrite: whether to replace an existing dataset.
        save_images: whether to write images, where the format can do without.
        image_ext: file extension of the images, such as ".jpg".
        images_per_batch: number of images per file, for formats that pack them.
    """
    options = ExportOptions(save_images=save_images, image_ext=image_ext, images_per_batch=images_per_batch)
    table = _table(labels)
    if renamings:
        table = RemapLabels(renamings, table).labels
    return WriteExamples(path, format, table, options=options, overwrite=overwrite)


def _table(labels: Any) -> LabelTable:
    return labels_of(labels) if isinstance(labels, str) else label_table(labels)


def _handling(transform: HandlesErrors, handling: Optional[dict[str, str]]) -> beam.PTransform:  # noqa: UP045
    if not handling:
        return transform
    if set(handling) != {"output"}:
        raise UsageError(f"error_handling has {', '.join(handling)}; expected `output`, the name of an output")
    return _TwoOutputs(transform, handling["output"])


class _TwoOutputs(beam.PTransform):
    """A transform with its outputs as Beam YAML expects them: by name, the first one called "good"."""

    def __init__(self, transform: HandlesErrors, bad: str) -> None:
        super().__init__()
        self._transform, self._bad = transform, bad

    def expand(self, rows: Any) -> dict[str, beam.PCollection[Any]]:
        good, bad = rows | self._transform.with_exception_handling()
        return {"good": good, self._bad: bad}
