"""Measures whether four times the images cost four times the CPU time, and no more memory; see README.md."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import Run, measure
from report import table
from setting import describe

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.helpers.growth_cases import CASES, Case  # noqa: E402

FEW = 60
FILES = 6
TIMES = 4
MOST_CPU, MOST_MEMORY = 4.4, 1.1
HEAD = ("case", f"CPU seconds at {FEW}", "at n", "at 4 n", "growth", "peak MB at n", "at 4 n", "growth", "")


def main(words: list[str]) -> int:
    """Measures the cases that the command line asks for; returns 1 if one failed or grew too much, else 0."""
    arguments = parse(words)
    for line in describe(with_peers=False):
        print(line, flush=True)
    print(f"\nn = {arguments.images:,}. Runs of each job: {arguments.runs}.\n")
    print(table(HEAD, [], texts=1), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-growth-") as folder:
        bench = Bench(Path(folder), arguments.samples or Path(folder), arguments.images, arguments.runs)
        grown = [bench.row(case) for case in arguments.cases]
    return int(any(grown))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py growth", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PATTERN",
        help="cases whose name matches, such as 'read parquet*: shuffle' (repeatable); default: all")  # fmt: skip
    add("--images", type=int, default=60_000, metavar="N", help="n; default: 60000")
    add("--runs", type=int, default=1, metavar="N", help="runs of each job, of which the median counts; default: 1")
    add("--samples", type=Path, metavar="DIR", help="directory to keep inputs in; default: they are temporary")
    add("--folder", type=Path, metavar="DIR", help="where temporary files go; default: the system's")
    add("--list", action="store_true", help="print the names of the cases and exit")
    arguments = parser.parse_args(words)
    patterns = arguments.only or ["*"]
    arguments.cases = [case for case in CASES if any(fnmatch.fnmatchcase(case.name, each) for each in patterns)]
    if not arguments.cases:
        parser.error(f"--only {patterns[0]!r} matches no case; --list prints their names")
    if arguments.images <= FEW:
        parser.error(f"--images must be greater than {FEW}, found {arguments.images}")
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1, found {arguments.runs}")
    if arguments.list:
        print(*(case.name for case in arguments.cases), sep="\n")
        parser.exit()
    return arguments


@dataclass(frozen=True)
class Bench:
    """Runs jobs in a separate folder.

    Attributes:
        folder: folder for outputs; the caller removes it.
        samples: folder for inputs, which are made if missing, and shared by the cases.
        images: n.
        runs: number of runs of each job.
    """

    folder: Path
    samples: Path
    images: int
    runs: int

    def row(self, case: Case) -> bool:
        """Measures a case and prints its line; returns whether it failed or grew too much."""
        print(case.name, file=sys.stderr)
        try:
            few, once, more = (self.measured(case, images) for images in (FEW, self.images, TIMES * self.images))
        except RuntimeError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            print(f"| {case.name} | failed {'| ' * (len(HEAD) - 2)}|", flush=True)
            return True
        # A job that costs hardly more than start-up has no growth worth a name.
        cpu = (more.cpu_seconds - few.cpu_seconds) / max(once.cpu_seconds - few.cpu_seconds, 0.01)
        memory = more.peak_mb / once.peak_mb
        grown = [what for what, is_so in (("CPU", cpu > MOST_CPU), ("memory", memory > MOST_MEMORY)) if is_so]
        cells = [f"{run.cpu_seconds:.2f}" for run in (few, once, more)] + [f"{cpu:.2f}"]
        cells += [f"{run.peak_mb:.0f}" for run in (once, more)] + [f"{memory:.3f}", " and ".join(grown)]
        print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
        return bool(grown)

    def measured(self, case: Case, images: int) -> Run:
        """Returns the median time and the highest peak of all runs of a job. Raises `RuntimeError` if it fails."""
        source = self.input(case.layout, images)
        runs = []
        for _ in range(self.runs):
            scratch = Path(tempfile.mkdtemp(dir=self.folder))
            command = [sys.executable, "-m", "beam_cifar", "convert", "-i", str(source), "-o", str(scratch / "out")]
            os.sync()  # writes of the previous job must not slow down this one
            runs.append(measure([*command, *case.options(images, self.per_file)]))
            shutil.rmtree(scratch)
        seconds, cpu = median(run.seconds for run in runs), median(run.cpu_seconds for run in runs)
        return Run(seconds, cpu, max(run.peak_mb for run in runs))

    @property
    def per_file(self) -> int:
        """Rows per file where there are many: n images are six files."""
        return max(1, self.images // FILES)

    def input(self, layout: str, images: int) -> Path:
        """Returns the path of an input, made by a subprocess to keep this process small; see `measure`."""
        self.samples.mkdir(parents=True, exist_ok=True)
        make = [sys.executable, "-m", "tests.helpers.growth_cases", str(self.samples.resolve()), layout]
        made = subprocess.run(
            [*make, "--images", str(images), "--per-file", str(self.per_file)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8",
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"cannot make {layout}: {(made.stderr.strip().splitlines() or ['no message'])[-1]}")
        return Path(made.stdout.splitlines()[-1])
