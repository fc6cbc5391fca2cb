"""Every kind of wrong use is noticed when the page about pipelines says, with the message that it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.transforms.window import FixedWindows

from beam_cifar import (
    Example,
    FilterExamples,
    ReadAllExamples,
    ReadExamples,
    RemapLabels,
    ResizeExamples,
    TransformExamples,
    WriteExamples,
    find_error,
)
from beam_cifar.errors import BeamCifarError
from beam_cifar.samples.make import make_sample
from tests.helpers import ROOT
from tests.pipeline.test_examples import example, pipeline

PAGE = ROOT / "docs" / "how-to" / "pipeline.md"
LABELS = ["cat", "dog"]
BUILT, WARNED, CAME, END = "construction", "construction, a warning", "the element", "end"
MANY = 1500
"""More elements than any step of ours holds back before it looks at them."""

CAME_BY: list[int] = []
"""One for each element that came by while a pipeline ran."""


class WrongUse(NamedTuple):
    """A wrong use, as a row of the page's table.

    Attributes:
        what: what is wrong.
        noticed: when it is noticed.
        message: what is said, with "..." for what differs.
        use: uses it in a pipeline, given a folder for files.
    """

    what: str
    noticed: str
    message: str
    use: Callable[[beam.Pipeline, Path], Any]


def came(element: Any) -> Any:
    CAME_BY.append(1)
    return element


def elements(line: beam.Pipeline, *wrong: Any, kind: Any = Example) -> beam.PCollection[Any]:
    """The wrong elements, and good ones after them."""
    good = [example(f"{n}") for n in range(MANY - len(wrong))]
    rows = line | beam.Create([*wrong, *good], reshuffle=False)
    return rows | beam.Map(came).with_output_types(kind)


def write(rows: beam.PCollection[Any], folder: Path, target: str = "parquet", labels: Any = LABELS) -> Any:
    return rows | WriteExamples(folder / "out", target, labels)


def written_twice(line: beam.Pipeline, folder: Path) -> None:
    rows = elements(line)
    for name in ("One", "Two"):
        _ = rows | name >> WriteExamples(folder / "out", "parquet", LABELS)


def occupied(line: beam.Pipeline, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "file").touch()
    write(elements(line), folder)


def endless(line: beam.Pipeline, folder: Path) -> None:
    rows = elements(line)
    rows.is_bounded = False
    write(rows, folder)


def unnamed(line: beam.Pipeline, folder: Path) -> None:
    """A name for the output that is known only when the pipeline runs."""
    output: Any = RuntimeValueProvider("out", str, str(folder / "out"))
    _ = elements(line) | WriteExamples(output, "parquet", LABELS)


def local_on_dataflow(line: beam.Pipeline, folder: Path) -> None:
    # Beam itself would look for the bucket of --temp_location if it made the pipeline with this runner.
    line.options.view_as(StandardOptions).runner = "DataflowRunner"
    _ = line | ReadExamples(cifar(folder))


def two_outputs(line: beam.Pipeline, folder: Path) -> None:
    write(elements(line) | ResizeExamples((1, 1)).with_exception_handling(), folder)


def far_away(line: beam.Pipeline, folder: Path) -> None:
    make_sample(str(folder / "cifar.tar.gz"), kind="cifar10", images=10, tar=True)
    _ = beam.Pipeline(argv=["--runner=FlinkRunner", "--flink_master=a:1"]) | ReadExamples(folder / "cifar.tar.gz")


DAMAGED = example("x", encoding="png", image=b"\x89PNG....")
USES = (
    WrongUse(
        "a path that leads to no dataset", BUILT, "...nowhere: no such file or directory",
        lambda line, folder: ReadExamples(folder / "nowhere"),
    ),
    WrongUse(
        "something before `ReadExamples`", BUILT,
        "ReadExamples reads ..., not what comes before it; apply it to the pipeline, or use ReadAllExamples ...",
        lambda line, folder: line | beam.Create(["a"]) | ReadExamples(cifar(folder)),
    ),
    WrongUse(
        "a subset that is not there", BUILT, "unknown subset 'tets'; did you mean 'test'?",
        lambda line, folder: ReadExamples(cifar(folder), subsets=["tets"]),
    ),
    WrongUse(
        "an archive whose index workers cannot see", BUILT,
        "...: its index is in a temporary folder...; pass scratch..., or --temp_location...", far_away,
    ),
    WrongUse(
        "a local path on Dataflow", BUILT,
        "ReadExamples: ...: DataflowRunner workers cannot access local paths; use gs://", local_on_dataflow,
    ),
    WrongUse(
        "an output known only at run time", BUILT,
        "WriteExamples: the output is RuntimeValueProvider ...; expected a path, which must be known when the pipeline is "
        "built",
        unnamed,
    ),
    WrongUse(
        "labels without an order", BUILT, "labels are set ...; expected a LabelTable, or a list of class names",
        lambda line, folder: write(elements(line), folder, labels={"cat"}),
    ),
    WrongUse(
        "a class to rename that is not there", BUILT, "unknown label 'dgo'; did you mean 'dog'?",
        lambda line, folder: RemapLabels({"dgo": "hound"}, LABELS),
    ),
    WrongUse(
        "a class in a filter that is not there", WARNED, "FilterExamples: unknown label 'dgo'; did you mean 'dog'?",
        lambda line, folder: FilterExamples('/item[annotation/label="dgo"]', LABELS),
    ),
    WrongUse(
        "a filter that is no XPath", BUILT, "--filter '/item[': column 7: ...",
        lambda line, folder: FilterExamples("/item[", LABELS),
    ),
    WrongUse(
        "a transform of whole datasets", BUILT, "shuffle does not work image by image...",
        lambda line, folder: TransformExamples("shuffle"),
    ),
    WrongUse(
        "a size that is none", BUILT, "ResizeExamples: the size is 16; expected (height, width) in pixels",
        lambda line, folder: ResizeExamples(16),
    ),
    WrongUse(
        "a format that is not there", BUILT, "unknown output format 'parket'; did you mean 'parquet'...?",
        lambda line, folder: WriteExamples(folder / "out", "parket", LABELS),
    ),
    WrongUse(
        "nothing before `WriteExamples`", BUILT,
        "WriteExamples writes the examples that come before it; nothing does",
        lambda line, folder: write(line, folder),
    ),
    WrongUse(
        "two outputs before it", BUILT,
        "WriteExamples takes one PCollection, but what comes before it has several; choose one, ...", two_outputs,
    ),
    WrongUse(
        "elements of another type", BUILT,
        "WriteExamples takes examples, or rows with their fields (...); found elements of int",
        lambda line, folder: write(elements(line, 1, kind=int), folder),
    ),
    WrongUse(
        "the same, if Beam does not know the type", CAME,
        "WriteExamples takes examples, or rows with their fields (...); found int 1",
        lambda line, folder: write(elements(line, 1, kind=Any), folder),
    ),
    WrongUse(
        "rows without a field", CAME, "WriteExamples: rows have no field 'subset', ...; the fields of an example are ...",
        lambda line, folder: write(elements(line, {"id": "x"}, kind=Any), folder),
    ),
    WrongUse(
        "a field of another type", CAME, "WriteExamples: field 'label' is str 'dog'; expected int or None",
        lambda line, folder: write(elements(line, {**example("x")._asdict(), "label": "dog"}, kind=Any), folder),
    ),
    WrongUse(
        "examples in windows", BUILT,
        "WriteExamples: its examples are in FixedWindows, ...; put beam.WindowInto(beam.window.GlobalWindows()) before it",
        lambda line, folder: write(elements(line) | beam.WindowInto(FixedWindows(10)), folder),
    ),
    WrongUse("examples that never end", BUILT, "WriteExamples: its examples never end, ...", endless),
    WrongUse(
        "two datasets at one place", BUILT,
        "...: two WriteExamples of a pipeline write it; choose two places, or flatten before", written_twice,
    ),
    WrongUse(
        "an output that is there", BUILT, "...: exists and is not empty; pass overwrite=True to replace it, ...", occupied
    ),
    WrongUse(
        "a path that comes late and leads to no dataset", CAME, "...nowhere: no such file or directory",
        lambda line, folder: line
        | beam.Create([str(folder / "nowhere"), *[str(folder / "later")] * (MANY - 1)], reshuffle=False)
        | beam.Map(came)
        | ReadAllExamples(LABELS),
    ),
    WrongUse(
        "a damaged image", CAME, "...example 'x': ...expected a PNG, JPEG, ...",
        lambda line, folder: write(elements(line, DAMAGED), folder),
    ),
    WrongUse(
        "a label outside the table", CAME, "...example 'x': label 2 is outside the label table of 2 classes",
        lambda line, folder: write(elements(line, example("x", 2)), folder),
    ),
    WrongUse(
        "two examples with equal id and order", END,
        "example 'x' of subset 'train': there are two with this id and order 0...",
        lambda line, folder: write(elements(line, example("x"), example("x")), folder),
    ),
    WrongUse(
        "images that the format cannot store", END, "...: images differ in size, but npz needs one size; ...",
        lambda line, folder: write(elements(line, example("x", image=bytes(3), height=1, width=1)), folder, "npz"),
    ),
    WrongUse(
        "no example at all", END, "...out: WriteExamples received no examples; nothing was written",
        lambda line, folder: write(elements(line) | beam.Filter(lambda each: False).with_output_types(Example), folder),
    ),
)  # fmt: skip


def cifar(folder: Path) -> Path:
    make_sample(str(folder / "cifar"), kind="cifar10", images=10)
    return folder / "cifar"


def table_of_wrong_uses() -> str:
    """The table of the page."""
    rows = (f"| {use.what} | {use.noticed} | {use.message.replace('...', '…')} |\n" for use in USES)
    return "".join(["| what is wrong | noticed at | message |\n", "| --- | --- | --- |\n", *rows])


def test_the_page_has_the_table() -> None:
    """To update it: python -c 'from tests.pipeline.test_wrong_uses import *; print(table_of_wrong_uses())'."""
    assert table_of_wrong_uses() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", USES, ids=lambda use: use.what)
def test_a_wrong_use_is_noticed_in_time(wrong: WrongUse, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CAME_BY.clear()
    line, noticed = pipeline(), BUILT
    try:
        wrong.use(line, tmp_path)
        noticed, message = WARNED, "\n".join(caplog.messages)
        if not message:
            line.run().wait_until_finish()
    except Exception as error:
        found = find_error(error)
        assert isinstance(found, BeamCifarError)
        message = str(found)
        if noticed != BUILT:
            noticed = END if len(CAME_BY) == MANY else CAME
    assert noticed == wrong.noticed
    assert re.fullmatch(".*".join(map(re.escape, wrong.message.split("..."))), message), message
    assert not list(tmp_path.glob("*/manifest.json"))
