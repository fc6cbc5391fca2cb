"""`make audit` finds what was changed, removed or added since a package was installed."""

from __future__ import annotations

import base64
import hashlib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from deploy import audit


@pytest.fixture
def package(tmp_path: Path) -> PathDistribution:
    """Two modules with their record."""
    lines = []
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},6")
    information = tmp_path / "thing-1.0.dist-info"
    information.mkdir()
    (information / "RECORD").write_text("\n".join([*lines, f"{information.name}/RECORD,,", "old.pyc,,"]))
    return PathDistribution(information)


def test_an_untouched_package_is_right(package: PathDistribution, tmp_path: Path) -> None:
    assert [*audit.changed(package), *audit.strangers([package], tmp_path)] == []


def test_files_that_were_changed_removed_or_added_are_named(package: PathDistribution, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("other")
    (tmp_path / "two.py").unlink()
    (tmp_path / "start.pth").write_text("import os")
    found = [*audit.changed(package), *audit.strangers([package], tmp_path)]
    assert found == ["one.py was changed", "two.py is missing", "start.pth: of no package"]


def test_lists_of_requirements_are_read_for_this_interpreter() -> None:
    text = """# made
--only-binary :all:
Some.Thing==1.0 \\
    --hash=sha256:00
other==2 ; python_version < "3" \\
    --hash=sha256:00
"""
    assert list(audit.listed(text)) == [("some-thing", "1.0")]
