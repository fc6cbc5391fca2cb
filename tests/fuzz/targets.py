"""What is fuzzed: one row of `TARGETS` each, with seeds made at run time, how to read a file, and what may be raised."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import pickletools
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import BeamCifarError, PickleError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.kit.json_stream import JsonStream
from beam_cifar.formats.kit.npy import read_header
from beam_cifar.formats.registry import get_source
from beam_cifar.images.decode import decode_image, probe_whole_image
from beam_cifar.images.header import probe_image
from beam_cifar.jobs import serial
from beam_cifar.jobs.accounts import PartInfo, decode_part, encode_part
from beam_cifar.jobs.prepare import prepare
from beam_cifar.options import ConvertOptions
from beam_cifar.pickles.recognise import Batch, read_batch, read_meta
from beam_cifar.report.provenance import read_provenance
from beam_cifar.samples.make import make_sample
from beam_cifar.storage.tar import tar_members
from tests.filters.test_xpath_work import HOSTILE, SENSIBLE
from tests.fuzz import mutate
from tests.helpers import pickle_corpus
from tests.helpers.image_trees import encoded, picture

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
    from PIL import Image

    for mode in ("P", "1", "LA", "RGBA", "I;16"):
        file = io.BytesIO()
        Image.new(mode, (6, 5)).save(file, "PNG")
        made.append(file.getvalue())
    return made


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
    """A small set of one format; each execution replaces one file and reads the whole set."""

    def __init__(self, format_name: str) -> None:
        self.format = format_name
        self.options: dict[str, Any] = {} if format_name == "cifar_binary" else {"resize": (4, 4)}
        self.files: dict[Path, bytes] = {}

    def seeds(self) -> list[bytes]:
        self.root = SCRATCH / self.format
        source = SCRATCH / "sample"
        if not source.exists():
            make_sample(str(source), images=12)
        self._make(str(source))
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

    def _make(self, source: str) -> None:
        if self.format == "cifar":
            make_sample(str(self.root), images=12)
            return
        options = ConvertOptions(source, str(self.root), self.format, **self.options)
        with prepare(options) as job:
            serial.run(job)
        for path in self.root.rglob("*.gz"):  # the parser behind it is what is fuzzed
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()

    def mutator(self, data: bytes, random: Any) -> bytes:
        kinds = [_MUTATORS.get(path.suffix, mutate.plain) for path in self.chosen]
        return mutate.of_file(kinds)(data, random)

    def run(self, data: bytes) -> None:
        path = self.chosen[(data[0] if data else 0) % len(self.chosen)]
        path.write_bytes(data[1:])
        try:
            self._read()
        finally:
            path.write_bytes(self.files[path])

    def _read(self) -> None:
        source, index = get_source(self.format), str(SCRATCH / "index")
        with suppress(BeamCifarError, OSError):
            source.looks_right(str(self.root), index)
        catalog = source.describe(str(self.root), index)
        for file in catalog.files:
            with source.open_rows(file, catalog.labels) as rows:
                rows.summary(sizes=True)
                rows.facts(0, rows.rows)
                rows.table(0, min(rows.rows, 100))


_MUTATORS: dict[str, mutate.Mutator] = {
    "": mutate.opcodes,
    ".npz": mutate.zipped,
    ".png": mutate.png,
    ".tar": mutate.tar,
    ".json": mutate.json_words,
    ".csv": mutate.words(b",", b"\n", b"\r", b"255", b"256", b"-1", b"99999999"),
    ".txt": mutate.words(b" ", b"\n", b"\r", b"/", b"../", b'"', b"0", b"-1", b":", b"\xef\xbb\xbf"),
}


def file_target(name: str, seeds: Callable[[], list[bytes]], read: Callable[[str], object], **fields: Any) -> Target:
    """Returns a target that reads a file from the disk."""

    def run(data: bytes) -> None:
        path = SCRATCH / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        read(str(path))

    return Target(seeds, run, mutate.json_words, **{"weight": 30, **fields})


def project_seeds() -> list[bytes]:
    steps = [{"name": "resize", "options": {"size": [4, 4]}}, {"name": "filter", "options": {"expression": "//label"}}]
    source = {"name": "a", "path": "data", "format": "cifar", "subsets": ["train"]}
    project = {"beam_cifar_project": 1, "name": "x", "sources": [source], "transforms": [], "on_clash": "error"}
    return [json.dumps({**project, "transforms": steps[:n]}).encode() for n in range(3)]


def load_project(path: str) -> None:
    from beam_cifar.dataset.project import Project

    Project.load(os.path.dirname(path))


def manifest_seeds() -> list[bytes]:
    Folder("mnist_csv").seeds()
    return [(SCRATCH / "mnist_csv.beam_cifar" / "manifest.json").read_bytes()]


def read_manifest(path: str) -> None:
    read_provenance(path.removesuffix(".beam_cifar/manifest.json"))


FOLDERS = {
    name: Folder(name)
    for name in (
        *("cifar", "cifar_binary", "coco", "cvat", "datumaro", "imagenet_txt", "mnist", "mnist_csv", "npz"),
        *("open_images", "parquet", "voc_classification", "webdataset"),
    )
}

TARGETS = {
    "batch": Target(batch_seeds, run_batch, mutate.opcodes),
    "meta": Target(meta_seeds, run_meta, mutate.opcodes),
    "tar": Target(tar_seeds, run_tar, mutate.tar),
    "npy": Target(npy_seeds, run_npy),
    "json": Target(lambda: [JSON], run_json, mutate.json_words),
    "header": Target(image_seeds, run_header, mutate.png),
    "decode": Target(image_seeds, run_decode, mutate.png),
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
    "manifest": file_target("out.beam_cifar/manifest.json", manifest_seeds, read_manifest),
    "project": file_target("project/beam_cifar.json", project_seeds, load_project),
    **{name: Target(folder.seeds, folder.run, folder.mutator, weight=1) for name, folder in FOLDERS.items()},
}
