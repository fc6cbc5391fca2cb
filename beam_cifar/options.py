"""What a conversion is asked to do; every check here needs no input and no output."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from beam_cifar.errors import UsageError
from beam_cifar.words import is_unicode

if TYPE_CHECKING:
    from beam_cifar.steps.base import Step

MAX_SIDE = 65_500
"""Pixels; libjpeg's own limit, a little below the format's 65,535 (ITU-T T.81, table B.2)."""

MAX_PIXELS = 1 << 26
"""8,192 x 8,192: the largest image that is read or made. Below the limit at which Pillow warns."""

MAX_WORKERS = 256

FILTER_MODES = ("items", "annotations", "items+annotations")
"""What an XPath filter selects; see `beam_cifar.xpath.ItemFilter`."""

SUBSET_NAMES = ("source", "split")
"""How subsets are called that are written: as in the source, or as the splits that they belong to."""

ON_CLASH = ("error", "suffix", "first")
"""What becomes of items of several data sets that have the same id and subset; see `beam_cifar.merging`."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a data set is written.

    Attributes:
        save_images: write pixels also where the format can do without them.
        save_dataset_meta: write `dataset_meta.json` where the format knows it.
        image_ext: extension of the file names written, such as ".png", which also chooses the encoding where images are
            files; None keeps images and names as they are, and encodes bare pixels as PNG.
        keep_empty_classes: make a folder also for classes without images, where classes are folders.
        images_per_batch: rows of every output file but the last of a subset; None follows the format.
        subset_names: "source" keeps the subsets as they are, "split" makes `data_batch_*` one subset `train`, and
            `test_batch` `test`; None follows the format.

    Raises:
        UsageError: a value that cannot be meant.
    """

    save_images: bool = False
    save_dataset_meta: bool = False
    image_ext: str | None = None
    keep_empty_classes: bool = False
    images_per_batch: int | None = None
    subset_names: str | None = None

    def __post_init__(self) -> None:
        _refuse_less_than_one("--images-per-batch", self.images_per_batch)
        if self.subset_names not in (None, *SUBSET_NAMES):
            raise UsageError(f"--subsets must be one of {', '.join(SUBSET_NAMES)}, found {self.subset_names!r}")
        if self.image_ext is not None and not re.fullmatch(r"\.[A-Za-z0-9]+", self.image_ext):
            raise UsageError(f"--image-ext must look like .png, found {self.image_ext!r}")

    def export_options(self) -> dict[str, Any]:
        """The fields of this class alone, by name."""
        return {field.name: getattr(self, field.name) for field in fields(ExportOptions)}


@dataclass(frozen=True)
class Input:
    """A data set that is read.

    Attributes:
        path: its directory or archive; empty for nothing but the merged ones.
        format: name of its format; detected if None.
        subsets: names of the subsets to read, or "train" / "test" for all batches of that split; all if empty.
        merged: further data sets, which are merged with it.
        on_clash: what becomes of items that have the same id and subset in several of them; see `ON_CLASH`.
        steps: what is done to it then, in order; see `beam_cifar.steps`.
    """

    path: str
    format: str | None = None
    subsets: tuple[str, ...] = ()
    merged: tuple[Input, ...] = ()
    on_clash: str = "error"
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if self.on_clash not in ON_CLASH:
            raise UsageError(f"--on-clash must be one of {', '.join(ON_CLASH)}, found {self.on_clash!r}")

    @property
    def shown(self) -> str:
        """How messages name it."""
        leaf = self.leaves[0]
        return "the items made in Python" if leaf.format == "items" else leaf.path

    @property
    def leaves(self) -> tuple[Input, ...]:
        """All data sets that are read."""
        own = (self,) if self.path else ()
        return (*own, *(leaf for each in self.merged for leaf in each.leaves))

    def meaning(self) -> dict[str, Any]:
        """What it is, without paths."""
        return {
            "format": self.format,
            "subsets": list(self.subsets),
            "merged": [each.meaning() for each in self.merged],
            "on_clash": self.on_clash,
            "steps": [[step.name, step.options()] for step in self.steps],
        }


@dataclass(frozen=True)
class ConvertOptions(ExportOptions):
    """One conversion; see `ExportOptions` for how it is written.

    Attributes:
        input_path: a data set's directory or archive; empty where there are only merged ones.
        output_dir: the directory to make.
        output_format: name of the format to write.
        input_format: name of the format to read; detected if None.
        subsets: names of the subsets to keep, or "train" / "test" for all batches of that split; all if empty.
        labels: names of the classes or superclasses to keep; all rows, also unlabelled ones, if empty.
        filter: an XPath expression over items; see `beam_cifar.xpath`.
        filter_mode: what the expression selects: "items", "annotations" or "items+annotations".
        remaps: `OLD:NEW` renamings of classes or superclasses, applied after the selection.
        resize: (height, width) that every image gets, in pixels.
        limit: keep at most so many images, the first ones.
        steps: transforms that follow, in order; see `beam_cifar.steps`.
        merged: further data sets, which are merged with the first before anything else is done.
        on_clash: what becomes of items of several data sets that have the same id and subset: "error", "suffix" (the
            later ones get other ids) or "first" (the later ones are dropped).
        kept: for an output that is saved in place, the subsets of it that stay as they are; None for any other job.
        overwrite: replace an existing output.
        resume: keep the finished parts of an interrupted job with the same plan; and, if this one fails, its own.
        workers: local workers; None chooses.

    Raises:
        UsageError: a value that cannot be meant.
    """

    input_path: str
    output_dir: str
    output_format: str
    input_format: str | None = None
    subsets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    filter: str | None = None
    filter_mode: str = "items"
    remaps: tuple[str, ...] = ()
    resize: tuple[int, int] | None = None
    limit: int | None = None
    steps: tuple[Step, ...] = ()
    merged: tuple[Input, ...] = ()
    on_clash: str = "error"
    kept: tuple[str, ...] | None = None
    overwrite: bool = False
    resume: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_less_than_one("--limit", self.limit)
        check_workers(self.workers)
        if self.resize is not None:
            check_size(self.resize)
        if not self.input.leaves:  # making it also refuses an unknown rule for clashes
            raise UsageError("nothing to read")
        texts = {"--label": self.labels, "--remap": self.remaps, "--subset": self.subsets, "--filter": [self.filter]}
        for flag, values in texts.items():
            for text in values:
                if text and not is_unicode(text):
                    raise UsageError(f"{flag} {text!r} is not valid Unicode")
        if self.filter is not None:
            from beam_cifar.xpath import ItemFilter

            ItemFilter(self.filter, self.filter_mode)  # refuses an expression that cannot be evaluated
        elif self.filter_mode != "items":
            raise UsageError("--filter-mode says how --filter selects; give both")

    @property
    def input(self) -> Input:
        """What is read, before any selection."""
        return Input(self.input_path, self.input_format, self.subsets, self.merged, self.on_clash)

    @property
    def by_rows(self) -> bool:
        """Whether the plan must look at the whole set, row by row."""
        return bool(self.steps or self.merged or self.kept is not None)

    def meaning(self) -> dict[str, Any]:
        """What determines the output's bytes, for the manifest: no paths, no workers."""
        unimportant = ("input_path", "output_dir", "overwrite", "resume", "workers", "kept")
        meaning = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in unimportant}
        meaning["steps"] = [[step.name, step.options()] for step in self.steps]
        meaning["merged"] = [each.meaning() for each in self.merged]
        return meaning


def check_size(size: tuple[int, int]) -> None:
    """Refuses a (height, width) that no image can get. Raises `UsageError`."""
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise UsageError(
            f"--resize takes sides from 1 to {MAX_SIDE}, and at most {MAX_PIXELS} pixels, found {height}x{width}"
        )


def check_workers(workers: int | None) -> None:
    """Refuses a number of local workers that cannot be meant. Raises `UsageError`."""
    _refuse_less_than_one("--workers", workers)
    if workers is not None and workers > MAX_WORKERS:
        raise UsageError(f"--workers must be at most {MAX_WORKERS}, found {workers}")


def _refuse_less_than_one(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{flag} must be at least 1, found {value}")
