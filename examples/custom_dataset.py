"""Creates a CIFAR dataset from arrays, in ./dataset.

Usage: python examples/custom_dataset.py
"""

import numpy as np

from beam_cifar import Dataset, DatasetItem, Label

dataset = Dataset.from_iterable(
    [
        DatasetItem(id=0, image=np.ones((32, 32, 3)), annotations=[Label(3)]),
        DatasetItem(id=1, image=np.ones((32, 32, 3)), annotations=[Label(8)]),
    ],
    categories=["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
)

dataset.export("./dataset", format="cifar")
