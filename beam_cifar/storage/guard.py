"""A job's permission to write, which it loses for good when it ends or another job takes over its output."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from beam_cifar.errors import JobError
from beam_cifar.storage.files import is_file

LAST_WRITE = 10.0
"""Seconds that `Guard.end` waits for writes in progress: a disk or an object store may hang."""

_changed = threading.Condition()
_ended: set[str] = set()
_in_progress: Counter[str] = Counter()


@dataclass(frozen=True)
class Guard:
    """A run's permission to write; it is pickled to workers, and never part of what they write.

    Attributes:
        path: file that must exist for the job to write; empty if its output is protected otherwise.
        run: unique token of this run of a job; empty for files that belong to no job.
    """

    path: str = ""
    run: str = ""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Context for one write; raises `JobError` if the run has ended, and otherwise `end` waits for it."""
        with _changed:
            self.refuse_ended()
            _in_progress[self.run] += 1
        try:
            yield
        finally:
            with _changed:
                _in_progress[self.run] -= 1
                if not _in_progress[self.run]:
                    del _in_progress[self.run]
                    _changed.notify_all()

    def refuse_ended(self) -> None:
        """Raises `JobError` if the run has ended in this process."""
        if self.run in _ended:
            raise JobError("interrupted")

    def refuse_lost(self) -> None:
        """Raises `JobError` if the run has ended, or its guard file was removed."""
        self.refuse_ended()
        if self.path and not is_file(self.path):
            raise JobError(f"{self.path}: was removed: another job took over the output, or this job was cleaned up")

    def end(self) -> None:
        """Ends the run: threads of it that a runner left behind can never write again, whatever jobs follow."""
        if not self.run:
            return
        with _changed:
            _ended.add(self.run)
            _changed.wait_for(lambda: not _in_progress[self.run], LAST_WRITE)
