"""Reads the directory of a zip file, checked and compact, and the bytes of its members.

Format facts are from PKWARE's APPNOTE 6.3.10. Python's `zipfile` makes an object of some 700 bytes for each member, and
checks neither overlaps nor what a name leads to.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

from beam_cifar.data.text import counted
from beam_cifar.errors import InputError

MAX_DIRECTORY: Final = 256 << 20
MAX_NAME_BYTES: Final = 4096
CHUNK: Final = 1 << 20

_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_ENTRY: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_FULL: Final = 0xFFFFFFFF
"""A value that does not fit in 32 bits; the real one is in the extra field `_ZIP64`."""
_ZIP64: Final = 1
_STORED, _DEFLATED = 0, 8
_ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13
_UNIX, _FROM_WINDOWS = (3, 19), (0, 10, 11)
"""Systems that an archive was made on: those with Unix modes, and those whose paths may have backslashes."""


class ZipMember(NamedTuple):
    """Where the bytes of a member are.

    Attributes:
        header: offset of its local header.
        packed: its size in the archive, in bytes.
        size: its size, in bytes.
        crc: CRC-32 of its content.
        is_deflated: whether it is compressed; else it is stored.
    """

    header: int
    packed: int
    size: int
    crc: int
    is_deflated: bool


def zip_entries(file: BinaryIO, size: int, path: str) -> Iterator[tuple[str, ZipMember]]:
    """Yields the path of each member, of folders with "/" at the end, and where it is.

    Args:
        file: the archive, seekable.
        size: its size in bytes.
        path: its path, for messages.

    Raises:
        InputError: damaged or truncated, several disks, a member that is encrypted, a link or a device, compressed
            otherwise than by deflate, named otherwise than in UTF-8, or that shares bytes with another one.
    """
    start, length, count = _directory(file, size, path)
    file.seek(start)
    data = file.read(length)
    at, places = 0, list[tuple[int, int]]()
    while at < length:
        if length - at < _ENTRY.size or data[at : at + 4] != b"PK\1\2":
            raise _damaged(path, f"byte {start + at}: no entry of its directory")
        fields = _ENTRY.unpack_from(data, at)
        name_at, (name_bytes, extra_bytes, comment_bytes) = at + _ENTRY.size, fields[10:13]
        extra_at = name_at + name_bytes
        at = extra_at + extra_bytes + comment_bytes
        if at > length:
            raise _damaged(path, f"byte {start + name_at}: an entry that ends after its directory")
        name = _name(data[name_at:extra_at], fields, path)
        member = _member(name, fields, data[extra_at : extra_at + extra_bytes], path)
        places.append((member.header, member.header + _LOCAL.size + name_bytes + member.packed))
        yield name, member
    if len(places) != count:
        raise _damaged(path, f"its directory has {counted(len(places), 'entry')}, and says {count:,}")
    places.sort()
    for (_, end), (following, _) in zip(places, [*places[1:], (start, 0)], strict=False):
        if end > following:
            raise _damaged(path, f"members overlap at byte {following}")


def zip_bytes(file: BinaryIO, member: ZipMember, shown: str) -> Iterator[bytes]:
    """Yields the content of a member in chunks of bounded size. Raises `InputError` if it is damaged."""
    file.seek(data_start(file, member, shown))
    left, size, crc = member.packed, 0, 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.is_deflated else None
    packed = b""
    while size <= member.size:
        if not packed and left:
            packed = file.read(min(CHUNK, left))
            left -= len(packed)
        if inflate is None:
            chunk, packed = packed, b""
        else:
            try:
                chunk = inflate.decompress(packed, CHUNK)
            except zlib.error as error:
                raise InputError(f"{shown}: its compressed data is damaged; download the archive again") from error
            packed = inflate.unconsumed_tail
        if not chunk and not packed:
            break
        size, crc = size + len(chunk), zlib.crc32(chunk, crc)
        yield chunk
    if size != member.size or crc != member.crc:
        raise InputError(
            f"{shown}: {size} bytes with CRC {crc:08x}, expected {member.size} with {member.crc:08x}; the archive is "
            "damaged, download it again"
        )


def data_start(file: BinaryIO, member: ZipMember, shown: str) -> int:
    """Returns the offset of a member's bytes: after its local header, whose length only that header has."""
    file.seek(member.header)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise InputError(f"{shown}: no header at byte {member.header} of the archive; it is damaged, download it again")
    *_, name_bytes, extra_bytes = _LOCAL.unpack(header)
    return member.header + _LOCAL.size + int(name_bytes) + int(extra_bytes)


def _damaged(path: str, found: str) -> InputError:
    return InputError(f"{path}: damaged zip file: {found}; download or pack it again")


def _directory(file: BinaryIO, size: int, path: str) -> tuple[int, int, int]:
    """Returns start and bytes of the central directory, and its number of entries."""
    tail_at = max(0, size - _END.size - 0xFFFF)
    file.seek(tail_at)
    tail = file.read(size - tail_at)
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        raise _damaged(path, "no directory at its end, so it is truncated or no zip file")
    end = tail_at + found
    _, disk, first_disk, _, count, length, start, comment = _END.unpack_from(tail, found)
    if end + _END.size + comment != size:
        raise _damaged(path, f"{counted(size - end - _END.size - comment, 'byte', verb='follow')} its directory")
    if end >= _LOCATOR.size:
        file.seek(end - _LOCATOR.size)
        signature, _, at64, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if signature == b"PK\6\7":
            file.seek(min(at64, size))
            record = file.read(_END64.size)
            if len(record) < _END64.size or record[:4] != b"PK\6\6" or at64 >= end:
                raise _damaged(path, "no zip64 directory where its end says")
            _, _, _, _, disk, first_disk, _, count, length, start = _END64.unpack(record)
            end = at64
    if disk or first_disk:
        raise InputError(f"{path}: is one of several parts of a zip file; join them with zip -s 0 --out")
    if start + length != end:
        raise _damaged(path, f"its directory ends at byte {start + length}, expected {end}")
    if length > MAX_DIRECTORY:
        raise InputError(f"{path}: its directory has {length} bytes, at most {MAX_DIRECTORY} are read; unpack it")
    return start, length, count


def _name(raw: bytes, fields: tuple[Any, ...], path: str) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = ""
    if not name or len(raw) > MAX_NAME_BYTES or b"\0" in raw:
        raise InputError(
            f"{path}: member name {raw[:100]!r} is empty, not UTF-8, or longer than {MAX_NAME_BYTES} bytes; unpack the "
            "archive, or pack it again"
        )
    return name.replace("\\", "/") if fields[1] >> 8 in _FROM_WINDOWS else name


def _member(name: str, fields: tuple[Any, ...], extra: bytes, path: str) -> ZipMember:
    _, made, _, flags, method, _, _, crc, packed, size, _, _, _, _, _, attributes, header = fields
    where = f"{path}: member {name!r}"
    if flags & _ENCRYPTED:
        raise InputError(f"{where} is encrypted; unpack the archive with its password")
    if method not in (_STORED, _DEFLATED):
        raise InputError(f"{where} is compressed by method {method}; pack it again with deflate, or unpack it")
    mode = attributes >> 16 if made >> 8 in _UNIX else 0
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{where} is a link or a device; expected plain files and folders")
    if _FULL in (size, packed, header):
        values = _zip64(extra, [size, packed, header])
        if values is None:
            raise _damaged(path, f"member {name!r} has no zip64 sizes")
        size, packed, header = values
    if method == _STORED and size != packed:
        raise _damaged(path, f"member {name!r} is stored, but {packed} bytes are said to be {size}")
    return ZipMember(header, packed, size, crc, method == _DEFLATED)


def _zip64(extra: bytes, values: list[int]) -> list[int] | None:
    """Returns size, packed size and offset, with those that are `_FULL` from the extra field; None if it lacks them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            needed = sum(value == _FULL for value in values)
            if 8 * needed > min(length, len(extra) - at - 4):
                return None
            large = iter(struct.unpack_from(f"<{needed}Q", extra, at + 4))
            return [next(large) if value == _FULL else value for value in values]
        at += 4 + length
    return None
