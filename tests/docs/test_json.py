"""The page about `--json`: every command prints the fields that it lists, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.helpers.commands import Run
from tests.helpers.tables import documented_fields

ARGUMENTS = {
    "convert": ["-i", "IN", "-f", "parquet", "-o", "OUT"],
    "convert --plan": ["-i", "IN", "-f", "parquet", "-o", "OUT"],
    "clean": ["OUT"],
    "info": ["IN"],
    "stats": ["IN"],
    "diff": ["IN", "IN"],
    "validate": ["IN"],
    "report": ["IN", "-o", "OUT.html"],
}


def fields(commands: str) -> set[str]:
    """The fields that the page lists for commands, without those in brackets."""
    always = documented_fields(commands).partition("; with `--checksums`")[0]
    return set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", always)))


@pytest.mark.parametrize("command", ARGUMENTS)
def test_the_page_lists_the_fields_of_each_command(command: str, run: Run, cifar10: Path, tmp_path: Path) -> None:
    places = {"IN": str(cifar10), "OUT": str(tmp_path / "out"), "OUT.html": str(tmp_path / "out.html")}
    done = run(*command.split(), *(places.get(each, each) for each in ARGUMENTS[command]), "--json")
    assert set(json.loads(done.stdout)) == fields(command)
