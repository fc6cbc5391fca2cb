"""Every format keeps the contract of formats: the checks that formats of other packages pass too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beam_cifar.formats.imagenet import ImagenetSource
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.registry import readable, writable
from beam_cifar.testing import check_sink, check_source
from tests.formats.test_any_to_any import in_every_format
from tests.helpers.image_trees import batch, encoded, picture, write_tree

pytestmark = pytest.mark.usefixtures("without_runner")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    batches = {name: batch([f"{name}_{row}.png" for row in range(5)], [0, 1, 2, 3, 1]) for name in ("train", "test")}
    return in_every_format(tmp_path_factory.mktemp("sources"), batches)


@pytest.mark.parametrize("name", readable())
def test_sources(name: str, sources: dict[str, Path]) -> None:
    check_source(name, sources[name])


@pytest.mark.parametrize("name", writable())
def test_sinks(name: str, tmp_path: Path) -> None:
    check_sink(name, tmp_path)


def _rows_of_two(self: ImageFileRows, runs: Any) -> list[Any]:
    entries = _entries(self, runs)
    return entries[::-1] if len(entries) == 2 else entries


_entries, _summary, _describe = ImageFileRows._entries, ImageFileRows.summary, ImagenetSource.describe
FLAWS: dict[str, tuple[type, str, Any]] = {
    "scattered rows are those of the whole": (ImageFileRows, "_entries", _rows_of_two),
    "the summary counts 7 rows": (
        ImageFileRows,
        "summary",
        lambda self, sizes: replace(_summary(self, sizes=sizes), rows=2),
    ),
    "row_bytes is large enough": (ImageFileRows, "row_bytes", lambda self, *_, decoded: 1),
    "an empty folder does not look right": (ImagenetSource, "looks_right", lambda self, path, index_dir: True),
    "there are files": (ImagenetSource, "describe", lambda self, *given: replace(_describe(self, *given), files=())),
}


@pytest.mark.parametrize("said", FLAWS)
def test_what_is_wrong_is_said(said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {f"cat/{row}.png": encoded(picture(row, 8 + row)) for row in range(7)})
    check_source("imagenet", tree)
    monkeypatch.setattr(*FLAWS[said])
    with pytest.raises(AssertionError, match=said):
        check_source("imagenet", tree)
