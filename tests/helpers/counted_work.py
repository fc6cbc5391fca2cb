"""Counts what a job does, where it does it: rows read and decoded, bytes read and written, files opened.

    python -m tests.helpers.counted_work [CASE ...]    # a table of how the work of the cases in growth_cases.py grows

Jobs run in this process, one task after another, and are cut so small that a few hundred images are many tasks, files
and row groups. Work is counted where it is done: in `open`, in Arrow's reader, in the readers of rows, in staged files.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import fnmatch
import functools
import gc
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from beam_cifar.cli.main import main as beam_cifar
from beam_cifar.formats.contract.source import RowReader
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import Job
from beam_cifar.planning.plan import Plan
from beam_cifar.storage import gzip_index, staging, tar
from tests.helpers.growth_cases import CASES, Case, Inputs

IMAGES = 240
PER_FILE = 40
PER_OUTPUT = 20
"""So that a job has twice as many tasks as input files: 6 and 12, and 24 and 48 with four times the images."""
SIZES = {
    "beam_cifar.storage.gzip_index.MIN_CHUNK": 32 << 10,
    "beam_cifar.formats.contract.indexes.MIN_BYTES": 0,
    "beam_cifar.planning.moves.SPILL_BYTES": PER_FILE * 3072,
}
"""Sizes from which a job does things in several steps, made small with it."""
MOST = 1.25
"""How much the work per image may grow when there are four times as many. Less would be for the edges of parts, and for
what is read whenever a file is opened, which weigh much in parts of 20 rows; work for all rows in each part is 4."""
LITTLE = 0.2
"""Work per row or byte that does not matter: a manifest read again, the index of a `.tar.gz`, which each task reads."""
SMALL = 0.01
"""Share of the input that may be read by every task, such as the names of classes."""


@dataclass
class Counts:
    """What a job has done.

    Attributes:
        rows: rows that readers were asked for.
        decoded: rows that Arrow decoded with their images, and members of tar files that were looked at.
        read: bytes read from each input file, compressed ones as they are stored; without the footers of Parquet
            files, which are read whenever one is opened.
        opened: how often input files were opened.
        owners: pairs of an input file and a task that owns rows of it; where every image is a file, so many rows.
        written: bytes written, to the output and to the job's folder.
        again: bytes of these that were read again; what Arrow maps is not seen.
    """

    rows: int = 0
    decoded: int = 0
    read: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    owners: int = 0
    written: int = 0
    again: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Work:
    """Work of a job, independent of its size.

    Attributes:
        rows: rows that readers were asked for, per row of the input.
        decoded: rows decoded or looked at, per row of the input.
        read: bytes read, per byte of the input.
        most: the same of the kind of files that is read most, by suffix: a list of images is small beside them.
        opened: files opened, per pair of a file and a task that owns rows of it.
        written: bytes written, per byte of the output.
        again: bytes of these that were read again, per byte of the output.
    """

    rows: float
    decoded: float
    read: float
    most: float
    opened: float
    written: float
    again: float

    @classmethod
    def of(cls, counts: Counts, source: Path, output: Path, images: int) -> Work:
        """Returns the work of a job on an input of so many images."""
        sizes, made = get_files(source), sum(get_files(output).values())
        return cls(
            rows=counts.rows / images,
            decoded=counts.decoded / images,
            read=counts.read.total() / sum(sizes.values()),
            most=max(found / size for found, size in _by_kind(counts.read, sizes)),
            opened=counts.opened / counts.owners,
            written=counts.written / made,
            again=counts.again.total() / made,
        )

    def growth(self, larger: Work) -> dict[str, float]:
        """Returns how much each kind of work is greater in a larger job; work that is hardly done counts as `LITTLE`."""
        return {name: getattr(larger, name) / max(count, LITTLE) for name, count in vars(self).items()}


def get_files(path: Path) -> dict[str, int]:
    """Returns the sizes of the files in a folder, or of a file, by their paths."""
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file): file.stat().st_size for file in files if file.is_file()}


def _by_kind(read: Counter[str], sizes: dict[str, int]) -> Iterator[tuple[int, int]]:
    """Yields the bytes read and the bytes there are for each suffix of file names that has its share of the input."""
    kinds = {path: Path(path).suffix for path in sizes}
    for kind in set(kinds.values()):
        paths = [path for path in sizes if kinds[path] == kind]
        size = sum(sizes[path] for path in paths)
        if size >= SMALL * sum(sizes.values()):
            yield sum(read[path] for path in paths), size


@contextmanager
def counted(source: Path, output: Path) -> Iterator[Counts]:
    """Counts the work of a job in this process, with cold caches."""
    counts = Counts()
    forget()
    with ExitStack() as stack:
        patch = functools.partial(_patched, stack)
        patch(builtins, "open", functools.partial(_open, builtins.open, source, output, counts))
        patch(gzip_index, "open_gzip", functools.partial(_open_gzip, gzip_index.open_gzip))
        patch(RowReader, "table", _counted_table(RowReader.table, counts))
        patch(RowReader, "take", _counted_take(RowReader.take, counts))
        patch(pq.ParquetFile, "iter_batches", _counted_batches(pq.ParquetFile.iter_batches, counts))
        patch(tar, "tar_entries", _counted_members(tar.tar_entries, counts))
        patch(staging.StagedFile, "write", _counted_write(staging.StagedFile.write, counts))
        patch(staging, "_write_in_place", _counted_image(staging._write_in_place, counts))
        separate = source.is_dir() and len(get_files(source)) >= IMAGES
        patch(serial, "run", _counted_run(serial.run, counts, separate))
        stack.enter_context(mock.patch("beam_cifar.pipeline.convert.start", lambda job, options: serial.run(job)))
        yield counts


def _patched(stack: ExitStack, owner: Any, name: str, new: Any) -> None:
    """Replaces something wherever it was imported by name."""
    old = getattr(owner, name)
    for place in [owner, *(module for key, module in sys.modules.items() if key.startswith("beam_cifar."))]:
        if vars(place).get(name) is old:
            stack.enter_context(mock.patch.object(place, name, new))


def forget() -> None:
    """Empties all caches of the package: an earlier job in this process must not have done the work already."""
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper) and found.__module__.startswith("beam_cifar."):
            found.cache_clear()


class _CountedFile(io.FileIO):
    """A file whose bytes are counted as they are read."""

    def __init__(self, path: str, counts: Counter[str]) -> None:
        super().__init__(path, "rb")
        self.counts, self._end = counts, sys.maxsize
        if path.endswith(".parquet"):
            # 5 kB a row group, as statistics have an image: nothing for groups of megabytes, much for ours of 30 kB.
            self._end = self.seek(-8, io.SEEK_END) - int.from_bytes(super().read(4), "little")
            self.seek(0)

    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        count = super().readinto(buffer) or 0
        self.counts[self.name] += max(0, min(count, self._end - start))
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        data = bytearray(left if size is None or size < 0 else min(size, max(0, left)))
        return bytes(data[: self.readinto(data)])

    def readall(self) -> bytes:
        return self.read()


def _open(
    real: Any, source: Path, output: Path, counts: Counts, path: Any, mode: str = "r", *arguments: Any, **named: Any
) -> Any:
    inside = f"{path}/".startswith
    if mode != "rb" or not inside((f"{source}/", f"{output}/", f"{output}.beam_cifar/")):
        return real(path, mode, *arguments, **named)
    is_input = inside(f"{source}/")
    counts.opened += is_input
    file = _CountedFile(path, counts.read if is_input else counts.again)
    # Little is read ahead: 8 KiB would be several rows, and the more of them of use the denser they are in a small file.
    return file if named.get("buffering", arguments[0] if arguments else -1) == 0 else io.BufferedReader(file, 512)


class _AskedFile:
    """A file whose bytes are counted as they are asked for, without a number: rapidgzip would read from that, unseen.

    rapidgzip asks for 128 KiB wherever it starts, and so for more than a small file has left.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        before = self._file.tell()
        data: bytes = self._file.read(size)
        if isinstance(self._file, _CountedFile):
            self._file.counts[self._file.name] += size - (self._file.tell() - before)
        return data

    def __getattr__(self, name: str) -> Any:
        if name == "fileno":
            raise AttributeError(name)
        return getattr(self._file, name)


@contextmanager
def _open_gzip(real: Any, path: str, workers: int = 0, archive: Any = None) -> Iterator[Any]:
    with ExitStack() as stack:
        file = archive or stack.enter_context(open(path, "rb", 0))
        yield stack.enter_context(real(path, workers, _AskedFile(file)))


def _counted_table(real: Any, counts: Counts) -> Any:
    def table(self: RowReader, start: int, stop: int) -> Any:
        counts.rows += stop - start
        return real(self, start, stop)

    return table


def _counted_take(real: Any, counts: Counts) -> Any:
    def take(self: RowReader, rows: Sequence[int]) -> Any:
        counts.rows += len(rows)
        return real(self, rows)

    return take


def _counted_batches(real: Any, counts: Counts) -> Any:
    def iter_batches(self: pq.ParquetFile, *arguments: Any, columns: Any = None, **named: Any) -> Iterator[Any]:
        for batch in real(self, *arguments, columns=columns, **named):
            if any(name.startswith("img") or name.startswith("image") for name in columns or ()):
                counts.decoded += batch.num_rows
            yield batch

    return iter_batches


def _counted_members(real: Any, counts: Counts) -> Any:
    def tar_entries(stream: Any, size: int, shown: str) -> Iterator[tuple[str, int, int]]:
        for entry in real(stream, size, shown):
            counts.decoded += 1
            yield entry

    return tar_entries


def _counted_write(real: Any, counts: Counts) -> Any:
    def write(self: staging.StagedFile, data: Any) -> int:
        done: int = real(self, data)
        counts.written += done
        return done

    return write


def _counted_image(real: Any, counts: Counts) -> Any:
    def write_in_place(path: str, data: Any) -> None:
        counts.written += len(data)
        real(path, data)

    return write_in_place


def _counted_run(real: Callable[[Job], None], counts: Counts, has_file_for_each_image: bool) -> Any:
    def run(job: Job) -> None:
        pairs, rows = owners(job.plan, job.folder.rows), sum(task.rows for task in job.plan.tasks)
        counts.owners = max(pairs, rows) if has_file_for_each_image else pairs
        real(job)

    return run


def owners(plan: Plan, chosen: str) -> int:
    """Returns how many pairs there are of an input file and a task that owns rows of it."""
    count = sum(len({segment.file for segment in task.segments}) for task in plan.tasks)
    batches = [task.chosen for task in plan.tasks if task.chosen is not None]
    if batches:
        with pa.OSFile(chosen) as file:
            stored = pa.ipc.open_file(file)
            count += sum(len(stored.get_batch(number).column("file").unique()) for number in batches)
    return count


@contextmanager
def cut_small() -> Iterator[None]:
    """Cuts jobs into parts of `PER_OUTPUT` rows, where a file may have several."""
    with ExitStack() as stack:
        for name in {case.target for case in CASES}:
            sink = type(get_sink(name))
            if sink.can.part_bytes:
                small = replace(sink.can, part_bytes=PER_OUTPUT * 3072)
                stack.enter_context(mock.patch.object(sink, "can", small))
        for name, size in SIZES.items():
            stack.enter_context(mock.patch(name, size))
        yield


def run(command: Sequence[str]) -> None:
    """Runs beam-cifar in this process, without a runner."""
    with mock.patch("beam_cifar.pipeline.convert.start", lambda job, options: serial.run(job)):
        assert beam_cifar(list(command)) == 0, command


@dataclass
class Jobs:
    """Runs cases and counts their work.

    Attributes:
        folder: a folder for inputs, which cases share.
    """

    folder: Path

    def source(self, case: Case, times: int) -> Path:
        """Returns the input of a case."""
        return Inputs(self.folder, PER_FILE, run).path(case.layout, times * IMAGES)

    def work(self, case: Case, times: int, folder: Path) -> Work:
        """Returns the work of a case with so many times the images; its output goes to a new folder."""
        images, source = times * IMAGES, self.source(case, times)
        output = folder / f"out-{images}"
        command = ["convert", "-i", str(source), "-o", str(output), "--workers", "1"]
        with cut_small(), counted(source, output) as counts:
            run([*command, *case.options(images, PER_OUTPUT)])
        return Work.of(counts, source, output, images)

    def growth(self, case: Case, folder: Path) -> tuple[Work, Work]:
        """Returns the work of a case with n images and with 4 n."""
        return self.work(case, 1, folder), self.work(case, 4, folder)


def grown(first: Work, second: Work) -> dict[str, float]:
    """Returns the kinds of work that grow, and how much."""
    return {name: round(growth, 2) for name, growth in first.growth(second).items() if growth > MOST}


def main() -> int:
    """Prints a table; returns 1 if anything grows, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="patterns of names, such as 'read parquet*: shuffle'")
    patterns = parser.parse_args().cases or ["*"]
    chosen = [case for case in CASES if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]
    columns = list(Work.__annotations__)
    print(f"| case | {' | '.join(f'{name} at n | at 4 n' for name in columns)} | grows |")
    print("| --- " + "| ---: " * (2 * len(columns)) + "| --- |")
    failed = False
    with tempfile.TemporaryDirectory(prefix="counted-work-") as place:
        jobs = Jobs(Path(place))
        for case in chosen:
            with tempfile.TemporaryDirectory(dir=place) as folder, contextlib.redirect_stdout(io.StringIO()):
                first, second = jobs.growth(case, Path(folder))
            cells = [f"{getattr(each, name):.2f}" for name in columns for each in (first, second)]
            more = grown(first, second)
            told = ", ".join(f"{name} {growth:.1f} x" for name, growth in more.items())
            print(f"| {case.name} | {' | '.join(cells)} | {told} |", flush=True)
            failed |= bool(more)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
