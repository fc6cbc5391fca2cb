"""Ultralytics' folders for YOLO classification: `<split>/<class>/<image>` with the splits `train`, `val` and `test`.

A class has the number of its folder among those of `train` sorted as text, and torchvision's ImageFolder numbers those
of each other split, empty ones included (`check_cls_dataset` and `ClassificationDataset` in ultralytics/data). So every
split gets a folder of every class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.types import ExportOptions, ShardResult, SinkOptions
from beam_cifar.formats.imagenet import SUBSET, ImagenetWithSubsetDirsSink, class_folders
from beam_cifar.formats.kit.subset_names import SPLITS

TRAIN: Final = "train"
FOLDERS: Final = (TRAIN, "val", "test")
"""Folders that Ultralytics looks for."""


def _split(name: str) -> str:
    """Returns the folder of a subset: other words for a split are replaced, and a subset-less tree is `train`."""
    return TRAIN if name == SUBSET else SPLITS.get(name.lower(), name)


class YoloSink(ImagenetWithSubsetDirsSink):
    """Writes `train/<class>/<id>.png`, `val/` and `test/`."""

    name = "yolo"
    can = replace(
        ImagenetWithSubsetDirsSink.can,
        losses=frozenset({"order", "superclasses"}),
        any_image_files=False,  # Ultralytics skips GIF
        takes_unlabelled=False,  # it takes any folder for a class
    )
    subsets = SubsetNaming(by_split=True, letters=_split, own_folders=True, only=FOLDERS)

    def export_of(self, options: ExportOptions) -> ExportOptions:
        """Returns the export options, with a folder for every class in every split."""
        return replace(super().export_of(options), keep_empty_classes=True)

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices if Ultralytics numbers the classes in another order, or lacks a split that it needs."""
        folders = list(class_folders(options.labels))
        if folders != sorted(folders):
            yield "classes are not in the order of their folder names: Ultralytics assigns other label ids"
        found = {result.shard.path for result in shards}
        needed = [name for name, others in ((TRAIN, {TRAIN}), ("val", {"val", "test"})) if not found & others]
        if needed:
            yield (
                f"there is no folder {' and no folder '.join(needed)}, which Ultralytics needs for training; make one "
                "with --transform 'random_split -s train:0.9 -s val:0.1'"
            )
