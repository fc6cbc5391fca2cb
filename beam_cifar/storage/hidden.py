"""Damaged files of an input, which listings leave out once a job has set them aside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from beam_cifar.errors import ConflictError, InputError
from beam_cifar.storage.paths import contains, name_of

_HIDDEN: ContextVar[dict[str, str] | None] = ContextVar("hidden", default=None)


@contextmanager
def hiding() -> Iterator[dict[str, str]]:
    """Lets `hide` leave files out of listings until the context is left; yields the reasons, by path."""
    found: dict[str, str] = {}
    token = _HIDDEN.set(found)
    try:
        yield found
    finally:
        _HIDDEN.reset(token)


def hide(error: InputError, folder: str, may_go: Callable[[str], bool]) -> bool:
    """Leaves the file that an error is about out of listings, and returns whether it did.

    Args:
        error: what a format said about a file in the folder; its message starts with the path.
        folder: path of the dataset, which itself cannot be left out.
        may_go: whether the dataset is one without a file of that name.
    """
    found, text = _HIDDEN.get(), str(error)
    if found is None or not contains(folder, text) or not is_damage(error):
        return False
    ends = (at for at, letter in enumerate(text) if letter == ":" and at > len(folder))
    path = next((text[:end] for end in ends if may_go(name_of(text[:end]))), "")
    if not path or path in found:
        return False
    found[path] = text[len(path) :].lstrip(": ")
    return True


def hidden_files() -> Collection[str]:
    """Returns the paths of the files that are left out."""
    return _HIDDEN.get() or ()


def is_damage(error: BaseException) -> bool:
    """Returns whether an error is about what one file contains; False if the storage could not read it."""
    if isinstance(error, ConflictError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:  # those of parsers have no number
            return False
        cause = cause.__cause__
    return True
