"""Which object store serves a URL scheme, and with which settings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from beam_cifar.data.loading import load
from beam_cifar.errors import UsageError
from beam_cifar.storage.client import Client
from beam_cifar.storage.paths import SCHEMES

CLIENTS = {"s3": "beam_cifar.storage.s3:S3", "gs": "beam_cifar.storage.gcs:Gcs"}
"""What serves each URL scheme of `SCHEMES`; its library is an extra, and takes long to import.

The flags of a store are read in `beam_cifar.pipeline.stores`.
"""


# Nothing by default: a store's library finds its settings in the environment, the home directory, the machine's role.
_settings: Callable[[str], Mapping[str, Any]] = lambda _: {}  # noqa: E731


def use_settings(settings: Callable[[str], Mapping[str, Any]]) -> None:
    """Says how stores are reached from now on: from a URL scheme to arguments of its library's client.

    They are asked for when a store is first used.
    """
    global _settings
    _settings = settings
    client.cache_clear()


# Made once: boto3 takes up to half a second for each client, in which it reads its models of services.
@functools.cache
def client(scheme: str) -> Client:
    """The client of a URL scheme, one for each process. Raises `UsageError`: its library is not installed."""
    try:
        made: Client = load(CLIENTS[scheme])(_settings(scheme))
        return made
    except ImportError as error:
        extra = SCHEMES[scheme]
        raise UsageError(
            f"{scheme}:// needs a library that is not installed ({error.name}): pip install 'beam_cifar[{extra}]'"
        ) from error
    except Exception as error:  # whatever the libraries raise of endpoints, profiles and credentials
        raise UsageError(f"{scheme}:// cannot be used with these settings: {' '.join(str(error).split())}") from error
