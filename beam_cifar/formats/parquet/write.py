"""Writes Parquet in the layout of Hugging Face datasets: `data/<split>-00000-of-00001.parquet`.

`datasets` finds splits by these names and features in each file, so a dataset card is only written on request. Without
it, the folder holds nothing but Parquet, and pandas, pyarrow and others read it as it is.

Facts: https://huggingface.co/docs/hub/datasets-image and .../datasets-manual-configuration; the settings were
measured for random access and size (a row group of 1,000 images reads in under a millisecond).

What datasets cannot express is in the file metadata, under "beam_cifar": the superclass of each class, and the paths of
rows without an image, which must not be in the path column (datasets would look for a file there).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from beam_cifar.data.labels import LabelTable
from beam_cifar.formats.contract.sink import PartWriter
from beam_cifar.formats.contract.types import ShardResult, SinkOptions
from beam_cifar.formats.kit.cards import CARD, config_lines, quoted, split_name_of, split_rows, text_lines
from beam_cifar.formats.kit.column_roles import COARSE_NAME, OWN_KEY, class_features, label_columns
from beam_cifar.formats.kit.croissant import CROISSANT, croissant, field_of, file_set, record_set
from beam_cifar.formats.kit.splits import MAX_SHARD_BYTES, ROW_GROUP_ROWS, SPLITS, RowGroups, SplitSink, split_naming
from beam_cifar.images.encodings import file_extensions


def schema_of(labels: LabelTable) -> pa.Schema:
    """Returns the schema of a file, with features in the metadata where `datasets` looks for them."""
    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = [pa.field("img", image)] + [pa.field(name, pa.int64()) for name in label_columns(labels)]
    features = {"img": {"_type": "Image"}, **class_features(labels)}
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})


class _ParquetWriter(PartWriter):
    """Writes examples in row groups."""

    def __post_init__(self) -> None:
        table = self.options.labels
        self._schema = schema_of(table)
        labels = list(label_columns(table))
        self._parents = pa.array([*table.parents], pa.int64())
        self._groups = RowGroups(
            self.file,
            self._schema,
            # Images are already compressed. Their pages are indexed, and cut by content, so that deduplicating stores
            # keep most of an edited dataset only once.
            compression={"img.bytes": "NONE", "img.path": "ZSTD", **dict.fromkeys(labels, "ZSTD")},
            use_dictionary=labels,
            write_page_index=True,
            use_content_defined_chunking=True,
            store_schema=True,
        )
        self._num_bytes = self._done = 0
        self._lost_paths: dict[int, str] = {}

    def append(self, table: pa.Table) -> None:
        sizes = pa.compute.binary_length(table.column("image")).fill_null(0).to_pylist()
        self._groups.append(self._columns(table), sizes)

    def close(self) -> None:
        own: dict[str, Any] = {"paths": self._lost_paths} if self._lost_paths else {}
        if self.options.labels.has_superclasses:
            own["parents"] = list(self.options.labels.parents)
        self._groups.close({OWN_KEY: json.dumps(own).encode()})

    def statistics(self) -> dict[str, int]:
        """Returns the size in memory, which the card lists."""
        return {"num_bytes": self._num_bytes}

    def _columns(self, table: pa.Table) -> pa.Table:
        images = table.column("image").combine_chunks()
        suffixes = pa.array(file_extensions(table, self.options.export.image_ext), pa.string())
        paths = pa.compute.binary_join_element_wise(table.column("id").combine_chunks(), suffixes, "")
        missing = images.is_null() if images.null_count else None
        if missing is not None:
            rows = pa.compute.indices_nonzero(missing)
            self._lost_paths |= {
                self._done + row: path for row, path in zip(rows.to_pylist(), paths.take(rows).to_pylist(), strict=True)
            }
        self._done += len(table)
        columns = [
            pa.StructArray.from_arrays([images, paths], fields=list(self._schema.field("img").type), mask=missing)
        ]
        label = table.column("label").combine_chunks()
        columns.append(label)
        if self.options.labels.has_superclasses:
            columns.append(self._parents.take(label))
        # Without the bitmaps of missing values: rounded up in each block, they would depend on where blocks end.
        texts = sum(pa.compute.sum(pa.compute.binary_length(column)).as_py() or 0 for column in (images, paths))
        self._num_bytes += texts + len(table) * (4 + 4 + 8 * (len(columns) - 1))
        return pa.Table.from_arrays(columns, schema=self._schema)


class ParquetSink(SplitSink):
    """Writes Parquet files that `datasets.load_dataset` opens with its default checks."""

    name = "parquet"
    can = replace(SPLITS, any_image_files=True, keeps_files=False)
    subsets = split_naming(split_name_of)
    writer = _ParquetWriter

    def rows_together(self, rows: int, image_bytes: int) -> int:
        """Returns the rows of a row group, or fewer where large images fill a file first."""
        return min(ROW_GROUP_ROWS, max(1, MAX_SHARD_BYTES * rows // max(1, image_bytes)))

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return f"data/{subset}-{number:05d}-of-{count:05d}.parquet"

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the dataset card if it is asked for or needed, and the Croissant file if they are asked for."""
        files = {CARD: _card(options.labels, shards).encode()} if options.export.card or _unseen(shards) else {}
        return {**files, CROISSANT: _croissant(options.labels, shards)} if options.export.card else files

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields a notice if there is a card that was not asked for."""
        if _unseen(shards) and not options.export.card:
            yield (
                f"datasets needs README.md to find {_unseen(shards)}; pandas and pyarrow read the folder data, not the "
                "one above it; set a larger --images-per-batch to do without README.md"
            )


def _unseen(shards: Sequence[ShardResult]) -> str:
    """Returns a file that `datasets` does not find without a card: it expects numbers of five digits; "" if none."""
    paths = (result.shard.path for result in shards)
    return next((path for path in paths if not re.fullmatch(r"data/.+-\d{5}-of-\d{5}\.parquet", path)), "")


def _card(labels: LabelTable, shards: Sequence[ShardResult]) -> str:
    """Returns the card: YAML with actual counts, which `datasets` checks against the files."""
    rows, sizes = split_rows(shards), Counter[str]()
    for result in shards:
        sizes[result.shard.subset] += result.statistics["num_bytes"]
    lines = ["---", "dataset_info:", "  features:", "  - name: img", "    dtype: image"]
    for column, names in label_columns(labels).items():
        lines += [f"  - name: {column}", "    dtype:", "      class_label:", "        names:"]
        lines += [f"          '{number}': {quoted(name)}" for number, name in enumerate(names)]
    lines.append("  splits:")
    for name, count in rows.items():
        lines += [f"  - name: {quoted(name)}", f"    num_bytes: {sizes[name]}", f"    num_examples: {count}"]
    lines += [
        f"  download_size: {sum(result.bytes for result in shards)}",
        f"  dataset_size: {sizes.total()}",
        *config_lines({name: f"data/{name}-*" for name in rows}),
    ]
    return "\n".join([*lines, *text_lines(rows)]) + "\n"


def _croissant(labels: LabelTable, shards: Sequence[ShardResult]) -> bytes:
    """Returns the Croissant file."""
    columns = label_columns(labels).items()
    files = file_set("files", ["data/*.parquet"], "application/x-parquet")
    fields = {
        "image": field_of("files", "sc:ImageObject", {"column": "img"}, jsonPath="bytes"),
        "path": field_of("files", "sc:Text", {"column": "img"}, jsonPath="path"),
        **{
            name: field_of("files", "sc:Integer", {"column": name}) | _reference(name, names) for name, names in columns
        },
        "split": field_of("files", "sc:Text", {"fileProperty": "filename"}, regex=r"^(.+)-\d+-of-\d+\.parquet$"),
    }
    return croissant(labels, split_rows(shards), [files], [record_set("images", fields)])


def _reference(column: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns what says that the numbers of a column are those of classes; nothing if there are none."""
    classes = "superclasses" if column == COARSE_NAME else "classes"
    return {"references": {"field": {"@id": f"{classes}/id"}}} if names else {}
