"""A project: references to datasets and the steps applied to them, in one readable file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from beam_cifar import storage
from beam_cifar.data.labels import unknown_name
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.registry import READ
from beam_cifar.options import ON_CLASH, Input
from beam_cifar.steps.base import Step
from beam_cifar.steps.registry import make_step

FILE_NAME = "beam_cifar.json"
_VERSION = 1
_MAX_BYTES = 16 << 20
"""Limit of a project file: enough for thousands of datasets and transforms, without filling the memory."""


@dataclass(frozen=True)
class ProjectSource:
    """A dataset of a project.

    Attributes:
        name: name in the project.
        path: absolute path of the directory or archive.
        format: name of the format; detected if None.
        subsets: names of the subsets to read; all if empty.
    """

    name: str
    path: str
    format: str | None = None
    subsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """Datasets to merge, and the steps to apply afterwards.

    Attributes:
        name: display name.
        sources: the datasets, in order.
        steps: the steps applied to their items, in order.
        on_clash: how to resolve items with the same id and subset in several datasets; see `ON_CLASH`.

    Raises:
        UsageError: a name that is empty or repeats, or an unknown `on_clash`.
    """

    name: str
    sources: tuple[ProjectSource, ...] = ()
    steps: tuple[Step, ...] = ()
    on_clash: str = "error"

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for source in self.sources:
            if source.name in seen:
                raise UsageError(f"source {source.name!r} already exists; choose another name")
            seen.add(source.name)
        if not self.name or "" in seen:
            raise UsageError("the name of the project or of a source is empty")
        if self.on_clash not in ON_CLASH:
            raise unknown_name("on_clash", self.on_clash, ON_CLASH)

    @staticmethod
    def load(folder: str) -> Project:
        """Reads the project in a folder.

        Raises:
            InputError: the project file is unreadable or invalid.
            UsageError: the folder has no project file.
        """
        path = project_file(folder)
        if not os.path.lexists(path):
            raise UsageError(f"no project in {folder} ({FILE_NAME} is missing); create one with beam-cifar create")
        return _Reader(path).read()

    def save(self, folder: str) -> None:
        """Writes the project file atomically; the folder must exist. Raises `JobError`."""
        path = project_file(folder)
        with storage.writing(path):
            storage.write_whole(path, self.text(folder).encode("utf-8", "surrogatepass"), os.path.dirname(path))

    def text(self, folder: str) -> str:
        """Returns the content of the project file; paths inside the folder are relative to it."""
        content = {
            "beam_cifar_project": _VERSION,
            "name": self.name,
            "sources": [
                {**asdict(source), "path": reference(source.path, os.path.abspath(folder))} for source in self.sources
            ],
            "transforms": [{"name": step.name, "options": step.options() | step.paths()} for step in self.steps],
            "on_clash": self.on_clash,
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"

    def source(self) -> Input:
        """Returns the whole project as one input. Raises `UsageError` if it has no sources."""
        if not self.sources:
            raise UsageError("the project has no sources; add one with beam-cifar import")
        first, *others = [Input(source.path, source.format, source.subsets) for source in self.sources]
        return replace(first, merged=tuple(others), on_clash=self.on_clash, steps=self.steps)


def project_file(folder: str) -> str:
    """Returns the absolute path of the project file in a folder."""
    if storage.is_url(folder):
        raise UsageError(f"project {folder!r}: must be a local folder, not in an object store")
    return os.path.join(storage.absolute(folder, "project"), FILE_NAME)


def reference(path: str, folder: str) -> str:
    """Returns a path as the project in a folder stores it: relative, with "/", if inside the folder, else absolute."""
    if path != folder and not path.startswith(folder.rstrip(os.sep) + os.sep):
        return path
    return os.path.relpath(path, folder).replace(os.sep, "/")


class _Reader:
    """Reads a project file strictly, refusing unknown content; relative paths start at its folder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> Project:
        """Returns the project. Raises `InputError`."""
        content = self._json()
        if not isinstance(content, dict) or "beam_cifar_project" not in content:
            self._refuse("not a project: expected an object with 'beam_cifar_project'")
        version = content["beam_cifar_project"]
        # Compared by type too, because True == 1 and 1.0 == 1.
        if type(version) is not int or version != _VERSION:
            self._refuse(f"beam_cifar_project must be {_VERSION}, found {_shown(version)}; another version wrote it")
        keys = ("beam_cifar_project", "name", "sources", "transforms", "on_clash")
        _, name, sources, transforms, on_clash = self._object(content, "", keys)
        try:
            return Project(
                name=self._text(name, "name"),
                sources=tuple(self._source(each, where) for where, each in self._numbered(sources, "sources")),
                steps=tuple(self._step(each, where) for where, each in self._numbered(transforms, "transforms")),
                on_clash=self._text(on_clash, "on_clash"),
            )
        except UsageError as error:
            self._refuse(str(error))

    def _json(self) -> Any:
        if not os.path.isfile(self._path):
            self._refuse("not a file")
        with storage.reading(self._path), open(self._path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            self._refuse(f"larger than {_MAX_BYTES >> 20} MiB")
        try:
            return json.loads(
                data.decode("utf-8", "surrogatepass"), object_pairs_hook=_unique_keys, parse_constant=_no_number
            )
        except RecursionError:
            self._refuse("nested too deeply")
        except ValueError as error:
            self._refuse(f"not valid JSON: {error}")

    def _source(self, value: Any, where: str) -> ProjectSource:
        name, path, format_name, subsets = self._object(value, where, ("name", "path", "format", "subsets"))
        path = self._text(path, f"{where}.path")
        if not path or "\0" in path:
            self._refuse(f"{where}.path: expected a path, found {_shown(path)}")
        if format_name is not None and self._text(format_name, f"{where}.format") not in READ:
            self._refuse(f"{where}.format: {unknown_name('format', format_name, list(READ))}")
        names = self._numbered(subsets, f"{where}.subsets")
        return ProjectSource(
            name=self._text(name, f"{where}.name"),
            path=os.path.normpath(os.path.join(os.path.dirname(self._path), path)),
            format=format_name,
            subsets=tuple(self._text(each, here) for here, each in names),
        )

    def _step(self, value: Any, where: str) -> Step:
        name, options = self._object(value, where, ("name", "options"))
        if not isinstance(options, dict):
            self._refuse(f"{where}.options: expected an object, found {_shown(options)}")
        try:
            return make_step(self._text(name, f"{where}.name"), options)
        except UsageError as error:
            self._refuse(f"{where}: {error}")

    def _object(self, value: Any, where: str, keys: Sequence[str]) -> list[Any]:
        """Returns the values of an object that has exactly these keys."""
        where = f"{where}: " if where else ""
        if not isinstance(value, dict):
            self._refuse(f"{where}expected an object, found {_shown(value)}")
        for key in value:
            if key not in keys:
                self._refuse(f"{where}{unknown_name('key', key, keys)}")
        for key in keys:
            if key not in value:
                self._refuse(f"{where}{key!r} is missing")
        return [value[key] for key in keys]

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            self._refuse(f"{where}: expected a string, found {_shown(value)}")
        return value

    def _numbered(self, value: Any, where: str) -> list[tuple[str, Any]]:
        """Returns the values of a list, each with its place for messages."""
        if not isinstance(value, list):
            self._refuse(f"{where}: expected a list, found {_shown(value)}")
        return [(f"{where}[{at}]", each) for at, each in enumerate(value)]

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(f"{self._path}: {reason}")


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:40]!r} appears twice in one object")
        found[key] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _shown(value: Any) -> str:
    """A short description of a JSON value."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
