"""Tests, in rooms that follow the package's: `pytest tests/formats` runs one of them.

`helpers` is what tests share, imported by name. What needs another program, much time or much disk is a suite that is
left out unless it is asked for; `helpers/suites.py` lists them.
"""
