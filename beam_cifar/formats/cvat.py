"""CVAT for images 1.1 with tags of whole images: `<subset>.xml`, and `images/`.

A file is `<annotations><meta>...</meta><image id name width height><tag label=""/></image>...</annotations>`
(docs.cvat.ai, "CVAT for image"); `<meta>` has the classes. CVAT itself calls it `annotations.xml`, and that of a
project has the images of several subsets. Names of images are relative to `images/`, or to `images/<subset>/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from xml.sax.saxutils import escape, quoteattr

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import NOT_XML, counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.types import Shard, SinkOptions, SourceFile
from beam_cifar.formats.kit.annotations import (
    IMAGES,
    AnnotationSource,
    check_class_names,
    first_bytes,
    open_annotations,
    with_facts,
)
from beam_cifar.formats.kit.folders import ID_TREE, TreeSink, write_lines
from beam_cifar.formats.kit.image_lists import ListedRows, checked_tree, path_names
from beam_cifar.naming.id_paths import encode_word, stem

if TYPE_CHECKING:
    import pyarrow as pa

ROOT: Final = "annotations"
SUFFIX: Final = ".xml"
KINDS: Final = frozenset({"box", "cuboid", "ellipse", "mask", "points", "polygon", "polyline", "skeleton", "track"})
"""Annotations of objects, which are not read."""

MAX_DEPTH: Final = 100
MAX_NAME: Final = 64 << 10
"""Limits for elements in each other, and for the characters of a class or subset."""

MAX_SUBSETS: Final = 1000
"""Limit for the subsets of one file, which is read once for each."""


class CvatSource(AnnotationSource):
    """Reads the images of each subset and their tags."""

    name = "cvat"
    title = "CVAT for images"
    folder = ""
    suffix = SUFFIX

    def starts_right(self, entry: storage.Entry) -> bool:
        return _started([first_bytes(entry)], entry.path).is_it

    def files(self, found: Sequence[storage.Entry], images: storage.Blob, index_dir: str) -> tuple[SourceFile, ...]:
        files = dict[str, SourceFile]()
        for file in (each for whole in super().files(found, images, index_dir) for each in _by_subset(whole)):
            if (other := files.setdefault(file.subset, file)) is not file:
                raise InputError(
                    f"{file.shown}: has subset {file.subset!r}, as {other.shown} has; expected one file for each; "
                    "rename one <subset>, or remove it: the name of the file is the subset then"
                )
        return tuple(files.values())

    def rows(self, file: SourceFile) -> pa.Table:
        return _image_rows(file)


class CvatSink(TreeSink):
    """Writes `images/<id>.png`, and the XML file of each subset."""

    name = "cvat"
    can = replace(
        ID_TREE, losses=frozenset({"superclasses"}), keeps_empty_subsets=True, listed=("label", "height", "width")
    )
    # One folder for all subsets: readers look there first, and would take a/b.png for b.png of subset a.
    subsets = SubsetNaming(word=lambda name: stem(encode_word(name, SUFFIX)))
    root = IMAGES

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses names that are repeated, empty, or not possible in XML."""
        check_class_names(labels)
        for name in labels.names:
            if NOT_XML.search(name):
                raise UsageError(f"class {name!r} has characters that XML does not allow; rename it with --remap")

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the file of a subset: its images are numbered from 0."""
        subset = self.subsets.written(shard.subset)
        lines = self._lines(subset, shard.rows, parts, options.labels)
        write_lines(files, f"{subset}{SUFFIX}", lines)

    def _lines(self, subset: str, rows: int, parts: Sequence[str], labels: LabelTable) -> Iterator[str]:
        yield f'<?xml version="1.0" encoding="utf-8"?>\n<{ROOT}>\n<version>1.1</version>\n<meta><task>\n'
        yield f"<name>{escape(subset)}</name>\n<size>{rows}</size>\n<mode>annotation</mode>\n<labels>\n"
        for name in labels.names:
            yield f"<label><name>{escape(name, {chr(13): '&#13;'})}</name><attributes></attributes></label>\n"
        yield "</labels>\n</task></meta>\n"
        tags = [f'<tag label={quoteattr(name)} source="manual"></tag>' for name in labels.names]
        for number, (path, label, entry) in enumerate(self.listed_images(parts)):
            size = f'width="{entry["width"]}" height="{entry["height"]}"'
            tag = "" if label == UNLABELLED else tags[label]
            yield f'<image id="{number}" name={quoteattr(path)} {size}>{tag}</image>\n'
        yield f"</{ROOT}>\n"


class _Meta:
    """Collects what the start of a file says; lxml calls its methods for each element.

    Args:
        shown: display name of the file.

    Attributes:
        is_it: whether it is CVAT's, as far as it was read.
        has_all: whether `<meta>` was read.
        is_project: whether it has the images of several subsets.
        labels: number of each class.
        subsets: names of the subsets.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._path: list[str] = []
        self._text: str | None = None
        self.is_it = self.has_all = self.is_project = False
        self.labels: dict[str, int] = {}
        self.subsets: dict[str, None] = {}

    def doctype(self, *_: Any) -> None:
        """Refuses the only place where entities are declared."""
        raise InputError(f"{self._shown}: has a DOCTYPE, which is not read because of its entities; remove it")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        path = self._path
        path.append(tag)
        if len(path) > MAX_DEPTH:
            raise InputError(f"{self._shown}: has elements {len(path)} deep; at most {MAX_DEPTH} are supported")
        if len(path) == 1 and tag != ROOT:
            raise InputError(f"{self._shown}: starts with <{tag[:50]}>; expected CVAT's <{ROOT}>")
        if len(path) == 2:
            self.is_it = self.is_it or tag in ("version", "meta", "image")
        elif path[1:2] == ["meta"]:
            self.is_project = self.is_project or (len(path) == 3 and tag == "project")
            if tag == "subset" or path[-2:] == ["label", "name"]:
                self._text = ""

    def data(self, text: str) -> None:
        if self._text is None:
            return
        self._text += text
        if len(self._text) > MAX_NAME:
            raise InputError(f"{self._shown}: a name has over {MAX_NAME} characters; expected classes and subsets")

    def end(self, tag: str) -> None:
        self._path.pop()
        self.has_all = self.has_all or (tag == "meta" and len(self._path) == 1)
        if self._text is not None and tag in ("name", "subset"):
            text, self._text = self._text, None
            if tag == "name":
                self.labels.setdefault(text, len(self.labels))
            elif text:
                self.subsets[text] = None

    def close(self) -> None:
        return


class _Images(_Meta):
    """Collects the images of a file, and their tags.

    Args:
        file: the file, and the subset to read.
    """

    def __init__(self, file: SourceFile) -> None:
        super().__init__(file.shown)
        self._file, self._rows = file, ListedRows(file)
        self._image: Mapping[str, str] = {}
        self._tags: dict[str, None] = {}
        self._others: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        super().start(tag, attributes)
        depth = len(self._path)
        if depth == 2 and tag == "track":
            self.left_out[tag] += self._is_mine(attributes.get("subset"))
        elif depth == 2 and tag == "image":
            self._image = dict(attributes)
            self._tags, self._others = {}, Counter()
        elif depth == 3 and self._path[1] == "image":
            if tag == "tag" and len(self._tags) < 2:  # a second one is wrong already
                self._tags[attributes.get("label", "")] = None
            elif tag != "tag":
                self._others[tag if tag in KINDS else "unknown"] += 1

    def end(self, tag: str) -> None:
        super().end(tag)
        if tag == "image" and len(self._path) == 1:
            self._append()

    def _is_mine(self, subset: str | None) -> bool:
        """Returns whether what is in a subset is read with this one: with the first also what is in none."""
        if not self.is_project or not self.subsets:
            return True
        return self._file.subset == (subset if subset in self.subsets else next(iter(self.subsets)))

    def _append(self) -> None:
        """Adds the image that ended, if it is of this subset."""
        subset, name, error = self._image.get("subset"), self._image.get("name", ""), ""
        if not self._is_mine(subset):
            return
        self.left_out += self._others
        label = self.labels.get(next(iter(self._tags), ""), UNLABELLED)
        if not name:
            error = "has no name; expected the path of an image"
        elif unknown := [tag for tag in self._tags if tag not in self.labels]:
            expected = counted(len(self.labels), "label")
            error = f"tag {unknown[0][:50]!r} is not a label in <meta>; expected one of its {expected}"
        elif self.is_project and self.subsets and subset not in self.subsets:
            error = f"subset is {str(subset)[:50]!r}; expected one of those in <meta>"
        elif len(self._tags) > 1:
            error = f"has several tags ({', '.join(map(repr, [*self._tags][:2]))}); at most one is supported"
        item_id, filename = path_names(name)
        self._rows.append(item_id, name, filename, label, error)

    def made(self) -> pa.Table:
        """Returns the rows with their images."""
        table = self._rows.made(checked_tree(self._file.beside[0]), ("", f"{self._file.subset}/"))
        return with_facts(table, LabelTable(tuple(self.labels)), self.left_out)


@indexed()
def _image_rows(file: SourceFile) -> pa.Table:
    """Reads one file, and finds the images of one subset."""
    images = _Images(file)
    with open_annotations(file) as opened:
        _feed(images, _chunks(opened), file.shown)
    return images.made()


def _started(chunks: Iterable[bytes], shown: str) -> _Meta:
    """Returns what the start of a file says, as far as it is XML; the rest is refused where the whole file is read."""
    meta = _Meta(shown)
    with suppress(InputError):
        _feed(meta, takewhile(lambda _: not meta.has_all, chunks), shown)
    return meta


def _by_subset(file: SourceFile) -> Iterator[SourceFile]:
    """Yields a file once for each subset of a project; a task has one at most, or the name of the file is that."""
    with open_annotations(file) as opened:
        meta = _started(_chunks(opened), file.shown)
    if not meta.is_project:
        yield replace(file, subset=next(iter(meta.subsets), file.subset))
        return
    if len(meta.subsets) > MAX_SUBSETS:
        raise InputError(f"{file.shown}: has {len(meta.subsets)} subsets; at most {MAX_SUBSETS} are supported")
    for subset in meta.subsets or (file.subset,):
        yield replace(file, name=f"{file.name}:{subset}", subset=subset)


def _chunks(opened: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: opened.read(storage.COPY_BYTES), b"")


def _feed(target: _Meta, chunks: Iterable[bytes], shown: str) -> None:
    """Parses a file without keeping a tree, entities or anything from elsewhere. Raises `InputError`."""
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(target=target, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()
    except etree.XMLSyntaxError as error:
        reason = str(error.msg).replace("\n", "")  # some have a line end
        raise InputError(f"{shown}: is not valid XML: {reason}; repair it or export it again") from error
