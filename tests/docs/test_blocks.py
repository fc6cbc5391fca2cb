"""Every block of commands and of Python in the pages does what it says, in the order in which a reader meets it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_cifar.cli.main import make_parser
from beam_cifar.cli.parser import parse
from tests.helpers import ROOT
from tests.helpers.blocks import REASONS, RUN, SHOWN, Block, blocks_of, commands_of, marks_of
from tests.helpers.page_samples import make_page_samples
from tests.helpers.warm import warmed

FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
PAGES = {file.relative_to(ROOT).as_posix(): blocks_of(file) for file in FILES}
RUNNING = {page: [block for block in blocks if block.runs] for page, blocks in PAGES.items()}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_has_a_known_reason(page: str) -> None:
    for block in PAGES[page]:
        assert block.language in (*RUN, *SHOWN), block.place
        assert block.reason in (None, *REASONS), block.place
    assert marks_of(ROOT / page) == sum(block.reason is not None and block.language in RUN for block in PAGES[page])


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_flags_and_targets_that_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in PAGES[page]:
        if block.language == "python":
            ast.parse(block.code, block.place)
        for program, *arguments in filter(None, commands_of(block) if block.language == "bash" else ()):
            if program == "beam-cifar":
                check(arguments, block, capsys)
            elif program == "make":
                asked = {word for word in arguments if "=" not in word and not word.startswith("-")}
                assert asked <= TARGETS, block.place


def check(arguments: list[str], block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parse(make_parser(), arguments)
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{block.place}: {capsys.readouterr().err}")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `beam-cifar` and `python`; and with a `make` that does nothing, as its targets are tests themselves."""
    with warmed(tmp_path_factory.mktemp("warm")) as folder:
        (folder / "make").write_text("#!/bin/sh\n", encoding="ascii")
        (folder / "make").chmod(0o755)
        yield folder


@pytest.mark.parametrize("page", [page for page, blocks in RUNNING.items() if blocks])
def test_the_blocks_of_a_page_run(page: str, programs: Path, tmp_path: Path) -> None:
    make_page_samples(tmp_path, "".join(block.code for block in RUNNING[page]))
    for block in RUNNING[page]:
        done = ran(block, tmp_path, programs)
        assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("language", "code", "message"),
    [
        ("bash", "true\nbeam-cifar info nowhere  # fails\ntrue\n", "page.md:8: exit code 3"),
        ("bash", "beam-cifar formats | false\n", "page.md:7: exit code 1"),
        ("bash", "echo $NOTHING\n", "line 7: NOTHING: unbound variable"),
        ("python", "import os\nos.stat('nowhere')\n", "line 8, in <module>"),
    ],
)
def test_what_fails_is_told_with_its_line(
    language: str, code: str, message: str, programs: Path, tmp_path: Path
) -> None:
    done = ran(Block("page.md", 7, language, code, None), tmp_path, programs)
    assert done.returncode != 0
    assert message in done.stderr


def ran(block: Block, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block in a folder; its code stands on the lines that it has in its page, so that messages name these."""
    first = ""
    if block.language == "bash":
        first = f"set -euo pipefail; trap 'echo \"{block.page}:$LINENO: exit code $?\" >&2' ERR"
    script = programs.parent / f"script.{block.language}"
    script.write_text(first + "\n" * (block.line - 1) + block.code, encoding="utf-8")
    path = os.pathsep.join([str(programs), os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "TMPDIR": str(programs.parent)}
    command = [str(programs / "python") if block.language == "python" else "bash", str(script)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
