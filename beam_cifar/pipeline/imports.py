"""Imports Beam quickly and quietly: start-up dominates the time of a small job."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

# Beam and pyarrow import these if they are installed, but this program does not need them. They take 0.4 to 0.6 s of
# the 1.3 s that importing Beam takes.
NOT_NEEDED = ("pandas", "pymongo")
# Beam imports these for its own file systems, which takes 0.6 s; ours import them only when they are used.
CLOUD = ("apitools", "boto3", "google.cloud")


class _Absent:
    """A module finder that reports some packages as not installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if any(name == package or name.startswith(package + ".") for package in self._packages):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def beam_imports(flags: Sequence[str] = (), *, verbose: bool) -> Iterator[None]:
    """Context for importing Beam in a command: skips packages that are not needed, and suppresses warnings.

    From then on pyarrow works without pandas for the life of the process, which only our own commands may decide.

    Args:
        flags: Beam's flags; the Dataflow runner needs Beam's cloud libraries.
        verbose: whether Beam's warnings are shown.
    """
    finder = _Absent(NOT_NEEDED if any("dataflow" in flag.lower() for flag in flags) else (*NOT_NEEDED, *CLOUD))
    sys.meta_path.insert(0, finder)
    try:
        with quiet_imports(verbose=verbose):
            yield
            _settle_pyarrow()
    finally:
        sys.meta_path.remove(finder)


class _Shared:
    """A context of the whole process: the first thread to enter begins it, and the last one to leave ends it.

    With one for each thread, whichever ended last would restore what another one had set, for good.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    quiet = max(before, logging.WARNING)
    logging.disable(quiet)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if logging.root.manager.disable == quiet:
            logging.disable(before)


@contextmanager
def _without_handlers() -> Iterator[None]:
    configure = logging.basicConfig

    def unless_beam(**settings: Any) -> None:
        frame: Any = sys._getframe(1)
        if frame.f_globals.get("__name__") == "logging":  # as in `logging.warning`, if nothing is configured
            frame = frame.f_back
        if frame is None or str(frame.f_globals.get("__name__")).partition(".")[0] != "apache_beam":
            configure(**settings)

    logging.basicConfig = unless_beam
    try:
        yield
    finally:
        logging.basicConfig = configure


_QUIET, _UNCONFIGURED = _Shared(_without_warnings), _Shared(_without_handlers)


@contextmanager
def logging_kept() -> Iterator[None]:
    """Context in which Beam does not configure logging: a handler of its own would undo the caller's `basicConfig`."""
    with _UNCONFIGURED:
        yield


@contextmanager
def quiet_imports(*, verbose: bool = False) -> Iterator[None]:
    """Context for importing Beam: suppresses its warnings about missing cloud packages, and its logging set-up."""
    with logging_kept():
        if verbose:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                yield
        else:
            with _QUIET:
                yield


@contextmanager
def quiet_workers(*, verbose: bool) -> Iterator[TextIO]:
    """Keeps Beam's log and the standard error of worker processes and libraries off the terminal.

    Failures still reach us as exceptions.

    Yields:
        The original standard error, for our own messages.
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
        # Logging stays off: some runners log when the interpreter exits.


def _settle_pyarrow() -> None:
    """Makes pyarrow look for pandas now: it does so only once, at the first array."""
    import pyarrow as pa

    pa.array([0])
