"""Converts to every format in every order with several workers and runners, and compares every file with one worker's.

    python benchmarks/same_on_runners.py [--prism .prism/prism] [--cluster .flink/run] [--only 'parquet: *']

Both inputs are Parquet files with one row group per subset, whose rows are moved before they are written in another
order. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_cifar.cli.main import main as beam_cifar  # noqa: E402
from beam_cifar.formats.registry import FORMATS  # noqa: E402
from tests.helpers.clusters import Cluster  # noqa: E402
from tests.helpers.growth_cases import PACKED  # noqa: E402
from tests.helpers.reading import tree  # noqa: E402

ORDERS: dict[str, Sequence[str]] = {
    "shuffle": ("--transform", "shuffle"),
    "sort": ("--transform", "sort --by label --by size --reverse"),
    "random_split": ("--transform", "random_split -s train:.6 -s val:.2 -s test:.2"),
    "split": ("--transform", "split -s train:.5 -s test:.5"),
    "random_sampler": ("--transform", "random_sampler -k 700"),
    "label_random_sampler": ("--transform", "label_random_sampler -k 30"),
    "dedupe": ("--transform", "dedupe"),
    "merge": ("--merge", "{other}", "--transform", "shuffle"),
    "packed": ("--transform", "shuffle", "--images-per-batch", "170"),
    "half": ("-e", '/item[annotation/label="cat" or annotation/label="dog" or annotation/label="ship"]'),
}


def main(words: Sequence[str]) -> int:
    arguments = parse(words)
    runners = dict(runners_of(arguments))
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="beam-cifar-runners-") as folder:
        inputs = {kind: one_row_group(Path(folder, kind), kind) for kind in ("cifar10", "cifar100")}
        for target, order in cases(arguments.only):
            count.update(compared(target, order, runners, inputs, Path(folder, "work")))
    print(f"{count['same']} outputs are the same, {count['differ']} differ")
    return int(bool(count["differ"]))


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[2, 4], metavar="N", help="local workers; default: 2 4")
    add("--prism", type=Path, metavar="FILE", help="the binary of Prism; default: without")
    add("--cluster", type=Path, metavar="DIR", help="run directory of a Flink cluster; default: without")
    add("--only", default="*", metavar="PATTERN", help="cases whose name, such as 'parquet: sort', matches")
    add("--folder", type=Path, metavar="DIR", help="where temporary files go; default: the system's")
    return parser.parse_args(words)


def runners_of(arguments: argparse.Namespace) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields the name and the flags of each way to run a job, first the one that the others are compared with."""
    yield from ((f"{n} workers", ("--workers", str(n))) for n in (1, *arguments.workers))
    if arguments.prism:
        yield "Prism", ("--runner=PrismRunner", f"--prism_location={arguments.prism.resolve()}")
    if arguments.cluster:
        yield "Flink", Cluster.of(arguments.cluster.resolve()).flags(parallelism=2)


def cases(pattern: str) -> Iterator[tuple[str, str]]:
    """Yields format and order of the cases that match."""
    for target in (name for name, entry in FORMATS.items() if entry.sink):
        for order in ORDERS:
            if fnmatch.fnmatchcase(f"{target}: {order}", pattern) and (order != "packed" or target in PACKED):
                yield target, order


def one_row_group(folder: Path, kind: str) -> Path:
    """Makes a sample as Parquet with all rows of a subset in one row group."""
    for words in (
        ["make-sample", f"{folder}-made", "--kind", kind, "--images", "2000", "--seed", "3"],
        ["convert", "-i", f"{folder}-made", "-f", "parquet", "-o", str(folder)],
    ):
        if run(words):
            sys.exit(f"cannot make {folder.name}")
    for path in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(path), path)
    return folder


def run(words: Sequence[str]) -> int:
    """Runs a command; of what it says only an error is printed."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        code = beam_cifar(words)
    if code:
        print(*said.getvalue().splitlines()[-1:], file=sys.stderr)
    return code


def compared(
    target: str, order: str, runners: Mapping[str, Sequence[str]], inputs: Mapping[str, Path], folder: Path
) -> Iterator[str]:
    """Converts with every runner; yields "same" or "differ" for each but the first, and prints which do."""
    made: dict[str, dict[str, str]] = {}
    for name, flags in runners.items():
        out = folder / "out"
        words = ["convert", "-i", str(inputs["cifar10"]), "-f", target, "-o", str(out)]
        words += [word.format(other=inputs["cifar100"]) for word in ORDERS[order]]
        code = run([*words, *flags, *(("--save-images",) if target == "cifar" else ())])
        made[name] = {"exit code": str(code)} if code else tree(folder)  # some formats refuse what others take
        shutil.rmtree(folder, ignore_errors=True)
    first, *others = made.values()
    other = [name for name, each in zip(list(made)[1:], others, strict=True) if each != first]
    print(f"{target}: {order}: {', '.join(other) + ' differ' if other else 'same'}", flush=True)
    yield from ("same" if each == first else "differ" for each in others)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
