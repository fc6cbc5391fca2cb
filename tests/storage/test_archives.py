from __future__ import annotations

import gzip
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beam_cifar.errors import InputError
from beam_cifar.storage import Blob, archives, gzip_index, open_blob, stamp
from beam_cifar.storage.archives import list_members
from beam_cifar.storage.gzip_index import open_indexed
from tests.helpers.reading import batch_names


def tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def long_header(kind: bytes) -> bytes:
    info = special("././@LongLink", kind)
    info.size = 1 << 30
    return gzip.compress(info.tobuf() + bytes(20 << 20), 9)


def sparse() -> bytes:
    info = special("set/data_batch_1", tarfile.GNUTYPE_SPARSE)
    return info.tobuf() + bytes(1024)


def bomb() -> bytes:
    info = tarfile.TarInfo("data_batch_1")
    info.size = 2 << 30
    return gzip.compress(info.tobuf() + bytes(50 << 20), 9)


GOOD = tar(("set/batches.meta", b"meta"), ("set/data_batch_1", bytes(range(256)) * 1000))
BAD: dict[str, bytes] = {
    "empty": b"",
    "not an archive": b"hello" * 1000,
    "gzip of something else": gzip.compress(b"hello" * 1000),
    "gzip header and noise": b"\x1f\x8b\x08" + bytes(range(256)) * 100,
    "truncated tar": GOOD[:5000],
    "damaged header of a later member": GOOD[:1027] + bytes([GOOD[1027] ^ 1]) + GOOD[1028:],
    "cut before a later member": GOOD[:1024],
    "two archives in one": GOOD + GOOD,
    "compressed, cut before a later member": gzip.compress(GOOD[:1024]),
    "truncated gzip": gzip.compress(GOOD)[:-200],
    "gzip without its checksum": gzip.compress(GOOD)[:-6],
    "flipped bit": (lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:])(gzip.compress(GOOD)),
    "wrong checksum": (lambda data: data[:-8] + bytes(4) + data[-4:])(gzip.compress(GOOD)),
    "symbolic link": tar(special("set/data_batch_1", tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": tar(special("set/data_batch_1", tarfile.LNKTYPE, "other")),
    "device": tar(special("set/data_batch_1", tarfile.CHRTYPE)),
    "fifo": tar(special("set/data_batch_1", tarfile.FIFOTYPE)),
    "the same member twice": tar(("set/meta", b"a"), ("set/meta", b"b")),
    "decompression bomb": bomb(),
    "long name of a gigabyte": long_header(tarfile.GNUTYPE_LONGNAME),
    "extended header of a gigabyte": long_header(tarfile.XHDTYPE),
    "sparse member": sparse(),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_bad_archive_is_refused_with_its_name(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(BAD[name])
    with pytest.raises(InputError, match="bad") as caught:
        list_members(str(path), str(tmp_path))
    assert "\n" not in str(caught.value)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    path = tmp_path / "many.tar"
    path.write_bytes(tar(*((f"{i}", b"") for i in range(4))))
    with pytest.raises(InputError, match="more than 3 members; unpack it"):
        list_members(str(path), str(tmp_path))


def test_members_of_a_compressed_archive_are_read_by_seek(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(GOOD))
    members, index = list_members(str(path), str(tmp_path))
    assert [(member.path, member.name, member.size) for member in members] == [
        ("set/batches.meta", "batches.meta", 4),
        ("set/data_batch_1", "data_batch_1", 256_000),
    ]
    with open_indexed(str(path), index) as stream:
        stream.seek(members[1].offset + 255_000)
        assert stream.read(1000) == (bytes(range(256)) * 1000)[-1000:]


def test_an_archive_is_decompressed_once_for_detection_and_listing(
    cifar10_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beam_cifar.formats.registry import detect_format, get_source

    opened = []
    real = archives.open_gzip  # type: ignore[attr-defined]
    for module in (archives, gzip_index):
        monkeypatch.setattr(module, "open_gzip", lambda *args, **named: (opened.append(named), real(*args, **named))[1])  # type: ignore[func-returns-value]
    assert detect_format(str(cifar10_archive), str(tmp_path)) == "cifar"
    catalog = get_source("cifar").describe(str(cifar10_archive), str(tmp_path))
    # Once to list, once by index to read the meta file.
    assert [bool(named) for named in opened] == [False, True]
    assert [file.name for file in catalog.files] == [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def test_members_named_in_two_ways_lie_in_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(tar(("set/meta", b"a"), ("./set/train", b"b"), ("/set//test", b"c")))
    members, _ = list_members(str(path), str(tmp_path))
    assert [member.path for member in members] == ["set/meta", "set/train", "set/test"]


def test_archives_holding_no_or_two_sets_are_refused(tmp_path: Path) -> None:
    from beam_cifar.formats.registry import get_source

    for name, data in {
        "none": tar(("a/data_batch_1", b"x")),
        "two": tar(("a/batches.meta", b"x"), ("b/meta", b"y")),
    }.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(data)
        with pytest.raises(InputError, match=name):
            get_source("cifar").describe(str(path), str(tmp_path))


def test_members_that_are_not_batches_are_ignored(cifar10: Path, tmp_path: Path) -> None:
    from beam_cifar.formats.registry import get_source

    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(cifar10, "set")
        for stray in ("set/.hidden", "set/_SUCCESS", "set/notes.txt", "set/file.txt~", "elsewhere/data_batch_9"):
            archive.addfile(tarfile.TarInfo(stray), io.BytesIO())
    catalog = get_source("cifar").describe(str(path), str(tmp_path))
    assert [file.name for file in catalog.files] == batch_names(cifar10)


def packed(data: bytes, level: int) -> bytes:
    return gzip.compress(data, level, mtime=0)


def in_pieces(data: bytes, size: int) -> bytes:
    """One gzip stream after the other, as pigz -i and bgzip write."""
    return b"".join(packed(data[at : at + size], 6) for at in range(0, len(data), size))


NOISE = random.Random(1).randbytes(3 << 20)
LAYOUTS: dict[str, Callable[[bytes], bytes]] = {
    "one stream": lambda data: packed(data, 6),
    "stored": lambda data: packed(data, 0),
    "many streams": lambda data: in_pieces(data, 100_000),
    "many small streams": lambda data: in_pieces(data, 5_000),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "content",
    [(b"meta", b"few bytes"), (b"meta", NOISE), (NOISE[:70_000], bytes(5 << 20), NOISE[:1000], NOISE)],
    ids=["tiny", "one member", "members"],
)
def test_any_range_of_any_layout_is_read_as_it_was_packed(
    layout: str, content: tuple[bytes, ...], tmp_path: Path
) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(LAYOUTS[layout](tar(*((f"set/{i}", data) for i, data in enumerate(content)))))
    members, index = list_members(str(path), str(tmp_path))
    dice = random.Random(2)
    for member, data in zip(members, content, strict=True):
        with open_blob(blob_of(path, member, index), member.name) as file:
            for _ in range(20):
                start = dice.randrange(len(data))
                file.seek(start)
                stop = start + dice.choice([1, 1000, 100_000, 1 << 30])
                assert file.read(stop - start) == data[start:stop]


def blob_of(path: Path, member: archives.Member, index: str) -> Blob:
    return Blob(str(path), member.offset, member.size, stamp(str(path)), index)


@pytest.fixture
def noise(tmp_path: Path) -> tuple[Path, archives.Member, str]:
    """An archive of one member, which holds `NOISE`, and its index."""
    path = tmp_path / "set.tar.gz"
    path.write_bytes(packed(tar(("set/batch", NOISE)), 1))
    members, index = list_members(str(path), str(tmp_path))
    return path, members[0], index


# Eight readers at once, of three threads each: 24 times the 256 MB that rapidgzip reserves for a thread.
@pytest.mark.address_space(12)
def test_many_threads_read_one_archive_and_leave_nothing_open(noise: tuple[Path, archives.Member, str]) -> None:
    blob = blob_of(*noise)

    def read(number: int) -> bool:
        start = number * 100_000
        with open_blob(blob, "batch") as file:
            file.seek(start)
            return file.read(300_000) == NOISE[start : start + 300_000]

    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(25)))
    deadline = time.monotonic() + 30  # a thread that has been joined is still listed for a moment
    while (left := (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))) != before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_an_archive_replaced_while_it_is_read_is_refused(noise: tuple[Path, archives.Member, str]) -> None:
    path, member, index = noise
    blob = blob_of(path, member, index)
    with pytest.raises(InputError, match="changed while"), open_blob(blob, "batch") as file:
        file.read(1000)
        other = path.with_name("other")
        other.write_bytes(packed(tar(("set/batch", NOISE[::-1])), 1))
        os.replace(other, path)
    with pytest.raises(InputError, match="changed while"), open_blob(blob, "batch"):
        pass


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
def test_an_index_gone_or_damaged_is_refused_in_one_line(damage: str, noise: tuple[Path, archives.Member, str]) -> None:
    index = Path(noise[2])
    whole = index.read_bytes()
    index.unlink()
    if damage != "gone":
        index.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "noise": NOISE[: len(whole)]}[damage])
    with (
        pytest.raises(InputError, match="index .* is missing or damaged") as caught,
        open_blob(blob_of(*noise), "batch"),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [8715, 0.5])
def test_a_cut_archive_is_refused_in_our_words_alone(kept: float, cifar10_archive: Path, tmp_path: Path) -> None:
    content = cifar10_archive.read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    command = [sys.executable, "-m", "beam_cifar", "info", str(path)]
    done = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(3)]
    assert {(each.returncode, each.stderr.count("\n")) for each in done} == {(3, 1)}
    assert len({each.stderr for each in done}) == 1
    assert not re.search(r"Thread|\[|std::|Wrapper", done[0].stderr)
