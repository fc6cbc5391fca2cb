"""A lazy dataset in Python: its inputs, the steps applied to it, and its export.

`export` runs the same job as the command line. Looking at items (`len`, iteration, `categories`, `subsets`) reads only
labels and names; pixels are read when the image of an item is accessed.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from beam_cifar import storage
from beam_cifar.data.arrays import UInt8Array
from beam_cifar.data.block import MAX_BYTES, MAX_ROWS, Block
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.loading import load
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.dataset.items import (
    DEFAULT_SUBSET,
    Categories,
    DatasetItem,
    Image,
    Label,
    example_of,
    item_key,
    table_of_categories,
)
from beam_cifar.errors import BeamCifarError, UsageError, as_job_errors
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.formats.items import write_items
from beam_cifar.formats.kit.cards import has_card
from beam_cifar.images.encodings import RAW
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.jobs.in_place import lossless_ext
from beam_cifar.jobs.summary import Summary
from beam_cifar.options import Input
from beam_cifar.pipeline.imports import quiet_imports
from beam_cifar.planning.chosen_rows import read_rows
from beam_cifar.planning.from_options import job_of
from beam_cifar.planning.gather import Gathering, look
from beam_cifar.planning.summaries import select_files
from beam_cifar.planning.survey import find_catalog
from beam_cifar.steps.base import Step, changed, row_bytes
from beam_cifar.steps.own import Put, Remove, Select
from beam_cifar.steps.registry import make_step

if TYPE_CHECKING:
    from beam_cifar.pipeline.runners import BeamOptions

logger = logging.getLogger("beam_cifar")

ITEM_COLUMNS = frozenset({"id", "filename"})


@dataclass(frozen=True)
class _Place:
    """Where `save` writes a dataset back to, and with which options."""

    path: str
    format: str
    options: ExportOptions


class Dataset:
    """Images with labels, in subsets. Created with `import_from`, `from_iterable` or `merge`.

    Methods that change it (`filter`, `transform`, `select`, `put`, `remove`) return the dataset itself, and take effect
    when items are looked at or exported.

    >>> from beam_cifar import Dataset
    >>> dogs = Dataset.import_from("cifar10").filter('/item[annotation/label="dog"]')
    >>> len(dogs), dogs.export("dogs", "imagenet").written
    (6, 6)
    """

    def __init__(self, source: Input, folders: Sequence[storage.TemporaryFolder] = ()) -> None:
        self._source = source
        self._folders = list(folders)
        self._waiting: dict[tuple[str, str], DatasetItem] = {}
        self._removing: dict[tuple[str, str], None] = {}
        self._looked: _Looked | None = None
        self._place: _Place | None = None
        self._changed: set[str] | None = set()

    @classmethod
    def import_from(
        cls,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        subsets: Sequence[str] = (),
        images: ImageOptions = AS_STORED,
    ) -> Dataset:
        """Returns a dataset read from a path.

        Args:
            path: directory or archive.
            format: name of the format; detected if None.
            subsets: names of the subsets to read, or "train" / "test" for all batches of that split; all if empty.
            images: how images are read: EXIF orientation, transparency, 16 bits per sample, CMYK.

        Raises:
            InputError: the path does not exist, or its format is not recognised.
            UsageError: an unknown format or subset.
        """
        index = storage.TemporaryFolder()
        catalog = find_catalog(os.fspath(path), format, index.name)
        select_files(catalog, tuple(subsets))  # refuses unknown subsets
        is_folder = os.path.isdir(catalog.path)
        root = catalog.root or catalog.path
        made = cls(Input(root, catalog.format, tuple(subsets), images=images))
        if images.changes_pixels:
            made._changed = None  # any file may change when it is saved
        if is_folder and not subsets:
            meta = any(file.name == "dataset_meta.json" for file in catalog.meta_files)
            made._place = _Place(root, catalog.format, ExportOptions(save_dataset_meta=meta))
        return made

    @classmethod
    def from_iterable(
        cls,
        items: Iterable[DatasetItem],
        categories: Categories = None,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> Dataset:
        """Returns a dataset of items, which are read once and stored on disk as long as the dataset exists.

        Args:
            items: any number of items; at most a thousand are in memory at a time.
            categories: class names, pairs of class name and superclass, or a `LabelTable`.
            folder: existing folder to store them in, visible to all workers; a temporary one if None.

        Raises:
            InputError: an item that cannot be stored without loss, or an id that repeats in a subset.
            UsageError: invalid categories.
            JobError: the folder cannot be written, for example because the disk is full.
        """
        labels = table_of_categories(categories)
        kept = _stored(items, labels, folder)
        return cls(Input(kept.name, "items"), [kept])

    @classmethod
    def merge(cls, *datasets: Dataset, on_clash: str = "error") -> Dataset:
        """Returns the union of several datasets, matching classes by name, and items by id and subset.

        Args:
            datasets: the datasets, each with its steps.
            on_clash: how to resolve items with the same id and subset in several of them: "error", "suffix" (later ones
                get new ids) or "first" (later ones are dropped).

        Raises:
            UsageError: an unknown rule. Contradictions between datasets are reported when items are looked at.
        """
        for dataset in datasets or ("nothing",):
            if not isinstance(dataset, Dataset):
                raise UsageError(f"merge: expected Dataset arguments, found {dataset!r}")
        for dataset in datasets:
            dataset._flush()
        merged = tuple(dataset._source for dataset in datasets)
        return cls(Input("", merged=merged, on_clash=on_clash), [f for each in datasets for f in each._folders])

    def filter(
        self,
        condition: str | Callable[[DatasetItem], Any],
        mode: str = "items",
        *,
        filter_annotations: bool = False,
        remove_empty: bool = False,
    ) -> Dataset:
        """Keeps the items that satisfy a condition.

        Args:
            condition: an XPath expression such as '/item[annotation/label="dog"]', or a function of an item.
            mode: what an expression selects: "items", "annotations" (the others lose their label) or
                "items+annotations" (items left without a label are dropped too).
            filter_annotations: same as mode "annotations".
            remove_empty: together with `filter_annotations`, same as mode "items+annotations".

        Raises:
            UsageError: an expression that cannot be evaluated, or an unknown mode.
        """
        if callable(condition):
            return self.select(condition)
        if filter_annotations:
            mode = "items+annotations" if remove_empty else "annotations"
        return self._then(make_step("filter", {"expression": condition, "mode": mode}))

    def select(self, condition: Callable[[DatasetItem], Any]) -> Dataset:
        """Keeps the items for which a function returns a true value."""
        return self._then(Select(functools.partial(_chosen, condition=condition)))

    def transform(self, name: str | Step, **options: Any) -> Dataset:
        """Applies a transform; docs/transforms.md lists names and options.

        Raises:
            UsageError: an unknown name or option, or an invalid value.
        """
        return self._then(name if isinstance(name, Step) else make_step(name, options))

    def put(self, item: DatasetItem) -> Dataset:
        """Adds an item, replacing one with the same id and subset.

        Raises:
            UsageError: not a `DatasetItem`. Its contents are checked when items are looked at.
        """
        if not isinstance(item, DatasetItem):
            raise UsageError(f"put: expected a DatasetItem, found {type(item).__name__}")
        # Pending removals first: an item removed and then put again must stay.
        key = item_key(item)
        if self._removing:
            self._flush()
        self._waiting[key] = item
        self._touch(key[1])
        if len(self._waiting) >= MAX_ROWS:
            self._flush()
        return self

    def remove(self, id: Any, subset: str = DEFAULT_SUBSET) -> Dataset:
        """Removes an item, and its subset if it was the last one; a missing item is not an error."""
        self._waiting.pop((str(id), subset), None)  # drops an invalid item too, which every flush would refuse
        if self._waiting:
            self._flush()
        self._removing[str(id), subset] = None
        self._touch(subset)
        return self

    def __repr__(self) -> str:
        paths = " + ".join(leaf.shown for leaf in self._source.leaves)
        return f"Dataset({', '.join([paths, *(step.name for step in self._source.steps)])})"

    def __len__(self) -> int:
        return len(self._look()[1])

    def __iter__(self) -> Iterator[DatasetItem]:
        gathering, view = self._look()
        return items_of(view, gathering.snapshot())

    def get(self, id: Any, subset: str = DEFAULT_SUBSET) -> DatasetItem | None:
        """Returns the item with an id in a subset, or None."""
        gathering, view = self._look()
        here = pa.compute.equal(view.ids, str(id)).to_numpy(zero_copy_only=False) & view.subset(subset)
        return next(items_of(view.take(here), gathering.snapshot()), None)

    @property
    def categories(self) -> LabelTable:
        """The label table: classes and superclasses."""
        return self._look()[1].table

    @property
    def subsets(self) -> Mapping[str, Subset]:
        """The non-empty subsets by name, in order."""
        gathering, view = self._look()
        seen = gathering.snapshot()
        members = {name: view.subset(name) for name in view.subset_names}
        return {name: Subset(name, view.take(which), seen) for name, which in members.items() if which.any()}

    def export(
        self,
        save_dir: str | os.PathLike[str],
        format: str,
        *,
        save_images: bool = False,
        save_media: bool = False,
        save_dataset_meta: bool = False,
        image_ext: str | None = None,
        keep_empty_classes: bool = False,
        images_per_batch: int | None = None,
        card: bool = False,
        layout: str | None = None,
        overwrite: bool = False,
        workers: int | None = None,
        beam_options: BeamOptions = (),
    ) -> Summary:
        """Writes the dataset, all or nothing, with the same job as the command line.

        Args:
            save_dir: directory to create.
            format: name of the format.
            save_images: write pixels even if they are optional in the format.
            save_media: same as `save_images`.
            save_dataset_meta: write `dataset_meta.json` if the format supports it.
            image_ext: file extension of images; it also selects their encoding in formats with a file per image.
            keep_empty_classes: also create folders for classes without images.
            images_per_batch: rows per output file; the last of a subset may have fewer.
            card: write a dataset card, `README.md`, and `croissant.json`, if the format supports them.
            layout: "genuine" writes the files of the genuine dataset (`cifar`).
            overwrite: replace an existing output.
            workers: number of local workers; chosen automatically if None.
            beam_options: Beam's own options, as flags or parsed; default: a local runner.

        Raises:
            BeamCifarError: nothing was written; the message is one line.
        """
        options = ExportOptions(
            save_images=save_images or save_media,
            save_dataset_meta=save_dataset_meta,
            image_ext=image_ext,
            keep_empty_classes=keep_empty_classes,
            images_per_batch=images_per_batch,
            card=card,
            layout=layout,
        )
        place = _Place(storage.absolute(os.fspath(save_dir), "output"), format, options)
        self._flush()
        made = self._write(place, self._source, beam_options, overwrite=overwrite, workers=workers)
        self._place, self._changed = place, set()
        return made

    @as_job_errors()
    def save(
        self,
        *,
        save_images: bool | None = None,
        save_media: bool | None = None,
        workers: int | None = None,
        beam_options: BeamOptions = (),
    ) -> Summary | None:
        """Writes the dataset back to where it was imported from or last exported to, all or nothing.

        In formats with a file per subset (`cifar`), files of unchanged subsets are not rewritten, and those of emptied
        subsets are removed. Other files in the directory stay.

        Args:
            save_images: write pixels even if they are optional in the format; as before if None.
            save_media: same as `save_images`.
            workers: number of local workers; chosen automatically if None.
            beam_options: as for `export`.

        Returns:
            None if there was nothing to do.

        Raises:
            BeamCifarError: nothing was written; the message is one line.
        """
        self._flush()
        place = self._place
        if place is None:
            raise UsageError("save: the dataset was neither imported from a directory nor exported; export it first")
        if storage.is_url(place.path):
            raise UsageError(f"save: cannot change {place.path} in place in an object store; export to a new path")
        with_images = place.options.save_images or self._reads(place.path)
        asked = next((each for each in (save_images, save_media) if each is not None), with_images)
        same = asked == with_images
        if self._changed is not None and not self._changed and same:
            return None
        # Some formats write JPEG by default, and images would degrade with every save.
        image_ext = place.options.image_ext or lossless_ext(place.path, place.format)
        # A card that is there already lists the rows of each split, and would stay as it is.
        card = place.options.card or has_card(place.path)
        place = replace(place, options=replace(place.options, save_images=asked, image_ext=image_ext, card=card))
        view = self._look()[1]
        changed = set(view.subset_names) if self._changed is None or not same else self._changed
        kept = tuple(name for name in view.subset_names if name not in changed)
        gone = tuple(("", name) for name in sorted(changed) if not view.subset(name).any())
        source = replace(self._source, steps=(*self._source.steps, Remove(gone))) if gone else self._source
        made = self._write(place, source, beam_options, kept=kept, overwrite=True, workers=workers)
        if self._reads(place.path):
            self._source, self._looked = Input(place.path, place.format, images=self._source.images), None
        self._place, self._changed = place, set()
        return made

    def _write(
        self,
        place: _Place,
        source: Input,
        beam_options: BeamOptions,
        *,
        kept: tuple[str, ...] | None = None,
        overwrite: bool,
        workers: int | None,
    ) -> Summary:
        asked = {**place.options.export_options(), "kept": kept, "overwrite": overwrite, "workers": workers}
        with quiet_imports():  # here and not at the top: looking at items needs no Beam
            convert = load("beam_cifar.pipeline.convert:convert")
        made: Summary = convert(job_of(source, place.path, place.format, **asked), beam_options)
        for notice in made.notices:
            logger.warning("%s", notice)
        return made

    def _reads(self, path: str) -> bool:
        return any(leaf.path == path for leaf in self._source.leaves)

    def _then(self, step: Step) -> Dataset:
        self._flush()
        self._source = replace(self._source, steps=(*self._source.steps, step))
        self._changed = None
        return self

    def _touch(self, subset: str) -> None:
        if self._changed is not None:
            self._changed.add(subset)

    def _flush(self) -> None:
        """Turns pending items into a step: removals or additions, as `put` and `remove` never leave both pending."""
        if self._removing:
            self._source = replace(self._source, steps=(*self._source.steps, Remove(tuple(self._removing))))
            self._removing = {}
        if not self._waiting:
            return
        table = self._look(with_waiting=False)[1].table
        kept = _stored(self._waiting.values(), table)
        self._folders.append(kept)
        self._waiting = {}
        self._source = replace(self._source, steps=(*self._source.steps, Put(kept.name)))

    def _look(self, *, with_waiting: bool = True) -> tuple[Gathering, View]:
        """Returns all rows, with the columns that items need besides their images.

        Applies the steps added since the last look. If one fails, it is dropped together with those after it.
        """
        if with_waiting:
            self._flush()
        steps = self._source.steps
        needed = ITEM_COLUMNS.union(*(step.needs() for step in steps))
        if self._looked is None or not needed <= self._looked.gathering.columns:
            index = storage.TemporaryFolder()
            self._looked = _Looked(*look(replace(self._source, steps=()), (), index.name, needed), index)
        looked = self._looked
        for number in range(looked.steps, len(steps)):
            try:
                looked.view = looked.gathering.extend(looked.view, steps[number])
            except BeamCifarError:
                self._source = replace(self._source, steps=steps[:number])
                raise
            looked.steps = number + 1
        # Items read later need these folders, even if the dataset is gone by then.
        looked.gathering.held = [*self._folders, looked.index]
        return looked.gathering, looked.view


@dataclass
class _Looked:
    """What is known of a dataset: its files, and its rows after `steps` steps; `index` has its unpacked archives."""

    gathering: Gathering
    view: View
    index: storage.TemporaryFolder
    steps: int = 0


class Subset:
    """One subset of a dataset: an iterable of its items."""

    def __init__(self, name: str, view: View, gathering: Gathering) -> None:
        self.name = name
        self._view, self._gathering = view, gathering

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[DatasetItem]:
        return items_of(self._view, self._gathering)

    def __repr__(self) -> str:
        return f"Subset({self.name!r}, {counted(len(self), 'item')})"


def _stored(
    items: Iterable[DatasetItem], labels: LabelTable, parent: str | os.PathLike[str] | None = None
) -> storage.TemporaryFolder:
    """Returns a new folder with items, which is removed when it is no longer used."""
    kept = storage.TemporaryFolder(parent)
    try:
        write_items((example_of(item, labels) for item in items), labels, kept.name)
    except BaseException:
        kept.remove()  # now, not when the exception that refers to it is forgotten
        raise
    return kept


def items_of(view: View, gathering: Gathering) -> Iterator[DatasetItem]:
    """Yields the items of a view with ids and file names; images are read on access, a batch at a time."""
    images, sizes, held = view.has_image, gathering.file_bytes(), row_bytes(gathering.pixel_steps)
    start = 0
    while start < len(view):
        ahead = view.files[start : start + MAX_ROWS]
        largest = max(1, held, *(sizes[file] for file in np.unique(ahead)))
        stop = start + int(min(len(ahead), max(1, MAX_BYTES // largest)))
        rows = _Images(view.take(np.arange(start, stop)), gathering)
        ids, filenames = (column.slice(start, stop - start).to_pylist() for column in (view.ids, view.filenames))  # type: ignore[union-attr]
        for at, (item_id, filename, number) in enumerate(zip(ids, filenames, range(start, stop), strict=True)):
            label = int(view.labels[number])
            yield DatasetItem(
                id=item_id,
                subset=view.subset_names[view.subsets[number]],
                image=Image(functools.partial(rows.get, at), filename) if images[number] else None,
                annotations=() if label < 0 else (Label(label),),
            )
        start = stop


class _Images:
    """The images of some rows, all of which are read on first access.

    Args:
        view: the rows.
        gathering: their inputs, and the pixel steps so far; steps added later do not apply.
    """

    def __init__(self, view: View, gathering: Gathering) -> None:
        self._view, self._inputs, self._steps = view, gathering.inputs(), tuple(gathering.pixel_steps)
        self._held = gathering
        self._table: pa.Table | None = None

    def get(self, row: int) -> UInt8Array | bytes:
        """Returns pixels, uint8 `[H, W, C]`, or the bytes of an encoded image."""
        # All at once, so that a file of a thousand images is not opened a thousand times.
        if self._table is None:
            self._table = self._read()
        image = self._table.column("image")[row]
        if self._table.column("encoding")[row].as_py() != RAW:
            encoded: bytes = image.as_py()
            return encoded
        shape = [self._table.column(name)[row].as_py() for name in ("channels", "height", "width")]
        planar = np.frombuffer(image.as_buffer(), dtype=np.uint8).reshape(shape)
        return np.ascontiguousarray(planar.transpose(1, 2, 0))

    def _read(self) -> pa.Table:
        tables = read_rows(self._view.files, self._view.rows, self._inputs, row_bytes=row_bytes(self._steps))
        blocks = (Block(table, 0, 0, 0, last=False, read=Counter()) for table in tables)
        return pa.concat_tables(changed(block, self._steps).table for block in blocks)


def _chosen(view: View, context: Any, condition: Callable[[DatasetItem], Any]) -> list[bool]:
    return [bool(condition(item)) for item in items_of(view, context)]
