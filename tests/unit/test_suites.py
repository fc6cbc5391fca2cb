"""Every test can be asked for: by `pytest` alone, or by the command of a suite."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain, combinations

import pytest

from tests.helpers import ROOT
from tests.helpers.suites import SUITES

TESTS = ROOT / "tests"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = {name for name in SUITES if (TESTS / name).is_dir()}
COMMANDS = {
    name.replace("-", "_"): command
    for name, command in re.findall(
        r"^test-([\w-]+):.*\n(?:\t.*\n)*?.*-m pytest (.*?)(?: -n .*| --durations.*)?$", MAKEFILE, re.MULTILINE
    )
}
OURS = {"address_space", "parametrize", "usefixtures", "skipif", "skip", "xfail", "filterwarnings"}


def marks(name: str) -> set[str]:
    """The suites that files below a folder of tests name."""
    texts = [path.read_text(encoding="utf-8") for path in (TESTS / name).rglob("*.py")]
    return set(chain.from_iterable(re.findall(r"\bpytest\.mark\.(\w+)", text) for text in texts)) - OURS


def test_every_mark_is_a_suite() -> None:
    assert marks(".") <= SUITES.keys()


def test_every_suite_has_its_command() -> None:
    assert set(COMMANDS) - {"oldest"} == SUITES.keys()  # that runs the usual tests with other libraries


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_what_is_in_the_folder_of_a_suite_is_of_that_suite_alone(name: str) -> None:
    assert marks(name) <= {name}


def test_a_suite_that_is_run_by_its_folder_has_no_test_elsewhere() -> None:
    by_folder = {name for name, command in COMMANDS.items() if command == f"tests/{name}"}
    rooms = [path.name for path in TESTS.iterdir() if path.is_dir() and path.name not in by_folder]
    assert by_folder <= FOLDERS
    assert not set(chain.from_iterable(map(marks, rooms))) & by_folder


def test_every_mixture_of_the_others_is_run_by_some_command() -> None:
    expressions = {name: command[3:].strip("'") for name, command in COMMANDS.items() if command.startswith("-m ")}
    for size in range(1, len(expressions) + 1):
        for mixture in combinations(expressions, size):
            known = {name: name in mixture for name in SUITES}
            assert any(eval(expression, {}, known) for expression in expressions.values()), mixture


SIGNS = {
    "slow": "test_fusion.py::test_the_line_itself_is_fused[multi_processing]",
    "large": "test_fusion.py::test_a_broken_fusion_is_refused_in_one_line[reshuffled-multi_processing]",
    "prism": "tests/prism/test_prism.py::",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tests/pipeline/test_fusion.py"], set()),
        (["tests/pipeline/test_fusion.py", "--slow"], {"slow"}),
        (["tests/pipeline/test_fusion.py", "tests/prism"], {"prism"}),
        (["tests/pipeline/test_fusion.py", "tests/prism", "-m", "large or prism"], {"large", "prism"}),
    ],
    ids=["alone", "flag", "folder", "expression"],
)
def test_suites_are_left_out_unless_asked_for(arguments: list[str], expected: set[str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name, sign in SIGNS.items() if sign in ran.stdout} == expected
