"""The errors that a user can meet: each is one line and carries its exit code."""

from __future__ import annotations


class BeamCifarError(Exception):
    """Any failure that has an explanation; `str(error)` is the one line to print.

    Attributes:
        exit_code: what the command line exits with; see the README's table.

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
    """An unknown flag, format, label or subset, or options that cannot go together."""

    exit_code = 2


class InputError(BeamCifarError):
    """The input is missing, empty, not recognised, damaged or hostile, or nothing of it is selected."""

    exit_code = 3


class PickleError(InputError):
    """A pickle that is not a plain CIFAR file: truncated, damaged, hostile or of another shape.

    Args:
        name: the file, as the user knows it.
        offset: the byte at which the reader stopped.
        reason: what was found and what was expected.
    """

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name}: byte {offset}: {reason}")
        self.name = name
        self.offset = offset
        self.reason = reason


class OutputError(BeamCifarError):
    """The output exists already, or another job holds it."""

    exit_code = 4


class DifferencesError(BeamCifarError):
    """What was compared differs, or what was checked has faults; both were told before."""

    exit_code = 5
