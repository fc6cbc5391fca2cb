"""The registry: the one place where formats are listed, and where those of other packages are found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from beam_cifar import storage
from beam_cifar.data.labels import unknown_name
from beam_cifar.data.loading import load
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.source import Source

MAX_DEPTH, MAX_FOLDERS, MAX_NAMES = 3, 16, 1000
"""How many levels of folders, folders of each, and names in each of these show whether a second format is there."""

GROUP = "beam_cifar.formats"
"""The group of entry points by which other packages offer formats: the name of each, and where its `Format` is."""


class Sureness(IntEnum):
    """How sure it is that what looks like a format is that format."""

    POSSIBLE = 1
    """There are only images."""
    LIKELY = 2
    """The layout of its folders or tables, which other data may have too."""
    CERTAIN = 3
    """Magic numbers, or files that only this format has."""


@dataclass(frozen=True)
class Format:
    """A format as shown in lists and help texts; its module is imported on first use.

    Attributes:
        title: one-line description.
        source: "module:class" of its source, or "" if it cannot be read; the modules of this package's own formats
            are named within `beam_cifar.formats`.
        sink: "module:class" of its sink, or "" if it cannot be written.
        marks: ends of names of files or folders that datasets of this format have; where it is missing otherwise,
            they show that it was meant.
        sureness: how sure it is where its source says that a dataset looks right.

    >>> from beam_cifar.formats.registry import Format
    >>> FORMAT = Format("images of a microscope", source="microscope.read:MicroscopeSource")
    """

    title: str
    source: str = ""
    sink: str = ""
    marks: tuple[str, ...] = ()
    sureness: Sureness = Sureness.CERTAIN


FORMATS: dict[str, Format] = {
    "cifar": Format(
        "CIFAR-10 and CIFAR-100, Python version; also read from .tar and .tar.gz",
        "cifar.read:CifarSource",
        "cifar.write:CifarSink",
        marks=("batches.meta", "meta", "_batch"),
    ),
    "parquet": Format(
        "Parquet with encoded images, as used by Hugging Face datasets",
        "parquet.read:ParquetSource",
        "parquet.write:ParquetSink",
        marks=(".parquet",),
    ),
    "hf_arrow": Format(
        "Hugging Face datasets as save_to_disk writes them, or in the cache: Arrow files",
        "hf_arrow:HfArrowSource",
        marks=("dataset_dict.json", "state.json", ".arrow"),
    ),
    "webdataset": Format(
        "WebDataset: tar files of samples, plus a label table",
        "webdataset.source:WebdatasetSource",
        "webdataset.sink:WebdatasetSink",
        marks=(".tar",),
    ),
    "tfds_parquet": Format(
        "TensorFlow Datasets as Parquet files, readable without TensorFlow", sink="tfds.write:TfdsParquetSink"
    ),
    "tfds_array_record": Format(
        "TensorFlow Datasets as ArrayRecord files, for Grain and TFDS without TensorFlow",
        sink="tfds.write:TfdsArrayRecordSink",
    ),
    "tfds_tfrecord": Format("TensorFlow Datasets as TFRecord files", sink="tfds.write:TfdsTfrecordSink"),
    "tfds": Format(
        "TensorFlow Datasets as TFDS prepares them, TFRecord, Parquet or ArrayRecord files",
        "tfds.read:TfdsSource",
        marks=("features.json",),
    ),
    "mds": Format("MosaicML Streaming's shards, for StreamingDataset", sink="mds:MdsSink"),
    "lance": Format("Lance datasets of encoded images and labels, one per subset", sink="lance:LanceSink"),
    "npz": Format(
        "NumPy arrays of images and labels, one file per subset; also Keras' mnist.npz and MedMNIST",
        "npz.read:NpzSource",
        "npz.write:NpzSink",
        marks=(".npz",),
    ),
    "npy": Format(
        "NumPy files of images and of labels, as x_train.npy and y_train.npy; also CIFAR-10.1 and CIFAR-10-C",
        "npy:NpySource",
        marks=(".npy",),
    ),
    "downsampled_imagenet": Format(
        "Downsampled ImageNet (Imagenet32, Imagenet64), pickle or .npz files",
        "downsampled_imagenet:DownsampledImagenetSource",
        marks=("_data_batch_1", "val_data"),
    ),
    "imagenet_txt": Format(
        "images, and text files with their paths and label ids, as Datumaro's imagenet_txt",
        "imagenet_txt:ImagenetTxtSource",
        "imagenet_txt:ImagenetTxtSink",
        marks=("synsets.txt",),
    ),
    "voc_classification": Format(
        "Pascal VOC classification: JPEG files, with image lists per subset and class",
        "voc:VocSource",
        "voc:VocSink",
        marks=("JPEGImages", "ImageSets"),
    ),
    "mnist": Format(
        "MNIST's original files of images and labels, plain or .gz",
        "mnist:MnistSource",
        "mnist:MnistSink",
        marks=("-ubyte", "-ubyte.gz"),
    ),
    "mnist_csv": Format(
        "MNIST as CSV, one line of label and pixels per image",
        "mnist_csv:MnistCsvSource",
        "mnist_csv:MnistCsvSink",
        marks=(".csv", ".tsv"),
        sureness=Sureness.LIKELY,
    ),
    "cifar_binary": Format(
        "CIFAR-10 and CIFAR-100, binary version; also read from .tar and .tar.gz",
        "cifar_binary:CifarBinarySource",
        "cifar_binary:CifarBinarySink",
        marks=("batches.meta.txt", "_label_names.txt", ".bin"),
    ),
    "stl10": Format("STL-10, binary version; also read from .tar and .tar.gz", "stl10:Stl10Source", marks=("_X.bin",)),
    "svhn": Format(
        "SVHN's cropped digits, as MATLAB files such as train_32x32.mat", "svhn:SvhnSource", marks=("_32x32.mat",)
    ),
    "datumaro": Format(
        "Datumaro's native format: images, and a JSON file of items per subset",
        "datumaro:DatumaroSource",
        "datumaro:DatumaroSink",
        marks=("annotations",),
    ),
    "coco": Format(
        "COCO with a category for each image, as Datumaro's coco: images, and a JSON file per subset",
        "coco:CocoSource",
        "coco:CocoSink",
        marks=("annotations",),
    ),
    "cvat": Format(
        "CVAT for images 1.1 with tags, as Datumaro's cvat: images, and an XML file per subset",
        "cvat:CvatSource",
        "cvat:CvatSink",
        marks=(".xml",),
    ),
    "open_images": Format(
        "Open Images with labels of whole images, as Datumaro's open_images: images, and CSV files per subset",
        "open_images:OpenImagesSource",
        "open_images:OpenImagesSink",
        marks=("annotations",),
    ),
    "tiny_imagenet": Format(
        "Tiny ImageNet: train, val and test folders with wnids.txt and words.txt",
        "tiny_imagenet:TinyImagenetSource",
        marks=("wnids.txt",),
    ),
    "imagenet_kaggle": Format(
        "ImageNet as Kaggle has it: ILSVRC/Data/CLS-LOC, and CSV files of labels",
        "imagenet_kaggle:ImagenetKaggleSource",
        marks=("LOC_synset_mapping.txt",),
    ),
    "image_csv": Format(
        "folders of images, and a CSV or JSON lines file with their labels, as on Kaggle and Hugging Face",
        "image_csv:ImageCsvSource",
        marks=(".csv", ".tsv", ".jsonl"),
    ),
    "imagenet": Format(
        "one folder of PNG or JPEG files per class",
        "imagenet:ImagenetSource",
        "imagenet:ImagenetSink",
        sureness=Sureness.LIKELY,
    ),
    "imagenet_with_subset_dirs": Format(
        "one folder per subset, and in it one folder of images per class",
        "imagenet:ImagenetWithSubsetDirsSource",
        "imagenet:ImagenetWithSubsetDirsSink",
        sureness=Sureness.LIKELY,
    ),
    "yolo": Format("Ultralytics' folders for YOLO classification: train, val and test", sink="yolo:YoloSink"),
    "image_dir": Format(
        "a folder of images without labels, at any depth",
        "image_dir:ImageDirSource",
        "image_dir:ImageDirSink",
        sureness=Sureness.POSSIBLE,
    ),
}


INTERNAL = {"arrivals": "arrivals:ArrivalsSource", "items": "items:ItemsSource"}
"""Sources of formats that only this package writes; users never name them."""


def readable() -> list[str]:
    """Returns the names of this package's formats that can be read."""
    return [name for name, entry in FORMATS.items() if entry.source]


def writable() -> list[str]:
    """Returns the names of this package's formats that can be written."""
    return [name for name, entry in FORMATS.items() if entry.sink]


@functools.cache
def offered() -> dict[str, Format]:
    """Returns the formats that other installed packages offer, by name; finding them takes some 50 ms.

    Raises:
        UsageError: one cannot be loaded, or has the name of another.
    """
    from importlib.metadata import entry_points

    found: dict[str, Format] = {}
    for point in sorted(entry_points(group=GROUP)):
        where = f"format {point.name!r} of package {point.dist.name if point.dist else '?'} ({point.value})"
        if point.name in (*FORMATS, *INTERNAL, *found):
            raise UsageError(f"{where}: there is another of that name; uninstall one of the packages")
        try:
            made = point.load()
        except Exception as error:
            raise UsageError(f"{where}: cannot be loaded: {error}; mend or uninstall the package") from error
        if not isinstance(made, Format):
            raise UsageError(f"{where}: is {type(made).__name__}, expected a beam_cifar.formats.registry.Format")
        found[point.name] = made
    return found


def find_format(name: str) -> Format | None:
    """Returns a format of this package or of another one, by name; None if there is none. Raises `UsageError`."""
    return FORMATS.get(name) or offered().get(name)


class FormatNames(Collection[str]):
    """Names of the formats that can be read, or written; other packages are asked only for names unknown here.

    Args:
        side: "source" or "sink".
    """

    def __init__(self, side: str) -> None:
        self._side = side

    def __contains__(self, name: object) -> bool:
        found = find_format(str(name))
        return found is not None and bool(getattr(found, self._side))

    def __iter__(self) -> Iterator[str]:
        return (name for name, entry in {**FORMATS, **offered()}.items() if getattr(entry, self._side))

    def __len__(self) -> int:
        return sum(1 for _ in self)


READ, WRITE = FormatNames("source"), FormatNames("sink")


def get_source(name: str) -> Source:
    """Returns the source of a format. Raises `UsageError` if the format is unknown or cannot be read."""
    internal = f"beam_cifar.formats.{INTERNAL[name]}" if name in INTERNAL else ""
    made: Source = load(internal or _target(name, "source", "input format"))()
    return made


def get_sink(name: str) -> Sink:
    """Returns the sink of a format. Raises `UsageError` if the format is unknown or cannot be written."""
    made: Sink = load(_target(name, "sink", "output format"))()
    return made


def _target(name: str, side: str, what: str) -> str:
    """Returns "module:class" of one side of a format. Raises `UsageError` if it has none."""
    found = find_format(name)
    target = str(getattr(found, side)) if found else ""
    if not target:
        raise unknown_name(what, name, list(FormatNames(side)))
    return f"beam_cifar.formats.{target}" if name in FORMATS else target


class Detected(NamedTuple):
    """A detected format.

    Attributes:
        name: name of the format.
        sureness: how sure it is.
    """

    name: str
    sureness: Sureness


def detect(path: str, index_dir: str) -> Detected | None:
    """Returns the format of a directory or archive, or None if none matches; archive indexes go to `index_dir`.

    The surest one wins: those that are less sure are asked only if no other matches.

    Raises:
        InputError: several match and are equally sure, or a file that shows whether it is some format cannot be read.
            Other formats are not asked then: they would take the same files for something else.
    """
    for sureness, names in _by_sureness():
        for name in names:
            if _is_it(name, path, index_dir):
                others, near = names[names.index(name) + 1 :], functools.cache(lambda: _names_near(path))
                _refuse_two(path, name, [each for each in others if _is_there_too(each, path, near, index_dir)])
                return Detected(name, sureness)
    return None


def _by_sureness() -> Iterator[tuple[Sureness, list[str]]]:
    """Yields formats that are equally sure, the surest first; those of other packages after ours that are sure."""
    for sureness in (Sureness.CERTAIN, Sureness.LIKELY, Sureness.POSSIBLE):
        yield sureness, _names(FORMATS, sureness)
        yield sureness, _names(offered(), sureness)


def _names(formats: Mapping[str, Format], sureness: Sureness) -> list[str]:
    return [name for name, entry in formats.items() if entry.source and entry.sureness is sureness]


def _is_there_too(name: str, path: str, near: Callable[[], Collection[str]], index_dir: str) -> bool:
    """Returns whether a folder with files of one format has files of another; asked only if names of files say so.

    Args:
        name: name of the other format.
        path: path of the dataset.
        near: returns the names; called only for a format that has marks, since it lists folders.
        index_dir: directory for archive indexes.
    """
    entry = find_format(name)
    marks = entry.marks if entry else ()
    if marks and not any(each.endswith(marks) for each in near()):
        return False
    try:
        return _is_it(name, path, index_dir)
    except InputError:
        return False


def _names_near(path: str) -> list[str]:
    """Returns the first names in a folder and in folders below it: some formats are found one or two folders down."""
    near, folders = list[str](), [path] if storage.is_folder(path) else []
    for _ in range(MAX_DEPTH):
        inner = list[str]()
        for folder in folders[:MAX_FOLDERS]:
            with suppress(OSError):  # one that cannot be listed has nothing to be read either
                names, found = storage.first_names(folder, MAX_NAMES)
                near += [*names, *map(storage.name_of, found)]
                inner += found
        folders = inner
    return near


def _refuse_two(path: str, name: str, others: Sequence[str]) -> None:
    if others:
        raise InputError(
            f"{path}: has files of several formats: {' and '.join((name, *others))}; name the one to read with "
            f"--input-format, such as --input-format {name}"
        )


def detect_format(path: str, index_dir: str) -> str | None:
    """Returns the name of the format that `detect` finds. Raises `InputError` as it does."""
    found = detect(path, index_dir)
    return found.name if found else None


def _is_it(name: str, path: str, index_dir: str) -> bool:
    source = get_source(name)
    try:
        with storage.reading(path):
            return source.looks_right(path, index_dir)
    except InputError as error:
        if storage.hide(error, path, source.may_lose):
            return _is_it(name, path, index_dir)
        if str(error).startswith(f"{path}: "):  # the dataset itself: no other format can read it either
            raise
        advice = "restore or remove it, or name the format with --input-format"
        raise InputError(f"{error}; without it the format is uncertain (perhaps {name}): {advice}") from error
