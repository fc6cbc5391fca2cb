"""CIFAR-10 and CIFAR-100, Python version: facts about the genuine datasets, reading, writing.

Loaded through the registry; `facts` is also imported by `samples` and by the command line, for checksums.
"""
