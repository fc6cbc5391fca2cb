"""The PTransforms over single images: pipelines of one's own, beside what the command line makes of the same rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.coders import RowCoder, registry
from apache_beam.metrics import MetricsFilter
from apache_beam.metrics.metric import Lineage
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.display import DisplayData
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_cifar import (
    BeamCifarError,
    ConvertOptions,
    Example,
    ExportOptions,
    FilterExamples,
    LabelTable,
    ReadAllExamples,
    ReadExamples,
    RemapLabels,
    ResizeExamples,
    TransformExamples,
    WriteExamples,
    convert,
    find_error,
    run,
    storage,
)
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from beam_cifar.formats.arrivals import ArrivalsSource, ArrivalWriter, facts_of
from beam_cifar.formats.contract.types import SinkOptions, SourceFile
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.pipeline import arrivals
from beam_cifar.pipeline.counters import COUNTERS
from beam_cifar.pipeline.incoming import checked_table
from beam_cifar.pipeline.runners import make_runner, pipeline_options
from beam_cifar.steps.registry import STEPS, make_step
from tests.helpers import ROOT
from tests.helpers.image_trees import contents
from tests.helpers.reading import cifar_rows, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = LabelTable(("a", "b"))


def pipeline(*flags: str) -> beam.Pipeline:
    options = pipeline_options(flags, 1 if not flags else None)
    return beam.Pipeline(runner=make_runner(options), options=options)


def example(name: str, label: int | None = 0, subset: str = "train", **more: Any) -> Example:
    made = Example(name, subset, bytes(range(12)), "raw", 2, 2, 3, label, f"{name}.png")
    return made._replace(**more)


def written(examples: list[Example], output: Path, target: str = "cifar", **options: Any) -> dict[str, Any]:
    """Writes examples, and returns the manifest."""
    with pipeline() as line:
        made = line | beam.Create(examples, reshuffle=False).with_output_types(Example)
        _ = made | WriteExamples(str(output), target, TABLE, options=ExportOptions(save_images=True, **options))
    manifest: dict[str, Any] = json.loads((output.parent / f"{output.name}.beam_cifar" / "manifest.json").read_text())
    return manifest


def test_what_an_output_lacks_is_logged_and_in_the_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examples = [example("a"), example("b", subset="test")]
    assert written(examples, tmp_path / "out", "image_dir")["losses"] == ["labels", "subsets"]
    assert "image_dir: image_dir output has no labels" in caplog.messages
    assert written(examples, tmp_path / "parquet", "parquet")["losses"] == []


def failure(examples: list[Example], output: Path, target: str = "cifar") -> BeamCifarError:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (each runner has its own)
        written(examples, output, target)
    found = find_error(caught.value)
    assert found is not None
    assert "\n" not in str(found)
    return found


def test_every_image_is_read_once_with_its_pixels(cifar10: Path) -> None:
    expected = [(name, label, pixels) for name, label, _, pixels in cifar_rows(cifar10)]
    source = ReadExamples(str(cifar10))
    with pipeline() as line:
        found = line | source | beam.Map(lambda e: (e.filename, e.label, e.image))
        assert_that(found, equal_to(expected))
    assert source.labels.names[5] == "dog"


def test_the_order_of_examples_is_that_of_the_rows(cifar10: Path, tmp_path: Path) -> None:
    names = [name for name, *_ in cifar_rows(cifar10)]
    with pipeline() as line:
        found = line | ReadExamples(str(cifar10)) | beam.Map(lambda e: (e.order, e.filename))
        _ = found | beam.combiners.ToList() | beam.Map(lambda rows: (tmp_path / "names").write_text(json.dumps(rows)))
    rows = json.loads((tmp_path / "names").read_text())
    assert [name for _, name in sorted(rows)] == names
    assert len({order for order, _ in rows}) == len(names)


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {}),
    "parquet packed": ("parquet", {"images_per_batch": 77}),
    "parquet jpeg": ("parquet", {"image_ext": ".jpg"}),
    "cifar": ("cifar", {"save_images": True}),
    "cifar without images": ("cifar", {}),
    "cifar packed": ("cifar", {"save_images": True, "images_per_batch": 50, "save_dataset_meta": True}),
    "cifar genuine": ("cifar", {"save_images": True, "layout": "genuine"}),
    "imagenet": ("imagenet", {"keep_empty_classes": True}),
    "imagenet_with_subset_dirs": ("imagenet_with_subset_dirs", {}),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("cifar10", name) for name in FORMATS),
        ("cifar100", "parquet"),
        ("cifar100", "cifar"),
        ("cifar100", "cifar genuine"),
    ],
)
def test_a_pipeline_of_ones_own_writes_what_the_command_line_writes(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target, options = FORMATS[name]
    path = str(request.getfixturevalue(kind))
    kept, other = ("dog", "cat") if kind == "cifar10" else ("girl", "tiger")
    source = ReadExamples(path)
    wanted = source.labels.select([kept, other])
    remap = RemapLabels({kept: other}, source.labels)
    with pipeline() as line:
        rows = line | source | beam.Filter(lambda e: e.label in wanted) | remap
        _ = rows | WriteExamples(str(tmp_path / "ours"), target, remap.labels, options=ExportOptions(**options))
    remaps = (f"{kept}:{other}",)
    convert(ConvertOptions(path, str(tmp_path / "cli"), target, labels=(kept, other), remaps=remaps, **options))
    assert tree(tmp_path / "ours") == tree(tmp_path / "cli")
    assert folders(tmp_path / "ours") == folders(tmp_path / "cli")


def folders(path: Path) -> list[str]:
    return sorted(str(inner.relative_to(path)) for inner in path.rglob("*") if inner.is_dir())


@pytest.mark.parametrize("flags", [["--direct_num_workers=2"], pytest.param(["--direct_num_workers=2", "--direct_running_mode=multi_processing"], marks=pytest.mark.slow), ["--direct_runner_bundle_repeat=1"]], ids=["threads", "processes", "twice"])  # fmt: skip
def test_the_bytes_do_not_depend_on_who_runs_it(flags: list[str], cifar10: Path, tmp_path: Path) -> None:
    assert as_written(cifar10, tmp_path / "other", *flags) == as_written(cifar10, tmp_path / "one")


def as_written(source: Path, output: Path, *flags: str) -> dict[str, str]:
    with pipeline(*flags) as line:
        _ = line | ReadExamples(str(source)) | WriteExamples(str(output), "parquet", LabelTable(tuple("abcdefghij")))
    beside = output.with_name(output.name + ".beam_cifar")
    assert [path.name for path in beside.iterdir()] == ["manifest.json"]
    return tree(output) | {"manifest": tree(beside)["manifest.json"]}


def test_a_filter_and_a_new_size_work_on_examples_as_in_the_command_line(cifar10: Path, tmp_path: Path) -> None:
    expression = '/item[annotation/label="dog" and subset!="test_batch"]'
    source = ReadExamples(str(cifar10))
    with pipeline() as line:
        rows = line | source | FilterExamples(expression, source.labels) | ResizeExamples((16, 24))
        _ = rows | WriteExamples(str(tmp_path / "ours"), "imagenet", source.labels)
    convert(ConvertOptions(str(cifar10), str(tmp_path / "cli"), "imagenet", filter=expression, resize=(16, 24)))
    assert tree(tmp_path / "ours") == tree(tmp_path / "cli")


@pytest.mark.prism
def test_the_readme_pipeline_runs_on_prism_and_equals_the_command_line(cifar10_archive: Path, tmp_path: Path) -> None:
    flags = [
        "--runner=PrismRunner",
        f"--prism_location={os.environ['BEAM_CIFAR_PRISM']}",
        "--environment_type=LOOPBACK",
    ]
    check_readme_pipeline(cifar10_archive, tmp_path, flags)


def test_the_readme_pipeline_runs_as_it_stands_and_equals_the_command_line(
    cifar10_archive: Path, tmp_path: Path
) -> None:
    check_readme_pipeline(cifar10_archive, tmp_path, ["--runner=FnApiRunner"])


def check_readme_pipeline(archive: Path, folder: Path, flags: list[str]) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "ReadExamples(" in block)
    assert '["--runner=FnApiRunner"]' in code
    assert len(code.strip().splitlines()) <= 10
    (folder / "cifar-10-python.tar.gz").symlink_to(archive)
    (folder / "pets.py").write_text(code.replace('["--runner=FnApiRunner"]', repr(flags)))
    subprocess.run([sys.executable, "pets.py"], cwd=folder, check=True, capture_output=True, timeout=300)
    asked = {"labels": ("cat", "dog"), "remaps": ("cat:pet", "dog:pet")}
    convert(ConvertOptions(str(archive), str(folder / "cli"), "parquet", **asked))  # type: ignore[arg-type]
    assert tree(folder / "pets-parquet") == tree(folder / "cli")


def test_examples_of_ones_own_making_are_written_in_their_order(tmp_path: Path) -> None:
    rows = [example("c", 1, order=2), example("b", None, order=1), example("a", 0, order=1), example("z", 1, order=0)]
    manifest = written(rows, tmp_path / "out")
    found = [(name, label, pixels) for name, label, _, pixels in cifar_rows(tmp_path / "out")]
    assert sorted(found, key=str) == sorted(((e.filename, e.label, e.image) for e in rows), key=str)
    assert [found[0][0], found[-1][0]] == ["z.png", "c.png"]
    assert manifest["rows"]["written"] == 4
    assert manifest["unlabelled"] == 1


def test_examples_of_several_subsets_sizes_and_without_image_are_written(tmp_path: Path) -> None:
    rows = [
        example("a"),
        example("b", image=bytes(3), height=1, width=1),
        example("c", image=None, height=None, width=None, channels=None),
        example("a", subset="test", image=bytes([7, 9]), height=1, width=2, channels=1),
    ]
    written(rows, tmp_path / "out")
    gray = bytes([7, 9] * 3)
    assert [row[3] for row in cifar_rows(tmp_path / "out", ["test"])] == [gray]
    assert {row[3] for row in cifar_rows(tmp_path / "out", ["train"])} == {None, bytes(range(12)), bytes(3)}


WRONG: dict[str, tuple[list[Example], str]] = {
    "no examples": ([], "received no examples"),
    "too few pixels": ([example("x", image=b"1")], "example 'x': has 1 byte of pixels"),
    "size without image": ([example("x", image=None)], "has a size but no image"),
    "image without size": ([example("x", height=None)], "height, width) is"),
    "two channels": ([example("x", channels=2, image=bytes(8))], "expected 1 or 3 channels"),
    "unknown encoding": ([example("x", encoding="ppm")], "unknown encoding 'ppm'; expected one of"),
    "damaged PNG": ([example("x", encoding="png", image=b"\x89PNG....")], "expected a PNG, JPEG, "),
    "label outside": ([example("x", label=2)], "label 2 is outside the label table of 2 classes"),
    "negative label": ([example("x", label=-1)], "label -1 is outside"),
    "twice the same": (
        [example("x"), example("x")],
        "example 'x' of subset 'train': there are two with this id and order 0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_an_example_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    examples, message = WRONG[name]
    found = failure(examples, tmp_path / "out")
    assert isinstance(found, InputError)
    assert message in str(found)
    assert not (tmp_path / "out").exists()


def test_one_folder_for_two_subsets_refuses_an_id_that_repeats(tmp_path: Path) -> None:
    rows = [example("x", subset="train"), example("x", subset="test")]
    assert isinstance(failure(rows, tmp_path / "out", "imagenet"), UsageError)
    written(rows, tmp_path / "out", "imagenet_with_subset_dirs")
    assert len(tree(tmp_path / "out")) == 2


def test_names_that_some_disks_do_not_tell_apart_become_different_ones(tmp_path: Path) -> None:
    written([example("X"), example("x"), example("y")], tmp_path / "out", "imagenet")
    assert sorted(path.name for path in (tmp_path / "out" / "a").iterdir()) == ["%58.png", "x.png", "y.png"]


def test_an_output_that_exists_is_refused_at_once_or_replaced_on_request(tmp_path: Path) -> None:
    written([example("x")], tmp_path / "out")
    with pytest.raises(OutputError, match="overwrite=True"):
        WriteExamples(str(tmp_path / "out"), "cifar", TABLE)
    with pipeline() as line:
        rows = line | beam.Create([example("new")]).with_output_types(Example)
        _ = rows | WriteExamples(str(tmp_path / "out"), "cifar", TABLE, overwrite=True)
    assert [row[0] for row in cifar_rows(tmp_path / "out")] == ["new.png"]


def test_a_wrong_use_is_refused_when_the_transform_is_made(cifar10: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        ReadExamples(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="did you mean 'train'"):
        ReadExamples(str(cifar10), subsets=["trian"])
    with pytest.raises(UsageError, match="unknown output format 'parket'"):
        WriteExamples(str(tmp_path / "out"), "parket", TABLE)
    with pytest.raises(UsageError, match="image-ext"):
        WriteExamples(str(tmp_path / "out"), "imagenet", TABLE, options=ExportOptions(image_ext=".bmp"))
    with pytest.raises(UsageError, match="did you mean 'a'"):
        RemapLabels({"aa": "x"}, TABLE)
    with pytest.raises(UsageError, match="column"):
        FilterExamples("/item[", TABLE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [("resize", {"height": 9, "width": 12}), ("crop", {"height": 9, "width": 12}), ("grayscale", {})],
)
def test_a_transform_of_single_images_writes_what_a_job_does(
    name: str, options: dict[str, int], cifar10: Path, tmp_path: Path
) -> None:
    step = make_step(name, options)
    convert(ConvertOptions(str(cifar10), str(tmp_path / "job"), "parquet", steps=(step,), workers=1))
    line = pipeline()
    source = ReadExamples(str(cifar10))
    changed = line | source | TransformExamples(name, options)
    _ = changed | WriteExamples(str(tmp_path / "pipeline"), "parquet", source.labels)
    line.run().wait_until_finish()
    assert contents(tmp_path / "pipeline") == contents(tmp_path / "job")
    assert changed.element_type is Example


def test_a_transform_that_needs_the_whole_set_is_not_one_of_single_images() -> None:
    for name in set(STEPS) - {"resize", "crop", "grayscale"}:
        with pytest.raises(UsageError):
            TransformExamples(name)
    with pytest.raises(UsageError, match="shuffle does not work image by image"):
        TransformExamples("shuffle")


def test_type_hints_say_example_and_the_coder_is_the_standard_one(cifar10: Path) -> None:
    line = pipeline()
    source = ReadExamples(str(cifar10))
    read = line | source
    made = read | FilterExamples("/item", source.labels) | RemapLabels({}, source.labels) | ResizeExamples((1, 1))
    assert read.element_type is Example
    assert made.element_type is Example
    assert isinstance(registry.get_coder(Example), RowCoder)
    coder = registry.get_coder(Example)
    bare = Example("é", "s", None, "raw", None, None, None, None, "f")
    for each in (example("x"), bare):
        assert coder.decode(coder.encode(each)) == each


def test_display_data_say_what_a_step_does(cifar10: Path, tmp_path: Path) -> None:
    source = ReadExamples(str(cifar10))
    steps = {
        source: {"path": str(cifar10), "format": "cifar", "rows": 1203},
        FilterExamples("/item", TABLE): {"filter": "/item", "filter_mode": "items"},
        RemapLabels({"a": "b"}, TABLE): {"renamings": "a:b"},
        ResizeExamples((3, 4)): {"size": "3x4"},
        TransformExamples("grayscale"): {"transform": "grayscale"},
        WriteExamples(str(tmp_path / "out"), "parquet", TABLE): {
            "format": "parquet", "output": str(tmp_path / "out"),
        },
    }  # fmt: skip
    for step, expected in steps.items():
        shown = {item.key: item.value for item in DisplayData.create_from(step).items}
        assert expected.items() <= shown.items()  # type: ignore[attr-defined]


def test_counters_have_documented_names_and_the_counts_of_the_manifest(cifar10: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(cifar10), str(tmp_path / "out"), "imagenet", filter='/item[annotation/label="dog"]')
    conversion = run(options)
    assert conversion.result is not None
    found = conversion.result.metrics().query(MetricsFilter().with_namespace("beam_cifar"))["counters"]
    summary = conversion.wait()
    counted = {counter.key.metric.name: counter.committed for counter in found}
    assert counted == {
        "rows_read": 1203, "rows_filtered": summary.filtered, "rows_written": summary.written,
        "parts_written": 6, "files_written": summary.written, "bytes_written": summary.bytes,
    }  # fmt: skip
    assert set(counted) <= set(COUNTERS)
    page = (ROOT / "docs" / "scaling-out.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in COUNTERS)


def test_lineage_says_what_was_read_and_written(cifar10: Path, tmp_path: Path) -> None:
    conversion = run(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet", subsets=("test",)))
    line = pipeline()
    rows = line | beam.Create([str(cifar10 / "test_batch")]) | ReadAllExamples(ReadExamples(cifar10).labels)
    _ = rows | WriteExamples(tmp_path / "own", "imagenet", ReadExamples(cifar10).labels)
    own = line.run()
    own.wait_until_finish()
    for result, output in ((conversion.result, tmp_path / "out"), (own, tmp_path / "own")):
        sources, sinks = (
            Lineage.query(result.metrics(), kind)  # type: ignore[union-attr]
            for kind in (Lineage.SOURCE, Lineage.SINK)
        )
        assert sources == {f"filesystem:localhost.{cifar10}/test_batch"}
        assert sinks == {f"filesystem:localhost.{output}"}
    conversion.wait()


def test_an_output_belongs_to_a_conversion_until_it_has_been_waited_for(cifar10: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(cifar10), str(tmp_path / "out"), "cifar", overwrite=True)
    conversion = run(options)
    with pytest.raises(OutputError, match="another job"):
        run(options)
    assert conversion.wait().written == 1203
    assert run(options).wait().written == 1203


SEVERAL: dict[str, Any] = {
    "parquet": ExportOptions(),
    "cifar": ExportOptions(save_images=True, images_per_batch=77),
    "imagenet_with_subset_dirs": ExportOptions(),
    "mnist": ExportOptions(),
}


def test_several_formats_from_one_pass_are_what_each_is_alone(cifar10: Path, tmp_path: Path) -> None:
    def write(output: Path, formats: str | list[str], options: Any) -> None:
        source = ReadExamples(str(cifar10))
        with pipeline() as line:
            rows = line | source | beam.Map(turned).with_output_types(Example)
            made = rows | WriteExamples(output, formats, source.labels, options=options)
            found = made | beam.Map(lambda each: (each.path, each.format, each.images))
            places = {name: output / name for name in formats} if isinstance(formats, list) else {formats: output}
            assert_that(found, equal_to([(str(path), name, 1203) for name, path in places.items()]))

    write(tmp_path / "all", list(SEVERAL), SEVERAL)
    for name, options in SEVERAL.items():
        write(tmp_path / name, name, options)
        assert tree(tmp_path / "all" / name) == tree(tmp_path / name)
    beside = [f"{name}.beam_cifar" for name in SEVERAL]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted([*SEVERAL, *beside])
    assert not (tmp_path / "all.beam_cifar").exists()


def turned(each: Example) -> Example:
    return each.with_array(each.array()[::-1])


def test_what_is_written_is_described_by_rows_with_a_schema(tmp_path: Path) -> None:
    with pipeline() as line:
        rows = line | beam.Create([example("a"), example("b", 1)]).with_output_types(Example)
        made = rows | WriteExamples(tmp_path / "out", "mnist_csv", TABLE)
        fields = dict(named_fields_from_element_type(made.element_type))
        sizes = made | beam.Select("format", "images", "files")
        assert_that(sizes, equal_to([beam.Row(format="mnist_csv", images=2, files=1)]))
    texts, numbers = dict.fromkeys(("path", "format", "manifest"), str), ("images", "files", "bytes")
    assert fields == texts | dict.fromkeys(numbers, np.int64)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ([], r"the formats are \[\]"),
        (["cifar", "cifar"], "or different names"),
        (["cifar", "png"], "unknown output format"),
    ],
)
def test_several_formats_are_different_known_ones(formats: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        WriteExamples(tmp_path / "out", formats, TABLE)


def test_several_formats_are_not_written_into_a_dataset(tmp_path: Path) -> None:
    written([example("x")], tmp_path / "out")
    with pytest.raises(OutputError, match="choose another folder"):
        WriteExamples(tmp_path / "out", ["cifar"], TABLE, overwrite=True)


def test_rows_that_are_asked_for_but_not_kept_end_the_job(tmp_path: Path) -> None:
    folder = storage.JobFolder(str(tmp_path / "out"), "job")
    table = checked_table([example("a"), example("b")])
    with folder.stage(f"{folder.arrivals}/one", hashed=False) as file:
        writer = ArrivalWriter(file)
        writer.append(table.select(example_schema().names), facts_of(table))
        writer.close()
        file.commit()
    kept = SourceFile("one", "", "one", storage.whole_file(f"{folder.arrivals}/one"))
    with ArrivalsSource().open_rows(kept, TABLE) as rows:
        assert rows.take([1]).column("id").to_pylist() == ["b"]
        assert rows.facts(0, 2).column("id").to_pylist() == ["a", "b"]
        assert rows.row_bytes(0, 2, decoded=False) == rows.row_bytes(0, 2, decoded=True) == 12
        with pytest.raises(JobError, match="one: has no row 7; run the job again"):
            rows.take([7])


def test_examples_that_were_kept_twice_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of a first layout still runs after the same examples were kept again in other files, and laid out anew."""
    names = iter(["b", "a", "c", "d"])
    monkeypatch.setattr(arrivals, "uuid", mock.Mock(uuid4=lambda: mock.Mock(hex=next(names))))
    sink = SinkSettings(
        "npz", (), SinkOptions(TABLE, ExportOptions(save_images=True)), storage.JobFolder(str(tmp_path / "out"), "j")
    )
    kept = []
    for rows in (["1", "2"], ["3", "4"], ["3", "4"], ["1", "2"]):
        keep = arrivals._Keep(sink.folder, arrivals._change(sink), 2)
        for row in rows:
            assert list(keep.process(example(row, image=bytes([int(row)] * 12)))) == []
        kept += [each.value for each in keep.finish_bundle()]
    first = arrivals._lay_out(0, kept[:2], sink, sink.folder, False)
    second = arrivals._lay_out(0, kept[2:], sink, sink.folder, False)
    (task,) = first.tasks
    written = {arrivals._write_task(task, each, None).sha256 for each in (second, first, second)}
    assert len(written) == 1
