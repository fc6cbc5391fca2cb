"""Who made a job folder: what somebody else left beside a dataset is neither followed nor taken for a job's own."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress

from beam_cifar.errors import OutputError
from beam_cifar.storage import objects
from beam_cifar.storage.job_folder import JobFolder
from beam_cifar.storage.paths import is_url

NOTE_BYTES = 1 << 20


def is_own_folder(path: str) -> bool:
    """Returns whether a path is a folder of this user, and no link, that others cannot write to."""
    with suppress(OSError):
        return is_closed_folder(path) and os.lstat(path).st_uid == os.geteuid()
    return False


def is_closed_folder(path: str) -> bool:
    """Returns whether a path is a folder, and no link, that not everybody can write to; workers may be another user."""
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        return stat.S_ISDIR(mode) and not mode & stat.S_IWOTH
    return False


def refuse_planted(folder: str) -> None:
    """Refuses a job folder with something that no job of this user made, and that a job would follow or take over.

    Raises:
        OutputError: the folder, or something in it, is another user's, a link, a pipe or a device.
    """
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise OutputError(f"{folder}: is a symbolic link, which no job creates; remove it")
    # Some mounts show one owner for all files, so what counts is the owner of a file that is created now.
    own = status.st_uid if status.st_uid == os.geteuid() else _owner_of_new(folder)
    if status.st_uid != own:
        raise OutputError(f"{folder}: belongs to another user (uid {status.st_uid}); run as that user, or remove it")
    for entry, depth in _entries(folder):
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            kind = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
            raise OutputError(f"{entry.path}: is {kind}, which no job creates; remove it")
        # Where others cannot write, files of another user are those of workers, which may run under another id.
        if not depth and status.st_mode & stat.S_IWOTH and entry.stat(follow_symlinks=False).st_uid != own:
            raise OutputError(f"{entry.path}: belongs to another user, and anybody can write to its folder; remove it")


def _owner_of_new(folder: str) -> int:
    path = os.path.join(folder, uuid.uuid4().hex)
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(handle).st_uid
    finally:
        os.close(handle)
        os.unlink(path)


def _entries(folder: str) -> Iterator[tuple[os.DirEntry[str], int]]:
    """Yields what is in a job folder and how deep, but not what is in a replaced output, which may be anything."""
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry, depth
                if entry.is_dir(follow_symlinks=False) and not (depth == 0 and entry.name.startswith("replaced")):
                    waiting.append((entry.path, depth + 1))


def read_note(path: str, limit: int = NOTE_BYTES) -> bytes:
    """Returns the first bytes of a small file in a job folder. Raises `OSError`, also for a link, pipe or device."""
    if is_url(path):
        return objects.fetch(path)[0]
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(22, "not a file", path)
        return file.read(limit)


def read_manifest(folder: JobFolder, limit: int) -> bytes | None:
    """Returns the first bytes of the manifest of a dataset; None unless its owner or this user left it there.

    Raises:
        OSError: it cannot be read, or is a link, pipe or device.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        if not is_url(folder.path):
            owners = {os.geteuid()}
            with suppress(OSError):
                owners.add(os.stat(folder.output).st_uid)
            beside = [os.lstat(path) for path in (folder.path, folder.manifest)]
            if not {status.st_uid for status in beside} <= owners or not stat.S_ISDIR(beside[0].st_mode):
                return None
        return read_note(folder.manifest, limit)
    return None
