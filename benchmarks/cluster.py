"""Times whole jobs on the cluster started by `make cluster-start`, and prints a Markdown table.

    make cluster-start
    .venv/bin/python benchmarks/cluster.py --images 600000
    make cluster-stop

Every output is compared with that of a local run, file by file; the exit code is 1 if one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from tests.helpers.clusters import Cluster  # noqa: E402

JOBS = {"CIFAR to Parquet": ("-f", "parquet"), "CIFAR to CIFAR": ("-f", "cifar", "--", "--save-images")}


def main() -> int:
    """Returns 1 if an output differs from the local one, else 0."""
    arguments = parse()
    cluster = Cluster.of(arguments.cluster)
    print(f"{arguments.images:,} images, {arguments.runs} runs each, in turn; {os.cpu_count()} cores, ", end="")
    print(f"load at the start {os.getloadavg()[0]:.1f}; {len(cluster.taskmanagers())} TaskManagers\n", flush=True)
    print("| job | where | median, s | all, s | images/s | same bytes as the first run |")
    print("| --- | --- | --- | --- | --- | --- |")
    equal = True
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-cluster-") as name:
        folder = Path(name)
        source = arguments.source or sample(folder, arguments.images)
        for title, job in JOBS.items():
            places = {"this machine": [], **{f"parallelism {n}": cluster.flags(n) for n in arguments.parallelism}}
            times: dict[str, list[float]] = {place: [] for place in places}
            differ: dict[str, bool] = dict.fromkeys(places, False)
            first: dict[str, str] = {}
            for number in range(1, arguments.runs + 1):
                for place, flags in places.items():
                    seconds, digests = convert(source, folder / "out", job, flags)
                    times[place].append(seconds)
                    first = first or digests
                    if other := [name for name in {**first, **digests} if first.get(name) != digests.get(name)]:
                        print(f"{title}, {place}, run {number}: differs from the first run: {other}", file=sys.stderr)
                        differ[place] = True
            for place, taken in times.items():
                equal &= not differ[place]
                middle, told = statistics.median(taken), ", ".join(f"{seconds:.1f}" for seconds in taken)
                rate = arguments.images / middle
                print(
                    f"| {title} | {place} | {middle:.1f} | {told} | {rate:,.0f} | {'NO' if differ[place] else 'yes'} |",
                    flush=True,
                )
    return 0 if equal else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=int, default=600_000, metavar="N", help="size of the sample; default: 600000")
    add("--source", type=Path, metavar="PATH", help="a CIFAR dataset of that size; default: a temporary one")
    add("--runs", type=int, default=3, metavar="N", help="runs of each job; default: 3")
    add("--parallelism", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    add("--cluster", type=Path, default=PROJECT / ".flink" / "run", metavar="DIR", help="run directory of the cluster")
    add("--folder", type=Path, metavar="DIR", help="where temporary outputs go; default: the system's")
    return parser.parse_args()


def sample(folder: Path, images: int) -> Path:
    path = folder / "sample"
    command = [sys.executable, "-m", "beam_cifar", "make-sample", str(path), "--images", str(images)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def convert(source: Path, out: Path, job: Sequence[str], flags: Sequence[str]) -> tuple[float, dict[str, str]]:
    """Runs a job; returns its seconds, including start-up, and the digests of its files, which it removes."""
    os.sync()
    end = job.index("--") if "--" in job else len(job)
    command = [sys.executable, "-m", "beam_cifar", "convert", "-i", str(source), "-o", str(out)]
    started = time.monotonic()
    done = subprocess.run([*command, *job[:end], *flags, *job[end:]], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.stderr)
    digests = file_digests(out)
    shutil.rmtree(out)
    shutil.rmtree(f"{out}.beam_cifar")
    return seconds, digests


def file_digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
