"""A full disk is one line, and what was begun is removed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from beam_cifar import Dataset, DatasetItem, Image, make_sample, storage
from beam_cifar.errors import JobError


@contextmanager
def full_disk(limit: int = 100_000) -> Iterator[None]:
    """No file can grow further; the system says so when it is written, as it does when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def items(count: int = 400) -> Iterator[DatasetItem]:
    for number in range(count):
        yield DatasetItem(id=str(number), image=Image(np.zeros((32, 32, 3), dtype=np.uint8)))


def put(folder: Path) -> None:
    dataset = Dataset.from_iterable(items(1), ["a"])
    for item in items():
        dataset.put(item)
    len(dataset)


WRITES: dict[str, Callable[[Path], object]] = {
    "from_iterable": lambda folder: Dataset.from_iterable(items(), folder=folder),
    "put": put,
    "make_sample": lambda folder: make_sample(str(folder / "set"), images=400),
    "make_sample, an archive": lambda folder: make_sample(str(folder / "set.tar.gz"), images=400, tar=True),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with full_disk(), pytest.raises(JobError) as refused:
        write(tmp_path)
    assert str(refused.value).endswith(f"cannot be written: {os.strerror(errno.EFBIG)}")
    del refused
    assert list(tmp_path.iterdir()) == []


def test_what_the_caller_raises_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[DatasetItem]:
        yield from items(2)
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        Dataset.from_iterable(broken(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_temporary_files_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be written: No such file or directory"):
        storage.TemporaryFolder(tmp_path / "missing")
