"""The registry: the one place where formats are listed."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar.data.labels import unknown_name
from beam_cifar.data.loading import load
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.source import Source


@dataclass(frozen=True)
class Format:
    """A format as shown in lists and help texts; its module is imported on first use.

    Attributes:
        title: one-line description.
        source: "module:class" within this package of its source, or "" if it cannot be read.
        sink: "module:class" of its sink, or "" if it cannot be written.
    """

    title: str
    source: str = ""
    sink: str = ""


# The order decides detection: the first format that matches wins.
FORMATS: dict[str, Format] = {
    "cifar": Format(
        "CIFAR-10 and CIFAR-100, python version, also from .tar and .tar.gz",
        "cifar.read:CifarSource",
        "cifar.write:CifarSink",
    ),
    "parquet": Format(
        "Parquet with encoded images, as read by Hugging Face datasets",
        "parquet.read:ParquetSource",
        "parquet.write:ParquetSink",
    ),
    "webdataset": Format(
        "WebDataset: tar files of samples, with a label table beside them",
        "webdataset.source:WebdatasetSource",
        "webdataset.sink:WebdatasetSink",
    ),
    "tfds_parquet": Format(
        "TensorFlow Datasets, in Parquet files, readable without TensorFlow", sink="tfds:TfdsParquetSink"
    ),
    "tfds_tfrecord": Format("TensorFlow Datasets, in TFRecord files", sink="tfds:TfdsTfrecordSink"),
    "npz": Format(
        "NumPy arrays: images and labels, one file for each subset; also Keras' mnist.npz and MedMNIST",
        "npz.read:NpzSource",
        "npz.write:NpzSink",
    ),
    "downsampled_imagenet": Format(
        "Downsampled ImageNet (Imagenet32, Imagenet64), pickles or .npz",
        "downsampled_imagenet:DownsampledImagenetSource",
    ),
    "imagenet_txt": Format(
        "images, and lists of them with label ids, as in Datumaro's imagenet_txt",
        "imagenet_txt:ImagenetTxtSource",
        "imagenet_txt:ImagenetTxtSink",
    ),
    "voc_classification": Format(
        "Pascal VOC, classification: JPEG files, lists of them, and a list for each class",
        "voc:VocSource",
        "voc:VocSink",
    ),
    "mnist": Format("MNIST's own format: images and labels, plain or gzipped", "mnist:MnistSource", "mnist:MnistSink"),
    "mnist_csv": Format(
        "MNIST as CSV: one line per image, label before pixels", "mnist_csv:MnistCsvSource", "mnist_csv:MnistCsvSink"
    ),
    "cifar_binary": Format(
        "CIFAR-10 and CIFAR-100, binary version, also read from .tar and .tar.gz",
        "cifar_binary:CifarBinarySource",
        "cifar_binary:CifarBinarySink",
    ),
    "datumaro": Format(
        "Datumaro's own format: images, and JSON for each subset", "datumaro:DatumaroSource", "datumaro:DatumaroSink"
    ),
    "imagenet": Format(
        "a folder of PNG or JPEG files for each class", "imagenet:ImagenetSource", "imagenet:ImagenetSink"
    ),
    "imagenet_with_subset_dirs": Format(
        "the same, in a folder for each subset",
        "imagenet:ImagenetWithSubsetDirsSource",
        "imagenet:ImagenetWithSubsetDirsSink",
    ),
    "image_dir": Format(
        "a folder of images without labels, nested to any depth", "image_dir:ImageDirSource", "image_dir:ImageDirSink"
    ),
}


INTERNAL = {"items": "items:ItemsSource"}
"""Sources of formats that only this package writes, and users never name."""


def readable() -> list[str]:
    """Returns the names of the formats that can be read."""
    return [name for name, entry in FORMATS.items() if entry.source]


def writable() -> list[str]:
    """Returns the names of the formats that can be written."""
    return [name for name, entry in FORMATS.items() if entry.sink]


def get_source(name: str) -> Source:
    """Returns the source of a format. Raises `UsageError` if the format is unknown or cannot be read."""
    if name not in (*readable(), *INTERNAL):
        raise unknown_name("input format", name, readable())
    made: Source = load(f"beam_cifar.formats.{INTERNAL.get(name) or FORMATS[name].source}")()
    return made


def get_sink(name: str) -> Sink:
    """Returns the sink of a format. Raises `UsageError` if the format is unknown or cannot be written."""
    if name not in writable():
        raise unknown_name("output format", name, writable())
    made: Sink = load(f"beam_cifar.formats.{FORMATS[name].sink}")()
    return made


def detect_format(path: str, index_dir: str) -> str | None:
    """Returns the format of a directory or archive, or None if none matches; archive indexes go to `index_dir`."""
    return next((name for name in readable() if get_source(name).detect(path, index_dir)), None)
