"""WebDataset source: tar files in which the members of a sample are adjacent and share a name up to the first dot.

Reference: README and `tariterators.py` of https://github.com/webdataset/webdataset; its decoders know the names
`KEY.png`, `KEY.cls` and `KEY.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable, are_parents
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.encoded import with_prefixes
from beam_cifar.formats.kit.json_stream import parsed_json
from beam_cifar.formats.kit.roots import has_own_file, sorted_files
from beam_cifar.formats.kit.synsets import CLASS_TARS
from beam_cifar.formats.webdataset.rows import WebdatasetRows, learn_table, shard_ids
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import decode_name
from beam_cifar.naming.ids import natural_key
from beam_cifar.storage.tar import tar_members

TABLE: Final = "labels.json"
SUBSET: Final = "default"
SUFFIX: Final = ".tar"
MAX_FOLDERS: Final = 64
MAX_TABLE_BYTES: Final = 64 << 20
_LOOK: Final = 64
"""How many members of a shard detection looks at."""
_CIFAR_NAMES: Final = frozenset({"batches.meta", "meta", "batches.meta.txt"})
_CLASS: Final = re.compile(r"n\d{8}\.tar")
_PACKED: Final = re.compile(r"\d\.(?:tar\.(?:gz|bz2|xz|zst)|tgz)", re.IGNORECASE)
_NUMBERING: Final = re.compile(r"(?:(?:^|[-_.])(?:part|shard))?[-_.]?\d+(?:[-_.]of[-_.]\d+)?\Z")


class WebdatasetSource(Source):
    """Reads one shard, a folder of shards, or a folder with a folder of shards for each subset."""

    name = "webdataset"
    reads_tar = True

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the first shard starts with images, judging by names, and is not a CIFAR archive."""
        if storage.is_file(path):
            return _is_shard(path) and _starts_right(path, needs_labels=True)
        if storage.has_file(path, is_image_name):  # do not list a folder of perhaps millions of images
            return False
        first = next((paths[0] for paths in _shard_paths(path).values()), "")
        # Beside folders, a tar file without labels is rather what these were unpacked from.
        packed = os.path.dirname(first) == path and bool(storage.folders_in(path))
        return _starts_right(first, needs_labels=packed) if first else _has_packed(path)

    def may_lose(self, name: str) -> bool:
        return _is_shard(name)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds shards and classes; reads the shards to find repeated ids and, without `labels.json`, the labels."""
        with storage.reading(path):
            root = os.path.dirname(path) if storage.is_file(path) else path
            paths = {"": [path]} if storage.is_file(path) else _shard_paths(path)
            if not paths:
                raise InputError(
                    f"{path}: no {SUFFIX} files found"
                    + ("; compressed shards allow no random access, unpack them" if _has_packed(path) else "")
                )
            content = _read_table(os.path.join(root, TABLE))
            own = _own_table(content, root) if content else None
            beside = (storage.whole_file(os.path.join(root, TABLE)),) if content else ()
            files = [
                SourceFile(
                    os.path.relpath(shard, root).replace(os.sep, "/"),
                    _subset(folder if len(set(map(_series, shards))) == 1 else "", os.path.basename(shard), content),
                    shard,
                    storage.whole_file(shard),
                    beside=beside,
                    index_dir=index_dir,
                )
                for folder, shards in paths.items()
                for shard in shards
            ]
        if own is not None:
            table, notices = own, tuple(_missing(content, paths)) if storage.is_folder(path) else ()
        else:
            table, notices = learn_table(files)
            if not table.names and all(_CLASS.fullmatch(storage.name_of(file.shown)) for file in files):
                raise InputError(f"{path}: {CLASS_TARS}")
        return Catalog(
            self.name,
            "WebDataset",
            path,
            table,
            with_prefixes(files, shard_ids),
            notices=notices,
            counts_images=own is None,
        )

    def read_rows(self, file: SourceFile, labels: LabelTable) -> WebdatasetRows:
        return WebdatasetRows(file, labels)


# --- finding shards -------------------------------------------------------------------------------------------------


def _shard_paths(path: str) -> dict[str, list[str]]:
    """Returns the shards of a folder, or of each folder in it, in natural order."""
    if own := sorted_files(path, _is_shard):
        return {"": [entry.path for entry in own]}
    folders = sorted(storage.folders_in(path), key=lambda folder: natural_key(os.path.basename(folder)))
    if len(folders) > MAX_FOLDERS:
        return {}
    shards = {folder: sorted_files(folder, _is_shard) for folder in folders if storage.has_file(folder, _is_shard)}
    return {os.path.basename(folder): [entry.path for entry in found] for folder, found in shards.items()}


def _is_shard(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def _has_packed(path: str) -> bool:
    """Returns whether a folder has compressed shards, which `describe` refuses with a reason."""
    return storage.is_folder(path) and storage.has_file(path, lambda name: _PACKED.search(name) is not None)


def _starts_right(path: str, *, needs_labels: bool = False) -> bool:
    """Returns whether an archive starts like a shard: with images, and if `needs_labels` with their labels."""
    with storage.reading(path), storage.open_file(path) as file:
        names = [name.rpartition("/")[2] for name, *_ in islice(tar_members(file, storage.stamp(path)[0], path), _LOOK)]
    if _CIFAR_NAMES.intersection(names):
        return False
    if has_own_file(os.path.dirname(path), TABLE):
        return all(name.endswith((".cls", ".json")) or is_image_name(name) for name in names)
    images = {name.partition(".")[0] for name in names if is_image_name(name)}
    arrays = {name.partition(".")[0] for name in names if name.endswith(".npy")}
    labels = {name.partition(".")[0] for name in names if name.endswith((".cls", ".json", ".txt"))}
    return bool((images | arrays) & labels) or (bool(images) and not needs_labels)


def _subset(folder: str, name: str, content: dict[str, Any]) -> str:
    """Returns the subset of a shard: as listed in `labels.json`, else its folder, else its name without numbers."""
    known = content.get("subsets", {}).get(name)
    if known is not None:
        return str(known)
    if content:
        return decode_name(re.sub(r"-\d{6,}\Z", "", name[: -len(SUFFIX)])) or SUBSET
    return folder or _series(name) or SUBSET


def _series(path: str) -> str:
    """Returns what the names of a subset's shards have in common: the name without numbers."""
    return _NUMBERING.sub("", os.path.basename(path)[: -len(SUFFIX)])


def _read_table(path: str) -> dict[str, Any]:
    """Returns the contents of `labels.json`; empty if it is missing or was not written by this package."""
    if not has_own_file(*os.path.split(path)) or storage.stamp(path)[0] > MAX_TABLE_BYTES:
        return {}
    with storage.open_file(path) as file:
        content = parsed_json(file.read(), path)
    own = isinstance(content, dict) and {"names", "superclasses", "parents", "subsets"} <= content.keys()
    return content if own else {}


def _own_table(content: dict[str, Any], root: str) -> LabelTable:
    names, coarse, parents, subsets = (content[key] for key in ("names", "superclasses", "parents", "subsets"))
    lists = all(isinstance(each, list) and all(map(_is_name, each)) for each in (names, coarse))
    if (
        not lists
        or not are_parents(parents, len(names) if coarse else 0, len(coarse))
        or not isinstance(subsets, dict)
        or not all(map(_is_name, subsets.values()))
    ):
        raise InputError(
            f"{os.path.join(root, TABLE)}: is damaged: expected lists 'names', 'superclasses' and 'parents' and an "
            "object 'subsets'"
        )
    return LabelTable(tuple(names), tuple(coarse), tuple(parents))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and is_unicode(name)


def _missing(content: dict[str, Any], paths: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields a notice if shards listed in the table are missing."""
    missing = content["subsets"].keys() - {os.path.basename(path) for shards in paths.values() for path in shards}
    if missing:
        first = min(missing)[:100]
        yield f"{TABLE} lists {counted(len(missing), 'missing shard')}, such as {first!r}; their rows are not read"
