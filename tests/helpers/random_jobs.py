"""Random jobs, and ways to run them that must not change what they write.

    python -m tests.helpers.random_jobs 4711        # runs the job of a seed in several ways, and shrinks it if they differ

A job is made from a seed alone. Each way runs it with other workers, in another mode of the runner or without one, in
another folder, and in a process with another hash seed, locale, time zone and umask.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import IO, Any
from unittest import mock

from beam_cifar import make_sample
from beam_cifar.formats.registry import FORMATS, get_sink
from tests.helpers import ROOT
from tests.helpers.image_trees import converted, encoded, picture, write_tree

SECONDS = 900
"""Until a run that does not end counts as a difference."""

WRITERS = [name for name, entry in FORMATS.items() if entry.sink]
READERS = [name for name in WRITERS if FORMATS[name].source]
CLASSES = {"cifar10": ("cat", "dog"), "cifar100": ("tiger", "girl"), "mixed": ("ant", "café")}
SUBSETS = {"cifar10": ("data_batch_1", "test_batch"), "cifar100": ("train", "test"), "mixed": ("train", "val")}
SIZES = {"mnist": 28, "mnist_csv": 28}
TRANSFORMS = (
    "filter -e '/item[annotation/label=\"{a}\"]'",
    "filter -e '/item/annotation[label!=\"{b}\"]' -m i+a",
    "dedupe",
    "dedupe --scope subset",
    "sort --by label --by size --reverse",
    "sort --by subset --by filename",
    "shuffle",
    "shuffle --seed {n}",
    "rename -e '|_s_|-|'",
    "rename -e '|.*(.)|same\\1|'",
    "reindex -s {n}",
    "map_subsets -s {first}:new -s {second}:",
    "random_split --seed {n}",
    "random_split -s train:.5 -s val:.25 -s test:.25 --seed {n}",
    "split -s train:.8 -s test:.2 --seed {n}",
    "random_sampler -k 40 --seed {n}",
    "label_random_sampler -k 2 --seed {n}",
    "remove_annotations",
    "id_from_image_name -u",
    "remap_labels -l {a}:new -l {b}: --default delete",
    "project_labels -l {b} -l other -l {a}",
    "fine_to_coarse",
    "compact_labels",
    "resize -dw 20 -dh 12",
    "crop -dw 8 -dh 6",
    "grayscale",
)
OPTIONS: tuple[tuple[float, str], ...] = (
    (0.8, "--save-images"),
    (0.3, "--resize 28x28"),
    (0.2, "-e '/item[annotation/label=\"{a}\" or id > 3]'"),
    (0.1, "-e '/item/annotation[label=\"{a}\"]' --filter-mode items+annotations"),
    (0.1, "--label {a} --label {b}"),
    (0.1, "--remap {a}:{b}"),
    (0.1, "--limit {n}"),
    (0.1, "--subset {second}"),
    (0.1, "--subsets split"),
    (0.1, "--subsets source"),
    (0.2, "--compact-labels"),
    (0.2, "--keep-empty-classes"),
    (0.1, "--merge {other} --on-clash suffix"),
    (0.1, "--merge {other} --on-clash first"),
)
"""How often each is in a job."""


@dataclass(frozen=True)
class Job:
    """What is converted, and how: all that may change the bytes.

    Attributes:
        seed: what it was made from.
        source: name of a dataset in `Inputs`.
        target: the output format.
        options: further ones of `convert`, in groups that `shrunk` leaves out; `{NAME}` is another dataset.
    """

    seed: int
    source: str
    target: str
    options: tuple[tuple[str, ...], ...] = ()

    @property
    def inputs(self) -> set[str]:
        """All datasets that it reads."""
        return {self.source, *(word[1:-1] for group in self.options for word in group if word.startswith("{"))}


def make_job(seed: int) -> Job:
    """The job of a seed."""
    rng = Random(seed)
    kind = rng.choice(list(CLASSES))
    kept = ["", *(f"-{name}" for name in READERS), *[".tar.gz"] * (kind != "mixed")]
    names = dict(zip(("a", "b", "first", "second"), CLASSES[kind] + SUBSETS[kind], strict=True))

    def words(text: str) -> tuple[str, ...]:
        drawn = {"n": rng.randrange(1, 100), "few": rng.choice((7, 25, 1000))}
        other = f"{{{rng.choice(list(CLASSES))}}}"
        # Replaced, because an expression may hold braces of its own.
        return tuple(
            re.sub(r"\{(\w+)\}", lambda at: str({**names, **drawn, "other": other}[at[1]]), word)
            for word in shlex.split(text)
        )

    target = rng.choice(WRITERS)
    can = get_sink(target).can
    options = [words(text) for often, text in OPTIONS if rng.random() < often]
    options += [words("--images-per-batch {few}")] * (can.packs and rng.random() < 0.8)
    options += [words("--image-ext .jpg")] * (can.many_files and rng.random() < 0.2)
    options += [("--transform", shlex.join(words(rng.choice(TRANSFORMS)))) for _ in range(rng.randrange(4))]
    if can.pixels and rng.random() < 0.95:  # one size for all
        options.append(("--transform", f"resize -dw {SIZES.get(target, 32)} -dh {SIZES.get(target, 32)}"))
    return Job(seed, kind + rng.choice(kept), target, tuple(options))


class Inputs:
    """The datasets that jobs read, made when they are first wanted, and copied to where they are read.

    Args:
        folder: a new folder for them.
    """

    def __init__(self, folder: Path) -> None:
        self._made, self._copies, self._making = folder / "made", itertools.count(), threading.RLock()
        self._made.mkdir(parents=True)

    def original(self, name: str) -> Path:
        """The path of a dataset such as `cifar10`, `cifar10.tar.gz` or `cifar10-parquet`."""
        with self._making:
            return self._original(name)

    def _original(self, name: str) -> Path:
        path = self._made / name
        kind, _, target = name.partition("-")
        if path.exists():
            return path
        if target:
            size = {"resize": (32, 32)} if get_sink(target).can.one_size and kind == "mixed" else {}
            with _without_runner():
                converted(self.original(kind), path, target, save_images=True, **size)
        elif name == "mixed":
            write_tree(path, dict(_mixed()))
        else:
            kind, _, packed = name.partition(".")
            make_sample(str(path), kind=kind, images=90, seed=3, tar=bool(packed))
        return path

    def copy(self, name: str, folder: Path) -> Path:
        """Copies a dataset into a folder, its files in random order, which is how a file system may list them."""
        source, target = self.original(name), folder / name
        if source.is_file():
            return Path(shutil.copy(source, target))
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        Random(next(self._copies)).shuffle(paths)
        for path in paths:
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
        return target


def _mixed() -> Iterator[tuple[str, bytes]]:
    """Images of several sizes and modes, PNG and JPEG, some of them duplicates, below subsets and classes."""
    for number in range(72):
        subset, name = ("train", "train", "val")[number % 3], ("ant", "bee", "café", "gnu")[number // 3 % 4]
        size = (8 + number % 5 * 6, 9 + number % 7 * 4)
        jpeg = number % 6 == 3
        data = encoded(picture(number % 60, *size, channels=1 if number % 9 == 4 else 3), "JPEG" if jpeg else "PNG")
        yield f"{subset}/{name}/{number:03d}{'.jpg' if jpeg else '.png'}", data


@contextmanager
def _without_runner() -> Iterator[None]:
    from beam_cifar.jobs import serial

    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        yield


SERIAL = "serial"
MODES = ("", "", "", "in_memory", "in_memory", "multi_threading", "multi_threading", "multi_processing")
"""Of the local runner, the default among them; the last starts processes, which takes ten times as long."""


@dataclass(frozen=True)
class Way:
    """How a job is run, within a process.

    Attributes:
        flags: of the runner; `SERIAL` alone is `jobs/serial.py`.
        place: one of `PLACES`.
        relative: whether its paths are relative to the current folder.
    """

    flags: tuple[str, ...]
    place: str = "disk"
    relative: bool = False


PLACES = ("disk", "memory", "link")
"""The temporary folder, a file system in memory, and the temporary folder through a symbolic link."""


def make_way(rng: Random, modes: Sequence[str] = (SERIAL, SERIAL, *MODES)) -> Way:
    """A random way."""
    mode = rng.choice(modes)
    flags = [SERIAL]
    if mode != SERIAL:
        flags = ["--workers", str(rng.randint(1, 3)), *[f"--direct_running_mode={mode}"] * bool(mode)]
        flags += ["--direct_runner_bundle_repeat=1"] * (rng.random() < 0.25)
    return Way(tuple(flags), rng.choice(PLACES), rng.random() < 0.5)


@dataclass(frozen=True)
class Surroundings:
    """What a process is born with.

    Attributes:
        umask: of the process.
        variables: of its environment, that others lack or have with another value.
    """

    umask: int = 0o022
    variables: dict[str, str] = field(default_factory=dict)


def make_surroundings(rng: Random) -> Surroundings:
    """Random surroundings."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    variables = {
        "PYTHONHASHSEED": str(rng.randrange(1000)),
        "LC_ALL": rng.choice(["C", "C.UTF-8", *({"de_DE.utf8", "tr_TR.utf8"} & set(known))]),
        "TZ": rng.choice(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
        "COLUMNS": rng.choice(["40", "200"]),
        "HOME": rng.choice(["/", "/nowhere"]),
        "SOURCE_DATE_EPOCH": rng.choice(["0", "1700000000"]),
    }
    return Surroundings(rng.choice([0o022, 0o077, 0o002]), variables)


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        code: exit code.
        said: what it printed, without paths and times.
        files: the digest of each file, "" for a folder, and of the manifest; with the mode where the umask does not
            explain it.
    """

    code: int
    said: str
    files: dict[str, str]

    def differences(self, other: Outcome) -> list[str]:
        """One line for each difference."""
        lines = [f"exit code {self.code} became {other.code}"] * (self.code != other.code)
        lines += [f"{self.said!r} became {other.said!r}"] * (self.said != other.said)
        names = sorted(self.files.keys() | other.files.keys(), key=lambda name: (".beam_cifar/" in name, name))
        changed = [name for name in names if self.files.get(name) != other.files.get(name)]
        return lines + [f"{name}: {self.files.get(name)} became {other.files.get(name)}" for name in changed[:5]]


@dataclass(frozen=True)
class Sizes:
    """How large a process is: resident memory in MB, open file descriptors, threads."""

    rss: int
    fds: int
    threads: int

    @classmethod
    def of(cls, process: int) -> Sizes:
        """Looks at a process, on Linux."""
        proc = Path("/proc") / str(process)
        pages = int((proc / "statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGESIZE") >> 20, *(len(os.listdir(proc / name)) for name in ("fd", "task")))


class EndedError(Exception):
    """A process died, or had to be killed, instead of giving an answer."""


class Process:
    """A process that runs one job after another, until it is closed; a context manager.

    Attributes:
        surroundings: those it was born with.
        sizes: after each job.
    """

    def __init__(self, surroundings: Surroundings, log: Path) -> None:
        self.surroundings, self.sizes = surroundings, list[Sizes]()
        self._log, self._turn = log.open("ab"), threading.Lock()
        command = [sys.executable, "-m", "tests.helpers.random_jobs", "--serve"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, **_born(surroundings, ROOT)
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with self._log, self._process:
            self._process.stdin.close()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def run(self, arguments: list[str], folder: Path, serial: bool) -> tuple[int, str]:
        """Runs a command; returns its exit code and what it printed."""
        with self._turn:
            return self._run(arguments, folder, serial)

    def _run(self, arguments: list[str], folder: Path, serial: bool) -> tuple[int, str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        watch = threading.Timer(SECONDS, self._process.kill)
        watch.start()
        stdin.write(json.dumps([arguments, str(folder), serial]).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        watch.cancel()
        if not line:
            code = self._process.wait()
            raise EndedError(f"the process of jobs ended with {code} in {shlex.join(arguments)}; see {self._log.name}")
        code, said = json.loads(line)
        self.sizes.append(Sizes.of(self._process.pid))
        return code, said


class Fresh:
    """Runs each job in a process of its own; the same face as `Process`."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings

    def run(self, arguments: list[str], folder: Path, serial: bool) -> tuple[int, str]:
        """Runs a command; returns its exit code and what it printed."""
        assert not serial
        command = [sys.executable, "-m", "beam_cifar", *arguments]
        born = _born(self.surroundings, folder)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **born)
        except subprocess.TimeoutExpired as error:
            raise EndedError(f"no end of {shlex.join(arguments)} in {SECONDS} s") from error
        return done.returncode, done.stdout + done.stderr


def _born(surroundings: Surroundings, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **surroundings.variables}
    return {"env": environment, "umask": surroundings.umask, "cwd": folder}


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Is the process of `Process`."""
    from beam_cifar.cli.main import main

    for line in requests:
        arguments, folder, serial = json.loads(line)
        os.chdir(folder)
        with _without_runner() if serial else nullcontext(), _captured() as said:
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except Exception as unexpected:
                code = 70
                print(f"{type(unexpected).__name__}: {unexpected}")
        os.chdir("/")
        gc.collect()
        print(json.dumps([code, "".join(said)]), file=answers, flush=True)


@contextmanager
def _captured() -> Iterator[list[str]]:
    """What is written to the descriptors of standard output and standard error meanwhile, one text each."""
    said: list[str] = []
    kept = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        for number, file in enumerate((output, error), 1):
            os.dup2(file.fileno(), number)
        try:
            yield said
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, file in enumerate((output, error), 1):
                os.dup2(kept[number - 1], number)
                os.close(kept[number - 1])
                file.seek(0)
                said.append(file.read().decode(errors="replace"))


class Runs:
    """Runs jobs in random ways, in folders of its own; a context manager that removes them."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="random-jobs-"))
        real = Path(tempfile.mkdtemp(prefix="random-jobs-", dir=memory if memory.is_dir() else None))
        self._places = {"disk": self.folder / "disk", "memory": real, "link": self.folder / "link" / "inside"}
        (self.folder / "behind" / "inside").mkdir(parents=True)
        (self.folder / "link").symlink_to(self.folder / "behind")
        self._places["disk"].mkdir()
        self.inputs = Inputs(self.folder / "inputs")

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in (self.folder, self._places["memory"]):
            shutil.rmtree(folder)

    def run(self, job: Job, way: Way, process: Process | Fresh) -> Outcome:
        """Runs a job in a new folder, and looks at what it wrote."""
        folder = self._places[way.place] / str(next(self._numbers))
        folder.mkdir()
        try:
            paths = {name: str(self.inputs.copy(name, folder)) for name in job.inputs}
            if way.relative:
                paths = {name: os.path.basename(path) for name, path in paths.items()}
            serial = way.flags == (SERIAL,)
            arguments = _arguments(job, paths, "out" if way.relative else str(folder / "out"))
            arguments += [] if serial else way.flags
            code, said = process.run(arguments, folder if way.relative else Path("/"), serial)
            return Outcome(code, _plain(said, folder), _state(folder, process.surroundings.umask))
        finally:
            shutil.rmtree(folder)


def _arguments(job: Job, paths: dict[str, str], output: str) -> list[str]:
    options = [paths[word[1:-1]] if word.startswith("{") else word for group in job.options for word in group]
    return ["convert", "-i", paths[job.source], "-f", job.target, "-o", output, *options]


def _plain(said: str, folder: Path) -> str:
    for path in sorted({str(folder), str(folder.resolve())}, key=len, reverse=True):
        said = said.replace(f"{path}/", "")
    said = re.sub(r"[\d.,]+ s \([\d,.]+ images/s\)", "<time>", said)
    return re.sub(r"\s+", " ", said)  # lines are broken at COLUMNS


def _state(folder: Path, umask: int) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] not in ("out", "out.beam_cifar"):
            continue
        # What a job notes of its inputs for `--resume` are their inodes and times.
        notes = path.match("out.beam_cifar/inputs-*.json")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() and not notes else ""
        mode, usual = path.stat().st_mode & 0o777, 0o777 if path.is_dir() else 0o666
        found[str(name)] = digest if mode == usual & ~umask else f"{digest} {mode:03o} at umask {umask:03o}"
    return found


def shown(job: Job, way: Way, process: Process | Fresh) -> str:
    """A command that runs a job in a way; datasets stand in the current folder."""
    paths = {name: name for name in job.inputs}
    variables = " ".join(f"{name}={value}" for name, value in process.surroundings.variables.items())
    serial = way.flags == (SERIAL,)
    command = shlex.join(["beam-cifar", *_arguments(job, paths, "out"), *(() if serial else way.flags)])
    note = f"{way.place}{', without a runner' * serial}{', relative paths' * way.relative}"
    return f"umask {process.surroundings.umask:03o}; {variables} {command}   # {note}"


def shrunk(job: Job, runs: Runs, pairs: Sequence[tuple[Way, Process | Fresh]]) -> Job:
    """The job with as few options as still give different outcomes in two ways."""

    def differs(tried: Job) -> bool:
        one, other = (runs.run(tried, *pair) for pair in pairs)
        return one != other

    for group in job.options:
        fewer = replace(job, options=tuple(each for each in job.options if each is not group))
        if differs(fewer):
            job = fewer
    return job


def explained(job: Job, runs: Runs, first: tuple[Way, Process | Fresh], second: tuple[Way, Process | Fresh]) -> str:
    """Commands that show a difference again, with fewer options if that is possible."""
    job = shrunk(job, runs, (first, second))
    again = runs.run(job, *first).differences(runs.run(job, *second)) or ["it did not show again"]
    lines = [f"seed {job.seed}, input {job.source}", shown(job, *first), shown(job, *second), *again]
    return "\n    ".join([*lines, f"python -m tests.helpers.random_jobs {job.seed}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="*", metavar="SEED")
    parser.add_argument("--ways", type=int, default=6, metavar="N", help="how often each job is run; default: 6")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what prints to the descriptor does not mix with answers
        _serve(sys.stdin, answers)
        return 0
    different = 0
    with Runs() as runs:
        for seed in arguments.seeds:
            job, rng = make_job(seed), Random(seed)
            with (
                Process(make_surroundings(rng), runs.folder / "log") as first,
                Process(make_surroundings(rng), runs.folder / "log") as second,
            ):
                base = (Way((SERIAL,)), first)
                expected = runs.run(job, *base)
                print(
                    f"seed {seed}: {shown(job, *base)}: exit code {expected.code}, {len(expected.files)} files; {expected.said}"
                )
                for number in range(1, arguments.ways):
                    other = (make_way(rng), (first, second)[number % 2])
                    if found := expected.differences(runs.run(job, *other)):
                        different += 1
                        print(*found, explained(job, runs, base, other), sep="\n", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
