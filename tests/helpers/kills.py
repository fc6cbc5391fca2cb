"""Jobs that are killed from outside, at moments spread over their lives, and what must hold afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from beam_cifar import ConvertOptions, convert, make_sample
from beam_cifar.jobs.clean import clean
from tests.helpers.faults import accounts, job_folder
from tests.helpers.reading import tree

MOMENTS = ("start", "plan", "convert", "publish")
DONE = "done"
RESUMED = ("--resume",)
SECONDS = 300


@dataclass(frozen=True)
class Work:
    """A job that is killed.

    Attributes:
        source: name of a sample, see `Samples`.
        flags: of `convert`, but -i and -o.
        older: of another job, whose output this one overwrites; none if empty.
    """

    source: str
    flags: tuple[str, ...]
    older: tuple[str, ...] = ()


def _work(source: str, flags: str, older: str = "") -> Work:
    return Work(source, tuple(flags.split()), tuple(older.split()))


WORKS = {
    "CIFAR to Parquet": _work("folder", "-f parquet --images-per-batch 1000"),
    "CIFAR to CIFAR, files copied": _work("folder", "-f cifar --save-images"),
    "CIFAR to ImageNet folders": _work("folder", "-f imagenet --workers 1"),
    "over an older output": _work(
        "folder", "-f imagenet --overwrite --label dog --label cat --label ship", "-f parquet --label ship"
    ),
    "from an archive": _work("archive", "-f parquet --images-per-batch 1000"),
    "a row plan": Work(
        "folder",
        ("-f", "cifar", "--images-per-batch", "1000", "--transform", "random_split -s train:.8 -s test:.2 --seed 1"),
    ),
    "rows moved through spills": _work(
        "one_group", "-f cifar --save-images --images-per-batch 1000 --transform shuffle"
    ),
}


@dataclass(frozen=True)
class Samples:
    """The inputs: a folder, an archive of the same, and Parquet with one row group for each subset."""

    folder: Path
    archive: Path
    one_group: Path

    @classmethod
    def make(cls, place: Path, images: int) -> Samples:
        """Draws all of them."""
        samples = cls(place / "cifar", place / "cifar-10-python.tar.gz", place / "parquet")
        make_sample(str(samples.folder), kind="cifar10", images=images, seed=1)
        make_sample(str(samples.archive), kind="cifar10", images=images, seed=1, tar=True)
        convert(ConvertOptions(str(samples.folder), str(samples.one_group), "parquet", workers=1))
        for file in samples.one_group.rglob("*.parquet"):
            pq.write_table(pq.read_table(file), file)
        return samples


@dataclass
class Case:
    """One job, run undisturbed once, and then killed again and again.

    Attributes:
        work: what it does.
        command: of the job, but for its output.
        place: a folder of its own.
        state: what OUT holds, beside it, when it is complete, and before the job.
        spans: seconds that an undisturbed job spends in each moment.
    """

    work: Work
    command: tuple[str, ...]
    place: Path
    older: tuple[dict[str, str], dict[str, str]] = field(default_factory=lambda: ({}, {}))
    right: tuple[dict[str, str], dict[str, str]] = field(default_factory=lambda: ({}, {}))
    spans: dict[str, float] = field(default_factory=dict)
    parts: int = 0

    @classmethod
    def make(cls, work: Work, samples: Samples, place: Path) -> Case:
        """Runs the job undisturbed, and looks at it."""
        source = str(getattr(samples, work.source))
        case = cls(work, (sys.executable, "-m", "beam_cifar", "convert", "-i", source, *work.flags), place)
        place.mkdir()
        if work.older:
            older = [*case.command[:6], *work.older, "-o", str(place / "older")]
            subprocess.run(older, check=True, capture_output=True, timeout=SECONDS)
            case.older = _state(place / "older")
        case._watch()
        return case

    def _watch(self) -> None:
        """One undisturbed run, whose moments are timed."""
        output = self.fresh("right")
        process = self.start(output)
        began = {"start": time.monotonic()}
        most = 0
        while process.poll() is None:
            began.setdefault(self.moment(output), time.monotonic())
            if (count := len(accounts(output))) > most:
                most = count
                began["publish"] = time.monotonic()  # so far
            time.sleep(0.002)
        self.parts = most
        assert process.returncode == 0
        began.setdefault(DONE, time.monotonic())
        self.right = _state(output)
        times = [began.get(moment) for moment in (*MOMENTS, DONE)]
        for number, moment in enumerate(MOMENTS):
            following = next(time for time in times[number + 1 :] if time is not None)
            self.spans[moment] = following - began.get(moment, following)

    def fresh(self, name: str) -> Path:
        """The path of an output that is not there, or there from the older job."""
        output = self.place / name
        for path in (output, job_folder(output)):
            shutil.rmtree(path, ignore_errors=True)
        if self.work.older:
            shutil.copytree(self.place / "older", output)
            shutil.copytree(job_folder(self.place / "older"), job_folder(output))
        return output

    def start(self, output: Path, *flags: str) -> subprocess.Popen[bytes]:
        """Starts the job in a process group of its own."""
        command = [*self.command, "-o", str(output), *flags]
        with open(self.place / "log", "wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def said(self) -> str:
        """What the last run of the job has printed."""
        return (self.place / "log").read_text()

    def moment(self, output: Path) -> str:
        """Where a job is, by what it has written."""
        folder = job_folder(output)
        if _read(folder / "manifest.json") not in (None, self._older_manifest):
            return DONE
        if list(folder.glob("work-*/begun.json")):
            done = len(accounts(output))
            return "publish" if self.parts and done == self.parts else "convert"
        return "plan" if (folder / "lock").exists() else "start"

    @property
    def _older_manifest(self) -> bytes | None:
        return _read(job_folder(self.place / "older") / "manifest.json")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _state(output: Path) -> tuple[dict[str, str], dict[str, str]]:
    return tree(output), tree(job_folder(output))


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Kill:
    """One kill of a job and what was found.

    Attributes:
        moment: where the job was, by what it left.
        share: how much of the moment that was aimed at had passed: by its parts, or by the undisturbed run's time.
        parts: that were finished.
        output: what was at the output: "nothing", "old", "new", or one of these with what the next command puts right.
    """

    moment: str
    share: float
    parts: int
    output: str


def kill(case: Case, output: Path, moment: str, share: float, *flags: str) -> Kill:
    """Starts the job, kills its whole process group at a moment of its life, and looks at what it left."""
    process = case.start(output, *flags)
    try:
        order = (*MOMENTS, DONE)
        while process.poll() is None and order.index(case.moment(output)) < order.index(moment):
            time.sleep(0.0005)
        if moment == "convert":  # by its work: how long it takes varies more
            while process.poll() is None and len(accounts(output)) < int(share * case.parts):
                time.sleep(0.0005)
        time.sleep(share * case.spans[moment] / (case.parts if moment == "convert" else 1))
    finally:
        end(process)
    return Kill(case.moment(output), share, len(accounts(output)), found(case, output))


def found(case: Case, output: Path) -> str:
    """What is at an output, right after a kill.

    Raises:
        AssertionError: neither what was there before nor what should be there, whole.
    """
    folder = job_folder(output)
    there, manifest = tree(output) if output.exists() else None, _read(folder / "manifest.json")
    told = {"older": case._older_manifest, "right": _read(job_folder(case.place / "right") / "manifest.json")}
    if there is None or not there:
        if not case.work.older:
            assert manifest is None
            return "nothing"
        assert tree(folder / "replaced") == case.older[0]
        assert told["older"] in (_read(folder / "manifest.replaced.json"),)
        return "old, set aside"
    if there == case.right[0]:
        if manifest == told["right"]:
            return "new"
        assert manifest is None
        assert _read(folder / "manifest.pending.json") == told["right"]
        return "new, manifest pending"
    assert there == case.older[0], "neither the old output nor the new one"
    if manifest == told["older"]:
        return "old"
    assert manifest is None
    assert _read(folder / "manifest.replaced.json") == told["older"]
    return "old, manifest set aside"


def check_cleaned(case: Case, output: Path) -> None:
    """What a kill left, cleaned up (a copy of it): a complete output, or that of before, and nothing else beside."""
    copy = output.with_name("cleaned")
    for source, target in ((output, copy), (job_folder(output), job_folder(copy))):
        shutil.rmtree(target, ignore_errors=True)
        if source.exists():
            shutil.copytree(source, target)
    cleaned = clean(str(copy))
    assert _state(copy) in (case.right, case.older)
    assert not cleaned.incomplete
    if not case.work.older and not copy.exists():
        assert not job_folder(copy).exists()
    assert clean(str(copy)).found == ()


def finish(case: Case, output: Path) -> str:
    """Runs the job to its end with --resume, and checks that all is as if nothing had happened; what it said."""
    process = case.start(output, *RESUMED)
    try:
        assert process.wait(SECONDS) == 0, case.said()
    finally:
        end(process)
    said = case.said()
    assert _state(output) == case.right
    assert clean(str(output)).found == ()
    assert _state(output) == case.right
    return said


@dataclass(frozen=True)
class Ending:
    """A job that was killed once or more, and came to its end."""

    kills: tuple[Kill, ...]
    said: str


def kill_and_finish(case: Case, moments: Sequence[tuple[str, float]]) -> Ending:
    """Kills a job at each of some moments, every time with --resume, and lets it come to its end."""
    output = case.fresh("out")
    kills = []
    for number, (moment, share) in enumerate(moments):
        kills.append(kill(case, output, moment, share, *(RESUMED if number else ())))
        check_cleaned(case, output)
    return Ending(tuple(kills), finish(case, output))


def spread(count: int, chance: random.Random) -> list[list[tuple[str, float]]]:
    """Moments for so many jobs, at random shares of them: most while parts are made; every third is killed twice."""
    cycle = ("convert", "publish", "convert", "plan", "convert", "publish", "convert", "start")
    drawn = []
    for number in range(count):
        moments = [(cycle[number % len(cycle)], chance.random())]
        if number % 3 == 2:
            moments.append((chance.choice(MOMENTS[1:]), chance.random()))
        drawn.append(moments)
    return drawn
