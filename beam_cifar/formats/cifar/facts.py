"""Facts about the genuine CIFAR-10 and CIFAR-100: names, superclasses, file names, checksums."""

from __future__ import annotations

from typing import Final

from beam_cifar.data.labels import LabelTable

CIFAR10_NAMES: Final[tuple[str, ...]] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# Sorted, as in the genuine `meta`: the position of a superclass is its coarse label.
CIFAR100_SUPERCLASSES: Final[dict[str, tuple[str, ...]]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# Sorted, as in the genuine `meta`: the position of a name is its fine label.
CIFAR100_NAMES: Final[tuple[str, ...]] = tuple(
    sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names)
)

# For each fine label, its coarse label.
CIFAR100_COARSE_OF_FINE: Final[tuple[int, ...]] = tuple(
    next(coarse for coarse, names in enumerate(CIFAR100_SUPERCLASSES.values()) if name in names)
    for name in CIFAR100_NAMES
)

CIFAR10_DIRECTORY: Final = "cifar-10-batches-py"
CIFAR100_DIRECTORY: Final = "cifar-100-python"

CIFAR10_MD5: Final[dict[str, str]] = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

CIFAR100_MD5: Final[dict[str, str]] = {
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "meta": "7973b15100ade9c7d40fb424638fde48",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}


def known_parents(names: tuple[str, ...], coarse_names: tuple[str, ...]) -> tuple[int | None, ...]:
    """Returns the superclass of each class if known before rows are read: only for CIFAR-100's own classes."""
    if not coarse_names:
        return ()
    genuine = {fine: coarse for coarse, fines in CIFAR100_SUPERCLASSES.items() for fine in fines}
    if set(names) != set(genuine) or set(coarse_names) != set(CIFAR100_SUPERCLASSES):
        return (None,) * len(names)
    return tuple(coarse_names.index(genuine[name]) for name in names)


META_FILES = {"batches.meta": "CIFAR-10", "meta": "CIFAR-100"}
CUSTOM_META = "dataset_meta.json"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def cifar_kind(labels: LabelTable) -> str:
    """Returns "cifar100" for labels with superclasses, "cifar10" otherwise."""
    return "cifar100" if labels.has_superclasses else "cifar10"


def is_batch_name(name: str) -> bool:
    """Returns whether a file may be a batch: not the archives' `readme.html` and `file.txt~`, nor `_*` or `.*`."""
    return name not in META_FILES and "." not in name and not name.startswith("_")
