"""The summary of a conversion that its caller gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from beam_cifar.jobs.prepare import Job
from beam_cifar.version import __version__


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    Attributes:
        version: version of this package.
        format: output format.
        output: output directory.
        read: rows read.
        written: rows written.
        filtered: rows dropped by the selection.
        quarantined: rows that could not be kept.
        quarantined_files: input files that could not be read; none of their rows is counted elsewhere.
        subsets: rows written, by output subset.
        labels: rows written, by class name.
        seconds: time from the call to the end.
        bytes: total bytes of the data files.
        files: number of data files.
        notices: notices for the user.
        losses: what the rows have and the output lacks, as words of `beam_cifar.formats.contract.sink.LOSSES`.

    >>> from beam_cifar import ConvertOptions, convert
    >>> convert(ConvertOptions("cifar10", "out", "parquet")).subsets
    {'train': 50, 'test': 10}
    """

    version: str
    format: str
    output: str
    read: int
    written: int
    filtered: int
    quarantined: int
    quarantined_files: int
    subsets: dict[str, int]
    labels: dict[str, int]
    seconds: float
    bytes: int
    files: int
    notices: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


def summary_of(job: Job, manifest: dict[str, Any], seconds: float) -> Summary:
    """Returns what a finished job did, from its manifest; `seconds` is how long it took."""
    rows = manifest["rows"]
    files, nbytes = total_of(manifest)
    unlabelled = {"(unlabelled)": manifest["unlabelled"]} if manifest["unlabelled"] else {}
    return Summary(
        version=__version__,
        format=job.options.output_format,
        output=job.folder.output,
        read=rows["read"],
        written=rows["written"],
        filtered=rows["filtered"],
        quarantined=rows["rejected"],
        quarantined_files=manifest.get("quarantine", {}).get("files", 0),
        subsets=manifest["subsets"],
        labels={**manifest["classes"], **unlabelled},
        seconds=round(seconds, 3),
        bytes=nbytes,
        files=files,
        notices=(*job.plan.notices, *manifest["notices"]),
        losses=job.plan.losses,
    )


def total_of(manifest: dict[str, Any]) -> tuple[int, int]:
    """Returns the number of data files in a manifest, and their total bytes."""
    shards = manifest["shards"]
    return sum(shard.get("files", 1) for shard in shards), sum(shard["bytes"] for shard in shards)
