"""Presents the members of a `.zip` or `.tar` as files and folders, read in place, so that every format can be in one.

A member has a URL, `zip:///data/set.zip!/train/cat/1.png`, which only this package makes. All that reads objects reads
members too: to it, an archive is a bucket that cannot be written.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn, TypeAlias

from beam_cifar.data.text import is_unicode
from beam_cifar.errors import InputError, JobError
from beam_cifar.naming.components import is_litter
from beam_cifar.storage import archives, files
from beam_cifar.storage.blobs import local_copy
from beam_cifar.storage.client import ChangedError, Client, StoredObject
from beam_cifar.storage.gzip_index import open_gzip, reading_archive
from beam_cifar.storage.paths import Stamp, archive_url, is_url, split_url
from beam_cifar.storage.staging import StagedFile
from beam_cifar.storage.tar import tar_entries
from beam_cifar.storage.zip import ZipMember, data_start, zip_bytes, zip_entries

MAX_IN_MEMORY: Final = 32 << 20
"""A compressed member is decompressed as a whole; a larger one in a temporary file."""
KEPT: Final = 4
"""How many decompressed members are kept: rows are read in many small steps."""


class TarMember(NamedTuple):
    """Where the bytes of a member of a tar file are, and how many."""

    start: int
    size: int


_Member: TypeAlias = ZipMember | TarMember
_Tree: TypeAlias = dict[str, dict[str, _Member | None]]
"""What is in each folder, by its path with "/" at the end, "" for the archive: members by name, None for folders."""


def archive_place(path: str, index_dir: str) -> str:
    """Returns the URL of an archive's content as a folder.

    A compressed tar file gives no access to its members, so it is decompressed once, into `index_dir`.

    Raises:
        InputError: the archive is damaged, a decompression bomb, or has members that are not read; see `ArchiveClient`.
        JobError: the disk is full.
    """
    if archives.is_zip(path):
        made = archive_url("zip", path)
    else:
        with reading_archive(path):
            packed = archives.is_gzip(path)
        made = archive_url("tar", _decompressed(path, index_dir) if packed else path)
    scheme, inner, _ = split_url(made)
    with reading_archive(path):
        if _tree(scheme, inner, files.stamp(inner)) == {"": {}}:
            raise InputError(f"{path}: no files in the archive; expected a dataset")
    return made


def _decompressed(path: str, index_dir: str) -> str:
    """Returns the path of a tar file in `index_dir` with the content of a compressed one."""
    members, _ = archives.list_members(path, index_dir)  # refuses bombs
    stamp = files.stamp(path)
    digest = hashlib.sha256(f"{path}\0{stamp}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = os.path.join(index_dir, digest, f"{archives.stem(path)}.tar")
    if files.exists(target):
        return target
    needed = max((member.offset + member.size for member in members), default=0)
    if needed > files.free_bytes(index_dir):
        raise JobError(f"{index_dir}: needs {needed} bytes to decompress {path}, which are not free; decompress it")
    files.make_folder(os.path.dirname(target))
    with (
        reading_archive(path),
        local_copy(path) as copy,
        open_gzip(copy) as stream,
        StagedFile(target, os.path.dirname(target)) as file,
    ):
        while chunk := stream.read(files.COPY_BYTES):
            file.write(chunk)
        file.commit()
    if not is_url(target):
        os.utime(target, ns=(stamp[1], stamp[1]))  # so that a resumed job finds its input unchanged
    return target


class ArchiveClient(Client):
    """The members of local or stored archives as objects; the bucket is the archive's path. Nothing can be written.

    Args:
        scheme: "zip" or "tar".
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def head(self, bucket: str, key: str) -> StoredObject | None:
        stamp = files.stamp(bucket)
        folder, _, name = key.rpartition("/")
        member = self._folder(bucket, stamp, f"{folder}/" if folder else "").get(name)
        return None if member is None else _stored(key, member, stamp)

    def read(self, bucket: str, found: StoredObject, start: int, stop: int) -> bytes:
        member = self._member(bucket, found.key, found)
        if isinstance(member, ZipMember) and member.is_deflated:
            content: bytes = _inflated(bucket, files.stamp(bucket), member, f"{bucket}:{found.key}")[start:stop]
            return content
        with files.open_file(bucket) as file:
            at = data_start(file, member, f"{bucket}:{found.key}") if isinstance(member, ZipMember) else member.start
            file.seek(at + start)
            return file.read(stop - start)

    def fetch(self, bucket: str, key: str) -> tuple[bytes, StoredObject]:
        found = self.head(bucket, key)
        if found is None:
            raise FileNotFoundError(2, "no such member", f"{bucket}:{key}")
        member = self._member(bucket, key, found)
        if not isinstance(member, ZipMember):
            return self.read(bucket, found, 0, found.size), found
        with files.open_file(bucket) as file:
            return b"".join(zip_bytes(file, member, f"{bucket}:{key}")), found

    def listing(self, bucket: str, prefix: str, *, deep: bool) -> Iterator[StoredObject | str]:
        stamp = files.stamp(bucket)
        waiting = [prefix]
        while waiting:
            folder = waiting.pop()
            found = self._folder(bucket, stamp, folder)
            if not found and folder in _tree(self._scheme, bucket, stamp):
                yield StoredObject(folder, 0, "", 0)  # as programs mark empty folders in object stores
            for name in sorted(found):
                member = found[name]
                if member is not None:
                    yield _stored(folder + name, member, stamp)
                elif deep:
                    waiting.append(f"{folder}{name}/")
                else:
                    yield f"{folder}{name}/"

    def _folder(self, archive: str, stamp: Stamp, folder: str) -> Mapping[str, _Member | None]:
        return _tree(self._scheme, archive, stamp).get(folder, {})

    def _member(self, archive: str, key: str, found: StoredObject) -> _Member:
        stamp = files.stamp(archive)
        folder, _, name = key.rpartition("/")
        member = self._folder(archive, stamp, f"{folder}/" if folder else "").get(name)
        if member is None or _stored(key, member, stamp) != found:
            raise ChangedError(116, "the archive changed", archive)
        return member

    def put(self, bucket: str, key: str, data: bytes, *, replaces: str | None = None) -> bool:
        _refuse_writing(bucket)

    def upload(self, bucket: str, key: str, file: BinaryIO, size: int) -> None:
        _refuse_writing(bucket)

    def copy(self, bucket: str, key: str, target: str) -> None:
        _refuse_writing(bucket)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        _refuse_writing(bucket)


def _refuse_writing(archive: str) -> NoReturn:
    raise OSError(30, "archives are not written", archive)


def _stored(key: str, member: _Member, stamp: Stamp) -> StoredObject:
    return StoredObject(key, member.size, f"{stamp[:2]} {tuple(member)}", stamp[1] // 10**9)


@functools.lru_cache(maxsize=8)
def _tree(scheme: str, archive: str, stamp: Stamp) -> _Tree:
    """Returns the folders of an archive, without what systems leave behind. Raises `InputError` and `OSError`."""
    tree: _Tree = {"": {}}
    total = 0
    limit = max(archives.RATIO_FREE_BYTES, archives.MAX_RATIO * stamp[0])
    with files.open_file(archive) as file:
        for count, (name, member) in enumerate(_entries(scheme, file, stamp[0], archive), 1):
            total += member.size
            if count > archives.MAX_MEMBERS:
                raise InputError(f"{archive}: more than {archives.MAX_MEMBERS} members; unpack it")
            if total > limit:
                raise InputError(
                    f"{archive}: its members have more than {limit} bytes, at least {archives.MAX_RATIO} times its "
                    "size; refused as a decompression bomb"
                )
            _add(tree, name, member, archive)
    return tree


def _entries(scheme: str, file: BinaryIO, size: int, archive: str) -> Iterator[tuple[str, _Member]]:
    if scheme == "zip":
        yield from zip_entries(file, size, archive)
    else:
        yield from ((name, TarMember(start, length)) for name, start, length in tar_entries(file, size, archive))


def _add(tree: _Tree, name: str, member: _Member, archive: str) -> None:
    parts = name.removesuffix("/").split("/")
    while parts and parts[0] == ".":
        del parts[0]
    if not is_unicode(name) or any(part in ("", ".", "..") for part in parts):
        raise InputError(
            f"{archive}: member {name!r}: expected a path in UTF-8 inside the archive, without '..'; pack it again"
        )
    folder = ""
    for at, part in enumerate(parts):
        if is_litter(part):
            return
        is_folder = at < len(parts) - 1 or name.endswith("/")
        there = tree[folder]
        if part in there and not (is_folder and there[part] is None):
            raise InputError(f"{archive}: member {name!r} occurs twice, or is both a file and a folder; pack it again")
        there[part] = None if is_folder else member
        folder = f"{folder}{part}/"
        if is_folder:
            tree.setdefault(folder, {})


@functools.lru_cache(maxsize=KEPT)
def _inflated(archive: str, stamp: Stamp, member: ZipMember, shown: str) -> Any:
    """Returns the content of a compressed member, of which ranges are read: bytes, or a mapped temporary file."""
    with files.open_file(archive) as file:
        chunks = zip_bytes(file, member, shown)
        if member.size <= MAX_IN_MEMORY:
            return b"".join(chunks)
        with files.writing(tempfile.gettempdir()):
            place: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        with place as unpacked:
            for chunk in chunks:
                with files.writing(tempfile.gettempdir()):
                    unpacked.write(chunk)
            return mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ)
