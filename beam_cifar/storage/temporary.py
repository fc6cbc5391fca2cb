"""Temporary folders, named after their process: those of a killed one are removed by the next job and by `clean`."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
import tempfile
import weakref
from contextlib import AbstractContextManager, suppress

from beam_cifar.storage.files import writing
from beam_cifar.storage.processes import here, started

_NAME = re.compile(r"beam_cifar-(?P<host>[0-9a-f]{8})-(?P<boot>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d*)-\w{8}")


class TemporaryFolder(AbstractContextManager[str]):
    """A new folder that only this user may enter; removed on leaving the context, or when it is no longer used.

    Args:
        parent: existing folder to create it in; default: that of temporary files.

    Attributes:
        name: its path.

    Raises:
        JobError: it cannot be created.
    """

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        with writing("the folder of temporary files" if parent is None else os.fspath(parent)):
            parent = tempfile.gettempdir() if parent is None else os.fspath(parent)
            _sweep(parent)
            owner = (*here(), str(os.getpid()), started(os.getpid()))
            self.name = tempfile.mkdtemp(prefix=f"beam_cifar-{'-'.join(owner)}-", dir=parent)
        # At interpreter exit `__del__` would run too late or not at all.
        weakref.finalize(self, _remove, self.name, os.getpid())

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Removes the folder; errors are ignored."""
        _remove(self.name, os.getpid())


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # not in a child, which inherits what is to be removed at exit
        shutil.rmtree(path, ignore_errors=True)


@functools.lru_cache(maxsize=64)
def _sweep(parent: str) -> None:
    """Removes abandoned folders, once per process: a folder of temporary files may have very many entries."""
    remove_abandoned(parent)


def remove_abandoned(parent: str | None = None) -> None:
    """Removes temporary folders of this user whose process on this machine is gone; ignores errors."""
    with suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if (found := _NAME.fullmatch(entry.name)) and _is_abandoned(**found.groupdict()):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    shutil.rmtree(entry.path, ignore_errors=True)


def _is_abandoned(host: str, boot: str, process: str, start: str) -> bool:
    if host != here()[0]:
        return False
    # Without a start time, as on systems without /proc, nobody knows whether the process still runs.
    return boot != here()[1] or (start != "" and started(int(process)) != start)
