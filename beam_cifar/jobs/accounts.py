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
        shard: index of the shard.
        files: number of its files.
        bytes: total bytes of these files.
        sha256: hex digest of the file, or of the list of files.
        parts: accounts of its parts.
        listing: name of the list of files, next to the manifest; empty if the shard is one file.
        beside: path, bytes and hex sha256 of additional files of the shard.
    """

    shard: int
    files: int
    bytes: int
    sha256: str
    parts: tuple[PartInfo, ...]
    listing: str = ""
    beside: tuple[tuple[str, int, str], ...] = ()


def reconcile(parts: Sequence[PartInfo], settings: PublishSettings) -> dict[str, Counts]:
    """Checks that every row read was written, filtered or rejected, by subset and label; raises `JobError` if not.

    Returns:
        The counts of all rows, by the names in `COUNTED`.
    """
    # Counted from the parts, not from Beam's metrics: those count a bundle twice if it runs twice.
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
            f"counts do not add up: subset {subset!r}, label {label}: planned {pair[0]} rows, wrote {pair[1]}; in "
            f"total, read {counted['read'].total()} and wrote {counted['written'].total()}; nothing was published"
        )
    told = {name: getattr(planned, name) for name in ("read", "filtered", "unlabelled", "rejected")}
    dropped = planned.filtered + planned.rejected
    if planned.read.total() != dropped.total() + counted["written"].total():
        raise JobError("counts do not add up: rows read != rows written + filtered + rejected; nothing was published")
    return counted | told


def _check_balance(counted: Mapping[str, Counts], settings: PublishSettings) -> None:
    """Checks the counts of a job that filtered rows while reading; raises `JobError` if they do not add up."""
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
            f"counts do not add up: subset {subset!r}, label {label}: read - filtered - rejected - written is "
            f"{difference}, expected 0; nothing was published"
        )
    read = counted["read"].total()
    if settings.declared is not None and read != settings.declared:
        raise JobError(f"read {read} rows, but the input files declare {settings.declared}; nothing was published")


def _mapped(counts: Counts, label_map: LabelMap) -> Counts:
    mapped: Counts = Counter()
    for (subset, label), n in counts.items():
        mapped[subset, label_map[label]] += n
    return mapped


def one_each(infos: Iterable[Any], count: int, number: Any, what: str) -> Iterator[Any]:
    """Returns one account per number, in order; raises `JobError` if attempts differ or numbers are missing."""
    found: dict[int, Any] = {}
    for info in infos:
        if found.setdefault(number(info), info) != info:
            raise JobError(f"{what}: two attempts at part {number(info)} differ; nothing was published")
    if sorted(found) != list(range(count)):
        missing = sorted(set(range(count)) - set(found))
        raise JobError(f"{what}: parts {missing[:5]} of {count} are missing; nothing was published")
    return (found[key] for key in sorted(found))


@dataclass(frozen=True)
class PartInfo:
    """The account of one finished part.

    Attributes:
        shard: index of its shard.
        part: its number within the shard.
        files: number of its files.
        bytes: total bytes of these files.
        sha256: hex digest of the file, or of the list of files.
        read: rows read, by source subset and label.
        filtered: rows that transforms dropped, by source label.
        unlabelled: rows whose label was removed, by source label.
        written: rows in the file, by source subset and output label.
        rejected: rows that could not be kept.
        bad_rows: the first of the rejected rows.
        statistics: numbers that the format's `finish` needs, and remarks on images by kind.
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
"""Names of the row counts."""


def encode_part(info: PartInfo) -> bytes:
    """Returns an account as JSON with its digest; `decode_part` reads it."""
    counts = {name: [[*key, n] for key, n in sorted(getattr(info, name).items())] for name in COUNTED}
    # The digest is needed because after a power failure a file may have its full size, but contain zeros.
    facts = json.dumps({**asdict(info), **counts})
    return json.dumps([facts, hashlib.sha256(facts.encode()).hexdigest()]).encode()


def decode_part(data: bytes) -> PartInfo:
    """Returns the account of a part from its JSON; raises `ValueError` if it is damaged."""
    try:
        told, digest = json.loads(data)
        if hashlib.sha256(told.encode()).hexdigest() != digest:
            raise ValueError("the account of a part is damaged: its digest does not match")
        facts = json.loads(told)
        counts = {name: Counter({(str(s), int(label)): int(n) for s, label, n in facts[name]}) for name in COUNTED}
        bad = tuple(BadRow(**row) for row in facts["bad_rows"])
        return PartInfo(**{**facts, **counts, "bad_rows": bad})
    except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError("not the account of a part") from error
