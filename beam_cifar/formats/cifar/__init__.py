"""CIFAR-10 and CIFAR-100, python version: facts of the genuine sets, reading, writing.

Loaded by the registry; `facts` is also for those who draw samples or compare checksums.
"""
