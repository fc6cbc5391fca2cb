"""The environment with other projects' readers, which are run in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import ROOT
from tests.helpers.reading import batch_names, cifar_rows
from tests.peers.digest import Row, digest_rows, digest_values

SCRIPTS = ROOT / "tests" / "peers"


def find_interpreter() -> Path:
    """The Python of that environment; without it tests fail rather than pass unseen."""
    path = Path(os.environ.get("BEAM_CIFAR_PEERS") or ROOT / ".peers" / "bin" / "python")
    if not path.exists():
        pytest.fail(
            f"{path} is missing: `make peers` makes the environment of tests/peers/requirements.txt, "
            "BEAM_CIFAR_PEERS names the interpreter of another one",
            pytrace=False,
        )
    return path


def attempt(
    script: str, *arguments: str | Path, given: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a script of `tests/peers` there, where neither this package nor its tests can be found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(find_interpreter()), str(SCRIPTS / script), *map(str, arguments)],
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**inherited, **environment},
        check=False,
    )


def output_of(script: str, *arguments: str | Path, given: str = "", **environment: str) -> str:
    """What a script of `tests/peers` prints."""
    done = attempt(script, *arguments, given=given, **environment)
    assert done.returncode == 0, f"{script} fails for {arguments}:\n{done.stderr}"
    return done.stdout


def found_by(script: str, *arguments: str | Path, **environment: str) -> Any:
    """The JSON that a script of `tests/peers` prints."""
    return json.loads(output_of(script, *arguments, **environment))


def splits_of(source: Path) -> dict[str, Any]:
    """The digests of a CIFAR directory's splits, by Python's own unpickler."""
    splits: dict[str, list[tuple[Any, ...]]] = {}
    for name in batch_names(source):
        split = {"data_batch": "train", "test_batch": "test"}.get(name.rstrip("_0123456789"), name)
        splits.setdefault(split, []).extend(cifar_rows(source, [name]))
    return {
        split: {
            **digest_rows(_row(label, pixels) for _, label, _, pixels in rows),
            "ids": digest_values([name.removesuffix(".png") for name, *_ in rows]),
            **({"coarse_label": digest_values([coarse for _, _, coarse, _ in rows])} if rows[0][2] is not None else {}),
        }
        for split, rows in splits.items()
    }


def _row(label: int | None, pixels: bytes) -> Row:
    return label, np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
