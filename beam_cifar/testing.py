"""For tests of your own pipelines: examples that need no files, and a comparison that says what differs."""

from __future__ import annotations

from beam_cifar.pipeline.testing import FakeExamples, assert_examples_equal

__all__ = ["FakeExamples", "assert_examples_equal"]
