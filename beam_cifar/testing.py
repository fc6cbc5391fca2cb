"""For tests of your own pipelines and formats: examples that need no files, and checks that say what differs."""

from __future__ import annotations

from beam_cifar.dataset.conformance import check_sink, check_source
from beam_cifar.pipeline.testing import FakeExamples, assert_examples_equal

__all__ = ["FakeExamples", "assert_examples_equal", "check_sink", "check_source"]
