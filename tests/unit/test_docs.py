"""The pages: one for each format, alike and true; and a place for every flag and every public name."""

from __future__ import annotations

import argparse
import re

import pytest

import beam_cifar
import beam_cifar.beam
import beam_cifar.testing
from beam_cifar.cli.main import make_parser
from beam_cifar.formats.contract.sink import LOSSES
from beam_cifar.formats.registry import FORMATS, get_sink
from docs_hooks.cli_reference import cli_reference, commands_of
from tests.helpers import ROOT
from tests.helpers.tables import table_of_formats

PARSER = make_parser()
COMMANDS = commands_of(PARSER)

PAGES = ROOT / "docs" / "formats"
HEADINGS = ["Layout", "Read", "Write", "Example", "What is lost"]

IN_PAGES = {
    "colour": "colour: coloured images become gray (luma, ITU-R BT.601)",
    "jpeg": "exact pixels: they become JPEG, unless `--image-ext .png` is given; JPEG files pass through",
    "ids": "ids: items are numbered",
    "labels": "labels",
    "order": "the order of classes",
    "unused": "classes without images",
    "subsets": "subsets",
    "superclasses": "superclasses",
}
"""What a format may lose, as its page says it."""


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_every_format_has_a_page_and_every_page_a_format() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*FORMATS, "index"}


@pytest.mark.parametrize(("file", "folder"), [("README.md", "docs/formats/"), ("docs/formats/index.md", "")])
def test_readme_and_docs_have_the_table_of_formats(file: str, folder: str) -> None:
    """To update it: python -c 'from tests.helpers.tables import *; print(table_of_formats())'."""
    assert table_of_formats(folder) in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_pages_have_one_form(name: str) -> None:
    text = page(name)
    assert text.startswith(f"# {name}\n\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert max(map(len, text.splitlines())) <= 150


@pytest.mark.parametrize("name", FORMATS)
def test_pages_name_every_loss_that_the_writer_declares(name: str) -> None:
    lost = page(name).split("## What is lost")[1].lower()
    declared = get_sink(name).can.losses if FORMATS[name].sink else frozenset()
    assert set(IN_PAGES) == set(LOSSES) - {"pixels"}
    for loss in declared:
        assert re.split("[:;]", IN_PAGES[loss])[0].lower() in lost, loss


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_page_is_of_its_format(name: str) -> None:
    """That it runs is seen in tests/docs."""
    example = page(name).split("## Example")[1].split("## What")[0]
    block = re.search(r"```bash\n(.*?)```", example, re.DOTALL)
    assert block is not None
    assert name in block[1]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_reference_says_what_every_flag_means(name: str) -> None:
    sections = re.split(r"^## (.*)\n", cli_reference(PARSER), flags=re.MULTILINE)
    section = dict(zip(["", *sections[1::2]], sections[::2], strict=True))[name]
    for action in (COMMANDS[name] if name else PARSER)._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        row = re.search(rf"^\| [^|]*`{re.escape(spelt(action))}`[^|]* \| [^|]* \| .+ \|$", section, re.MULTILINE)
        assert action.help, action
        assert row is not None, action
        assert all(f"`{flag}`" in row[0] for flag in action.option_strings), action


def spelt(action: argparse.Action) -> str:
    return (action.option_strings or [str(action.metavar)])[0]


def test_the_reference_shows_help_as_it_is_and_values_that_it_lacks() -> None:
    parser = argparse.ArgumentParser(prog="p", description="a_b", epilog="examples:\n  p -k x <y\n")
    parser.add_argument("-k", choices=["x", "yy"], required=True, help="<x> | *all* [1]")
    reference = cli_reference(parser)
    assert "\na\\_b\n" in reference
    assert "```bash\np -k x <y\n```" in reference
    assert "| `-k` | `K` | &lt;x&gt; \\| \\*all\\* \\[1\\] (required)<br>one of: `x`, `yy` |" in reference


def test_the_page_of_the_api_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (?!beam_cifar\.(?:beam|testing)\.)(.*)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(f"beam_cifar.{module}.{name}" for name, module in beam_cifar._PUBLIC.items())
    assert {*(place.rpartition(".")[2] for place in shown), "__version__"} == set(beam_cifar.__all__)
    assert "`beam_cifar.__version__`" in text
    for module in (beam_cifar.beam, beam_cifar.testing):
        assert all(f"::: {module.__name__}.{name}\n" in text for name in module.__all__)
