"""The step that finds images with the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.arrays import BoolArray, Int64Array, UInt64Array
from beam_cifar.data.labels import unknown_name
from beam_cifar.data.row_table import View
from beam_cifar.data.schema import has_images
from beam_cifar.images.digests import pixel_digests
from beam_cifar.images.runs import map_runs, pixels_of
from beam_cifar.steps.base import Step, StepContext, option

SCOPES = ("dataset", "subset")


@dataclass(frozen=True)
class Dedupe(Step, name="dedupe"):
    """Keeps one of the items whose images have the same size and pixels, the first in order; labels do not matter."""

    scope: str = option("--scope", default="dataset", choices=SCOPES, help="where duplicates are looked for")
    prefer: tuple[str, ...] = option(
        "--prefer",
        many=True,
        default=(),
        metavar="SUBSET",
        help="of duplicates, one in the first of these subsets stays, and not the first in order",
    )

    def check(self) -> None:
        if self.scope not in SCOPES:
            raise self.refuse(str(unknown_name("scope", self.scope, SCOPES)))
        if self.prefer and self.scope == "subset":
            raise self.refuse("--prefer chooses among subsets, and --scope subset looks at each alone; leave one out")

    def apply(self, view: View, context: StepContext) -> View:
        for subset in self.prefer:
            if subset not in view.subset_names:
                raise unknown_name("subset", subset, view.subset_names)
        stays = self._staying(view, *_digests(view, context))
        removed = stays != np.arange(len(view))
        across = np.count_nonzero(view.subsets != view.subsets[stays])
        count = np.count_nonzero(removed)
        context.notice(
            f"dedupe: {count} of {len(view)} items have the pixels of one that stays, and are removed: "
            f"{count - across} of one in their own subset, {across} of one in another"
        )
        return view.take(~removed)

    def _staying(self, view: View, halves: UInt64Array, pictured: BoolArray) -> Int64Array:
        """For each row the position of the one that stays for it, which may be itself: int64 `[N]`."""
        rows = np.flatnonzero(pictured)
        subsets = view.subsets[rows]
        alike: list[npt.NDArray[Any]] = [half[rows] for half in halves]
        if self.scope == "subset":
            alike.append(subsets)
        # A stable sort: among rows alike in all keys, the first in order comes first.
        by = np.lexsort([self._ranks(view)[subsets], *alike])
        starts = np.ones(len(by), dtype=np.bool_)
        starts[1:] = np.logical_or.reduce([key[by][1:] != key[by][:-1] for key in alike])
        leaders = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        stays = np.arange(len(view))
        stays[rows[by]] = rows[by[leaders]]
        return stays

    def _ranks(self, view: View) -> npt.NDArray[np.int32]:
        """The place of each subset among those preferred: int32, as many as there are subsets."""
        preferred = [*self.prefer, *view.subset_names]
        return np.array([min(preferred.index(name), len(self.prefer)) for name in view.subset_names], dtype=np.int32)


def _digests(view: View, context: StepContext) -> tuple[UInt64Array, BoolArray]:
    """The digest of each image in two halves, uint64 `[2, N]`, and which rows have an image, bool `[N]`."""
    halves = np.zeros((2, len(view)), dtype=np.uint64)
    pictured = np.zeros(len(view), dtype=np.bool_)
    for positions, block in context.blocks(view):
        with_image = has_images(block.table)
        if with_image.any():
            rows = np.asarray(positions)[with_image]
            halves[:, rows] = image_digests(block.table.filter(pa.array(with_image)))
            pictured[rows] = True
    return halves, pictured


def image_digests(table: pa.Table) -> UInt64Array:
    """The digest of each image, equal for equal height, width and pixels: uint64 `[2, N]`, halves of 128 bits.

    Args:
        table: of examples, at least one, all with an image; encoded ones are decoded.

    Raises:
        InputError: an image is damaged.
    """
    digests = map_runs(table, lambda run: pa.table({"digest": pixel_digests(pixels_of(run))}))
    both = np.frombuffer(b"".join(digests.column("digest").to_pylist()), dtype="<u8").astype(np.uint64)
    halves: UInt64Array = both.reshape(-1, 2).T
    return halves
