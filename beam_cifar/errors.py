"""The errors shown to users: each has a one-line message and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BeamCifarError(Exception):
    """Base class of all expected failures; `str(error)` is a one-line explanation.

    Attributes:
        exit_code: exit code of the command line; see docs/guarantees.md.

    >>> from beam_cifar import BeamCifarError, stats
    >>> try:
    ...     stats("nowhere")
    ... except BeamCifarError as error:
    ...     print(error.exit_code)
    3
    """

    exit_code = 1


class JobError(BeamCifarError):
    """The pipeline or the storage failed."""

    exit_code = 1


class UsageError(BeamCifarError):
    """An unknown flag, format, label or subset, or options that contradict each other."""

    exit_code = 2


class InputError(BeamCifarError):
    """The input is missing, empty, not recognised, damaged or hostile, or the selection leaves nothing."""

    exit_code = 3


class RowError(InputError):
    """One row cannot be read, such as a damaged image, while others of its file can."""


class ConflictError(InputError):
    """Files of one dataset contradict each other, so that none of them is known to be wrong."""


class PickleError(InputError):
    """A pickle that is not a plain CIFAR file: truncated, damaged, hostile or with unexpected contents.

    Args:
        name: display name of the file.
        offset: the byte at which the reader stopped.
        reason: what was found and what was expected.
    """

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name}: byte {offset}: {reason}")
        self.name = name
        self.offset = offset
        self.reason = reason


class OutputError(BeamCifarError):
    """The output already exists, or another job has locked it."""

    exit_code = 4


class DifferencesError(BeamCifarError):
    """`diff` found differences, or `validate` found problems; details were printed before."""

    exit_code = 5


@contextmanager
def as_job_errors() -> Iterator[None]:
    """Turns an `OSError` of a job into a `JobError` that names its file; also a decorator."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise JobError(f"{where}{error.strerror or error}") from error
