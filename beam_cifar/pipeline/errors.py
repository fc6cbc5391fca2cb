"""Carries known errors out of a pipeline: runners return only text, each wrapped in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from beam_cifar import errors
from beam_cifar.errors import BeamCifarError, JobError, as_job_errors

# Concatenated at run time: tracebacks show source lines, and these must not look like an encoded error.
_BEGIN = "<" + "beam_cifar-error" + ">"
_END = "</" + "beam_cifar-error" + ">"


class CarriedError(RuntimeError):
    """A known error in a form that survives any number of conversions to text."""


@contextmanager
def carried() -> Iterator[None]:
    """Wraps the body of every DoFn, so that `find_error` can recover known errors and storage failures."""
    try:
        with as_job_errors():
            yield
    except BeamCifarError as error:
        raise CarriedError(_encode(error)) from error


def find_error(failure: BaseException) -> BeamCifarError | None:
    """Returns the known error behind a pipeline failure, found in the chain of causes or in its text, or None.

    >>> from beam_cifar import find_error
    >>> find_error(RuntimeError("something of the runner's own")) is None
    True
    """
    for link in _chain(failure):
        if isinstance(link, BeamCifarError):
            return link
        if found := _decode(str(link)):
            return found
    return None


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes, innermost last."""
    seen: set[int] = set()
    link: BaseException | None = failure
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


def _encode(error: BeamCifarError) -> str:
    # Hex, because runners escape quotes, backslashes and line breaks, sometimes twice.
    content = json.dumps([type(error).__name__, str(error), error.exit_code]).encode().hex()
    return f"{error} {_BEGIN}{content}{_END}"


def _decode(text: str) -> BeamCifarError | None:
    match = re.search(f"{_BEGIN}([0-9a-f]+){_END}", text)
    if not match:
        return None
    try:
        name, message, exit_code = json.loads(bytes.fromhex(match[1]))
    except ValueError:
        return None
    kind = getattr(errors, name, JobError)
    # The class is not called: constructors differ in their parameters, and the message is already complete.
    made: BeamCifarError = kind.__new__(kind)
    made.args = (message,)
    made.exit_code = exit_code
    return made


@contextmanager
def explained() -> Iterator[None]:
    """Turns a pipeline failure into the known error behind it, or a `JobError`; an interrupt stays one."""
    try:
        yield
    except BeamCifarError:
        raise
    except Exception as error:
        if any(isinstance(link, KeyboardInterrupt) for link in _chain(error)):
            raise KeyboardInterrupt from error  # with one worker, steps run in the thread that was interrupted
        known = find_error(error)
        if known is None and re.search("^KeyboardInterrupt", str(error), re.MULTILINE):
            # With one worker, Ctrl-C meets Beam's code in this thread, which reports it like any error of a bundle.
            raise KeyboardInterrupt from error
        if known is None:
            known = JobError(f"the pipeline failed: {_gist(error)}; pass -v to see the traceback")
        raise known from error


def _gist(error: Exception) -> str:
    """Returns the most informative line of an error: runners bury the worker's message in pages of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    # A first line that ends with a colon is only a heading.
    return (told[-1] if told else " ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:300]
