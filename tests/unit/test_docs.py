"""The pages about formats: one for each, alike, true, and with commands that work."""

from __future__ import annotations

import re
import shlex

import pytest

from beam_cifar.cli.main import make_parser
from beam_cifar.cli.parser import parse
from beam_cifar.formats.registry import FORMATS, get_sink
from tests.helpers import ROOT
from tests.helpers.tables import table_of_formats

PAGES = ROOT / "docs" / "formats"
HEADINGS = ["Layout", "Read", "Write", "Example", "What is lost"]

LOSSES = {
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
    assert declared <= set(LOSSES)
    for loss in declared:
        assert re.split("[:;]", LOSSES[loss])[0].lower() in lost, loss


@pytest.mark.parametrize("name", FORMATS)
def test_the_commands_of_a_page_are_commands(name: str) -> None:
    example = page(name).split("## Example")[1].split("## What")[0]
    block = re.search(r"```bash\n(.*?)```", example, re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert lines
    assert name in block[1]
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "beam-cifar"
        assert parse(make_parser(), arguments).command is not None
