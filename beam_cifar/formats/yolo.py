"""Ultralytics' folders for YOLO classification: `<split>/<class>/<image>` with the splits `train`, `val` and `test`.

A class has the number of its folder among those of `train` sorted as text, and torchvision's ImageFolder numbers those
of each other split, empty ones included (`check_cls_dataset` and `ClassificationDataset` in ultralytics/data). So every
split gets a folder of every class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from beam_cifar.data.text import counted
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.types import ExportOptions, ShardResult, SinkOptions
from beam_cifar.formats.imagenet import SUBSET, ImagenetWithSubsetDirsSink, ImagenetWriter, class_folders
from beam_cifar.formats.kit.subset_names import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN: Final = "train"
FOLDERS: Final = (TRAIN, "val", "test")
"""Folders that Ultralytics looks for."""

MIN_SIDE: Final = 10
"""Height and width in pixels of the smallest image that it takes: `check_image` in ultralytics/data/utils.py."""


def _split(name: str) -> str:
    """Returns the folder of a subset: other words for a split are replaced, and a subset-less tree is `train`."""
    return TRAIN if name == SUBSET else SPLITS.get(name.lower(), name)


class _YoloWriter(ImagenetWriter):
    """Counts the images that Ultralytics skips."""

    _small = 0

    def append(self, table: pa.Table) -> None:
        import pyarrow.compute as pc

        super().append(table)
        sides = pc.min_element_wise(table.column("height"), table.column("width"))
        self._small += pc.sum(pc.less(sides, MIN_SIDE)).as_py() or 0

    def statistics(self) -> dict[str, int]:
        """Returns their number too."""
        return {**super().statistics(), "small": self._small}


class YoloSink(ImagenetWithSubsetDirsSink):
    """Writes `train/<class>/<id>.png`, `val/` and `test/`."""

    name = "yolo"
    can = replace(
        ImagenetWithSubsetDirsSink.can,
        losses=frozenset({"order", "superclasses"}),
        any_image_files=False,  # Ultralytics skips GIF
        takes_unlabelled=False,  # it takes any folder for a class
    )
    writer = _YoloWriter
    subsets = SubsetNaming(by_split=True, letters=_split, own_folders=True, only=FOLDERS)

    def export_of(self, options: ExportOptions) -> ExportOptions:
        """Returns the export options, with a folder for every class in every split."""
        return replace(super().export_of(options), keep_empty_classes=True)

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices if Ultralytics numbers classes otherwise, skips images, or lacks a split that it needs."""
        folders = list(class_folders(options.labels))
        if folders != sorted(folders):
            yield "classes are not in the order of their folder names: Ultralytics assigns other label ids"
        if small := sum(result.statistics.get("small", 0) for result in shards):
            yield (
                f"{counted(small, 'image has', 'images have')} fewer than {MIN_SIDE} pixels a side, which Ultralytics "
                "skips; enlarge with --transform 'resize -dw 32 -dh 32'"
            )
        found = {result.shard.path for result in shards}
        needed = [name for name, others in ((TRAIN, {TRAIN}), ("val", {"val", "test"})) if not found & others]
        if needed:
            yield (
                f"there is no folder {' and no folder '.join(needed)}, which Ultralytics needs for training; make one "
                "with --transform 'random_split -s train:0.9 -s val:0.1'"
            )
