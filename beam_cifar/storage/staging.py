"""Writing: files that appear whole at their final names, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from beam_cifar.errors import BeamCifarError, JobError
from beam_cifar.storage import objects
from beam_cifar.storage.client import concurrently
from beam_cifar.storage.files import COPY_BYTES, file_digest, is_file, open_file
from beam_cifar.storage.paths import is_url

# The lists are JSON, one object a line, put together by hand: the encoder takes longer than writing the file.
_quoted = json.encoder.encode_basestring

_cancelled = threading.Event()


def cancel_writes() -> None:
    """Makes every writer of this process stop at its next write; for an interrupted job, whose threads go on."""
    _cancelled.set()


def allow_writes() -> None:
    """The opposite, for the next job of this process."""
    _cancelled.clear()


def refuse_cancelled() -> None:
    """Raises `JobError` if the job was interrupted."""
    if _cancelled.is_set():
        raise JobError("interrupted")


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns a failure to write into one line that names the output; other errors pass."""
    try:
        yield
    except BeamCifarError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str, error: OSError) -> JobError:
    return JobError(f"{path}: cannot be written: {error.strerror or error}")


class StagedFile(io.RawIOBase):
    """A file that appears whole at its final name, or not at all.

    It is written under a name of its own and renamed on `commit`, or, for an object store, without a name and uploaded
    then; a second attempt of the same part replaces a file by its equal. Use as a context manager: leaving it without
    a commit removes the attempt.

    Args:
        final: the path that it gets.
        scratch: a folder on the same file system to write it in; not used for an object store.
        only_while: a file without which `commit` fails: it is removed when the job loses its output to another one.

    Attributes:
        bytes_written: so far.
        files: always one.
    """

    files = 1

    def __init__(self, final: str, scratch: str, only_while: str = "") -> None:
        super().__init__()
        refuse_cancelled()
        self._final, self._only_while = final, only_while
        # A name that no other attempt has: a runner may try a part again while the first attempt still writes.
        self._attempt = "" if is_url(final) else os.path.join(scratch, uuid.uuid4().hex)
        if self._attempt:
            os.makedirs(scratch, exist_ok=True)
            self._file: Any = open(self._attempt, "xb", buffering=0)  # noqa: SIM115
        else:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.bytes_written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Writes and hashes all of `data`."""
        refuse_cancelled()
        view = memoryview(data).cast("B")
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
        """The hex digest of all bytes written."""
        return self._digest.hexdigest()

    def commit(self) -> None:
        """Moves the file to its final name."""
        refuse_cancelled()
        refuse_lost(self._only_while)
        if not self._attempt:
            with writing(self._final):
                objects.upload(self._final, self._file, self.bytes_written)
            self._file.close()
            return
        self._file.close()  # without `sync`: what power failure loses, a resumed job misses by its digest
        os.makedirs(os.path.dirname(self._final), exist_ok=True)
        os.replace(self._attempt, self._final)

    def sync(self) -> None:
        """Has what was written so far on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Removes the attempt if it was not committed."""
        if not self.closed:
            self._file.close()
            if self._attempt:
                with suppress(OSError):
                    os.unlink(self._attempt)
        super().close()


def refuse_lost(path: str) -> None:
    """Raises `JobError` if a file is gone that is there as long as a job may write to its output; "" is none."""
    if path and not is_file(path):
        raise JobError(f"{path}: is gone: another job has taken the output, or what this one left was cleaned up")


class StagedFiles:
    """Files of a tree that are written one after the other, each whole or not at all; arguments as of `StagedFile`.

    Attributes:
        made: path, bytes and hex sha256 of each so far.
    """

    def __init__(self, tree: str, scratch: str, only_while: str = "") -> None:
        self._tree, self._scratch, self._only_while = tree, scratch, only_while
        self.made: list[tuple[str, int, str]] = []

    @contextmanager
    def open(self, path: str) -> Iterator[StagedFile]:
        """Starts one, which is completed when this is left without an error."""
        with StagedFile(os.path.join(self._tree, path), self._scratch, self._only_while) as file:
            yield file
            file.commit()
        self.made.append((path, file.bytes_written, file.sha256))


def stage_link(source: str, final: str, scratch: str) -> tuple[int, str]:
    """Gives a file a second name, or copies it where the file system cannot; returns its bytes and hex sha256."""
    refuse_cancelled()
    attempt = os.path.join(scratch, uuid.uuid4().hex)
    with writing(final):
        os.makedirs(scratch, exist_ok=True)
        os.makedirs(os.path.dirname(final), exist_ok=True)
        try:
            os.link(source, attempt)
        except OSError:
            shutil.copy2(source, attempt)
        os.replace(attempt, final)
        with suppress(FileNotFoundError):
            os.unlink(attempt)  # renaming a name onto another of the same file does nothing
    return file_digest(final)


_File = tuple[str, str, Any, Mapping[str, str]]


class StagedFolder:
    """Many small files that go straight to their places in the staged tree, and a list of them.

    A file's name and bytes follow from its task: an attempt overwrites what an earlier one left with the same bytes,
    and never makes a file shorter on the way, so that a late attempt cannot harm a tree that is being published.

    Args:
        folder: where the files go.
        listing: the path that the list gets, one JSON object a line; it is a `StagedFile`, with what else that takes.

    Attributes:
        files: written so far.
        bytes_written: of these.
    """

    def __init__(self, folder: str, listing: str, scratch: str, only_while: str = "") -> None:
        self._folder, self._only_while = folder, only_while
        self._listing = StagedFile(listing, scratch, only_while)
        self._made: dict[str, str] = {}
        self.files = 0
        self.bytes_written = 0

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._listing.close()

    def add(self, files: Iterable[_File]) -> None:
        """Writes files: of each its folder in this one, name, content, and what else the list says of it."""
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
        """Writes files, and yields them."""
        if is_url(self._folder):
            refuse_lost(self._only_while)
            yield from concurrently(self._put, files)
            return
        for file in files:
            _write_in_place(f"{self._existing(file[0])}/{file[1]}", file[2])
            yield file

    def _put(self, file: _File) -> _File:
        folder, name, data, _ = file
        refuse_cancelled()
        url = "/".join(part for part in (self._folder.rstrip("/"), folder, name) if part)
        with writing(url):
            objects.write(url, data)
        return file

    def _existing(self, folder: str) -> str:
        """The path of a folder, which is made if it does not exist."""
        path = self._made.get(folder)
        if path is None:
            refuse_cancelled()
            path = os.path.join(self._folder, folder)
            with writing(path):
                os.makedirs(path, exist_ok=True)
            self._made[folder] = path
        return path

    @property
    def sha256(self) -> str:
        """The hex digest of the list."""
        return self._listing.sha256

    def commit(self) -> None:
        """Moves the list to its final name."""
        self._listing.commit()


def _write_in_place(path: str, data: Any) -> None:
    refuse_cancelled()
    # No other name first, and no rename: one call less for each of a million images, and every attempt writes the same.
    # A link is not followed: it would lead out of the tree.
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            done = os.write(handle, data)
            while done < len(data):
                done += os.write(handle, memoryview(data)[done:])
            if os.fstat(handle).st_size > len(data):
                os.ftruncate(handle, len(data))  # damaged, as no attempt writes more
        finally:
            os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error


def join_listings(paths: Sequence[str], listing: str, scratch: str) -> None:
    """Puts several lists one after the other."""
    with StagedFile(listing, scratch) as file:
        for path in paths:
            with open_file(path) as part:
                while chunk := part.read(COPY_BYTES):
                    file.write(chunk)
        file.commit()


def read_listing(path: str) -> Iterator[dict[str, Any]]:
    """Yields what a list says of each file."""
    with io.BufferedReader(cast(io.RawIOBase, open_file(path)), COPY_BYTES) as file:
        for line in file:
            entry: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
            yield entry


def write_whole(path: str, data: bytes, scratch: str) -> None:
    """Writes a small file so that it appears whole; its bytes are on disk before its name is."""
    with StagedFile(path, scratch) as file:
        file.write(data)
        file.sync()
        file.commit()
