"""A project: datasets by reference, and what is done to them, in one file that people can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from beam_cifar import storage
from beam_cifar.data.labels import unknown_name
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.registry import readable
from beam_cifar.options import ON_CLASH, Input
from beam_cifar.steps.base import Step
from beam_cifar.steps.registry import make_step

FILE_NAME = "beam_cifar.json"
_VERSION = 1
_MAX_BYTES = 16 << 20
"""Of a project's file: thousands of datasets and transforms, but nothing that fills the memory."""


@dataclass(frozen=True)
class ProjectSource:
    """A dataset of a project.

    Attributes:
        name: what the project calls it.
        path: absolute, of its directory or archive.
        format: name of its format; detected if None.
        subsets: names of the subsets to read; all if empty.
    """

    name: str
    path: str
    format: str | None = None
    subsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """Datasets that are merged, and steps that follow.

    Attributes:
        name: for people.
        sources: the datasets, in order.
        steps: what is done to their items, in order.
        on_clash: what becomes of items that have the same id and subset in several datasets; see `ON_CLASH`.

    Raises:
        UsageError: names that are empty or repeat, or an unknown rule for clashes.
    """

    name: str
    sources: tuple[ProjectSource, ...] = ()
    steps: tuple[Step, ...] = ()
    on_clash: str = "error"

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for source in self.sources:
            if source.name in seen:
                raise UsageError(f"there is a source {source.name!r} already; give another name")
            seen.add(source.name)
        if not self.name or "" in seen:
            raise UsageError("a name is empty")
        if self.on_clash not in ON_CLASH:
            raise unknown_name("rule for clashes", self.on_clash, ON_CLASH)

    @staticmethod
    def load(folder: str) -> Project:
        """The project of a folder.

        Raises:
            InputError: its file cannot be read, or is not what `save` writes.
            UsageError: there is none.
        """
        path = project_file(folder)
        if not os.path.lexists(path):
            raise UsageError(f"no project in {folder} ({FILE_NAME} is missing); beam-cifar create makes one")
        return _Reader(path).read()

    def save(self, folder: str) -> None:
        """Writes the file of the project, whole or not at all; the folder must be there. Raises `JobError`."""
        path = project_file(folder)
        with storage.writing(path):
            storage.write_whole(path, self.text(folder).encode("utf-8", "surrogatepass"), os.path.dirname(path))

    def text(self, folder: str) -> str:
        """What the file of the project holds in a folder: paths of data that lie below it are relative to it."""
        content = {
            "beam_cifar_project": _VERSION,
            "name": self.name,
            "sources": [
                {**asdict(source), "path": reference(source.path, os.path.abspath(folder))} for source in self.sources
            ],
            "transforms": [{"name": step.name, "options": step.options()} for step in self.steps],
            "on_clash": self.on_clash,
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"

    def source(self) -> Input:
        """What the project holds, as one input. Raises `UsageError` if it has no sources."""
        if not self.sources:
            raise UsageError("no sources; beam-cifar import adds one")
        first, *others = [Input(source.path, source.format, source.subsets) for source in self.sources]
        return replace(first, merged=tuple(others), on_clash=self.on_clash, steps=self.steps)


def project_file(folder: str) -> str:
    """The absolute path of the file that makes a folder a project."""
    if storage.is_url(folder):
        raise UsageError(f"project {folder!r}: a project lies in a local folder, not in an object store")
    return os.path.join(storage.absolute(folder, "project"), FILE_NAME)


def reference(path: str, folder: str) -> str:
    """How the project of a folder names a path: relative, with "/", if it lies below the folder, else absolute."""
    if path != folder and not path.startswith(folder.rstrip(os.sep) + os.sep):
        return path
    return os.path.relpath(path, folder).replace(os.sep, "/")


class _Reader:
    """Reads the file of a project strictly: what it does not know, it refuses. Relative paths start from its folder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> Project:
        """The project. Raises `InputError`."""
        content = self._json()
        if not isinstance(content, dict) or "beam_cifar_project" not in content:
            self._refuse("is no project: expected an object with 'beam_cifar_project'")
        version = content["beam_cifar_project"]
        # By type, because True == 1, and 1.0 as well.
        if type(version) is not int or version != _VERSION:
            self._refuse(f"beam_cifar_project: expected {_VERSION}, found {_shown(version)}; another version wrote it")
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
            self._refuse("is not a file")
        with storage.reading(self._path), open(self._path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            self._refuse(f"is larger than {_MAX_BYTES >> 20} MiB")
        try:
            return json.loads(
                data.decode("utf-8", "surrogatepass"), object_pairs_hook=_unique_keys, parse_constant=_no_number
            )
        except RecursionError:
            self._refuse("is nested too deeply")
        except ValueError as error:
            self._refuse(f"is not JSON: {error}")

    def _source(self, value: Any, where: str) -> ProjectSource:
        name, path, format_name, subsets = self._object(value, where, ("name", "path", "format", "subsets"))
        path = self._text(path, f"{where}.path")
        if not path or "\0" in path:
            self._refuse(f"{where}.path: expected a path, found {_shown(path)}")
        if format_name is not None and self._text(format_name, f"{where}.format") not in readable():
            self._refuse(f"{where}.format: {unknown_name('format', format_name, readable())}")
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
        """The values of an object that has these keys and no others."""
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
            self._refuse(f"{where}: expected a text, found {_shown(value)}")
        return value

    def _numbered(self, value: Any, where: str) -> list[tuple[str, Any]]:
        """The values of a list, each with where it stands."""
        if not isinstance(value, list):
            self._refuse(f"{where}: expected a list, found {_shown(value)}")
        return [(f"{where}[{at}]", each) for at, each in enumerate(value)]

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(f"{self._path}: {reason}")


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} stands twice in one object")
        found[key] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _shown(value: Any) -> str:
    """A value of JSON in a few words."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
