"""The object store client for each URL scheme, and its settings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from beam_cifar.data.loading import load
from beam_cifar.errors import UsageError
from beam_cifar.storage.client import Client
from beam_cifar.storage.paths import ARCHIVES, SCHEMES

CLIENTS = {"s3": "beam_cifar.storage.s3:S3", "gs": "beam_cifar.storage.gcs:Gcs"}
"""The client class of each URL scheme, imported when first used: its library is an extra, and slow to import.

The options of a store are parsed in `beam_cifar.pipeline.stores`.
"""

_ARCHIVES = "beam_cifar.storage.packed:ArchiveClient"
"""The client of members of archives, which needs no settings; it is loaded by name because it reads through clients."""


# Empty by default: the libraries find their settings in the environment, the home directory, or the machine's role.
_settings: Callable[[str], Mapping[str, Any]] = lambda _: {}  # noqa: E731


def use_settings(settings: Callable[[str], Mapping[str, Any]]) -> None:
    """Sets the function that returns, for a URL scheme, the arguments of its library's client.

    It is called when a store is first used.
    """
    global _settings
    _settings = settings
    client.cache_clear()


# Cached: boto3 takes up to half a second to create a client, because it reads its service models.
@functools.cache
def client(scheme: str) -> Client:
    """Returns the client for a URL scheme, one per process. Raises `UsageError` if its library is not installed."""
    if scheme in ARCHIVES:
        members: Client = load(_ARCHIVES)(scheme)
        return members
    try:
        made: Client = load(CLIENTS[scheme])(_settings(scheme))
        return made
    except ImportError as error:
        extra = SCHEMES[scheme]
        raise UsageError(
            f"{scheme}:// needs a library that is not installed ({error.name}): pip install 'beam_cifar[{extra}]'"
        ) from error
    except Exception as error:  # the libraries raise many types for invalid endpoints, profiles and credentials
        raise UsageError(f"{scheme}:// cannot be used with these settings: {' '.join(str(error).split())}") from error
