"""WebDataset sink: tar shards with a label table beside them."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.schema import plain_labels
from beam_cifar.formats.contract.sink import Capabilities, FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import ShardResult, SinkOptions
from beam_cifar.formats.kit.cards import CARD, config_lines, literal, split_name_of, split_rows, text_lines
from beam_cifar.formats.kit.croissant import CROISSANT, croissant, field_of, file_object, file_set, record_set
from beam_cifar.formats.webdataset.members import tar_members
from beam_cifar.formats.webdataset.source import SUFFIX, TABLE
from beam_cifar.images.encodings import ENCODED, file_extensions
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
        """Returns `labels.json`, the label table and the subset of each shard, and the cards that are asked for."""
        labels = options.labels
        content: dict[str, Any] = {
            "names": labels.names,
            "superclasses": labels.coarse_names,
            "parents": labels.parents if labels.has_superclasses else (),
            "subsets": {result.shard.path: result.shard.subset for result in shards},
        }
        files = {TABLE: (json.dumps(content, indent=1) + "\n").encode()}
        if options.export.card:
            files |= {CARD: _card(shards), CROISSANT: _croissant(labels, shards)}
        return files


def _card(shards: Sequence[ShardResult]) -> bytes:
    """Returns the dataset card: `datasets` takes only some characters for names of splits."""
    paths, rows = dict[str, str](), dict[str, int]()
    stems = {result.shard.subset: result.shard.path.rpartition("-")[0] for result in shards}
    for subset, count in split_rows(shards).items():
        split = split_name_of(subset)
        while split in paths:
            split += "_"
        # All digits of a number: "train-*" would also match the shards of a subset "train-1".
        paths[split], rows[split] = f"{literal(stems[subset])}-{'[0-9]' * 6}{SUFFIX}", count
    return ("\n".join(["---", *config_lines(paths), *text_lines(rows)]) + "\n").encode()


def _croissant(labels: LabelTable, shards: Sequence[ShardResult]) -> bytes:
    """Returns the Croissant file; images and labels are records of their own, with the key of their sample."""
    files = [
        file_object(f"shard-{number}", result.shard.path, "application/x-tar", result.sha256)
        for number, result in enumerate(shards)
    ]
    ids = [file["@id"] for file in files]
    patterns = [f"*{extension}" for known in ENCODED.values() for extension in known]
    sets = [
        file_set("image-files", patterns, "application/octet-stream", ids),
        file_set("label-files", ["*.cls"], "text/plain", ids),
    ]
    records = [
        record_set(
            name,
            {
                "key": field_of(source, "sc:Text", {"fileProperty": "filename"}, regex=r"^([^.]+)\."),
                "split": field_of(source, "sc:Text", {"fileProperty": "filename"}, regex=r"^(.+)-\d+-\d+\."),
                value: field_of(source, kind, {"fileProperty": "content"}),
            },
        )
        for name, source, value, kind in (
            ("images", "image-files", "image", "sc:ImageObject"),
            ("labels", "label-files", "label", "sc:Integer"),
        )
    ]
    return croissant(labels, split_rows(shards), [*files, *sets], records)


def key_prefix(path: str) -> str:
    """Returns the start of all keys in a shard: its name in letters, digits, `_`, `-` and `=`, unique to the shard."""
    name = path[: -len(SUFFIX)]
    made = re.sub(rb"[^A-Za-z0-9_-]", lambda match: b"=%02X" % match[0][0], name.encode("utf-8", "surrogatepass"))
    text = made.decode("ascii")
    if len(text) <= _MAX_KEY:
        return text
    return f"{text[:32]}=-{hashlib.sha256(made).hexdigest()[:32]}"
