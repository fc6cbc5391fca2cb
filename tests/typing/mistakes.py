# pyright: strict
"""What a checker must refuse: every line that is marked, and no other. This program is never run."""

from __future__ import annotations

import beam_cifar
from beam_cifar import ConvertOptions, Dataset, DatasetItem, LabelTable, Summary, convert, stats

convert("cifar-10-python.tar.gz")  # wrong
ConvertOptions("cifar-10-python.tar.gz", "out")  # wrong
ConvertOptions("cifar-10-python.tar.gz", "out", "parquet", resize=32)  # wrong
ConvertOptions("cifar-10-python.tar.gz", "out", "parquet", nonsense=True)  # wrong
summary: Summary = stats("cifar-10-python.tar.gz")  # wrong
dataset: Dataset = Dataset.import_from(format="cifar")  # wrong
dataset.shuffle()  # wrong
dataset.export("out")  # wrong
dataset.export("out", "cifar", save_image=True)  # wrong
item: DatasetItem = dataset.get("1")  # wrong
table: LabelTable = dataset.categories.names  # wrong
beam_cifar.Datasets.merge()  # wrong
