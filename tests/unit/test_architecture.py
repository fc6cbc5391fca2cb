"""Rules that hold the design together."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import beam_cifar
from beam_cifar.cli.main import make_parser
from beam_cifar.formats import FORMATS, INTERNAL, get_sink, get_source, readable, writable
from beam_cifar.formats.base import Sink, Source
from beam_cifar.steps import markdown

PACKAGE = Path(beam_cifar.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
PURE = ["formats", "storage", "pickles", "images", "plan.py", "labels.py", "archives.py", "block.py", "example.py"]
PURE += [
    "cutting.py",
    "clashes.py",
    "layout.py",
    "names.py",
    "row_names.py",
    "selection.py",
    "xpath.py",
    "xpath_syntax.py",
    "view.py",
    "steps",
    "merging.py",
    "row_plan.py",
    "gathering.py",
    "chosen.py",
    "items.py",
    "in_place.py",
    "options.py",
    "project.py",
    "tally.py",
    "measures.py",
    "matching.py",
]


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


@pytest.mark.parametrize("path", modules(*PURE), ids=lambda path: path.name)
def test_pure_modules_do_not_import_beam(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "apache_beam"}


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


@pytest.mark.parametrize("path", modules("formats/shared"), ids=lambda path: path.name)
def test_what_formats_share_knows_none_of_them(path: Path) -> None:
    known = ("beam_cifar.formats.base", "beam_cifar.formats.shared")
    assert not {name for name in imports(path) if name.startswith("beam_cifar.formats.") and not name.startswith(known)}


def test_every_format_is_in_the_registry() -> None:
    assert [get_source(name).name for name in (*readable(), *INTERNAL)] == [*readable(), *INTERNAL]
    assert [get_sink(name).name for name in writable()] == writable()
    assert {kind.name for kind in below(Source) if "name" in vars(kind)} == {*readable(), *INTERNAL}
    assert {kind.name for kind in below(Sink) if "name" in vars(kind)} == set(writable())


def test_the_page_of_transforms_has_all_of_them() -> None:
    """To mend it: python -c 'import beam_cifar.steps as s; print(s.markdown())'."""
    assert markdown() in (PACKAGE.parent / "docs" / "transforms.md").read_text(encoding="utf-8")


def below(kind: type) -> set[type]:
    """All classes of the package that derive from one."""
    found = {each for each in kind.__subclasses__() if each.__module__.startswith("beam_cifar.")}
    return found.union(*map(below, found))


def test_the_readme_documents_every_flag_command_and_format() -> None:
    commands = make_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for command, parser in commands.items():  # type: ignore[union-attr]
        assert f"beam-cifar {command}" in README
        for action in parser._actions:
            for flag in action.option_strings:
                assert f"`{flag}" in README or re.search(rf"[` ]{re.escape(flag)}[` =\n]", README), (command, flag)
    for name, entry in FORMATS.items():
        assert re.search(rf"\| \[`{name}`\]\(.*{re.escape(entry.title)}", README), name


def test_the_readme_gives_the_exit_codes() -> None:
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert re.search(rf"\| {code} \|", README)


def test_public_names_are_importable_in_any_order() -> None:
    code = "import beam_cifar.pipeline; from beam_cifar import convert; convert.__call__"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in beam_cifar.__all__:
        assert getattr(beam_cifar, name) is not None
