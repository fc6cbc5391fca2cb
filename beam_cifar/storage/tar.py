"""Reads the headers of tar files in one pass, without an object per member as in `tarfile`: a shard may have 300,000.

Format facts are from POSIX (pax, "ustar Interchange Format") and the GNU tar manual ("Basic Tar Format").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError

BLOCK: Final = 512
MAX_EXTENSION: Final = 1 << 20
MAX_PADDING: Final = 16 << 20
MAX_NAME_BYTES: Final = 4096

_PLAIN: Final = (b"0", b"\0", b"7", b"5")
_FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"5", b"L", b"K", b"x", b"g"
_NO_NAME: Final = f"byte {{}}: member name is not valid UTF-8, or has more than {MAX_NAME_BYTES} bytes"
_RECORD: Final = re.compile(rb"(\d{1,7}) ([^=]+)=")


class DamagedTarError(ValueError):
    """A tar file with damaged headers; the message says where and why."""


def tar_members(stream: BinaryIO, size: int, shown: str) -> Iterator[tuple[str, int, int]]:
    """Yields name, offset and size of the regular files of an archive, in order; callers may seek the stream.

    Raises:
        InputError: a damaged header, a missing end, a link, a device or a sparse file, or a name that is not UTF-8.
    """
    try:
        for name, offset, length in tar_entries(stream, size, shown):
            if not is_unicode(name):
                raise DamagedTarError(_NO_NAME.format(offset))
            if not name.endswith("/"):
                yield name, offset, length
    except DamagedTarError as error:
        raise InputError(f"{shown}: {error}") from error


def tar_entries(stream: BinaryIO, size: int, shown: str) -> Iterator[tuple[str, int, int]]:
    """Yields the same, and folders, whose names end with "/"; names that are not UTF-8 have surrogates.

    Args:
        stream: the archive, seekable.
        size: size of the archive, or an upper limit if unknown; then callers must check where members end.
        shown: display name used in messages.

    Raises:
        DamagedTarError: the headers cannot be read.
        InputError: a link, a device or a sparse file.
    """
    at = 0
    records: dict[bytes, bytes] = {}
    while True:
        block = _block(stream, at, size)
        if not block.strip(b"\0"):
            return _check_rest(stream, at)
        kind, length = block[156:157], _checked_size(block, at)
        at += BLOCK
        if kind in (_PAX, _LONG_NAME, _LONG_LINK, _PAX_GLOBAL):
            data = _extension(stream, at, length, size)
            if kind == _PAX:
                records |= _pax_records(data, at)
            elif kind == _LONG_NAME:
                records[b"path"] = data.rstrip(b"\0")
        else:
            name = _text(records.get(b"path", _own_name(block)), at)
            length = _number(records[b"size"], at) if b"size" in records else length
            length = 0 if kind == _FOLDER else length  # folders have no data whatever the header says, as in `tarfile`
            if kind not in _PLAIN or (records and any(key.startswith(b"GNU.sparse") for key in records)):
                raise InputError(f"{shown}: member {name!r} is a link, a device or a sparse file; expected plain files")
            yield name + "/" if kind == _FOLDER and not name.endswith("/") else name, at, length
            if length > size - at:
                raise DamagedTarError(
                    f"member {name!r} has {counted(length, 'byte')}, but only {counted(size - at, 'follows', 'follow')}"
                )
            records = {}
        at += -(-length // BLOCK) * BLOCK


def _block(stream: BinaryIO, at: int, size: int) -> bytes:
    stream.seek(at)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise DamagedTarError(f"ends at byte {min(at + len(block), size)} without an end-of-archive marker")
    return block


def _check_rest(stream: BinaryIO, at: int) -> None:
    """Checks that only zeros follow a block of zeros: many readers would miss a second archive there."""
    stream.seek(at)
    rest = stream.read(MAX_PADDING + 1)
    if len(rest) > MAX_PADDING or rest.strip(b"\0"):
        raise DamagedTarError(f"byte {at}: more data after the end of the archive; damaged, or several archives")


def _checked_size(block: bytes, at: int) -> int:
    checksum = block[148:156]
    if _number(checksum.strip(b" \0"), at, 8) != sum(block) - sum(checksum) + 8 * ord(" "):
        raise DamagedTarError(f"byte {at}: wrong header checksum; damaged, or not a tar file")
    field = block[124:136]
    # In GNU's format, sizes too large for the octal digits are binary.
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _number(field.strip(b" \0"), at, 8)


def _number(digits: bytes, at: int, base: int = 10) -> int:
    try:
        if digits.isdigit() and len(digits) <= 18:
            return int(digits, base)
    except ValueError:
        pass
    raise DamagedTarError(f"byte {at}: {digits[:20]!r} is not a valid number; damaged, or not a tar file")


def _own_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(stream: BinaryIO, at: int, length: int, size: int) -> bytes:
    if length > min(MAX_EXTENSION, size - at):
        raise DamagedTarError(f"byte {at}: extended header of {length} bytes; expected at most {MAX_EXTENSION}")
    stream.seek(at)
    return stream.read(length)


def _pax_records(data: bytes, at: int) -> dict[bytes, bytes]:
    """Parses records of the form `LENGTH KEY=VALUE`, each with a newline."""
    found, start = {}, 0
    while start < len(data):
        record = _RECORD.match(data, start)
        end = start + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise DamagedTarError(f"byte {at}: damaged extended header")
        found[record[2]] = data[record.end() : end - 1]
        start = end
    return found


def _text(name: bytes, at: int) -> str:
    if len(name) > MAX_NAME_BYTES or b"\0" in name:
        raise DamagedTarError(_NO_NAME.format(at))
    return name.decode("utf-8", "surrogateescape")
