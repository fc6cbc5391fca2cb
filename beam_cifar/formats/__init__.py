"""Formats: a source that reads and a sink that writes, one file or package for each.

`registry` is the one place where a format is listed, and where others get one by its name; `contract` is what a format
is, `kit` what formats share. No format is imported by name from outside this room.
"""
