"""Rules that hold the design together."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import beam_cifar
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.registry import INTERNAL, get_sink, get_source, readable, writable
from tests.helpers.tables import table_of_steps

PACKAGE = Path(beam_cifar.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
ROOMS = (
    *(
        "__main__",
        "cli",
        "__init__",
        "beam",
        "testing",
        "dataset",
        "report",
        "analysis",
        "pipeline",
        "jobs",
        "planning",
        "options",
    ),
    *("steps", "samples", "formats", "storage", "pickles", "filters", "naming", "images", "data", "errors", "version"),
)
"""From the top down: a room imports from those behind it, and from itself."""

FACE = "__init__"
LATE = {"cli", "__main__"}
"""Where imports of the package's own modules may stand in functions: a command imports what it needs when it runs."""


def modules(*names: str) -> list[Path]:
    return [path for name in names for path in sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / name]]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in modules(".")}


def own_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a module of the package, wherever it stands: the statement, and which module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, name.name[11:]) for name in node.names if name.name.startswith("beam_cifar."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "beam_cifar":
            place = (node.module or "")[11:]
            for name in node.names:
                whole = f"{place}.{name.name}".strip(".")
                yield node, whole if whole in MODULES else place or FACE


def room(module: str) -> int:
    return ROOMS.index(module.split(".")[0])


EDGES = {
    name: {module for _, module in own_imports(ast.parse(path.read_text(encoding="utf-8")))}
    for name, path in MODULES.items()
}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    assert not {other for other in EDGES[name] if room(other) < room(name)}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports in functions and for checkers alone count as well."""
    left = {name: set(found) - {name} for name, found in EDGES.items()}
    while free := [name for name, found in left.items() if not found & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] not in LATE])
def test_no_import_of_the_package_is_late(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in tree.body:  # what only checkers see is not late, and counts in the tests above
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            top |= {id(inner) for inner in node.body}
    assert not [module for node, module in own_imports(tree) if id(node) not in top]


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] != "pipeline"])
def test_only_the_pipeline_imports_beam(name: str) -> None:
    assert not {found for found in imports(MODULES[name]) if found.split(".")[0] == "apache_beam"}


def test_few_modules_stand_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 7


def test_checkers_see_what_is_loaded() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        node.names[0].name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].asname
    }
    seen.pop("__version__")
    assert seen == {name: f"beam_cifar.{module}" for name, module in beam_cifar._PUBLIC.items()}


@pytest.mark.parametrize("path", modules("."), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_an_unpickler(path: Path) -> None:
    assert not imports(path) & {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@pytest.mark.parametrize("path", modules("."), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_asserts_on_input(path: Path) -> None:
    assert not [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Assert)]


@pytest.mark.parametrize("path", modules("."), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_who_computes_with_arrow_imports_that(path: Path) -> None:
    """`import pyarrow` leaves it out: a command that nothing else loads it for would fail."""
    used = "pa.compute." in path.read_text(encoding="utf-8")
    assert not used or "pyarrow.compute" in imports(path)


@pytest.mark.parametrize("path", modules("formats/kit"), ids=lambda path: path.name)
def test_what_formats_share_knows_none_of_them(path: Path) -> None:
    known = ("formats.contract", "formats.kit")
    found = EDGES[module_name(path)]
    assert not {name for name in found if name.startswith("formats") and not name.startswith(known)}


def test_every_format_is_in_the_registry() -> None:
    assert [get_source(name).name for name in (*readable(), *INTERNAL)] == [*readable(), *INTERNAL]
    assert [get_sink(name).name for name in writable()] == writable()
    assert {kind.name for kind in below(Source) if "name" in vars(kind)} == {*readable(), *INTERNAL}  # type: ignore[attr-defined]
    assert {kind.name for kind in below(Sink) if "name" in vars(kind)} == set(writable())  # type: ignore[attr-defined]


def test_the_page_of_transforms_has_all_of_them() -> None:
    """To mend it: python -c 'from tests.helpers.tables import *; print(table_of_steps())'."""
    assert table_of_steps() in (PACKAGE.parent / "docs" / "transforms.md").read_text(encoding="utf-8")


def below(kind: type) -> set[type]:
    """All classes of the package that derive from one."""
    found = {each for each in kind.__subclasses__() if each.__module__.startswith("beam_cifar.")}  # type: ignore[var-annotated]
    return found.union(*map(below, found))


def test_the_guarantees_list_the_exit_codes() -> None:
    page = (PACKAGE.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "129", "130", "143"]


def test_the_readme_is_a_page() -> None:
    assert len(README.splitlines()) <= 150


def test_public_names_are_importable_in_any_order() -> None:
    code = "import beam_cifar.pipeline.convert; from beam_cifar import convert; convert.__call__"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in beam_cifar.__all__:
        assert getattr(beam_cifar, name) is not None
