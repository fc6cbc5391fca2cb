"""The options of a conversion; all checks here work without touching the input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from beam_cifar.data.limits import check_size, refuse_less_than_one
from beam_cifar.data.text import is_unicode
from beam_cifar.errors import UsageError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.steps.base import Step

MAX_WORKERS = 256

ON_CLASH = ("error", "suffix", "first")
"""Ways to resolve items of several datasets with the same id and subset; see `beam_cifar.planning.merge`."""


ON_ERROR = ("fail", "quarantine")
"""What a job does with bad rows: it fails, or sets them aside."""


@dataclass(frozen=True)
class MaxErrors:
    """How many rows of a job may be bad.

    Attributes:
        text: a number of rows, or a percentage of the rows of the input, such as "5%".

    Raises:
        UsageError: the text is neither.
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,12}|([0-9]{1,2}(\.[0-9]{1,9})?|100)%", self.text):
            raise UsageError(f"--max-errors must be a number of rows or a percentage such as 5%, found {self.text!r}")

    def rows(self, total: int) -> int:
        """Returns the number of rows that may be bad, of `total` rows."""
        share = self.text.removesuffix("%")
        return int(share) if share == self.text else int(total * Decimal(share) / 100)


@dataclass(frozen=True)
class Input:
    """A dataset to read.

    Attributes:
        path: directory or archive; empty to read only the merged datasets.
        format: name of the format; detected if None.
        subsets: names of the subsets to read, or "train" / "test" for all batches of that split; all if empty.
        merged: further datasets to merge with it.
        on_clash: how to resolve items with the same id and subset in several of them; see `ON_CLASH`.
        steps: transforms to apply afterwards, in order; see `beam_cifar.steps.registry`.
        images: how images are read.
    """

    path: str
    format: str | None = None
    subsets: tuple[str, ...] = ()
    merged: tuple[Input, ...] = ()
    on_clash: str = "error"
    steps: tuple[Step, ...] = ()
    images: ImageOptions = AS_STORED

    def __post_init__(self) -> None:
        if self.on_clash not in ON_CLASH:
            raise UsageError(f"--on-clash must be one of {', '.join(ON_CLASH)}, found {self.on_clash!r}")

    @property
    def shown(self) -> str:
        """Display name used in messages."""
        leaf = self.leaves[0]
        return "the items created in Python" if leaf.format == "items" else leaf.path

    @property
    def leaves(self) -> tuple[Input, ...]:
        """All datasets to read, merged ones included."""
        own = (self,) if self.path else ()
        return (*own, *(leaf for each in self.merged for leaf in each.leaves))

    def reading(self, images: ImageOptions) -> Input:
        """Returns the same input with images read in another way, those of merged datasets as well."""
        return replace(self, images=images, merged=tuple(each.reading(images) for each in self.merged))

    def meaning(self) -> dict[str, Any]:
        """The fields that determine the output, without paths."""
        return {
            "format": self.format,
            "subsets": list(self.subsets),
            "merged": [each.meaning() for each in self.merged],
            "on_clash": self.on_clash,
            "steps": [[step.name, step.options()] for step in self.steps],
            "images": self.images.meaning(),
        }


@dataclass(frozen=True)
class ConvertOptions(ExportOptions):
    """The options of one conversion; `ExportOptions` has those that say how to write it.

    Attributes:
        input_path: directory or archive of the dataset; empty to read only the merged datasets.
        output_dir: directory to create.
        output_format: name of the format to write.
        input_format: name of the format to read; detected if None.
        subsets: names of the subsets to keep, or "train" / "test" for all batches of that split; all if empty.
        labels: names of the classes or superclasses to keep; all rows, unlabelled ones included, if empty.
        filter: XPath expression over items; see `beam_cifar.filters.xpath`.
        filter_mode: what the expression selects: "items", "annotations" or "items+annotations".
        remaps: `OLD:NEW` renamings of classes or superclasses, applied after selection.
        resize: new (height, width) of every image, in pixels.
        limit: maximum number of images; the first ones are kept.
        steps: transforms to apply afterwards, in order; see `beam_cifar.steps.registry`.
        merged: further datasets to merge with the first, before any selection.
        on_clash: how to resolve items with the same id and subset in several datasets: "error", "suffix" (later ones
            get new ids) or "first" (later ones are dropped).
        images: how images of the first dataset are read; each of `merged` has its own.
        on_error: what to do with bad rows: "fail" or "quarantine" (leave them out, and list them beside the manifest).
        max_errors: with "quarantine", how many rows may be bad: a number, or a percentage such as "5%"; None for any.
        keep_bad_rows: with "quarantine", keep the bytes of their images beside the list.
        kept: when saving in place, the subsets of the output that stay unchanged; None for any other job.
        strict: refuse a job whose output would lack something that the rows have, such as pixels or subsets.
        overwrite: replace an existing output.
        resume: reuse the finished parts of an interrupted job with the same plan; if this job fails, keep its parts.
        workers: number of local workers; chosen automatically if None.

    Raises:
        UsageError: an invalid value.

    >>> from beam_cifar import ConvertOptions, convert
    >>> convert(ConvertOptions("cifar10", "pets", "imagenet", labels=("cat", "dog"), resize=(64, 64))).written
    12
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
    images: ImageOptions = AS_STORED
    on_error: str = "fail"
    max_errors: str | None = None
    keep_bad_rows: bool = False
    kept: tuple[str, ...] | None = None
    strict: bool = False
    overwrite: bool = False
    resume: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_less_than_one("--limit", self.limit)
        check_workers(self.workers)
        if self.resize is not None:
            check_size(self.resize)
        if not self.input.leaves:  # creating the input also checks `on_clash`
            raise UsageError("no input given")
        texts = {"--label": self.labels, "--remap": self.remaps, "--subset": self.subsets, "--filter": [self.filter]}
        for flag, values in texts.items():
            for text in values:
                if text and not is_unicode(text):
                    raise UsageError(f"{flag} {text!r} is not valid Unicode")
        if self.filter is not None:
            ItemFilter(self.filter, self.filter_mode)  # refuses an expression that cannot be evaluated
        elif self.filter_mode != "items":
            raise UsageError("--filter-mode requires --filter")
        self._check_on_error()

    def _check_on_error(self) -> None:
        if self.on_error not in ON_ERROR:
            raise UsageError(f"--on-error must be one of {', '.join(ON_ERROR)}, found {self.on_error!r}")
        for flag, given in (("--max-errors", self.max_bad is not None), ("--keep-bad-rows", self.keep_bad_rows)):
            if given and self.on_error != "quarantine":
                raise UsageError(f"{flag} requires --on-error quarantine")

    @property
    def input(self) -> Input:
        """The input, before any selection."""
        return Input(self.input_path, self.input_format, self.subsets, self.merged, self.on_clash, images=self.images)

    @property
    def max_bad(self) -> MaxErrors | None:
        """How many rows may be bad; None for any number."""
        return None if self.max_errors is None else MaxErrors(self.max_errors)

    @property
    def by_rows(self) -> bool:
        """Whether the plan must look at the whole dataset, row by row."""
        return bool(self.steps or self.merged or self.kept is not None or self.on_error == "quarantine")

    def meaning(self) -> dict[str, Any]:
        """The options that determine the bytes of the output, for the manifest: no paths, no workers."""
        unimportant = ("input_path", "output_dir", "strict", "max_errors", "overwrite", "resume", "workers", "kept")
        meaning = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in unimportant}
        meaning["steps"] = [[step.name, step.options()] for step in self.steps]
        meaning["images"] = self.images.meaning()
        meaning["merged"] = [each.meaning() for each in self.merged]
        return meaning


def check_workers(workers: int | None) -> None:
    """Checks the number of local workers. Raises `UsageError`."""
    refuse_less_than_one("--workers", workers)
    if workers is not None and workers > MAX_WORKERS:
        raise UsageError(f"--workers must be at most {MAX_WORKERS}, found {workers}")
