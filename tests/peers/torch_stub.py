"""Loads modules of torchvision's datasets, MedMNIST, Streaming, Keras and Ultralytics without what they need otherwise.

torchvision's `datasets/cifar.py` and `datasets/folder.py` need torch for names in annotations alone, but the packages above it load compiled
operators; `datasets/mnist.py` also needs it for arrays, which NumPy's are here. MedMNIST loads what computes scores,
Streaming transformers, and Keras a back end, before any of their modules. So the packages become bare modules that know where their files are, and
torch becomes the few names that are looked up while the real files load. Ultralytics looks up hundreds: there it has any name.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """In the place of `torch.utils.data.Dataset`, which is a base class without fields."""


class Tensor(np.ndarray[Any, Any]):
    """In the place of `torch.Tensor`, which stands in annotations, and has other names for what NumPy has too."""

    def view(self, *shape: Any) -> Any:  # type: ignore[override]
        return super().view(*shape) if isinstance(shape[0], np.dtype) else self.reshape(shape)

    def ndimension(self) -> int:
        return self.ndim

    def element_size(self) -> int:
        return self.itemsize

    def contiguous(self) -> Tensor:
        return self

    def flip(self, axis: int) -> Any:
        return np.ascontiguousarray(np.flip(self, axis)).view(Tensor)

    def long(self) -> Any:
        return self.astype(np.int64)

    def numpy(self) -> np.ndarray[Any, Any]:
        return np.asarray(self)


def _from_buffer(data: bytearray, *, dtype: Any, offset: int) -> Any:
    return np.frombuffer(data, dtype, offset=offset).view(Tensor)


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


def _image(pixels: np.ndarray[Any, Any], mode: str) -> Image.Image:
    made = Image.fromarray(pixels)
    if made.mode != mode:
        raise ValueError(f"pixels make an image of mode {made.mode}; expected {mode}")
    return made


def _define_torch() -> None:
    kinds = {name: np.dtype(name) for name in ("uint8", "int8", "int16", "int32", "float32", "float64")}
    _define("torch", Tensor=Tensor, frombuffer=_from_buffer, **kinds)
    _define("torch.utils")
    _define("torch.utils.data", Dataset=Dataset)


def torchvision_datasets(name: str) -> ModuleType:
    """Returns a real module of `torchvision.datasets`: `cifar`, `folder`, `mnist`, `stl10` or `svhn`."""
    _define_torch()
    _define("torch.utils.model_zoo", tqdm=_never)
    # Only a string is made of it: the folder of downloaded weights.
    _define("torch.hub", _get_torch_home=lambda: "", load_state_dict_from_url=_never)
    bare_packages(["torchvision", "torchvision.datasets"])
    _define("torchvision.utils", _log_api_usage_once=lambda made: None, _Image_fromarray=_image)
    vars(sys.modules["torchvision"]).update(get_image_backend=lambda: "PIL")
    return importlib.import_module(f"torchvision.datasets.{name}")


def medmnist() -> ModuleType:
    """Returns the real `medmnist.dataset`."""
    _define_torch()
    bare_packages(["medmnist"])
    return importlib.import_module("medmnist.dataset")


def streaming() -> ModuleType:
    """Returns `streaming.base` with the real modules `dataset`, `local` and `format`."""
    _define_torch()
    _define("torch.distributed", is_available=lambda: False)
    vars(sys.modules["torch.utils.data"]).update(IterableDataset=Dataset, get_worker_info=lambda: None)
    bare_packages(["streaming", "streaming.base"])
    for name in ("dataset", "local", "format"):
        importlib.import_module(f"streaming.base.{name}")
    return sys.modules["streaming.base"]


def ultralytics() -> ModuleType:
    """Returns the real `ultralytics.data`, whose datasets give images as they are before torchvision's transforms."""
    folder = torchvision_datasets("folder")
    vars(sys.modules["torchvision"]).update(datasets=folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Absences())
    return importlib.import_module("ultralytics.data")


class _Nameless(type):
    """A class whose every attribute is `_Absent`."""

    def __getattr__(cls, name: str) -> Any:
        return _absent(name)


class _Absent(Warning, metaclass=_Nameless):
    """In the place of what is looked up while modules load: a class, a warning, a decorator, or a transform of images."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __call__(self, wrapped: Any) -> Any:
        return wrapped

    def __getattr__(self, name: str) -> Any:
        return _absent(name)


def _absent(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Absent


class _Absences(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds all modules of torch, and torchvision's transforms, with whatever is looked up in them."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torch" and name != "torchvision.transforms":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(__version__="2.14.0", __getattr__=_absent)


def keras_cifar() -> ModuleType:
    """Returns the real `keras.src.datasets.cifar`, which Keras' `load_data` reads batches with."""
    bare_packages(["keras", "keras.src", "keras.src.datasets"])
    return importlib.import_module("keras.src.datasets.cifar")
