"""Paths: of a file system that all workers see, or URLs of objects in a store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from beam_cifar.errors import UsageError

SCHEMES = {"s3": "aws", "gs": "gcp"}
"""URL schemes that are read and written, and the extra that brings the client of each."""

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """What a folder holds: a file or another folder.

    Attributes:
        name: in its folder.
        path: the whole of it.
        is_folder: whether it is one.
        size: bytes of a file.
        mtime: modification time of a file, ns; of an object in seconds, and below them a digest of its version.
    """

    name: str
    path: str
    is_folder: bool
    size: int = 0
    mtime: int = 0


def is_url(path: str) -> bool:
    """Whether a path is the URL of an object, or of a folder of them."""
    return "://" in path and _URL.match(path) is not None


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a URL."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key


def absolute(path: str, what: str) -> str:
    """The absolute form of a user's path, or the plain form of a URL; `what` it is stands in the error.

    Raises:
        UsageError: it cannot be a path, or it is a URL that is not read.
    """
    if match := _URL.match(path):
        return _plain_url(path, match[1].lower(), match[2], what)
    if not path or "\0" in path:
        raise UsageError(f"{what} {path!r} is not a path")
    return os.path.abspath(os.path.expanduser(path))


def _plain_url(url: str, scheme: str, rest: str, what: str) -> str:
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError(f"{what} {url!r}: {scheme}:// is not supported; use {known} or a local or mounted path")
    bucket, _, key = rest.partition("/")
    parts = key.rstrip("/").split("/") if key.rstrip("/") else []
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,221}", bucket):
        raise UsageError(f"{what} {url!r}: expected {scheme}://BUCKET/FOLDER, and {bucket!r} is no name of a bucket")
    # Stores take ".." for a name like any other, and tools for the folder above.
    if any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise UsageError(f"{what} {url!r}: a part of the path is empty, '.' or '..'; write it without")
    return "/".join((f"{scheme}://{bucket}", *parts))


def name_of(path: str) -> str:
    """The last part of a path or URL."""
    return os.path.basename(path if is_url(path) else os.path.abspath(path))


def contains(folder: str, path: str) -> bool:
    """Whether a path lies below a folder; both as `absolute` makes them."""
    separator = "/" if is_url(folder) else os.sep
    return path.startswith(folder.rstrip(separator) + separator)
