"""Makes sample data sets: drawn images in the genuine layout of CIFAR-10 or CIFAR-100, as many as wanted.

A seed gives the same files on every machine for a major version of numpy. Images are drawn a thousand at a time, so
memory does not depend on their number.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
from isal import igzip

from beam_cifar import genuine
from beam_cifar.errors import OutputError, UsageError
from beam_cifar.images.drawing import draw_images
from beam_cifar.pickles.batch import Meta
from beam_cifar.pickles.write import write_batch, write_meta

__all__ = ["draw_images", "make_sample"]

KINDS: Final = ("cifar10", "cifar100")

_GENUINE_IMAGES: Final = 60_000
_GENUINE_TEST: Final = 10_000
_CHUNK: Final = 1000
_DRAWERS: Final = 2
_LABELS, _NAMES, _PIXELS = range(3)

# Genuine names average 24 characters: a word for the thing, then `_s_000123.png`.
_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "airplane": ("airliner", "fighter_aircraft", "biplane", "jumbo_jet"),
    "automobile": ("beach_wagon", "cab", "sports_car", "coupe"),
    "bird": ("emu", "ostrich", "wagtail", "passer_domesticus", "cassowary"),
    "cat": ("tabby", "felis_domesticus", "alley_cat", "mouser"),
    "deer": ("elk", "fallow_deer", "cervus_elaphus", "mule_deer"),
    "dog": ("toy_spaniel", "pekinese", "maltese_dog", "lapdog"),
    "frog": ("bullfrog", "green_frog", "rana_pipiens", "tree_toad"),
    "horse": ("arabian", "quarter_horse", "lippizan", "cow_pony"),
    "ship": ("cargo_ship", "container_vessel", "pilot_boat", "hydrofoil"),
    "truck": ("dump_truck", "fire_engine", "camion", "delivery_truck"),
}
_ADJECTIVES: Final = ("", "common_", "small_", "great_")

_README: Final = b'<meta HTTP-EQUIV="REFRESH" content="0; url=http://www.cs.toronto.edu/~kriz/cifar.html">\n'
_STRAY: Final = b"stray\n"

Opener = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class _Plan:
    """One batch file to be.

    Attributes:
        name: the file.
        batch_label: such as 'training batch 1 of 5'.
        start: its first image's number in the whole set.
        rows: how many images it holds.
    """

    name: str
    batch_label: str
    start: int
    rows: int


def make_sample(out: str, *, kind: str = "cifar10", images: int, seed: int = 0, tar: bool = False) -> list[str]:
    """Makes a data set of drawn images, as its genuine counterpart is laid out.

    A sixth of the images, at most 10,000, are the test batch, the others training batches: five for CIFAR-10 and one
    for CIFAR-100 up to 60,000 images; beyond, batches of the genuine size (10,000 or 50,000 rows) as many as it takes,
    `data_batch_6` or `train_2` and on. A set too small to give every file a row has fewer files. Classes are as
    balanced as the number allows, in every batch.

    Args:
        out: the directory to make, or with `tar` the `.tar.gz` archive; missing or empty.
        kind: `cifar10` or `cifar100`.
        images: how many, at least 1.
        seed: what labels, names and pixels depend on; >= 0.
        tar: whether to write an archive; its bytes are reproducible, too.

    Returns:
        The paths written: the data set's files, or the archive.

    Raises:
        UsageError: an unknown kind, no images, or a negative seed.
        OutputError: `out` holds something already.
    """
    _check(kind, images, seed)
    _refuse_existing(out, tar)
    if tar:
        with _archive(out, kind) as member:
            _write_set(member, kind, images, seed)
        return [out]
    os.makedirs(out, exist_ok=True)
    return [os.path.join(out, name) for name in _write_set(partial(_new_file, out), kind, images, seed)]


def _check(kind: str, images: int, seed: int) -> None:
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}; expected one of {', '.join(KINDS)}")
    if images < 1:
        raise UsageError(f"cannot make {images} images; expected at least 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")


def _refuse_existing(out: str, tar: bool) -> None:
    """Raises OutputError unless `out` is missing, or an empty directory where one is to be made."""
    if os.path.isdir(out):
        if tar:
            raise OutputError(f"{out}: is a directory; expected the name of an archive to write")
        if os.listdir(out):
            raise OutputError(f"{out}: directory is not empty; expected a new or empty one")
    elif os.path.exists(out):
        raise OutputError(f"{out}: exists already; expected a new name")


def _new_file(directory: str, name: str) -> BinaryIO:
    return open(os.path.join(directory, name), "xb")


def _write_set(opener: Opener, kind: str, images: int, seed: int) -> list[str]:
    """Writes all files of a set through `opener`; returns their names."""
    plans = plan_batches(kind, images)
    for plan in plans:
        with opener(plan.name) as file:
            _write_batch(file, plan, kind, seed)
    meta = "batches.meta" if kind == "cifar10" else "meta"
    extra, content = ("readme.html", _README) if kind == "cifar10" else ("file.txt~", _STRAY)
    with opener(meta) as file:
        write_meta(file, _meta(kind, max(plan.rows for plan in plans)))
    with opener(extra) as file:
        file.write(content)
    return [*(plan.name for plan in plans), meta, extra]


def plan_batches(kind: str, images: int) -> list[_Plan]:
    """Returns the batch files of a set of so many images; none is empty, and together they hold exactly these."""
    test = min(max(images // 6, 1), _GENUINE_TEST) if images > 1 else 0
    training = _training_rows(kind, images - test)
    plans, start = [], 0
    for number, rows in enumerate(training, 1):
        name = f"data_batch_{number}" if kind == "cifar10" else "train" if number == 1 else f"train_{number}"
        plans.append(_Plan(name, f"training batch {number} of {len(training)}", start, rows))
        start += rows
    if test:
        plans.append(_Plan("test_batch" if kind == "cifar10" else "test", "testing batch 1 of 1", start, test))
    return plans


def _training_rows(kind: str, images: int) -> list[int]:
    """Returns the rows of each training batch."""
    usual = 5 if kind == "cifar10" else 1
    genuine_training = _GENUINE_IMAGES - _GENUINE_TEST
    if images > genuine_training:
        full, rest = divmod(images, genuine_training // usual)
        return [genuine_training // usual] * full + [rest] * (rest > 0)
    count = min(usual, images)
    return [images // count + (number < images % count) for number in range(count)]


def _meta(kind: str, largest: int) -> Meta:
    if kind == "cifar10":
        return Meta(kind, genuine.CIFAR10_NAMES, num_cases_per_batch=largest, num_vis=3072)
    return Meta(kind, genuine.CIFAR100_NAMES, tuple(genuine.CIFAR100_SUPERCLASSES))


def _write_batch(file: BinaryIO, plan: _Plan, kind: str, seed: int) -> None:
    labels = _labels(plan, kind, seed)
    coarse = np.array(genuine.CIFAR100_COARSE_OF_FINE, np.int64)
    write_batch(
        file,
        kind=kind,
        batch_label=plan.batch_label,
        labels=labels.tolist(),
        coarse_labels=coarse[labels].tolist() if kind == "cifar100" else None,
        filenames=_filenames(plan, labels, kind, seed),
        pixels=_pixels(plan, labels, kind, seed),
        rows=plan.rows,
    )


def _seed(*key: int) -> int:
    """Returns a seed of 64 bits that depends on all of the key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_seed(*key)))


def _labels(plan: _Plan, kind: str, seed: int) -> npt.NDArray[np.int64]:
    """Returns int64 [rows]: every class in turn, from where the batch before left off, then shuffled."""
    classes = len(_class_names(kind))
    in_turn = (plan.start + np.arange(plan.rows, dtype=np.int64)) % classes
    return _generator(seed, _LABELS, plan.start).permutation(in_turn)


def _class_names(kind: str) -> tuple[str, ...]:
    return genuine.CIFAR10_NAMES if kind == "cifar10" else genuine.CIFAR100_NAMES


def _filenames(plan: _Plan, labels: npt.NDArray[np.int64], kind: str, seed: int) -> list[str]:
    """Returns a name for each image, unique in the set because the number is."""
    words = [_WORDS.get(name) or tuple(adjective + name for adjective in _ADJECTIVES) for name in _class_names(kind)]
    choices = _generator(seed, _NAMES, plan.start).integers(0, 1 << 16, plan.rows).tolist()
    numbered = enumerate(zip(labels.tolist(), choices, strict=True), plan.start)
    return [f"{words[label][choice % len(words[label])]}_s_{number:06d}.png" for number, (label, choice) in numbered]


def _pixels(plan: _Plan, labels: npt.NDArray[np.int64], kind: str, seed: int) -> Iterator[memoryview]:
    """Yields the pixels of a batch in chunks, drawn ahead by two threads (numpy lets them run side by side)."""
    pending: deque[Future[npt.NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(_DRAWERS) as drawers:
        for start in range(0, plan.rows, _CHUNK):
            chunk_seed = _seed(seed, _PIXELS, plan.start + start)
            pending.append(drawers.submit(draw_images, chunk_seed, labels[start : start + _CHUNK], kind))
            if len(pending) > _DRAWERS:
                yield pending.popleft().result().reshape(-1).data
        while pending:
            yield pending.popleft().result().reshape(-1).data


@contextmanager
def _archive(path: str, kind: str) -> Iterator[Opener]:
    """Yields an opener of members of a new `.tar.gz`: one gzip member, all times 0, so that bytes are reproducible."""
    directory = genuine.CIFAR10_DIRECTORY if kind == "cifar10" else genuine.CIFAR100_DIRECTORY
    with (
        open(path, "xb") as file,
        _gzip(file) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        folder = tarfile.TarInfo(directory)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        yield lambda name: _member(archive, f"{directory}/{name}")


def _gzip(file: BinaryIO) -> BinaryIO:
    """Returns a file that packs what is written to it into one gzip member without name and time."""
    packed = igzip.IGzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0)
    return cast(BinaryIO, packed)


@contextmanager
def _member(archive: tarfile.TarFile, name: str) -> Iterator[BinaryIO]:
    """Yields a file to write; it becomes a member. Its size comes first in a tar, so it goes through the disk."""
    with tempfile.TemporaryFile() as file:
        yield cast(BinaryIO, file)
        info = tarfile.TarInfo(name)
        info.size = file.tell()
        file.seek(0)
        archive.addfile(info, file)
