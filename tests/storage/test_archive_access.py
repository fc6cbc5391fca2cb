"""Counts which parts of a compressed archive a conversion unpacks, by what the decoder fetches from the file."""

from __future__ import annotations

import bisect
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rapidgzip

from beam_cifar import ConvertOptions, convert, make_sample
from beam_cifar.jobs.prepare import Job
from beam_cifar.storage.archives import Member, list_members
from beam_cifar.storage.gzip_index import open_indexed

FETCH = 128 << 10  # what the decoder asks a file for at a time


class FetchedFile(io.FileIO):
    """A file that notes what is fetched from it; without a descriptor, or the decoder would read past it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.fetched: list[tuple[int, int]] = []

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.fetched.append((start, len(data)))
        return data


class UnpackedChunks:
    """Stands in for `RapidgzipFile`; of each stream with an index it notes the chunks that are unpacked."""

    def __init__(self) -> None:
        self._opened: list[tuple[FetchedFile, dict[int, int], int]] = []
        self._real = rapidgzip.RapidgzipFile

    def __call__(self, path: str, **options: Any) -> Any:
        file = FetchedFile(path)
        stream = self._real(file, **options)
        import_index = stream.import_index

        def counted_import(index: str) -> None:
            import_index(index)
            starts = {bits // 8: offset for bits, offset in stream.block_offsets().items()}
            self._opened.append((file, starts, len(file.fetched)))

        stream.import_index = counted_import
        return stream

    def forget(self) -> None:
        """Counts anew from here."""
        self._opened.clear()

    def spans(self) -> list[tuple[int, int]]:
        """Of every chunk, each time that it was unpacked: its first byte in the unpacked archive, and its end."""
        spans = []
        for file, starts, before in self._opened:
            offsets = sorted(starts.values())
            for packed in _begun(file.fetched[before:], sorted(starts)):
                at = bisect.bisect_right(offsets, starts[packed])
                spans.append((starts[packed], offsets[min(at, len(offsets) - 1)]))
        return spans

    def shares(self, members: tuple[Member, ...]) -> dict[str, float]:
        """By member, how many times it was unpacked."""
        spans = self.spans()
        return {
            member.name: sum(
                max(0, min(stop, member.offset + member.size) - max(start, member.offset)) for start, stop in spans
            )
            / member.size
            for member in members
        }


def _begun(fetched: list[tuple[int, int]], starts: list[int]) -> list[int]:
    """The chunks whose first byte was fetched to unpack them.

    The decoder ends one chunk by a look at the next, if it fetched no byte beyond: such a fetch goes on where the one
    before ended, and no other goes on from it.
    """
    begun = []
    padded = [(-1, 0), *fetched, (-1, 0)]
    for (last, size), (start, count), (following, _) in zip(padded, padded[1:], padded[2:], strict=False):
        at = bisect.bisect_left(starts, start)
        if at == len(starts) or starts[at] != start or not count:
            continue
        short = at + 1 < len(starts) and starts[at + 1] - start <= FETCH
        glance = last + size == start and (following == start or (following != start + count and not short))
        if not glance:
            begun.append(start)
    return begun


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> UnpackedChunks:
    counter = UnpackedChunks()
    monkeypatch.setattr(rapidgzip, "RapidgzipFile", counter)
    return counter


def big_members(path: Path, index: Path) -> tuple[Member, ...]:
    return tuple(member for member in list_members(str(path), str(index))[0] if member.size > 1 << 20)


JOBS: dict[str, dict[str, Any]] = {
    "by file": {"output_format": "parquet"},
    "across files": {"output_format": "cifar", "save_images": True},
}


def check(images: int, job: str, tmp_path: Path, unpacked: UnpackedChunks) -> None:
    archive = tmp_path / "set.tar.gz"
    make_sample(str(archive), kind="cifar10", images=images, seed=1, tar=True)
    options = dict(JOBS[job])
    if job == "across files":
        options["images_per_batch"] = images * 7 // 60
    planned: list[dict[str, float]] = []

    def on_start(job: Job) -> None:
        planned.append(unpacked.shares(big_members(archive, tmp_path)))
        unpacked.forget()

    settings = ConvertOptions(input_path=str(archive), output_dir=str(tmp_path / "out"), workers=2, **options)
    assert convert(settings, on_start=on_start).written == images
    shares = unpacked.shares(big_members(archive, tmp_path))
    assert len(shares) == 6
    assert all(1 <= share <= 1.2 for share in shares.values()), shares
    # Before that, the plan read all of it once for the index, and a little again for the labels.
    assert all(0 < share <= 0.2 for share in planned[0].values()), planned


def test_the_counter_finds_each_chunk_once_when_all_is_read_once(tmp_path: Path, unpacked: UnpackedChunks) -> None:
    archive = tmp_path / "set.tar.gz"
    make_sample(str(archive), kind="cifar10", images=3000, seed=1, tar=True)
    _, index = list_members(str(archive), str(tmp_path))
    with open_indexed(str(archive), index) as stream:
        size = 0
        while data := stream.read(1 << 20):
            size += len(data)
    spans = unpacked.spans()
    assert len(spans) > 20
    assert set(Counter(spans).values()) == {1}
    assert sum(stop - start for start, stop in spans) == size


@pytest.mark.large
def test_two_workers_unpack_no_member_of_20000_images_again(tmp_path: Path, unpacked: UnpackedChunks) -> None:
    check(20_000, "by file", tmp_path, unpacked)


@pytest.mark.large
@pytest.mark.parametrize("job", JOBS)
def test_two_workers_unpack_no_member_of_60000_images_again(job: str, tmp_path: Path, unpacked: UnpackedChunks) -> None:
    check(60_000, job, tmp_path, unpacked)
