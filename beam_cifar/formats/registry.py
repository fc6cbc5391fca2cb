"""The registry: the one place where formats are listed."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar import storage
from beam_cifar.data.labels import unknown_name
from beam_cifar.data.loading import load
from beam_cifar.errors import InputError
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
        "CIFAR-10 and CIFAR-100, Python version; also read from .tar and .tar.gz",
        "cifar.read:CifarSource",
        "cifar.write:CifarSink",
    ),
    "parquet": Format(
        "Parquet with encoded images, as used by Hugging Face datasets",
        "parquet.read:ParquetSource",
        "parquet.write:ParquetSink",
    ),
    "webdataset": Format(
        "WebDataset: tar files of samples, plus a label table",
        "webdataset.source:WebdatasetSource",
        "webdataset.sink:WebdatasetSink",
    ),
    "tfds_parquet": Format(
        "TensorFlow Datasets as Parquet files, readable without TensorFlow", sink="tfds:TfdsParquetSink"
    ),
    "tfds_tfrecord": Format("TensorFlow Datasets as TFRecord files", sink="tfds:TfdsTfrecordSink"),
    "npz": Format(
        "NumPy arrays of images and labels, one file per subset; also Keras' mnist.npz and MedMNIST",
        "npz.read:NpzSource",
        "npz.write:NpzSink",
    ),
    "npy": Format(
        "NumPy files of images and of labels, as x_train.npy and y_train.npy; also CIFAR-10.1 and CIFAR-10-C",
        "npy:NpySource",
    ),
    "downsampled_imagenet": Format(
        "Downsampled ImageNet (Imagenet32, Imagenet64), pickle or .npz files",
        "downsampled_imagenet:DownsampledImagenetSource",
    ),
    "imagenet_txt": Format(
        "images, and text files with their paths and label ids, as Datumaro's imagenet_txt",
        "imagenet_txt:ImagenetTxtSource",
        "imagenet_txt:ImagenetTxtSink",
    ),
    "voc_classification": Format(
        "Pascal VOC classification: JPEG files, with image lists per subset and class", "voc:VocSource", "voc:VocSink"
    ),
    "mnist": Format(
        "MNIST's original files of images and labels, plain or .gz", "mnist:MnistSource", "mnist:MnistSink"
    ),
    "mnist_csv": Format(
        "MNIST as CSV, one line of label and pixels per image", "mnist_csv:MnistCsvSource", "mnist_csv:MnistCsvSink"
    ),
    "cifar_binary": Format(
        "CIFAR-10 and CIFAR-100, binary version; also read from .tar and .tar.gz",
        "cifar_binary:CifarBinarySource",
        "cifar_binary:CifarBinarySink",
    ),
    "stl10": Format("STL-10, binary version; also read from .tar and .tar.gz", "stl10:Stl10Source"),
    "svhn": Format("SVHN's cropped digits, as MATLAB files such as train_32x32.mat", "svhn:SvhnSource"),
    "datumaro": Format(
        "Datumaro's native format: images, and a JSON file of items per subset",
        "datumaro:DatumaroSource",
        "datumaro:DatumaroSink",
    ),
    "imagenet": Format("one folder of PNG or JPEG files per class", "imagenet:ImagenetSource", "imagenet:ImagenetSink"),
    "imagenet_with_subset_dirs": Format(
        "one folder per subset, and in it one folder of images per class",
        "imagenet:ImagenetWithSubsetDirsSource",
        "imagenet:ImagenetWithSubsetDirsSink",
    ),
    "image_dir": Format(
        "a folder of images without labels, at any depth", "image_dir:ImageDirSource", "image_dir:ImageDirSink"
    ),
}


INTERNAL = {"arrivals": "arrivals:ArrivalsSource", "items": "items:ItemsSource"}
"""Sources of formats that only this package writes; users never name them."""


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
    """Returns the format of a directory or archive, or None if none matches; archive indexes go to `index_dir`.

    Raises:
        InputError: a file that shows whether it is some format cannot be read. The formats after it are not asked:
            they would take the same files for something else.
    """
    return next((name for name in readable() if _is_it(name, path, index_dir)), None)


def _is_it(name: str, path: str, index_dir: str) -> bool:
    source = get_source(name)
    try:
        with storage.reading(path):
            return source.looks_right(path, index_dir)
    except InputError as error:
        if str(error).startswith(f"{path}: "):  # the dataset itself: no other format can read it either
            raise
        advice = "restore or remove it, or name the format with --input-format"
        raise InputError(f"{error}; without it the format is uncertain (perhaps {name}): {advice}") from error
