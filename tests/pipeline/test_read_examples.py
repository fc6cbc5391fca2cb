"""What ReadExamples and ReadAllExamples read: paths in all their forms, known before the pipeline runs or not."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.testing.util import assert_that, equal_to

from beam_cifar import ConvertOptions, LabelTable, ReadAllExamples, ReadExamples, WriteExamples, convert, find_error
from beam_cifar.errors import InputError, UsageError
from beam_cifar.steps.registry import make_step
from tests.helpers.image_trees import contents
from tests.helpers.reading import cifar_rows, tree
from tests.pipeline.test_examples import pipeline

BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


def read(source: ReadExamples, folder: Path) -> Counter[tuple[str, str]]:
    """The subset and the class name of every example."""
    names = source.labels.names
    with pipeline() as line:
        found = line | source | beam.Map(lambda each: f"{each.subset},{names[each.label]}")
        _ = found | beam.io.WriteToText(str(folder / "found"), shard_name_template="")
    rows = [tuple(row.split(",")) for row in (folder / "found").read_text().splitlines()]
    return Counter(rows)  # type: ignore[arg-type]


def of_subsets(counts: Counter[Any]) -> dict[str, int]:
    made: Counter[str] = Counter()
    for (subset, _), n in counts.items():
        made[subset] += n
    return dict(made)


def test_one_file_a_pattern_and_a_list_of_files_are_parts_of_their_dataset(cifar10: Path, tmp_path: Path) -> None:
    whole = read(ReadExamples(cifar10), tmp_path)
    forms: dict[Any, list[str]] = {
        cifar10 / "test_batch": ["test_batch"],
        str(cifar10 / "data_batch_[12]"): ["data_batch_1", "data_batch_2"],
        (cifar10 / "test_batch", f"{cifar10}/data_batch_3"): ["data_batch_3", "test_batch"],
        (cifar10,): BATCHES,
        f"{cifar10.parent}/cifar1?": BATCHES,
    }
    for path, batches in forms.items():
        found = read(ReadExamples(list(path) if isinstance(path, tuple) else path), tmp_path)
        assert found == Counter({key: n for key, n in whole.items() if key[0] in batches})


def test_several_datasets_share_one_table_of_classes(cifar10: Path, cifar100: Path, tmp_path: Path) -> None:
    convert(
        ConvertOptions(
            str(cifar10), str(tmp_path / "dogs"), "parquet", labels=("dog",), steps=(make_step("compact_labels", {}),)
        )
    )
    both = ReadExamples([tmp_path / "dogs", cifar10, cifar100])
    assert both.labels.names[0] == "dog"
    assert len(both.labels.names) == 110
    alone = read(ReadExamples(cifar10), tmp_path) + read(ReadExamples(cifar100), tmp_path)
    dogs = read(ReadExamples(tmp_path / "dogs"), tmp_path)
    assert {name for _, name in dogs} == {"dog"}
    assert read(both, tmp_path) == alone + dogs


def test_what_comes_at_run_time_is_written_as_if_it_had_been_known(cifar10: Path, tmp_path: Path) -> None:
    source = ReadExamples(cifar10)
    for name, given in {"folder": [str(cifar10)], "files": [f"{cifar10}/{b}" for b in BATCHES[::-1]]}.items():
        with pipeline("--direct_num_workers=2") as line:
            rows = line | beam.Create(given) | ReadAllExamples(source.labels)
            _ = rows | WriteExamples(tmp_path / name, "imagenet", source.labels)
    convert(ConvertOptions(str(cifar10), str(tmp_path / "cli"), "imagenet"))
    assert tree(tmp_path / "folder") == tree(tmp_path / "cli") == tree(tmp_path / "files")


def test_other_numbers_of_the_same_classes_are_those_that_were_asked_for(cifar10: Path, tmp_path: Path) -> None:
    names = ReadExamples(cifar10).labels.names
    with pipeline() as line:
        paths = line | beam.Create([str(cifar10 / "test_batch")])
        rows = paths | ReadAllExamples(["bird of prey", *names[::-1]])
        found = rows | beam.Map(lambda each: (each.filename, each.label))
        expected = [(name, 10 - label) for name, label, *_ in cifar_rows(cifar10, ["test_batch"])]
        assert_that(found, equal_to(expected))


REFUSED = {
    "nowhere": "no such file or directory",
    "nothing*": "no file or directory matches",
    "other": "has class 'ant', which is not one of the labels given",
    "data/batches.meta": "not a file with images of the dataset",
    "texts/text.txt": "text.txt: not a dataset itself, so its folder is read: ",
}


@pytest.fixture
def mixed(cifar10: Path, tmp_path: Path) -> Path:
    """A folder of a dataset, and of what is none."""
    shutil.copytree(cifar10, tmp_path / "data")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "text.txt").write_text("hello")
    with pipeline() as line:
        rows = line | ReadExamples(cifar10 / "test_batch")
        _ = rows | WriteExamples(tmp_path / "other", "parquet", LabelTable(("ant", *"abcdefghi")))
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_to_no_dataset_ends_the_pipeline_or_is_set_aside(name: str, mixed: Path) -> None:
    labels = ReadExamples(mixed / "data").labels
    path = str(mixed / name)
    with pytest.raises(Exception, match=".") as caught, pipeline() as line:
        _ = line | beam.Create([path]) | ReadAllExamples(labels)
    error = find_error(caught.value)
    assert isinstance(error, InputError)
    assert REFUSED[name] in str(error)
    with pipeline() as line:
        paths = line | beam.Create([path, str(mixed / "data" / "test_batch"), str(mixed / "data" / "data_batch_1")])
        good, bad = paths | ReadAllExamples(labels).with_exception_handling()
        subsets = good | beam.Map(lambda each: each.subset) | beam.Distinct()
        assert_that(subsets, equal_to(["test_batch", "data_batch_1"]), label="good")
        told = bad | beam.Map(lambda each: (each.source, each.stage, REFUSED[name] in each.error))
        assert_that(told, equal_to([(path, "ReadAllExamples", True)]), label="bad")


def test_a_wrong_path_is_said_when_the_pipeline_is_built(mixed: Path) -> None:
    wrong: dict[Any, str] = {
        7: "the path is 7; expected that of a dataset, or a list of paths; one that is known only when",
        b"x": "the path is b'x'",
        RuntimeValueProvider("path", str, "x"): "goes to ReadAllExamples",
    }
    for path, message in wrong.items():
        with pytest.raises(UsageError, match=message):
            ReadExamples(path)
    with pytest.raises(UsageError, match="no path is given"):
        ReadExamples([])
    with pytest.raises(UsageError, match="test_batch: is named twice"):
        ReadExamples([mixed / "data" / "test_batch", f"{mixed}/data/t*"])
    for name in set(REFUSED) - {"other"}:
        with pytest.raises(InputError, match=REFUSED[name].replace("*", r"\*")):
            ReadExamples(mixed / name)
    with pytest.raises(UsageError, match="not what comes before it; apply it to the pipeline, or use ReadAllExamples"):
        _ = pipeline() | beam.Create(["a"]) | ReadExamples(mixed / "data")
    with pytest.raises(UsageError, match="use ReadExamples for known ones"):
        _ = pipeline() | ReadAllExamples(["a"])


@pytest.mark.parametrize("runner", ["PortableRunner", "FlinkRunner"])
def test_an_index_is_where_workers_see_it(runner: str, cifar10: Path, cifar10_archive: Path, tmp_path: Path) -> None:
    flags = [f"--runner={runner}", "--job_endpoint=localhost:1", "--flink_master=elsewhere:8081"]
    line = beam.Pipeline(argv=flags)
    with pytest.raises(UsageError, match="its index is in a temporary folder.* pass scratch.* or --temp_location"):
        _ = line | "Refused" >> ReadExamples(cifar10_archive)
    _ = line | "Seen" >> ReadExamples(cifar10_archive, scratch=tmp_path / "index")
    assert os.listdir(tmp_path / "index")
    _ = line | "Folder" >> ReadExamples(cifar10)
    _ = beam.Pipeline(argv=[*flags, "--environment_type=LOOPBACK"]) | ReadExamples(cifar10_archive)
    shared = beam.Pipeline(argv=[*flags, f"--temp_location={tmp_path}/temp"])
    _ = shared | ReadExamples(cifar10_archive)
    assert [os.listdir(place) for place in (tmp_path / "temp").iterdir()] == [os.listdir(tmp_path / "index")]


def test_an_archive_that_comes_at_run_time_is_indexed_in_the_scratch_folder(
    cifar10: Path, cifar10_archive: Path, tmp_path: Path
) -> None:
    labels = ReadExamples(cifar10).labels
    with pipeline("--direct_num_workers=2") as line:
        rows = line | beam.Create([str(cifar10_archive)]) | ReadAllExamples(labels, scratch=tmp_path / "scratch")
        _ = rows | WriteExamples(tmp_path / "out", "parquet", labels)
    convert(ConvertOptions(str(cifar10), str(tmp_path / "cli"), "parquet"))
    assert contents(tmp_path / "out") == contents(tmp_path / "cli")
    assert os.listdir(tmp_path / "scratch")


def test_a_dataset_and_what_is_in_it_are_not_read_twice(cifar10: Path, tmp_path: Path) -> None:
    convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet"))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for paths in (
        [cifar10, cifar10 / "test_batch"],
        [f"{cifar10}/test*", cifar10],
        [tmp_path / "out", f"{tmp_path}/out/data/test*"],
        [tmp_path / "out", tmp_path / "link"],
    ):
        with pytest.raises(UsageError, match="is named twice, so its images would be read twice"):
            ReadExamples(paths)
    assert read(ReadExamples(f"{tmp_path}/ou*"), tmp_path).total() == 1203  # not out.beam_cifar


def test_a_format_or_a_list_of_subsets_is_checked_when_the_transform_is_made(cifar10: Path) -> None:
    for make in (
        lambda: ReadAllExamples(["a"], format="parkett"),
        lambda: ReadAllExamples(["a"], subsets="train"),
        lambda: ReadExamples(cifar10, subsets="train"),
    ):
        with pytest.raises(UsageError, match="unknown input format 'parkett'|subsets are the text 'train'"):
            make()
