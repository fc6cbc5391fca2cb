"""Files from strangers, a table for each kind: refused in one line, or read with the right values; always within limits."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.hostile import PEAK_KB, SECONDS, Run, hostile_runs
from tests.helpers.hostile_files import MARKER, Maker

pytestmark = pytest.mark.slow

TABLES = {
    "npy": "npy:HOSTILE",
    "zip": "zips:HOSTILE",
    "tar": "tars:HOSTILE",
    "Parquet": "parquet:HOSTILE",
    "IDX": "tables:IDX",
    "CSV": "tables:CSV",
    "JSON": "texts:JSON",
    "lists": "texts:LISTS",
    "images": "images:HOSTILE",
}
WARM = ("tests.helpers.serial_jobs", "pyarrow.parquet", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "rapidgzip")


def table(kind: str) -> dict[str, Maker]:
    module, _, name = TABLES[kind].partition(":")
    found: dict[str, Maker] = getattr(importlib.import_module(f"tests.helpers.hostile_files.{module}"), name)
    return found


CASES = [(kind, name) for kind in TABLES for name in table(kind)]

FOREIGN = ("not a number", "a list", "info is a list", "features are text", "a feature is text")

# What is written beside the data does not matter there, or readers agree to look past it.
ACCEPTED: dict[tuple[str, str], tuple[int, ...]] = {
    ("zip", "many disks"): (0, 1, 0),
    ("zip", "65,535 members"): (0, 1, 0),
    ("zip", "no members, it says"): (0, 1, 0),
    ("zip", "comment of 65,535 bytes"): (0, 1, 0),
    ("tar", "gzip: wrong size"): (0, 1),
    ("tar", "gzip: reserved flags"): (0, 1),
    ("IDX", "gzip: not gzip"): (0, 1, 0),  # the first bytes decide, not the name
    ("tar", "20,000 members"): (0, 1),
    ("CSV", "a pixel: quoted"): (1, 1),
    ("CSV", "a label: quoted"): (1, 7),
    ("CSV", "a header of 99,999 x 99,999"): (1,),  # names of columns, and no sizes
    ("CSV", "a label: negative"): (1, -1),
    ("CSV", "a label: zeros before"): (1, 7),
    ("CSV", "semicolons"): (1,),
    ("CSV", "tabs"): (1,),
    ("npy", "labels: text"): (0, 1, 2),
    ("lists", "VOC: three words"): (-1,),  # of the id "a 1", which is not listed
    **{("Parquet", f"features: {name}"): (0, 1) for name in FOREIGN},
    **{
        ("Parquet", f"own metadata: {name}"): (0, 1)
        for name in ("parents outside", "text", "paths of numbers", "paths by names")
    },
    ("Parquet", "two columns of images"): (0, 1),
    ("images", "more pixels than its size"): (0, 0),
    ("images", "palette of 4 bytes"): (0, 0),
    ("images", "chunk of unknown kind"): (0, 0),
}


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with hostile_runs(*WARM) as run:
        yield run


def test_each_kind_has_at_least_40() -> None:
    assert {kind: len(table(kind)) for kind in TABLES if len(table(kind)) < 40} == {}


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}: {name}" for kind, name in CASES])
def test_it_is_refused_in_one_line_or_read_right(kind: str, name: str, run: Run, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    path = table(kind)[name](folder) or folder
    commands = [
        ("detect", path),
        ("info", path),
        ("convert", "-i", path, "-f", "npz", "-o", output, "--", "--save-images"),
    ]
    found = [run(*map(str, command), marker=Path(MARKER)) for command in commands]
    again = run(*map(str, commands[1]))
    for outcome in found:
        assert outcome.code in (0, 2, 3)
        assert outcome.code == 0 or len(outcome.stderr.splitlines()) == 1
        assert "Traceback" not in outcome.stderr
        assert outcome.peak_kb < PEAK_KB
        assert outcome.seconds < SECONDS
        assert not outcome.marker
    assert again.stderr == found[1].stderr  # no address, thread or time in it
    expected = ACCEPTED.get((kind, name))
    if not name.startswith("a wrong byte in the footer"):  # where it is depends on the version of Arrow
        assert (found[-1].code == 0) == (expected is not None)
    if found[-1].code == 0:
        labels = np.concatenate([np.load(each)["labels"] for each in sorted(output.glob("*.npz"))])
        assert tuple(labels.tolist()) == (expected or (0, 1))
    shutil.rmtree(folder)
