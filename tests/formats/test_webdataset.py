"""WebDataset shards, written and read: byte for byte, by others, and what is refused."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import BeamCifarError, ExportOptions
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Wanted
from beam_cifar.formats.registry import detect_format, get_source
from beam_cifar.formats.webdataset.sink import SHARD_BYTES, WebdatasetSink, key_prefix
from beam_cifar.formats.webdataset.source import WebdatasetSource
from beam_cifar.planning.summaries import scan
from tests.helpers.image_trees import batch, contents, decoded, encoded, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import batch_names, cifar_rows, ids, tree, unpickled

pytestmark = pytest.mark.usefixtures("without_runner")

Members = Sequence[tuple[str, bytes]]


def tar(members: Members, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive by Python's tarfile."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def png(seed: int = 0, *size: int) -> bytes:
    return encoded(picture(seed, *size))


def samples(count: int, **more: Callable[[int], bytes]) -> list[tuple[str, bytes]]:
    """Images and further members of some samples."""
    made: list[tuple[str, bytes]] = []
    for number in range(count):
        made.append((f"{number:03d}.png", png(number)))
        made += [(f"{number:03d}.{kind}", content(number)) for kind, content in more.items()]
    return made


def shard(folder: Path, members: Members, name: str = "train-000000.tar") -> Path:
    return write_tree(folder, {name: tar(members)})


def found(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What the reader finds: id, file name, class name and image of every row by subset."""
    catalog = WebdatasetSource().describe(str(path), "")
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for file in catalog.files:
        with WebdatasetSource().open_rows(file, catalog.labels) as reader:
            for row in reader.table(0, reader.rows).to_pylist():
                name = None if row["label"] is None else catalog.labels.names[row["label"]]
                rows.setdefault(file.subset, []).append((row["id"], row["filename"], name, row["image"]))
    return rows


def labels(path: Path) -> list[str | None]:
    return [row[2] for rows in found(path).values() for row in rows]


def unpacked(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Headers and contents by Python's tarfile."""
    with tarfile.open(path) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


# --- written --------------------------------------------------------------------------------------------------------


def test_a_sample_is_image_label_and_facts_one_after_the_other(cifar100: Path, tmp_path: Path) -> None:
    quickly(cifar100, tmp_path / "out", "webdataset")
    meta = unpickled(cifar100 / "meta")
    for subset in ("train", "test"):
        members = unpacked(tmp_path / "out" / f"{subset}-000000.tar")
        rows = cifar_rows(cifar100, [subset])
        assert len(members) == 3 * len(rows)
        for number, (name, label, coarse, pixels) in enumerate(rows):
            key = f"{subset}-000000-{number:06d}"
            mine = members[3 * number : 3 * number + 3]
            assert [info.name for info, _ in mine] == [f"{key}.png", f"{key}.cls", f"{key}.json"]
            image, cls, facts = (content for _, content in mine)
            assert decoded(image).tobytes() == pixels
            assert int(cls) == label
            assert json.loads(facts) == {
                "id": name.removesuffix(".png"),
                "filename": name,
                "label": meta["fine_label_names"][label],
                "superclass": meta["coarse_label_names"][coarse],
            }
    table = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert (table["names"], table["superclasses"]) == (meta["fine_label_names"], meta["coarse_label_names"])
    assert table["subsets"] == {"train-000000.tar": "train", "test-000000.tar": "test"}


def test_every_header_is_that_of_tarfile_without_time_and_owner(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "webdataset", limit=50)
    data = (tmp_path / "out" / "train-000000.tar").read_bytes()
    for info, content in unpacked(tmp_path / "out" / "train-000000.tar"):
        assert (info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname) == (0o444, 0, 0, 0, "", "")
        expected = tarfile.TarInfo(info.name)
        expected.mode, expected.size = 0o444, len(content)
        assert data[info.offset : info.offset_data] == expected.tobuf(tarfile.USTAR_FORMAT)
        padding = data[info.offset_data + len(content) : info.offset_data + -(-len(content) // 512) * 512]
        assert not padding.strip(b"\0")
    assert data[-1024:] == bytes(1024)


def test_shards_have_so_many_rows_and_keys_that_are_unique_over_all_of_them(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "webdataset", images_per_batch=300, subset_names="source")
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in shards] == [f"{name}-000000.tar" for name in sorted(batch_names(cifar10))]
    quickly(cifar10, tmp_path / "split", "webdataset", images_per_batch=300)
    shards = sorted((tmp_path / "split").glob("*.tar"))
    assert [path.name for path in shards] == ["test-000000.tar", *(f"train-{n:06d}.tar" for n in range(4))]
    names = [info.name for path in shards for info, _ in unpacked(path)]
    assert len({name.partition(".")[0] for name in names}) == len(names) // 3 == 1203


def test_shards_are_even_and_no_larger_than_usual() -> None:
    sink, options = WebdatasetSink(), ExportOptions()
    assert sink.shard_rows(50_000, 50_000 * 3072, 1, options) == 10_000
    assert sink.shard_rows(10_001, 1, 1, options) == 5001
    assert sink.shard_rows(3000, 3 * SHARD_BYTES, 1, options) == 1000
    assert sink.shard_rows(0, 0, 0, options) == 1


def test_keys_have_no_dots_and_fit_in_a_header() -> None:
    names = [
        "train-000000",
        "a.b-000000",
        "a_b-000000",
        "a=2Eb-000000",
        "обучение-000000",
        "x" * 250,
        "x" * 249 + "y",
        "../x",
    ]
    prefixes = [key_prefix(f"{name}.tar") for name in names]
    assert prefixes[0] == "train-000000"
    assert len(set(prefixes)) == len(names)
    for prefix in prefixes:
        assert len(f"{prefix}-000000.jpeg") <= 100
        assert not {".", "/", "%"} & set(prefix)


def test_the_same_job_makes_the_same_bytes(cifar10: Path, tmp_path: Path) -> None:
    for name in "ab":
        quickly(cifar10, tmp_path / name, "webdataset", images_per_batch=400)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_and_back(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(kind)
    quickly(source, tmp_path / "there", "webdataset", images_per_batch=500, subset_names="source")
    assert detect_format(str(tmp_path / "there"), "") == "webdataset"
    quickly(tmp_path / "there", tmp_path / "back", "cifar", save_images=True)
    assert cifar_rows(tmp_path / "back") == cifar_rows(source)
    meta = "meta" if kind == "cifar100" else "batches.meta"
    assert unpickled(tmp_path / "back" / meta) == unpickled(source / meta)


def test_hostile_names_rows_without_image_or_label_and_odd_subsets_survive(tmp_path: Path) -> None:
    classes = ["Кошка", "a, b", "line\nbreak", "unused", " \"quoted'", "\u2028", ""]
    names = ["a/b.png", "none.jpg", "кошка 1.png", "no label.png", "..x.png", "/abs/x.png", "nothing.png"]
    rows = batch(names, [0, 1, 2, None, 4, 5, None])
    rows["data"] = np.array([*rows["data"], None], dtype=object)[:-1]
    rows["data"][1] = rows["data"][6] = None
    subsets = ["train", "a-000001", "обучение", "x" * 90]
    more = {name: batch([f"{number}.png"], [6], number) for number, name in enumerate(subsets[1:])}
    source = write_cifar(tmp_path / "in", {"train": rows, **more}, classes)
    quickly(source, tmp_path / "there", "webdataset")
    assert {row[0] for row in found(tmp_path / "there")["train"]} >= {"a/b", "none", "nothing", "..x"}
    quickly(tmp_path / "there", tmp_path / "back", "cifar", save_images=True)
    assert unpickled(tmp_path / "back" / "batches.meta")["label_names"] == classes
    for subset in subsets:
        assert cifar_rows(tmp_path / "back", [subset]) == cifar_rows(source, [subset])


def test_a_subset_without_rows_is_left_out_and_named(cifar10: Path, tmp_path: Path) -> None:
    only = unpickled(cifar10 / "test_batch")["filenames"][0].removesuffix(".png")
    summary = quickly(cifar10, tmp_path / "out", "webdataset", filter=f"/item[id='{only}']")
    assert set(contents(tmp_path / "out")) == {"labels.json", "test-000000.tar"}
    assert any("'train' has no rows left" in notice for notice in summary.notices)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_folder_of_images_comes_back_byte_for_byte(kind: str, tmp_path: Path) -> None:
    extensions = {"PNG": [".png", ".PNG"], "JPEG": [".jpg", ".jpeg", ".JPG"]}[kind]
    files = {
        f"{subset}/{name}/{number}{extension}": encoded(picture(7 * number + at, 20 + number, 30, channels), kind)
        for subset in ("train", "test")
        for at, (name, channels) in enumerate([("cat", 3), ("dog", 1), ("no_label", 3)])
        for number, extension in enumerate(extensions)
    }
    source = write_tree(tmp_path / "in", files)
    quickly(source, tmp_path / "there", "webdataset", images_per_batch=4)
    quickly(tmp_path / "there", tmp_path / "back", "imagenet_with_subset_dirs")
    assert contents(tmp_path / "back") == files


def test_parts_of_a_shard_are_read_in_any_order(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "out", "webdataset")
    catalog = WebdatasetSource().describe(str(tmp_path / "out"), "")
    train = next(file for file in catalog.files if file.subset == "train")
    with WebdatasetSource().open_rows(train, catalog.labels) as reader:
        whole = reader.table(0, reader.rows)
        assert reader.table(500, 600).equals(whole.slice(500, 100))
        assert reader.take([0, 3, 900, 1002]).equals(whole.take([0, 3, 900, 1002]))
        sizes = [len(image) for image in whole.column("image").to_pylist()]
        assert reader.row_bytes(10, 20, decoded=False) == max(sizes[10:20])
        assert reader.row_bytes(10, 20, decoded=True) == 3072
    summary = scan(WebdatasetSource(), train, catalog.labels, Wanted(sizes=True))
    assert (summary.images, summary.image_bytes, summary.size) == (1003, sum(sizes), (32, 32))


# --- shards by others -----------------------------------------------------------------------------------------------


def test_labels_are_numbers_names_or_both(tmp_path: Path) -> None:
    one = shard(tmp_path / "numbers", samples(4, cls=lambda n: b"%d\n" % (3 - n)))
    assert labels(one) == ["3", "2", "1", "0"]
    one = shard(tmp_path / "names", samples(3, cls=lambda n: ["dog", "кот", "dog"][n].encode()))
    assert labels(one) == ["dog", "кот", "dog"]
    assert WebdatasetSource().describe(str(one), "").labels.names == ("dog", "кот")
    one = shard(tmp_path / "both", samples(3, cls=lambda n: b"%d" % n, json=lambda n: b'{"label": "c%d"}' % (n % 3)))
    assert labels(one) == ["c0", "c1", "c2"]
    one = shard(tmp_path / "json", samples(3, json=lambda n: [b'{"class": 1}', b'{"cls": -1}', b"[1]"][n]))
    assert labels(one) == ["1", None, None]
    one = shard(tmp_path / "text", samples(3, txt=lambda n: [b"eel", b"ant \n", b"\xff"][n]))
    assert labels(one) == ["eel", "ant", None]
    one = shard(tmp_path / "captions", samples(1, txt=lambda n: b"x" * 5000))
    assert labels(one) == [None]
    assert "no labels" in WebdatasetSource().describe(str(one), "").notices[0]


def array(pixels: Any) -> bytes:
    """A member as `numpy.save` makes it."""
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def test_arrays_of_pixels_are_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 6, 3), (7, 4), (200, 150, 3), (3, 3, 1))]
    members = [
        member for n, image in enumerate(images) for member in ((f"{n}.npy", array(image)), (f"{n}.cls", b"%d" % n))
    ]
    folder = shard(tmp_path / "set", members)
    assert detect_format(str(folder / "train-000000.tar"), "") == "webdataset"
    rows = found(folder)["train"]
    assert [row[:3] for row in rows] == [(str(n), f"{n}.png", str(n)) for n in range(4)]
    for row, image in zip(rows, images, strict=True):
        assert (decoded(row[3]) == image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)).all()
    catalog = WebdatasetSource().describe(str(folder), "")
    with WebdatasetSource().open_rows(catalog.files[0], catalog.labels) as reader:
        facts = reader.facts(0, 4).select(["height", "width", "channels"]).to_pylist()
    assert [tuple(row.values()) for row in facts] == [(5, 6, 3), (7, 4, 1), (200, 150, 3), (3, 3, 1)]
    assert catalog.notices == ()


def test_samples_without_image_or_label_are_told_with_their_members(tmp_path: Path) -> None:
    members = [
        *(("a.png", png()), ("a.cls", b"0")),
        *(("b.npy", array(np.zeros((4, 4)))), ("b.cls", b"0")),
        *(("c.pyd", b"x"), ("c.mp", b"x"), ("c.img", b"x")),
        *(("d.5.png", png()), ("d.5.cls", b"1")),
    ]
    one = shard(tmp_path / "set", members)
    assert WebdatasetSource().describe(str(one), "").notices == (
        "2 of 4 samples have no label; their members: '5.cls', '5.png', 'img', 'mp', 'pyd' (a key ends at the first dot "
        "of a name, as in the webdataset library: replace other dots)",
        "2 of 4 samples have no image; their members: 'cls', 'img', 'mp', 'npy', 'pyd'",
    )
    one = shard(tmp_path / "text", samples(3, txt=lambda n: [b"eel", b"", b"ant"][n]))
    assert WebdatasetSource().describe(str(one), "").notices == (
        "labels are read from .txt, 2 texts such as 'ant' (a guess: there are no others)",
        "1 of 3 samples has no label; their members: 'png', 'txt'",
    )


def test_ids_are_keys_unless_json_says_them(tmp_path: Path) -> None:
    members = [
        ("./a/b.c.PNG", png(1)),
        ("./a/b.cls", b"0"),
        ("__meta__", b"{}"),
        ("__meta__/x.png", b"no sample"),
        ("README", b"no sample"),
        (".hidden.png", b"no sample"),
        ("./a/c.jpeg", encoded(picture(2), "JPEG")),
        ("./a/c.json", b'{"id": "own", "filename": "x.JPEG"}'),
        ("lonely.cls", b"0"),
    ]
    rows = found(shard(tmp_path / "set", members))["train"]
    assert [row[:3] for row in rows] == [
        ("a/b", "b.c.PNG", "0"),
        ("own", "x.JPEG", None),
        ("lonely", "lonely.png", "0"),
    ]
    assert [row[3] and decoded(row[3]).shape for row in rows] == [(3, 32, 32), (3, 32, 32), None]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_in_any_form_of_tar(form: int, tmp_path: Path) -> None:
    keys = ["x" * 90, "d" * 120 + "/" + "k" * 40] + ([] if form == tarfile.USTAR_FORMAT else ["кошка" * 40, "k" * 300])
    members = [(f"{key}.{kind}", content) for key in keys for kind, content in (("png", png()), ("cls", b"0"))]
    write_tree(tmp_path / "set", {"train-0.tar": tar(members, form)})
    assert [row[0] for row in found(tmp_path / "set")["train"]] == keys


def test_subsets_are_named_by_shards_or_folders(tmp_path: Path) -> None:
    names = ["train-000000.tar", "train-000001.tar", "imagenet-val-0001.tar", "000007.tar", "test_3.tar"]
    write_tree(tmp_path / "flat", {name: tar(samples(1)) for name in names})
    files = WebdatasetSource().describe(str(tmp_path / "flat"), "").files
    assert {file.name: file.subset for file in files} == dict(
        zip(names, ["train", "train", "imagenet-val", "default", "test"], strict=True)
    )
    # Keys repeat between the shards of "train".
    assert [row[0] for row in found(tmp_path / "flat")["train"]] == ["train-000000/000", "train-000001/000"]
    write_tree(tmp_path / "deep", {f"{name}/000.tar": tar(samples(1)) for name in ("val", "train")})
    assert {name: len(rows) for name, rows in found(tmp_path / "deep").items()} == {"train": 1, "val": 1}
    assert detect_format(str(tmp_path / "deep"), "") == "webdataset"


def test_one_shard_alone(tmp_path: Path) -> None:
    path = shard(tmp_path / "set", samples(2, cls=lambda n: b"%d" % n)) / "train-000000.tar"
    assert detect_format(str(path), "") == "webdataset"
    assert {name: len(rows) for name, rows in found(path).items()} == {"train": 2}
    quickly(path, tmp_path / "out", "cifar", save_images=True)
    assert [row[0] for row in cifar_rows(tmp_path / "out", ["train"])] == ["000.png", "001.png"]


def test_mixed_sizes_and_gray_images(tmp_path: Path) -> None:
    images = [encoded(picture(1, 5, 6)), encoded(picture(2, 300, 400, 1), "JPEG"), encoded(picture(3, 7, 7, 1))]
    members = [(f"{n}.{'jpg' if n == 1 else 'png'}", image) for n, image in enumerate(images)]
    folder = shard(tmp_path / "set", members)
    catalog = WebdatasetSource().describe(str(folder), "")
    with WebdatasetSource().open_rows(catalog.files[0], catalog.labels) as reader:
        facts = reader.facts(0, 3).select(["height", "width", "channels"]).to_pylist()
    assert [tuple(row.values()) for row in facts] == [(5, 6, 3), (300, 400, 1), (7, 7, 1)]
    summary = scan(WebdatasetSource(), catalog.files[0], catalog.labels, Wanted(sizes=True))
    assert (summary.size, summary.pixel_bytes) == (None, 3 * (30 + 120_000 + 49))


def test_cifar_archives_and_trees_are_not_taken_for_shards(
    cifar10: Path, cifar10_archive: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "cifar-10-python.tar", "w") as archive:
        archive.add(cifar10, "cifar-10-batches-py")
    binary = [
        ("cifar-10-batches-bin/batches.meta.txt", b"cat\n"),
        ("cifar-10-batches-bin/data_batch_1.bin", b"\0" * 3073),
    ]
    (tmp_path / "cifar-10-binary.tar").write_bytes(tar(binary))
    (tmp_path / "images.tar").write_bytes(tar([("cat/1.png", png()), ("dog/1.png", png())]))
    source = WebdatasetSource()
    others = [cifar10, cifar10_archive, tmp_path, *tmp_path.glob("*.tar")]
    assert [path for path in others if source.looks_right(str(path), "")] == []
    assert detect_format(str(tmp_path / "cifar-10-python.tar"), str(tmp_path / "index")) == "cifar"


# --- refused --------------------------------------------------------------------------------------------------------


def patched(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at + len(more) :]


def resized(data: bytes, field: bytes) -> bytes:
    """The first header with another size, and a checksum that fits."""
    header = bytearray(patched(data[:512], 124, field))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def linked(kind: bytes) -> bytes:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf() + bytes(1024)


WHOLE = tar(samples(4, cls=lambda n: b"%d" % n), tarfile.USTAR_FORMAT)
BOTH = {
    "cut within a member": (WHOLE[:3000], "ends at byte 3000 without an end"),
    "cut between members": (WHOLE[: WHOLE.index(b"002.png")], "without an end-of-archive marker"),
    "a flipped bit": (patched(WHOLE, 3, b"q"), "wrong header checksum"),
    "text": (b"id,label\n" * 200, "damaged, or not a tar file"),
    "a second archive": (WHOLE + WHOLE, "more data after the end"),
    "a size of exabytes": (resized(WHOLE, b"\x80" + b"\x7f" * 11), "bytes, but only .* follow"),
    "a negative size": (resized(WHOLE, b"-0000000001\0"), "is not a valid number"),
    "a symbolic link": (linked(tarfile.SYMTYPE), "'a.png' is a link, a device or a sparse file"),
    "a hard link": (linked(tarfile.LNKTYPE), "'a.png' is a link, a device or a sparse file"),
    "a device": (linked(tarfile.CHRTYPE), "'a.png' is a link, a device or a sparse file"),
    "a large extended header": (tar([("k" * (2 << 20) + ".png", b"")]), "extended header of .* bytes; expected at most 1048576"),
    "an extended header with wrong lengths": (tar([("k" * 300 + ".png", b"")]).replace(b"314 path=", b"999 path="), "damaged extended header"),
    "a name that is not UTF-8": (tar([("\udcff.png", b"")], tarfile.GNU_FORMAT), "member name is not valid UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BOTH)
def test_a_damaged_shard_is_refused_with_its_place(damage: str, tmp_path: Path) -> None:
    data, reason = BOTH[damage]
    write_tree(tmp_path / "set", {"train-000000.tar": data})
    with pytest.raises(InputError, match=reason) as raised:
        quickly(tmp_path / "set", tmp_path / "out", "cifar", input_format="webdataset")
    assert "train-000000.tar" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


SAMPLES: dict[str, tuple[Members, str]] = {
    "members apart": ([("a.png", png()), ("b.png", png()), ("a.cls", b"0")], "sample 2: members of sample 'a' are not adjacent"),
    "a member twice": ([("a.png", png()), ("a.png", png())], "'a' has two 'png' members"),
    "two images": ([("a.png", png()), ("a.jpg", png())], "sample 0: sample 'a' has 2 images \\(png, jpg\\)"),
    "two names with dots": ([("x/22.05.png", png()), ("x/22.05.cls", b"0"), ("x/22.06.png", png()), ("x/22.06.cls", b"1")], "a key ends at the first dot.*if '22.05' and '22.06' are samples of their own, .* as in '22_05.png'"),
    "names with dots apart": ([("1.5.png", png()), ("2.5.png", png()), ("1.6.png", png())], "members of sample '1' are not adjacent.*first dot.*replace other dots"),
    "two views": ([("a.left.png", png()), ("a.right.png", png())], "has 2 images \\(left.png, right.png\\)"),
    "AVIF": ([("a.avif", b"RIFF"), ("a.cls", b"0")], "'a' has a .avif image; expected PNG, JPEG, WebP"),
    "something else in .png": ([("a.png", b"P6 1 1" * 9)], "row 0: starts with bytes 50 36"),
    "a cut image": ([("a.png", png()), ("b.png", png()[:-20])], "row 1: "),
    "JSON that ends": ([("a.png", png()), ("a.json", b'{"id": ')], "'a.json' is not valid JSON"),
    "deep JSON": ([("a.png", png()), ("a.json", b"[" * 200_000)], "'a.json' is not valid JSON"),
    "large JSON": ([("a.png", png()), ("a.json", b" " * (2 << 20))], "'a.json' is 2097152 bytes; at most 1048576"),
    "an id that is not Unicode": ([("a.png", png()), ("a.json", b'{"id": "\\ud800"}')], "which is not valid Unicode"),
    "a label of many digits": ([("a.png", png()), ("a.cls", b"9" * 4000)], "a number of 4000 digits"),
    "a label that is no text": ([("a.png", png()), ("a.cls", b"\x80\x02K\x01.")], "'a.cls' \\(5 bytes\\) is not a label"),
    "several labels": ([("a.png", png()), ("a.cls", b"1 2\n")], "has several labels, '1 2', but only one is supported"),
    "several labels, as a list": ([("a.png", png()), ("a.cls", b"[1, 20]")], "has several labels, '\\[1, 20\\]'"),
    "a label below -1": ([("a.png", png()), ("a.cls", b"-2")], "has label -2; expected a class number, or -1"),
    "a label that is no whole number": ([("a.png", png()), ("a.json", b'{"label": 1.5}')], "has label 1.5; expected a whole number"),
    "a name that is not Unicode": ([("a.png", png()), ("a.json", b'{"label": "\\ud800"}')], "a label .* which is not valid Unicode"),
    "a label of billions": ([("a.png", png()), ("a.cls", b"2000000000")], "more than 100000 classes"),
    "a class of two names": ([("a.png", png()), ("a.json", b'{"label": "x", "cls": 0}'), ("b.png", png()), ("b.json", b'{"label": "y", "cls": 0}')], "class 0 is named both 'x' and 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_that_make_no_sense_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    members, reason = SAMPLES[name]
    folder = shard(tmp_path / "set", members)
    with pytest.raises(InputError, match=reason) as raised:
        quickly(folder, tmp_path / "out", "cifar", save_images=True, input_format="webdataset")
    assert "train-000000.tar" in str(raised.value)


TABLES = {
    "no JSON": ("{", "labels.json: is not valid JSON"),
    "names that are numbers": ('{"names": [1], "superclasses": [], "parents": [], "subsets": {}}', "is damaged"),
    "a parent outside": ('{"names": ["a"], "superclasses": ["b"], "parents": [1], "subsets": {}}', "is damaged"),
    "a name that is not Unicode": (
        '{"names": ["\\ud800"], "superclasses": [], "parents": [], "subsets": {}}',
        "is damaged",
    ),
    "a subset that is not Unicode": (
        '{"names": [], "superclasses": [], "parents": [], "subsets": {"a": "\\ud800"}}',
        "is damaged",
    ),
    "too few parents": ('{"names": ["a"], "superclasses": ["b"], "parents": [], "subsets": {}}', "is damaged"),
    "a list of subsets": ('{"names": ["a"], "superclasses": [], "parents": [], "subsets": []}', "is damaged"),
    "too few names": (
        '{"names": ["a"], "superclasses": [], "parents": [], "subsets": {}}',
        "row 1: label 1 is outside",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_label_table_is_refused(name: str, tmp_path: Path) -> None:
    text, reason = TABLES[name]
    folder = shard(tmp_path / "set", samples(2, cls=lambda n: b"%d" % n))
    (folder / "labels.json").write_text(text)
    with pytest.raises(InputError, match=reason):
        quickly(folder, tmp_path / "out", "cifar", input_format="webdataset")


def test_packed_shards_are_refused_with_a_reason(tmp_path: Path) -> None:
    write_tree(tmp_path / "set", {"train-000000.tar.gz": b"\x1f\x8b"})
    with pytest.raises(InputError, match="compressed shards allow no random access, unpack them"):
        quickly(tmp_path / "set", tmp_path / "out", "cifar")


def test_a_shard_that_changes_in_between_is_refused(tmp_path: Path) -> None:
    folder = shard(tmp_path / "set", samples(2))
    catalog = WebdatasetSource().describe(str(folder), "")
    shard(tmp_path / "set", samples(3))
    with pytest.raises(InputError, match="changed while it was being converted"):
        scan(WebdatasetSource(), catalog.files[0], catalog.labels, Wanted())


def test_any_changed_byte_is_refused_or_read(tmp_path: Path) -> None:
    data = tar([*samples(3, cls=lambda n: b"%d" % n, json=lambda n: b'{"id": "%d"}' % n), ("k" * 200 + ".cls", b"0")])
    rng = np.random.default_rng(5)
    for at in rng.integers(0, len(data), 200).tolist():
        folder = write_tree(
            tmp_path / "set", {"train-0.tar": patched(data, at, struct.pack("B", int(rng.integers(256))))}
        )
        try:
            found(folder)
        except BeamCifarError as error:
            refusal = str(error)
        else:
            continue
        assert "train-0.tar" in refusal


def test_ids_differ_also_where_our_own_shards_repeat_names(tmp_path: Path) -> None:
    """Batches that become one split may have the same names, and be in several shards."""
    batches = {f"data_batch_{n}": batch(["a.png", "b.png"], [0, 1], seed=n) for n in (1, 2)}
    quickly(write_cifar(tmp_path / "in", batches), tmp_path / "out", "webdataset", images_per_batch=2)
    assert ids(WebdatasetSource(), tmp_path / "out") == [f"train-00000{n}/{name}" for n in (0, 1) for name in "ab"]


def test_labels_are_found_in_any_case_and_as_whole_floats(tmp_path: Path) -> None:
    members = [("a.PNG", png()), ("a.CLS", b"1"), ("b.png", png()), ("b.json", b'{"label": 0.0}')]
    assert labels(shard(tmp_path / "set", members)) == ["1", "0"]


def test_what_a_folder_says_of_its_size_hides_no_sample(tmp_path: Path) -> None:
    inner = tar([("a.png", png()), ("a.cls", b"0")]).rstrip(b"\0")
    inner += bytes(-len(inner) % 512)
    folder = tarfile.TarInfo("folder/")
    folder.type, folder.size = tarfile.DIRTYPE, len(inner)
    path = write_tree(tmp_path / "set", {"a.tar": folder.tobuf() + inner + tar([("b.png", png()), ("b.cls", b"1")])})
    assert labels(path) == ["0", "1"]


OWN = {"names": ["cat", "dog"], "superclasses": [], "parents": [], "subsets": {"train-000000.tar": "train"}}


def test_a_label_of_ours_that_is_not_in_the_table_is_a_bad_row(tmp_path: Path) -> None:
    members = [("a.png", png()), ("a.cls", b"q"), ("b.png", png()), ("b.json", b'{"label": "dog"}')]
    folder = write_tree(tmp_path, {"train-000000.tar": tar(members), "labels.json": json.dumps(OWN).encode()})
    catalog = WebdatasetSource().describe(str(folder), "")
    with WebdatasetSource().open_rows(catalog.files[0], catalog.labels) as rows:
        assert {row: bad.error for row, bad in rows.bad_rows.items()} == {0: "label 'q' is not in the label table"}
        assert list(rows.labels) == [-1, 1]


def test_shards_of_ours_that_are_missing_are_told(tmp_path: Path) -> None:
    told = {**OWN, "subsets": {"train-000000.tar": "train", "train-000001.tar": "train"}}
    folder = write_tree(tmp_path, {"train-000000.tar": tar(samples(1)), "labels.json": json.dumps(told).encode()})
    (notice,) = WebdatasetSource().describe(str(folder), "").notices
    assert "1 missing shard, such as 'train-000001.tar'" in notice


def test_shards_of_several_subsets_in_one_folder_below_are_told_apart_by_name(tmp_path: Path) -> None:
    source = write_cifar(tmp_path / "in", {name: batch(["a.png"], [0], len(name)) for name in ("train", "test")})
    quickly(source, tmp_path / "out" / "data", "webdataset")
    (tmp_path / "out" / "data" / "labels.json").unlink()
    catalog = get_source("webdataset").describe(str(tmp_path / "out"), str(tmp_path))
    assert sorted(file.subset for file in catalog.files) == ["test", "train"]
