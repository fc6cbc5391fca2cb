"""Paths on a file system that all workers can access, and URLs of objects in a store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from beam_cifar.errors import UsageError

SCHEMES = {"s3": "aws", "gs": "gcp"}
"""Supported URL schemes, and the pip extra that installs the client library of each."""

ARCHIVES = ("zip", "tar")
"""Schemes of URLs of members of archives, which only this package makes, see `archive_url`."""

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)


Stamp = tuple[int, int, int]
"""Size, mtime and identity of a file, as in `Entry`. Workers compare the first two: inodes may depend on the mount."""


@dataclass(frozen=True)
class Entry:
    """An entry of a folder: a file or another folder.

    Attributes:
        name: name in the folder.
        path: full path.
        is_folder: whether it is a folder.
        size: size of a file in bytes.
        mtime: modification time of a file in ns; for an object whole seconds, plus a digest of its version.
        identity: a number that a changed or replaced file does not have, even one with the old size and time.
    """

    name: str
    path: str
    is_folder: bool
    size: int = 0
    mtime: int = 0
    identity: int = 0


def is_url(path: str) -> bool:
    """Returns whether a path is a URL, of an object or a folder of objects."""
    return "://" in path and _URL.match(path) is not None


def split_url(url: str) -> tuple[str, str, str]:
    """Returns scheme, bucket and key of a URL; of a member of an archive, the archive and the path in it."""
    scheme, _, rest = url.partition("://")
    if scheme in ARCHIVES:
        archive, _, key = rest.partition("!")
        return scheme, archive.replace("%21", "!").replace("%25", "%"), key[1:]
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key


def archive_url(scheme: str, path: str) -> str:
    """Returns the URL of all that is in an archive: `zip:///data/set.zip!`; that of a member goes on with its path.

    >>> from beam_cifar.storage.paths import archive_url, split_url
    >>> archive_url("zip", "/data/set.zip")
    'zip:///data/set.zip!'
    >>> split_url(archive_url("tar", "/odd!/100%21.tar") + "/cat/1!.png")
    ('tar', '/odd!/100%21.tar', 'cat/1!.png')
    """
    plain = path.replace("%", "%25").replace("!", "%21")
    return f"{scheme}://{plain}!"


def archive_of(url: str) -> str:
    """Returns the path of the archive that a URL of `archive_url` leads into."""
    return split_url(url)[1]


def absolute(path: str, what: str) -> str:
    """Returns a user's path as an absolute path, or a URL in normal form; `what` names the option in errors.

    Raises:
        UsageError: not a valid path, or an unsupported or invalid URL.
    """
    if match := _URL.match(path):
        return _plain_url(path, match[1].lower(), match[2], what)
    if not path or "\0" in path:
        raise UsageError(f"{what} {path!r} is not a valid path")
    return os.path.abspath(os.path.expanduser(path))


def _plain_url(url: str, scheme: str, rest: str, what: str) -> str:
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError(f"{what} {url!r}: {scheme}:// is not supported; use {known} or a local or mounted path")
    bucket, _, key = rest.partition("/")
    parts = key.rstrip("/").split("/") if key.rstrip("/") else []
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,221}", bucket):
        raise UsageError(f"{what} {url!r}: expected {scheme}://BUCKET/FOLDER; {bucket!r} is not a valid bucket name")
    # Stores treat ".." as an ordinary name, but many tools as the parent folder.
    if any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise UsageError(f"{what} {url!r}: the path has a component that is empty, '.' or '..'; remove it")
    return "/".join((f"{scheme}://{bucket}", *parts))


def name_of(path: str) -> str:
    """Returns the last component of a path or URL."""
    return os.path.basename(path if is_url(path) else os.path.abspath(path))


def contains(folder: str, path: str) -> bool:
    """Returns whether a path is inside a folder; both as returned by `absolute`."""
    separator = "/" if is_url(folder) else os.sep
    return path.startswith(folder.rstrip(separator) + separator)
