"""MosaicML Streaming's shards: `<subset>/shard.00000.mds`, ..., and `<subset>/index.json`, which lists them.

A shard is, little-endian (streaming/base/format/mds/writer.py): the number of samples N as uint32; N + 1 offsets as
uint32, from the start of the file; the JSON of the columns, which readers skip; the samples. A sample is the size of
each column of variable size as uint32, then the values of all columns, in the order of their names: id, image, label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from beam_cifar import storage
from beam_cifar.data.schema import plain_labels
from beam_cifar.errors import OutputError
from beam_cifar.formats.contract.sink import Capabilities, FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import Shard, ShardResult, SinkOptions
from beam_cifar.formats.kit.records import part_range
from beam_cifar.naming.components import encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

INDEX: Final = "index.json"
LABELS: Final = "labels.json"
"""Our label table of a subset; the format itself has numbers only."""

SHARD_BYTES: Final = 64 << 20
"""Raw pixels of a shard; MDSWriter's own limit, `1 << 26`, is for encoded samples."""

MAX_OFFSET: Final = (1 << 32) - 1
_ROW_BYTES: Final = 20  # offset, two sizes and the label


class _ShardWriter(PartWriter):
    """Writes samples as they arrive, and at the end the size of each and the number of JPEG files."""

    def __post_init__(self) -> None:
        self._sizes: list[int] = []
        self._jpegs = 0

    def append(self, table: pa.Table) -> None:
        import numpy as np

        ids, images = (table.column(name).to_pylist() for name in ("id", "image"))
        texts = [item_id.encode() for item_id in ids]
        labels = plain_labels(table).astype("<i8").tobytes()
        heads = np.array([[*map(len, texts)], [*map(len, images)]], "<u4").T.tobytes()
        for row, (text, image) in enumerate(zip(texts, images, strict=True)):
            at = 8 * row
            self.file.write(b"".join((heads[at : at + 8], text, image, labels[at : at + 8])))
            self._sizes.append(16 + len(text) + len(image))
        self._jpegs += table.column("encoding").to_pylist().count("jpeg")

    def close(self) -> None:
        import numpy as np

        self.file.write(np.array([*self._sizes, self._jpegs], "<u4").tobytes())

    def statistics(self) -> dict[str, int]:
        """Returns the number of JPEG files."""
        return {"jpeg": self._jpegs}


class MdsSink(FileSink):
    """Writes shards of samples for each subset, with its index and label table."""

    name = "mds"
    can = Capabilities(
        takes_missing_images=False,
        packs=True,
        always_joined=True,
        keeps_files=False,
        max_shard_bytes=MAX_OFFSET,
        row_bytes=_ROW_BYTES,
    )
    subsets = SubsetNaming(by_split=True, word=encode_name)
    writer = _ShardWriter

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """Returns rows per shard, for even shards of at most 64 MiB of raw pixels."""
        return -(-rows // max(1, -(-image_bytes // SHARD_BYTES)))

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return f"{self.subsets.written(subset)}/shard.{number:05d}.mds"

    def join(self, parts: Sequence[str], file: storage.StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Writes the offsets of all samples before them."""
        import numpy as np

        ends_of_parts = (_end(part, shard.rows_of(number)) for number, part in enumerate(parts))
        sizes, jpegs = zip(*ends_of_parts, strict=True)
        columns = _json(_columns(sum(jpegs), shard.rows))
        ends = np.cumsum(np.concatenate([[4 * (shard.rows + 2) + len(columns)], *sizes]), dtype=np.int64)
        if ends[-1] > MAX_OFFSET:
            raise OutputError(
                f"{shard.path}: has {ends[-1]} bytes; at most {MAX_OFFSET} are supported; lower --images-per-batch"
            )
        for head in (np.array([shard.rows], "<u4").tobytes(), ends.astype("<u4").tobytes(), columns):
            file.write(head)
        for part, found in zip(parts, sizes, strict=True):
            for chunk in part_range(part, 0, int(found.sum())):
                file.write(chunk)

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the index of each subset, and its label table."""
        listed: dict[str, list[dict[str, Any]]] = {}
        for result in shards:
            folder, _, name = result.shard.path.rpartition("/")
            columns = _columns(result.statistics.get("jpeg", 0), result.shard.rows)
            data = {"basename": name, "bytes": result.bytes, "hashes": {}}
            entry = {**columns, "raw_data": data, "samples": result.shard.rows, "zip_data": None}
            listed.setdefault(folder, []).append(entry)
        labels = options.labels
        table: dict[str, Any] = {
            "names": labels.names,
            "superclasses": labels.coarse_names,
            "parents": labels.parents if labels.has_superclasses else (),
        }
        files: dict[str, dict[str, Any]] = {
            f"{folder}/{INDEX}": {"version": 2, "shards": found} for folder, found in listed.items()
        }
        files |= {f"{folder}/{LABELS}": table for folder in listed}
        return {path: _json(content) for path, content in files.items()}


def _json(content: dict[str, Any]) -> bytes:
    """Returns JSON as MDSWriter writes it."""
    return json.dumps(content, sort_keys=True).encode()


def _columns(jpegs: int, rows: int) -> dict[str, Any]:
    """Returns what MDSWriter says of the columns of a shard; the encodings png and jpeg are both opened by Pillow."""
    return {
        "column_encodings": ["str", "jpeg" if jpegs == rows else "png", "int"],
        "column_names": ["id", "image", "label"],
        "column_sizes": [None, None, 8],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": SHARD_BYTES,
        "version": 2,
    }


def _end(part: str, rows: int) -> tuple[npt.NDArray[np.int64], int]:
    """Returns the sizes of the samples in a part, int64 `[rows]`, bytes, and its number of JPEG files."""
    import numpy as np

    with storage.open_file(part) as file:
        file.seek(-4 * (rows + 1), 2)
        end = np.frombuffer(file.read(4 * (rows + 1)), "<u4").astype(np.int64)
    return end[:-1], int(end[-1])
