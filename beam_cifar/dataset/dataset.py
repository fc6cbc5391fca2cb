"""A dataset in Python: where it comes from, what is done to it, where it goes. Nothing is read before it must be.

`export` runs the same job as the command line. Looking at items (`len`, iteration, `categories`, `subsets`) reads
labels and names only; pixels are read when an item's image is asked for.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import weakref
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
from beam_cifar.errors import BeamCifarError, UsageError
from beam_cifar.formats.contract.types import ExportOptions
from beam_cifar.formats.items import write_items
from beam_cifar.images.encodings import RAW
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
    """Where a dataset lies that `save` can write back to, and how it was written, or would be."""

    path: str
    format: str
    options: ExportOptions


class Dataset:
    """Images with labels, in subsets. Made by `import_from`, `from_iterable` or `merge`.

    What changes it (`filter`, `transform`, `select`, `put`, `remove`) is noted, returns the dataset itself, and is
    done when items are looked at or exported.

    >>> from beam_cifar import Dataset
    >>> dogs = Dataset.import_from("cifar10").filter('/item[annotation/label="dog"]')
    >>> len(dogs), dogs.export("dogs", "imagenet").written
    (6, 6)
    """

    def __init__(self, source: Input, folders: Sequence[_Folder] = ()) -> None:
        self._source = source
        self._folders = list(folders)
        self._waiting: dict[tuple[str, str], DatasetItem] = {}
        self._removing: dict[tuple[str, str], None] = {}
        self._looked: _Looked | None = None
        self._place: _Place | None = None
        self._changed: set[str] | None = set()

    @classmethod
    def import_from(
        cls, path: str | os.PathLike[str], format: str | None = None, *, subsets: Sequence[str] = ()
    ) -> Dataset:
        """A dataset on disk.

        Args:
            path: its directory or archive.
            format: name of its format; detected if None.
            subsets: names of the subsets to read, or "train" / "test" for all batches of that split; all if empty.

        Raises:
            InputError: nothing there, or not recognised.
            UsageError: an unknown format or subset.
        """
        index = _Folder(None)
        catalog = find_catalog(os.fspath(path), format, index.name)
        select_files(catalog, tuple(subsets))  # refuses an unknown one
        is_folder = os.path.isdir(catalog.path)
        root = catalog.root or catalog.path
        made = cls(Input(root, catalog.format, tuple(subsets)))
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
        """A dataset of items, which are read once, and kept on disk until the dataset goes.

        Args:
            items: any number of them; no more than a thousand are held.
            categories: names of the classes, or pairs of name and superclass, or a `LabelTable`.
            folder: an existing folder to keep them in, one that all workers see; a temporary one if None.

        Raises:
            InputError: an item that cannot be kept without loss, or an id that is there twice in a subset.
            UsageError: categories that are none.
        """
        labels = table_of_categories(categories)
        kept = _Folder(folder)
        write_items((example_of(item, labels) for item in items), labels, kept.name)
        return cls(Input(kept.name, "items"), [kept])

    @classmethod
    def merge(cls, *datasets: Dataset, on_clash: str = "error") -> Dataset:
        """One dataset of several: classes by name, items by id and subset.

        Args:
            datasets: two or more; each with what is done to it.
            on_clash: what becomes of items that have the same id and subset in several of them: "error", "suffix" (the
                later ones get other ids) or "first" (the later ones are dropped).

        Raises:
            UsageError: an unknown rule. What contradicts each other is found when items are looked at.
        """
        for dataset in datasets or ("nothing",):
            if not isinstance(dataset, Dataset):
                raise UsageError(f"merge: expected one Dataset after the other, found {dataset!r}")
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
        """Keeps the items for which a condition holds.

        Args:
            condition: an XPath expression such as '/item[annotation/label="dog"]', or a function of an item.
            mode: what an expression selects: "items", "annotations" (the others lose their label) or
                "items+annotations" (and items without any left are dropped).
            filter_annotations: the same as mode "annotations".
            remove_empty: with it, the same as mode "items+annotations".

        Raises:
            UsageError: an expression that cannot be evaluated, or an unknown mode.
        """
        if callable(condition):
            return self.select(condition)
        if filter_annotations:
            mode = "items+annotations" if remove_empty else "annotations"
        return self._then(make_step("filter", {"expression": condition, "mode": mode}))

    def select(self, condition: Callable[[DatasetItem], Any]) -> Dataset:
        """Keeps the items for which a function of an item gives something true."""
        return self._then(Select(functools.partial(_chosen, condition=condition)))

    def transform(self, name: str | Step, **options: Any) -> Dataset:
        """Adds a transform; `beam_cifar.steps.registry.STEPS` has their names, and the README their options.

        Raises:
            UsageError: an unknown name or option, or a value that cannot be meant.
        """
        return self._then(name if isinstance(name, Step) else make_step(name, options))

    def put(self, item: DatasetItem) -> Dataset:
        """Adds an item; one of the same id and subset is replaced.

        Raises:
            UsageError: something that is no item. What it holds is checked when items are looked at.
        """
        if not isinstance(item, DatasetItem):
            raise UsageError(f"put: expected a DatasetItem, found {type(item).__name__}")
        # An item that was removed and is put again must come back: what is removed comes first.
        key = item_key(item)
        if self._removing:
            self._flush()
        self._waiting[key] = item
        self._touch(key[1])
        if len(self._waiting) >= MAX_ROWS:
            self._flush()
        return self

    def remove(self, id: Any, subset: str = DEFAULT_SUBSET) -> Dataset:
        """Removes an item, and its subset with the last one; an item that is not there is no error."""
        self._waiting.pop((str(id), subset), None)  # also one that cannot be kept, which would be refused for ever
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
        """The item of an id in a subset; None if there is none."""
        gathering, view = self._look()
        here = pa.compute.equal(view.ids, str(id)).to_numpy(zero_copy_only=False) & view.subset(subset)
        return next(items_of(view.take(here), gathering.snapshot()), None)

    @property
    def categories(self) -> LabelTable:
        """Classes and superclasses."""
        return self._look()[1].table

    @property
    def subsets(self) -> Mapping[str, Subset]:
        """The subsets that have items, by name, in order."""
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
        overwrite: bool = False,
        workers: int | None = None,
        beam_options: BeamOptions = (),
    ) -> Summary:
        """Writes the dataset, all or nothing; the job is that of the command line.

        Args:
            save_dir: the directory to make.
            format: name of the format.
            save_images: write pixels also where the format can do without them.
            save_media: the same.
            save_dataset_meta: write `dataset_meta.json` where the format knows it.
            image_ext: extension of the files, which also chooses the encoding where images are files.
            keep_empty_classes: make a folder also for classes without images.
            images_per_batch: rows of every output file but the last of a subset.
            overwrite: replace an existing output.
            workers: local workers; None chooses.
            beam_options: Beam's own options, as flags or parsed; a local runner without any.

        Raises:
            BeamCifarError: the one line that explains why nothing was written.
        """
        options = ExportOptions(
            save_images=save_images or save_media,
            save_dataset_meta=save_dataset_meta,
            image_ext=image_ext,
            keep_empty_classes=keep_empty_classes,
            images_per_batch=images_per_batch,
        )
        place = _Place(storage.absolute(os.fspath(save_dir), "output"), format, options)
        self._flush()
        made = self._write(place, self._source, beam_options, overwrite=overwrite, workers=workers)
        self._place, self._changed = place, set()
        return made

    def save(
        self,
        *,
        save_images: bool | None = None,
        save_media: bool | None = None,
        workers: int | None = None,
        beam_options: BeamOptions = (),
    ) -> Summary | None:
        """Writes the dataset back to where it was imported from, or exported to last, all or nothing.

        Files of subsets that did not change stay the same files, where a format has one for each subset (`cifar`);
        those of subsets without items go. What else lies in the directory stays.

        Args:
            save_images: write pixels where the format can do without them; as before, if None.
            save_media: the same.
            workers: local workers; None chooses.
            beam_options: as for `export`.

        Returns:
            None if there was nothing to do.

        Raises:
            BeamCifarError: the one line that explains why nothing was written.
        """
        self._flush()
        place = self._place
        if place is None:
            raise UsageError("save: the dataset was neither imported from a directory nor exported; export it first")
        if storage.is_url(place.path):
            raise UsageError(f"save: {place.path} lies in an object store, and is not changed in place; export it anew")
        with_images = place.options.save_images or self._reads(place.path)
        asked = next((each for each in (save_images, save_media) if each is not None), with_images)
        same = asked == with_images
        if self._changed is not None and not self._changed and same:
            return None
        # As JPEG, the usual choice of some formats, images would lose a little with every save.
        image_ext = place.options.image_ext or lossless_ext(place.path, place.format)
        place = replace(place, options=replace(place.options, save_images=asked, image_ext=image_ext))
        view = self._look()[1]
        changed = set(view.subset_names) if self._changed is None or not same else self._changed
        kept = tuple(name for name in view.subset_names if name not in changed)
        gone = tuple(("", name) for name in sorted(changed) if not view.subset(name).any())
        source = replace(self._source, steps=(*self._source.steps, Remove(gone))) if gone else self._source
        made = self._write(place, source, beam_options, kept=kept, overwrite=True, workers=workers)
        if self._reads(place.path):
            self._source, self._looked = Input(place.path, place.format), None
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
        with quiet_imports():  # not before something is written: looking at items needs no Beam
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
        """Notes the items that were removed or put: one after the other, never both."""
        if self._removing:
            self._source = replace(self._source, steps=(*self._source.steps, Remove(tuple(self._removing))))
            self._removing = {}
        if not self._waiting:
            return
        table = self._look(with_waiting=False)[1].table
        kept = _Folder(None)
        write_items((example_of(item, table) for item in self._waiting.values()), table, kept.name)
        self._folders.append(kept)
        self._waiting = {}
        self._source = replace(self._source, steps=(*self._source.steps, Put(kept.name)))

    def _look(self, *, with_waiting: bool = True) -> tuple[Gathering, View]:
        """All rows, as far as items show them without their images.

        What was done since the last look is done now. A step that is refused is taken back, with those after it.
        """
        if with_waiting:
            self._flush()
        steps = self._source.steps
        needed = ITEM_COLUMNS.union(*(step.needs() for step in steps))
        if self._looked is None or not needed <= self._looked.gathering.columns:
            index = _Folder(None)
            self._looked = _Looked(*look(replace(self._source, steps=()), (), index.name, needed), index)
        looked = self._looked
        for number in range(looked.steps, len(steps)):
            try:
                looked.view = looked.gathering.extend(looked.view, steps[number])
            except BeamCifarError:
                self._source = replace(self._source, steps=steps[:number])
                raise
            looked.steps = number + 1
        # What is read must stay, also without the dataset; what is unpacked of archives, until the next first look.
        looked.gathering.held = [*self._folders, looked.index]
        return looked.gathering, looked.view


@dataclass
class _Looked:
    """What was seen of a dataset: files, and rows after so many steps; `index` has its unpacked archives."""

    gathering: Gathering
    view: View
    index: _Folder
    steps: int = 0


class Subset:
    """The items of one subset."""

    def __init__(self, name: str, view: View, gathering: Gathering) -> None:
        self.name = name
        self._view, self._gathering = view, gathering

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[DatasetItem]:
        return items_of(self._view, self._gathering)

    def __repr__(self) -> str:
        return f"Subset({self.name!r}, {len(self)} items)"


class _Folder:
    """A folder for items in another one, or a temporary one, which goes when nothing uses it any more."""

    def __init__(self, parent: str | os.PathLike[str] | None) -> None:
        self.name = tempfile.mkdtemp(prefix="beam_cifar-", dir=parent)
        # `__del__` would come too late, or never, at the end of the interpreter.
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


def items_of(view: View, gathering: Gathering) -> Iterator[DatasetItem]:
    """The items of a view with ids and file names; images are read when they are asked for, some at a time."""
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
    """The images of some rows, all read with the first one that is asked for.

    Args:
        view: the rows.
        gathering: what is known of them; what it says is done to images by now counts, not what follows.
    """

    def __init__(self, view: View, gathering: Gathering) -> None:
        self._view, self._inputs, self._steps = view, gathering.inputs(), tuple(gathering.pixel_steps)
        self._held = gathering
        self._table: pa.Table | None = None

    def get(self, row: int) -> UInt8Array | bytes:
        """Pixels, uint8 `[H, W, C]`, or an encoded image as it is."""
        # All at once: a file of a thousand images is not opened a thousand times.
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
