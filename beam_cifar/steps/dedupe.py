"""The step that removes images with equal pixels."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.arrays import BoolArray, Int64Array, UInt64Array
from beam_cifar.data.labels import unknown_name
from beam_cifar.data.row_table import View
from beam_cifar.data.schema import has_images
from beam_cifar.images.digests import pixel_digests
from beam_cifar.images.runs import map_runs, pixels_of
from beam_cifar.naming.subsets import split_name, subsets_meant
from beam_cifar.steps.base import Step, StepContext, option

_CHUNK = 10_000
SCOPES = ("dataset", "subset")
KEPT_FIRST = ("test", "val", "train")
"""Splits in the order in which their items are kept."""


@dataclass(frozen=True)
class Dedupe(Step, named="dedupe"):
    """Keeps one of the items whose images have equal size and pixels, whatever their labels.

    It is the first one in test, else in val, else in train, else in the other subsets: test sets stay whole.
    """

    reads = True

    scope: str = option("--scope", default="dataset", choices=SCOPES, help="where to look for duplicates")
    prefer: tuple[str, ...] = option(
        "--prefer",
        many=True,
        default=(),
        metavar="SUBSET",
        help="keep the duplicate in this subset; earlier ones take precedence; then test, val, train and the others",
    )

    list_to: str | None = option(
        "--list",
        default=None,
        metavar="FILE",
        path=True,
        help="write a line of JSON for each removed item, with the one kept, to this file, also with --plan",
    )

    def check(self) -> None:
        if self.scope not in SCOPES:
            raise self.refuse(str(unknown_name("scope", self.scope, SCOPES)))
        if self.list_to is not None:
            # Absolute, since the job may run in another folder than the one where it was asked for.
            object.__setattr__(self, "list_to", storage.absolute(self.list_to, "--list"))
            if storage.is_url(self.list_to) or os.path.isdir(self.list_to):
                raise self.refuse(f"--list must be a local file, found {self.list_to!r}")
        if self.prefer and self.scope == "subset":
            raise self.refuse("--prefer has no effect with --scope subset, which compares within a subset; omit one")

    def needs(self) -> frozenset[str]:
        return frozenset({"id"} if self.list_to else ())

    def apply(self, view: View, context: StepContext) -> View:
        ranks = self._ranks(view)
        halves, pictured = _digests(view, context)
        stays = self._staying(view, ranks, halves, pictured)
        removed = stays != np.arange(len(view))
        across = np.count_nonzero(view.subsets != view.subsets[stays])
        count = np.count_nonzero(removed)
        context.notice(
            f"dedupe: removed {count} of {len(view)} items as duplicates: "
            f"{count - across} of an item in the same subset, {across} of an item in another{_sides(view, stays)}"
        )
        if self.list_to:
            storage.write_new(self.list_to, _listed(view, stays, np.flatnonzero(removed), halves))
        return view.take(~removed)

    def _staying(
        self, view: View, ranks: npt.NDArray[np.int32], halves: UInt64Array, pictured: BoolArray
    ) -> Int64Array:
        """Position of the row kept in place of each row, possibly itself: int64 `[N]`."""
        rows = np.flatnonzero(pictured)
        subsets = view.subsets[rows]
        alike: list[npt.NDArray[Any]] = [half[rows] for half in halves]
        if self.scope == "subset":
            alike.append(subsets)
        # lexsort is stable: among duplicates of equal rank, the first in order comes first.
        by = np.lexsort([ranks[subsets], *alike])
        starts = np.ones(len(by), dtype=np.bool_)
        starts[1:] = np.logical_or.reduce([key[by][1:] != key[by][:-1] for key in alike])
        leaders = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        stays = np.arange(len(view))
        stays[rows[by]] = rows[by[leaders]]
        return stays

    def _ranks(self, view: View) -> npt.NDArray[np.int32]:
        """The rank of each subset, the preferred ones first: int32, one per subset."""
        ranks: dict[str, int] = {}
        for place, name in enumerate(self.prefer):
            for subset in subsets_meant(name, view.subset_names):
                ranks.setdefault(subset, place)
        order = {name: len(self.prefer) + place for place, name in enumerate(KEPT_FIRST)}
        last = len(self.prefer) + len(KEPT_FIRST)
        return np.array(
            [ranks.get(name, order.get(split_name(name), last)) for name in view.subset_names], dtype=np.int32
        )


def _sides(view: View, stays: Int64Array) -> str:
    """Returns how many items each subset lost to another: " (3 of 'train' to 'test')"; "" if none did."""
    lose, keep = view.subsets, view.subsets[stays]
    pairs = Counter(zip(lose[lose != keep].tolist(), keep[lose != keep].tolist(), strict=True))
    lost = [(count, view.subset_names[a], view.subset_names[b]) for (a, b), count in sorted(pairs.items())]
    return f" ({', '.join(f'{count} of {a!r} to {b!r}' for count, a, b in lost)})" if lost else ""


def _listed(view: View, stays: Int64Array, removed: Int64Array, halves: UInt64Array) -> Iterator[bytes]:
    """Yields a line for each removed row, some thousand at a time: it, the row kept in its place, and their digest."""
    for start in range(0, len(removed), _CHUNK):
        rows = removed[start : start + _CHUNK]
        found = [view.take(positions).facts(0, len(rows)) for positions in (rows, stays[rows])]
        both = (facts.select(["subset", "id"]).to_pylist() for facts in found)
        digests = (half.tobytes().hex() for half in halves[:, rows].T.astype("<u8"))
        yield "".join(
            json.dumps({"removed": lost, "kept": kept, "digest": digest}) + "\n"
            for lost, kept, digest in zip(*both, digests, strict=True)
        ).encode()


def _digests(view: View, context: StepContext) -> tuple[UInt64Array, BoolArray]:
    """Returns the digest of each image in two halves, uint64 `[2, N]`, and which rows have an image, bool `[N]`."""
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
    """Returns the digest of each image, equal for equal height, width and pixels: 128 bits as uint64 `[2, N]`.

    Args:
        table: at least one example, all with an image; encoded images are decoded.

    Raises:
        InputError: an image is damaged.
    """
    digests = map_runs(table, lambda run: pa.table({"digest": pixel_digests(pixels_of(run))}))
    both = np.frombuffer(b"".join(digests.column("digest").to_pylist()), dtype="<u8").astype(np.uint64)
    halves: UInt64Array = both.reshape(-1, 2).T
    return halves
