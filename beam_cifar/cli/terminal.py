"""Terminal output shared by commands: tables, progress, and keeping workers quiet."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from beam_cifar import storage
from beam_cifar.pipeline.imports import quiet_workers

if TYPE_CHECKING:
    from beam_cifar.jobs.prepare import Job

INTERVAL = 0.5
REMOTE_INTERVAL = 3.0
"""Seconds between progress checks of a job staged in an object store, where every check is a request."""


class Progress:
    """A progress line: images done, rate, and time left.

    Counts the accounts of finished parts in the job folder, which works on every runner: for threads, processes and
    clusters, on a shared disk and in an object store.

    Args:
        stream: where to write; nothing is written unless it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """Starts watching a job."""
        if self._stream.isatty() and not job.done:
            # A daemon thread: a request to an object store may hang, and must not keep the process alive.
            self._thread = threading.Thread(target=self._watch, args=(job,), daemon=True)
            self._thread.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _watch(self, job: Job) -> None:
        from beam_cifar.jobs.settings import SinkSettings

        sink = SinkSettings.of(job.plan, job.options.output_format, job.folder)
        rows = {os.path.basename(sink.account_path(task.shard, task.part)): task.rows for task in job.plan.tasks}
        total, started = sum(rows.values()), time.monotonic()
        done = before = sum(part.written.total() for part in job.finished)
        interval = REMOTE_INTERVAL if storage.is_url(job.folder.path) else INTERVAL
        while not self._stop.wait(interval):
            with suppress(OSError):
                # The accounts are removed at the end of the job.
                done = max(done, sum(rows.get(name, 0) for name in storage.names_in(job.folder.accounts)))
                self._show(done, total, (done - before) / (time.monotonic() - started))

    def _show(self, done: int, total: int, rate: float) -> None:
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        self._stream.write(f"\r\x1b[K{done:,} of {total:,} images, {rate:,.0f} images/s{left}")
        self._stream.flush()


def print_result(arguments: argparse.Namespace, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Prints the result of a command: all facts as JSON with `--json`, the text lines otherwise."""
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else "\n".join(map(plain, lines)))


def print_notices(notices: Iterable[str], stream: TextIO | None = None) -> None:
    """Prints notes for people, on standard error unless another stream is given."""
    for notice in notices:
        print(f"beam-cifar: note: {plain(notice)}", file=stream or sys.stderr, flush=True)


@contextmanager
def scratch_folder(arguments: argparse.Namespace) -> Iterator[str]:
    """A temporary folder for the indexes of archives; meanwhile, libraries cannot write to the terminal."""
    with quiet_workers(verbose=arguments.verbose), storage.TemporaryFolder() as folder:
        yield folder


def aligned(lines: Sequence[Sequence[str]], indent: int = 2) -> list[str]:
    """Lines with cells aligned in columns: the first to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    made = []
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        made.append(" " * indent + "  ".join(cells))
    return made


def plain(text: str) -> str:
    """The text on one line, with unprintable characters escaped: a name in the data must not control the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def percentage(part: int, whole: int) -> str:
    """A ratio in percent; empty if the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else ""
