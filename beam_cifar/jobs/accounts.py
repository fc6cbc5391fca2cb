"""Accounts of finished parts and shards, and the reconciliation of their counts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from beam_cifar.data.block import BadRow, Counts, add_counts
from beam_cifar.data.labels import UNLABELLED, LabelMap
from beam_cifar.errors import JobError
from beam_cifar.jobs.settings import PublishSettings


@dataclass(frozen=True)
class ShardInfo:
    """The account of one finished shard of the output.

    Attributes:
        shard: its number.
        files: how many it is made of.
        bytes: of these.
        sha256: of the file, or of the list of files, hex.
        parts: what it was made from.
        listing: name of the list of files beside the manifest; empty where the shard is one file.
        beside: path, bytes and hex sha256 of further files of the shard.
    """

    shard: int
    files: int
    bytes: int
    sha256: str
    parts: tuple[PartInfo, ...]
    listing: str = ""
    beside: tuple[tuple[str, int, str], ...] = ()


def reconcile(parts: Sequence[PartInfo], settings: PublishSettings) -> dict[str, Counts]:
    """Checks that every row read was written, filtered or rejected, by subset and label; else raises `JobError`.

    Returns:
        The counts of all rows, by the names in `COUNTED`.
    """
    # Of the parts and not from Beam's metrics: those count a bundle that is run twice, twice.
    counted = {name: add_counts(getattr(part, name) for part in parts) for name in COUNTED}
    if settings.counts is None:
        _check_balance(counted, settings)
        return counted
    planned = settings.counts
    wrong = {key: (planned.written[key], counted["written"][key]) for key in planned.written | counted["written"]}
    wrong = {key: pair for key, pair in wrong.items() if pair[0] != pair[1]}
    if wrong or counted["read"].total() != counted["written"].total():
        (subset, label), pair = next(iter(wrong.items()), (("", UNLABELLED), (0, 0)))
        raise JobError(
            f"counts do not add up: {pair[0]} rows were planned and {pair[1]} written for subset {subset!r} and label "
            f"{label}, {counted['read'].total()} read and {counted['written'].total()} written in all; nothing was "
            "published"
        )
    told = {"read": planned.read, "filtered": planned.filtered, "unlabelled": planned.unlabelled}
    if planned.read.total() != planned.filtered.total() + counted["written"].total():
        raise JobError("counts do not add up: rows read are not rows written and filtered; nothing was published")
    return counted | told


def _check_balance(counted: Mapping[str, Counts], settings: PublishSettings) -> None:
    """Checks the counts of rows that were filtered while they were read."""
    balance = _mapped(counted["read"], settings.label_map)
    for name in ("filtered", "rejected", "unlabelled"):
        balance.subtract(_mapped(counted[name], settings.label_map))
    for (subset, _), n in counted["unlabelled"].items():
        balance[subset, UNLABELLED] += n
    balance.subtract(counted["written"])
    wrong = {key: n for key, n in balance.items() if n}
    if wrong:
        (subset, label), difference = next(iter(wrong.items()))
        raise JobError(
            f"counts do not add up: read - filtered - rejected - written is {difference}, not 0, for subset {subset!r} "
            f"and label {label}; nothing was published"
        )
    read = counted["read"].total()
    if settings.declared is not None and read != settings.declared:
        raise JobError(f"{read} rows were read, the input files declare {settings.declared}; nothing was published")


def _mapped(counts: Counts, label_map: LabelMap) -> Counts:
    mapped: Counts = Counter()
    for (subset, label), n in counts.items():
        mapped[subset, label_map[label]] += n
    return mapped


def one_each(infos: Iterable[Any], count: int, number: Any, what: str) -> Iterator[Any]:
    """One account of each number, in order: attempts are equal, or something is not deterministic."""
    found: dict[int, Any] = {}
    for info in infos:
        if found.setdefault(number(info), info) != info:
            raise JobError(f"{what}: two attempts of part {number(info)} differ; nothing was published")
    if sorted(found) != list(range(count)):
        missing = sorted(set(range(count)) - set(found))
        raise JobError(f"{what}: parts {missing[:5]} of {count} are missing; nothing was published")
    return (found[key] for key in sorted(found))


@dataclass(frozen=True)
class PartInfo:
    """The account of one finished part.

    Attributes:
        shard: its shard's number.
        part: its number in the shard.
        files: how many it is made of.
        bytes: of these.
        sha256: of the file, or of the list of files, hex.
        read: rows by subset and label, as the source had them.
        filtered: rows that transforms dropped, by source label.
        unlabelled: rows whose label was taken away, by source label.
        written: rows in the file, by source subset and output label.
        rejected: rows that could not be kept.
        bad_rows: the first of those.
        statistics: what the format's `finish` wants to know.
    """

    shard: int
    part: int
    files: int
    bytes: int
    sha256: str
    read: Counts
    filtered: Counts = field(default_factory=Counter)
    unlabelled: Counts = field(default_factory=Counter)
    written: Counts = field(default_factory=Counter)
    rejected: Counts = field(default_factory=Counter)
    bad_rows: tuple[BadRow, ...] = ()
    statistics: dict[str, int] = field(default_factory=dict)


COUNTED = ("read", "written", "filtered", "unlabelled", "rejected")
"""What is counted, row by row."""


def encode_part(info: PartInfo) -> bytes:
    """An account as JSON, with a digest of it; see `decode_part`."""
    counts = {name: [[*key, n] for key, n in sorted(getattr(info, name).items())] for name in COUNTED}
    # With a digest: after power failure a file may be there with its size, and zeros in it.
    facts = json.dumps({**asdict(info), **counts})
    return json.dumps([facts, hashlib.sha256(facts.encode()).hexdigest()]).encode()


def decode_part(data: bytes) -> PartInfo:
    """The account of a part from its JSON. Raises `ValueError`: it is damaged."""
    try:
        told, digest = json.loads(data)
        if hashlib.sha256(told.encode()).hexdigest() != digest:
            raise ValueError("the account of a part is damaged")
        facts = json.loads(told)
        counts = {name: Counter({(str(s), int(label)): int(n) for s, label, n in facts[name]}) for name in COUNTED}
        bad = tuple(BadRow(**row) for row in facts["bad_rows"])
        return PartInfo(**{**facts, **counts, "bad_rows": bad})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("is no account of a part") from error
