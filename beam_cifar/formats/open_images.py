"""Open Images with labels of whole images: `images/<subset>/<id>.jpg`, and CSV files in `annotations/`.

The columns are those of storage.googleapis.com/openimages/web/download_v7.html: `class-descriptions.csv` has no header;
`<subset>-images-with-rotation.csv` lists all images; `<subset>-annotations-human-imagelabels.csv` has a line per label.
Datumaro's `open_images` reads them, looks for an image by its id in all subsets, and refuses an id that occurs twice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.types import Shard, ShardResult, SinkOptions
from beam_cifar.formats.kit.annotations import ANNOTATIONS, IMAGES, check_class_names
from beam_cifar.formats.kit.folders import ID_TREE, TreeSink, write_lines
from beam_cifar.naming.id_paths import encode_word, stem

CLASSES: Final = f"{ANNOTATIONS}/class-descriptions.csv"
IMAGE_LIST: Final = "-images-with-rotation.csv"
LABEL_LIST: Final = "-annotations-human-imagelabels.csv"
"""Ends of the names of the files of a subset."""

IMAGE_COLUMNS: Final = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title"),
    *("OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)
LABEL_COLUMNS: Final = ("ImageID", "Source", "LabelName", "Confidence")
VERIFIED: Final = "verification"
"""Source of a label that a human verified."""


class OpenImagesSink(TreeSink):
    """Writes `images/<subset>/<id>.png`, and the CSV files of each subset."""

    name = "open_images"
    can = replace(ID_TREE, losses=frozenset({"superclasses"}), keeps_empty_subsets=True, listed=("label",))
    subsets = SubsetNaming(by_split=True, word=lambda name: encode_word(name, LABEL_LIST).removesuffix(LABEL_LIST))

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses repeated and empty names."""
        check_class_names(labels)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns the folder of the subset's images."""
        return f"{IMAGES}/{self.subsets.written(subset)}"

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the images of a subset, and the labels of those that have one."""
        subset, names = self.subsets.written(shard.subset), options.labels.names
        empty = ("",) * (len(IMAGE_COLUMNS) - 2)
        images = ((stem(path), subset, *empty) for path, _, _ in self.listed_images(parts))
        write_lines(files, f"{ANNOTATIONS}/{subset}{IMAGE_LIST}", _lines(chain([IMAGE_COLUMNS], images)))
        labels = (
            (stem(path), VERIFIED, names[label], "1")
            for path, label, _ in self.listed_images(parts)
            if label != UNLABELLED
        )
        write_lines(files, f"{ANNOTATIONS}/{subset}{LABEL_LIST}", _lines(chain([LABEL_COLUMNS], labels)))

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the list of classes: the id of a class is its name."""
        return {CLASSES: "".join(_lines((name, name) for name in options.labels.names)).encode()}


def _lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the rows of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
