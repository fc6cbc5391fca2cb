"""What is fuzzed: one row of `TARGETS` each, with seeds made at run time, how to read a file, and what may be raised."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import pickletools
import shutil
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from PIL import Image

from beam_cifar import storage
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import BeamCifarError, PickleError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.kit.column_roles import columns_of
from beam_cifar.formats.kit.json_stream import JsonStream
from beam_cifar.formats.kit.label_tables import find_columns, may_have_labels, table_rows
from beam_cifar.formats.kit.npy import read_header
from beam_cifar.formats.kit.tf_example import example_values, serialized_example
from beam_cifar.formats.registry import get_source, readable
from beam_cifar.images.decode import decode_image, probe_whole_image
from beam_cifar.images.exif import exif_orientation, profile_orientation, xmp_orientation
from beam_cifar.images.header import probe_image
from beam_cifar.jobs import serial
from beam_cifar.jobs.accounts import PartInfo, decode_part, encode_part
from beam_cifar.jobs.prepare import prepare
from beam_cifar.options import ConvertOptions
from beam_cifar.pickles.recognise import Batch, read_batch, read_meta
from beam_cifar.report.provenance import read_provenance
from beam_cifar.samples.make import make_sample
from beam_cifar.storage.packed import archive_place
from beam_cifar.storage.tar import tar_members
from beam_cifar.storage.zip import ZipMember, zip_bytes, zip_entries
from tests.filters.test_xpath_work import HOSTILE, SENSIBLE
from tests.fuzz import mutate
from tests.helpers import pickle_corpus
from tests.helpers.image_trees import encoded, picture
from tests.helpers.protobuf import parsed_example
from tests.helpers.read_only import READ_ONLY

notes: Counter[str] = Counter()
"""Statistics beside the counts of executions."""

SCRATCH = Path()  # set by the process that runs a target: a folder of its own


@dataclass(frozen=True)
class Target:
    """A parser to fuzz.

    Attributes:
        seeds: returns files to begin with; called once, before `run`.
        run: reads a file; raises one of `errors` to refuse it.
        mutator: changes a file.
        errors: what it may raise.
        weight: its share of executions; those that read from the disk are slow.
    """

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], object]
    mutator: mutate.Mutator = mutate.plain
    errors: tuple[type[Exception], ...] = (BeamCifarError,)
    weight: int = 100


# Pickles, beside an unpickler that knows the names of numpy's constructors and no others.


_EMPTY = {"bytes": lambda *_: b"", "bytearray": lambda *_: bytearray()}


class Restricted(pickle.Unpickler):
    """The oracle: reads what the scanner may accept, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        if module in ("__builtin__", "builtins") and name in _EMPTY:
            return _EMPTY[name]  # as Python 3 writes an empty one for Python 2
        if module.split(".")[0] == "numpy" and name in {"_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"}:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name}")


class _Dtype:
    """A dtype without its state: numpy's own `__setstate__` crashes on a hostile one."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """An array of bytes, as its state says."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, _, payload = state
        if dtype.name not in ("u1", b"u1") or len(payload) != self.shape[0] * self.shape[1]:
            raise pickle.UnpicklingError


class Cautious(Restricted):
    """The oracle for what the scanner refused: it knows plain values and arrays of bytes alone."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype}
        return known[name] if module.startswith("numpy") and name in known else super().find_class(module, name)


def fields_of(data: bytes, unpickler: type[Restricted] = Restricted) -> dict[str, Any]:
    if data.partition(b"\n")[0].endswith(b"\r"):  # protocol 0 that was copied as text: nobody else reads it
        data = data.replace(b"\r\n", b"\n")
    loaded = unpickler(io.BytesIO(data), encoding="bytes").load()
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}


def plain_value(value: Any) -> Any:
    """Labels and names as Python's own values."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [plain_value(item) for item in value] if isinstance(value, list | tuple) else value


def names_of(value: Any) -> list[str]:
    texts = isinstance(value, np.ndarray) and value.dtype.kind in "SU"
    return [
        plain_value(item.rstrip(b"\0" if isinstance(item, bytes) else "\0") if texts else item) for item in list(value)
    ]


def image_bytes(row: Any) -> bytes | None:
    if row is None:
        return None
    pixels = np.asarray(row).astype(np.uint8)
    planar = pixels.transpose(2, 0, 1) if pixels.ndim == 3 and len(pixels) != 3 else pixels
    return np.ascontiguousarray(planar).tobytes()


def check_equal(batch: Batch, file: io.BytesIO) -> None:
    """Compares a batch with the oracle's."""
    try:
        fields = fields_of(file.getvalue())
    except MemoryError:  # Python's own memo is an array: one index of 2^31 takes 16 GB
        return
    label_key = "fine_labels" if "fine_labels" in fields else "labels"
    columns = {label_key: batch.labels, "coarse_labels": batch.coarse_labels, "filenames": batch.filenames}
    for key, found in columns.items():
        if key in fields:
            expected = names_of(fields[key]) if key == "filenames" or key == label_key else plain_value(fields[key])
            expected = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in expected]  # N x 1
            assert list(found or ()) == list(expected), f"{key}: found {found!r}, expected {expected!r}"
    if batch.images is not None:
        pixels, lengths = batch.images.read(file, 0, batch.rows)
        rows = [image_bytes(row) for row in fields["data"]]
        assert pixels == b"".join(row or b"" for row in rows), "pixels differ"
        assert lengths is None or list(lengths) == [row and len(row) for row in rows]


def run_batch(data: bytes) -> None:
    file = io.BytesIO(data)
    try:
        batch = read_batch(file, "fuzz")
        if batch.images is not None:
            batch.images.read(file, 0, batch.rows)
    except PickleError as error:
        if would_be_a_batch(data):
            notes["refused, but a plain batch: " + error.reason[:60]] += 1
        raise
    notes["compared"] += 1
    check_equal(batch, file)


def would_be_a_batch(data: bytes) -> bool:
    """Whether the oracle finds a plain batch: a statistic, since the scanner refuses on purpose what no writer makes."""
    try:
        # A value may hold another twice, to any depth: hashing such a key takes exponential time.
        if sum(opcode.name.endswith("GET") or opcode.name == "DUP" for opcode, _, _ in pickletools.genops(data)) > 25:
            return False
        fields = fields_of(data, Cautious)
        labels, pixels = fields["labels"], fields["data"]
        good = len(fields) == 4 and all(type(label) is int for label in labels) and type(pixels) is _Array
        return good and pixels.shape == (len(labels), 12)
    except Exception:
        return False


def run_meta(data: bytes) -> None:
    meta = read_meta(io.BytesIO(data), "fuzz")
    fields = fields_of(data)
    key = "fine_label_names" if "fine_label_names" in fields else "label_names"
    notes["compared"] += 1
    assert list(meta.label_names) == names_of(fields[key])


def batch_seeds() -> list[bytes]:
    rows = [np.arange(12, dtype=np.uint8) + row for row in range(pickle_corpus.ROWS)]
    values = [
        layout().value
        for name, layout in pickle_corpus.LAYOUTS.items()
        if name not in ("thousands_of_rows", "large_payload")
    ]
    for value in values:
        if isinstance(value.get("data"), np.ndarray) and value["data"].shape == (pickle_corpus.ROWS, 3072):
            value["data"] = value["data"][:, :12].copy()
    values.append(pickle_corpus.batch(data=pickle_corpus.objects(rows)))
    made = [write(value) for value in values for write in pickle_corpus.WRITERS.values()]
    made += [make("/nonexistent") for make in pickle_corpus.BAD.values()]
    return [data for data in made if len(data) < 8000]


def meta_seeds() -> list[bytes]:
    ten: dict[Any, Any] = {"label_names": ["cat", "dog", "собака"], "num_cases_per_batch": 10_000, "num_vis": 3072}
    hundred = {"fine_label_names": ["a", "b"], "coarse_label_names": ["c", "d"]}
    arrays = {"label_names": np.array(["cat", "dog"]), "mean": np.arange(4.0)}
    return [write(value) for value in (ten, hundred, arrays) for write in pickle_corpus.WRITERS.values()]


# Other files that are read from a stream or from memory.


def tar_seeds() -> list[bytes]:
    made = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name, size in (
                ("a.txt", 3),
                ("folder/" + "x" * (120 if kind else 80), 600),
                ("собака.png" if kind else "b", 0),
            ):
                info = tarfile.TarInfo(name)
                info.size = size
                archive.addfile(info, io.BytesIO(bytes(size)))
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        made.append(file.getvalue()[:6144].ljust(6144, b"\0"))
    return made


def run_tar(data: bytes) -> None:
    # The last may reach beyond the end, which is an error after it.
    for name, offset, size in list(tar_members(io.BytesIO(data), len(data), "fuzz")):
        name.encode()
        assert 0 <= offset <= offset + size <= len(data)


def npy_seeds() -> list[bytes]:
    arrays = [
        np.zeros((2, 3), "u1"),
        np.arange(3),
        np.array(["a", "собака"]),
        np.asfortranarray(np.ones((2, 3), ">i4")),
        np.array(7),
    ]
    made = []
    for array in arrays:
        for version in ((1, 0), (2, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version)
            made.append(file.getvalue())
    return made


def run_npy(data: bytes) -> None:
    with storage.reading("fuzz"):  # as where a file is opened
        header = read_header(io.BytesIO(data), len(data), "fuzz")
    assert header.start + header.nbytes == len(data)
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    assert (array.shape, array.dtype) == (header.shape, header.dtype)


def zip_seeds() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("собака/", b"")
            archive.writestr("собака/1.png", encoded(picture(1, 4, 4)))
            with archive.open(zipfile.ZipInfo("собака/2.png"), "w", force_zip64=True) as member:
                member.write(b"a" * 5000)
            archive.comment = b"a comment"
        made.append(file.getvalue())
    return made


def run_zip(data: bytes) -> None:
    file = io.BytesIO(data)
    found = list(zip_entries(file, len(data), "fuzz"))
    contents = list[bytes | None]()
    for _, member in found:
        contents.append(None)
        with suppress(BeamCifarError):
            contents[-1] = b"".join(zip_bytes(file, member, "fuzz"))
    try:
        check_members(zipfile.ZipFile(file), found, contents)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        notes["read, but not by zipfile"] += 1


def check_members(archive: zipfile.ZipFile, found: list[tuple[str, ZipMember]], contents: list[bytes | None]) -> None:
    """Compares the members of an archive, and what is in them, with those that `zipfile` finds."""
    for (name, member), info, content in zip(found, archive.infolist(), contents, strict=True):
        place = (info.header_offset, info.compress_size, info.file_size, info.CRC)
        assert (member.header, member.packed, member.size, member.crc) == place, (member, info)
        if info.flag_bits & 0x800:  # else zipfile does not take names for UTF-8
            assert name == (info.filename if info.create_system == 3 else info.filename.replace("\\", "/"))
        if content is not None:
            assert archive.read(info) == content
            notes["compared"] += 1


def example_seeds() -> list[bytes]:
    image = encoded(picture(1, 4, 4))
    return [
        serialized_example({"image": image, "label": 3, "file_name": "собака".encode()}),
        serialized_example({"label": -1, "image": b"", "other": 1 << 40}),
    ]


def run_example(data: bytes) -> None:
    names = ("image", "label", "file_name")
    found = {
        name: value.number if value.number is not None else data[value.start : value.stop]
        for name, value in example_values(data, names).items()
    }
    try:
        expected = parsed_example(data, names)
    except DecodeError:  # of what nobody asked for
        notes["read, but not by protobuf"] += 1
        return
    notes["compared"] += 1
    assert found == expected, (found, expected)


def column_seeds() -> list[bytes]:
    label = {"_type": "ClassLabel", "names": ["cat", "собака", "dog", "fox"]}
    value = {"dtype": "int64", "_type": "Value"}
    features = {"img": {"_type": "Image"}, "label": label, "fine_label": label, "coarse_label": value, "id": value}
    listed = [{"name": "label", "dtype": {"class_label": {"names": {"0": "cat", "1": "dog"}}}}]
    return [json.dumps({"info": {"features": each}}).encode() for each in (features, listed, {"img": value})]


def run_columns(data: bytes) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"img": image, "label": pa.int64(), "fine_label": pa.int64(), "coarse_label": pa.int64(), "id": pa.string()}
    for names in (tuple(kinds), ("img", "label"), ("img", "fine_label", "coarse_label")):
        schema = pa.schema([(name, kinds[name]) for name in names], {b"huggingface": data, b"beam_cifar": data})
        roles = columns_of(schema, "fuzz", lambda _: True)
        assert roles.image == "img.bytes"


def run_json(data: bytes) -> None:
    stream = JsonStream(io.BytesIO(data), "fuzz")
    for _ in stream.members():
        if stream.at("["):
            for _ in stream.elements():
                pass
        else:
            stream.value()


JSON = b'{"infos": {"a": 1}, "items": [{"id": "a", "x": [1, 2.5e3, -0]}, {"id": "\\ud83d\\ude00"}, null], "end": "\xd0\xb6"}'


def image_seeds() -> list[bytes]:
    small = [picture(1, 5, 7), picture(2, 8, 8, 1)]
    made = [encoded(pixels, kind) for pixels in small for kind in ("PNG", "JPEG")]
    made += [encoded(small[0], "JPEG", progressive=True), encoded(small[0], "PNG", compress_level=0)]
    for mode in ("P", "1", "LA", "RGBA", "I;16"):
        file = io.BytesIO()
        Image.new(mode, (6, 5)).save(file, "PNG")
        made.append(file.getvalue())
    return made


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, in either byte order."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def other_image_seeds() -> list[bytes]:
    """Images of kinds that are read beside PNG and JPEG, and of all kinds with an orientation."""
    small, turned = picture(1, 5, 7), b"Exif\0\0" + exif(6)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        *(("GIF", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {})),
        *(("TIFF", {"compression": each}) for each in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        *((kind, {"exif": turned}) for kind in ("WEBP", "PNG", "JPEG")),
        *((kind, {"xmp": XMP}) for kind in ("WEBP", "JPEG")),
    )
    made = [encoded(small, kind, **options) for kind, options in kinds]
    for mode, kind in (("RGBA", "WEBP"), ("RGBA", "TIFF"), ("P", "BMP"), ("1", "TIFF"), ("I;16", "TIFF"), ("P", "GIF")):
        file = io.BytesIO()
        Image.new(mode, (6, 5)).save(file, kind)
        made.append(file.getvalue())
    return made


def orientation_seeds() -> list[bytes]:
    profile = b"\nexif\n      26\n" + exif(6).hex().encode() + b"\n"
    return [*(exif(turn, order) for turn in (1, 6, 9) for order in "<>"), XMP, b"Raw profile type exif\0" + profile]


def run_orientation(data: bytes) -> None:
    profiles = (profile_orientation(kind, data) for kind in (b"tEXt", b"zTXt"))
    assert {exif_orientation(data), xmp_orientation(data), *profiles} <= {None, *range(1, 9)}


def run_header(data: bytes) -> None:
    with suppress(BeamCifarError):
        probe_whole_image(data, "fuzz")
    probe_image(data, "fuzz")


def run_decode(data: bytes) -> None:
    header = probe_image(data, "fuzz")
    if header.height * header.width > 1 << 20:
        return  # allowed, and slow
    pixels = decode_image(data, "fuzz")
    assert pixels.shape == (header.channels, header.height, header.width)


def items() -> pa.Table:
    values = {"id": ["train/dog_1", "x" * 200], "subset": ["train", ""], "encoding": ["raw"] * 2, "label": [1, None]}
    values |= {
        "image": [b"", None],
        "height": [32, None],
        "width": [32, None],
        "channels": [3, None],
        "filename": ["a", "b"],
    }
    return pa.Table.from_arrays([pa.array(values[f.name], f.type) for f in example_schema()], schema=example_schema())


ITEMS = items()


def run_xpath(data: bytes) -> None:
    expression = data.decode("utf-8", "surrogateescape")
    decision = ItemFilter(expression).decide(ITEMS, ["cat", "dog"])
    assert len(decision.rows) == 2


XPATH_WORDS = mutate.words(
    *b"// / * . .. [ ] ( ) @ | or and = != < + - div mod item label id subset annotation image '' \"x\" 1 last() $x".split(),
    *b"ancestor:: following:: preceding:: descendant:: namespace:: parent:: self:: text() node() comment()".split(),
    *b"count(//*[ contains( translate( concat( string( not( sum( id( lang( normalize-space( substring(".split(),
)


def part_seeds() -> list[bytes]:
    counts = Counter({("train", 1): 3, ("test", -1): 2})
    whole = PartInfo(0, 1, 1, 100, "ab" * 32, counts, written=counts, statistics={"rows": 5})
    return [encode_part(whole), encode_part(replace(whole, filtered=counts, rejected=counts))]


def run_part(data: bytes) -> None:
    info = decode_part(data)
    assert decode_part(encode_part(info)) == info


# Folders: the first byte of an input names the file that the rest replaces.


class Folder:
    """A small set of one format; each execution replaces one file and reads the whole set.

    Args:
        format_name: the format that is read.
        written: the one that it is written as; default: the same.
    """

    def __init__(self, format_name: str, written: str = "") -> None:
        self.format, self.written = format_name, written or format_name
        self.options: dict[str, Any] = {} if format_name == "cifar_binary" else {"resize": (4, 4)}
        self.files: dict[Path, bytes] = {}

    def seeds(self) -> list[bytes]:
        self.root = SCRATCH / self.written
        self._make()
        found = sorted(path for path in self.root.rglob("*") if path.is_file())
        self.files = {path: path.read_bytes() for path in found if path.stat().st_size <= mutate.LARGEST}
        # Of many alike, such as images, a few.
        kinds: Counter[tuple[str, Path]] = Counter()
        for path in list(self.files):
            kinds[path.suffix, path.parent.parent] += 1
            if kinds[path.suffix, path.parent.parent] > 3:
                del self.files[path]
        self.chosen = list(self.files)
        return [bytes([number]) + content for number, content in enumerate(self.files.values())]

    def _make(self) -> None:
        if self.written in READ_ONLY:
            READ_ONLY[self.written](self.root)
            return
        source = self.root if self.written == "cifar" else SCRATCH / "sample"
        if not source.exists():
            make_sample(str(source), images=12)
        if self.written == "cifar":
            return
        with prepare(ConvertOptions(str(source), str(self.root), self.written, **self.options)) as job:
            serial.run(job)
        for path in self.root.rglob("*.gz"):  # the parser behind it is what is fuzzed
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()

    def mutator(self, data: bytes, random: Any) -> bytes:
        # Files of TFDS go on after the extension.
        kinds = [_MUTATORS.get(path.suffix.partition("-")[0], mutate.plain) for path in self.chosen]
        return mutate.of_file(kinds)(data, random)

    def run(self, data: bytes) -> None:
        path = self.chosen[(data[0] if data else 0) % len(self.chosen)]
        path.write_bytes(data[1:])
        try:
            read_set(self.format, str(self.root))
        finally:
            path.write_bytes(self.files[path])


def read_set(format_name: str, path: str) -> None:
    """Reads all that a job reads of a set."""
    source, index = get_source(format_name), str(SCRATCH / "index")
    try:
        with suppress(BeamCifarError, OSError):
            source.looks_right(path, index)
        catalog = source.describe(path, index)
        for file in catalog.files:
            with source.open_rows(file, catalog.labels) as rows:
                rows.summary(sizes=True)
                rows.facts(0, rows.rows)
                rows.table(0, min(rows.rows, 100))
    finally:
        shutil.rmtree(index, ignore_errors=True)  # what was unpacked


def archive_seeds() -> list[bytes]:
    """Folders of classes in a zip and a tar file."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive, tarfile.open(fileobj=tarred, mode="w") as tar:
        for row, label in enumerate(("cat", "собака")):
            content, name = encoded(picture(row, 4, 4)), f"./{label}/{row}.png"
            archive.writestr(name, content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return [zipped.getvalue(), tarred.getvalue()[:8192]]


def read_archive(path: str) -> None:
    try:
        read_set("imagenet", archive_place(path, str(SCRATCH / "unpacked")))
    finally:
        shutil.rmtree(SCRATCH / "unpacked", ignore_errors=True)


TABLE_WORDS = mutate.words(b",", b"\n", b"\r", b'"', b"255", b"256", b"-1", b"99999999")
_MUTATORS: dict[str, mutate.Mutator] = {
    "": mutate.opcodes,
    ".arrow": mutate.arrow,
    ".mat": mutate.matlab,
    ".npy": mutate.after(b"\x93NUMPY", 128),
    ".npz": mutate.zipped,
    ".parquet": mutate.parquet,
    ".tfrecord": mutate.tfrecord,
    ".png": mutate.png,
    ".tar": mutate.tar,
    ".json": mutate.json_words,
    ".csv": TABLE_WORDS,
    ".txt": mutate.words(b" ", b"\n", b"\r", b"/", b"../", b'"', b"0", b"-1", b":", b"\xef\xbb\xbf"),
}


def file_target(name: str, seeds: Callable[[], list[bytes]], read: Callable[[str], object], **fields: Any) -> Target:
    """Returns a target that reads a file from the disk."""

    def run(data: bytes) -> None:
        path = SCRATCH / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        read(str(path))

    return Target(seeds, run, **{"mutator": mutate.json_words, "weight": 30, **fields})


def project_seeds() -> list[bytes]:
    steps = [{"name": "resize", "options": {"size": [4, 4]}}, {"name": "filter", "options": {"expression": "//label"}}]
    source = {"name": "a", "path": "data", "format": "cifar", "subsets": ["train"]}
    project = {"beam_cifar_project": 1, "name": "x", "sources": [source], "transforms": [], "on_clash": "error"}
    return [json.dumps({**project, "transforms": steps[:n]}).encode() for n in range(3)]


def table_seeds() -> list[bytes]:
    """Tables in CSV, with each delimiter."""
    lines = "id,label,split\n1,cat,train\n2,собака,test\n", 'path,class\n"a, b/1.png",3\n', "a.png,cat\nb.png,dog\n"
    return [line.replace(",", mark).encode() for line in lines for mark in ",;\t|"]


JSON_LINES = b'{"file_name": "a.png", "label": "cat"}\n\n{"file_name": "b/1.jpg", "label": 3, "split": null}\n'


def read_table(path: str) -> None:
    blob = storage.whole_file(path)
    with storage.reading(path):
        columns = find_columns(blob, lambda value: "a" not in value)
        for row in table_rows(blob, columns) if columns else ():
            row.image.encode("utf-8", "surrogateescape")
        may_have_labels(blob)


def load_project(path: str) -> None:
    from beam_cifar.dataset.project import Project

    Project.load(os.path.dirname(path))


def manifest_seeds() -> list[bytes]:
    Folder("mnist_csv").seeds()
    return [(SCRATCH / "mnist_csv.beam_cifar" / "manifest.json").read_bytes()]


def read_manifest(path: str) -> None:
    read_provenance(path.removesuffix(".beam_cifar/manifest.json"))


FOLDERS = {
    **{name: Folder(name) for name in readable()},
    **{"tfds": Folder("tfds", "tfds_tfrecord")},
    **{name: Folder("tfds", name) for name in ("tfds_parquet", "tfds_array_record")},
}

TARGETS = {
    "batch": Target(batch_seeds, run_batch, mutate.opcodes),
    "meta": Target(meta_seeds, run_meta, mutate.opcodes),
    "tar": Target(tar_seeds, run_tar, mutate.tar),
    "npy_header": Target(npy_seeds, run_npy),
    "zip": Target(zip_seeds, run_zip, mutate.zipped),
    "example": Target(example_seeds, run_example, mutate.message, (ValueError,), weight=10),
    "columns": Target(column_seeds, run_columns, mutate.json_words),
    "json": Target(lambda: [JSON], run_json, mutate.json_words),
    "header": Target(image_seeds, run_header, mutate.png),
    "decode": Target(image_seeds, run_decode, mutate.png),
    "other_header": Target(other_image_seeds, run_header, mutate.png),
    "other_decode": Target(other_image_seeds, run_decode, mutate.png),
    "orientation": Target(orientation_seeds, run_orientation, errors=()),
    "xpath": Target(
        lambda: [text.encode() for text in (*SENSIBLE, *HOSTILE) if len(text) < 2000], run_xpath, XPATH_WORDS
    ),
    "account": Target(part_seeds, run_part, mutate.account, (ValueError,)),
    "listing": file_target(
        "listing",
        lambda: [b'{"path": "a", "bytes": 1, "sha256": "x"}\n' * 3],
        lambda path: list(storage.read_listing(path)),
        errors=(ValueError,),
    ),
    "archive": file_target("archive", archive_seeds, read_archive, mutator=mutate.archive, weight=1),
    "table": file_target("table/labels.csv", table_seeds, read_table, mutator=TABLE_WORDS),
    "json_lines": file_target("table/metadata.jsonl", lambda: [JSON_LINES], read_table),
    "manifest": file_target("out.beam_cifar/manifest.json", manifest_seeds, read_manifest),
    "project": file_target("project/beam_cifar.json", project_seeds, load_project),
    **{name: Target(folder.seeds, folder.run, folder.mutator, weight=1) for name, folder in FOLDERS.items()},
}
