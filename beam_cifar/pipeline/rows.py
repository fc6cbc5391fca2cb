"""Rows that our transforms return, besides examples."""

# Without `annotations` of `__future__`: Beam makes a schema of the types, and would take texts for `Any`.
from typing import NamedTuple, Optional

from apache_beam.coders import RowCoder, registry


class WrittenDataset(NamedTuple):
    """A dataset that `WriteExamples` has written.

    Its types are those of a Beam schema.

    Attributes:
        path: its directory.
        format: its format.
        manifest: path of its manifest.
        images: number of examples in it.
        files: number of its data files.
        bytes: their total size.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples, WriteExamples
    >>> read = ReadExamples("cifar10")
    >>> with beam.Pipeline() as pipeline:
    ...     written = pipeline | read | WriteExamples("out", "parquet", read.labels)
    ...     _ = written | beam.Select("format", "images", "files") | beam.Map(print)
    Row(format='parquet', images=60, files=2)
    """

    path: str
    format: str
    manifest: str
    images: int
    files: int
    bytes: int


class BadExample(NamedTuple):
    """A row or an example that a transform could not process, where it was asked to go on without it.

    Its types are those of a Beam schema.

    Attributes:
        source: file that it was read from; empty for an example.
        row: row number in that file, from 0; None for an example.
        subset: its subset.
        id: id of an example; None for a row.
        stage: the transform that could not process it, such as "ReadExamples".
        error: why, in one line.
        image: its image as it came, if asked for, and if there is one.

    >>> import apache_beam as beam
    >>> from beam_cifar import Example, ResizeExamples
    >>> wrong = Example("1", "train", b"no PNG", "png", 2, 2, 3, 0, "1.png")
    >>> with beam.Pipeline() as pipeline:
    ...     rows = pipeline | beam.Create([wrong]).with_output_types(Example)
    ...     good, bad = rows | ResizeExamples((8, 8)).with_exception_handling()
    ...     _ = bad | beam.Map(lambda each: (each.id, each.stage)) | beam.Map(print)
    ('1', 'ResizeExamples')
    """

    source: str
    row: Optional[int]  # noqa: UP045
    subset: str
    id: Optional[str]  # noqa: UP045
    stage: str
    error: str
    image: Optional[bytes]  # noqa: UP045


for _kind in (WrittenDataset, BadExample):
    registry.register_coder(_kind, RowCoder)
