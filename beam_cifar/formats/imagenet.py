"""ImageNet's layout: a folder of images for each class, in one tree or in one tree for each subset.

Datumaro calls these `imagenet` (`<class>/<image>`) and `imagenet_with_subset_dirs` (`<subset>/<class>/<image>`);
unlabelled images are in `no_label`. torchvision's ImageFolder also walks the folders below those of classes. It and the
imagefolder of Hugging Face datasets number the class folders they find, in the order of their names.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable, refuse_repeated
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.imagenet_kaggle import DATA, ImagenetKaggleSource
from beam_cifar.formats.kit.cards import CARD, are_splits, config_lines, has_split_keyword, literal, split_name_of
from beam_cifar.formats.kit.folders import ENTRY, NO_LABEL, TREE, ImageFileRows, ImageFileWriter, TreeSink, image_table
from beam_cifar.formats.kit.image_lists import path_names
from beam_cifar.formats.kit.label_files import is_label_file, label_files
from beam_cifar.formats.kit.subset_names import is_no_class, split_word
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import clash_key, decoded_names, distinct_components, encode_folder, escape_first
from beam_cifar.naming.ids import natural_key, unique_ids
from beam_cifar.naming.image_files import digests

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

TAKEN: Final = frozenset({NO_LABEL, CARD.lower()})
"""Clash keys of names that no class has as its folder."""
SUBSET = "default"
"""Datumaro's name for the only subset of a tree."""
_WORD: Final = re.compile(r"[A-Za-z]{2,}(?=[._-]?[0-9])")
MAX_WORDS: Final = 100
"""Maximum number of words in the names of files that are taken for classes."""
MAX_LOOKED_AT = 1000
"""How many entries of a folder detection looks at: more classes or loose images than that are rare."""


class ImagenetSource(Source):
    """Reads `<class>/<image>`, and images in folders below."""

    name = "imagenet"
    depth: ClassVar[int] = 1

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether most images are at the right depth; `describe` reports the others.

        Raises:
            InputError: all class folders have names of subsets, such as "train" and "test", or there is one class and
                a file that may have labels.
        """
        if not storage.is_folder(path) or _image_depth(path) != self.depth:
            return False
        parents = self._subsets(path).values()
        classes = {
            name
            for parent in parents
            for name, folder in _folders(parent).items()
            if storage.has_file(folder, is_image_name)
        }
        if deeper := self._deeper(parents):
            raise _no_classes(path, deeper, self.name)
        is_doubtful = len(classes) == 1 and (self.depth == 1 or classes <= {*_folders(path)}) and label_files(path)
        if all(map(is_no_class, classes)) or is_doubtful:
            raise _no_classes(path, sorted(classes), self.name)
        return True

    def _deeper(self, parents: Iterable[str]) -> list[str]:
        """Returns folders in place of classes that have folders alone, and names of subsets: `set/train/cat`."""
        found = {name: folder for parent in parents for name, folder in _folders(parent).items() if split_word(name)}
        looks = {name: storage.first_names(folder, MAX_LOOKED_AT) for name, folder in found.items()}
        return sorted(name for name, (files, inner) in looks.items() if inner and not any(map(is_image_name, files)))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Lists all folders; numbers the classes in the order of their folder names, numbers as numbers.

        Kaggle's layout of ImageNet, which some call by this name too, is described as what it is.
        """
        if storage.is_folder(os.path.join(path, DATA)):
            return ImagenetKaggleSource().describe(path, index_dir)
        with storage.reading(path):
            inner = self._subsets(path)
            folders = {name: _folders(folder) for name, folder in inner.items()}
            parents = dict.fromkeys((path, *inner.values()))
            stray = [lost for folder in parents for lost in _files(folder) if lost != f"{path}/{CARD}"]
            hidden = [lost for folder in parents for lost in _hidden(folder)]
            copies = [copy for folder in parents for copy in _copies(folder)]
        unlabelled = _repeated_names(folders)
        classes, numbered = _in_order({name for found in folders.values() for name in found} - {NO_LABEL, *unlabelled})
        labels = {name: label for label, name in enumerate(classes)} | dict.fromkeys(
            (NO_LABEL, *unlabelled), UNLABELLED
        )
        files, nested = list[SourceFile](), dict[str, int]()
        empty = [inner[subset] for subset, found in folders.items() if not found]
        for subset, found in folders.items():
            members = [
                _source_file(subset, folder, found[folder], labels[folder], stray, nested) for folder in sorted(found)
            ]
            empty += [file.shown for file, names in members if not len(names)]
            files += _with_prefixes([member for member in members if len(member[1])])
        if not files:
            raise InputError(f"{path}: no image files found in {'<subset>/' * (self.depth - 1)}<class>/")
        notices = [
            *numbered,
            *_told(stray, "ignored {} other than images in a class folder, such as {}", "path", _first_table(path)),
            *_told(
                hidden, "ignored {} with a name that starts with '_', such as {}; rename those of classes", "folder"
            ),
            *_told_nested(nested),
            *_told(copies, "ignored {} with the name of the one around it and the same folders, a copy: {}", "folder"),
            *_told(
                [f"{inner[name]}/{name}" for name in unlabelled],
                "the images in {} of the name of its subset, {}, are read without labels",
                "folder",
            ),
            *_told(empty, "{} without images, such as {}", "folder"),
        ]
        table = LabelTable(tuple(decoded_names(classes).values()))
        return Catalog(self.name, "ImageNet folders", path, table, tuple(files), notices=tuple(notices))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        table = _class_images(file)
        return ImageFileRows(file, file.blob.path, table, [file.label] * len(table))

    def _subsets(self, path: str) -> dict[str, str]:
        """Returns the folder of each subset."""
        return {SUBSET: path}


class ImagenetWithSubsetDirsSource(ImagenetSource):
    """Reads `<subset>/<class>/<image>`, and images in folders below."""

    name = "imagenet_with_subset_dirs"
    depth = 2

    def _subsets(self, path: str) -> dict[str, str]:
        found = _folders(path)
        names = decoded_names(sorted(found, key=natural_key))
        return {subset: found[name] for name, subset in names.items()}


@functools.lru_cache(maxsize=8)
def class_folders(labels: LabelTable) -> tuple[str, ...]:
    """Returns the folder of each class: its name encoded for file systems, and never `no_label` or `README.md`."""
    found = distinct_components(labels.names, encode_folder, taken=TAKEN)
    return tuple(escape_first(folder) if folder in TAKEN else folder for folder in found)


def subset_folder(subset: str) -> str:
    """Returns the folder of a subset, never `README.md`, even on a case-insensitive file system."""
    folder = encode_folder(subset)
    return escape_first(folder) if clash_key(folder) in TAKEN - {NO_LABEL} else folder


class ImagenetWriter(ImageFileWriter):
    """Counts the file names that `datasets` would take for those of splits."""

    _keywords = 0

    def note(self, names: Sequence[str]) -> None:
        self._keywords += sum(map(has_split_keyword, names))

    def statistics(self) -> dict[str, int]:
        """Returns the number of such names, on which the card depends."""
        return {"split_keywords": self._keywords} if self._keywords else {}


class ImagenetSink(TreeSink):
    """Writes `<class>/<id>.png`, and `README.md` if asked for, where `datasets` would find the wrong splits without it.

    Attributes:
        card_unasked: whether that is written without being asked for: where no other reader minds it.
    """

    name = "imagenet"
    can = replace(TREE, losses=frozenset({"order", "subsets", "superclasses", "unused"}))
    subsets = SubsetNaming(merges=True)
    writer = ImagenetWriter
    card_unasked: ClassVar[bool] = False

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses classes with the same name, which would share a folder."""
        refuse_repeated(labels.names, "and would share a folder")

    def class_words(self, labels: LabelTable) -> Sequence[str]:
        return class_folders(labels)

    def image_folders(self, options: SinkOptions) -> Sequence[str]:
        """Returns one folder per class, then that of unlabelled images."""
        return (*class_folders(options.labels), NO_LABEL)

    def folders(self, options: SinkOptions, shards: Sequence[ShardResult]) -> list[str]:
        """Returns the folders of all classes with `--keep-empty-classes`, else none."""
        if not options.export.keep_empty_classes:
            return []
        paths = {result.shard.path for result in shards}
        return sorted(f"{path}/{folder}".lstrip("/") for path in paths for folder in class_folders(options.labels))

    def split_paths(self, shards: Sequence[ShardResult]) -> dict[str, str]:
        """Returns the folder of each split, as the card names them; "" for all folders."""
        return {"train": ""}

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the card, if `datasets` needs it."""
        if not (self.card_unasked or options.export.card) or not self._is_misread(options, shards):
            return {}
        paths = {split: f"{literal(path)}/*/*" if path else "*/*" for split, path in self.split_paths(shards).items()}
        # Without drop_labels, datasets finds no labels where the images of a split have one class.
        lines = ["---", *config_lines(paths), "  drop_labels: false", "---", "", "# Image classification dataset", ""]
        return {CARD: "\n".join(lines).encode()}

    def _is_misread(self, options: SinkOptions, shards: Sequence[ShardResult]) -> bool:
        """Returns whether `datasets` would lose images, or take them for another split, going by names."""
        folders = self.image_folders(options)  # UNLABELLED is -1 and so indexes the last one
        if any(has_split_keyword(folders[label]) for result in shards for label in result.labels):
            return True
        paths = list(dict.fromkeys(result.shard.path for result in shards if result.labels))
        if are_splits(paths):
            return False
        named = any(result.statistics.get("split_keywords") for result in shards)
        return named or len(paths) > 1 or any(map(has_split_keyword, paths))

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices if readers, which number the folders they find, will assign other label ids."""
        if not (self.card_unasked or options.export.card) and self._is_misread(options, shards):
            yield (
                f"datasets takes names of classes or ids for splits and will miss images: --card writes a {CARD} that "
                "tells it the folders (which Datumaro takes for a class without images)"
            )
        present: dict[str, set[int]] = {}
        for result in shards:
            present.setdefault(result.shard.path, set()).update(result.labels)
        everything = set(range(len(options.labels.names)))
        folders = self.image_folders(options)  # UNLABELLED is -1 and so indexes the last one
        if options.export.keep_empty_classes and any(everything - labels for labels in present.values()):
            yield (
                "some class folders are empty: Keras numbers them, torchvision rejects them unless allow_empty=True is "
                "set, Datumaro rejects them, and datasets ignores them"
            )
        for path, labels in present.items():
            kept = labels | everything if options.export.keep_empty_classes else labels
            found = sorted(kept, key=folders.__getitem__)
            if any(number != label for number, label in enumerate(found) if label != UNLABELLED):
                yield _shifted(options.labels.names, everything - kept, f" in {path}" if path else "")
                return


class ImagenetWithSubsetDirsSink(ImagenetSink):
    """Writes `<subset>/<class>/<id>.png`."""

    name = "imagenet_with_subset_dirs"
    can = replace(TREE, losses=frozenset({"order", "superclasses", "unused"}))
    subsets = SubsetNaming(word=subset_folder, own_folders=True)
    card_unasked = True  # no reader minds it beside the folders of subsets

    def split_paths(self, shards: Sequence[ShardResult]) -> dict[str, str]:
        written = [result.shard for result in shards if result.labels]
        # "all" means every split.
        (_, *splits), _ = unique_ids(["all", *(split_name_of(shard.subset) for shard in written)])
        return {split: shard.path for split, shard in zip(splits, written, strict=True)}

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return self.subsets.written(subset)


def _shifted(names: Sequence[str], missing: Set[int], where: str) -> str:
    """Returns the notice that readers will assign other label ids than the label table."""
    readers = "readers that number the folders (torchvision, Keras, datasets) assign other label ids"
    if not missing:
        return f"classes are not in the order of their folder names{where}, {NO_LABEL} included: {readers}"
    found = counted(len(missing), "class", of=len(names), verb="have")
    return (
        f"{found} no images{where} and therefore no folder, such as "
        f"{names[min(missing)]!r}: {readers}; create the folders with --keep-empty-classes"
    )


def _no_classes(path: str, found: Sequence[str], name: str) -> InputError:
    """Returns the error for folders of images that are no classes, which mentions files that may have the labels."""
    tables = label_files(path)
    labels = (
        f"; the labels may be in {', '.join(tables[:3])}, but not in a form that is known: expected a CSV file with "
        "columns such as file_name,label"
        if tables
        else ""
    )
    names = ", ".join(map(repr, found))
    words = _words_in_names([folder for each, folder in _folders(path).items() if each in found])
    if words and not tables:
        shown = " and ".join(map(repr, words[:2]))
        labels = f"; files have names such as {shown}: to have these as classes, move them into folders of these names"
    reason = (
        f"images are in folders named {names}, which are names of subsets and not of classes"
        if all(map(is_no_class, found))
        else f"all images are in one folder, {names}, which is perhaps not their class"
    )
    return InputError(
        f"{path}: {reason}{labels}; to read the images without labels pass --input-format image_dir, to take the "
        f"folders as classes --input-format {name}"
    )


def _words_in_names(folders: Sequence[str]) -> list[str]:
    """Returns the words that names of images in folders start with, such as "cat" and "dog", if there are few."""
    names = [name for folder in folders for name in storage.first_names(folder, MAX_LOOKED_AT)[0]]
    words = [match[0] for match in map(_WORD.match, filter(is_image_name, names)) if match]
    return sorted({*words}) if 1 < len({*words}) <= MAX_WORDS and len({*words}) < len(words) else []


def _first_table(path: str) -> str:
    """Returns the path of the first file in a folder that may have labels; "" if there is none."""
    return next((each for each in sorted(_files(path)) if is_label_file(os.path.basename(each))), "")


def _in_order(folders: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns class folders in the order of their labels: of text, or of numbers if all are; and what is to be said."""
    by_text = sorted(folders)
    if not all(name.isascii() and name.isdigit() for name in by_text):
        return by_text, []
    by_number = sorted(by_text, key=natural_key)
    if by_number == by_text:
        return by_text, []
    at = next(at for at, pair in enumerate(zip(by_number, by_text, strict=True)) if len(set(pair)) > 1)
    shown = ", ".join(by_number[: at + 1])
    return by_number, [
        f"class folders are numbers, and get their label ids in that order ({shown}, ...); readers that sort them as "
        f"text, such as torchvision, have {by_text[at]!r} in place of {by_number[at]!r}"
    ]


def _image_depth(path: str) -> int:
    """Returns the depth of most images: 1 for `<class>/<image>`, 2 for `<subset>/<class>/<image>`, 0 if there are none.

    Where there are images at both depths, they are counted, at most `MAX_LOOKED_AT` of each folder. Those in a folder
    named as a subset do not count if another such folder has classes: Kaggle's test images have none.
    """
    loose, inner, flat = 0, list[str](), 0
    for name, folder in _folders(path).items():
        names, folders = storage.first_names(folder, MAX_LOOKED_AT)
        count = sum(map(is_image_name, names))
        loose, flat = (loose, flat + count) if split_word(name) else (loose + count, flat)
        inner += folders
    if not any(storage.has_file(folder, is_image_name) for folder in inner):
        return 1 if loose + flat else 0
    if not loose:
        return 2
    deep = 0
    for folder in inner:
        deep += sum(map(is_image_name, storage.first_names(folder, MAX_LOOKED_AT)[0]))
        if deep > loose:
            return 2
    return 1


def _repeated_names(folders: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns subsets whose only folder has their name, as Kaggle unpacks images without labels; others differ."""
    alone = [subset for subset, found in folders.items() if [*found] == [subset]]
    others = {name for subset, found in folders.items() if subset not in alone for name in found}
    return [subset for subset in alone if others and subset not in others]


def _told(paths: Sequence[str], text: str, what: str, first: str = "") -> list[str]:
    """Returns a notice about some paths, with their number, and an example: default: the first of them."""
    return [text.format(counted(len(paths), what), first or min(paths))] if paths else []


def _told_nested(nested: Mapping[str, int]) -> Iterator[str]:
    """Yields a notice about images in folders below those of classes, given as their number by their first path."""
    if nested:
        found = counted(sum(nested.values()), "image")
        yield f"{found} in folders below those of classes, such as {min(nested)}; ids are the paths below the class"


def _folders(path: str) -> dict[str, str]:
    """Returns the paths of the folders in a folder, by name; those named `_*` are not classes.

    For `train/train/<class>`, as Kaggle unpacks archives, that is the path of the inner one.
    """
    copies = _copies(path)
    found = (folder for folder in storage.folders_in(path) if folder not in copies)
    return {storage.name_of(folder): _unrepeated(folder) for folder in found}


def _unrepeated(folder: str) -> str:
    """Returns the only folder in one, if that has folders alone and is of the same name, which is of a subset."""
    names, inner = storage.first_names(folder, 2) if is_no_class(storage.name_of(folder)) else ([], [])
    if names or len(inner) != 1 or storage.name_of(inner[0]).lower() != storage.name_of(folder).lower():
        return folder
    names, folders = storage.first_names(inner[0], MAX_LOOKED_AT)
    return inner[0] if folders and not any(map(is_image_name, names)) else folder


def _copies(path: str) -> list[str]:
    """Returns the folder that has the name of the one around it, and the same folders, if there is one.

    Some archives of Kaggle have all of a set twice: `cells/Parasitized` and `cells/cells/Parasitized`.
    """
    name, folders = storage.name_of(path), storage.folders_in(path)
    others = {storage.name_of(folder) for folder in folders} - {name}
    if len(others) < 2 or len(others) == len(folders):
        return []
    copy = os.path.join(path, name)
    return [copy] if {*map(storage.name_of, storage.folders_in(copy))} == others else []


def _hidden(path: str) -> list[str]:
    """Returns the paths of the folders named `_*` in a folder."""
    return [entry.path for entry in storage.list_folder(path, lambda name: name.startswith("_")) if entry.is_folder]


def _files(path: str) -> list[str]:
    """Returns the paths of the files in a folder."""
    return [entry.path for entry in storage.list_folder(path) if not entry.is_folder]


def _images(path: str, stray: list[str] | None = None) -> list[storage.Entry]:
    """Returns the images of a class folder and of the folders below it, in natural order, named by relative paths.

    Adds the paths of other files, and of folders named `_*`, to `stray`.

    Raises:
        InputError: something is neither a file nor a folder, or a link leads to a folder that is already listed.
    """
    images, lost = [], dict[str, None]()
    with storage.reading(path):
        for entry in storage.list_tree(path):
            folders = entry.name.split("/")[:-1]
            hidden = next((at for at, folder in enumerate(folders, 1) if folder.startswith("_")), 0)
            if is_image_name(entry.name) and not hidden:
                images.append(entry)
            else:
                lost["/".join([path, *folders[:hidden]]) if hidden else entry.path] = None
    if stray is not None:
        stray += lost
    return sorted(images, key=lambda entry: natural_key(entry.name))


@indexed()
def _class_images(file: SourceFile) -> pa.Table:
    """Returns the images of a class folder. Raises `InputError` if they changed."""
    import pyarrow as pa

    entries = _images(file.blob.path)
    if not storage.is_unchanged(storage.listing_stamp(entries), file.blob.stamp):
        raise InputError(f"{file.shown}: the folder changed while it was being converted; run the job again")
    names = [entry.name for entry in entries]
    facts = names, *([getattr(entry, fact) for entry in entries] for fact in ("size", "mtime", "identity"))
    kinds = pa.string(), pa.int64(), pa.int64(), pa.int64()
    images = {name: pa.array(values, kind) for name, values, kind in zip(ENTRY, facts, kinds, strict=True)}
    ids, filenames = (pa.array([path_names(name)[at] for name in names], pa.string()) for at in (0, 1))
    return image_table(images, ids, filenames)


def _source_file(
    subset: str, folder: str, path: str, label: int, stray: list[str], nested: dict[str, int]
) -> tuple[SourceFile, npt.NDArray[np.uint64]]:
    """Returns one class folder, and the digests of the ids of its images.

    Adds the first of the images in folders below it to `nested`, and their number.
    """
    images = _images(path, stray)
    if below := [entry.path for entry in images if "/" in entry.name]:
        nested[below[0]] = len(below)
    blob = storage.Blob(path, 0, sum(entry.size for entry in images), storage.listing_stamp(images))
    ids = digests(path_names(entry.name)[0] for entry in images)
    return SourceFile(f"{subset}/{folder}", subset, path, blob, label), ids


def _with_prefixes(found: Sequence[tuple[SourceFile, npt.NDArray[np.uint64]]]) -> list[SourceFile]:
    """Prefixes all ids of a subset with the class folder if file names alone are not unique; otherwise none."""
    import numpy as np

    files = [file for file, _ in found]
    stems = np.concatenate([np.empty(0, np.uint64), *(digests for _, digests in found)])
    if len(np.unique(stems)) == len(stems):
        return files
    names = decoded_names(file.name.rpartition("/")[2] for file in files)
    return [replace(file, id_prefix=f"{name}/") for file, name in zip(files, names.values(), strict=True)]
