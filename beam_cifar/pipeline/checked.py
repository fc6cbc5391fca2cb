"""Coder of everything that crosses the runner: what was damaged on the way is an error, and never another value."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from apache_beam import coders

from beam_cifar.errors import JobError
from beam_cifar.jobs.accounts import PartInfo, ShardInfo
from beam_cifar.jobs.settings import PublishSettings
from beam_cifar.jobs.spill import SpillInfo
from beam_cifar.pipeline.errors import carried
from beam_cifar.planning.plan import Spill, Task

HEAD = ">QI"
"""Of an element: number and CRC-32 of the bytes that follow."""
_START = 0x0BEA0C1F  # so that zeros, as in a lost page of memory, are not a valid element


class CheckedCoder(coders.Coder):
    """Coder that precedes the bytes of another coder with their number and checksum.

    Runners return whatever bytes arrive: a flush in the middle of an element once made Beam decode garbage, which ended
    in 18 GB of memory, or in other values. The inner coder, which unpickles, never sees such bytes.

    Attributes:
        name: what the elements are called in messages.
        inner: coder of their values; default: Beam's for Python objects.
    """

    def __init__(self, name: str = "element", inner: coders.Coder | None = None) -> None:
        self.name, self.inner = name, inner or coders.FastPrimitivesCoder()

    @classmethod
    def from_type_hint(cls, typehint: Any, registry: Any) -> CheckedCoder:
        """Returns the coder for a class; Beam's registry calls this."""
        return cls(typehint.__name__)

    def encode(self, value: Any) -> bytes:
        """Returns the bytes of a value, after their number and checksum."""
        payload: bytes = self.inner.encode(value)
        return _head(payload) + payload

    def decode(self, encoded: bytes) -> Any:
        """Returns the value; raises `JobError`, in the form of `carried`, if any byte was changed, lost or added."""
        head, payload = encoded[: struct.calcsize(HEAD)], encoded[struct.calcsize(HEAD) :]
        if head != _head(payload):
            with carried():
                raise JobError(
                    f"an element was damaged between workers: the length or checksum of a {self.name} of "
                    f"{len(encoded)} bytes is wrong; nothing was published; run the job again"
                )
        return self.inner.decode(payload)

    def is_deterministic(self) -> bool:
        return False


def _head(payload: bytes) -> bytes:
    return struct.pack(HEAD, len(payload), zlib.crc32(payload, _START))


for _kind in (Task, Spill, SpillInfo, PartInfo, ShardInfo, PublishSettings):
    coders.registry.register_coder(_kind, CheckedCoder)
