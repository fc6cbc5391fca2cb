"""The Python face: `Dataset`, its items, and projects, which are datasets noted in a file.

The public face and the command line import from here.
"""
