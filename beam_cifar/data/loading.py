"""Imports objects by name when first used: formats, steps, stores, public names, the pipeline."""

from __future__ import annotations

import importlib
from typing import Any


def load(target: str) -> Any:
    """Returns the object named by "package.module:name"."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
