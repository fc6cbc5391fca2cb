"""The samples of one WebDataset shard: indexed in one pass over the tar headers; images are read in place."""

from __future__ import annotations

import io
import json
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_table
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError, RowError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import kept
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.encoded import PlacedRows
from beam_cifar.formats.kit.label_columns import listed
from beam_cifar.formats.kit.npy import read_header
from beam_cifar.formats.kit.rows import column, found_in, with_unique_ids
from beam_cifar.images.encodings import is_image_name
from beam_cifar.images.header import ImageHeader
from beam_cifar.images.png import encode_png
from beam_cifar.naming.components import is_litter
from beam_cifar.storage.tar import tar_members

MAX_SAMPLES: Final = 5_000_000
MAX_CLASSES: Final = 100_000
MAX_TEXT_CLASSES: Final = 1000
"""With more distinct texts than this, `.txt` members are taken for captions."""
MAX_TEXT_BYTES: Final = 4096
MAX_JSON_BYTES: Final = 1 << 20
MAX_FIELDS: Final = 100
"""Maximum number of different kinds of members that are counted for messages."""

_IMAGES: Final = ("png", "jpg", "jpeg")
_FACTS: Final = frozenset({"cls", "json", "txt"})
_META: Final = re.compile(r"__[^/]*__(?:/|\Z)")
_ARRAY: Final = "npy"
_ARRAY_START: Final = b"\x93NUMPY"
_SEVERAL: Final = re.compile(r"\[?[0-9]+(?:[\s,;]+[0-9]+)+\]?")
_FIRST_DOT: Final = "a key ends at the first dot of a name, as in the webdataset library"
_LABEL_KEYS: Final = ("label", "cls", "class", "target")
_OTHER_IMAGES: Final = ("ppm", "pgm", "pbm", "pnm", "jp2", "jxl", "avif", "heic")


@dataclass(frozen=True)
class ShardIndex:
    """Index of the N samples of a shard, from its headers and small members.

    Attributes:
        names: table of `id`, `filename`, and what `with_unique_ids` adds.
        offsets: int64 `[N]`, offset of the image in the shard, -1 for none.
        sizes: int64 `[N]`, size of the image in bytes.
        numbers: int64 `[N]`, label given as a number, -1 for none.
        words: label given as a name: dictionary `[N]`, null for none.
        texts: text of `.txt` if there is no other label: dictionary `[N]`, null for none.
        fields: kinds of members in samples without an image, under "image", and without a label, under "label".
    """

    names: pa.Table
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    words: pa.DictionaryArray
    texts: pa.DictionaryArray
    fields: dict[str, list[str]]


class WebdatasetRows(PlacedRows):
    """The samples of one shard.

    Args:
        file: the shard.
        labels: label table of the dataset.
    """

    def __init__(self, file: SourceFile, labels: LabelTable) -> None:
        index = shard_index(file)
        numbers, bad = _label_numbers(index, labels, own=bool(file.beside))
        super().__init__(file, index.names, numbers, bad, index.offsets, index.sizes)

    def _image(self, row: int) -> bytes | None:
        data = super()._image(row)
        return _array_as_png(data, self._shown(row)) if data and data.startswith(_ARRAY_START) else data

    def _header(self, stream: io.BufferedReader, row: int) -> ImageHeader | RowError:
        is_array = stream.peek(6).startswith(_ARRAY_START)
        shape = _array_shape(stream, int(self._lengths[row])) if is_array else None
        return ImageHeader("png", *shape) if shape else super()._header(stream, row)


@kept()
def shard_index(file: SourceFile) -> ShardIndex:
    """Returns the index of a shard's samples. Raises `InputError`."""
    table = _samples(file)
    offsets, sizes, numbers = (column(table, name).to_numpy() for name in ("offset", "size", "number"))
    fields = json.loads((table.schema.metadata or {})[b"fields"])
    return ShardIndex(table, offsets, sizes, numbers, column(table, "word"), column(table, "text"), fields)


def _array_shape(stream: BinaryIO, size: int) -> tuple[int, int, int] | None:
    """Returns height, width and channels of a `.npy` with an image: uint8 H x W or H x W x 1 or 3; None for others."""
    try:
        found = read_header(stream, size, "")
    except InputError:
        return None
    height, width, channels = (*found.shape, 1)[:3] if len(found.shape) in (2, 3) else (0, 0, 0)
    is_image = found.dtype.name == "uint8" and not found.fortran and 0 < height * width <= MAX_PIXELS
    return (height, width, channels) if is_image and channels in (1, 3) else None


def _array_as_png(data: bytes, shown: str) -> bytes:
    """Returns the image in a `.npy` as PNG, in which all readers of encoded images take it."""
    shape = _array_shape(io.BytesIO(data), len(data))
    if shape is None:
        raise InputError(f"{shown}: is not an array of uint8 H x W or H x W x 3")
    pixels = np.frombuffer(data, np.uint8)[-math.prod(shape) :].reshape(1, *shape)
    return bytes(encode_png(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))[0])


@indexed()
def _samples(file: SourceFile) -> pa.Table:
    """Reads the headers and small members of a shard."""
    with storage.open_blob(file.blob, file.shown) as stream:
        gathered = _Gathered(stream, file)
        for name, offset, size in tar_members(stream, file.blob.size, file.shown):
            gathered.add(name, offset, size)
        return gathered.made()


class _Gathered:
    """Collects samples from the members of a shard, in order.

    Args:
        stream: the open shard.
        file: the shard, for messages.
    """

    def __init__(self, stream: BinaryIO, file: SourceFile) -> None:
        self._stream, self._file = stream, file
        self._seen: set[str] = set()
        self._key: str | None = None
        self._members: dict[str, tuple[int, int]] = {}
        self._ids: list[str] = []
        self._filenames: list[str] = []
        self._words: dict[str | None, int] = {}
        self._texts: dict[str | None, int] = {}
        self._fields: dict[str, set[str]] = {"image": set(), "label": set()}
        self._columns = {name: array("q") for name in ("offset", "size", "number", "word", "text")}

    def add(self, name: str, offset: int, size: int) -> None:
        """Adds a member; as in `tariterators.py`, names without a dot or between `__` are not part of a sample."""
        name = name.removeprefix("./")
        folder, slash, base = name.rpartition("/")
        stem, dot, kind = base.partition(".")
        if not stem or not dot or _META.match(name) or any(map(is_litter, folder.split("/"))):
            return
        kind = kind.lower() if kind.lower() in _FACTS else kind
        key = folder + slash + stem
        if key != self._key:
            self._finish()
            if key in self._seen:
                dots = f"; {_FIRST_DOT}: replace other dots" if "." in kind else ""
                raise self._error(f"members of sample {key!r} are not adjacent; sort them by name{dots}")
            self._seen.add(key)
            self._key = key
        if kind in self._members:
            raise self._error(f"sample {key!r} has two {kind!r} members; keep one")
        self._members[kind] = offset, size

    def made(self) -> pa.Table:
        """Returns the index of all samples."""
        self._finish()
        columns = {name: pa.array(np.array(values, np.int64)) for name, values in self._columns.items()}
        for name, texts in (("word", self._words), ("text", self._texts)):
            codes = columns[name].cast(pa.int32())
            codes = pc.if_else(pc.less(codes, 0), pa.scalar(None, pa.int32()), codes)
            columns[name] = pa.DictionaryArray.from_arrays(codes, pa.array(texts, pa.string()))
        names = (pa.array(texts, pa.string()) for texts in (self._ids, self._filenames))
        made = with_unique_ids(pa.table(dict(zip(("id", "filename"), names, strict=True)) | columns))
        fields = {what: sorted(kinds)[:MAX_FIELDS] for what, kinds in self._fields.items()}
        return made.replace_schema_metadata({"fields": json.dumps(fields)})

    def _finish(self) -> None:
        """Completes the current sample."""
        if self._key is None:
            return
        if len(self._ids) >= MAX_SAMPLES:
            raise self._error(f"has more than {MAX_SAMPLES} samples; split the shard")
        kind = self._image_kind()
        offset, size = self._members[kind] if kind else (-1, 0)
        facts = self._json()
        number, name = self._label(facts)
        caption = self._text("txt") if number < 0 and name is None else None
        for what, lacks in (("image", not kind), ("label", number < 0 and name is None)):
            if lacks and len(self._fields[what]) < MAX_FIELDS:
                self._fields[what].update(self._members.keys())
        base = self._key.rpartition("/")[2]
        self._ids.append(self._fact(facts, "id", self._key))
        self._filenames.append(self._fact(facts, "filename", f"{base}.{kind if is_image_name(f'x.{kind}') else 'png'}"))
        found = offset, size, number, _code(name, self._words), _code(caption, self._texts)
        for values, value in zip(self._columns.values(), found, strict=True):
            values.append(value)
        self._members = {}
        self._key = None

    def _fact(self, facts: dict[str, Any], what: str, otherwise: str) -> str:
        """Returns a text of the sample's JSON, or the default."""
        text = facts.get(what)
        return self._unicode(text, repr(what)) if isinstance(text, str) else otherwise

    def _unicode(self, text: str, what: str) -> str:
        if not is_unicode(text):
            raise self._error(f"member '{self._key}.json' has {what} {text[:100]!r}, which is not valid Unicode")
        return text

    def _image_kind(self) -> str:
        """Returns the kind of the member that is the image, "" for none."""
        first = next(iter(self._members))
        # Fast path: an image first, then nothing but labels and JSON.
        if first in _IMAGES and _FACTS.issuperset(islice(self._members, 1, None)):
            return first
        kinds = [kind for kind in self._members if is_image_name(f"x.{kind}")]
        found = kinds if len(kinds) < 2 else [kind for kind in kinds if "." not in kind]
        if len(found) > 1 or (kinds and not found):
            raise self._error(
                f"sample {self._key!r} has {len(kinds)} images ({', '.join(kinds)}); {self._advice(kinds)}"
            )
        others = [kind for kind in self._members if kind.lower().rpartition(".")[2] in _OTHER_IMAGES]
        if others and not found:
            expected = "expected PNG, JPEG, WebP, GIF, BMP or TIFF, convert it first"
            raise self._error(f"sample {self._key!r} has a .{others[0]} image; {expected}")
        if found:
            return found[0]
        return next((kind for kind in self._members if kind.lower() == _ARRAY and self._is_image(kind)), "")

    def _is_image(self, kind: str) -> bool:
        """Returns whether an array has the pixels of an image."""
        offset, size = self._members[kind]
        window: Any = storage.SubFile(self._stream, offset, size)
        return _array_shape(window, size) is not None

    def _advice(self, kinds: Sequence[str]) -> str:
        """Returns what to do about several images of a sample; its name may have been cut at the first of its dots."""
        stems = list(dict.fromkeys(kind.rpartition(".")[0] for kind in kinds))
        if len(stems) < len(kinds) or "" in stems:
            return "keep one"
        base = (self._key or "").rpartition("/")[2]
        names = " and ".join(repr(f"{base}.{stem}") for stem in stems[:2])
        renamed = f"{base}.{stems[0]}".replace(".", "_") + kinds[0][len(stems[0]) :]
        return (
            f"{_FIRST_DOT}; keep one, or if {names} are samples of their own, replace the other dots of all names, as "
            f"in {renamed!r}"
        )

    def _json(self) -> dict[str, Any]:
        if "json" not in self._members:
            return {}
        size = self._members["json"][1]
        if size > MAX_JSON_BYTES:
            raise self._error(f"member '{self._key}.json' is {size} bytes; at most {MAX_JSON_BYTES} are supported")
        try:
            found = json.loads(self._content("json"))
        except (ValueError, RecursionError) as error:
            raise self._error(f"member '{self._key}.json' is not valid JSON: {str(error)[:100]}") from error
        return found if isinstance(found, dict) else {}

    def _label(self, facts: dict[str, Any]) -> tuple[int, str | None]:
        """Returns the label as a number, -1 for none, and as a name, None for none."""
        text = self._text("cls", required=True)
        if text is not None and _SEVERAL.fullmatch(text):
            raise self._error(
                f"sample {self._key!r} has several labels, {text[:50]!r}, but only one is supported: keep one in .cls, "
                "or remove .cls to read the images without labels"
            )
        number, name = UNLABELLED, None
        for value in (text, *(facts.get(key) for key in _LABEL_KEYS)):
            if value is text and value is not None and re.fullmatch("-?[0-9]+", value):
                value = self._int(value)
            if isinstance(value, float) and not math.isnan(value):
                value = self._whole(value)
            if isinstance(value, str):
                name = self._unicode(value, "a label") if name is None else name
            elif isinstance(value, int) and not isinstance(value, bool) and number == UNLABELLED:
                number = value
        if not UNLABELLED <= number < 1 << 31:
            raise self._error(
                f"sample {self._key!r} has label {str(number)[:30]}; expected a class number, or -1 for unlabelled"
            )
        return number, name

    def _whole(self, value: float) -> int:
        if not value.is_integer():
            raise self._error(f"sample {self._key!r} has label {value}; expected a whole number or a name")
        return int(value)

    def _int(self, text: str) -> int:
        if len(text) > 20:
            raise self._error(f"member '{self._key}.cls' is a number of {len(text)} digits; expected a class number")
        return int(text)

    def _text(self, kind: str, *, required: bool = False) -> str | None:
        """Returns a member's text; None if missing, empty, or (an error if `required`) too long or not UTF-8."""
        if kind not in self._members:
            return None
        size = self._members[kind][1]
        text = None
        if size <= MAX_TEXT_BYTES:
            try:
                text = self._content(kind).decode("utf-8").strip()
            except UnicodeDecodeError:
                text = None
        if required and text is None:
            raise self._error(
                f"member '{self._key}.{kind}' ({counted(size, 'byte')}) is not a label; expected a number or name"
            )
        return text or None

    def _content(self, kind: str) -> bytes:
        offset, size = self._members[kind]
        self._stream.seek(offset)
        return self._stream.read(size)

    def _error(self, reason: str) -> InputError:
        return InputError(f"{self._file.shown}: sample {len(self._ids)}: {reason}")


def _code(text: str | None, codes: dict[str | None, int]) -> int:
    return -1 if text is None else codes.setdefault(text, len(codes))


def _label_numbers(index: ShardIndex, labels: LabelTable, *, own: bool) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """Returns the label of each sample, int64 `[N]`, and errors by row; `own` shards have no labels in `.txt`."""
    found = index.numbers.copy()
    for texts in (index.words,) if own else (index.words, index.texts):
        # The last of equal names counts.
        last = found_in(texts.dictionary, pa.array(labels.names[::-1], pa.string()))
        by_code = np.append(np.where(last < 0, UNLABELLED, len(labels.names) - 1 - last), UNLABELLED)
        found = np.where(found < 0, by_code[_codes(texts)], found)
    unknown = np.flatnonzero((found < 0) & (_codes(index.words) >= 0)).tolist()
    count = len(labels.names)
    bad = {row: outside_table(found[row], count) for row in np.flatnonzero(found >= count).tolist()}
    bad |= {row: f"label {index.words[row].as_py()!r:.80} is not in the label table" for row in unknown}
    return found, bad


def _codes(texts: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    """Returns the index of each text: int32 `[N]`, -1 for none."""
    return np.asarray(texts.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int32)


def learn_table(files: Sequence[SourceFile]) -> tuple[LabelTable, tuple[str, ...]]:
    """Returns the classes of shards without `labels.json`, and notices about them.

    Numbers stay label ids, named if a sample has both; classes with a name only follow in alphabetical order.

    Raises:
        InputError: a number has two names, or there are too many classes.
    """
    known: dict[int, str] = {}
    alone: set[str] = set()
    texts: set[str] = set()
    largest = -1
    for file in files:
        index = shard_index(file)
        largest = max(largest, int(index.numbers.max(initial=-1)))
        for number, code in np.unique(np.stack([index.numbers, _codes(index.words)]), axis=1).T.tolist():
            name = index.words.dictionary[code].as_py() if code >= 0 else None
            if name is not None and number < 0:
                alone.add(name)
            elif name is not None and known.setdefault(number, name) != name:
                raise InputError(
                    f"{file.shown}: class {number} is named both {known[number]!r} and {name!r}; keep one name"
                )
        texts.update(index.texts.dictionary.to_pylist())
        if max(largest, len(alone)) >= MAX_CLASSES:
            raise InputError(f"{file.shown}: has more than {MAX_CLASSES} classes, the supported maximum")
    by_text = largest < 0 and not alone and 0 < len(texts) <= MAX_TEXT_CLASSES
    notices = _lacking(files, by_text=by_text)
    if by_text:
        found = f"{counted(len(texts), 'text')} such as {min(texts)[:50]!r}"
        guess = f"labels are read from .txt, {found} (a guess: there are no others)"
        return LabelTable(tuple(sorted(texts))), (guess, *notices)
    if largest < 0 and not alone:
        why = f"{len(texts)} distinct .txt texts look like captions" if texts else "no .cls, no label in .json or .txt"
        return LabelTable(()), (f"samples have no labels: {why}", *notices)
    named = tuple(known.get(number, str(number)) for number in range(largest + 1))
    return LabelTable((*named, *sorted(alone - set(named)))), tuple(notices)


def _lacking(files: Sequence[SourceFile], *, by_text: bool) -> Iterator[str]:
    """Yields how many samples have no label, and no image, with the kinds of their members."""
    indexes = [shard_index(file) for file in files]
    rows = sum(len(index.numbers) for index in indexes)
    images = sum(int((index.offsets < 0).sum()) for index in indexes)
    labels = 0
    for index in indexes:
        missing = (index.numbers < 0) & (_codes(index.words) < 0) & ((_codes(index.texts) < 0) | (not by_text))
        labels += int(missing.sum())
    for what, count in (("label", labels), ("image", images)):
        kinds = sorted({kind for index in indexes for kind in index.fields[what]})
        dotted = any("." in kind and kind.rpartition(".")[2] in _FACTS for kind in kinds)
        if count:
            hint = f" ({_FIRST_DOT}: replace other dots)" if dotted else ""
            yield f"{counted(count, 'sample', of=rows, verb='have')} no {what}; their members: {listed(kinds)}{hint}"


def shard_ids(file: SourceFile) -> pa.ChunkedArray:
    """Returns the ids of a shard's samples."""
    return shard_index(file).names.column("id")
