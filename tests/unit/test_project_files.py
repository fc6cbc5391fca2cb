"""The files for maintainers: the commands, targets, paths and names in them exist."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.helpers import ROOT


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load(text_of(name))


MAKEFILE = text_of("Makefile").replace("\\\n", " ")
PHONY = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
TARGETS = PHONY & set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
CI = text_of(".ci/run")
WORKFLOW = loaded(".github/workflows/ci.yml")
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md")


def setup_arguments() -> dict[str, Any]:
    """The arguments of `setup` that are literals."""
    calls = [node for node in ast.walk(ast.parse(text_of("setup.py"))) if isinstance(node, ast.Call)]
    (call,) = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "setup"]
    found = {}
    for keyword in call.keywords:
        with suppress(ValueError):
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return found


SETUP = setup_arguments()


# Make targets.


def test_every_phony_target_has_a_rule() -> None:
    assert TARGETS == PHONY


def test_contributing_has_every_make_target_in_its_table_and_no_others() -> None:
    rows = re.findall(r"^\| .*$", text_of("CONTRIBUTING.md"), re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", "".join(rows))) == TARGETS


@pytest.mark.parametrize("page", [*PAGES, "README.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text_of(page), re.MULTILINE))
    assert named <= TARGETS


# Paths and names in pages.


def mentions(page: str) -> set[tuple[str, str]]:
    """The paths of the repository that a page names in code, and a name in the file, or ""."""
    found = re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:py|md|txt|toml))(?:: (\w+))?`", text_of(page))
    # The page of the architecture has keys of object stores too, which look like folders.
    is_ours = re.compile(r"(?!OUT)(?!.*NAME).*" + (r"\.(py|md|json)$" if page.startswith("docs/") else ""))
    return {(path, name) for path, name in found if is_ours.match(path)}


def place_of(path: str) -> Path | None:
    """Where a path is: from the top of the repository, or in the package as the page of the architecture has them."""
    return next((each for each in (ROOT / path, ROOT / "beam_cifar" / path) if each.exists()), None)


@pytest.mark.parametrize(("page", "path", "name"), [(page, *each) for page in PAGES for each in sorted(mentions(page))])
def test_every_path_and_name_that_a_page_mentions_exists(page: str, path: str, name: str) -> None:
    place = place_of(path)
    assert place is not None
    assert not name or re.search(rf"^(?:class |def )?{name}\b", place.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)", text_of(page))
    assert not [link for link in links if not ((ROOT / page).parent / link).is_file()]


# Continuous integration.


def test_ci_runs_targets_that_exist() -> None:
    named = set(re.findall(r"^\s*make ([\w-]+)$", CI, re.MULTILINE))
    named.update(*(loop.split() for loop in re.findall(r"for target in (.*); do", CI)))
    assert named <= TARGETS
    # MinIO alone takes minutes to build.
    assert {name for name in TARGETS if name.startswith("test")} - named == {"test-stores"}


def test_the_workflow_calls_what_everybody_calls() -> None:
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == ["bash .ci/run", "make test"]


def test_the_workflow_tests_the_versions_of_python_that_are_declared() -> None:
    declared = re.findall(r"Python :: (\d\.\d+)", " ".join(SETUP["classifiers"]))
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert SETUP["python_requires"] == f">={declared[0]}"


def test_the_workflow_may_only_read_and_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in WORKFLOW["jobs"].values())


# Hooks before a commit, and forms for issues.


def test_hooks_are_the_pinned_tools_of_make_lint() -> None:
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    tools = {Requirement(line).name for line in SETUP["extras_require"]["lint"]}
    pinned = {Requirement(line).name for line in text_of("requirements.in").splitlines() if line and line[0] != "#"}
    for hook in repository["hooks"]:
        folder, _, tool = hook["entry"].split()[0].rpartition("/")
        assert (folder, hook["language"]) == (".venv/bin", "system")
        assert tool in tools & pinned
        assert f"$(BIN)/{hook['name'].removesuffix(' check')}" in MAKEFILE


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_forms_for_issues_are_complete(name: str) -> None:
    form = loaded(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in fields}) == len(fields)
    assert all(each["attributes"]["label"] for each in fields)


def test_a_bug_report_asks_for_what_it_takes_to_see_the_bug() -> None:
    form = loaded(".github/ISSUE_TEMPLATE/bug.yml")
    asked = {each["id"] for each in form["body"] if each.get("validations", {}).get("required")}
    assert {"command", "expected", "version", "sample"} <= asked


# Metadata.


def test_the_metadata_is_complete() -> None:
    assert {"name", "description", "license_expression", "keywords", "classifiers", "python_requires"} <= SETUP.keys()
    assert SETUP["classifiers"] == sorted(set(SETUP["classifiers"]))
    assert len(SETUP["description"]) <= 100
    for page in PAGES[:2]:
        assert page in text_of("MANIFEST.in").split()
