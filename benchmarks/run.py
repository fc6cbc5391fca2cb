"""Runs the works of works.py with beam-cifar and its peers in turn, and prints a Markdown table; see README.md."""

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

from measure import Run, measure
from report import at_one_size, at_two_sizes
from setting import describe
from works import PEERS_PYTHON, WORKS, Contender, Work

COUNT = Path(__file__).parent / "count.py"
STRAY = ("readme.html", "file.txt~")


def main() -> int:
    """Measures what the command line asks for, prints it, and returns 1 if a program failed, else 0."""
    arguments = parse()
    works = [WORKS[name] for name in arguments.works or WORKS]
    sizes = [arguments.images] + ([arguments.to] if arguments.to else [])
    chosen = {work: choose(work, arguments) for work in works}
    needs_peers = any(contender.command[0] == PEERS_PYTHON for taken in chosen.values() for contender in taken)
    if needs_peers and not Path(PEERS_PYTHON).exists():
        sys.exit(
            f"{PEERS_PYTHON} is missing: `make peers` makes the environment with Datumaro, BEAM_CIFAR_PEERS names the "
            "interpreter of another one, --ours-only does without"
        )
    for line in describe(needs_peers):
        print(line, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-benchmark-") as folder:
        bench = Bench(Path(folder), arguments.samples or Path(folder), arguments.runs)
        results = {work: [bench.compare(work, taken, images) for images in sizes] for work, taken in chosen.items()}
    workers = "its own choice" if arguments.workers is None else arguments.workers
    print(f"\nRuns of each, in turn: {arguments.runs}. Workers of beam-cifar: {workers}.\n")
    print(at_two_sizes(results, *sizes) if arguments.to else at_one_size(results, arguments.images))
    return 1 if bench.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("works", nargs="*", metavar="WORK", help=f"{', '.join(WORKS)}; all if left out")
    add("--images", type=int, default=60_000, metavar="N", help="size of the sample; default: 60000")
    add("--runs", type=int, default=5, metavar="N", help="runs of each; default: 5")
    add("--workers", type=int, metavar="N", help="of beam-cifar; its own choice if left out")
    add("--ours-only", action="store_true", help="leave the peers out")
    add("--to", type=int, metavar="N", help="measure at N images as well: what a further image costs, and peaks")
    add("--memory", type=int, nargs="?", const=600_000, metavar="N",
        help="short for --ours-only --workers 1 --to N (default: 600000)")  # fmt: skip
    add("--samples", type=Path, metavar="DIR", help="where samples are kept, and made if missing; removed if left out")
    add("--folder", type=Path, metavar="DIR", help="where temporary files go; the system's choice if left out")
    arguments = parser.parse_args()
    if arguments.memory:
        arguments.ours_only, arguments.workers, arguments.to = True, 1, arguments.memory
    if unknown := [name for name in arguments.works if name not in WORKS]:
        parser.error(f"no work {unknown[0]!r}; there are {', '.join(WORKS)}")
    if arguments.images < 6:
        parser.error(f"--images must be at least 6, so that both splits have rows; found {arguments.images}")
    if arguments.to is not None and arguments.to <= arguments.images:
        parser.error(f"--to and --memory must be more than --images, {arguments.images}; found {arguments.to}")
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1; found {arguments.runs}")
    return arguments


def choose(work: Work, arguments: argparse.Namespace) -> tuple[Contender, ...]:
    """The contenders of a work that are asked for, with the asked number of workers."""
    workers = () if arguments.workers is None else ("--workers", str(arguments.workers))
    return tuple(
        Contender(each.name, (*each.command, *workers), ours=True) if each.ours else each
        for each in work.contenders
        if each.ours or not arguments.ours_only
    )


@dataclass
class Bench:
    """Runs programs in a folder of its own.

    Attributes:
        folder: where outputs are made; it is to be removed at the end.
        samples: where samples are, and are made if missing.
        runs: how often each program runs.
        failed: whether one has failed.
    """

    folder: Path
    samples: Path
    runs: int
    failed: bool = False

    def compare(self, work: Work, contenders: Sequence[Contender], images: int) -> dict[Contender, list[Run]]:
        """Runs all in turn, so that a slow minute of the machine hits all; without runs where a program failed."""
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
                    print(f"{work.title}: {each.name} is left out: {error}", file=sys.stderr)
                    self.failed = True
                    gone.add(each)
                    measured[each] = []
        return measured

    def run_one(self, contender: Contender, source: Path, kind: str, expected: int | None) -> Run:
        """Converts once, and counts the output if a number is expected.

        Raises:
            RuntimeError: the program failed, or its output is not complete.
        """
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        out = scratch / "out"
        # What the last one wrote is the file system's work, not the next one's.
        os.sync()
        run = measure([part.format(source=source, out=out) for part in contender.command])
        if expected is not None and (found := count(kind, out)) != expected:
            raise RuntimeError(f"it wrote {found:,} images; expected {expected:,}")
        # Folders of images stay until the end: ext4 does not use the inodes of deleted files for some minutes, and
        # looks past each of them for every new file, which makes the next run several times slower.
        if kind != "imagenet":
            shutil.rmtree(scratch)
        return run

    def sample(self, kind: str, images: int) -> Path:
        """A sample set, drawn by a process of its own; without the stray files of the archives, which stop Datumaro."""
        path = self.samples / f"{kind}-{images}"
        if not path.exists():
            print(f"drawing {images:,} images of {kind}", file=sys.stderr)
            drawn = path.with_name(f"{path.name}.part")
            shutil.rmtree(drawn, ignore_errors=True)
            make = [sys.executable, "-m", "beam_cifar", "make-sample", str(drawn), "--kind", kind]
            subprocess.run([*make, "--images", str(images)], check=True, stdout=subprocess.DEVNULL)
            for name in STRAY:
                (drawn / name).unlink(missing_ok=True)
            drawn.rename(path)
        return path


def count(kind: str, out: Path) -> int:
    """Images in an output, counted by a process of its own; see `measure`."""
    counted = subprocess.run([sys.executable, str(COUNT), kind, str(out)], capture_output=True, encoding="utf-8")
    if counted.returncode:
        raise RuntimeError(f"its output cannot be counted: {counted.stderr.strip().splitlines()[-1]}")
    return int(counted.stdout)


if __name__ == "__main__":
    sys.exit(main())
