"""The tally of a block: some 50 bytes per row, without pixels.

The *digest* of an image is 128 bits of BLAKE2b over height and width (uint32, little-endian) and the planes R, G, B;
gray counts as three equal planes, and encoded images are decoded first. The digest of an *item* covers that, its class
name and, if requested, its id. Digests of items are summed modulo 2^128, so that their order does not matter.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.arrays import Int64Array, UInt8Array
from beam_cifar.data.block import BadRow, Block
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.schema import has_images, plain_labels
from beam_cifar.errors import InputError
from beam_cifar.images.digests import pixel_digests, pixel_runs
from beam_cifar.images.encodings import ENCODED, RAW
from beam_cifar.naming.image_files import digests

Rows = npt.NDArray[np.void]

ROW = np.dtype(
    [
        ("digest", "<u8", 2),
        ("id", "<u8"),
        ("file", "<i4"),
        ("row", "<i4"),
        ("label", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("channels", "u1"),
        ("encoding", "u1"),
    ]
)
"""A row: digest of the image, 64-bit digest of the id (zeros if not requested), index of the file and row number in it,
label (-1 without), height, width and channels (0 without an image), and index in `ENCODINGS`."""

ENCODINGS = (RAW, *ENCODED)
MODULUS = 1 << 128
EXAMPLES = 10
"""How many rows, groups or other examples of each kind are listed by default."""
MAX_LISTED = 10_000
"""How many are listed for programs; what has more is wrong as a whole."""

# Bytes of a plane counted at a time; `np.bincount` converts them to int64, eight times as many bytes.
_COUNTED = 1 << 18


@dataclass(frozen=True)
class Asked:
    """What to measure besides images and labels.

    Attributes:
        ids: compute digests of ids.
        ids_count: include ids in the digests of items.
        tolerant: record damaged rows instead of failing.
        listed: how many rows, groups or other examples of each kind to list.
    """

    ids: bool = False
    ids_count: bool = False
    tolerant: bool = False
    listed: int = EXAMPLES


@dataclass(frozen=True)
class BlockTally:
    """The measurements of a block.

    Attributes:
        rows: `ROW` `[N]`, in order.
        histogram: int64 `[3, 256]`, how often R, G and B have each value.
        total: sum of the digests of its items.
        rejected: the first unreadable rows.
        rejected_count: number of unreadable rows.
    """

    rows: Rows
    histogram: Int64Array
    total: int
    rejected: tuple[BadRow, ...]
    rejected_count: int

    def encoded(self) -> bytes:
        """Returns the tally as bytes, for `decode_tally`."""
        file = io.BytesIO()
        facts = {"total": str(self.total), "rejected": [asdict(bad) for bad in self.rejected]}
        text = json.dumps({**facts, "count": self.rejected_count}).encode()
        np.savez(file, rows=self.rows, histogram=self.histogram, facts=np.frombuffer(text, dtype=np.uint8))
        return file.getvalue()


def decode_tally(content: bytes) -> BlockTally:
    """Returns the tally from its encoded bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        facts = json.loads(found["facts"].tobytes())
        rejected = tuple(BadRow(**bad) for bad in facts["rejected"])
        return BlockTally(found["rows"], found["histogram"], int(facts["total"]), rejected, facts["count"])


def tally_of(block: Block, shown: str, labels: LabelTable, asked: Asked = Asked()) -> BlockTally:
    """Measures every image of a block.

    Args:
        block: a block whose `shard` is the number of its file.
        shown: display name of the file used in messages.
        labels: label table of the dataset.
        asked: what to measure.

    Raises:
        InputError: an image is damaged, unless `asked.tolerant`.
    """
    table, bad = block.table, list(block.rejected)
    numbers = _row_numbers(block)
    names = table.column("id").to_pylist()
    subset = table.column("subset")
    digested: list[bytes | None] = [None] * len(table)
    histogram = np.zeros((3, 256), dtype=np.int64)
    kept = np.ones(len(table), dtype=np.bool_)
    rows = _plain_columns(table, block.shard, numbers)

    def damaged(at: int, error: InputError) -> None:
        found = BadRow(shown, int(numbers[at]), subset[at].as_py(), "decode", str(error), int(rows["label"][at]))
        if not asked.tolerant:
            raise InputError(str(found)) from error
        bad.append(found)
        kept[at] = False

    for positions, pixels in pixel_runs(table, names, damaged):
        for at, digest in zip(positions, pixel_digests(pixels), strict=True):
            digested[at] = digest
        _count_values(pixels, histogram)
    rows["digest"] = np.frombuffer(b"".join(each or bytes(16) for each in digested), dtype="<u8").reshape(-1, 2)
    if asked.ids:
        rows["id"] = digests(names)
    chosen = np.flatnonzero(kept).tolist()
    total = item_total(
        [digested[at] for at in chosen],
        rows["label"][kept].tolist(),
        labels.names,
        [names[at] for at in chosen] if asked.ids_count else None,
    )
    bad.sort(key=lambda each: each.row)
    return BlockTally(rows[kept], histogram, total, tuple(bad[: asked.listed]), len(bad))


def item_total(
    images: Sequence[bytes | None], labels: Sequence[int], names: Sequence[str], ids: Sequence[str] | None
) -> int:
    """Returns the sum of the digests of some items, modulo 2^128.

    Args:
        images: `[N]`, the digest of each image; None without an image.
        labels: `[N]`, -1 without a label.
        names: class names.
        ids: `[N]`, or None if digests do not include ids.
    """
    # An unlabelled item has label -1, which indexes the last entry.
    marks = [*(b"label" + struct.pack("<Q", len(_bytes(name))) + _bytes(name) for name in names), b"no label"]
    ends = [b""] * len(images) if ids is None else [b"id" + _bytes(each) for each in ids]
    total = 0
    for image, label, end in zip(images, labels, ends, strict=True):
        start = b"no image" if image is None else b"image" + image
        total += int.from_bytes(hashlib.blake2b(start + marks[label] + end, digest_size=16).digest(), "little")
    return total % MODULUS


def _count_values(pixels: UInt8Array, histogram: Int64Array) -> None:
    """Adds the number of pixels with each value in each channel; gray counts as three equal channels."""
    for channel in range(pixels.shape[1]):
        plane = pixels[:, channel].reshape(-1)
        for start in range(0, len(plane), _COUNTED):
            found = np.bincount(plane[start : start + _COUNTED], minlength=256)
            histogram[slice(None) if pixels.shape[1] == 1 else channel] += found


def _row_numbers(block: Block) -> Int64Array:
    """Returns the row number in the file of each row of a block."""
    numbers = np.arange(block.row, block.row + len(block.table) + len(block.rejected))
    return numbers[~np.isin(numbers, [bad.row for bad in block.rejected])] if block.rejected else numbers


def _plain_columns(table: pa.Table, file: int, numbers: Int64Array) -> Any:
    rows = np.zeros(len(table), dtype=ROW)
    rows["file"], rows["row"] = file, numbers
    rows["label"] = plain_labels(table)
    for name in ("height", "width", "channels"):
        rows[name] = table.column(name).fill_null(0).to_numpy()
    found = table.column("encoding").combine_chunks().dictionary_encode()
    codes = np.array([ENCODINGS.index(name) for name in found.dictionary.to_pylist()], dtype=np.uint8)
    rows["encoding"] = np.where(has_images(table), codes[found.indices.to_numpy()], 0) if len(table) else 0
    return rows


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
