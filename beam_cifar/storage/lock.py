"""Locks: a job folder is held by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

from beam_cifar.errors import OutputError
from beam_cifar.storage import objects
from beam_cifar.storage.client import StoredObject
from beam_cifar.storage.files import remove_file, writing
from beam_cifar.storage.job_folder import JobFolder
from beam_cifar.storage.ownership import refuse_planted
from beam_cifar.storage.paths import is_url
from beam_cifar.storage.processes import machine, started
from beam_cifar.storage.recovery import settle

RENEWED_EVERY = 20.0
HELD_FOR = 90.0
"""Seconds after which a lock that is not renewed expires. Clocks of different machines may differ by half of it."""


class Holding(AbstractContextManager["Holding"]):
    """A lock on a job folder."""

    def is_lost(self) -> bool:
        """Returns whether another job took the lock; if so, this job must no longer change the folder."""
        return False


def hold(folder: JobFolder, *, settled: bool = True) -> Holding:
    """Returns a context manager that locks a job folder, creating it if missing and removing it if left empty.

    Unless `settled` is false, it completes or undoes a publish that was killed; see `settle`.

    Raises:
        OutputError: another job holds the lock (on entering).
        JobError: the folder cannot be created.
    """
    return _ObjectLock(folder) if is_url(folder.path) else _FileLock(folder, settled=settled)


# Classes rather than generators: a generator collected when the interpreter exits would release the lock of a job that
# is still running elsewhere.


class _ObjectLock(Holding):
    """An object that is created only if it does not exist, and renewed as long as its process lives."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._path = os.path.join(folder.path, "lock")
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="beam_cifar-lock", daemon=True)

    def __enter__(self) -> Holding:
        with writing(self._path):
            for _ in range(3):
                if objects.write(self._path, self._content(), replaces=""):
                    break
                if (there := objects.fetch_if_any(self._path)) is None:
                    continue  # released in the meantime
                self._refuse_held(*there)
                if objects.write(self._path, self._content(), replaces=there[1].tag):
                    break
            there = objects.fetch_if_any(self._path)
            if there is None or not self._is_ours(there[0]):
                raise OutputError(f"{self._folder.output}: another job started writing to it at the same time")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            if not self.is_lost():
                remove_file(self._path)

    def is_lost(self) -> bool:
        there = objects.fetch_if_any(self._path)
        return there is None or not self._is_ours(there[0])

    def _is_ours(self, content: bytes) -> bool:
        return json_object(content).get("token") == self._token

    def _content(self) -> bytes:
        process = {"process": os.getpid(), "started": started(os.getpid())}
        return json.dumps({**machine(), **process, "token": self._token, "renewed": time.time()}).encode()

    def _renew(self) -> None:
        while not self._stop.wait(RENEWED_EVERY):
            with suppress(OSError):
                there = objects.fetch_if_any(self._path)
                if there is None or not self._is_ours(there[0]):
                    return  # another job took this one for dead and removed its files, so it will fail
                objects.write(self._path, self._content(), replaces=there[1].tag)

    def _refuse_held(self, content: bytes, found: StoredObject) -> None:
        held = json_object(content)
        age = time.time() - _renewed(held, found)
        here = {name: held.get(name) for name in machine()} == machine()
        dead = here and started(held.get("process", 0)) != held.get("started")
        if dead or age > HELD_FOR:
            return
        holder = f"process {held.get('process')} on {held.get('host')}, seen {max(0, age):.0f} s ago"
        raise OutputError(
            f"{self._folder.output}: another job ({holder}) is writing to it; if it was killed, try again in "
            f"{max(1, HELD_FOR - age):.0f} s"
        )


def json_object(content: bytes) -> dict[str, Any]:
    """Returns the JSON object in a small file, such as a lock; empty if it is damaged."""
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
        if isinstance(value, dict):
            return value
    return {}


def _renewed(held: Mapping[str, Any], found: StoredObject) -> float:
    """Returns when a lock was last renewed: as it says itself if plausible, else the object's modification time."""
    renewed = held.get("renewed")
    if isinstance(renewed, (int, float)) and 0 <= renewed < time.time() + HELD_FOR:
        return renewed
    return found.modified


class _FileLock(Holding):
    """A file lock, which the system releases however the process ends."""

    def __init__(self, folder: JobFolder, *, settled: bool) -> None:
        self._folder, self._settled = folder, settled
        self._path = os.path.join(folder.path, "lock")
        self._handle = -1

    def __enter__(self) -> Holding:
        with writing(self._folder.path):
            while not self._taken():
                os.close(self._handle)
            try:
                refuse_planted(self._folder.path)
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, str(os.getpid()).encode(), 0)
                if self._settled:
                    settle(self._folder)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._handle)
        with suppress(OSError):
            os.rmdir(self._folder.path)

    def _taken(self) -> bool:
        """Locks the file; returns False if the previous holder removed it meanwhile, so that others do not see it."""
        os.makedirs(self._folder.path, exist_ok=True)
        for path in (self._folder.path, self._path):
            if os.path.islink(path):
                raise OutputError(f"{path}: is a symbolic link, which no job creates; remove it")
        # What somebody else left there must not be followed, and nothing but a lock may be truncated.
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(self._handle)
            raise OutputError(f"{self._path}: is not a lock of beam_cifar; remove it")
        try:
            # Not `lockf`: a process loses such a lock as soon as it closes any other handle of the file.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 64, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise OutputError(f"{self._folder.output}: another job (process {holder}) is writing to it") from None
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        return False
