"""Steps that keep a random sample of the items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_cifar.data.labels import UNLABELLED, unknown_name
from beam_cifar.data.row_table import View
from beam_cifar.naming.subsets import subsets_meant
from beam_cifar.steps.base import Step, StepContext, amount, option
from beam_cifar.steps.chance import keys, permutation, seed_option


@dataclass(frozen=True)
class RandomSampler(Step, named="random_sampler"):
    """Keeps at most a given number of items, chosen uniformly at random; their order does not change."""

    count: int = option("-k", "--count", parse=int, metavar="N", help="maximum number of items to keep")
    subset: str | None = option("-s", "--subset", default=None, metavar="NAME", help="sample this subset only")
    seed: int = seed_option()

    def check(self) -> None:
        if self.count < 1:
            raise self.refuse(f"--count must be at least 1, found {self.count}")

    def apply(self, view: View, context: StepContext) -> View:
        asked = np.ones(len(view), dtype=np.bool_)
        if self.subset is not None:
            asked = view.in_subsets(subsets_meant(self.subset, view.subset_names))
        rows = np.flatnonzero(asked)
        kept = ~asked
        kept[rows[permutation(self.seed, self.name, len(rows))[: self.count]]] = True
        return view.take(kept)


@dataclass(frozen=True)
class LabelRandomSampler(Step, named="label_random_sampler"):
    """Keeps at most a given number of items per class and subset, in order; unlabelled items are removed."""

    count: int = option("-k", "--count", default=0, metavar="N", help="items to keep of every class; default: 0")
    label_counts: tuple[tuple[str, int], ...] = option(
        "-l", "--label", many=True, default=(), parse=amount, metavar="NAME:COUNT", help="items to keep of this class"
    )
    seed: int = seed_option()

    def check(self) -> None:
        counts: dict[str, int] = {}
        for name, count in (("", self.count), *self.label_counts):
            what = f"the count of {name!r}" if name else "--count"
            if count < 0:
                raise self.refuse(f"{what} must be 0 or more, found {count}")
            if counts.setdefault(name, count) != count:
                raise self.refuse(f"{what} is given twice, {counts[name]} and {count}")
        if not any(counts.values()):
            raise self.refuse("no items would be kept; give --count N or --label NAME:COUNT")

    def apply(self, view: View, context: StepContext) -> View:
        names = view.table.names
        # The last entry is for unlabelled rows.
        most = len(view)
        wanted = np.array([min(self.count, most)] * len(names) + [0], dtype=np.int64)
        for name, count in self.label_counts:
            if name not in names:
                raise unknown_name("label", name, names)
            wanted[names.index(name)] = min(count, most)
        return view.take(self._places(view) < wanted[np.where(view.labels == UNLABELLED, len(names), view.labels)])

    def _places(self, view: View) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Random rank of each row within its class and subset: int64 `[N]`."""
        order = np.lexsort((keys(self.seed, self.name, len(view)), view.labels, view.subsets))
        starts = np.ones(len(view), dtype=np.bool_)
        starts[1:] = np.logical_or.reduce([key[order][1:] != key[order][:-1] for key in (view.labels, view.subsets)])
        at = np.arange(len(view))
        places = np.empty(len(view), dtype=np.int64)
        places[order] = at - np.maximum.accumulate(np.where(starts, at, 0))
        return places
