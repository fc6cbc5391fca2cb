"""Commands that get a signal at some moment, and what must be true afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.faults import job_folder, snapshot
from tests.helpers.processes import processes_of, start, until

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
CONVERT = ("convert", "-i", "in", "-f", "parquet", "-o", "out")
COMMANDS: tuple[tuple[str, ...], ...] = (
    (*CONVERT, "--workers", "1"),
    (*CONVERT, "--workers", "2"),
    (*CONVERT, *PROCESSES),
    ("convert", "-i", "in", "-f", "imagenet", "-o", "out", "--workers", "2"),
    ("export", "-p", "project", "-f", "cifar", "-o", "out", "--workers", "2"),
    ("info", "in"),
    ("report", "in", "-o", "out"),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINE = "beam-cifar: error: interrupted\n"
STARTED = 0.2
"""Seconds in which the interpreter starts: until then a signal ends it as any program, without a line."""


@dataclass
class Interrupted:
    """Commands run in a folder with the dataset `in` and the project `project`, and their undisturbed outputs."""

    folder: Path
    whole: dict[tuple[str, ...], dict[str, bytes]]
    seconds: dict[tuple[str, ...], float]

    @classmethod
    def measured(cls, folder: Path) -> Interrupted:
        """Runs every command once."""
        made = cls(folder, {}, {})
        for command in COMMANDS:
            made.clear()
            began = time.monotonic()
            made.rerun(command)
            made.whole[command], made.seconds[command] = made.output(), time.monotonic() - began
        return made

    def try_once(self, chance: random.Random) -> None:
        """Interrupts one command at a random moment, some within the first 100 ms, and runs it again."""
        command, number = chance.choice(COMMANDS), chance.choice(SIGNALS)
        moment = chance.choice((0.1, self.seconds[command])) * chance.random()
        self.clear()
        with start(command, self.folder) as process:
            try:
                time.sleep(moment)
                process.send_signal(number)
                _, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        case = f"{command} after {moment:.3f} s by {number.name}: {process.returncode} {errors!r}"
        if process.returncode == 0:  # it had ended by then
            assert self.output() == self.whole[command], case
            return
        quiet = "\n".join(line for line in errors.splitlines() if "note:" not in line)
        if LINE not in errors and moment < STARTED:
            assert process.returncode in (-number, 1), case  # the interpreter itself, before our first line
        else:
            assert (process.returncode, quiet + "\n") == (128 + number, LINE), case
        assert until(lambda: not processes_of(self.folder), 2), case
        assert self.output() in ({}, self.whole[command]), case
        self.clear(keep=True)
        self.rerun(command)
        assert self.output() == self.whole[command], case
        assert [path.name for path in job_folder(self.folder / "out").glob("*") if path.name == "lock"] == [], case

    def rerun(self, command: tuple[str, ...]) -> None:
        """Runs a command to its end."""
        with start(command, self.folder) as process:
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    def output(self) -> dict[str, bytes]:
        """The files of the output."""
        out = self.folder / "out"
        return {"": out.read_bytes()} if out.is_file() else {name: found[2] for name, found in snapshot(out).items()}

    def clear(self, *, keep: bool = False) -> None:
        """Removes the output; `keep` leaves what lies beside it, unless the output is whole."""
        out = self.folder / "out"
        if keep and not out.exists():
            return
        shutil.rmtree(job_folder(out), ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
