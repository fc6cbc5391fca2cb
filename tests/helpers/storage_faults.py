"""Jobs whose storage fails at one system call, or that are killed there; tried at every call of a job.

    python -m tests.helpers.storage_faults [SCENARIO ...] [--every N]

A job that has imported all that it needs is forked for every trial; `failing_calls.c`, which is loaded into it, lets one
call fail. Prints a table of calls, then one of failures with the call and what was wrong.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import errno
import functools
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from beam_cifar import Dataset, convert, make_sample
from beam_cifar.cli.main import main as beam_cifar
from beam_cifar.errors import BeamCifarError
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import Job
from beam_cifar.pipeline.errors import carried, explained

SOURCE = Path(__file__).with_name("failing_calls.c")
FAULTS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "EDQUOT", "EINTR", "ESTALE")}
FAULTS |= {"killed before": 0, "killed after": -1}
KILLED = -signal.SIGKILL
SECONDS = 60

State = dict[str, str] | None
"""The digest of every file at a place, by its path; None if nothing is there."""


@dataclass(frozen=True)
class Scenario:
    """What is disturbed.

    Attributes:
        command: of the command line, without its input and output; "save" saves a changed dataset in place.
        older: the command that made the output which is there before; none if empty.
        left_by: the command that was killed before, and how much of its calls it had made.
        again: what is added when the command is run again, alternately.
        runner: whether Beam runs the job.
    """

    command: str
    older: str = ""
    left_by: tuple[str, float] | None = None
    again: tuple[str, ...] = ("--resume", "--overwrite")
    runner: bool = False


PARQUET, CIFAR, IMAGENET = "convert -f parquet", "convert -f cifar --save-images --images-per-batch 30", "convert -f imagenet --limit 12"
OVER = " --overwrite"
SCENARIOS = {
    "convert to parquet": Scenario(PARQUET),
    "convert to cifar": Scenario(CIFAR),
    "convert to imagenet": Scenario(IMAGENET),
    "overwrite with parquet": Scenario(PARQUET + OVER, IMAGENET),
    "overwrite with cifar": Scenario(CIFAR + OVER, PARQUET),
    "overwrite with imagenet": Scenario(IMAGENET + OVER, PARQUET),
    "save cifar": Scenario("save", "convert -f cifar --save-images", again=("",)),
    "save imagenet": Scenario("save", IMAGENET, again=("",)),
    "resume parquet": Scenario(PARQUET + " --resume", left_by=(PARQUET, 0.5)),
    "resume cifar": Scenario(CIFAR + OVER + " --resume", PARQUET, left_by=(CIFAR + OVER, 0.6)),
    "resume imagenet": Scenario(IMAGENET + " --resume", left_by=(IMAGENET, 0.5)),
    "clean, half converted": Scenario("clean", PARQUET, left_by=(CIFAR + OVER, 0.6), again=("",)),
    "clean, nothing there": Scenario("clean", left_by=(IMAGENET, 0.6), again=("",)),
    "clean, between the renames": Scenario("clean", PARQUET, left_by=(CIFAR + OVER, -1), again=("",)),
    "clean, without its manifest": Scenario("clean", PARQUET, left_by=(CIFAR + OVER, -2), again=("",)),
    "convert by Beam": Scenario(CIFAR + " --workers 1", runner=True),
    "overwrite by Beam": Scenario(PARQUET + OVER + " --workers 1", IMAGENET, runner=True),
}


@dataclass(frozen=True)
class Call:
    """A system call that concerns the job's files, and where: names that differ from run to run are shortened."""

    kind: str
    place: str

    @classmethod
    def of(cls, line: str) -> Call:
        """From a line of the log."""
        kind, _, path = line.lstrip("!").partition(" /")
        path = path.removesuffix(" (deleted)")
        path = re.sub(r"^((?:out\.beam_cifar/(?:work-\w+/tree|replaced[.\w]*))|out|in)/.*", r"\1/*", path)
        return cls(kind, re.sub(r"[0-9a-f]{8,}|(?<=beam_cifar-)\w{8}", "*", path))


@dataclass(frozen=True)
class Trial:
    """One run of a scenario with one fault.

    Attributes:
        call: that was struck; None if the run had fewer calls.
        problem: what was wrong; "" if nothing.
    """

    number: int
    fault: str
    call: Call | None
    code: int
    problem: str


class Failing:
    """The library of `failing_calls.c`, as this process has loaded it."""

    def __init__(self, log: Path) -> None:
        self._arm = ctypes.CDLL(os.environ["LD_PRELOAD"]).arm
        self._log = log

    def arm(self, folder: Path, number: int, fault: int) -> None:
        """Lets call `number` of this process that concerns a folder fail; none if 0."""
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        self._arm(os.fsencode(folder), ctypes.c_long(number), fault, log)

    def calls(self) -> list[str]:
        """The calls of the last process that was armed, up to the one struck."""
        return self._log.read_text(errors="replace").splitlines()


class Place:
    """The folder of a scenario: `w` has the input, the output, and temporary files; beside it is what trials say."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.watched, self._said, self._kept = folder / "w", folder / "said", folder / "kept"
        self.tmp, self.out = self.watched / "tmp", self.watched / "out"
        self.beside = self.watched / "out.beam_cifar"
        self._scenario, self._failing = scenario, Failing(folder / "calls")
        self.watched.mkdir(parents=True)
        make_sample(str(self.watched / "in"), kind="cifar10", images=60, seed=1)
        self.tmp.mkdir()
        if scenario.older:
            self.must(scenario.older)
        if scenario.command == "save":
            (self.out / "notes").mkdir()
            (self.out / "notes" / "own.txt").write_text("not part of the dataset")
        self.old = self.state()
        if scenario.left_by:
            self._leave(*scenario.left_by)
        for path in (self.out, self.beside):
            if path.exists():
                shutil.copytree(path, self._kept / path.name)
        self.must(scenario.command)
        self.count = len(self._failing.calls())
        self.calls = [Call.of(line) for line in self._failing.calls()]
        self.new = self.state()
        self.reset()

    def _leave(self, command: str, share: float) -> None:
        """Kills a job when it has made a share of its calls; -1: after the first rename of the output, -2: the second."""
        shutil.copytree(self.watched, self._kept / "w")
        self.must(command)
        lines = self._failing.calls()
        renames = [n for n, line in enumerate(lines, 1) if line in ("rename /out.beam_cifar/replaced", "rename /out")]
        shutil.rmtree(self.watched / "out")
        shutil.rmtree(self.watched / "out.beam_cifar")
        for name in ("out", "out.beam_cifar"):
            if (self._kept / "w" / name).exists():
                shutil.copytree(self._kept / "w" / name, self.watched / name)
        shutil.rmtree(self._kept)
        number = renames[int(-share) - 1] if share < 0 else int(share * len(lines))
        assert self.run(command, number, -1) == KILLED

    def reset(self) -> None:
        """Puts back what is there before a trial."""
        for path in (self.out, self.beside, self.tmp):
            shutil.rmtree(path, ignore_errors=True)
            if (self._kept / path.name).exists():
                shutil.copytree(self._kept / path.name, path)
        self.tmp.mkdir()

    def must(self, command: str) -> None:
        """Runs a command that must succeed."""
        code = self.run(command, 0)
        assert code == 0, f"{command}: exit code {code}: {self.said()}"

    def run(self, command: str, number: int, fault: int = 0) -> int:
        """Runs a command in a process of its own, whose call `number` fails; returns its exit code."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 70
        try:
            signal.alarm(SECONDS)
            said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(said if stream == 2 else os.open(os.devnull, os.O_WRONLY), stream)
            tempfile.tempdir = os.environ["TMPDIR"] = str(self.tmp)
            self._failing.arm(self.watched, number, fault)
            code = self._do(command)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                atexit._run_exitfuncs()
                sys.stderr.flush()
            os._exit(code)

    def _do(self, command: str) -> int:
        if command == "save":
            return save(self.out)
        verb, *flags = command.split()
        places = ["-i", str(self.watched / "in"), "-o", str(self.out)] if verb == "convert" else [str(self.out)]
        if self._scenario.runner:
            return beam_cifar([verb, *places, *flags])
        with mock.patch("beam_cifar.pipeline.convert.start", without_runner):
            return beam_cifar([verb, *places, *flags])

    def said(self) -> str:
        """What the last process printed to standard error."""
        return self._said.read_text(errors="replace")

    def state(self) -> tuple[State, State]:
        """The output, and what lies beside it."""
        return digests(self.out), digests(self.beside)

    def attempt(self, number: int, name: str) -> Trial:
        """Runs the command with one fault, then without, and looks at what is there after each."""
        fault = FAULTS[name]
        code = self.run(self._scenario.command, number, fault)
        last = self._failing.calls()[-1]
        if not last.startswith("!"):
            return Trial(number, name, None, code, "" if self.state() == self.new else "not as undisturbed")
        call = Call.of(last)
        try:
            self._check_process(code, fault, call)
            self._check_output(code, fault)
            self._check_again(number)
            problem = ""
        except AssertionError as error:
            problem = str(error).strip()
        self.reset()
        return Trial(number, name, call, code, problem)

    def _check_process(self, code: int, fault: int, call: Call) -> None:
        said = self.said()
        if fault <= 0:
            assert code == KILLED, f"exit code {code} instead of a kill: {said}"
            return
        assert "Traceback" not in said, f"a traceback: {said.strip().splitlines()[-1]}"
        lines = [line for line in said.splitlines() if not line.startswith(("beam-cifar: note: ", "WARNING:beam_cifar:"))]
        assert len(lines) == (code != 0), f"exit code {code} with {len(lines)} lines: {said}"
        assert all(line.startswith("beam-cifar: error: ") for line in lines), f"not our own words: {said}"
        reads = call.kind in ("list", "open to read", "read")
        is_input = call.place.startswith("in") or (self._scenario.command == "save" and reads and "out.b" not in call.place)
        assert code in ((0, 1, 3) if is_input else (0, 1)), f"exit code {code}: {said}"

    def _check_output(self, code: int, fault: int) -> None:
        """The output is the old or the new one, with its manifest; only a kill may leave steps of publishing undone."""
        there, beside = self.state()
        manifest = (beside or {}).get("manifest.json")
        new, old = (self.new[0], (self.new[1] or {}).get("manifest.json")), (self.old[0], (self.old[1] or {}).get("manifest.json"))
        assert code or self._scenario.command == "clean" or (there, manifest) == new, f"exit code 0, but {self._shown()}"
        if (there, manifest) in (new, old):
            return
        assert fault <= 0 or self._scenario.left_by, f"after an error {self._shown()}"
        assert manifest is None, f"a manifest of something else: {self._shown()}"
        assert there in (new[0], old[0], None), f"neither the old nor the new output: {self._shown()}"
        if there is None and old[0]:
            assert digests(self.beside / "replaced") == old[0], f"the old output is lost: {self._shown()}"

    def _check_again(self, number: int) -> None:
        command, flag = self._scenario.command, self._scenario.again[number % len(self._scenario.again)]
        if command == "save":
            self._must_again("clean")
        if command != "save" or self.state()[0] != self.new[0]:
            self._must_again(command if flag in command.split() else f"{command} {flag}".strip())
        assert self.state() == self.new, f"after the rerun: {self._shown()}"
        left = [path.name for path in self.tmp.iterdir()]
        assert not left, f"left in the temporary folder: {left}"

    def _must_again(self, command: str) -> None:
        """Runs a command undisturbed after a trial."""
        code = self.run(command, 0)
        assert code == 0, f"rerun ({command}) exit code {code}: {self.said()[-300:]}"

    def _shown(self) -> str:
        names = {None: "nothing", **{}}
        there, beside = self.state()
        what = "nothing" if there is None else "new" if there == self.new[0] else "old" if there == self.old[0] else f"other ({len(there)} files)"
        extra = sorted(Call.of(f"x /out.beam_cifar/{name}").place.split("/", 1)[1] for name in beside or {} if name not in (self.new[1] or {}))
        mine = (beside or {}).get("manifest.json")
        manifest = "no" if mine is None else "new" if mine == (self.new[1] or {}).get("manifest.json") else "old" if mine == (self.old[1] or {}).get("manifest.json") else "another"
        return f"{what} output with {manifest} manifest, beside it {sorted(set(extra))}"


def digests(folder: Path) -> State:
    """The digest of every file below a folder."""
    if not folder.is_dir():
        return None
    return {
        os.path.relpath(os.path.join(path, name), folder): hashlib.sha256(Path(path, name).read_bytes()).hexdigest()
        for path, _, names in os.walk(folder)
        for name in names
    }


def without_runner(job: Job, beam_options: object = None) -> None:
    """Runs a job one task after another, its errors known as they are when Beam runs it."""
    with explained(), carried():
        serial.run(job)


def save(folder: Path) -> int:
    """Removes an item of a dataset and saves it in place; as the command line says why not, and its exit code."""
    try:
        with mock.patch("beam_cifar.pipeline.convert.start", without_runner):
            dataset = Dataset.import_from(folder)
            first = next(iter(dataset))
            dataset.remove(first.id, first.subset).save()
    except BeamCifarError as error:
        print(f"beam-cifar: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def trials(place: Place, every: int) -> Iterator[Trial]:
    """Yields trials of every call with every fault, or of each `every`-th of these."""
    pairs = [(number, name) for number in range(1, place.count + 1) for name in FAULTS]
    for number, name in pairs[:: every]:
        yield place.attempt(number, name)


def build(folder: Path) -> Path:
    """Compiles the library. Raises `RuntimeError`."""
    library = folder / "failing_calls.so"
    made = subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return library


def main() -> int:
    """Runs what the command line asks for; returns 1 if anything was wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try each N-th pair of call and fault; default: 1")
    arguments = parser.parse_args()
    if "LD_PRELOAD" in os.environ:
        return run(arguments.scenarios or list(SCENARIOS), arguments.every, Path(os.environ["LD_PRELOAD"]).parent)
    with tempfile.TemporaryDirectory(prefix="storage-faults-") as folder:  # not in the process that is forked
        command = [sys.executable, "-m", "tests.helpers.storage_faults", *sys.argv[1:]]
        environment = {**os.environ, "LD_PRELOAD": str(build(Path(folder)))}
        return subprocess.run(command, env=environment, check=False).returncode


def run(names: Sequence[str], every: int, folder: Path) -> int:
    """Runs scenarios, and prints what was found."""
    warm()
    failed = 0
    for at, name in enumerate(names):
        place = Place(folder / str(at), SCENARIOS[name])
        kinds = Counter(call.kind for call in place.calls)
        done = list(trials(place, every))
        wrong = [trial for trial in done if trial.problem]
        failed += len(wrong)
        codes = Counter(trial.code for trial in done)
        print(f"| {name} | {place.count} | {len(done)} | {len(wrong)} | {dict(kinds)} {dict(codes)}", flush=True)
        grouped: dict[tuple[str, str, str], list[Trial]] = {}
        for trial in wrong:
            reason = re.sub(r"\S*/w/\S+|[0-9a-f]{8,}|(?<=temp)\w{8}|(?<=beam_cifar-)\w{8}|part \\d+|data_batch_\\d|test_batch|(?:(?<=: )|(?<=\\] ))[A-Z][a-z ,/-]*(?=$|: )|(?<=Errno )\\d+|\\w+Error", "*", trial.problem.strip())
            grouped.setdefault((trial.call.kind, re.sub("[0-9]{6}", "N", trial.call.place), reason), []).append(trial)
        for (kind, place_, reason), group in grouped.items():
            print(f"    {len(group)} {kind} {place_}: {reason!r} e.g. {group[0].number} {group[0].fault}: {group[0].problem.strip()!r}", flush=True)
    return 1 if failed else 0


def warm() -> None:
    """Imports what jobs need, and sets parts so small that a shard has several."""
    import PIL.Image  # noqa: F401
    import lxml.etree  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    for target in ("cifar", "imagenet"):
        sink = get_sink(target)
        type(sink).can = replace(sink.can, part_bytes=30_000)
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
