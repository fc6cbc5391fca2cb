"""Progress on a terminal, silent otherwise."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from beam_cifar.job import Job

INTERVAL = 0.5


class Progress:
    """A line with the images done, their rate, and the time left.

    It watches the staged parts appear, which works alike for threads, processes and clusters on a shared disk.

    Args:
        stream: where to write; nothing is written unless it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """Starts watching."""
        if self._stream.isatty() and not job.done:
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
        from beam_cifar import storage
        from beam_cifar.sink import SinkSettings

        sink = SinkSettings.of(job.plan, job.options.output_format, job.folder)
        waiting = {sink.part_path(job.plan.shards[t.shard], t.part): t.rows for t in job.plan.tasks}
        total, started = sum(waiting.values()), time.monotonic()
        while not self._stop.wait(INTERVAL):
            finished = [path for path in waiting if storage.exists(path)]
            for path in finished:
                del waiting[path]
            self._show(total - sum(waiting.values()), total, time.monotonic() - started)

    def _show(self, done: int, total: int, seconds: float) -> None:
        rate = done / seconds
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        self._stream.write(f"\r\x1b[K{done:,} of {total:,} images, {rate:,.0f} a second{left}")
        self._stream.flush()
