"""The command line as users meet it: real processes, their output and exit codes."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_cifar.formats.registry import FORMATS
from tests.helpers.commands import Run
from tests.helpers.image_trees import encoded, picture, write_tree
from tests.helpers.reading import batch_names, cifar_rows, tree, unpickled


def spoilt(source: Path, folder: Path, name: str, content: bytes) -> Path:
    """A copy of a set with one file replaced."""
    shutil.copytree(source, folder)
    (folder / name).write_bytes(content)
    return folder


def protocol2(batch: dict[str, object]) -> bytes:
    return pickle.dumps(batch, protocol=2)


class Touch:
    """What a hostile pickle does: it makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


WRONG_CALLS: dict[str, tuple[int, list[str], str]] = {
    "unknown flag": (2, ["-i", "IN", "-f", "cifar", "-o", "out", "--overwrit"], "unknown flag --overwrit; did you mean --overwrite"),
    "unknown flag before --": (2, ["-i", "IN", "-f", "cifar", "--color", "--", "--save-images"], "unknown flag --color"),
    "unknown exporter flag": (2, ["-i", "IN", "-f", "cifar", "--", "--save-image"], "--save-image"),
    "misspelt format": (2, ["-i", "IN", "-f", "parqet", "-o", "out"], "unknown 'parqet'; did you mean parquet"),
    "misspelt input format": (2, ["-i", "IN", "-if", "cifra", "-f", "parquet"], "unknown 'cifra'; did you mean cifar or cifar_binary?"),
    "misspelt label": (2, ["-i", "IN", "-f", "cifar", "-o", "out", "--label", "dgo"], "unknown label 'dgo'; did you mean 'dog'?"),
    "misspelt subset": (2, ["-i", "IN", "-f", "cifar", "-o", "out", "--subset", "tset"], "did you mean 'test'"),
    "misspelt remap": (2, ["-i", "IN", "-f", "cifar", "-o", "out", "--remap", "dgo:cat"], "unknown label 'dgo'"),
    "no format": (2, ["-i", "IN"], "-f/--output-format"),
    "no input": (2, ["-f", "cifar"], "-i/--input-path"),
    "missing input": (3, ["-i", "nowhere", "-f", "cifar", "-o", "out"], "nowhere: no such file or directory"),
    "empty input": (3, ["-i", "EMPTY", "-f", "cifar", "-o", "out"], "the directory is empty"),
    "a file of no known format": (3, ["-i", "IN/readme.html", "-f", "cifar", "-o", "out"], "files there: 1 .html; name the format you expect"),
    "a format that is only read": (2, ["-i", "IN", "-f", "downsampled_imagenet"], "'downsampled_imagenet' can be read but not written"),
    "no meta file": (3, ["-i", "NO_META", "-f", "cifar", "-o", "out"], "no known format"),
    "a flag of Dataflow that is nearly ours": (2, ["-i", "IN", "-f", "cifar", "--labels", "dog"], "unknown flag --labels; did you mean --label?"),
    "a misspelt format after a path": (2, ["-i", "IN", "--merge", "IN/:cifr", "-f", "cifar"], "unknown input format 'cifr'; did you mean 'cifar'"),
    "the home directory as output": (2, ["-i", "IN", "-f", "cifar", "-o", "~", "--overwrite"], "contains your home directory"),
    "a file as output": (4, ["-i", "IN", "-f", "cifar", "-o", "FULL/file"], "exists and is not a directory"),
    "an archive cut short": (3, ["-i", "CUT.tar.gz", "-f", "cifar", "-o", "out"], "truncated or damaged"),
    "non-empty output": (4, ["-i", "IN", "-f", "cifar", "-o", "FULL"], "exists and is not empty; pass --overwrite"),
    "output that is a file": (4, ["-i", "IN", "-f", "cifar", "-o", "FULL/file", "--overwrite"], "is not a directory"),
    "input equal to output": (2, ["-i", "IN", "-f", "cifar", "-o", "IN", "--overwrite"], "is the input itself"),
    "output inside the input": (2, ["-i", "IN", "-f", "cifar", "-o", "IN/out"], "is inside the input"),
    "truncated batch": (3, ["-i", "TRUNCATED", "-f", "cifar", "-o", "out"], "data_batch_3: byte "),
    "hostile batch": (3, ["-i", "HOSTILE", "-f", "cifar", "-o", "out"], "data_batch_3: byte "),
    "label 10 of 10 classes": (3, ["-i", "LABEL10", "-f", "cifar", "-o", "out"], "row 1: label 10 is outside the label table"),
    "more images than labels": (3, ["-i", "LENGTHS", "-f", "cifar", "-o", "out"], "data_batch_3: byte "),
    "unwritable output": (1, ["-i", "IN", "-f", "cifar", "-o", "/proc/out"], "cannot be written"),
    "output below a file": (1, ["-i", "IN", "-f", "cifar", "-o", "FULL/file/out"], "cannot be written"),
    "no images in a batch": (2, ["-i", "IN", "-f", "cifar", "--images-per-batch", "0"], "--images-per-batch must be at least 1, found 0"),
    "not a number": (2, ["-i", "IN", "-f", "cifar", "--limit", "many"], "--limit"),
    "a URL of another kind": (2, ["-i", "ftp://host/set", "-f", "cifar"], "ftp:// is not supported; use s3://, gs://"),
    "a bucket without a name": (2, ["-i", "s3:///set", "-f", "cifar"], "expected s3://BUCKET/FOLDER"),
    "a URL that climbs": (2, ["-i", "s3://bucket/../set", "-f", "cifar"], "empty, '.' or '..'"),
    "a bucket as output": (2, ["-i", ".", "-f", "cifar", "-o", "s3://bucket"], "is a whole bucket; choose a folder in it"),
    "an unknown runner": (2, ["-i", "IN", "-f", "cifar", "--runner", "NoSuchRunner"], "Unexpected pipeline runner"),
    "workers twice": (2, ["-i", "IN", "-f", "cifar", "--workers", "2", "--direct_num_workers=3"], "pass only one of them"),
    "a bad value for Beam": (2, ["-i", "IN", "-f", "cifar", "-o", "out", "--direct_num_workers", "x"], "direct_num_workers"),
    "a wrong image extension": (2, ["-i", "IN", "-f", "parquet", "--image-ext", ".gif"], "not a supported extension; expected one of .png, .jpg, .jpeg"),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(cifar10: Path, cifar10_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    good = unpickled(cifar10 / "data_batch_3")
    rows = len(good["labels"])
    content = (cifar10 / "data_batch_3").read_bytes()
    (folder / "empty").mkdir()
    cut = folder / "cut.tar.gz"
    cut.write_bytes(cifar10_archive.read_bytes()[:100_000])
    no_meta = spoilt(cifar10, folder / "no_meta", "data_batch_1", b"")
    (no_meta / "batches.meta").unlink()
    labels = [0, 10, *good["labels"][2:]]
    return {
        "IN": cifar10,
        "EMPTY": folder / "empty",
        "NO_META": no_meta,
        "CUT.tar.gz": cut,
        "TRUNCATED": spoilt(cifar10, folder / "truncated", "data_batch_3", content[:-1000]),
        "HOSTILE": spoilt(cifar10, folder / "hostile", "data_batch_3", protocol2({"labels": Touch(folder / "marker")})),
        "LABEL10": spoilt(cifar10, folder / "label10", "data_batch_3", protocol2(good | {"labels": labels})),
        "LENGTHS": spoilt(cifar10, folder / "lengths", "data_batch_3", protocol2(good | {"labels": [0] * (rows - 1)})),
    }


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call_is_one_line_with_its_exit_code(
    name: str, run: Run, inputs: dict[str, Path], tmp_path: Path
) -> None:
    code, arguments, message = WRONG_CALLS[name]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    words = []
    for argument in arguments:
        head, slash, tail = argument.partition("/")
        path = tmp_path / "full" if head == "FULL" else inputs.get(head)
        words.append(f"{path}{slash}{tail}" if path else argument)
    done = run("convert", *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr
    notes = [line for line in done.stderr.splitlines() if not line.startswith("beam-cifar: note:")]
    assert len(notes) == 1, done.stderr
    assert tree(tmp_path) == {"full/file": tree(tmp_path)["full/file"]}
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
    assert not (inputs["HOSTILE"].parent / "marker").exists()


@pytest.mark.parametrize("arguments", [[], ["convrt"], ["info"], ["info", "a", "b"], ["formats", "--", "x"]])
def test_a_wrong_command_is_one_line_and_exit_2(arguments: list[str], run: Run) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["formats"], ["convert", "--help"], ["info", "IN"]])
def test_quick_commands_import_neither_beam_nor_arrow_nor_numpy(command: list[str], cifar10: Path) -> None:
    command = [str(cifar10) if word == "IN" else word for word in command]
    code = (
        "import sys\nfrom beam_cifar.cli.main import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'apache_beam', 'pyarrow', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_is_one_object_with_the_documented_fields(run: Run, cifar10: Path) -> None:
    done = run("convert", "-if", "cifar", "-i", cifar10, "-f", "cifar", "-o", "out", "--label", "dog", "--json")
    result = json.loads(done.stdout)
    names = "version format output read written filtered quarantined quarantined_files subsets labels seconds losses"
    assert list(result) == names.split()
    assert result["losses"] == ["pixels"]
    assert result["read"] == 1203 == result["written"] + result["filtered"]
    assert result["labels"]["dog"] == result["written"] == sum(result["subsets"].values())


def test_pixels_left_out_are_mentioned_once(run: Run, cifar10: Path) -> None:
    done = run("convert", "-i", cifar10, "-f", "cifar", "-o", "out")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "--save-images" in line] == done.stderr.splitlines()
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.startswith("wrote the labels of 1,203 images as cifar to ")
    assert done.stdout.splitlines()[0].endswith("/out, without pixels; `-- --save-images` writes them")
    assert run("convert", "-i", cifar10, "-f", "parquet", "-o", "images").stderr == ""


@pytest.mark.parametrize("spelling", [["--save-images"], ["--", "--save-images"], ["--", "--save-media"]])
def test_exporter_options_stand_before_or_after_the_dashes(
    spelling: list[str], run: Run, cifar10: Path, tmp_path: Path
) -> None:
    arguments = ["--input-format", "cifar", "--input-path", cifar10, "--output-format", "cifar"]
    done = run("convert", *arguments, "--output-dir", "out", "--limit", "5", *spelling)
    assert (done.returncode, done.stderr) == (0, "")
    assert cifar_rows(tmp_path / "out") == cifar_rows(cifar10)[:5]


def test_without_an_output_it_is_named_after_the_source(run: Run, cifar10_archive: Path, tmp_path: Path) -> None:
    assert run("convert", "-i", cifar10_archive, "-f", "parquet", "--limit", "10").returncode == 0
    assert (tmp_path / "cifar-10-python-parquet" / "data").exists()


def test_plan_prints_the_files_and_writes_nothing(run: Run, cifar10: Path, tmp_path: Path) -> None:
    done = run("convert", "-i", cifar10, "-f", "parquet", "-o", "out", "--plan", "--images-per-batch", "500")
    assert "data/train-00000-of-00003.parquet: 500 rows from data_batch_1, data_batch_2, data_batch_3" in done.stdout
    plan = json.loads(run("convert", "-i", cifar10, "-f", "cifar", "-o", "out", "--plan", "--json").stdout)
    assert [shard["path"] for shard in plan["shards"]] == batch_names(cifar10)
    assert not list(tmp_path.iterdir())


def test_info_counts_without_reading_pixels(run: Run, cifar10: Path, cifar100: Path, cifar10_archive: Path) -> None:
    facts = json.loads(run("info", cifar10, "--json", "--checksums").stdout)
    assert facts["rows"] == sum(facts["classes"].values()) == 1203
    assert [subset["name"] for subset in facts["subsets"]] == batch_names(cifar10)
    assert not any(found["genuine"] for name, found in facts["checksums"].items() if name != "batches.meta")
    assert len(json.loads(run("info", cifar100, "--json").stdout)["superclasses"]["people"]) == 5
    assert "1,203 rows" in run("info", cifar10_archive).stdout


def test_info_recognises_a_genuine_file_by_its_checksum(run: Run, cifar10: Path, tmp_path: Path) -> None:
    meta = {"num_cases_per_batch": 10000, "label_names": unpickled(cifar10 / "batches.meta")["label_names"]}
    from beam_cifar.pickles.recognise import Meta
    from beam_cifar.pickles.write import write_meta

    folder = tmp_path / "set"
    shutil.copytree(cifar10, folder)
    with (folder / "batches.meta").open("wb") as file:
        write_meta(file, Meta("cifar10", tuple(meta["label_names"]), (), 10000, 3072))
    assert re.search(r"batches.meta +\(genuine CIFAR-10 batches.meta\)", run("info", folder, "--checksums").stdout)


def test_detect_names_the_format(run: Run, cifar10: Path, cifar10_archive: Path, tmp_path: Path) -> None:
    assert run("detect", cifar10).stdout == run("detect", cifar10_archive).stdout == "cifar\n"
    done = run("detect", tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)


def test_formats_lists_the_registry(run: Run) -> None:
    assert [line.split()[0] for line in run("formats").stdout.splitlines()] == list(FORMATS)


def test_make_sample_refuses_to_write_over_something(run: Run, cifar10: Path) -> None:
    assert run("make-sample", cifar10, "--images", 5).returncode == 4
    assert run("make-sample", "new", "--images", 0).returncode == 2


def test_verbose_shows_the_traceback(run: Run, cifar10: Path) -> None:
    done = run("convert", "-v", "-i", cifar10, "-f", "cifar", "-o", "out", "--label", "dgo")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("beam-cifar: error: unknown label")


@pytest.mark.parametrize(
    "mode", ["in_memory", "multi_threading", pytest.param("multi_processing", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "out.beam_cifar/work-*/scratch/*"), (signal.SIGTERM, "out.beam_cifar/index")],
    ids=["writing", "starting"],
)
def test_an_interrupt_leaves_nothing_behind(mode: str, number: int, moment: str, tmp_path: Path, cifar10: Path) -> None:
    from beam_cifar import make_sample

    make_sample(str(tmp_path / "in"), kind="cifar10", images=20_000, seed=0)
    command = [
        sys.executable,
        "-m",
        "beam_cifar",
        "convert",
        "-i",
        tmp_path / "in",
        "-f",
        "parquet",
        "-o",
        tmp_path / "out",
    ]
    options = [f"--direct_running_mode={mode}", f"--direct_num_workers={1 if mode == 'in_memory' else 2}"]
    process = subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(moment)) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (128 + number, "")
    assert errors == "beam-cifar: error: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


LAST_WORDS = """
import os, signal, sys
from beam_cifar.cli import convert, main
from beam_cifar.pipeline.imports import quiet_workers

def run(arguments):
    try:
        with quiet_workers(verbose=False):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
    finally:
        print("last words of a thread", file=sys.stderr, flush=True)

convert.run = run
sys.exit(main.main(["convert", "-i", "in", "-f", "parquet", "-o", "out"]))
"""


def test_after_an_interrupt_nobody_else_writes_to_the_terminal(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LAST_WORDS], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "beam-cifar: error: interrupted\n")


def test_what_was_printed_before_a_failure_is_not_lost(run: Run, tmp_path: Path) -> None:
    for name, image in (("a", 1), ("b", 2)):
        write_tree(tmp_path / name, {"cat/1.png": encoded(picture(image))})
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = run("diff", "a", "b", env=buffered)
    assert done.returncode == 5
    assert done.stdout.splitlines()[-1].startswith("different: ")


def test_names_in_the_data_cannot_control_the_terminal(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"cat\x1b[2J/1.png": encoded(picture(1)), "dog/2.png": encoded(picture(2))})
    missing, info = run("info", "no\x1b[31mwhere"), run("info", "in")
    assert (missing.returncode, missing.stderr.count("\n")) == (3, 1)
    assert r"no\x1b[31mwhere" in missing.stderr
    assert r"cat\x1b[2J 1" in info.stdout
    assert "\x1b" not in missing.stderr + info.stdout


SLOW_STARTS = {
    "multi_processing": """
import os, subprocess, time

start = subprocess.Popen.__init__

def late(self, *args, **more):
    if "beam_cifar.pipeline.worker" in str(args):
        open(os.environ["STARTING"], "w").close()
        time.sleep(1)
    start(self, *args, **more)

subprocess.Popen.__init__ = late
""",
    "multi_threading": """
import os, threading, time

run = threading.Thread.run

def late(self):
    if self.name == "run_worker":
        open(os.environ["STARTING"], "w").close()
        time.sleep(1)
    run(self)

threading.Thread.run = late
""",
}
"""Modes of the local runner, and what makes their workers start slowly, and say that they do."""


@pytest.mark.parametrize("mode", SLOW_STARTS)
def test_an_interrupt_ends_workers_that_start_after_it(mode: str, tmp_path: Path, cifar10: Path) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "made").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(SLOW_STARTS[mode])
    starting, output = tmp_path / "starting", tmp_path / "made" / "out"
    command = [sys.executable, "-m", "beam_cifar", "convert", "-i", cifar10, "-f", "parquet", "-o", output]
    process = subprocess.Popen(
        [*map(str, command), f"--direct_running_mode={mode}", "--direct_num_workers=2"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "late"), "STARTING": str(starting)},
    )
    try:
        deadline = time.monotonic() + 60
        while not starting.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert starting.exists()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (143, "beam-cifar: error: interrupted\n")
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    "mode", ["in_memory", "multi_threading", pytest.param("multi_processing", marks=pytest.mark.slow)]
)
def test_a_known_error_in_a_worker_is_one_line_on_every_runner(
    mode: str, run: Run, cifar10: Path, tmp_path: Path
) -> None:
    limited = f"ulimit -f 2000; exec {sys.executable} -m beam_cifar convert -i {cifar10} -f cifar -o out --save-images"
    options = f"--images-per-batch 1000 --direct_running_mode={mode} --direct_num_workers=2"
    done = subprocess.run(
        ["bash", "-c", f"{limited} {options}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_streams_do_no_harm(closed: str, cifar10: Path, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m beam_cifar convert -i {cifar10} -f parquet -o out {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.beam_cifar" / "manifest.json").exists()
