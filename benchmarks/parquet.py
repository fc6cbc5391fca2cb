"""CIFAR-10 to Parquet beside a plain loop, and its peak memory at two sizes; see README.md."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from measure import Run, measure

LOOP = Path(__file__).parent / "peers" / "loop.py"


def main() -> None:
    """Measures what the command line asks for, and prints it."""
    arguments = parse()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-benchmark-") as folder:
        if arguments.memory:
            compare_memory([arguments.images, arguments.memory], arguments.runs, Path(folder), arguments.samples)
        else:
            compare_time(arguments, Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--images", type=int, default=60_000, metavar="N", help="size of the sample; default: 60000")
    add("--runs", type=int, default=5, metavar="N", help="runs of each; default: 5")
    add("--workers", type=int, metavar="N", help="of beam-cifar; its own choice if left out")
    add("--ours-only", action="store_true", help="leave the loop out")
    add("--memory", type=int, nargs="?", const=600_000, metavar="N",
        help="peak memory with one worker at --images and at N (default: 600000) images, instead")  # fmt: skip
    add("--samples", type=Path, metavar="DIR", help="where samples are kept, and made if missing; removed if left out")
    add("--folder", type=Path, metavar="DIR", help="where temporary files go; the system's choice if left out")
    arguments = parser.parse_args()
    if arguments.images < 6:
        parser.error(f"--images must be at least 6, so that both splits have rows; found {arguments.images}")
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1; found {arguments.runs}")
    return arguments


def compare_time(arguments: argparse.Namespace, folder: Path) -> None:
    """Runs both in turn, so that a slow minute of the machine hits both, and prints medians."""
    workers = [] if arguments.workers is None else ["--workers", str(arguments.workers)]
    runs: dict[str, list[Run]] = {"beam-cifar": [], "loop": []}
    if arguments.ours_only:
        del runs["loop"]
    with sample(arguments.images, folder, arguments.samples) as source:
        for _ in range(arguments.runs):
            for name, measured in runs.items():
                measured.append(run_one(name, source, folder, workers))
    chosen = "its own choice of" if arguments.workers is None else arguments.workers
    print(f"CIFAR-10 to Parquet, {arguments.images:,} images, {arguments.runs} runs, {chosen} workers\n")
    print(f"{'':12}{'median s':>10}{'fastest s':>11}{'slowest s':>11}{'cpu s':>8}{'peak MB':>10}")
    for name, measured in runs.items():
        seconds = [run.seconds for run in measured]
        cpu = median(run.cpu_seconds for run in measured)
        peak = median(run.peak_mb for run in measured)
        print(f"{name:12}{median(seconds):10.2f}{min(seconds):11.2f}{max(seconds):11.2f}{cpu:8.2f}{peak:10.0f}")
    if "loop" in runs:
        ours, loop = (median(run.seconds for run in runs[name]) for name in ("beam-cifar", "loop"))
        print(f"\nratio of the medians: {ours / loop:.2f}")


def compare_memory(sizes: list[int], runs: int, folder: Path, kept: Path | None) -> None:
    """Prints the highest peak of each size, and their ratio."""
    print(f"CIFAR-10 to Parquet, peak memory with one worker, the highest of {runs} runs\n")
    peaks = []
    for images in sizes:
        with sample(images, folder, kept) as source:
            measured = [run_one("beam-cifar", source, folder, ["--workers", "1"]) for _ in range(runs)]
        peaks.append(max(run.peak_mb for run in measured))
        print(f"{images:12,} images{peaks[-1]:8.0f} MB{median(run.seconds for run in measured):8.2f} s")
    print(f"\nratio: {peaks[1] / peaks[0]:.3f}")


def run_one(name: str, source: Path, folder: Path, options: list[str]) -> Run:
    """Converts once, and removes the output."""
    out = folder / "out"
    ours = [sys.executable, "-m", "beam_cifar", "convert", "-i", str(source), "-f", "parquet", "-o", str(out), *options]
    try:
        return measure(ours if name == "beam-cifar" else [sys.executable, str(LOOP), str(source), str(out)])
    finally:
        for made in (out, folder / "out.beam_cifar"):
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def sample(images: int, folder: Path, kept: Path | None) -> Iterator[Path]:
    """A sample set, drawn by a process of its own; removed at the end unless it is to be kept."""
    path = (kept or folder) / f"cifar10-{images}"
    if not (path / "batches.meta").exists():
        print(f"drawing {images:,} images", file=sys.stderr)
        make = [sys.executable, "-m", "beam_cifar", "make-sample", str(path), "--images", str(images)]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    try:
        yield path
    finally:
        if not kept:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
