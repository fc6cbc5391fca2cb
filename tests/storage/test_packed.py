"""The members of archives as files: what is read, and what of strangers' archives is refused in one line."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_cifar import storage
from beam_cifar.errors import BeamCifarError, InputError
from beam_cifar.storage import archives, packed
from beam_cifar.storage.packed import archive_place
from tests.helpers.hostile_files.zips import HOSTILE

Change = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1 << 20)


def written(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in (members or {"cat/1.png": b"one" * 100, "cat/2.png": b"two" * 100}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def named(*names: str, mode: int = 0o644 | 0o100000, system: int = 3) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for filler, name in zip("pq", names, strict=False):
            info = zipfile.ZipInfo(filler * len(name.encode()))
            info.create_system, info.external_attr = system, mode << 16
            archive.writestr(info, b"data")
    data = buffer.getvalue()
    for code, name in zip(b"pq", names, strict=False):  # as `zipfile` would not write it
        data = data.replace(bytes([code]) * len(name.encode()), name.encode())
    return data


def in_directory(offset: int, form: str, value: int, entry: int = 0, data: bytes = b"") -> bytes:
    """A good archive with another value in an entry of its directory, at an offset in that."""
    data = data or written()
    at = [place for place in range(len(data)) if data[place : place + 4] == b"PK\1\2"][entry] + offset
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def bomb() -> bytes:
    content = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join([*(content.compress(bytes(1 << 20)) for _ in range(5)), content.flush()])
    good = written(zipfile.ZIP_DEFLATED, a=b"a")
    start, directory = good.index(b"a") + 1, good.index(b"PK\1\2")
    body = good[:start] + data
    entry = bytearray(good[directory:])
    entry[20:28] = struct.pack("<2I", len(data), 5 << 20)
    end = entry.index(b"PK\5\6")
    entry[end + 16 : end + 20] = struct.pack("<I", len(body))
    return body + bytes(entry)


GOOD = written()
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "truncated or no zip file"),
    "truncated": (lambda: GOOD[:-30], "truncated or no zip file"),
    "without its first bytes": (lambda: GOOD[100:], "its directory ends at byte"),
    "followed by data": (lambda: GOOD + b"more", "4 bytes follow"),
    "no members": (lambda: b"PK\5\6" + bytes(18), "no files"),
    "out of the archive": (lambda: named("../a.png"), "without '..'"),
    "out of a folder": (lambda: named("cat/../../a.png"), "without '..'"),
    "out of a folder, by backslashes": (lambda: named("cat\\..\\..\\a.png", system=0), "without '..'"),
    "absolute": (lambda: named("/etc/passwd"), "inside the archive"),
    "a symbolic link": (lambda: named("a.png", mode=0o120777), "link or a device"),
    "a pipe": (lambda: named("a.png", mode=0o010644), "link or a device"),
    "twice": (lambda: named("cat/a.png", "cat/a.png"), "occurs twice"),
    "a file and a folder": (lambda: named("cat", "cat/a.png"), "both a file and a folder"),
    "a folder and a file": (lambda: named("cat/a.png", "cat"), "both a file and a folder"),
    "no name": (lambda: in_directory(28, "<H", 0), "not UTF-8|damaged"),
    "no UTF-8": (lambda: written().replace(b"cat/1", b"cat\xff1"), "not UTF-8"),
    "encrypted": (lambda: in_directory(8, "<H", 1), "encrypted"),
    "another method": (lambda: in_directory(10, "<H", 12), "compressed by method 12"),
    "stored in other sizes": (lambda: in_directory(24, "<I", 5), "stored"),
    "overlapping members": (lambda: in_directory(42, "<I", 0, 1), "overlap"),
    "a member in the directory": (lambda: in_directory(42, "<I", len(GOOD) - 200, 1), "overlap"),
    "no zip64 sizes": (lambda: in_directory(24, "<I", 0xFFFFFFFF), "no zip64 sizes"),
    "several parts": (lambda: GOOD[:-18] + b"\1\0\1\0" + GOOD[-14:], "several parts"),
    "fewer entries than it says": (lambda: GOOD[:-12] + b"\x09\0" + GOOD[-10:], "says 9"),
    "a bomb": (bomb, "decompression bomb"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_zip_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    (tmp_path / "set.zip").write_bytes(make())
    with pytest.raises(InputError, match=said) as caught:
        archive_place(str(tmp_path / "set.zip"), str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/set.zip: ")
    assert "\n" not in str(caught.value)


LYING: dict[str, tuple[Callable[[], bytes], str]] = {
    "longer than it says": (lambda: in_directory(24, "<I", 100, data=written(8, a=b"a" * 300)), "expected 100 with"),
    "shorter than it says": (
        lambda: in_directory(24, "<I", 999, data=written(8, a=b"a" * 300)),
        "300 bytes with CRC .*, expected 999",
    ),
    "other content": (lambda: written(a=b"a" * 300).replace(b"aaaaa", b"aabaa", 1), "damaged"),
    "no deflate": (lambda: in_directory(10, "<H", 8, data=written(a=b"\xff" * 300)), "compressed data is damaged"),
    "no local header": (lambda: b"KP" + written(a=b"a")[2:], "no header at byte 0"),
}


@pytest.mark.parametrize("name", LYING)
def test_a_member_that_is_not_what_the_directory_says_is_refused(name: str, tmp_path: Path) -> None:
    make, said = LYING[name]
    (tmp_path / "set.zip").write_bytes(make())
    place = archive_place(str(tmp_path / "set.zip"), str(tmp_path))
    (entry,) = storage.list_folder(place)
    with pytest.raises(InputError, match=said) as caught:
        storage.read_all_listed([entry])
    assert "set.zip:a: " in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_other_hostile_zips_are_refused_or_read(name: str, tmp_path: Path) -> None:
    HOSTILE[name](tmp_path)
    for path in list(tmp_path.glob("*.npz")):
        path = path.rename(path.with_suffix(".zip"))
        said = ""
        try:
            place = archive_place(str(path), str(tmp_path))
            contents = [storage.read_all_listed([entry]) for entry in storage.list_tree(place)]
        except BeamCifarError as error:
            said = str(error)
        assert ("train.zip" in said and "\n" not in said) if said else contents


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("in_memory", [packed.MAX_IN_MEMORY, 1000])
def test_members_are_listed_and_read_by_seek(
    method: int, in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MAX_IN_MEMORY", in_memory)
    data = bytes(range(256)) * 1000
    path = tmp_path / "100%!" / "odd! set.zip"
    path.parent.mkdir()
    path.write_bytes(written(method, **{"a/b!/c.bin": data, "a/d": b"", "a/.hidden": b"x", "e/": b""}))
    place = archive_place(str(path), str(tmp_path))
    assert sorted(entry.name for entry in storage.list_tree(place)) == ["a/b!/c.bin", "a/d"]
    assert sorted(storage.folders_in(place)) == [f"{place}/a", f"{place}/e"]
    assert storage.list_folder(f"{place}/e") == []
    assert (storage.is_folder(f"{place}/a"), storage.is_file(f"{place}/a"), storage.is_file(f"{place}/a/d")) == (
        True,
        False,
        True,
    )
    assert not storage.exists(f"{place}/a/none")
    blob = storage.whole_file(f"{place}/a/b!/c.bin")
    with storage.open_blob(blob, "c.bin") as stream:
        stream.seek(255_000)
        assert stream.read() == data[255_000:]
        stream.seek(10)
        assert stream.read(5) == data[10:15]
    path.write_bytes(written(method, **{"a/b!/c.bin": data[::-1]}))
    with pytest.raises(InputError, match="changed"), storage.open_blob(blob, "c.bin"):
        pass


def test_zip64_and_data_descriptors_are_read(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with (
        zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cat/1.png", "w", force_zip64=True) as member,
    ):
        member.write(b"one" * 100)
    (tmp_path / "set.zip").write_bytes(pipe.data)
    place = archive_place(str(tmp_path / "set.zip"), str(tmp_path))
    assert storage.read_all_listed(list(storage.list_tree(place))) == [b"one" * 100]


def test_more_members_than_memory_allows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    (tmp_path / "set.zip").write_bytes(GOOD)
    with pytest.raises(InputError, match="more than 1 members; unpack it"):
        archive_place(str(tmp_path / "set.zip"), str(tmp_path))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_whose_members_lead_out_of_it_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"set{suffix}"
    with tarfile.open(path, "w:gz" if suffix == ".tar.gz" else "w") as archive:
        info = tarfile.TarInfo("../cat/1.png")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))
    with pytest.raises(InputError, match="without '..'"):
        archive_place(str(path), str(tmp_path))
    assert not (tmp_path.parent / "cat").exists()
