"""The samples of one WebDataset shard: indexed in one pass over the tar headers; images are read in place."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_table
from beam_cifar.data.text import is_unicode
from beam_cifar.errors import InputError, RowError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Runs, StoredImage, kept
from beam_cifar.formats.contract.types import FileSummary, SourceFile
from beam_cifar.formats.kit.encoded import MAX_IMAGE_BYTES, EncodedRows
from beam_cifar.formats.kit.rows import column, found_in, row_numbers, with_unique_ids
from beam_cifar.images.encodings import is_image_name
from beam_cifar.images.header import ImageHeader, header_or_error
from beam_cifar.storage.tar import tar_members

MAX_SAMPLES: Final = 5_000_000
MAX_CLASSES: Final = 100_000
MAX_TEXT_CLASSES: Final = 1000
"""With more distinct texts than this, `.txt` members are taken for captions."""
MAX_TEXT_BYTES: Final = 4096
MAX_JSON_BYTES: Final = 1 << 20
_WHOLE_BYTES: Final = 1 << 16

_IMAGES: Final = ("png", "jpg", "jpeg")
_FACTS: Final = frozenset({"cls", "json", "txt"})
_META: Final = re.compile(r"__[^/]*__(?:/|\Z)")
_LABEL_KEYS: Final = ("label", "cls", "class", "target")
_OTHER_IMAGES: Final = ("webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "jp2", "jxl", "avif", "heic")


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
    """

    names: pa.Table
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    words: pa.DictionaryArray
    texts: pa.DictionaryArray


class WebdatasetRows(EncodedRows):
    """The samples of one shard.

    Args:
        file: the shard.
        labels: label table of the dataset.
    """

    def __init__(self, file: SourceFile, labels: LabelTable) -> None:
        index = self._index = shard_index(file)
        super().__init__(file, index.names, *_label_numbers(index, labels, own=bool(file.beside)))

    def summary(self, *, sizes: bool) -> FileSummary:
        index = self._index
        facts = pa.record_batch(
            [self._ids, self._filenames, pa.array(self.labels, pa.int64()), pa.array(index.sizes)],
            ["id", "filename", "label", "size"],
        )
        images = int((index.offsets >= 0).sum())
        digest = hashlib.sha256(facts.serialize()).hexdigest()
        found = self._sizes([(0, self.rows)], look=True) if sizes else None
        return self._summary(images, int(index.sizes.sum()), digest, found)

    def _images(self, runs: Runs) -> pa.Array:
        return pa.array([self._image(row) for row in row_numbers(runs).tolist()], pa.binary())

    def stored(self, row: int) -> StoredImage:
        data = self._image(row)
        return StoredImage(None if data is None else int(self._index.offsets[row]), data)

    def _image(self, row: int) -> bytes | None:
        offset, size = int(self._index.offsets[row]), int(self._index.sizes[row])
        if offset < 0:
            return None
        if size > MAX_IMAGE_BYTES:
            raise RowError(f"{self._shown(row)}: image is {size} bytes; at most {MAX_IMAGE_BYTES} are supported")
        stream = self._stream()
        stream.seek(offset)
        return stream.read(size)

    def _headers(self, start: int, stop: int) -> Iterable[ImageHeader | RowError | None]:
        for row in range(start, stop):
            offset, size = int(self._index.offsets[row]), int(self._index.sizes[row])
            if offset < 0:
                yield None
            elif size <= _WHOLE_BYTES:
                yield header_or_error(self._image(row) or b"", self._shown(row))
            else:
                window: Any = storage.SubFile(self._stream(), offset, size)
                yield header_or_error(io.BufferedReader(window), self._shown(row))

    def _stored_bytes(self, start: int, stop: int) -> int:
        return int(self._index.sizes[start:stop].max(initial=0))


@kept()
def shard_index(file: SourceFile) -> ShardIndex:
    """Returns the index of a shard's samples. Raises `InputError`."""
    table = _samples(file)
    offsets, sizes, numbers = (column(table, name).to_numpy() for name in ("offset", "size", "number"))
    return ShardIndex(table, offsets, sizes, numbers, column(table, "word"), column(table, "text"))


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
        self._columns = {name: array("q") for name in ("offset", "size", "number", "word", "text")}

    def add(self, name: str, offset: int, size: int) -> None:
        """Adds a member; as in `tariterators.py`, names without a dot or between `__` are not part of a sample."""
        name = name.removeprefix("./")
        folder, slash, base = name.rpartition("/")
        stem, dot, kind = base.partition(".")
        if not stem or not dot or _META.match(name):
            return
        kind = kind.lower() if kind.lower() in _FACTS else kind
        key = folder + slash + stem
        if key != self._key:
            self._finish()
            if key in self._seen:
                raise self._error(f"members of sample {key!r} are not adjacent; sort them by name")
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
        return with_unique_ids(pa.table(dict(zip(("id", "filename"), names, strict=True)) | columns))

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
        base = self._key.rpartition("/")[2]
        self._ids.append(self._fact(facts, "id", self._key))
        self._filenames.append(self._fact(facts, "filename", f"{base}.{kind or 'png'}"))
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
            raise self._error(f"sample {self._key!r} has {len(kinds)} images ({', '.join(kinds)}); keep one")
        others = [kind for kind in self._members if kind.lower().rpartition(".")[2] in _OTHER_IMAGES]
        if others and not found:
            raise self._error(f"sample {self._key!r} has a .{others[0]} image; expected PNG or JPEG, convert it first")
        return found[0] if found else ""

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
            raise self._error(f"member '{self._key}.{kind}' ({size} bytes) is not a label; expected a number or name")
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
    if largest < 0 and not alone:
        if 0 < len(texts) <= MAX_TEXT_CLASSES:
            return LabelTable(tuple(sorted(texts))), ()
        why = f"{len(texts)} distinct .txt texts look like captions" if texts else "no .cls, no label in .json or .txt"
        return LabelTable(()), (f"samples have no labels: {why}",)
    named = tuple(known.get(number, str(number)) for number in range(largest + 1))
    return LabelTable((*named, *sorted(alone - set(named)))), ()


def shard_ids(file: SourceFile) -> pa.ChunkedArray:
    """Returns the ids of a shard's samples."""
    return shard_index(file).names.column("id")
