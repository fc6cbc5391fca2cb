"""What a conversion is asked to do; every check here needs no input and no output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from beam_cifar.data.limits import check_size, refuse_less_than_one
from beam_cifar.data.text import is_unicode
from beam_cifar.errors import UsageError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.steps.base import Step

MAX_WORKERS = 256

ON_CLASH = ("error", "suffix", "first")
"""What becomes of items of several datasets that have the same id and subset; see `beam_cifar.planning.merge`."""


@dataclass(frozen=True)
class Input:
    """A dataset that is read.

    Attributes:
        path: its directory or archive; empty for nothing but the merged ones.
        format: name of its format; detected if None.
        subsets: names of the subsets to read, or "train" / "test" for all batches of that split; all if empty.
        merged: further datasets, which are merged with it.
        on_clash: what becomes of items that have the same id and subset in several of them; see `ON_CLASH`.
        steps: what is done to it then, in order; see `beam_cifar.steps.registry`.
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
        """All datasets that are read."""
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
        input_path: a dataset's directory or archive; empty where there are only merged ones.
        output_dir: the directory to make.
        output_format: name of the format to write.
        input_format: name of the format to read; detected if None.
        subsets: names of the subsets to keep, or "train" / "test" for all batches of that split; all if empty.
        labels: names of the classes or superclasses to keep; all rows, also unlabelled ones, if empty.
        filter: an XPath expression over items; see `beam_cifar.filters.xpath`.
        filter_mode: what the expression selects: "items", "annotations" or "items+annotations".
        remaps: `OLD:NEW` renamings of classes or superclasses, applied after the selection.
        resize: (height, width) that every image gets, in pixels.
        limit: keep at most so many images, the first ones.
        steps: transforms that follow, in order; see `beam_cifar.steps.registry`.
        merged: further datasets, which are merged with the first before anything else is done.
        on_clash: what becomes of items of several datasets that have the same id and subset: "error", "suffix" (the
            later ones get other ids) or "first" (the later ones are dropped).
        kept: for an output that is saved in place, the subsets of it that stay as they are; None for any other job.
        overwrite: replace an existing output.
        resume: keep the finished parts of an interrupted job with the same plan; and, if this one fails, its own.
        workers: local workers; None chooses.

    Raises:
        UsageError: a value that cannot be meant.

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
    kept: tuple[str, ...] | None = None
    overwrite: bool = False
    resume: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_less_than_one("--limit", self.limit)
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


def check_workers(workers: int | None) -> None:
    """Refuses a number of local workers that cannot be meant. Raises `UsageError`."""
    refuse_less_than_one("--workers", workers)
    if workers is not None and workers > MAX_WORKERS:
        raise UsageError(f"--workers must be at most {MAX_WORKERS}, found {workers}")
