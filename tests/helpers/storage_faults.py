"""Jobs whose storage fails at one system call, or at one request to an object store, or that are killed there.

    python -m tests.helpers.storage_faults [SCENARIO ...] [--trials N]

A process that has imported all that jobs need is forked for every trial, and `failing_calls.c`, which is loaded into it,
lets one call fail. Prints the table of docs/faults.md, and how to see again what was wrong.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import errno
import gc
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from beam_cifar import Dataset, make_sample
from beam_cifar.cli.main import main as beam_cifar
from beam_cifar.errors import BeamCifarError
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs import serial
from beam_cifar.jobs.prepare import Job
from beam_cifar.pipeline.errors import carried, explained
from beam_cifar.planning import moves
from beam_cifar.storage.stores import client
from tests.helpers import ROOT
from tests.helpers.image_trees import quickly
from tests.helpers.object_stores import Server, fake_gcs, find_binary, moto

PROGRESS = 500
"""Trials after which a line on standard error says how many were made."""
SOURCE = Path(__file__).with_name("failing_calls.c")
FAULTS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "EDQUOT", "EINTR", "ESTALE")}
FAULTS |= {"killed before": 0, "killed after": -1}
KILLED = -signal.SIGKILL
SECONDS = 60

State = dict[str, str]
"""The digest of every file of an output and of its job folder, by its path."""


@dataclass(frozen=True)
class Scenario:
    """What is disturbed.

    Attributes:
        command: a command without its input and output; "save" removes an item of a dataset and saves it in place.
        older: the command that made the output which is there before; none if empty.
        left_by: the command that was killed before, and after which call: a share of all, or a part of its log.
        again: what is added when the command is run again, alternately.
        on: "" for the local disk, or the scheme of an object store.
        source: format of the input; Parquet has groups of 20 rows.
    """

    command: str
    older: str = ""
    left_by: tuple[str, float | str] | None = None
    again: tuple[str, ...] = ("--resume", "--overwrite")
    on: str = ""
    source: str = "cifar"


PARQUET, CIFAR, IMAGENET = (
    "convert --workers 1 -f parquet",
    "convert --workers 1 -f cifar --save-images --images-per-batch 30",
    "convert --workers 1 -f imagenet --limit 12",
)
OVER, RESUME = " --overwrite", " --resume"
SHUFFLED = f"{CIFAR} --transform shuffle"
BY_BEAM = "by Beam"
SCENARIOS = {
    "convert to Parquet": Scenario(PARQUET),
    "convert to CIFAR, of several parts": Scenario(CIFAR),
    "convert to ImageNet folders": Scenario(IMAGENET),
    "overwrite with Parquet": Scenario(PARQUET + OVER, IMAGENET),
    "overwrite with CIFAR": Scenario(CIFAR + OVER, PARQUET),
    "overwrite with ImageNet folders": Scenario(IMAGENET + OVER, PARQUET),
    "save CIFAR in place": Scenario("save", "convert -f cifar --save-images", again=("",)),
    "save ImageNet folders in place": Scenario("save", IMAGENET, again=("",)),
    "resume Parquet": Scenario(PARQUET + RESUME, left_by=(PARQUET, 0.5)),
    "resume CIFAR over an older output": Scenario(CIFAR + OVER + RESUME, PARQUET, left_by=(CIFAR + OVER, 0.6)),
    "resume ImageNet folders": Scenario(IMAGENET + RESUME, left_by=(IMAGENET, 0.5)),
    "shuffle Parquet, through spills": Scenario(SHUFFLED, source="parquet"),
    "resume a shuffle of Parquet": Scenario(SHUFFLED + RESUME, left_by=(SHUFFLED, 0.4), source="parquet"),
    "clean, killed in convert": Scenario("clean", left_by=(IMAGENET, 0.6), again=("",)),
    "clean, killed in overwrite": Scenario("clean", PARQUET, left_by=(CIFAR + OVER, 0.6), again=("",)),
    "clean, killed between the renames": Scenario(
        "clean", PARQUET, left_by=(CIFAR + OVER, "rename /out.beam_cifar/replaced"), again=("",)
    ),
    "clean, killed before the manifest": Scenario("clean", PARQUET, left_by=(CIFAR + OVER, "rename /out"), again=("",)),
    f"convert to CIFAR, {BY_BEAM}": Scenario(CIFAR),
    f"overwrite with Parquet, {BY_BEAM}": Scenario(PARQUET + OVER, IMAGENET),
}
for _name, _scheme in (("S3", "s3"), ("GCS", "gs")):
    SCENARIOS |= {
        f"convert to Parquet on {_name}": Scenario(PARQUET, on=_scheme),
        f"overwrite with CIFAR on {_name}": Scenario(CIFAR + OVER, PARQUET, on=_scheme),
        f"resume ImageNet folders on {_name}": Scenario(IMAGENET + RESUME, left_by=(IMAGENET, 0.5), on=_scheme),
        f"shuffle Parquet on {_name}, through spills": Scenario(SHUFFLED, on=_scheme, source="parquet"),
        f"clean on {_name}": Scenario("clean", left_by=(PARQUET, 0.7), again=("",), on=_scheme),
    }

COLUMNS = {
    "create": ("create", "mkdir"),
    "write": ("write", "open to write", "truncate", "touch", "put", "upload", "copy"),
    "rename, link": ("rename", "link"),
    "sync, close, lock": ("sync", "close", "lock"),
    "list": ("list", "listing", "pending"),
    "remove": ("unlink", "rmdir", "delete", "abort"),
    "read": ("open to read", "read", "head", "fetch"),
}
READS = COLUMNS["list"] + COLUMNS["read"]


@dataclass(frozen=True)
class Call:
    """A call that concerns the job's files, and where: names that differ from run to run are shortened."""

    kind: str
    place: str

    @classmethod
    def of(cls, line: str) -> Call:
        """From a line of the log."""
        kind, _, path = line.lstrip("!").removesuffix(" (deleted)").partition(" /")
        path = re.sub(r"^(out\.beam_cifar/(?:work-\w+/tree|replaced[.\w]*)|out|in)/.*", r"\1/*", path)
        return cls(kind.strip(), re.sub(r"[0-9a-f]{8,}|(?<=beam_cifar-)\w{8}|(?<=temp)\w{8}", "*", path))

    def __str__(self) -> str:
        return f"{self.kind} {self.place}"


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
    problem: str


class Place:
    """The folder of a scenario: `w` has the input, the output, and temporary files; what trials print is beside it."""

    def __init__(self, folder: Path, scenario: Scenario, *, by_beam: bool) -> None:
        self._watched, self._said, self._log, self._kept = (folder / name for name in ("w", "said", "log", "kept"))
        self._tmp, self._out, self._by_beam = self._watched / "tmp", str(self._watched / "out"), by_beam
        self._scenario = scenario
        for path in (self._watched, self._tmp):
            path.mkdir(parents=True)
        make_sample(str(self._watched / "in"), kind="cifar10", images=60, seed=1)
        if scenario.source == "parquet":
            (self._watched / "in").rename(folder / "cifar")
            quickly(folder / "cifar", self._watched / "in", "parquet")
            shutil.rmtree(f"{self._watched / 'in'}.beam_cifar")
            for file in (self._watched / "in").rglob("*.parquet"):
                pq.write_table(pq.read_table(file), file, row_group_size=20)
        if scenario.older:
            self._must(scenario.older)
        if scenario.command == "save":  # a file that is not part of the dataset, and stays
            (self._watched / "out" / "notes").mkdir()
            (self._watched / "out" / "notes" / "own.txt").write_text("mine")
        self._old = self._state()
        if scenario.left_by:
            self._keep()
            self._leave(*scenario.left_by)
        self._keep()
        self._must(scenario.command)
        self.calls = [Call.of(line) for line in self._logged()]
        self._new = self._state()
        self._put_back()

    def _leave(self, command: str, after: float | str) -> None:
        """Runs a job that is killed after a call."""
        self._must(command)
        lines = self._logged()
        self._put_back()
        number = 1 + lines.index(after) if isinstance(after, str) else int(after * len(lines))
        assert self._run(command, number, FAULTS["killed after"]) == KILLED

    def _keep(self) -> None:
        """Keeps what is there now, for `_put_back`."""
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir()
        for name in ("out", "out.beam_cifar"):
            if (self._watched / name).exists():
                shutil.copytree(self._watched / name, self._kept / name)

    def _put_back(self) -> None:
        for name in ("out", "out.beam_cifar", "tmp"):
            shutil.rmtree(self._watched / name, ignore_errors=True)
            if (self._kept / name).exists():
                shutil.copytree(self._kept / name, self._watched / name)
        self._tmp.mkdir()

    def _state(self) -> State:
        found = (self._watched / name for name in ("out", "out.beam_cifar"))
        # A note of the inputs' identities: those of an output that was put back are others.
        changes = "inputs-*" if self._scenario.command == "save" else ""
        return {
            str(path.relative_to(self._watched)): hashlib.sha256(
                b"" if changes and path.match(changes) else path.read_bytes()
            ).hexdigest()
            for folder in found
            for path in folder.rglob("*")
            if path.is_file()
        }

    def _must(self, command: str) -> None:
        """Runs a command that nothing disturbs."""
        code = self._run(command)
        assert code == 0, f"undisturbed: {command}: exit code {code}: {self._printed()[-300:]}"

    def _run(self, command: str, number: int = 0, fault: int = 0) -> int:
        """Runs a command in a process of its own, whose call `number` fails; returns its exit code."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 70
        try:
            signal.alarm(SECONDS)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            tempfile.tempdir = os.environ["TMPDIR"] = str(self._tmp)
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
            with ExitStack() as stack:
                self._arm(stack, number, fault, log)
                if not self._by_beam:
                    stack.enter_context(mock.patch("beam_cifar.pipeline.convert.start", without_runner))
                code = self._do(command)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                atexit._run_exitfuncs()
                sys.stderr.flush()
            os._exit(code)

    def _arm(self, stack: ExitStack, number: int, fault: int, log: int) -> None:
        library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        library.arm(os.fsencode(self._watched), ctypes.c_long(number), fault, log)

    def _do(self, command: str) -> int:
        if command == "save":
            return save(self._out)
        verb, *flags = command.split()
        places = ["-i", str(self._watched / "in"), "-o", self._out] if verb == "convert" else [self._out]
        return beam_cifar([verb, *places, *flags])

    def _printed(self) -> str:
        return self._said.read_text(errors="replace")

    def _logged(self) -> list[str]:
        """The calls of the last process, up to the one struck."""
        return self._log.read_text(errors="replace").splitlines()

    def attempt(self, number: int, fault: str) -> Trial:
        """Runs the command with one fault, then without, and looks at what is there after each."""
        code = self._run(self._scenario.command, number, FAULTS[fault])
        last = self._logged()[-1]
        call = Call.of(last) if last.startswith("!") else None  # a run may have fewer calls: it is then undisturbed
        problem = ""
        try:
            if FAULTS[fault] > 0 or call is None:
                self._check_process(code, call)
            else:
                assert code == KILLED, f"exit code {code} instead of a kill"
            self._check_output(code, failed=FAULTS[fault] > 0)
            # What a killed process has left there is not the next one's, and what cannot be removed stays.
            self._check_again(number, with_tmp=code != KILLED and not (call and call.place.startswith("tmp/")))
        except AssertionError as error:
            problem = str(error).strip()
        self._put_back()
        return Trial(number, fault, call, problem)

    def _check_process(self, code: int, call: Call | None) -> None:
        printed = self._printed()
        assert "Traceback" not in printed, f"a traceback: {printed.strip().splitlines()[-1]}"
        ours = "beam-cifar: note: ", "WARNING:beam_cifar:"
        lines = [line for line in printed.splitlines() if not line.startswith(ours)]
        assert len(lines) == (code != 0), f"exit code {code} with {len(lines)} lines: {printed}"
        assert all(line.startswith("beam-cifar: error: ") for line in lines), f"not our own words: {printed}"
        is_input = call and call.kind in READS and call.place.split("/")[0] in ("in", *self._saved)
        assert code in ((0, 1, 3) if is_input else (0, 1)), f"exit code {code}: {printed}"

    @property
    def _saved(self) -> tuple[str, ...]:
        return ("out",) if self._scenario.command == "save" else ()

    def _check_output(self, code: int, *, failed: bool) -> None:
        """The output is the old or the new one with its manifest; only a kill leaves steps of publishing undone."""
        state = self._state()
        manifest, there = manifest_of(state), output_of(state)
        found = (there, manifest)
        whole = [(output_of(each), manifest_of(each)) for each in (self._new, self._old)]
        if self._scenario.command != "clean":
            assert code or found == whole[0], f"exit code 0, but {self._described(state)}"
        if found in whole:
            return
        assert manifest is None, f"with the manifest of something else: {self._described(state)}"
        if self._scenario.on:  # nothing is renamed there: the manifest says what is complete
            return
        assert self._scenario.left_by or not failed, f"after an error: {self._described(state)}"
        assert not there or there in (whole[0][0], whole[1][0]), f"neither output: {self._described(state)}"
        if not there and whole[1][0]:
            aside = {name.replace(".beam_cifar/replaced", "", 1): digest for name, digest in state.items()}
            assert output_of(aside) == whole[1][0], f"the old output is lost: {self._described(state)}"

    def _check_again(self, number: int, *, with_tmp: bool) -> None:
        command, flag = self._scenario.command, self._scenario.again[number % len(self._scenario.again)]
        if command == "save":
            self._must("clean")
        if command != "save" or output_of(self._state()) != output_of(self._new):
            self._must(command if flag in command.split() else f"{command} {flag}".strip())
        state = self._state()
        assert state == self._new, f"after the rerun: {self._described(state)}"
        left = [path.name for path in self._tmp.iterdir()]
        assert not (with_tmp and left), f"left in the temporary folder: {left}"

    def _described(self, state: State) -> str:
        known = {"the new": self._new, "the old": self._old, "no": {}}
        output = next((name for name in known if output_of(known[name]) == output_of(state)), "another")
        manifest = next((name for name in known if manifest_of(known[name]) == manifest_of(state)), "another")
        beside = {Call.of(f" /{name}").place for name in state.keys() - self._new.keys() if not name.startswith("out/")}
        return f"{output} output with {manifest} manifest, and {sorted(beside)}"


class StorePlace(Place):
    """The same with the output in an object store, where one call of its client fails."""

    def __init__(self, folder: Path, scenario: Scenario, server: Server) -> None:
        self._server, self._bucket = server, server.make_bucket()
        self._objects: dict[str, bytes] = {}
        super().__init__(folder, scenario, by_beam=False)

    def _arm(self, stack: ExitStack, number: int, fault: int, log: int) -> None:
        self._out = f"{self._bucket}/out"
        failing = FailingClient(client(self._server.scheme), number, fault, log)
        stack.enter_context(mock.patch("beam_cifar.storage.objects.client", return_value=failing))

    def _keep(self) -> None:
        self._objects = self._found()

    def _put_back(self) -> None:
        found = self._found()
        for name in found.keys() - self._objects.keys():
            self._server.delete(f"{self._bucket}/{name}")
        for name, data in self._objects.items():
            if found.get(name) != data:
                self._server.put(f"{self._bucket}/{name}", data)
        shutil.rmtree(self._tmp)
        self._tmp.mkdir()

    def _found(self) -> dict[str, bytes]:
        return {name: self._server.get(f"{self._bucket}/{name}") for name in self._server.listing(self._bucket)}

    def _state(self) -> State:
        return {name: hashlib.sha256(data).hexdigest() for name, data in self._found().items()}


class FailingClient:
    """The client of a store, one of whose calls fails, or is killed before or after it; see `FAULTS`."""

    def __init__(self, store: Any, number: int, fault: int, log: int) -> None:
        self._store, self._number, self._fault, self._log = store, number, fault, log
        self._met, self._lock = 0, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        def call(bucket: str, *arguments: Any, **named: Any) -> Any:
            what = arguments[0] if arguments else ""
            key = what if isinstance(what, str) else getattr(what, "key", None) or what[0]
            with self._lock:
                self._met += 1
                struck = self._met == self._number
                if not 0 < self._number < self._met:
                    os.write(self._log, f"{'!' * struck}{name} /{key}\n".encode())
            if struck and self._fault == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if struck and self._fault > 0:
                raise OSError(self._fault, os.strerror(self._fault), f"{bucket}/{key}")
            try:
                return real(bucket, *arguments, **named)
            finally:  # also after one that finds nothing
                if struck:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call


def output_of(state: State) -> State:
    """The files of the output."""
    return {name: digest for name, digest in state.items() if name.startswith("out/")}


def manifest_of(state: State) -> str | None:
    """The digest of the manifest."""
    return state.get("out.beam_cifar/manifest.json")


def without_runner(job: Job, beam_options: object = None) -> None:
    """Runs a job one task after another; its errors become known ones as they do when Beam runs it."""
    with explained(), carried():
        serial.run(job)


def save(folder: str) -> int:
    """Removes an item of a dataset and saves it in place; prints an error as the command line does."""
    try:
        dataset = Dataset.import_from(folder)
        first = next(iter(dataset))
        dataset.remove(first.id, first.subset).save(workers=1)
    except BeamCifarError as error:
        print(f"beam-cifar: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def chosen(calls: int, trials: int, part: tuple[int, int]) -> list[tuple[int, str]]:
    """Returns numbers of calls, each with a fault: all pairs, or about so many, evenly spread; of these one part."""
    pairs = [(number, fault) for number in range(1, calls + 1) for fault in FAULTS]
    step = max(1, len(pairs) // trials) | 1 if trials else 1  # odd, as there are eight faults
    pairs, (number, parts) = pairs[::step], part
    return pairs[len(pairs) * (number - 1) // parts : len(pairs) * number // parts]


def part_of(text: str) -> tuple[int, int]:
    """Returns the numbers of `2/5`."""
    number, parts = map(int, text.split("/"))
    if not 1 <= number <= parts:
        raise ValueError(f"there is no part {text}")
    return number, parts


def build(folder: Path) -> Path:
    """Compiles the library."""
    library = folder / "failing_calls.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def find_server(scheme: str, folder: Path, stack: ExitStack) -> Server | None:
    """Starts an object store; None if its program is not there."""
    if scheme == "s3":
        return stack.enter_context(moto(folder))
    binary = find_binary("fake-gcs-server", "BEAM_CIFAR_FAKE_GCS")
    return stack.enter_context(fake_gcs(folder, binary)) if binary else None


def main() -> int:
    """Runs what the command line asks for; returns 1 if anything was wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"{'; '.join(SCENARIOS)}; default: all")
    add("--trials", type=int, default=0, metavar="N", help="about so many for each scenario; default: all")
    add("--part", type=part_of, default=(1, 1), metavar="K/N", help="only part K of N of these, such as 2/5")
    add("--call", type=int, metavar="N", help="only call N, with every fault")
    arguments = parser.parse_args()
    if "LD_PRELOAD" in os.environ:
        folder = Path(os.environ["LD_PRELOAD"]).parent
        return run(arguments, folder)
    with tempfile.TemporaryDirectory(prefix="storage-faults-") as place:  # not in the process that is forked
        environment = {**os.environ, "LD_PRELOAD": str(build(Path(place)))}
        command = [sys.executable, "-m", "tests.helpers.storage_faults", *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Runs scenarios, and prints what was found."""
    warm()
    wrong: dict[str, list[Trial]] = {}
    print("| job |", *(f"{name} |" for name in COLUMNS), "trials | wrong |\n" + "| --- " * (len(COLUMNS) + 3) + "|")
    for at, name in enumerate(arguments.scenarios or SCENARIOS):
        scenario = SCENARIOS[name]
        with ExitStack() as stack:
            if scenario.on:
                server = find_server(scenario.on, folder / f"{at}-store", stack)
                if server is None:
                    continue
                os.environ.update(server.environment)
                place: Place = StorePlace(folder / str(at), scenario, server)
            else:
                place = Place(folder / str(at), scenario, by_beam=name.endswith(BY_BEAM))
            pairs = [(arguments.call, fault) for fault in FAULTS]
            if arguments.call is None:
                pairs = chosen(len(place.calls), arguments.trials, arguments.part)
            done = []
            for pair in pairs:
                done.append(place.attempt(*pair))
                if len(done) % PROGRESS == 0:
                    print(f"{name}: {len(done):,} of {len(pairs):,}", file=sys.stderr)
        wrong[name] = [trial for trial in done if trial.problem]
        kinds = Counter(each.kind for each in place.calls)
        counts = [sum(kinds.pop(kind, 0) for kind in column) for column in COLUMNS.values()]
        assert not kinds, f"kinds of no column: {kinds}"
        print("|", name, "|", *(f"{count or ''} |" for count in (*counts, len(done), len(wrong[name]))), flush=True)
    for name, found in wrong.items():
        for line in lines_of(name, found):
            print(line)
    return 1 if any(wrong.values()) else 0


def lines_of(name: str, wrong: Sequence[Trial]) -> Iterator[str]:
    """Yields a line for each kind of failure of a scenario, and how to see the first of it again."""
    grouped: dict[tuple[str, str], list[Trial]] = {}
    for trial in wrong:
        reason = re.sub(r"\S*/w/\S+|[0-9a-f]{8,}|\d+|: [A-Z][a-z ,/-]*$", "*", trial.problem)
        grouped.setdefault((re.sub(r"\d+", "N", str(trial.call)), reason), []).append(trial)
    for (call, _), alike in grouped.items():
        first = alike[0]
        yield f"{name!r} --call {first.number} ({first.fault}; {len(alike)} alike; {call}): {first.problem!r}"


def warm() -> None:
    """Imports what jobs need, and makes parts so small that a shard has several."""
    for module in ("PIL.Image", "lxml.etree", "pyarrow.parquet", "beam_cifar.pipeline.convert"):
        import_module(module)
    for target in ("cifar", "imagenet"):
        sink = get_sink(target)
        type(sink).can = replace(sink.can, part_bytes=30_000)
    logging.basicConfig()  # as a program does: notices are then lines that tell who wrote them
    moves.SPILL_BYTES, moves.BUCKET_BYTES = 60_000, 20_000  # type: ignore[misc]
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
