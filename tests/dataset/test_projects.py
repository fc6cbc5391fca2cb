"""Projects, merging and transforms on the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar import BeamCifarError
from beam_cifar.dataset.project import FILE_NAME, Project, ProjectSource, reference
from beam_cifar.errors import InputError
from beam_cifar.jobs import serial
from beam_cifar.steps.registry import STEPS, make_step, step_class
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import batch, contents, encoded, manifest, picture, quickly, write_cifar, write_tree
from tests.helpers.reading import cifar_rows, unpickled

CLASSES = ["cat", "dog", "ship"]


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CIFAR-10 directory: 12 images in `one`, 8 in `two`."""
    names = [f"image{number:02}.png" for number in range(20)]
    labels = [number % 3 for number in range(20)]
    batches = {"one": batch(names[:12], labels[:12]), "two": batch(names[12:], labels[12:], seed=1)}
    return write_cifar(tmp_path_factory.mktemp("pets") / "pets", batches, CLASSES)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, with a class of its own; two of its four ids are in `pets` as well."""
    content = batch(["image00.png", "image01.png", "new1.png", "new2.png"], [0, 1, 1, 0], seed=2)
    return write_cifar(tmp_path_factory.mktemp("more") / "more", {"one": content}, ["dog", "bird"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each class."""
    files = {f"{name}/{name}{number}.png": encoded(picture(number)) for name in CLASSES for number in range(3)}
    return write_tree(tmp_path_factory.mktemp("photos") / "photos", files)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def call(command: Command, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command line, also as one text, in this process and without a runner: exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = shlex.split(str(arguments[0]).replace("\\\n", " ")) if len(arguments) == 1 else arguments
        try:
            return command(*words)
        except SystemExit as end:
            return (int(end.code or 0), *capsys.readouterr())

    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        yield run


@pytest.fixture
def done(call: Command) -> Callable[..., str]:
    """Runs a command line that must succeed; its stdout."""

    def run(*arguments: object) -> str:
        code, out, err = call(*arguments)
        assert code == 0, err
        return out

    return run


Done = Callable[..., str]


# The documentation's own calls.


def test_a_project_is_made_filled_and_exported_to_imagenet(done: Done, here: Path, pets: Path) -> None:
    for flag in ("--format", "-f"):
        done("create --overwrite")
        assert done(f"import {flag} cifar {pets}") == "imported 'pets': CIFAR-10 (cifar), 2 files, 3 classes\n"
        done(f"export -f imagenet -o out{flag}")
        found = contents(here / f"out{flag}")
        assert {name.split("/")[0] for name in found} == set(CLASSES)
        assert len(found) == 20
    assert not list(here.rglob("data_batch*"))


def test_convert_to_imagenet_and_back_as_documented(done: Done, here: Path, pets: Path) -> None:
    done(f"convert -if cifar -i {pets} \\\n    -f imagenet -o images -- --save-images")
    done("convert -if imagenet -i images \\\n    -f cifar -o back -- --save-images")
    assert sorted(row[::3] for row in cifar_rows(here / "back")) == sorted(row[::3] for row in cifar_rows(pets))


def test_a_project_elsewhere_is_exported_to_cifar(done: Done, here: Path, pets: Path) -> None:
    done("create", "-o", "a project")
    done("import", "-p", "a project", pets)
    done("export -p 'a project' -f cifar -o out \\\n    -- --save-images")
    assert cifar_rows(here / "out") == cifar_rows(pets)
    done("export -p 'a project' -f cifar -o pixelless")
    assert [row[3] for row in cifar_rows(here / "pixelless")] == [None] * 20


def test_dogs_are_filtered_on_the_way_to_imagenet(done: Done, here: Path, pets: Path) -> None:
    done(
        f"convert --input-format cifar --input-path {pets} \\\n --output-format imagenet \\\n"
        """ --filter '/item[annotation/label="dog"]'"""
    )
    assert {name.split("/")[0] for name in contents(here / "pets-imagenet")} == {"dog"}


def test_the_same_in_processes_of_their_own(run: Run, cifar10: Path, tmp_path: Path) -> None:
    note = "beam-cifar: note: imagenet output has no subsets (all are in one folder; --subset selects one)\n"
    commands = {
        ("create",): "",
        ("import", "--format", "cifar", str(cifar10)): "",
        ("export", "-f", "imagenet", "-o", "out"): note,
    }
    for words, said in commands.items():
        process = run(*words)
        assert (process.returncode, process.stderr) == (0, said)
    assert len(contents(tmp_path / "out")) == 1203
    assert (run("export", "-f", "imagenet", "-o", "out").returncode, run("create").returncode) == (4, 4)
    process = run("transform", "-t", "random_split", "--", "--help")
    assert process.returncode == 0
    assert "NAME:RATIO" in process.stdout


def test_an_archive_is_imported_under_its_name(done: Done, here: Path, cifar10_archive: Path) -> None:
    done("create")
    assert done("import", cifar10_archive).startswith("imported 'cifar-10-python': CIFAR-10 (cifar), 6 files")
    done("filter -e '/item[annotation/label=\"dog\"]'")
    done("export -f cifar -o dogs")
    assert len(unpickled(here / "dogs" / "test_batch")["labels"]) > 0


# What a project does.

CHAINS: dict[str, list[tuple[str, str]]] = {
    "a filter": [("filter", """-e '/item[annotation/label="dog"]'""")],
    "a short mode": [("filter", """-e '/item/annotation[label="dog"]' -m i+a""")],
    "subsets, then a filter on them": [
        ("map_subsets", "-s one:train -s two:test"),
        ("filter", "--filter '/item[subset=\"test\"]'"),
    ],
    "a split by chance": [("random_split", "-s train:.5 -s 'my set:.5' --seed 7")],
    "classes, order, then chance": [
        ("remap_labels", "-l cat:pet -l dog:pet"),
        ("shuffle", "--seed 3"),
        ("random_sampler", "-k 9"),
        ("compact_labels", ""),
    ],
    "pixels": [("resize", "--height 16 --width 8"), ("grayscale", "")],
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_a_project_does_is_what_convert_does(name: str, done: Done, here: Path, pets: Path) -> None:
    done("create")
    done("import", pets)
    for step, options in CHAINS[name]:
        done(f"filter {options}" if step == "filter" else f"transform -t {step} -- {options}")
    done("export -f cifar -o project -- --save-images")
    calls = [word for step in CHAINS[name] for word in ("--transform", " ".join(step).rstrip())]
    done("convert", "-i", pets, "-f", "cifar", "-o", "convert", "--save-images", *calls)
    assert contents(here / "project") == contents(here / "convert")
    # A filter alone is an option of a job that is planned on counts.
    quick = ("job", "options") if manifest(here / "project")["options"]["filter"] else ()
    made, wanted = ({k: v for k, v in manifest(here / n).items() if k not in quick} for n in ("project", "convert"))
    assert made == wanted


def test_what_export_is_asked_for_comes_after_the_transforms(done: Done, call: Command, here: Path, pets: Path) -> None:
    done("create")
    done("import", pets)
    done("transform -t remap_labels -- -l cat:pet -l dog:pet")
    done("export", "-f", "cifar", "-o", "five", "--label", "pet", "--limit", "5")
    names = unpickled(here / "five" / "batches.meta")["label_names"]
    numbers = (0, 1, 3, 4, 6)  # every third is a ship
    assert [(row[0], names[row[1]]) for row in cifar_rows(here / "five")] == [
        (f"image{number:02}.png", "pet") for number in numbers
    ]
    done("export", "-f", "imagenet", "-o", "pets", "-e", '/item[annotation/label="pet"]')
    assert {name.split("/")[0] for name in contents(here / "pets")} == {"pet"}
    code, _, err = call("export", "-f", "cifar", "-o", "cats", "-e", '/item[annotation/label="cat"]')
    assert (code, len(err.splitlines())) == (3, 1)
    done("export", "-f", "imagenet", "-o", "more", "--transform", "rename -e '|image|x|'", "--remap", "pet:animal")
    assert "animal/x00.png" in contents(here / "more")


def test_an_output_without_a_name_is_named_after_the_folder(done: Done, here: Path, pets: Path) -> None:
    done("create -o work/animals --name other")
    done("import", "-p", "work/animals", pets)
    facts = json.loads(done("export -p work/animals -f parquet --json"))
    assert facts["output"] == str(here / "animals-parquet")
    assert facts["written"] == 20


def test_the_plan_of_a_project_names_the_files_behind_chosen_rows(done: Done, here: Path, pets: Path) -> None:
    done("create")
    done("import", pets)
    done("transform -t random_split")
    shown = done("export -f cifar --plan")
    assert "train: 13 rows from one, two" in shown
    assert list(here.iterdir()) == [here / FILE_NAME]


def test_subsets_of_a_source_are_read_alone(done: Done, here: Path, pets: Path) -> None:
    done("create")
    done("import", pets, "--subset", "two")
    done("export -f cifar -o out --save-images")
    assert cifar_rows(here / "out") == cifar_rows(pets, ["two"])


def test_a_project_is_shown_in_order(done: Done, here: Path, pets: Path, more: Path) -> None:
    done("create --name 'my pets'")
    done("import", pets)
    done("import", pets, "-n", "again", "--subset", "one")
    done("import", more)
    done("import", more)
    done("filter -e '/item[id]'")
    done("transform -t sort")
    assert done("project").splitlines() == [
        f"project 'my pets' in {here}",
        "sources:",
        f"  1. pets: cifar, {pets}",
        f"  2. again: cifar, {pets}, subsets one",
        f"  3. more: cifar, {more}",
        f"  4. more-2: cifar, {more}",
        "on clash: error",
        "transforms:",
        "  1. filter expression='/item[id]'",
        "  2. sort",
        "to change it, edit beam_cifar.json in that folder",
    ]
    assert done("project --json") == (here / FILE_NAME).read_text("utf-8")


def test_transforms_are_listed_and_explained(done: Done, here: Path) -> None:
    assert [line.split()[0] for line in done("transform --list").splitlines()] == list(STEPS)
    for name in STEPS:
        assert f"beam-cifar transform -t {name} --" in done(f"transform -t {name} -- --help")


# Several datasets.


def test_merged_sets_share_classes_by_name(done: Done, here: Path, pets: Path, more: Path) -> None:
    done(f"merge {pets} {more} -o out --on-clash suffix -- --save-images")
    assert unpickled(here / "out" / "batches.meta")["label_names"] == [*CLASSES, "bird"]
    first, added = cifar_rows(pets, ["one"]), cifar_rows(more)
    rows = cifar_rows(here / "out", ["one"])
    assert [row[3] for row in rows] == [row[3] for row in first + added]
    assert [row[1] for row in rows[12:]] == [1, 3, 3, 1]
    assert len({row[0] for row in rows}) == 16


def test_three_ways_to_merge_give_the_same(done: Done, here: Path, pets: Path, more: Path) -> None:
    done("merge", pets, f"{more}:cifar", "-f", "cifar", "-o", "merged", "--on-clash", "first", "--", "--save-images")
    done(
        "convert", "-i", pets, "--merge", more, "-f", "cifar", "-o", "converted", "--on-clash", "first", "--save-images"
    )
    done("create -o project")
    for path in (pets, more):
        done("import", "-p", "project", path)
    done("export -p project -f cifar -o exported --on-clash first --save-images")
    assert contents(here / "merged") == contents(here / "converted") == contents(here / "exported")
    assert len(cifar_rows(here / "merged")) == 22


def test_sets_of_two_formats_merge(done: Done, here: Path, pets: Path, photos: Path) -> None:
    done("merge", f"{photos}:imagenet", pets, "-o", "out")
    assert len(contents(here / "out")) == 29
    done("merge", pets, photos, "-f", "cifar", "-o", "small", "--compact-labels", "--label", "ship", "--save-images")
    assert unpickled(here / "small" / "batches.meta")["label_names"] == ["ship"]
    assert {row[1] for row in cifar_rows(here / "small")} == {0}


def test_a_path_that_ends_like_a_format_is_a_path(done: Done, here: Path, pets: Path, more: Path) -> None:
    (here / "odd:cifar").symlink_to(pets)
    done("merge", "odd:cifar", f"{more}:cifar", "-o", "out", "--on-clash", "first")
    assert len(cifar_rows(here / "out")) == 22


def test_classes_without_items_are_dropped_at_the_end(done: Done, here: Path, pets: Path) -> None:
    arguments = ["-f", "cifar", "--label", "ship", "--label", "dog", "--remap", "ship:boat", "--compact-labels"]
    done("convert", "-i", pets, "-o", "out", *arguments, "--transform", "random_sampler -k 4")
    assert set(unpickled(here / "out" / "batches.meta")["label_names"]) <= {"dog", "boat"}
    assert len(cifar_rows(here / "out")) == 4


def test_a_subset_that_is_kept_is_kept_of_every_set(done: Done, here: Path, pets: Path, more: Path) -> None:
    done("convert", "-i", pets, "--merge", more, "--subset", "one", "-f", "cifar", "-o", "out", "--on-clash", "first")
    assert len(cifar_rows(here / "out")) == 14


# The file.


def test_data_in_the_folder_of_the_project_may_move_with_it(
    done: Done, here: Path, pets: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(pets, here / "project" / "data" / "pets", "cifar", save_images=True)
    done("create -o project")
    done("import -p project project/data/pets")
    done("import", "-p", "project", photos)
    paths = [source["path"] for source in json.loads((here / "project" / FILE_NAME).read_text("utf-8"))["sources"]]
    assert paths == ["data/pets", str(photos)]
    (here / "project").rename(here / "moved")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    done("export -p ../moved -f imagenet")
    assert len(contents(here / "elsewhere" / "moved-imagenet")) == 29
    done("import -p ../moved ../moved/data/pets -n again")
    assert Project.load("../moved").sources[0].path == str(here / "moved" / "data" / "pets")


def test_data_set_and_project_may_share_a_folder(done: Done, here: Path, pets: Path) -> None:
    quickly(pets, here / "set", "cifar", save_images=True)
    done("create -o set")
    done("import -p set set")
    assert json.loads(done("project -p set --json"))["sources"][0]["path"] == "."
    done("export -p set -f imagenet -o out")
    assert len(contents(here / "out")) == 20


NAMES = st.one_of(
    st.sampled_from(["кошки и собаки", 'say "cat"', "it's", "a\\b", "\udcff", "猫 ", "\n"]), st.text(min_size=1)
)
FOLDERS = st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda name: name not in (".", ".."))
STEPS_MADE = st.one_of(
    st.builds(lambda pairs: make_step("remap_labels", {"mapping": pairs}), st.dictionaries(st.text(), st.text())),
    st.builds(lambda seed: make_step("random_split", {"seed": seed}), st.integers(0, 2**40)),
    st.builds(lambda name: make_step("rename", {"regex": f"|a|{name}|"}), st.sampled_from(["b", "кот", '"'])),
    st.builds(lambda ids: make_step("remove_items", {"ids": ids}), st.lists(st.tuples(st.text(), st.text()))),
    st.just(make_step("filter", {"expression": '/item[annotation/label="собака"]', "mode": "i+a"})),
)
SOURCES = st.builds(
    ProjectSource,
    name=NAMES,
    path=st.lists(FOLDERS, min_size=1).map(lambda names: "/" + "/".join(names)),
    format=st.sampled_from([None, "cifar", "imagenet"]),
    subsets=st.lists(NAMES).map(tuple),
)
PROJECTS = st.builds(
    Project,
    name=NAMES,
    sources=st.lists(SOURCES, max_size=4, unique_by=lambda source: source.name).map(tuple),
    steps=st.lists(STEPS_MADE, max_size=4).map(tuple),
    on_clash=st.sampled_from(["error", "suffix", "first"]),
)


@settings(deadline=None, max_examples=60)
@given(PROJECTS)
def test_a_project_comes_back_as_it_was(project: Project) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project.save(folder)
        assert Project.load(folder) == project
        assert os.listdir(folder) == [FILE_NAME]
        content = (Path(folder) / FILE_NAME).read_bytes()
        assert content.endswith(b"}\n")
        Project.load(folder).save(folder)
        assert (Path(folder) / FILE_NAME).read_bytes() == content


@pytest.mark.parametrize(
    ("path", "folder", "stored"),
    [
        ("/a/b/c", "/a", "b/c"),
        ("/a", "/a", "."),
        ("/a/..b", "/a", "..b"),
        ("/ab/c", "/a", "/ab/c"),
        ("/b", "/a", "/b"),
        ("/", "/a", "/"),
        ("/a/b", "/", "a/b"),
        ("/", "/", "."),
    ],
)
def test_paths_below_the_project_are_relative(path: str, folder: str, stored: str) -> None:
    assert reference(path, folder) == stored


def content_of(**changes: Any) -> dict[str, Any]:
    source = {"name": "a", "path": "a", "format": None, "subsets": []}  # type: ignore[var-annotated]
    step = {"name": "random_split", "options": {"seed": 1}}
    content = {"beam_cifar_project": 1, "name": "p", "sources": [source], "transforms": [step], "on_clash": "error"}
    return {**content, **changes}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in content_of().items() if name != key}


def with_source(**changes: Any) -> dict[str, Any]:
    return content_of(sources=[{"name": "a", "path": "a", "format": None, "subsets": [], **changes}])


def with_step(name: Any, options: Any) -> dict[str, Any]:
    return content_of(transforms=[{"name": "sort", "options": {}}, {"name": name, "options": options}])


WRONG_FILES: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not valid JSON: Expecting value"),
    "half": (b'{"beam_cifar_project": 1, ', "not valid JSON"),
    "bytes": (b"\xff\xfe\0", "not valid JSON: 'utf-8' codec"),
    "no number": (b'{"beam_cifar_project": NaN}', "not valid JSON: NaN is not a JSON number"),
    "a key twice": (b'{"beam_cifar_project": 1, "name": "a", "name": "b"}', "key 'name' appears twice"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "large": (b" " * (16 << 20) + b"{}", "larger than 16 MiB"),
    "digits": (b'{"beam_cifar_project": ' + b"1" * 5000 + b"}", "not valid JSON"),
    "a list": ([], "not a project"),
    "another file": ({"version": 1}, "expected an object with 'beam_cifar_project'"),
    "a later version": (content_of(beam_cifar_project=2, more=1), "beam_cifar_project must be 1, found 2"),
    "a boolean version": (content_of(beam_cifar_project=True), "must be 1, found true"),
    "an unknown key": (content_of(source=[]), "unknown key 'source'; did you mean 'sources'?"),
    "a missing key": (without("transforms"), "'transforms' is missing"),
    "a number as name": (content_of(name=5), "name: expected a string, found 5"),
    "an empty name": (content_of(name=""), "the name of the project or of a source is empty"),
    "an object as list": (content_of(sources={}), "sources: expected a list, found an object"),
    "a text as source": (content_of(sources=["a"]), 'sources[0]: expected an object, found "a"'),
    "an unknown key of a source": (with_source(fmt="cifar"), "sources[0]: unknown key 'fmt'"),
    "an unknown format": (with_source(format="cifra"), "sources[0].format: unknown format 'cifra'; did you mean 'cifar'"),
    "a format that cannot be read": (with_source(format="tfds_parquet"), "sources[0].format: unknown format 'tfds_parquet'"),
    "an empty path": (with_source(path=""), "sources[0].path: expected a path"),
    "a path of two lines": (with_source(path="a\0b"), "sources[0].path: expected a path"),
    "a subset that is null": (with_source(subsets=["a", None]), "sources[0].subsets[1]: expected a string, found null"),
    "one name twice": (content_of(sources=[content_of()["sources"][0]] * 2), "source 'a' already exists"),
    "an unknown rule": (content_of(on_clash="last"), "unknown on_clash 'last'"),
    "an unknown transform": (with_step("splt", {}), "transforms[1]: unknown transform 'splt'; did you mean 'split'"),
    "an unknown option": (with_step("sort", {"sede": 1}), "transforms[1]: sort: unknown option 'sede'"),
    "a missing option": (with_step("filter", {}), "transforms[1]: filter: option 'expression' is required"),
    "an option of another type": (with_step("shuffle", {"seed": "x"}), "transforms[1]: shuffle: option 'seed' must be int, found 'x'"),
    "pairs of three": (with_step("map_subsets", {"mapping": [["a", "b", "c"]]}), "transforms[1]: map_subsets: option 'mapping'"),
    "a broken filter": (with_step("filter", {"expression": "/item["}), "transforms[1]: --filter '/item['"),
    "shares beyond one": (with_step("random_split", {"splits": [["a", 5], ["b", 0]]}), "transforms[1]: random_split:"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(name: str, call: Command, here: Path) -> None:
    content, message = WRONG_FILES[name]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (here / FILE_NAME).write_bytes(data)
    code, out, err = call("project", "--json")
    assert (code, out) == (3, "")
    assert err.startswith(f"beam-cifar: error: {here / FILE_NAME}: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert len(err) < 500
    assert (here / FILE_NAME).read_bytes() == data


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_folder_or_a_pipe_is_no_project_file(make: Callable[[Path], None], call: Command, here: Path) -> None:
    make(here / FILE_NAME)
    assert call("project") == (3, "", f"beam-cifar: error: {here / FILE_NAME}: not a file\n")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=6,
)
OPTIONS = [(name, option) for name in STEPS for option in step_class(name).__dataclass_fields__]  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=250)
@given(st.sampled_from(OPTIONS), ANYTHING, st.text() | st.lists(st.tuples(st.text(), st.text() | st.floats())))
def test_no_option_in_a_file_does_more_than_be_refused(option: tuple[str, str], value: Any, likely: Any) -> None:
    name, field = option
    with tempfile.TemporaryDirectory() as folder:
        for each in (value, likely):
            (Path(folder) / FILE_NAME).write_text(json.dumps(with_step(name, {field: each})), "utf-8")
            with contextlib.suppress(InputError):
                assert Project.load(folder).steps[1].name == name


# Refusals.

NO_PROJECT = "(beam_cifar.json is missing); create one with beam-cifar create"
REFUSED: dict[str, tuple[int, str, str]] = {
    "no project to show": (2, "project", f"no project in . {NO_PROJECT}"),
    "no project to import to": (2, "import PETS", f"no project in . {NO_PROJECT}"),
    "no project to export": (2, "export -p nowhere -f cifar", f"no project in nowhere {NO_PROJECT}"),
    "no project to filter": (2, "filter -e /item", NO_PROJECT),
    "no project to change": (2, "transform -t sort", NO_PROJECT),
    "a project that is a URL": (2, "project -p s3://bucket/project", "must be a local folder"),
    "a project that is there": (4, "create -o P", "already exists; replace it with --overwrite"),
    "a project in a file": (4, "create -o P/beam_cifar.json", "exists and is not a directory"),
    "a project below a file": (1, "create -o P/beam_cifar.json/x", "cannot be written"),
    "a project without a name": (2, "create --name ''", "the name of the project or of a source is empty"),
    "a source that is not there": (3, "import -p P nowhere", "nowhere: no such file or directory"),
    "a source of no known format": (3, "import -p P EMPTY", "the directory is empty"),
    "a source of another format": (3, "import -p P -f cifar PHOTOS", "photos"),
    "a format that is only written": (2, "import -p P -f tfds_parquet PETS", "'tfds_parquet' can be written but not read"),
    "a misspelt format": (2, "import -p P -f cifra PETS", "unknown 'cifra'; did you mean cifar"),
    "a name that is taken": (2, "import -p P -n pets MORE", "source 'pets' already exists"),
    "a source without a name": (2, "import -p P -n '' MORE", "the name of the project or of a source is empty"),
    "a misspelt subset": (2, "import -p P --subset on PETS", "unknown subset 'on'; did you mean 'one'?"),
    "two sources at once": (2, "import -p P PETS MORE", "unknown argument"),
    "no sources": (2, "export -p NONE -f cifar", "the project has no sources; add one with beam-cifar import"),
    "no format": (2, "export -p P", "-f/--output-format"),
    "an output that is there": (4, "export -p P -f cifar -o FULL", "exists and is not empty; pass --overwrite"),
    "an unknown flag": (2, "export -p P -f cifar --overwrit", "unknown flag --overwrit; did you mean --overwrite"),
    "an unknown exporter flag": (2, "export -p P -f cifar -- --save-image", "--save-image"),
    "a label that is not there": (2, "export -p P -f cifar --label dgo", "unknown label 'dgo'; did you mean 'dog'?"),
    "a source that has gone": (3, "export -p GONE -f cifar", "no such file or directory"),
    "a broken expression": (2, "filter -p P -e '/item['", "--filter '/item[': column"),
    "no expression": (2, "filter -p P", "-e/--filter"),
    "an unknown mode": (2, "filter -p P -e /item -m item", "unknown filter mode 'item'; did you mean 'items'"),
    "an unknown transform": (2, "transform -p P -t splt", "unknown 'splt'; did you mean split"),
    "no transform": (2, "transform -p P", "-t/--transform --list"),
    "a wrong option": (2, "transform -p P -t random_split -- --sed 4", "unrecognized arguments: --sed 4"),
    "a wrong value": (2, "transform -p P -t random_split -- -s train", "expected"),
    "wrong shares": (2, "transform -p P -t random_split -- -s a:.5 -s b:.6", "ratios must sum to 1"),
    "a missing option": (2, "transform -p P -t map_subsets", "-s/--subset"),
    "options before the dashes": (2, "transform -p P -t random_split -s a:1", "put the transform's options after --"),
    "one set to merge": (2, "merge PETS -o out", "merge needs at least two datasets"),
    "no output to merge into": (2, "merge PETS MORE", "-o/--output-dir"),
    "sets that clash": (2, "merge PETS MORE -o out", "choose how to resolve this with --on-clash"),
    "a set to merge that is not there": (3, "merge PETS nowhere -o out", "nowhere: no such file or directory"),
    "a first set that is not there": (3, "merge nowhere PETS -o out", "nowhere: no such file or directory"),
    "an unknown rule": (2, "merge PETS MORE -o out --on-clash last", "unknown 'last'"),
    "a call of nothing": (2, "convert -i PETS -f cifar --transform ''", "a transform needs a name"),
    "an open quote": (2, "convert -i PETS -f cifar --transform \"sort '\"", "No closing quotation"),
    "an unknown call": (2, "convert -i PETS -f cifar --transform 'splt -s a:1'", "unknown transform 'splt'"),
    "a wrong call": (2, "convert -i PETS -f cifar --transform 'sort --x'", "unrecognized arguments: --x"),
}  # fmt: skip


@pytest.fixture
def places(here: Path, pets: Path, more: Path, photos: Path) -> dict[str, Path]:
    found = {name: here.parent / name.lower() for name in ("P", "NONE", "GONE", "EMPTY", "FULL")}
    for path in found.values():
        path.mkdir()
    (found["FULL"] / "file").write_text("precious")
    Project("p", (ProjectSource("pets", str(pets)),)).save(str(found["P"]))
    Project("none").save(str(found["NONE"]))
    Project("gone", (ProjectSource("a", str(here / "no longer")),)).save(str(found["GONE"]))
    return {**found, "PETS": pets, "MORE": more, "PHOTOS": photos}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_call_changes_nothing_and_says_why(
    name: str, call: Command, here: Path, places: dict[str, Path]
) -> None:
    code, text, message = REFUSED[name]
    words = []
    for word in shlex.split(text):
        head, slash, tail = word.partition("/")
        words.append(f"{places[head]}{slash}{tail}" if head in places else word)
    before = contents(here.parent)
    found, out, err = call(*words)
    assert (found, out) == (code, ""), err
    assert message in err
    assert len([line for line in err.splitlines() if not line.startswith("beam-cifar: note:")]) == 1, err
    assert contents(here.parent) == before
    assert not list(here.iterdir())


def test_a_file_that_cannot_be_replaced_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Project("first").save(".")
    monkeypatch.setattr(os, "replace", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(BeamCifarError, match="cannot be written: No space left") as refused:
        Project("second").save(".")
    assert refused.value.exit_code == 1
    assert Project.load(".").name == "first"
    assert os.listdir(here) == [FILE_NAME]


def test_quick_commands_import_neither_beam_nor_arrow_nor_numpy(here: Path, pets: Path) -> None:
    code = (
        "import sys\nfrom beam_cifar.cli.main import main\n"
        f"for line in (['create'], ['import', {str(pets)!r}], ['project'], ['transform', '--list']):\n"
        "    assert main(line) == 0\n"
        "    print(line, sorted({'apache_beam', 'pyarrow', 'numpy', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.rsplit("] ", 1)[1] for line in process.stderr.splitlines()] == ["[]"] * 4
