"""What a conversion is asked to do; every check here needs no input and no output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from beam_cifar.errors import UsageError


@dataclass(frozen=True)
class ConvertOptions:
    """One conversion.

    Attributes:
        input_path: a data set's directory or archive.
        output_dir: the directory to make.
        output_format: name of the format to write.
        input_format: name of the format to read; detected if None.
        subsets: names of the subsets to keep, or "train" / "test" for all batches of that split; all if empty.
        labels: names of the classes or superclasses to keep; all rows, also unlabelled ones, if empty.
        remaps: `OLD:NEW` renamings of classes or superclasses, applied after the selection.
        images_per_batch: rows of every output file but the last of a subset; None follows the format.
        limit: keep at most so many images, the first ones.
        save_images: write pixels also where the format can do without them.
        save_dataset_meta: write `dataset_meta.json` where the format knows it.
        image_ext: extension of the file names written, such as ".png"; None keeps them as found.
        overwrite: replace an existing output.
        workers: local workers; None chooses.

    Raises:
        UsageError: a value that cannot be meant.
    """

    input_path: str
    output_dir: str
    output_format: str
    input_format: str | None = None
    subsets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    remaps: tuple[str, ...] = ()
    images_per_batch: int | None = None
    limit: int | None = None
    save_images: bool = False
    save_dataset_meta: bool = False
    image_ext: str | None = None
    overwrite: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        for flag, value in (
            ("--images-per-batch", self.images_per_batch),
            ("--limit", self.limit),
            ("--workers", self.workers),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{flag} must be at least 1, found {value}")
        for flag, texts in (("--label", self.labels), ("--remap", self.remaps), ("--subset", self.subsets)):
            for text in texts:
                if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
                    raise UsageError(f"{flag} {text!r} is not valid Unicode")
        if self.image_ext is not None and not _is_extension(self.image_ext):
            raise UsageError(f"--image-ext must look like .png, found {self.image_ext!r}")

    def meaning(self) -> dict[str, Any]:
        """What determines the output's bytes, for the manifest: no paths, no workers."""
        fields = asdict(self)
        for name in ("input_path", "output_dir", "overwrite", "workers"):
            del fields[name]
        return fields


def _is_extension(text: str) -> bool:
    return len(text) > 1 and text[0] == "." and text[1:].isalnum() and text.isascii()
