"""A project: data sets by reference, and what is done to them, in one file that people can read."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from beam_cifar import storage
from beam_cifar.errors import InputError, OutputError, UsageError
from beam_cifar.formats import detect_format, get_source
from beam_cifar.options import ON_CLASH, ConvertOptions, Input
from beam_cifar.plan import select_files
from beam_cifar.project_file import FILE_NAME, MAX_BYTES, VERSION, read_content

if TYPE_CHECKING:
    from beam_cifar.formats.base import Catalog
    from beam_cifar.steps.base import Step
