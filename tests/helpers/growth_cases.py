"""Jobs whose cost must grow no faster than their images: every reader and every writer, in every order.

`benchmarks/growth.py` measures them, and `tests/growth` counts their work.

    python -m tests.helpers.growth_cases FOLDER --images N --per-file N LAYOUT ...    # makes inputs, and nothing else
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from beam_cifar.formats.registry import FORMATS
from tests.helpers.matlab import mat_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ORDERS = {
    "plain": (),
    "shuffle": ("--transform", "shuffle"),
    "sort": ("--transform", "sort --by label"),
    "random_split": ("--transform", "random_split -s train:.6 -s val:.2 -s test:.2"),
    "dedupe": ("--transform", "dedupe"),
    "half": ("-e", "/item[{}]".format(" or ".join(f'annotation/label="{name}"' for name in (*CLASSES[::2], *"02468")))),
}
"""What changes the order of rows, or drops some: options of `convert`."""


@dataclass(frozen=True)
class Layout:
    """How an input is stored.

    Attributes:
        target: format it is converted to; "" for the sample itself, as an archive.
        source: the layout that it is made from; "" for a sample.
        options: further ones of `convert`; `{rows}` is the number of rows per file.
        rewrite: rewrites a file that was converted, given its path and the rows per file; returns the path it replaces
            it with.
        files: the files that are rewritten.
    """

    target: str
    source: str = ""
    options: tuple[str, ...] = ()
    rewrite: Callable[[Path, int], Path] | None = None
    files: str = ""


def _in_groups(path: Path, rows: int) -> Path:
    """Rewrites a Parquet file with row groups of half of `rows`."""
    return _regrouped(path, max(1, rows // 2))


def _in_one_group(path: Path, rows: int) -> Path:
    """Rewrites a Parquet file as `DataFrame.to_parquet` would."""
    return _regrouped(path, 1 << 20)


def _regrouped(path: Path, rows: int) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path), path, row_group_size=rows)
    return path


def _compressed(path: Path, rows: int) -> Path:
    import numpy as np

    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    return path


def _unzipped(path: Path, rows: int) -> Path:
    plain = path.with_suffix("")
    with gzip.open(path) as packed, open(plain, "wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    path.unlink()
    return plain


def _plain_arrays(path: Path, rows: int) -> Path:
    """Stores the arrays of an `.npz` file as files of images and of labels."""
    import numpy as np

    with np.load(path) as arrays:
        np.save(path.with_name(f"{path.stem}_images.npy"), arrays["images"])
        np.save(path.with_name(f"{path.stem}_labels.npy"), arrays["labels"])
    path.unlink()
    return path.with_name(f"{path.stem}_images.npy")


def _as_stl10(path: Path, rows: int) -> Path:
    """Stores the arrays of an `.npz` file in files of STL-10, with images made three times as large."""
    import numpy as np

    with np.load(path) as arrays:
        images, labels = arrays["images"].repeat(3, axis=1).repeat(3, axis=2), arrays["labels"]
    path.unlink()
    target = path.with_name(f"{path.stem}_X.bin")
    target.write_bytes(images.transpose(0, 3, 2, 1).tobytes())
    path.with_name(f"{path.stem}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return target


def _as_svhn(path: Path, rows: int) -> Path:
    """Stores the arrays of an `.npz` file in a file of SVHN."""
    import numpy as np

    with np.load(path) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    path.unlink()
    target = path.with_name(f"{path.stem}_32x32.mat")
    digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    target.write_bytes(mat_file(packed=True, X=images.transpose(1, 2, 3, 0), y=digits))
    return target


def _as_saved(path: Path, rows: int) -> Path:
    """Stores a Parquet file as `save_to_disk` of `datasets` does a `Dataset`, in batches of half of `rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, folder = pq.read_table(path), path.parent.parent / path.name.partition("-")[0]
    path.unlink()
    folder.mkdir()
    target = folder / "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(str(target), table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, rows // 2))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": target.name}], "_split": None}))
    splits = sorted(each.parent.name for each in folder.parent.glob("*/state.json"))
    (folder.parent / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    return target


def _downsampled(path: Path, rows: int) -> Path:
    """Stores the arrays of an `.npz` file in files of Downsampled ImageNet, of so many rows each."""
    import numpy as np

    with np.load(path) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    path.unlink()
    planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    names = [f"{number} {1 + number} {name}" for number, name in enumerate(CLASSES)]
    (path.parent / "map_clsloc.txt").write_text("".join(f"n{line}\n" for line in names), encoding="utf-8")
    if path.stem == "test":
        return _write_pickle(path.parent / "val_data", planar, labels)
    for number, start in enumerate(range(0, len(planar), rows), 1):
        part = slice(start, start + rows)
        _write_pickle(path.parent / f"train_data_batch_{number}", planar[part], labels[part])
    return path


def _write_pickle(path: Path, data: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Path:
    content = {"data": data, "labels": (labels + 1).tolist(), "mean": data.mean(axis=0)}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def _tiny(path: Path, rows: int) -> Path:
    """Moves the folders of classes of `train`, given, and `test`, beside it, to where Tiny ImageNet has them."""
    folder, test = path.parent, path.with_name("test")
    images = folder / "val" / "images"
    images.mkdir(parents=True)
    lines = []
    for place in sorted(test.glob("*/*")):
        place.rename(images / place.name)
        lines.append(f"{place.name}\t{place.parent.name}\t0\t0\t31\t31\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines), encoding="utf-8")
    shutil.rmtree(test)
    for place in sorted(path.iterdir()):
        place.rename(path / "images")
        place.mkdir()
        (path / "images").rename(place / "images")
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    return path


def _kaggle(path: Path, rows: int) -> Path:
    """Moves the folders of classes of `train`, given, and `test`, beside it, to where Kaggle's ImageNet has them."""
    folder, test = path.parent, path.with_name("test")
    data = folder / "ILSVRC" / "Data" / "CLS-LOC"
    (data / "val").mkdir(parents=True)
    lines = ["ImageId,PredictionString\n"]
    for place in sorted(test.glob("*/*")):
        place.rename(data / "val" / f"{place.stem}.JPEG")
        lines.append(f"{place.stem},{place.parent.name} 0 0 31 31 \n")
    (folder / "LOC_val_solution.csv").write_text("".join(lines), encoding="utf-8")
    shutil.rmtree(test)
    path.rename(data / "train")
    (folder / "LOC_synset_mapping.txt").write_text("".join(f"{name} {name}\n" for name in CLASSES), encoding="utf-8")
    return data / "train"


def _table(path: Path, rows: int) -> Path:
    """Makes a table of the lists of a dataset, given its file of class names."""
    folder, names = path.parent, path.read_text(encoding="utf-8").splitlines()
    path.unlink()
    lines = ["file_name,label,split"]
    for listed in sorted(folder.glob("*.txt")):
        for line in listed.read_text(encoding="utf-8").splitlines():
            image, _, label = line.rpartition(" ")
            lines.append(f"images/{image},{names[int(label)]},{listed.stem}")
        listed.unlink()
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return path


_MANY = ("--images-per-batch", "{rows}")
_FILES = "cifar, many files"
LAYOUTS = {
    "cifar": Layout("cifar", options=("--save-images", "--images-per-batch", "10000000")),
    _FILES: Layout("cifar", options=("--save-images", *_MANY)),
    "cifar, .tar.gz": Layout(""),
    "cifar_binary": Layout("cifar_binary", options=("--images-per-batch", "10000000")),
    "cifar_binary, many files": Layout("cifar_binary", options=_MANY),
    "parquet": Layout("parquet", rewrite=_in_groups, files="*/*.parquet"),
    "parquet, one row group": Layout("parquet", rewrite=_in_one_group, files="*/*.parquet"),
    "parquet, many files": Layout("parquet", options=_MANY),
    "hf_arrow": Layout("parquet", options=("--images-per-batch", "10000000"), rewrite=_as_saved, files="*/*.parquet"),
    "webdataset": Layout("webdataset", options=("--images-per-batch", "10000000")),
    "webdataset, many files": Layout("webdataset", options=_MANY),
    "tfds": Layout("tfds_tfrecord", options=("--images-per-batch", "10000000")),
    "tfds, Parquet": Layout("tfds_parquet", options=("--images-per-batch", "10000000")),
    "tfds, ArrayRecord": Layout("tfds_array_record", options=("--images-per-batch", "10000000")),
    "npz": Layout("npz", options=("--subsets", "split")),
    "npz, many files": Layout("npz", _FILES),
    "npz, compressed": Layout("npz", options=("--subsets", "split"), rewrite=_compressed, files="*.npz"),
    "npy": Layout("npz", options=("--subsets", "split"), rewrite=_plain_arrays, files="*.npz"),
    "stl10": Layout("npz", options=("--subsets", "split"), rewrite=_as_stl10, files="*.npz"),
    "svhn": Layout("npz", options=("--subsets", "split"), rewrite=_as_svhn, files="*.npz"),
    "downsampled_imagenet": Layout("npz", options=("--subsets", "split"), rewrite=_downsampled, files="*.npz"),
    "imagenet_txt": Layout("imagenet_txt", options=("--subsets", "split")),
    "imagenet_txt, many files": Layout("imagenet_txt", _FILES),
    "voc_classification": Layout("voc_classification"),
    "mnist": Layout("mnist"),
    "mnist, many files": Layout("mnist", _FILES, ("--subsets", "source")),
    "mnist, not compressed": Layout("mnist", rewrite=_unzipped, files="*.gz"),
    "mnist_csv": Layout("mnist_csv"),
    "mnist_csv, many files": Layout("mnist_csv", _FILES, ("--subsets", "source")),
    "datumaro": Layout("datumaro", options=("--subsets", "split")),
    "datumaro, many files": Layout("datumaro", _FILES),
    "coco": Layout("coco", options=("--subsets", "split")),
    "coco, many files": Layout("coco", _FILES),
    "open_images": Layout("open_images"),
    "open_images, many files": Layout("open_images", _FILES, ("--subsets", "source")),
    "cvat": Layout("cvat", options=("--subsets", "split")),
    "cvat, many files": Layout("cvat", _FILES),
    "tiny_imagenet": Layout("imagenet_with_subset_dirs", options=("--subsets", "split"), rewrite=_tiny, files="train"),
    "imagenet_kaggle": Layout(
        "imagenet_with_subset_dirs", options=("--subsets", "split"), rewrite=_kaggle, files="train"
    ),
    "image_csv": Layout("imagenet_txt", options=("--subsets", "split"), rewrite=_table, files="synsets.txt"),
    "imagenet": Layout("imagenet"),
    "imagenet_with_subset_dirs": Layout("imagenet_with_subset_dirs"),
    "image_dir": Layout("image_dir"),
}
"""Every format that is read: one file for each split, many files, and the other ways of storing it."""


@dataclass(frozen=True)
class Case:
    """A conversion.

    Attributes:
        reads: whether it shows what reading costs, or what writing does.
        layout: its input, one of `LAYOUTS`.
        target: its output format.
        order: one of `ORDERS`.
    """

    reads: bool
    layout: str
    target: str
    order: str

    @property
    def name(self) -> str:
        """What is read or written, and the order: `read parquet, many files: shuffle`."""
        what = f"read {self.layout}" if self.reads else f"write {self.target}"
        return f"{what}: {self.order}"

    def options(self, images: int, per_output: int) -> list[str]:
        """Returns the options of `convert` besides input and output; files of several images get `per_output`."""
        order = ORDERS[self.order]
        if self.order == "half" and self.layout == "image_dir":  # its images have no labels
            order = ("--transform", f"random_sampler -k {max(1, images // 2)}")
        packed = ("--images-per-batch", str(per_output)) if self.target in PACKED else ()
        saved = ("--save-images",) if self.target == "cifar" else ()
        return ["-f", self.target, *saved, *packed, *order]


TFDS = ("tfds_parquet", "tfds_array_record", "tfds_tfrecord")
PACKED = ("cifar", "parquet", "webdataset", *TFDS, "cifar_binary", "mds", "lance")
"""Formats that take `--images-per-batch`."""

CASES = [
    *(Case(True, layout, "webdataset", order) for layout in LAYOUTS for order in ORDERS),
    *(Case(False, "cifar", name, order) for name, entry in FORMATS.items() if entry.sink for order in ORDERS),
]


class Inputs:
    """The inputs of cases, made when they are first asked for.

    Args:
        folder: where they are, or will be.
        per_file: rows of each file where there are many.
        run: runs beam-cifar with some arguments; it raises an error if that fails.
    """

    def __init__(self, folder: Path, per_file: int, run: Callable[[Sequence[str]], object]) -> None:
        self._folder, self._per_file, self._run = folder, per_file, run

    def path(self, layout: str, images: int) -> Path:
        """Returns the path of an input."""
        path = self._folder / f"{layout}-{images}".replace(", ", "-").replace(" ", "_")
        made = LAYOUTS[layout]
        path = path if made.target else path.with_name(f"{path.name}.tar.gz")
        if not path.exists():
            unfinished = self._folder / f"unfinished-{path.name}"
            self._make(made, images, unfinished)
            unfinished.rename(path)
        return path

    def _make(self, layout: Layout, images: int, path: Path) -> None:
        if not layout.target:
            self._run(["make-sample", str(path), "--images", str(images), "--tar"])
            return
        source = self.path(layout.source, images) if layout.source else self._sample(images)
        options = [option.format(rows=self._per_file) for option in layout.options]
        self._run(["convert", "-i", str(source), "-o", str(path), "-f", layout.target, *options])
        shutil.rmtree(path.with_name(f"{path.name}.beam_cifar"))
        if layout.rewrite:
            for file in sorted(path.glob(layout.files)):
                layout.rewrite(file, self._per_file)

    def _sample(self, images: int) -> Path:
        path = self._folder / f"sample-{images}"
        if not path.exists():
            self._run(["make-sample", str(path), "--images", str(images)])
        return path


def main() -> None:
    """Makes inputs in a folder; a process of its own keeps that which measures small."""
    from beam_cifar.cli.main import main as beam_cifar

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER")
    add("layouts", nargs="*", metavar="LAYOUT", help=f"{'; '.join(LAYOUTS)}; default: all")
    add("--images", type=int, required=True, metavar="N")
    add("--per-file", type=int, required=True, metavar="N")
    arguments = parser.parse_args()

    def run(command: Sequence[str]) -> None:
        if code := beam_cifar(list(command)):
            raise SystemExit(code)

    inputs = Inputs(arguments.folder, arguments.per_file, run)
    for layout in arguments.layouts or LAYOUTS:
        print(inputs.path(layout, arguments.images))


if __name__ == "__main__":
    main()
