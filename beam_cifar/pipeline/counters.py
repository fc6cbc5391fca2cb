"""Counters and lineage in Beam's metrics, with stable names for monitoring. Exact counts are in the manifest."""

from __future__ import annotations

from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import Lineage

from beam_cifar.jobs.accounts import PartInfo

NAMESPACE = "beam_cifar"
COUNTERS = (
    "rows_moved",
    "rows_read",
    "rows_filtered",
    "labels_removed",
    "rows_rejected",
    "rows_written",
    "parts_written",
    "files_written",
    "bytes_written",
    "files_copied",
)
"""All counters; a runner that repeats a bundle may count it twice."""


def count(**amounts: int) -> None:
    """Increments counters; call it from a DoFn."""
    for name, amount in amounts.items():
        if name not in COUNTERS:
            raise ValueError(f"unknown counter {name!r}")
        if amount:
            Metrics.counter(NAMESPACE, name).inc(amount)


def count_part(info: PartInfo) -> None:
    """Counts a finished part in Beam's metrics."""
    count(rows_written=info.written.total(), parts_written=1, files_written=info.files, bytes_written=info.bytes)


def read_from(path: str) -> None:
    """Tells where rows come from; call it from a DoFn."""
    _tell(Lineage.sources(), path)


def written_to(path: str) -> None:
    """Tells where a dataset was published; call it from a DoFn."""
    _tell(Lineage.sinks(), path)


def _tell(lineage: Lineage, path: str) -> None:
    # In the form that Beam's own file systems use, of which those of stores need libraries of theirs.
    scheme, found, rest = path.partition("://")
    if found:
        bucket, _, name = rest.partition("/")
        lineage.add("gcs" if scheme == "gs" else scheme, bucket, name, last_segment_sep="/")
    else:
        lineage.add("filesystem", "localhost", path, last_segment_sep="/")
