"""What is imported only when it is used, by its name: formats, steps, stores, the public names, the pipeline."""

from __future__ import annotations

import importlib
from typing import Any


def load(target: str) -> Any:
    """The object that "package.module:name" names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
