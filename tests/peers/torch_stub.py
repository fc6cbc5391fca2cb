"""Loads modules of torchvision's datasets and of Keras without what they need for other things.

torchvision's `datasets/cifar.py` and `datasets/folder.py` need torch for names in annotations alone, but the packages above it load compiled
operators; Keras loads a back end before any of its modules. So the packages become bare modules that know where their
files are, and torch becomes the few names that are looked up while the real files load.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """In the place of `torch.utils.data.Dataset`, which is a base class without fields."""


class Tensor:
    """In the place of `torch.Tensor`, which stands in annotations."""


def _never(*arguments: object, **options: object) -> None:
    raise NotImplementedError("reading a dataset must not need this part of torch")


def _define(name: str, **content: Any) -> None:
    """Makes a module of the given content, which is a package too, and an attribute of the one above it."""
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(content)
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)


def bare_packages(names: Iterable[str]) -> None:
    """Makes installed packages importable without running their `__init__.py`, outermost first."""
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"{name} is not installed; see tests/peers/requirements.txt")
        module = ModuleType(name)
        module.__spec__ = spec
        module.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[name] = module


def torchvision_datasets(name: str) -> ModuleType:
    """Returns a real module of `torchvision.datasets`: `cifar` or `folder`."""
    _define("torch", Tensor=Tensor)
    _define("torch.utils")
    _define("torch.utils.data", Dataset=Dataset)
    _define("torch.utils.model_zoo", tqdm=_never)
    # Only a string is made of it: the folder of downloaded weights.
    _define("torch.hub", _get_torch_home=lambda: "", load_state_dict_from_url=_never)
    bare_packages(["torchvision", "torchvision.datasets"])
    _define("torchvision.utils", _log_api_usage_once=lambda made: None)
    vars(sys.modules["torchvision"]).update(get_image_backend=lambda: "PIL")
    return importlib.import_module(f"torchvision.datasets.{name}")


def keras_cifar() -> ModuleType:
    """Returns the real `keras.src.datasets.cifar`, which Keras' `load_data` reads batches with."""
    bare_packages(["keras", "keras.src", "keras.src.datasets"])
    return importlib.import_module("keras.src.datasets.cifar")
