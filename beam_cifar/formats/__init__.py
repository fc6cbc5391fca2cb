"""Formats: a source that reads and a sink that writes, one file or package for each.

`registry` lists the formats and returns one by its name; `contract` defines what a format is, `kit` what formats share.
Code outside gets sources and sinks from `registry`; the facts, names and helpers of some formats are imported directly.
"""
