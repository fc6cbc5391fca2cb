"""TensorFlow Datasets: a prepared dataset that `tfds.builder_from_directory` opens without the code that made it.

The output is a "version directory" of TFDS. Reference: `naming.py`, `dataset_info.py`, `features/` and
`file_adapters.py` of https://github.com/tensorflow/datasets, 4.9.10. TFDS reads Parquet and ArrayRecord without
TensorFlow, with `as_data_source`; TFRecord needs TensorFlow.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa

from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import UNLABELLED, LabelTable, refuse_repeated
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.sink import PartWriter
from beam_cifar.formats.contract.types import ShardResult, SinkOptions
from beam_cifar.formats.kit.array_record import ArrayRecordWriter
from beam_cifar.formats.kit.records import names_file, written_columns
from beam_cifar.formats.kit.splits import SPLITS, RowGroups, SplitSink, split_naming
from beam_cifar.formats.kit.tf_example import framed, serialized_example

NAME = "dataset"
"""Name of the dataset inside TFDS; fixed, because a sink does not know another."""

VERSION = "1.0.0"
# Examples serialized at a time.
CHUNK_ROWS = 100
_PYTHON = "tensorflow_datasets.core.features."
_PARQUET = pa.schema([pa.field("data", pa.binary())])
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class _ExampleWriter(PartWriter):
    """Serializes examples, and collects the statistics that `TfdsSink.finish` needs."""

    def __post_init__(self) -> None:
        table = self.options.labels
        # The extra last entry is for UNLABELLED, which is -1 and so indexes it.
        parents = (UNLABELLED if parent is None else parent for parent in table.parents)
        self._parents = (*parents, UNLABELLED) if table.has_superclasses else ()
        self._statistics = dict.fromkeys(
            ("num_bytes", "rows", "gray", "png", "height", "height_squared", "width", "width_squared"), 0
        )

    def append(self, table: pa.Table) -> None:
        for start in range(0, len(table), CHUNK_ROWS):
            records = list(self._serialized(table.slice(start, CHUNK_ROWS)))
            self._statistics["num_bytes"] += sum(map(len, records))
            self.write(records)
        self._count(table)

    @abstractmethod
    def write(self, records: Sequence[bytes]) -> None:
        """Writes serialized examples."""

    def statistics(self) -> dict[str, int]:
        """Returns sums that show whether all images have the same size and encoding, and the size of all examples."""
        return self._statistics

    def _serialized(self, table: pa.Table) -> Iterator[bytes]:
        _, labels = written_columns(table, self)
        ids, images = (table.column(name).to_pylist() for name in ("id", "image"))
        for item_id, image, label in zip(ids, images, labels.tolist(), strict=True):
            coarse = {"coarse_label": self._parents[label]} if self._parents else {}
            yield serialized_example({**coarse, "id": item_id.encode(), "image": image, "label": label})

    def _count(self, table: pa.Table) -> None:
        counts, (height, width) = self._statistics, (table.column(name).to_pylist() for name in ("height", "width"))
        counts["rows"] += len(table)
        counts["gray"] += table.column("channels").to_pylist().count(1)
        counts["png"] += table.column("encoding").to_pylist().count("png")
        for name, values in (("height", height), ("width", width)):
            counts[name] += sum(values)
            counts[f"{name}_squared"] += sum(value * value for value in values)


class _RecordExamples(_ExampleWriter):
    """Writes examples to a TFRecord file."""

    def write(self, records: Sequence[bytes]) -> None:
        self.file.write(framed(records))


class _ArrayRecordExamples(_ExampleWriter):
    """Writes examples to an ArrayRecord file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._records = ArrayRecordWriter(self.file)

    def write(self, records: Sequence[bytes]) -> None:
        self._records.append(records)

    def close(self) -> None:
        self._records.close()


class _ParquetExamples(_ExampleWriter):
    """Writes examples to a Parquet file, in row groups."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # PNG and JPEG are already compressed.
        self._groups = RowGroups(self.file, _PARQUET, compression="NONE", use_dictionary=False)

    def write(self, records: Sequence[bytes]) -> None:
        self._groups.append(pa.table([pa.array(records, pa.binary())], schema=_PARQUET), map(len, records))

    def close(self) -> None:
        self._groups.close()


def _split(name: str) -> str:
    """Returns a valid split name: letters, digits and `_`, and not only `_` (`naming.py`, `splits.py`)."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return found if re.search("[A-Za-z0-9]", found) else f"split{found}"


class TfdsSink(SplitSink):
    """Base of the sinks for all file formats."""

    can = replace(SPLITS, takes_missing_images=False)
    subsets = split_naming(_split)
    file_format: ClassVar[str]

    def check_labels(self, labels: LabelTable) -> None:
        """Checks that names survive as lines of a text file that readers strip (`class_label_feature.py`)."""
        for names in (labels.names, labels.coarse_names):
            for name in names:
                if name.strip() != name or not name or len(re.split(r"[\r\n]", name)) > 1:
                    raise UsageError(
                        f"class {name[:80]!r} cannot be written as a line of text, since readers strip white space; "
                        "rename it with --remap"
                    )
            refuse_repeated(names, "and names must be unique")

    def shard_path(self, subset: str, number: int, count: int) -> str:
        digits = max(5, len(str(count)))
        return f"{NAME}-{subset}.{self.file_format}-{number:0{digits}d}-of-{count:0{digits}d}"

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the features of the examples, the splits and their counts, and the class names."""
        files = {
            "features.json": _json(_features(options.labels, shards)),
            "dataset_info.json": _json(self._info(shards)),
        }
        for feature, names in _classes(options.labels).items():
            if names:
                files[f"{feature}.labels.txt"] = names_file(names)
        return files

    def _info(self, shards: Sequence[ShardResult]) -> dict[str, Any]:
        """Returns the fields of the message `DatasetInfo` as protobuf's JSON, in which 64-bit numbers are text."""
        splits = by_key((result.shard.subset, result) for result in shards)
        return {
            "name": NAME,
            "version": VERSION,
            "description": "An image classification dataset.",
            "fileFormat": self.file_format,
            # Keeps the order in which examples were written.
            "disableShuffling": True,
            "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
            "splits": [
                {
                    "name": name,
                    "filepathTemplate": _TEMPLATE,
                    "shardLengths": [str(result.shard.rows) for result in results],
                    "numBytes": str(sum(result.statistics["num_bytes"] for result in results)),
                }
                for name, results in splits.items()
            ],
        }


class TfdsParquetSink(TfdsSink):
    """Writes Parquet files, which support random access without TensorFlow."""

    name = "tfds_parquet"
    file_format = "parquet"
    writer = _ParquetExamples


class TfdsArrayRecordSink(TfdsSink):
    """Writes ArrayRecord files, which Grain and TFDS read at random without TensorFlow."""

    name = "tfds_array_record"
    file_format = "array_record"
    writer = _ArrayRecordExamples


class TfdsTfrecordSink(TfdsSink):
    """Writes TFRecord files, which TensorFlow and other tools read sequentially."""

    name = "tfds_tfrecord"
    file_format = "tfrecord"
    writer = _RecordExamples


def _classes(labels: LabelTable) -> Mapping[str, tuple[str, ...]]:
    """Returns the class names of each label feature; features are named as in TFDS' own `cifar100`."""
    coarse = {"coarse_label": labels.coarse_names} if labels.has_superclasses else {}
    return {**coarse, "label": labels.names}


def _features(labels: LabelTable, shards: Sequence[ShardResult]) -> dict[str, Any]:
    """Returns the message `FeaturesDict` as `FeatureConnector.to_json` wraps it."""
    features: dict[str, Any] = {
        feature: {
            "pythonClassName": f"{_PYTHON}class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(names))},
        }
        for feature, names in _classes(labels).items()
    }
    features["id"] = {"pythonClassName": f"{_PYTHON}text_feature.Text", "text": {}}
    features["image"] = {"pythonClassName": f"{_PYTHON}image_feature.Image", "image": _image_feature(shards)}
    return {
        "type": f"{_PYTHON}features_dict.FeaturesDict",
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": {"features": features},
    }


def _image_feature(shards: Sequence[ShardResult]) -> dict[str, Any]:
    """Returns the message `ImageFeature`: -1 for sides that differ, and 3 channels unless all images are gray."""
    totals: Counter[str] = Counter()
    for result in shards:
        totals.update(result.statistics)
    rows = totals["rows"]
    sides = [_common(rows, totals[side], totals[f"{side}_squared"]) for side in ("height", "width")]
    shape = [*sides, 1 if totals["gray"] == rows else 3]
    found = {"shape": {"dimensions": list(map(str, shape))}, "dtype": "uint8"}
    encoding = {rows: "png", 0: "jpeg"}.get(totals["png"])
    return found | ({"encodingFormat": encoding} if encoding else {})


def _common(count: int, total: int, squares: int) -> int:
    """Returns the value of `count` equal numbers from their sums, -1 if they are not all equal (Cauchy-Schwarz)."""
    return total // count if count * squares == total * total else -1


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
