"""Kills jobs at random moments, resumes them, and prints Markdown tables of the results; see docs/faults.md.

It needs Linux and, for the jobs on a cluster, everything that deploy/flink/cluster.sh needs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers import clusters
from tests.helpers.cluster_kills import KINDS, Survival, cluster_work, survive
from tests.helpers.kills import DONE, MOMENTS, WORKS, Case, Ending, Samples, kill_and_finish, spread

Result = TypeVar("Result")


def main() -> int:
    """Runs what the command line asks for; returns 1 if any result was wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("works", nargs="*", metavar="WORK", help=f"{', '.join(WORKS)}; default: all")
    add("--runs", type=int, default=8, metavar="N", help="jobs to kill per work, some of them twice; default: 8")
    add("--images", type=int, default=12_000, metavar="N", help="size of the sample; default: 12000")
    add("--on-cluster", type=int, default=5, metavar="N", help="kills of each kind on a Flink cluster; default: 5")
    add("--seed", type=int, default=0, metavar="N", help="seed for the moments; default: 0")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    tables: list[tuple[str, list[str]]] = []
    with tempfile.TemporaryDirectory(prefix="beam-cifar-faults-") as folder:
        samples = Samples.make(Path(folder), arguments.images)
        if arguments.runs:
            tables.append((HERE, kill_here(arguments.works or list(WORKS), arguments.runs, samples, chance)))
        if arguments.on_cluster:
            tables.append((THERE, kill_on_cluster(arguments.on_cluster, samples, chance)))
    for header, rows in tables:
        print("\n".join(["", header, "| --- " * (header.count("|") - 1) + "|", *rows]))
    print(f"\nresults that differ from an undisturbed run: {len(failures)}")
    return 1 if failures else 0


HERE = "| job | killed while it was in | kills | of its parts finished by then | at the output right after |"
THERE = "| killed on the cluster | kills | moments | then |"
failures: list[str] = []


def attempt(what: str, run: Callable[[], Result]) -> Result | None:
    """Returns the result of a run that checks itself; None, and an entry in `failures`, if the check failed."""
    try:
        return run()
    except AssertionError as error:
        failures.append(what)
        print(f"  {what}: WRONG: {error}", flush=True)
        return None


def kill_here(works: Sequence[str], runs: int, samples: Samples, chance: random.Random) -> list[str]:
    """Kills jobs on this machine; returns the rows of the table."""
    rows: list[str] = []
    for name in works:
        case = Case.make(WORKS[name], samples, samples.folder.with_name(name.replace(" ", "-")))
        spans = ", ".join(f"{moment} {seconds:.1f} s" for moment, seconds in case.spans.items())
        print(f"{name}: {case.parts} parts; {spans}", flush=True)
        endings = []
        for moments in spread(runs, chance):
            if ending := attempt(f"{name}, {moments}", partial(kill_and_finish, case, moments)):
                endings.append(ending)
                print(f"  {_line(ending)}", flush=True)
        rows += _rows(name, case, endings)
    return rows


def kill_on_cluster(count: int, samples: Samples, chance: random.Random) -> list[str]:
    """Kills processes of a job on a cluster; returns the rows of the table."""
    rows = []
    with clusters.started(CLUSTER_RESTART_ATTEMPTS=10) as cluster:
        case = Case.make(cluster_work(cluster), samples, samples.folder.with_name("cluster"))
        print(f"on the cluster: {case.parts} parts, {sum(case.spans.values()):.1f} s", flush=True)
        for kind in KINDS:
            said: list[Survival] = []
            for _ in range(count):
                parts = chance.randrange(case.parts)
                survival = attempt(f"{kind} at {parts}", partial(survive, kind, cluster, case, parts))
                said += [survival] if survival else []
                print(f"  {kind}: {survival}", flush=True)
            finished = sorted(survival.parts for survival in said)
            moments = f"{finished[0]} to {finished[-1]} of {case.parts} parts finished" if finished else ""
            ends = "; ".join(f"{end} ({n})" for end, n in Counter(survival.end for survival in said).most_common())
            rows.append(f"| {kind} | {len(said)} | {moments} | {ends} |")
    return rows


def _line(ending: Ending) -> str:
    kills = "; ".join(f"{kill.moment} +{kill.share:.0%}, {kill.parts} parts, {kill.output}" for kill in ending.kills)
    notes = [line.partition("note: ")[2] for line in ending.said.splitlines() if "note: " in line]
    return f"{kills} -> {'; '.join(notes) or 'done from the start'}"


def _rows(name: str, case: Case, endings: list[Ending]) -> Iterator[str]:
    """Yields a row for each moment of a job."""
    for moment in (*MOMENTS, DONE):
        kills = [kill for ending in endings for kill in ending.kills if kill.moment == moment]
        if not kills:
            continue
        parts = sorted(kill.parts for kill in kills)
        span = f"{parts[0]} to {parts[-1]} of {case.parts}" if moment == "convert" else ""
        outputs = Counter(kill.output for kill in kills)
        seen = ", ".join(f"{output} ({count})" for output, count in outputs.most_common())
        yield f"| {name} | {moment} | {len(kills)} | {span} | {seen} |"


if __name__ == "__main__":
    sys.exit(main())
