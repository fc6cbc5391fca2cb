"""Atomic writing: a file appears complete under its final name, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from beam_cifar.errors import OutputError
from beam_cifar.storage import objects
from beam_cifar.storage.client import concurrently
from beam_cifar.storage.files import COPY_BYTES, exists, file_digest, is_file, open_file, unwritable, writing
from beam_cifar.storage.guard import Guard
from beam_cifar.storage.paths import is_url

# Lists of files are JSON Lines, formatted by hand: the JSON encoder takes longer than writing the file.
_quoted = json.encoder.encode_basestring
_UNGUARDED = Guard()


class StagedFile(io.RawIOBase):
    """A file that appears complete under its final name, or not at all.

    It is written to a unique temporary file, which `commit` renames, or uploads to an object store; a second attempt of
    the same part replaces the file with an identical one. Use it as a context manager: leaving it without a commit
    removes the temporary file.

    Args:
        final: final path.
        scratch: folder for temporary files on the same file system; not used for an object store.
        guard: permission to write, of the job that the file belongs to.
        hashed: whether `sha256` will be asked for.

    Attributes:
        bytes_written: bytes written so far.
        files: always 1.
    """

    files = 1

    def __init__(self, final: str, scratch: str, guard: Guard = _UNGUARDED, *, hashed: bool = True) -> None:
        super().__init__()
        self._final, self._guard = final, guard
        # Unique per attempt: a runner may retry a part while the first attempt is still writing.
        self._attempt = "" if is_url(final) else os.path.join(scratch, uuid.uuid4().hex)
        with guard.writing(), writing(final):
            if self._attempt:
                os.makedirs(scratch, exist_ok=True)
                self._file: Any = open(self._attempt, "xb", buffering=0)  # noqa: SIM115
            else:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._digest = hashlib.sha256() if hashed else None
        self.bytes_written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Writes all of `data`, and adds it to the digest."""
        self._guard.refuse_ended()
        view = memoryview(data).cast("B")
        if self._digest is not None:
            self._digest.update(view)
        done = 0
        with writing(self._final):
            while done < len(view):
                done += self._file.write(view[done:])
        self.bytes_written += done
        return done

    def tell(self) -> int:
        return self.bytes_written

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes written."""
        if self._digest is None:
            raise ValueError(f"{self._final}: was opened without a digest")
        return self._digest.hexdigest()

    def commit(self) -> None:
        """Moves the file to its final name. Raises `JobError`."""
        with self._guard.writing():
            self._guard.refuse_lost()
            with writing(self._final):
                if not self._attempt:
                    objects.upload(self._final, self._file, self.bytes_written)
                self._file.close()  # without `sync`: a resumed job detects data lost in a power failure by its digest
                if self._attempt:
                    os.makedirs(os.path.dirname(self._final), exist_ok=True)
                    os.replace(self._attempt, self._final)

    def sync(self) -> None:
        """Flushes what was written so far to disk."""
        with writing(self._final):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Removes the temporary file if it was not committed."""
        if not self.closed:
            self._file.close()
            if self._attempt:
                with suppress(OSError):
                    os.unlink(self._attempt)
        super().close()


class StagedFiles:
    """Files of a tree, written atomically one after the other; arguments are as in `StagedFile`.

    Attributes:
        made: path, size and hex sha256 of each file so far.
    """

    def __init__(self, tree: str, scratch: str, guard: Guard = _UNGUARDED) -> None:
        self._tree, self._scratch, self._guard = tree, scratch, guard
        self.made: list[tuple[str, int, str]] = []

    @contextmanager
    def open(self, path: str) -> Iterator[StagedFile]:
        """Opens a new file, which is committed on leaving the context without an error."""
        with StagedFile(os.path.join(self._tree, path), self._scratch, self._guard) as file:
            yield file
            file.commit()
        self.made.append((path, file.bytes_written, file.sha256))


def stage_link(source: str, final: str, scratch: str, guard: Guard = _UNGUARDED) -> tuple[int, str]:
    """Creates a hard link to a file, or a copy if that is not supported; returns its size and hex sha256."""
    attempt = os.path.join(scratch, uuid.uuid4().hex)
    with guard.writing(), writing(final):
        os.makedirs(scratch, exist_ok=True)
        os.makedirs(os.path.dirname(final), exist_ok=True)
        try:
            os.link(source, attempt)
        except OSError:
            shutil.copy2(source, attempt)
        os.replace(attempt, final)
        with suppress(FileNotFoundError):
            os.unlink(attempt)  # renaming a hard link onto another one of the same file does nothing
    return file_digest(final)


_File = tuple[str, str, Any, Mapping[str, str]]


class StagedFolder:
    """Many small files, written directly to their places in the staged tree, and a list of them.

    A file's name and bytes depend only on its task, so a retry overwrites a file with the same bytes. It never
    truncates one on the way, so that a late attempt cannot damage a tree that is being published.

    Args:
        folder: where the files go.
        listing: path of the list, in JSON Lines; written as a `StagedFile`, to which the other arguments are passed.

    Attributes:
        files: number of files written so far.
        bytes_written: their total size.
    """

    def __init__(self, folder: str, listing: str, scratch: str, guard: Guard = _UNGUARDED) -> None:
        self._folder, self._guard = folder, guard
        self._listing = StagedFile(listing, scratch, guard)
        self._made: dict[str, str] = {}
        self.files = 0
        self.bytes_written = 0

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._listing.close()

    def add(self, files: Iterable[_File]) -> None:
        """Writes files, each given as (subfolder, name, content, additional facts for the list)."""
        listed = []
        for folder, name, data, facts in self._written(files):
            digest = hashlib.sha256(data).hexdigest()
            path = f"{folder}/{name}" if folder else name
            listed.append(f'{{"path": {_quoted(path)}, "bytes": {len(data)}, "sha256": "{digest}"')
            listed += (f", {_quoted(key)}: {_quoted(value)}" for key, value in facts.items())
            listed.append("}\n")
            self.bytes_written += len(data)
            self.files += 1
        self._listing.write("".join(listed).encode("utf-8", "surrogatepass"))

    def _written(self, files: Iterable[_File]) -> Iterator[_File]:
        """Writes the files, and yields each one afterwards."""
        if is_url(self._folder):
            self._guard.refuse_lost()
            yield from concurrently(self._put, files)
            return
        for file in files:
            with self._guard.writing():
                _write_in_place(f"{self._existing(file[0])}/{file[1]}", file[2])
            yield file

    def _put(self, file: _File) -> _File:
        folder, name, data, _ = file
        url = "/".join(part for part in (self._folder.rstrip("/"), folder, name) if part)
        with self._guard.writing(), writing(url):
            objects.write(url, data)
        return file

    def _existing(self, folder: str) -> str:
        """Returns the path of a subfolder, creating it if it does not exist."""
        path = self._made.get(folder)
        if path is None:
            path = os.path.join(self._folder, folder)
            with writing(path):
                os.makedirs(path, exist_ok=True)
            self._made[folder] = path
        return path

    @property
    def sha256(self) -> str:
        """Hex digest of the list."""
        return self._listing.sha256

    def commit(self) -> None:
        """Moves the list to its final name."""
        self._listing.commit()


def _write_in_place(path: str, data: Any) -> None:
    # No temporary file and rename: that saves a call for each of a million images, and all attempts write the same.
    # O_NOFOLLOW: a symbolic link could lead out of the tree.
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            there = os.fstat(handle)
            if there.st_nlink > 1:  # a file somewhere else, which would be overwritten
                raise OSError(31, "is a hard link, which no job creates", path)
            done = os.write(handle, data)
            while done < len(data):
                done += os.write(handle, memoryview(data)[done:])
            if there.st_size > len(data):
                os.ftruncate(handle, len(data))  # the file was damaged: no attempt writes more than this
        finally:
            os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error


def join_listings(paths: Sequence[str], file: StagedFile) -> None:
    """Concatenates lists of files into a new one."""
    with file:
        for path in paths:
            with open_file(path) as part:
                while chunk := part.read(COPY_BYTES):
                    file.write(chunk)
        file.commit()


def read_listing(path: str) -> Iterator[dict[str, Any]]:
    """Yields the entry of each file in a list. Raises `ValueError` if it is damaged, or leads out of its folder."""
    with io.BufferedReader(cast(io.RawIOBase, open_file(path)), COPY_BYTES) as file:
        for line in file:
            try:
                entry = json.loads(line.decode("utf-8", "surrogatepass"))
            except RecursionError as error:
                raise ValueError("nested too deeply") from error
            yield inside(entry)


def inside(value: Any) -> dict[str, Any]:
    """Returns the entry of a file in a manifest or list; raises `ValueError` if it names none, or one elsewhere."""
    entry: dict[str, Any] = value if isinstance(value, dict) else {}
    path = entry.get("path")
    if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"not a path inside the output: {path!r:.80}")
    return entry


def write_whole(path: str, data: bytes, scratch: str, guard: Guard = _UNGUARDED) -> None:
    """Writes a small file atomically; its content is on disk before its name."""
    with StagedFile(path, scratch, guard) as file:
        file.write(data)
        file.sync()
        file.commit()


def write_new(path: str, chunks: Iterable[bytes]) -> None:
    """Writes a file that does not exist yet, atomically; leaves one that already has the same content.

    Raises:
        OutputError: the file exists with other content.
        JobError: it cannot be written.
    """
    with StagedFile(path, os.path.dirname(path)) as file:
        for chunk in chunks:
            file.write(chunk)
        if not exists(path):
            file.sync()
            file.commit()
        elif not is_file(path) or file_digest(path) != (file.bytes_written, file.sha256):
            raise OutputError(f"{path}: already exists with other content; remove it, or name another file")
