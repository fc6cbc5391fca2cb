"""The Python face: `Dataset`, its items, and projects, which are data sets noted in a file.

The public face and the command line import from here.
"""
