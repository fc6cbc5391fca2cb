"""WebDataset sink: tar shards with a label table beside them."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.schema import plain_labels
from beam_cifar.formats.contract.sink import Capabilities, FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import ShardResult, SinkOptions
from beam_cifar.formats.webdataset.members import tar_members
from beam_cifar.formats.webdataset.source import SUFFIX, TABLE
from beam_cifar.images.encodings import file_extensions
from beam_cifar.naming.components import encode_name
from beam_cifar.storage.tar import BLOCK

if TYPE_CHECKING:
    import pyarrow as pa


SHARD_BYTES: Final = 128 << 20
SHARD_ROWS: Final = 10_000

# Tar overhead of a sample: three headers, two small members, and on average half a block of padding after the image.
_ROW_BYTES: Final = 3 * BLOCK + 2 * BLOCK + BLOCK // 2
_MAX_KEY: Final = 72

_ROWS_AT_ONCE: Final = 256
"""Few enough that their bytes stay in the processor's cache between one step and the next."""

_quoted: Final = json.JSONEncoder().encode  # much faster for a text than for an object


class _ShardWriter(PartWriter):
    """Writes samples to a tar file; each has its image, label and JSON in this order."""

    def __post_init__(self) -> None:
        self._prefix = key_prefix(self.shard.path)
        self._rows = 0
        self._facts = functools.cache(self._label_facts)

    def append(self, table: pa.Table) -> None:
        suffixes = file_extensions(table, self.options.export.image_ext)
        for at in range(0, len(table), _ROWS_AT_ONCE):
            stop = at + _ROWS_AT_ONCE
            self._append(suffixes[at:stop], table.slice(at, _ROWS_AT_ONCE))

    def _append(self, suffixes: Sequence[str], table: pa.Table) -> None:
        columns = (table.column(name).to_pylist() for name in ("image", "id", "filename"))
        rows = zip(suffixes, plain_labels(table).tolist(), *columns, strict=True)
        names: list[str] = []
        contents: list[bytes] = []
        for number, (suffix, label, image, item_id, filename) in enumerate(rows, self._rows):
            key = f"{self._prefix}-{number:06d}"
            if image is not None:
                names.append(key + suffix.lower())
                contents.append(image)
            if label != UNLABELLED:
                names.append(f"{key}.cls")
                contents.append(b"%d" % label)
            names.append(f"{key}.json")
            facts = f'{{"id": {_quoted(item_id)}, "filename": {_quoted(filename)}, {self._facts(label)}'
            contents.append(facts.encode())
        self.file.write(tar_members(names, contents))
        self._rows += len(table)

    def close(self) -> None:
        self.file.write(bytes(2 * BLOCK))

    def _label_facts(self, label: int) -> str:
        """Returns the end of a sample's JSON, from the label on."""
        labels = self.options.labels
        facts = {"label": labels.name(label)}
        if labels.has_superclasses:
            parent = None if label == UNLABELLED else labels.parents[label]
            facts["superclass"] = None if parent is None else labels.coarse_names[parent]
        return json.dumps(facts)[1:]


class WebdatasetSink(FileSink):
    """Writes `<subset>-000000.tar`, ..., and `labels.json` with the label table and the subset of each shard."""

    name = "webdataset"
    # Empty subsets are not kept: `webdataset` and `datasets` reject a subset without samples.
    can = Capabilities(any_image_files=True, packs=True, row_bytes=_ROW_BYTES, reserved_paths=frozenset({TABLE}))
    subsets = SubsetNaming(by_split=True)
    writer = _ShardWriter

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """Returns rows per shard, for even shards of at most 10,000 samples and 128 MiB of raw pixels."""
        return -(-rows // max(1, -(-rows // SHARD_ROWS), -(-image_bytes // SHARD_BYTES)))

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return encode_name(subset, f"-{number:06d}{SUFFIX}")

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns `labels.json`: the label table, and the subset of each shard."""
        labels = options.labels
        content: dict[str, Any] = {
            "names": labels.names,
            "superclasses": labels.coarse_names,
            "parents": labels.parents if labels.has_superclasses else (),
            "subsets": {result.shard.path: result.shard.subset for result in shards},
        }
        return {TABLE: (json.dumps(content, indent=1) + "\n").encode()}


def key_prefix(path: str) -> str:
    """Returns the start of all keys in a shard: its name in letters, digits, `_`, `-` and `=`, unique to the shard."""
    name = path[: -len(SUFFIX)]
    made = re.sub(rb"[^A-Za-z0-9_-]", lambda match: b"=%02X" % match[0][0], name.encode("utf-8", "surrogatepass"))
    text = made.decode("ascii")
    if len(text) <= _MAX_KEY:
        return text
    return f"{text[:32]}=-{hashlib.sha256(made).hexdigest()[:32]}"
