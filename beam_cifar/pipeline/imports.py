"""Importing Beam quickly and quietly: most of a small job's time is its start."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

# Beam and pyarrow import these if they are there, and do without them if not; nothing that this program does needs
# them. They take 0.4 to 0.6 of the 1.3 s that importing Beam takes.
NOT_NEEDED = ("pandas", "pymongo")
# Beam imports these for its own file systems, in 0.6 s; ours import them when they are used.
CLOUD = ("apitools", "boto3", "google.cloud")


class _Absent:
    """A module finder that says of some packages that they are not installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if any(name == package or name.startswith(package + ".") for package in self._packages):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def beam_imports(flags: Sequence[str] = (), *, verbose: bool) -> Iterator[None]:
    """While Beam is imported for a command: leaves out what is not needed, and keeps back its remarks.

    pyarrow then does without pandas for as long as the process lives, which only a command of our own may decide.

    Args:
        flags: those that are Beam's; Dataflow's runner needs Beam's cloud libraries.
        verbose: whether Beam's remarks are shown.
    """
    finder = _Absent(NOT_NEEDED if any("dataflow" in flag.lower() for flag in flags) else (*NOT_NEEDED, *CLOUD))
    sys.meta_path.insert(0, finder)
    try:
        with quiet_imports(verbose=verbose):
            yield
            _settle_pyarrow()
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def quiet_imports(*, verbose: bool = False) -> Iterator[None]:
    """While Beam is imported: keeps back its remarks on missing cloud packages."""
    before = logging.root.manager.disable
    logging.disable(before if verbose else max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if verbose else "ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def quiet_workers(*, verbose: bool) -> Iterator[TextIO]:
    """Keeps Beam's log, and what worker processes and libraries write to standard error, off the terminal.

    What matters of it reaches us as an exception.

    Yields:
        The terminal (or whatever standard error is), for our own messages.
    """
    if sys.stderr is None:  # closed by the caller
        with open(os.devnull, "w") as nothing:
            yield nothing
        return
    if verbose:
        yield sys.stderr
        return
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    logging.disable(logging.CRITICAL)
    os.dup2(nowhere, 2)
    try:
        with open(terminal, "w", buffering=1, errors="backslashreplace", closefd=False) as stream:
            yield stream
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)
        # The log stays off: some runners have last words when the interpreter ends.


def _settle_pyarrow() -> None:
    """Has pyarrow look for pandas now: it does so once, at the first array."""
    import pyarrow as pa

    pa.array([0])
