"""`setup.py` promises the versions that are tested, and no others; what is installed has hashes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent


def argument(name: str) -> Any:
    """What `setup` is given."""
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = [node.value for node in ast.walk(setup) if isinstance(node, ast.keyword) and node.arg == name]
    return ast.literal_eval(values[0])


def install_requires() -> list[Requirement]:
    return list(map(Requirement, argument("install_requires")))


def pins(file: str) -> dict[str, set[str]]:
    """The versions of each package in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(requirement.name, set()).update(each.version for each in requirement.specifier)
    return found


@pytest.mark.parametrize("requirement", install_requires(), ids=lambda each: each.name)
def test_the_lower_bound_is_the_oldest_that_is_tested_and_the_newest_is_below_the_upper_one(
    requirement: Requirement,
) -> None:
    bounds = {each.operator: each.version for each in requirement.specifier}
    assert set(bounds) == {">=", "<"}
    (oldest,) = pins("requirements-oldest.txt")[requirement.name]
    assert oldest.removesuffix(".0") == bounds[">="] or oldest.removesuffix(".0.0") == bounds[">="]
    for version in pins("requirements.in")[requirement.name]:
        assert version in requirement.specifier


@pytest.mark.parametrize(
    "requirement", map(Requirement, argument("extras_require")["docs"]), ids=lambda each: each.name
)
def test_the_site_is_built_with_the_oldest_versions_that_are_allowed(requirement: Requirement) -> None:
    """No others are tried."""
    (tested,) = pins("requirements.in")[requirement.name]
    assert [each.version for each in requirement.specifier if each.operator == ">="] in ([tested], [])


HASHED = ("requirements.txt", "requirements-docs.txt", "requirements-dataflow.txt")


def resolved(file: str) -> dict[Requirement, list[str]]:
    """Each requirement of a generated file with its hashes."""
    logical = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    lines = [re.split(r"\s+--hash=", line) for line in logical if not line.startswith("#")]
    return {Requirement(line): hashes for line, *hashes in lines}


@pytest.mark.parametrize("file", HASHED)
def test_every_line_names_one_version_and_its_hashes(file: str) -> None:
    for requirement, hashes in resolved(file).items():
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), requirement


@pytest.mark.parametrize("file", HASHED)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_a_python_gets_one_version_of_each_package(file: str, python: str) -> None:
    if (file, python) == ("requirements-docs.txt", "3.10"):
        pytest.skip("the site needs Python 3.11")
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    names = [each.name for each in resolved(file) if each.marker is None or each.marker.evaluate(environment)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("file", HASHED)
def test_what_is_resolved_has_the_versions_of_the_readable_list(file: str) -> None:
    wanted = pins("requirements.in")
    for each in resolved(file):
        versions = {part.version for part in each.specifier}
        assert versions <= wanted.get(each.name, versions), each


@pytest.mark.parametrize("file", HASHED)
def test_what_is_resolved_is_all_that_the_package_needs(file: str) -> None:
    extras = {"requirements.txt": ("aws", "gcp", "test", "lint"), "requirements-docs.txt": ("docs",)}
    named = argument("extras_require")
    direct = install_requires() + [
        Requirement(line) for extra in extras.get(file, ("dataflow",)) for line in named[extra]
    ]
    assert {each.name for each in direct} <= {each.name for each in resolved(file)}


def test_no_file_says_where_packages_come_from() -> None:
    for file in (*HASHED, "requirements.in", "requirements-oldest.txt"):
        assert not re.search(r"https?://|index-url|find-links|trusted-host", (ROOT / file).read_text(encoding="utf-8"))
