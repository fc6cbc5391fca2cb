"""The only module that touches paths: finding and opening inputs, staging and moving outputs.

Paths are those of the local file system, or of one that all workers share.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from beam_cifar.errors import BeamCifarError, InputError, JobError, OutputError, UsageError

COPY_BYTES = 1 << 20

# The lists are JSON, one object a line, put together by hand: the encoder takes longer than writing the file.
_quoted = json.encoder.encode_basestring

_cancelled = threading.Event()


def cancel_writes() -> None:
    """Makes every writer of this process stop at its next write; for an interrupted job, whose threads go on."""
    _cancelled.set()


def allow_writes() -> None:
    """The opposite, for the next job of this process."""
    _cancelled.clear()


def _refuse_cancelled() -> None:
    if _cancelled.is_set():
        raise JobError("interrupted")


# --- inputs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """Where the bytes of one input file lie.

    Attributes:
        path: the file, or the archive that holds it.
        offset: where it starts in the archive's (decompressed) stream.
        size: its bytes.
        stamp: size and mtime (ns) of `path` when it was planned; a change in between is refused.
        index: path of the random-access index of a compressed archive; empty for a plain file.
    """

    path: str
    offset: int
    size: int
    stamp: tuple[int, int]
    index: str = ""


def absolute(path: str, what: str) -> str:
    """The absolute form of a user's path; refuses URLs, which are not supported."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path):
        raise UsageError(f"{what} {path!r}: only local or mounted paths are supported, not URLs")
    if not path or "\0" in path:
        raise UsageError(f"{what} {path!r} is not a path")
    return os.path.abspath(os.path.expanduser(path))


@dataclass(frozen=True)
class Entry:
    """What a folder holds: a file or another folder.

    Attributes:
        name: in its folder.
        path: the whole of it.
        is_folder: whether it is one.
        size: bytes of a file.
        mtime: modification time of a file, ns.
    """

    name: str
    path: str
    is_folder: bool
    size: int = 0
    mtime: int = 0


def list_folder(path: str) -> list[Entry]:
    """Lists a folder, in no particular order; hidden names, which editors and systems leave behind, are left out.

    Raises:
        InputError: something that is neither a file nor a folder, or a name that is not Unicode.
        OSError: the folder cannot be read.
    """
    with os.scandir(path) as entries:
        return [_entry(found) for found in entries if not found.name.startswith(".")]


def list_tree(path: str) -> Iterator[Entry]:
    """Yields the files of a folder and of all folders in it, in no particular order; names are relative, with "/".

    Raises:
        InputError: as `list_folder`, or a link that leads to a folder of the tree, which would have no end.
        OSError: a folder cannot be read.
    """
    met: set[tuple[int, int]] = set()
    waiting = [("", path)]
    while waiting:
        prefix, folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in met:
            raise InputError(f"{folder}: a link leads to a folder that is there already; remove the link")
        met.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for found in entries:
                if found.name.startswith("."):
                    continue
                entry = _entry(found)
                if entry.is_folder:
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield replace(entry, name=prefix + entry.name) if prefix else entry


def has_file(path: str, accept: Callable[[str], bool]) -> bool:
    """Whether a folder holds a visible file with such a name; it is read no further than needed."""
    with os.scandir(path) as entries:
        return any(accept(e.name) and not e.name.startswith(".") and not e.is_dir() for e in entries)


def _entry(found: os.DirEntry[str]) -> Entry:
    if not found.name.isascii() and any("\ud800" <= char <= "\udfff" for char in found.name):
        raise InputError(f"{found.path}: has a name that is not valid Unicode; rename it")
    if found.is_dir():
        return Entry(found.name, found.path, True)
    if not found.is_file():
        raise InputError(f"{found.path}: is not a file (a broken link, a pipe or a device); remove or restore it")
    status = found.stat()
    return Entry(found.name, found.path, False, status.st_size, status.st_mtime_ns)


def listing_stamp(entries: Sequence[Entry]) -> tuple[int, int]:
    """A digest of names, sizes and times, and the newest time (ns), to notice that a folder changed."""
    listed = "".join(f"{entry.name}\0{entry.size}\0{entry.mtime}\0" for entry in entries)
    digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "little"), max((entry.mtime for entry in entries), default=0)


def stamp(path: str) -> tuple[int, int]:
    """Size and modification time of a file, to notice that it changed."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def whole_file(path: str) -> Blob:
    """The blob of a plain file."""
    size, mtime = stamp(path)
    return Blob(path, 0, size, (size, mtime))


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns a failure to read into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error


@contextmanager
def open_blob(blob: Blob, name: str) -> Iterator[BinaryIO]:
    """Opens an input file for reading and seeking.

    Raises:
        InputError: it is gone, unreadable, or changed since it was planned.
    """
    from beam_cifar import archives

    with reading(name):
        _refuse_changed(blob, name)
        if blob.index:
            with archives.open_indexed(blob.path, blob.index) as stream:
                # A small buffer: what is read ahead of need may be unpacked in vain.
                yield io.BufferedReader(SubFile(stream, blob.offset, blob.size))
        else:
            with open(blob.path, "rb") as file:
                if blob.offset or blob.size != blob.stamp[0]:
                    yield io.BufferedReader(SubFile(file, blob.offset, blob.size))
                else:
                    yield file
        _refuse_changed(blob, name)


@contextmanager
def mapped(blob: Blob, name: str) -> Iterator[Any]:
    """Opens a plain input file for Arrow, mapped into memory rather than read; raises `InputError` as `open_blob`."""
    import pyarrow as pa

    with reading(name):
        _refuse_changed(blob, name)
        with pa.memory_map(blob.path) as file:
            yield file


def unpack(blob: Blob, name: str, path: str) -> Blob:
    """Copies an input file out of its archive, with the archive's time.

    Raises:
        InputError: the archive is gone, damaged or changed.
        JobError: the copy cannot be written.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open_blob(blob, name) as stream, StagedFile(path, os.path.dirname(path)) as file:
        while chunk := stream.read(COPY_BYTES):
            file.write(chunk)
        if file.bytes_written != blob.size:
            raise InputError(f"{name}: ended at byte {file.bytes_written} of {blob.size}")
        file.commit()
    os.utime(path, ns=(blob.stamp[1], blob.stamp[1]))
    return whole_file(path)


def _refuse_changed(blob: Blob, name: str) -> None:
    if stamp(blob.path) != blob.stamp:
        raise InputError(f"{name}: the file changed while it was being converted; run the job again")


class SubFile(io.RawIOBase):
    """A window on a seekable file: the bytes of one archive member.

    Args:
        file: a seekable binary file.
        offset: where the window starts.
        size: how many bytes it shows.
    """

    def __init__(self, file: Any, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves within the window."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position within the window."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads up to the end of the window."""
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._offset + self._position)
        count: int = self._file.readinto(view[:wanted])
        self._position += count
        return count


# --- the output and its job folder ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobFolder:
    """`OUT.beam_cifar/`, beside the output: everything of a job that is not the data set.

    Attributes:
        output: absolute path of the output directory.
        job_id: a hash of the plan.
    """

    output: str
    job_id: str = ""

    @property
    def path(self) -> str:
        """The folder itself."""
        return self.output + ".beam_cifar"

    @property
    def manifest(self) -> str:
        """Present exactly when the output is complete."""
        return os.path.join(self.path, "manifest.json")

    @property
    def pending_manifest(self) -> str:
        """Written before the tree is moved into place."""
        return os.path.join(self.path, "manifest.pending.json")

    @property
    def work(self) -> str:
        """Everything that is removed when the job ends."""
        return os.path.join(self.path, f"work-{self.job_id}")

    @property
    def tree(self) -> str:
        """The staged data set, which becomes the output by one rename."""
        return os.path.join(self.work, "tree")

    @property
    def parts(self) -> str:
        """Parts that publish joins into shards."""
        return os.path.join(self.work, "parts")

    @property
    def scratch(self) -> str:
        """Where files are written before they get their final names."""
        return os.path.join(self.work, "scratch")

    @property
    def rows(self) -> str:
        """Where rows that the plan chose one by one are written down."""
        return os.path.join(self.work, "rows.arrow")

    def listing(self, name: str) -> str:
        """A list of many files of the output, which a manifest names; staged until that is written."""
        published = os.path.join(self.path, name)
        return published if os.path.exists(published) else self.staged_listing(name)

    def staged_listing(self, name: str) -> str:
        """Where such a list waits."""
        return os.path.join(self.work, name)

    @property
    def index(self) -> str:
        """Where indexes of compressed archives lie while the job runs."""
        return os.path.join(self.path, "index")

    @property
    def replaced_manifest(self) -> str:
        """The manifest of an overwritten output, until the new one is in place."""
        return os.path.join(self.path, "manifest.replaced.json")

    @property
    def replaced(self) -> str:
        """Where an overwritten output waits until the new one is in place."""
        return os.path.join(self.path, "replaced")


class StagedFile(io.RawIOBase):
    """A file that appears whole at its final name, or not at all.

    It is written under a name of its own and renamed on `commit`; a second attempt of the same part replaces
    a file by its equal. Use as a context manager: leaving it without a commit removes the attempt.

    Args:
        final: the path that it gets.
        scratch: a folder on the same file system to write it in.

    Attributes:
        bytes_written: so far.
        files: always one.
    """

    files = 1

    def __init__(self, final: str, scratch: str) -> None:
        super().__init__()
        _refuse_cancelled()
        self._final = final
        self._attempt = os.path.join(scratch, uuid.uuid4().hex)
        os.makedirs(scratch, exist_ok=True)
        self._file = open(self._attempt, "xb", buffering=0)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.bytes_written = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Writes and hashes all of `data`."""
        _refuse_cancelled()
        view = memoryview(data).cast("B")
        self._digest.update(view)
        done = 0
        with writing(self._final):
            while done < len(view):
                done += self._file.write(view[done:])
        self.bytes_written += done
        return done

    def tell(self) -> int:
        """The position, which is always the end."""
        return self.bytes_written

    @property
    def sha256(self) -> str:
        """The hex digest of all bytes written."""
        return self._digest.hexdigest()

    def commit(self) -> None:
        """Moves the file to its final name."""
        _refuse_cancelled()
        self._file.close()
        os.makedirs(os.path.dirname(self._final), exist_ok=True)
        os.replace(self._attempt, self._final)

    def close(self) -> None:
        """Removes the attempt if it was not committed."""
        if not self.closed:
            self._file.close()
            with suppress(OSError):
                os.unlink(self._attempt)
        super().close()


class StagedFiles:
    """Files of a tree that are written one after the other, each whole or not at all.

    Args:
        tree: the folder that their paths are relative to.
        scratch: a folder on the same file system to write them in.

    Attributes:
        made: path, bytes and hex sha256 of each so far.
    """

    def __init__(self, tree: str, scratch: str) -> None:
        self._tree, self._scratch = tree, scratch
        self.made: list[tuple[str, int, str]] = []

    @contextmanager
    def open(self, path: str) -> Iterator[StagedFile]:
        """Starts one, which is completed when this is left without an error."""
        with StagedFile(os.path.join(self._tree, path), self._scratch) as file:
            yield file
            file.commit()
        self.made.append((path, file.bytes_written, file.sha256))


def stage_link(source: str, final: str, scratch: str) -> tuple[int, str]:
    """Gives a file a second name, or copies it where the file system cannot; returns its bytes and hex sha256."""
    _refuse_cancelled()
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


class StagedFolder:
    """Many small files that go straight to their places in the staged tree, and a list of them.

    A file's name and bytes follow from its task: an attempt overwrites what an earlier one left with the same bytes,
    and never makes a file shorter on the way, so that a late attempt cannot harm a tree that is being published.

    Args:
        folder: where the files go.
        listing: the path that the list gets, one JSON object a line.
        scratch: a folder on the same file system to write the list in.

    Attributes:
        files: written so far.
        bytes_written: of these.
    """

    def __init__(self, folder: str, listing: str, scratch: str) -> None:
        self._folder = folder
        self._listing = StagedFile(listing, scratch)
        self._made: dict[str, str] = {}
        self.files = 0
        self.bytes_written = 0

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._listing.close()

    def add(self, files: Iterable[tuple[str, str, Any, Mapping[str, str]]]) -> None:
        """Writes some files.

        Args:
            files: of each the folder, relative to this one, with "/"; its name; its content; and what the list says of
                it besides path, bytes and sha256.
        """
        listed = []
        for folder, name, data, facts in files:
            _write_in_place(f"{self._existing(folder)}/{name}", data)
            digest = hashlib.sha256(data).hexdigest()
            path = f"{folder}/{name}" if folder else name
            listed.append(f'{{"path": {_quoted(path)}, "bytes": {len(data)}, "sha256": "{digest}"')
            listed += (f", {_quoted(key)}: {_quoted(value)}" for key, value in facts.items())
            listed.append("}\n")
            self.bytes_written += len(data)
            self.files += 1
        self._listing.write("".join(listed).encode("utf-8", "surrogatepass"))

    def _existing(self, folder: str) -> str:
        """The path of a folder, which is made if it does not exist."""
        path = self._made.get(folder)
        if path is None:
            _refuse_cancelled()
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
    _refuse_cancelled()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            done = os.write(handle, data)
            while done < len(data):
                done += os.write(handle, memoryview(data)[done:])
        finally:
            os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error


def join_listings(paths: Sequence[str], listing: str, scratch: str) -> None:
    """Puts several lists one after the other."""
    with StagedFile(listing, scratch) as file:
        for path in paths:
            with open(path, "rb") as part:
                while chunk := part.read(COPY_BYTES):
                    file.write(chunk)
        file.commit()


def read_listing(path: str) -> Iterator[dict[str, Any]]:
    """Yields what a list says of each file."""
    with open(path, "rb") as file:
        for line in file:
            entry: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
            yield entry


def write_whole(path: str, data: bytes, scratch: str) -> None:
    """Writes a small file so that it appears whole; its bytes are on disk before its name is."""
    with StagedFile(path, scratch) as file:
        file.write(data)
        os.fsync(file._file.fileno())
        file.commit()


def file_digest(path: str) -> tuple[int, str]:
    """Bytes and hex sha256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(COPY_BYTES):
            digest.update(chunk)
        return file.tell(), digest.hexdigest()


def remove_tree(path: str) -> None:
    """Removes a folder, best effort: it is moved aside first, so that nobody finds half of it."""
    if not os.path.lexists(path):
        return
    doomed = f"{path}.{uuid.uuid4().hex[:8]}.removed"
    with suppress(OSError):
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def is_occupied(path: str) -> bool:
    """Whether a path exists and is anything but an empty directory."""
    if not os.path.lexists(path):
        return False
    return not os.path.isdir(path) or bool(os.listdir(path))


def check_apart(source: str, output: str) -> None:
    """Refuses an output that is the input, inside it, or around it."""
    real_source, real_output = os.path.realpath(source), os.path.realpath(output)
    folder = JobFolder(output).path
    if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
        raise UsageError(f"{folder!r}, where the job is staged, is not a directory; choose another output")
    if real_source == os.path.realpath(folder) or real_source.startswith(os.path.realpath(folder) + os.sep):
        raise UsageError(f"the input {source!r} lies where a job for {output!r} is staged; choose another output")
    if real_source == real_output:
        raise UsageError(f"the output {output!r} is the input itself; choose another one")
    if real_output.startswith(real_source.rstrip(os.sep) + os.sep):
        raise UsageError(f"the output {output!r} is inside the input {source!r}; choose one outside it")
    if real_source.startswith(real_output.rstrip(os.sep) + os.sep):
        raise UsageError(f"the input {source!r} is inside the output {output!r}; choose another output")


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


class Lock:
    """Holds the job folder for one job; the system lets go of it however the process ends.

    Not a generator: one that is collected at the interpreter's end would clean up below a job that still runs
    elsewhere.

    Args:
        folder: of the job; made if missing, and removed with the lock if nothing is left in it.

    Raises:
        OutputError: on entering, if another job holds it.
        JobError: it cannot be made.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._path = os.path.join(folder.path, "lock")
        self._handle = -1

    def __enter__(self) -> None:
        with writing(self._folder.path):
            while not self._taken():
                os.close(self._handle)
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, str(os.getpid()).encode(), 0)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._handle)
        with suppress(OSError):
            os.rmdir(self._folder.path)

    def _taken(self) -> bool:
        """Takes the lock file, and looks whether it is the one that others will see: a holder removes it on leaving."""
        os.makedirs(self._folder.path, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 64, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise OutputError(f"{self._folder.output}: another job (process {holder}) is writing to it") from None
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        return False


def has_content(path: str, content: bytes) -> bool:
    """Whether a file holds exactly these bytes."""
    try:
        with open(path, "rb") as file:
            return file.read() == content
    except FileNotFoundError:
        return False


def has_sizes(folder: str, files: Iterable[tuple[str, int]]) -> bool:
    """Whether every one of some files, each (path in a folder, bytes), is there in its size."""
    try:
        return all(os.path.getsize(os.path.join(folder, path)) == size for path, size in files)
    except OSError:
        return False


def count_files(folder: str) -> int:
    """How many files there are in a folder and its folders."""
    return sum(len(names) for _, _, names in os.walk(folder))


def publish_tree(
    folder: JobFolder,
    manifest: bytes,
    is_ours: Callable[[str, bytes], bool],
    *,
    overwrite: bool,
    listings: Sequence[str] = (),
) -> None:
    """Makes the staged tree the output by one rename, then writes the manifest.

    Each step leaves a state from which the same call, or `restore` and a new job, goes on.

    Args:
        folder: of the job.
        manifest: its content.
        is_ours: whether an output is the one of a manifest, left by an earlier call.
        overwrite: whether any other output may be replaced.
        listings: names of the lists of files that the manifest names.

    Raises:
        OutputError: the output exists and must not be replaced.
    """
    _refuse_cancelled()
    occupied = is_occupied(folder.output)
    ours = occupied and is_ours(folder.output, manifest)
    if occupied and not ours and not overwrite:
        raise OutputError(f"{folder.output}: something appeared there while the job ran; nothing was replaced")
    for name in listings:
        with suppress(FileNotFoundError):
            os.replace(folder.staged_listing(name), os.path.join(folder.path, name))
    write_whole(folder.pending_manifest, manifest, folder.scratch)
    if ours:
        promote(folder)  # an earlier call got this far, or further
        return
    if occupied:
        remove_tree(folder.replaced)
        with suppress(FileNotFoundError):
            os.replace(folder.manifest, folder.replaced_manifest)
        os.rename(folder.output, folder.replaced)
    else:
        with suppress(FileNotFoundError):
            os.unlink(folder.manifest)
        if os.path.isdir(folder.output):
            os.rmdir(folder.output)
    os.makedirs(os.path.dirname(folder.output), exist_ok=True)
    os.rename(folder.tree, folder.output)
    promote(folder)


def promote(folder: JobFolder) -> None:
    """The last step of publishing: the pending manifest becomes the manifest, what was replaced goes."""
    os.replace(folder.pending_manifest, folder.manifest)
    with suppress(FileNotFoundError):
        os.unlink(folder.replaced_manifest)
    remove_tree(folder.replaced)
    _remove_old_listings(folder)


def _remove_old_listings(folder: JobFolder) -> None:
    """Removes the lists that no manifest names."""
    named = b""
    for manifest in (folder.manifest, folder.pending_manifest, folder.replaced_manifest):
        with suppress(FileNotFoundError), open(manifest, "rb") as file:
            named += file.read()
    with suppress(FileNotFoundError):
        for name in os.listdir(folder.path):
            if re.fullmatch(r"files-[0-9a-f]{16}\.jsonl", name) and name.encode() not in named:
                with suppress(OSError):
                    os.unlink(os.path.join(folder.path, name))


def recover(path: str) -> None:
    """Puts back a data set that a killed job had moved aside from its place, unless another job is at it."""
    folder = JobFolder(path)
    if not os.path.lexists(path) and os.path.isdir(folder.replaced):
        with suppress(OutputError, JobError), Lock(folder):
            restore(folder)


def restore(folder: JobFolder) -> None:
    """Puts back an output that a killed job had moved aside, and not yet replaced, with its manifest."""
    if os.path.lexists(folder.replaced) and not os.path.lexists(folder.output):
        os.rename(folder.replaced, folder.output)
    if not os.path.lexists(folder.replaced) and os.path.lexists(folder.replaced_manifest):
        os.replace(folder.replaced_manifest, folder.manifest)


def clear_leftovers(folder: JobFolder) -> None:
    """Removes what this job, or killed ones before it, staged; keeps what an unfinished publish needs."""
    restore(folder)
    unfinished = os.path.lexists(folder.output) and not os.path.exists(folder.manifest)
    kept = {"lock", os.path.basename(folder.manifest)}
    if unfinished:
        needed = (folder.pending_manifest, folder.replaced, folder.replaced_manifest)
        kept |= {os.path.basename(path) for path in needed}
    with suppress(FileNotFoundError):
        for name in set(filter(_is_own, os.listdir(folder.path))) - kept:
            path = os.path.join(folder.path, name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_tree(path)
            else:
                with suppress(OSError):
                    os.unlink(path)
    _remove_old_listings(folder)


def _is_own(name: str) -> bool:
    """Whether a name in a job folder is one that this module gives; whatever else lies there is somebody's."""
    own = ("index", "replaced", "manifest.pending.json", "manifest.replaced.json")
    return name in own or name.startswith("work-") or name.endswith(".removed")


def free_bytes(path: str) -> int:
    """Bytes free on the file system that will hold `path`, which need not exist yet."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free
