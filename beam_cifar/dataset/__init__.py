"""The Python interface: `Dataset`, its items, and projects, which are datasets recorded in a file.

Imported by the public package and the command line.
"""
