"""The environment with other projects' readers, which are run in processes of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers import ROOT

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
