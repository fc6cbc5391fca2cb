"""Creates sample datasets of any size: drawn images in the original layout of CIFAR-10 or CIFAR-100.

A seed gives the same files on every machine with the same major version of numpy. Images are written a thousand at a
time, so memory use does not depend on their number.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, islice
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from isal import igzip

from beam_cifar import storage
from beam_cifar.data.limits import ISAL_LEVEL
from beam_cifar.errors import OutputError, UsageError
from beam_cifar.formats.cifar import facts
from beam_cifar.pickles.recognise import Meta
from beam_cifar.pickles.write import write_batch, write_meta
from beam_cifar.samples.drawing import draw_images

_KINDS: Final = ("cifar10", "cifar100")

_GENUINE_TRAINING: Final = 50_000
_GENUINE_TEST: Final = 10_000
# Images drawn at a time, so that one of their planes stays in a core's cache. Changing it changes what a seed gives.
_BLOCK: Final = 125
# Blocks written at a time: one by one, glibc returns memory to the system after each, which takes as long as drawing.
_BLOCKS: Final = 8
_LABELS, _NAMES, _PIXELS = range(3)
# With the class and `_s_000123.png`, names are as long as the original ones, 24 characters on average.
_ADJECTIVES: Final = ("", "common_", "small_", "great_")
_README: Final = b'<meta HTTP-EQUIV="REFRESH" content="0; url=http://www.cs.toronto.edu/~kriz/cifar.html">\n'


class _Batch(NamedTuple):
    """A batch file to write: name, batch label such as 'training batch 1 of 5', number of its first row, row count."""

    name: str
    batch_label: str
    start: int
    rows: int


def make_sample(out: str, *, kind: str = "cifar10", images: int, seed: int = 0, tar: bool = False) -> list[str]:
    """Creates a dataset of drawn images in the layout of the original.

    One sixth of the images, at most 10,000, become the test batch, the others training batches: up to 60,000 images
    five for CIFAR-10 and one for CIFAR-100; above that, as many batches of the original size (10,000 or 50,000 rows)
    as needed, named `data_batch_6` or `train_2` and so on. A dataset too small for a row in every file has fewer
    files. Classes are as balanced as possible in every batch.

    Args:
        out: directory to create, or with `tar` the `.tar.gz` archive; must not exist or be an empty directory.
        kind: `cifar10` or `cifar100`.
        images: number of images, at least 1.
        seed: determines labels, names and pixels; >= 0.
        tar: whether to write an archive, which is reproducible byte for byte as well.

    Returns:
        The paths written: the files of the dataset, or the archive.

    Raises:
        UsageError: an unknown kind, no images, or a negative seed.
        OutputError: `out` exists and is not an empty directory.
        JobError: it cannot be written, for example because the disk is full; nothing is left.

    >>> from beam_cifar import make_sample
    >>> len(make_sample("drawn", kind="cifar100", images=200))
    4
    """
    _check(out, kind, images, seed, tar)
    made, is_new = [], not os.path.lexists(out)
    try:
        with storage.writing(out):
            if tar:
                with _new_file(out) as file, storage.TemporaryFolder() as folder:
                    _pack(file, kind, _write_set(folder, kind, images, seed))
                return [out]
            os.makedirs(out, exist_ok=True)
            for path in _write_set(out, kind, images, seed):
                made.append(path)
            return made
    except BaseException:
        with suppress(OSError):
            for path in made:
                os.unlink(path)
            if is_new and not tar:
                os.rmdir(out)
        raise


@contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """Opens a new file, which is removed on an error. Mode "x": one created since the check is not overwritten."""
    with open(path, "xb") as file:
        try:
            yield file
        except BaseException:
            os.unlink(path)
            raise


def _check(out: str, kind: str, images: int, seed: int, tar: bool) -> None:
    if kind not in _KINDS:
        raise UsageError(f"unknown kind {kind!r}; expected one of {', '.join(_KINDS)}")
    if images < 1:
        raise UsageError(f"cannot create {images} images; expected at least 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")
    if os.path.isdir(out):
        if tar:
            raise OutputError(f"{out}: is a directory; expected the name of the archive to create")
        if os.listdir(out):
            raise OutputError(f"{out}: directory is not empty; choose a new or empty one")
    elif os.path.exists(out):
        raise OutputError(f"{out}: already exists; choose a new name")


def _write_set(folder: str, kind: str, images: int, seed: int) -> Iterator[str]:
    """Writes all files of a dataset; yields the path of each when it is complete."""
    batches = plan_batches(kind, images)
    for batch in batches:
        with _new_file(os.path.join(folder, batch.name)) as file:
            _write_batch(file, batch, kind, seed)
        yield file.name
    if kind == "cifar10":
        largest = max(batch.rows for batch in batches)
        name, meta = "batches.meta", Meta(kind, facts.CIFAR10_NAMES, num_cases_per_batch=largest, num_vis=3072)
        extra, content = "readme.html", _README
    else:
        name, meta = "meta", Meta(kind, facts.CIFAR100_NAMES, tuple(facts.CIFAR100_SUPERCLASSES))
        extra, content = "file.txt~", b"stray\n"
    with _new_file(os.path.join(folder, name)) as file:
        write_meta(file, meta)
    yield file.name
    with _new_file(os.path.join(folder, extra)) as file:
        file.write(content)
    yield file.name


def plan_batches(kind: str, images: int) -> list[_Batch]:
    """Returns the batch files of a dataset of `images` rows; no file is empty."""
    is_cifar10 = kind == "cifar10"
    test = min(max(images // 6, 1), _GENUINE_TEST) if images > 1 else 0
    training, usual = images - test, 5 if is_cifar10 else 1
    if training > _GENUINE_TRAINING:
        full, rest = divmod(training, _GENUINE_TRAINING // usual)
        sizes = [_GENUINE_TRAINING // usual] * full + [rest] * (rest > 0)
    else:
        count = min(usual, training)
        sizes = [training // count + (number < training % count) for number in range(count)]
    names = [f"data_batch_{n + 1}" if is_cifar10 else f"train_{n + 1}" if n else "train" for n in range(len(sizes))]
    labels = [f"training batch {number} of {len(sizes)}" for number in range(1, len(sizes) + 1)]
    last = [_Batch("test_batch" if is_cifar10 else "test", "testing batch 1 of 1", training, test)] * (test > 0)
    return [*map(_Batch, names, labels, [0, *accumulate(sizes)], sizes), *last]


def _write_batch(file: BinaryIO, batch: _Batch, kind: str, seed: int) -> None:
    classes = facts.CIFAR10_NAMES if kind == "cifar10" else facts.CIFAR100_NAMES
    # Classes in turn, continuing where the previous batch stopped, so that they are balanced over all batches.
    in_turn = (batch.start + np.arange(batch.rows, dtype=np.int64)) % len(classes)
    labels = _generator(seed, _LABELS, batch.start).permutation(in_turn)
    words = _generator(seed, _NAMES, batch.start).choice(_ADJECTIVES, batch.rows).tolist()
    numbered = enumerate(zip(words, labels.tolist(), strict=True), batch.start)
    rows = range(0, batch.rows, _BLOCK)
    blocks = (draw_images((seed, _PIXELS, batch.start + row), labels[row : row + _BLOCK], kind) for row in rows)
    chunks = iter(lambda: list(islice(blocks, _BLOCKS)), [])
    write_batch(
        file,
        kind=kind,
        batch_label=batch.batch_label,
        labels=labels.tolist(),
        coarse_labels=[facts.CIFAR100_COARSE_OF_FINE[n] for n in labels] if kind == "cifar100" else None,
        filenames=[f"{word}{classes[label]}_s_{number:06d}.png" for number, (word, label) in numbered],
        pixels=(np.concatenate(chunk).reshape(-1).data for chunk in chunks),
        rows=batch.rows,
    )


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key))


def _pack(file: BinaryIO, kind: str, paths: Iterable[str]) -> None:
    """Moves files into a `.tar.gz` of one gzip member, without owners and with all times 0, for reproducible bytes."""
    folder = tarfile.TarInfo(facts.CIFAR10_DIRECTORY if kind == "cifar10" else facts.CIFAR100_DIRECTORY)
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    with (
        igzip.IGzipFile(filename="", mode="wb", compresslevel=ISAL_LEVEL, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        archive.addfile(folder)
        # A tar header has the size, so each file is first written to disk: one at a time, to use less of it.
        for path in paths:
            info = tarfile.TarInfo(f"{folder.name}/{os.path.basename(path)}")
            info.size = os.path.getsize(path)
            with open(path, "rb") as member:
                archive.addfile(info, member)
            os.remove(path)
