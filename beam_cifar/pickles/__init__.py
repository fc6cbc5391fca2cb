"""CIFAR's pickle files, read without unpickling and written as Python 2 would."""

from beam_cifar.pickles.recognise import Batch, Meta, read_batch, read_meta
from beam_cifar.pickles.rows import Images
from beam_cifar.pickles.write import BatchWriter, write_batch, write_meta

__all__ = ["Batch", "BatchWriter", "Images", "Meta", "read_batch", "read_meta", "write_batch", "write_meta"]
