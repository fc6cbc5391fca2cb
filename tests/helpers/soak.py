"""Random jobs for a long time, under load: every run must write the same bytes, and no process may grow.

    make soak SOAK=60        # minutes

Four processes run one job after another, four lanes start a process for each, and busy processes of our own take the rest
of the machine. Progress is printed every minute, and at the end a table. The exit code is 1 after a difference or
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
from contextlib import ExitStack, contextmanager
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
    shown,
)

LONG_LIVED, FRESH = 4, 4
"""Lanes: processes that run one job after another, and threads that start a process for each."""
RUNS = 7
"""Of each job."""

SHRUNK = 3
"""Differences that are run again with fewer options, which takes time."""

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


def tasks(seed: int) -> Iterator[tuple[Job, Way]]:
    """Yields jobs without end, each as often as it is run, first without a runner."""
    for number in itertools.count(seed):
        job, rng = make_job(number), Random(number)
        yield from ((job, way) for way in (Way((SERIAL,)), *(make_way(rng) for _ in range(RUNS - 1))))


class Soak:
    """Lanes that take one task after another, and compare its outcome with the first of its job.

    Args:
        runs: where jobs are run.
        seed: of the first job.
        until: when no lane takes another task; of `time.monotonic`.
    """

    def __init__(self, runs: Runs, seed: int, until: float) -> None:
        self.report, self._runs, self._tasks, self._until = Report(), runs, tasks(seed), until
        self._rng, self._lock = Random(seed), threading.Lock()
        self._first: dict[Job, tuple[Outcome, Way, Process | Fresh]] = {}

    def lane(self, process: Process | None) -> None:
        """Runs tasks in a process, or each in a new one."""
        while time.monotonic() < self._until:
            with self._lock:
                job, way = next(self._tasks)
                runner = process or Fresh(make_surroundings(self._rng))
                if process is None and way.flags == (SERIAL,):
                    way = make_way(self._rng, MODES)
            try:
                self._judge(job, way, runner, self._runs.run(job, way, runner))
            except EndedError as error:
                self._differs(str(error))
                return

    def _judge(self, job: Job, way: Way, process: Process | Fresh, outcome: Outcome) -> None:
        with self._lock:
            self.report.runs += 1
            if job not in self._first:
                self._first[job] = outcome, way, process
                self.report.jobs += 1
                self.report.refused += outcome.code != 0
                return
            self.report.comparisons += 1
            self.report.files += len(outcome.files)
            expected, first_way, first_process = self._first[job]
        if lines := expected.differences(outcome):
            self._differs("\n    ".join([f"seed {job.seed}: {shown(job, way, process)}", *lines]))
            if len(self.report.differences) <= SHRUNK:
                print(explained(job, self._runs, (first_way, first_process), (way, process)), flush=True)

    def _differs(self, text: str) -> None:
        with self._lock:
            self.report.differences.append(text)
            print(f"DIFFERENCE {len(self.report.differences)}: {text}", flush=True)


def soak(minutes: float, busy: int, seed: int) -> int:
    """Runs jobs for some minutes; returns the exit code."""
    began, loads, over = time.monotonic(), list[float](), threading.Event()
    with ExitStack() as stack:
        runs = stack.enter_context(Runs())
        log = runs.folder.parent / f"soak-{os.getpid()}.log"
        stack.enter_context(load(busy))
        rng = Random(seed)
        processes = [stack.enter_context(Process(make_surroundings(rng), log)) for _ in range(LONG_LIVED)]
        soak = Soak(runs, seed, began + minutes * 60)

        def progress() -> None:
            while not over.wait(60):
                loads.append(os.getloadavg()[0])
                print(soak.report.line(processes, began), flush=True)

        print(f"soak from seed {seed}: {minutes:g} minutes, {busy} busy processes; messages: {log}", flush=True)
        lanes = [
            threading.Thread(target=soak.lane, args=(each,), daemon=True) for each in (*processes, *[None] * FRESH)
        ]
        for thread in (threading.Thread(target=progress, daemon=True), *lanes):
            thread.start()
        try:
            for thread in lanes:
                thread.join()
        finally:
            over.set()
            grown = [
                f"process {number}: {line}"
                for number, process in enumerate(processes, 1)
                for line in growth(process.sizes)
            ]
            print(soak.report.table(processes, grown, began, loads), flush=True)
    return int(bool(soak.report.differences or grown))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, metavar="N", help="default: 60")
    parser.add_argument("--load", type=int, default=20, metavar="N", help="processes that want a core; default: 20")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first job; default: 1")
    arguments = parser.parse_args()

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)  # ends what was started

    signal.signal(signal.SIGTERM, stop)
    return soak(arguments.minutes, max(0, arguments.load - LONG_LIVED - FRESH), arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
