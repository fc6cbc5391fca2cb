"""Runs the benchmarks in works.py with beam-cifar and its peers in turn, and prints a Markdown table; see README.md.

`run.py growth` is another one: whether the cost of beam-cifar's own jobs grows with their images.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import growth
from measure import Run, measure
from report import at_one_size, at_two_sizes
from setting import describe
from works import PEERS_PYTHON, WORKS, Contender, Work

COUNT = Path(__file__).parent / "count.py"
TABLE = Path(__file__).parent / "make_table.py"
STRAY = ("readme.html", "file.txt~")


def main() -> int:
    """Measures and prints what the command line asks for; returns 1 if a program failed, else 0."""
    arguments = parse()
    works = [WORKS[name] for name in arguments.works or WORKS]
    sizes = [arguments.images] + ([arguments.to] if arguments.to else [])
    chosen = {work: choose(work, arguments) for work in works}
    needs_peers = any(contender.command[0] == PEERS_PYTHON for taken in chosen.values() for contender in taken)
    if needs_peers and not Path(PEERS_PYTHON).exists():
        sys.exit(
            f"{PEERS_PYTHON}: not found; create it with `make peers`, set BEAM_CIFAR_PEERS to an interpreter that has "
            "Datumaro, or pass --ours-only"
        )
    for line in describe(needs_peers):
        print(line, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-benchmark-") as folder:
        bench = Bench(Path(folder), arguments.samples or Path(folder), arguments.runs)
        results = {work: [bench.compare(work, taken, images) for images in sizes] for work, taken in chosen.items()}
    workers = "default" if arguments.workers is None else arguments.workers
    print(f"\nRuns of each program, in turn: {arguments.runs}. Workers of beam-cifar: {workers}.\n")
    print(at_two_sizes(results, *sizes) if arguments.to else at_one_size(results, arguments.images))
    return 1 if bench.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("works", nargs="*", metavar="WORK", help=f"{', '.join(WORKS)}; default: all")
    add("--images", type=int, default=60_000, metavar="N", help="size of the sample; default: 60000")
    add("--runs", type=int, default=5, metavar="N", help="runs of each program; default: 5")
    add("--workers", type=int, metavar="N", help="workers of beam-cifar; default: its own default")
    add("--ours-only", action="store_true", help="skip the peers")
    add("--to", type=int, metavar="N", help="also measure at N images: cost of an additional image, and peaks")
    add("--memory", type=int, nargs="?", const=600_000, metavar="N",
        help="short for --ours-only --workers 1 --to N; default: 600000")  # fmt: skip
    add("--samples", type=Path, metavar="DIR", help="directory to keep samples in; default: they are temporary")
    add("--folder", type=Path, metavar="DIR", help="where temporary files go; default: the system's")
    arguments = parser.parse_args()
    if arguments.memory:
        arguments.ours_only, arguments.workers, arguments.to = True, 1, arguments.memory
    if unknown := [name for name in arguments.works if name not in WORKS]:
        parser.error(f"unknown benchmark {unknown[0]!r}; expected one of {', '.join(WORKS)}")
    if arguments.images < 6:
        parser.error(f"--images must be at least 6 for both splits to have rows, found {arguments.images}")
    if arguments.to is not None and arguments.to <= arguments.images:
        parser.error(f"--to and --memory must be greater than --images ({arguments.images}), found {arguments.to}")
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1, found {arguments.runs}")
    return arguments


def choose(work: Work, arguments: argparse.Namespace) -> tuple[Contender, ...]:
    """Returns the contenders of a benchmark that were asked for, with the number of workers that was asked for."""
    workers = () if arguments.workers is None else ("--workers", str(arguments.workers))
    return tuple(
        Contender(each.name, (*each.command, *workers), ours=True) if each.ours else each
        for each in work.contenders
        if each.ours or not arguments.ours_only
    )


@dataclass
class Bench:
    """Runs programs in a separate folder.

    Attributes:
        folder: folder for outputs; the caller removes it.
        samples: folder for samples, which are created if missing.
        runs: number of runs of each program.
        failed: whether a program has failed.
    """

    folder: Path
    samples: Path
    runs: int
    failed: bool = False

    def compare(self, work: Work, contenders: Sequence[Contender], images: int) -> dict[Contender, list[Run]]:
        """Runs all programs in turn, so that a slow minute affects all of them; programs that fail get no runs."""
        source = self.sample(work.kind, images)
        measured: dict[Contender, list[Run]] = {each: [] for each in contenders}
        gone: set[Contender] = set()
        for number in range(1, self.runs + 1):
            print(f"{work.title}, {images:,} images: run {number} of {self.runs}", file=sys.stderr)
            for each in contenders:
                if each in gone:
                    continue
                try:
                    measured[each].append(self.run_one(each, source, work.output, images if number == 1 else None))
                except RuntimeError as error:
                    print(f"{work.title}: excluding {each.name}: {error}", file=sys.stderr)
                    self.failed = True
                    gone.add(each)
                    measured[each] = []
        return measured

    def run_one(self, contender: Contender, source: Path, kind: str, expected: int | None) -> Run:
        """Converts once; counts the images of the output if a number is expected.

        Raises:
            RuntimeError: the program failed, or its output is incomplete.
        """
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        out = scratch / "out"
        # Writes of the previous program must not slow down the next one.
        os.sync()
        run = measure([part.format(source=source, out=out) for part in contender.command])
        if expected is not None and (found := count(kind, out)) != expected:
            raise RuntimeError(f"wrote {found:,} images, expected {expected:,}")
        # Folders of images stay until the end: ext4 does not reuse the inodes of deleted files for some minutes, and
        # skips each of them for every new file, which makes the next run several times slower.
        if kind != "imagenet":
            shutil.rmtree(scratch)
        return run

    def sample(self, kind: str, images: int) -> Path:
        """Returns a sample dataset, generated by a subprocess, without the stray files on which Datumaro fails."""
        path = self.samples / f"{kind}-{images}"
        if not path.exists():
            print(f"generating {images:,} images of {kind}", file=sys.stderr)
            drawn = path.with_name(f"{path.name}.part")
            shutil.rmtree(drawn, ignore_errors=True)
            make = [sys.executable, "-m", "beam_cifar", "make-sample", str(drawn), "--kind", kind]
            subprocess.run([*make, "--images", str(images)], check=True, stdout=subprocess.DEVNULL)
            for name in STRAY:
                (drawn / name).unlink(missing_ok=True)
            drawn.rename(path)
            subprocess.run([sys.executable, str(TABLE), str(path)], check=True)
        return path


def count(kind: str, out: Path) -> int:
    """Returns the number of images in an output, counted by a subprocess to keep this process small; see `measure`."""
    counted = subprocess.run([sys.executable, str(COUNT), kind, str(out)], capture_output=True, encoding="utf-8")
    if counted.returncode:
        raise RuntimeError(f"cannot count its output: {counted.stderr.strip().splitlines()[-1]}")
    return int(counted.stdout)


if __name__ == "__main__":
    sys.exit(growth.main(sys.argv[2:]) if sys.argv[1:2] == ["growth"] else main())
