"""`setup.py` promises the versions that are tested, and no others."""

from __future__ import annotations

import ast
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
    for version in pins("requirements.txt")[requirement.name]:
        assert version in requirement.specifier


@pytest.mark.parametrize(
    "requirement", map(Requirement, argument("extras_require")["docs"]), ids=lambda each: each.name
)
def test_the_site_is_built_with_the_oldest_versions_that_are_allowed(requirement: Requirement) -> None:
    """No others are tried."""
    (tested,) = pins("requirements.txt")[requirement.name]
    assert [each.version for each in requirement.specifier if each.operator == ">="] in ([tested], [])
