"""Types of values, as messages name them."""

from __future__ import annotations

import types
import typing
from typing import Any


def parts_of(kind: Any) -> tuple[Any, ...]:
    """Returns the types that a union is made of, or the type itself.

    >>> from beam_cifar.data.kinds import parts_of
    >>> parts_of(int | None), parts_of(str)
    ((<class 'int'>, <class 'NoneType'>), (<class 'str'>,))
    """
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def kind_name(kind: Any) -> str:
    """Returns the name of a type.

    >>> from beam_cifar.data.kinds import kind_name
    >>> kind_name(int | None)
    'int or None'
    """
    return " or ".join(
        "None" if each is type(None) else getattr(each, "__name__", str(each)) for each in parts_of(kind)
    )


def described(value: Any) -> str:
    """Returns the type and the beginning of a value, on one line.

    >>> from beam_cifar.data.kinds import described
    >>> described("dog")
    "str 'dog'"
    """
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
