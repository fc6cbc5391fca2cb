"""Decides where each of many unordered examples goes, from a few numbers per example, before any image moves.

`beam_cifar.planning.by_counts` plans jobs over files; this plans `WriteExamples`, whose examples come from any
pipeline. It creates the same shards as a job over files that keeps the same examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from beam_cifar.data.grouping import by_key
from beam_cifar.data.schema import plain_labels
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import ExportOptions, Shard, SinkOptions
from beam_cifar.images.encodings import RAW, are_pixels
from beam_cifar.images.example import Example
from beam_cifar.naming.image_files import digests, name_digests, whole_digests
from beam_cifar.planning.checks import Named, names_that_clash, refuse_missing_images, refuse_unlabelled
from beam_cifar.planning.cut import Facts, Group, cut

RECORD = np.dtype(
    [
        ("order", "<i8"),
        ("key", "<u8"),
        ("id", "<u8"),
        ("name", "<u8"),
        ("whole", "<u8"),
        ("bytes", "<u8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("label", "<i4"),
    ]
)
"""What the layout needs to know about an example, in 60 bytes. `key`, `id`, `name` and `whole` are digests of the tie
breaker, the id, the short name, and the id used as a name; a missing label or size is -1."""

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Ordered:
    """The examples of one output subset, in order.

    Attributes:
        orders: int64 `[N]` as bytes, ascending.
        keys: uint64 `[N]` as bytes, digests of subset and id, ascending within equal orders.
        first: index of its first shard.
        step: rows per shard; the last one may have fewer.
    """

    orders: bytes
    keys: bytes
    first: int
    step: int

    def ranks(self, orders: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64]) -> Iterator[int]:
        """Yields the position of each given example."""
        all_orders, all_keys = np.frombuffer(self.orders, "<i8"), np.frombuffer(self.keys, "<u8")
        begins, ends = (np.searchsorted(all_orders, orders, side).tolist() for side in ("left", "right"))
        for begin, end, key in zip(begins, ends, keys, strict=True):
            yield begin if end - begin == 1 else begin + int(np.searchsorted(all_keys[begin:end], key))


@dataclass(frozen=True)
class Layout:
    """Where each example goes.

    Attributes:
        groups: ordered examples by output subset.
        shards: files of the output.
        strict_names: as in `SinkOptions`.
        rows: number of examples.
    """

    groups: Mapping[str, Ordered]
    shards: tuple[Shard, ...]
    strict_names: frozenset[int]
    rows: int

    def places(self, subset: str, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """Returns the shard and part of each given example of one output subset."""
        group = self.groups[subset]
        orders = np.array([example.order for example in examples], dtype="<i8")
        keys = digests(tie_breaker(example.subset, example.id) for example in examples)
        return [self._place(group, rank) for rank in group.ranks(orders, keys)]

    def _place(self, group: Ordered, rank: int) -> tuple[int, int]:
        number, row = divmod(rank, group.step)
        shard = self.shards[group.first + number]
        return shard.index, row // max(1, shard.part_rows)


def tie_breaker(subset: str, item_id: str) -> str:
    """Returns a text that orders examples of equal order; unique because ids are unique within a subset."""
    return f"{subset}\0{item_id}"


def records_of(table: pa.Table, encodings: Sequence[str]) -> dict[str, Records]:
    """Returns the records of some examples, by subset.

    Args:
        table: examples in the schema `beam_cifar.data.schema.ordered_schema`.
        encodings: encodings in which images may reach the writer.
    """
    ids, filenames = (table.column(name).to_pylist() for name in ("id", "filename"))
    height, width = (table.column(name).fill_null(-1).to_numpy() for name in ("height", "width"))
    records = np.empty(len(table), RECORD)
    subset_names = table.column("subset").to_pylist()
    records["order"] = table.column("order").to_numpy()
    records["key"] = digests(map(tie_breaker, subset_names, ids))
    records["id"], records["name"], records["whole"] = digests(ids), name_digests(ids, filenames), whole_digests(ids)
    records["height"], records["width"] = height, width
    records["label"] = plain_labels(table)
    pixels = np.where(height < 0, 0, 3 * height.astype(np.int64) * width)
    stored = pa.compute.binary_length(table.column("image")).fill_null(0).to_numpy()
    is_raw = pa.compute.equal(table.column("encoding"), RAW).to_numpy()
    records["bytes"] = pixels if are_pixels(encodings) else np.where(is_raw, pixels, stored)
    subsets = np.array(subset_names, dtype=object)
    return {subset: records[subsets == subset] for subset in dict.fromkeys(subsets.tolist())}


def lay_out(found: Iterable[tuple[str, bytes]], sink: Sink, options: SinkOptions) -> Layout:
    """Decides on shards and parts.

    Args:
        found: pairs of a subset and some of its records, in any order.
        sink: format to write.
        options: options of the writers; `strict_names` is ignored.

    Raises:
        InputError: there are no examples, two are indistinguishable, or one lacks an image that the format needs.
        UsageError: the format cannot represent a subset or an image size.
    """
    records = {subset: np.frombuffer(b"".join(data), RECORD) for subset, data in sorted(by_key(found).items())}
    rows = sum(map(len, records.values()))
    if not rows:
        raise InputError("WriteExamples received no examples; nothing was written")
    subsets = sorted(records, key=lambda subset: (records[subset]["order"].min(), subset))
    sink.subsets.check(subsets, options.export)
    if sink.can.many_files or not sink.can.takes_missing_images:
        for subset, each in records.items():
            refuse_missing_images(f"subset {subset!r}", int((each["height"] < 0).sum()), sink, "beam.Filter")
    if not sink.can.takes_unlabelled:
        for subset, each in records.items():
            refuse_unlabelled(f"subset {subset!r}", int((each["label"] < 0).sum()), sink)
    strict = _strict_names(records, sink, options.export) if sink.can.many_files else frozenset()
    merged = by_key((sink.subsets.output(subset, options.export), records[subset]) for subset in subsets)
    groups = [_group(subset, np.concatenate(members)) for subset, members in merged.items()]
    made = cut(groups, [], sink, options)
    ordered = {}
    for group in groups:
        first = made.shards[made.first[group.subset]]
        orders, keys = (group.records[name].tobytes() for name in ("order", "key"))
        ordered[group.subset] = Ordered(orders, keys, first.index, first.rows)
    return Layout(ordered, made.shards, strict, rows)


@dataclass(frozen=True, eq=False)
class _Examples(Group):
    """The records of an output subset, in order."""

    records: Records

    def facts(self, start: int, stop: int) -> Facts:
        height, width = (self.records[name][start:stop] for name in ("height", "width"))
        one_size = (height == height[0]).all() and (width == width[0]).all() and height[0] >= 0
        return Facts((int(height[0]), int(width[0])) if one_size else None, bool((height >= 0).any()))


def _group(subset: str, records: Records) -> _Examples:
    records = np.sort(records, order=("order", "key"))
    same = (np.diff(records["order"]) == 0) & (records["key"][1:] == records["key"][:-1])
    if same.any():
        order = records["order"][1:][same][0]
        raise InputError(f"subset {subset!r}: two examples have the same id and order {order}; make their ids unique")
    return _Examples(subset, len(records), int(records["bytes"].sum()), records)


def _strict_names(records: Mapping[str, Records], sink: Sink, options: ExportOptions) -> frozenset[int]:
    subsets, everything = list(records), np.concatenate(list(records.values()))
    numbers = np.repeat(np.arange(len(subsets)), [len(each) for each in records.values()])
    named = Named(numbers, *(everything[name] for name in ("label", "id", "name", "whole")))
    return names_that_clash(named, subsets, sink, options, lambda at: f"an example of subset {subsets[numbers[at]]!r}")
