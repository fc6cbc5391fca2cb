"""Importing Beam without its remarks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_imports(*, verbose: bool) -> Iterator[None]:
    """Keeps back what Beam says while it is imported (that optional cloud packages are missing)."""
    if verbose:
        yield
        return
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
