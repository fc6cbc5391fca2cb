"""Random jobs for a long time, under load: every run must write the same bytes, and no process may grow.

    make soak SOAK=60        # minutes

Two processes run one job after another, and a third lane starts a process for each; busy processes of our own take the
rest of the machine. Progress is printed every minute, and at the end a table. The exit code is 1 after a difference or
growth.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import FrameType

from tests.helpers.random_jobs import (
    MODES,
    SERIAL,
    EndedError,
    Fresh,
    Job,
    Outcome,
    Process,
    Runs,
    Sizes,
    Way,
    explained,
    make_job,
    make_surroundings,
    make_way,
)

BASE = Way((SERIAL,))
LANES = 3
AT_ONCE = 4
"""Jobs after which the lanes wait for each other."""
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"
"""It ends by itself when its parent has gone."""

FEWEST = 30
"""Samples below which nothing is said about growth."""


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keeps a number of processes busy; they are ended by their ids."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def growth(samples: Sequence[Sizes]) -> list[str]:
    """Says what has grown between the second and the last fifth of a process's life; the first is for warming up.

    Threads and descriptors may differ by two, because a runner's last ones take a moment to end; memory by 32 MB,
    because allocators keep what is free.
    """
    if len(samples) < FEWEST:
        return []
    fifth = len(samples) // 5
    grown = []
    for name, more in (("rss", 32), ("fds", 2), ("threads", 2)):
        values = [getattr(each, name) for each in samples]
        early, late = statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])
        if late > early + more:
            grown.append(f"{name} grew from {early:g} to {late:g} in {len(samples)} jobs")
    return grown


@dataclass
class Report:
    """What has been seen so far."""

    jobs: int = 0
    refused: int = 0
    runs: int = 0
    comparisons: int = 0
    files: int = 0
    differences: list[str] = field(default_factory=list)

    def line(self, processes: Sequence[Process], began: float) -> str:
        """One line of progress."""
        sizes = "; ".join(
            f"process {number}: {len(each.sizes)} jobs, {last.rss} MB, {last.fds} fds, {last.threads} threads"
            for number, each in enumerate(processes, 1)
            for last in each.sizes[-1:]
        )
        return (
            f"{(time.monotonic() - began) / 60:.0f} min, load {os.getloadavg()[0]:.0f}: {self.jobs} jobs, {self.runs} runs, "
            f"{self.comparisons} comparisons, {len(self.differences)} differences; {sizes}"
        )

    def table(self, processes: Sequence[Process], grown: Sequence[str], began: float, loads: Sequence[float]) -> str:
        """The summary, in Markdown."""
        rows = {
            "minutes": f"{(time.monotonic() - began) / 60:.0f}",
            "load, mean": f"{statistics.mean(loads):.1f}" if loads else "not measured",
            "jobs": f"{self.jobs}, of them {self.refused} refused",
            "runs": str(self.runs),
            "comparisons of outcomes": str(self.comparisons),
            "files compared": str(self.files),
            "differences": str(len(self.differences)),
        }
        for number, process in enumerate(processes, 1):
            for name, unit in (("rss", " MB"), ("fds", ""), ("threads", "")):
                values = [getattr(each, name) for each in process.sizes] or [0]
                fifth = max(1, len(values) // 5)
                early, late = statistics.median(values[fifth : 2 * fifth] or values), statistics.median(values[-fifth:])
                rows[f"process {number}, {len(process.sizes)} jobs: {name} early, late, most"] = (
                    f"{early:g}{unit}, {late:g}{unit}, {max(values)}{unit}"
                )
        rows["growth"] = "; ".join(grown) or "none"
        return "\n".join(
            ["| what | figure |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
        )


Run = tuple[Job, Way, Process | Fresh]


def compare(
    jobs: Sequence[Job], rng: Random, runs: Runs, processes: Sequence[Process], report: Report, pool: ThreadPoolExecutor
) -> None:
    """Runs each job in many ways, the lanes at once, and compares all outcomes of a job with its first."""
    for name in {name for job in jobs for name in job.inputs}:
        runs.inputs.original(name)
    first, second = processes
    lanes: list[list[Run]] = [[], [], []]
    for job in jobs:
        lanes[0] += [(job, way, first) for way in (BASE, make_way(rng), make_way(rng))]
        lanes[1] += [(job, make_way(rng), second) for _ in range(3)]
        lanes[2] += [(job, make_way(rng, MODES), Fresh(make_surroundings(rng)))]

    def outcomes(lane: list[Run]) -> list[tuple[Run, Outcome]]:
        return [(each, runs.run(*each)) for each in lane]

    found = list(itertools.chain.from_iterable(pool.map(outcomes, lanes)))
    expected = {job: outcome for (job, way, _), outcome in found if way is BASE}
    report.jobs += len(jobs)
    report.refused += sum(outcome.code != 0 for outcome in expected.values())
    report.runs += len(found)
    report.comparisons += len(found) - len(jobs)
    for (job, way, process), outcome in found:
        if way is BASE:
            continue
        report.files += len(outcome.files)
        if lines := expected[job].differences(outcome):
            text = "\n    ".join([*lines, explained(job, runs, (BASE, first), (way, process))])
            report.differences.append(text)
            print(f"DIFFERENCE {len(report.differences)}: {text}", flush=True)


def soak(minutes: float, busy: int, seed: int) -> int:
    """Runs jobs for some minutes; returns the exit code."""
    began = time.monotonic()
    report, rng, loads, over = Report(), Random(seed), list[float](), threading.Event()
    with Runs() as runs, load(busy), ThreadPoolExecutor(LANES) as pool:
        log = runs.folder.parent / f"soak-{os.getpid()}.log"
        with Process(make_surroundings(rng), log) as first, Process(make_surroundings(rng), log) as second:
            processes = (first, second)

            def progress() -> None:
                while not over.wait(60):
                    loads.append(os.getloadavg()[0])
                    print(report.line(processes, began), flush=True)

            print(f"soak from seed {seed}: {minutes:g} minutes, {busy} busy processes; messages: {log}", flush=True)
            threading.Thread(target=progress, daemon=True).start()
            try:
                for number in itertools.count(seed, AT_ONCE):
                    compare([make_job(number + n) for n in range(AT_ONCE)], rng, runs, processes, report, pool)
                    if time.monotonic() - began >= minutes * 60:
                        break
            except EndedError as error:
                report.differences.append(str(error))
                print(f"DIFFERENCE {len(report.differences)}: {error}", flush=True)
            finally:
                over.set()
                grown = [
                    f"process {number}: {line}"
                    for number, process in enumerate(processes, 1)
                    for line in growth(process.sizes)
                ]
                print(report.table(processes, grown, began, loads), flush=True)
    return int(bool(report.differences or grown))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, metavar="N", help="default: 60")
    parser.add_argument("--load", type=int, default=20, metavar="N", help="processes that want a core; default: 20")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first job; default: 1")
    arguments = parser.parse_args()

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)  # ends what was started

    signal.signal(signal.SIGTERM, stop)
    return soak(arguments.minutes, max(0, arguments.load - LANES), arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
