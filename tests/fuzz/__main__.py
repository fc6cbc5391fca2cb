"""Fuzzes parsers: `python -m tests.fuzz --help`; `make fuzz` has the environment for it.

Each target runs in a process of its own, so that a death of one is a finding, not the end. What a target raises beside its own
errors, and what takes over 300 MB more than the seeds took, or 10 s, is written to build/fuzz and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import mmap
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

OUT = Path("build/fuzz")
MEMORY = 300 << 20
SECONDS = 10
_HEAD = struct.Struct("<Q")
_ROOM = 1 << 17
_MOST_DEATHS = 20


@dataclass
class Result:
    """What came of a target.

    Attributes:
        untyped: inputs that raised what they should not, took too long or too much memory, or ended the process.
        slowest: seconds of the slowest execution.
        start: MB of the process after its seeds: the engine, libraries and their caches.
        grown: MB by which it was larger at its largest, the engine's corpus included.
    """

    target: str
    engine: str = ""
    executions: int = 0
    accepted: int = 0
    refused: int = 0
    untyped: int = 0
    slowest: float = 0.0
    start: float = 0.0
    grown: float = 0.0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, other: dict[str, Any]) -> None:
        for name in ("executions", "accepted", "refused", "untyped"):
            setattr(self, name, getattr(self, name) + other[name])
        for name in ("slowest", "start", "grown"):
            setattr(self, name, max(getattr(self, name), other[name]))
        self.engine = other["engine"]
        self.findings += other["findings"]
        for name, count in other["notes"].items():
            self.notes[name] = self.notes.get(name, 0) + count


class Child:
    """Executes one target, in a process of its own; the parent reads `shared` when it has ended, however it ended."""

    def __init__(self, name: str, shared: mmap.mmap, runs: int, seconds: float) -> None:
        self.name, self.shared, self.runs, self.seconds = name, shared, runs, seconds
        self.stop = float("inf")
        self.result = Result(name)
        self._seen: set[str] = set()
        self._saved = 0.0

    def run(self, seed: int, atheris: Any) -> None:
        from tests.fuzz import targets
        from tests.fuzz.mutate import mutated

        self.result.engine = "atheris" if atheris else "own"
        self._save()
        self.notes, self.target = targets.notes, targets.TARGETS[self.name]
        targets.SCRATCH = Path(tempfile.gettempdir(), f"beam_cifar-fuzz-{os.getpid()}")
        targets.SCRATCH.mkdir()
        seeds = self.target.seeds()
        random = Random(seed)
        for data in seeds:
            self.execute(data)
        self.result.start = _resident()
        # Libraries are loaded by now: from here, an input that needs more than the limit is refused the memory.
        used = int(Path("/proc/self/statm").read_text().split()[5]) * 4096 if sys.platform == "linux" else 0
        if used:
            resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
        self.stop = time.time() + self.seconds
        if atheris:
            self._guided(atheris, seeds, seed, lambda data, random: mutated(data, random, self.target.mutator))
        while True:
            data = mutated(random.choice(seeds), random, self.target.mutator)
            if self.execute(data) and len(seeds) < 2000:
                seeds.append(data)

    def _guided(self, atheris: Any, seeds: list[bytes], seed: int, change: Callable[[bytes, Random], bytes]) -> None:
        """Lets atheris choose inputs by what they cover."""
        corpus = OUT / f"corpus-{self.name}"
        corpus.mkdir(parents=True, exist_ok=True)
        for data in seeds:
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

        def mutator(data: bytes, size: int, seed: int) -> bytes:
            return atheris.Mutate(data, size) if seed % 3 == 0 else change(bytes(data), Random(seed))[:size]

        flags = [
            "-max_len=65536",
            "-timeout=0",
            "-rss_limit_mb=0",
            "-malloc_limit_mb=0",
            "-verbosity=0",
            "-handle_term=0",
        ]
        arguments = [sys.argv[0], *flags, f"-seed={seed % (1 << 31) or 1}", "-len_control=0", str(corpus)]
        atheris.Setup(arguments, self.execute_quietly, custom_mutator=mutator)
        atheris.Fuzz()

    def execute_quietly(self, data: bytes) -> None:
        self.execute(data)

    def execute(self, data: bytes) -> bool:
        """Runs the target on an input, counts what came of it, and ends the process when it is time."""
        self.shared[_ROOM : _ROOM + 8 + len(data)] = _HEAD.pack(len(data)) + data
        signal.alarm(2 * SECONDS)  # kills the process, as no exception would end a call into C
        result = self.result
        result.executions += 1
        began = time.perf_counter()
        accepted = False
        try:
            self.target.run(data)
            accepted = True
            result.accepted += 1
        except self.target.errors as error:
            result.refused += 1
            if "\n" in str(error):
                self._found(data, f"an error of several lines: {error!r}")
        except BaseException as error:
            self._found(data, "".join(traceback.format_exception(error)))
        took = time.perf_counter() - began
        if took > result.slowest:
            result.slowest = took
            if took > 1:
                keep(self.name, data, f"took {took:.1f} s")
            if took > SECONDS:
                self._found(data, f"took {took:.1f} s")
        grown = _resident() - result.start if result.start else 0
        if grown > MEMORY >> 20 >= result.grown:
            self._found(data, f"the process grew by {grown:.0f} MB")
        result.grown = max(result.grown, grown)
        if began - self._saved > 1 or result.executions >= self.runs:
            self._saved = began
            self._save()
            if result.executions >= self.runs or time.time() > self.stop:
                self._leave()
        return accepted

    def _found(self, data: bytes, text: str) -> None:
        self.result.untyped += 1
        kept, frames = text[-4000:], [line for line in text.splitlines() if line.startswith("  File ")]
        kind = f"{frames[-3:]} {text.splitlines()[-1].split(':')[0]}"
        if kind not in self._seen and len(self._seen) < 50:
            self._seen.add(kind)
            self.result.findings.append(keep(self.name, data, kept))
            self._save()

    def _save(self) -> None:
        self.result.notes = dict(sorted(getattr(self, "notes", {}).items(), key=lambda item: -item[1])[:20])
        data = json.dumps(asdict(self.result)).encode()[: _ROOM - 8]
        self.shared[: 8 + len(data)] = _HEAD.pack(len(data)) + data

    def _leave(self) -> None:
        signal.alarm(0)
        os._exit(0)


def _resident() -> float:
    """Returns the MB of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def keep(name: str, data: bytes, why: str) -> str:
    """Writes an input that found something, and what; returns its path."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    path.with_suffix(".why").write_text(why, "utf-8", "backslashreplace")
    return str(path)


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def _load(engine: str) -> Any:
    """Imports the targets, instrumented where atheris is used, and returns it: forks share what took seconds."""
    atheris = _atheris() if engine != "own" else None
    if engine == "atheris" and atheris is None:
        raise SystemExit("atheris is not installed; `make fuzz` installs it for CPython 3.11 to 3.13 on Linux")
    # It names each module that it instruments.
    with (
        redirect_stderr(io.StringIO()),
        atheris.instrument_imports(include=["beam_cifar"]) if atheris else nullcontext(),
    ):
        import tests.fuzz.targets  # noqa: F401
    return atheris


def _child(name: str, shared: mmap.mmap, runs: int, seconds: float, seed: int, atheris: Any) -> None:
    # libFuzzer and libraries have much to say.
    quiet = os.open(os.devnull, os.O_WRONLY)
    log = os.open(OUT / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(quiet, 1)
    os.dup2(log, 2)
    try:
        Child(name, shared, runs, seconds).run(seed, atheris)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def _read(shared: mmap.mmap, at: int) -> bytes:
    (size,) = _HEAD.unpack(shared[at : at + 8])
    return shared[at + 8 : at + 8 + size]


def fuzz(name: str, runs: int, seconds: float, seed: int, atheris: Any) -> Result:
    """Fuzzes a target in processes of its own until it has its executions or its time is over."""
    result = Result(name)
    began = time.time()
    for attempt in range(_MOST_DEATHS):
        shared = mmap.mmap(-1, 2 * _ROOM + 8)
        process = multiprocessing.get_context("fork").Process(
            target=_child,
            args=(name, shared, runs - result.executions, began + seconds - time.time(), seed + attempt, atheris),
        )
        process.start()
        process.join()
        shutil.rmtree(Path(tempfile.gettempdir(), f"beam_cifar-fuzz-{process.pid}"), ignore_errors=True)
        result.add(json.loads(_read(shared, 0)))
        if process.exitcode == 0:
            break
        result.untyped += 1
        log = (OUT / f"{name}.log").read_text("utf-8", "replace")[-3000:]
        result.findings.append(keep(name, _read(shared, _ROOM), f"the process ended with {process.exitcode}\n{log}"))
        if result.executions >= runs or time.time() > began + seconds:
            break
    result.seconds = time.time() - began
    shutil.rmtree(OUT / f"corpus-{name}", ignore_errors=True)
    return result


_COLUMNS = (
    "| target | engine | executions | a second | accepted | refused | untyped | slowest, s | start, MB | grown, MB |"
)


def _row(result: Result) -> str:
    speed = result.executions / max(result.seconds, 0.001)
    counts = f"{result.executions:,} | {speed:,.0f} | {result.accepted:,} | {result.refused:,} | {result.untyped:,}"
    return f"| {result.target} | {result.engine} | {counts} | {result.slowest:.2f} | {result.start:.0f} | {result.grown:.0f} |"


def main() -> int:
    """Runs the command; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--runs", type=float, default=1e6, help="executions of all targets (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=3600, help="the most for one target (default: %(default)g)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at a time (default: %(default)s)")
    parser.add_argument("--engine", choices=("auto", "atheris", "own"), default="auto")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--results", type=Path, default=OUT / "results.jsonl", help="file to append to")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    atheris = _load(arguments.engine)
    from tests.fuzz.targets import TARGETS

    weights = {name: target.weight for name, target in TARGETS.items()}
    names = arguments.targets or list(weights)
    share = arguments.runs / sum(weights[name] for name in names)

    def of_target(name: str) -> Result:
        return fuzz(name, max(1, round(share * weights[name])), arguments.seconds, arguments.seed, atheris)

    results = []
    print(f"{_COLUMNS}\n{'| --- ' * 2}{'| ---: ' * 8}|", flush=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(of_target, names):
            results.append(result)
            print(_row(result), flush=True)
            with arguments.results.open("a", encoding="utf-8") as file:
                facts = {"python": platform.python_version(), "seed": arguments.seed, "time": int(time.time())}
                file.write(json.dumps(asdict(result) | facts) + "\n")
    total = Result("all")
    for result in results:
        total.add(asdict(result))
        total.seconds += result.seconds
    print(_row(total))
    for finding in total.findings:
        print(
            f"found: {finding} ({Path(finding).with_suffix('.why').read_text('utf-8', 'replace').splitlines()[-1][:200]})"
        )
    return 1 if total.untyped else 0


if __name__ == "__main__":
    raise SystemExit(main())
