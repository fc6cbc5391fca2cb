"""The headers of a tar file, read in one pass and without an object for each member; a shard may have 300,000.

Facts are from POSIX (pax, "ustar Interchange Format") and the GNU tar manual ("Basic Tar Format").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from beam_cifar.errors import InputError

BLOCK: Final = 512
MAX_HEADER: Final = 1 << 20
MAX_PADDING: Final = 16 << 20
MAX_NAME_BYTES: Final = 4096

_PLAIN: Final = (b"0", b"\0", b"7", b"5")
_FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"5", b"L", b"K", b"x", b"g"
_RECORD: Final = re.compile(rb"(\d{1,7}) ([^=]+)=")


def tar_members(stream: BinaryIO, size: int, shown: str) -> Iterator[tuple[str, int, int]]:
    """Yields name, offset and size of the plain files of an archive, in order.

    The caller may move the stream in between.

    Args:
        stream: the archive, seekable.
        size: of it.
        shown: how messages name it.

    Raises:
        InputError: a damaged header, a missing end, a link, a device or a sparse file, or a name that is no text.
    """
    at = 0
    told: dict[bytes, bytes] = {}
    while True:
        block = _block(stream, at, size, shown)
        if not block.strip(b"\0"):
            return _check_rest(stream, at, size, shown)
        kind, length = block[156:157], _checked_size(block, at, shown)
        at += BLOCK
        if kind in (_PAX, _LONG_NAME, _LONG_LINK, _PAX_GLOBAL):
            data = _extension(stream, at, length, size, shown)
            if kind == _PAX:
                told |= _pax_records(data, at, shown)
            elif kind == _LONG_NAME:
                told[b"path"] = data.rstrip(b"\0")
        else:
            name = _text(told.get(b"path", _own_name(block)), at, shown)
            length = _number(told[b"size"], at, shown) if b"size" in told else length
            length = 0 if kind == _FOLDER else length  # no data follow, whatever it says; so does `tarfile` read it
            if kind not in _PLAIN or (told and any(key.startswith(b"GNU.sparse") for key in told)):
                raise InputError(f"{shown}: member {name!r} is a link, a device or sparse; only plain files are read")
            if length > size - at:
                raise InputError(
                    f"{shown}: member {name!r} has {length} bytes, and {size - at} follow; it is cut short"
                )
            if kind != _FOLDER and not name.endswith("/"):
                yield name, at, length
            told = {}
        at += -(-length // BLOCK) * BLOCK


def _block(stream: BinaryIO, at: int, size: int, shown: str) -> bytes:
    stream.seek(at)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise InputError(f"{shown}: ends at byte {size}, without the end of an archive; it is cut short")
    return block


def _check_rest(stream: BinaryIO, at: int, size: int, shown: str) -> None:
    """What follows a block of zeros must be zeros: many readers would not see a second archive there."""
    stream.seek(at)
    if size - at > MAX_PADDING or stream.read(size - at).strip(b"\0"):
        raise InputError(f"{shown}: byte {at}: more follows after the end of the archive; it is damaged, or several")


def _checked_size(block: bytes, at: int, shown: str) -> int:
    checksum = block[148:156]
    if _number(checksum.strip(b" \0"), at, shown, 8) != sum(block) - sum(checksum) + 8 * ord(" "):
        raise InputError(f"{shown}: byte {at}: the checksum of a header does not match; it is damaged, or no tar file")
    field = block[124:136]
    # Sizes that do not fit in digits are binary in GNU's format.
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _number(field.strip(b" \0"), at, shown, 8)


def _number(digits: bytes, at: int, shown: str, base: int = 10) -> int:
    try:
        if digits.isdigit() and len(digits) <= 18:
            return int(digits, base)
    except ValueError:
        pass
    raise InputError(f"{shown}: byte {at}: {digits[:20]!r} is no number; the archive is damaged, or no tar file")


def _own_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(stream: BinaryIO, at: int, length: int, size: int, shown: str) -> bytes:
    if length > min(MAX_HEADER, size - at):
        raise InputError(f"{shown}: byte {at}: a header of {length} bytes; {MAX_HEADER} at most are expected")
    stream.seek(at)
    return stream.read(length)


def _pax_records(data: bytes, at: int, shown: str) -> dict[bytes, bytes]:
    """Records of the form `LENGTH KEY=VALUE`, each with a line break."""
    found, start = {}, 0
    while start < len(data):
        record = _RECORD.match(data, start)
        end = start + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise InputError(f"{shown}: byte {at}: an extended header is damaged")
        found[record[2]] = data[record.end() : end - 1]
        start = end
    return found


def _text(name: bytes, at: int, shown: str) -> str:
    try:
        if len(name) <= MAX_NAME_BYTES and b"\0" not in name:
            return name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise InputError(f"{shown}: byte {at}: a member's name is not UTF-8, or has more than {MAX_NAME_BYTES} bytes")
