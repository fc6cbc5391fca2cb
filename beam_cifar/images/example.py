"""A single example as a tuple: what pipelines of users see."""

# Without `annotations` of `__future__`: Beam makes a schema of the types, and would take texts for `Any`; it does the
# same with `bytes | None`.
import typing
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Optional

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.data.kinds import described, kind_name, parts_of
from beam_cifar.data.schema import ordered_schema
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.images.decode import decode_image
from beam_cifar.images.encodings import RAW

if TYPE_CHECKING:
    import pyarrow as pa


class Example(NamedTuple):
    """One image with its label, id and subset.

    Its types are those of a Beam schema, which other languages, SQL and data frames of Beam read.

    Attributes:
        id: unique in its subset.
        subset: any name, such as "data_batch_1".
        image: pixels as uint8, planar C x H x W, if `encoding` is "raw"; else an encoded file; None without an image.
        encoding: "raw", or that of a file: "png", "jpeg", "webp", "gif", "bmp" or "tiff".
        height: in pixels; None without an image.
        width: in pixels; None without an image.
        channels: 3, or 1 for gray; None without an image.
        label: index in the label table; None for unlabelled.
        filename: as found, such as "leptodactylus_s_000004.png".
        order: position in the dataset: examples are written in this order, ties in one that depends on subset and id
            alone.

    >>> from beam_cifar import Example
    >>> import numpy as np
    >>> empty = Example("1", "train", None, "raw", None, None, None, 3, "1.png")
    >>> red = empty.with_array(np.full((2, 4, 3), (255, 0, 0), np.uint8))
    >>> red.array()[0, 0].tolist(), red.replace(label=4).label
    ([255, 0, 0], 4)
    """

    id: str
    subset: str
    image: Optional[bytes]  # noqa: UP045
    encoding: str
    height: Optional[int]  # noqa: UP045
    width: Optional[int]  # noqa: UP045
    channels: Optional[int]  # noqa: UP045
    label: Optional[int]  # noqa: UP045
    filename: str
    order: int = 0

    def array(self) -> UInt8Array:
        """Returns the pixels, uint8 `[H, W, C]` in the order R, G, B, or `[H, W, 1]` for gray; files are decoded.

        Raises:
            InputError: there is no image, or it is damaged.
        """
        import numpy as np

        name = f"subset {self.subset!r}: example {self.id!r}"
        if self.image is None:
            raise InputError(f"{name}: has no image")
        if self.encoding != RAW:
            planes = decode_image(self.image, name)
        else:
            shape = self.channels or 0, self.height or 0, self.width or 0
            pixels = np.frombuffer(self.image, np.uint8)
            if pixels.size != shape[0] * shape[1] * shape[2]:
                raise InputError(
                    f"{name}: has {counted(pixels.size, 'byte')} of pixels; expected (channels, height, width) {shape}"
                )
            planes = pixels.reshape(shape)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def with_array(self, pixels: Any) -> "Example":
        """Returns the example with other pixels, which are stored unencoded; `WriteExamples` encodes them.

        Args:
            pixels: uint8 `[H, W, C]` with 3 channels or 1, or `[H, W]`.

        Raises:
            ValueError: the array has another type or shape.
        """
        import numpy as np

        array = np.asarray(pixels)
        shape = array.shape + (1,) * (array.ndim == 2)
        if array.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3) or not array.size:
            raise ValueError(
                f"pixels are {array.dtype} {list(array.shape)}; expected uint8 [height, width, 3], "
                "[height, width, 1] or [height, width]"
            )
        height, width, channels = shape
        planes = array.reshape(shape).transpose(2, 0, 1).tobytes()
        return self._replace(image=planes, encoding=RAW, height=height, width=width, channels=channels)

    def replace(self, **fields: Any) -> "Example":
        """Returns the example with other values in some fields.

        Raises:
            ValueError: a field is unknown, or a value has another type, such as a label that is a class name.
        """
        if unknown := [name for name in fields if name not in self._fields]:
            raise ValueError(f"an example has no field {unknown[0]!r}; its fields are {', '.join(self._fields)}")
        if wrong := list(filter(None, map(wrong_field, fields, fields.values()))):
            raise ValueError(wrong[0])
        return self._replace(**fields)


TYPES: Final[Mapping[str, Any]] = typing.get_type_hints(Example)
"""The type of each field of an example."""
_KINDS: Final = {
    name: tuple(Integral if each is int else each for each in parts_of(kind)) for name, kind in TYPES.items()
}


def wrong_field(name: str, value: Any) -> str:
    """Returns what is wrong with the type of a field's value, or an empty string."""
    if isinstance(value, _KINDS[name]):
        return ""
    return f"field {name!r} is {described(value)}; expected {kind_name(TYPES[name])}"


def table_of(examples: Iterable[Example]) -> "pa.Table":
    """Returns a table of examples, in the schema `ordered_schema`. Raises `ValueError` for a value of a wrong type."""
    import pyarrow as pa

    columns = list(zip(*examples, strict=True)) or [()] * len(ordered_schema())
    try:
        return pa.table(
            [pa.array(c, field.type) for c, field in zip(columns, ordered_schema(), strict=True)],
            schema=ordered_schema(),
        )
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def examples_of(table: "pa.Table") -> Iterator[Example]:
    """Yields the examples of a table in the schema `ordered_schema`."""
    return map(Example, *(table.column(name).to_pylist() for name in Example._fields))
