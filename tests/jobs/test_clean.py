"""`beam-cifar clean` removes what killed jobs left, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import ConvertOptions, storage
from beam_cifar.errors import OutputError
from beam_cifar.jobs.clean import clean
from tests.helpers.commands import Command
from tests.helpers.faults import dies, job_folder, snapshot
from tests.helpers.image_trees import batch, converted, killed, quickly, write_cifar
from tests.helpers.reading import tree


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of 30 rows."""
    batches = {
        name: batch([f"{name}_{row}.png" for row in range(30)], [row % 3 for row in range(30)])
        for name in ("data_batch_1", "test_batch")
    }
    return write_cifar(tmp_path_factory.mktemp("small") / "in", batches)


def put_back(source: Path, output: Path) -> None:
    """Makes an output, and what lies beside it, a copy of another one; nothing where that is not there."""
    for there, here in ((source, output), (job_folder(source), job_folder(output))):
        shutil.rmtree(here, ignore_errors=True)
        if there.exists():
            shutil.copytree(there, here)


def lines(folder: Path) -> dict[str, Any]:
    """Every file below a folder, but the lock, which only says which process had it."""
    return {name: file for name, file in snapshot(folder).items() if not name.endswith("/lock")}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "older", [pytest.param("nothing", marks=SLOW), "complete", pytest.param("foreign", marks=SLOW)]
)
def test_after_a_publish_was_killed_at_any_step_clean_leaves_one_whole_output_or_none(
    older: str, small: Path, tmp_path: Path
) -> None:
    old, right, output = tmp_path / "old", tmp_path / "right", tmp_path / "out"
    quickly(small, right)
    if older == "complete":
        quickly(small, old, labels=("dog",))
    elif older == "foreign":
        shutil.copytree(small, old)
    states = [(tree(each), tree(job_folder(each))) for each in (old, right)]
    endings = set()
    for step in range(1, 50):
        put_back(old, output)
        code = killed(step, ConvertOptions(str(small), str(output), "imagenet", overwrite=True, workers=1))
        put_back(output, tmp_path / "copy")
        before = lines(tmp_path)
        listed = clean(str(output), remove=False)
        assert lines(tmp_path) == before
        cleaned = clean(str(output))
        assert listed.completed == cleaned.completed
        assert {found.path for found in listed.found} <= {found.path for found in cleaned.found} or cleaned.completed
        # What would have been removed is no part of what is there now, nor was it put back.
        found = (tree(output), tree(job_folder(output)))
        assert found in states
        assert cleaned.incomplete == (found == states[0] and older == "foreign")
        assert clean(str(output)).found == ()
        assert not job_folder(output).exists() or found[1]
        endings.add(states.index(found))
        if code == 0:
            break
    assert step > 3
    assert endings == {0, 1}


@SLOW
def test_a_job_after_one_whose_publish_was_killed_never_gets_the_manifest_of_another(
    small: Path, tmp_path: Path
) -> None:
    old, unfinished, output = tmp_path / "old", tmp_path / "unfinished", tmp_path / "out"
    quickly(small, old, labels=("dog",))
    quickly(small, tmp_path / "first", labels=("cat",))
    quickly(small, tmp_path / "second", labels=("ship",))
    step = 0
    # Until the new tree is in place, and its manifest is not.
    while not unfinished.exists() or tree(unfinished) != tree(tmp_path / "first"):
        step += 1
        put_back(old, unfinished)
        assert killed(step, _options(small, unfinished, "cat")) == 9
    put_back(unfinished, tmp_path / "again")
    states = [(tree(each), tree(job_folder(each))) for each in (old, tmp_path / "first", tmp_path / "second")]
    for further in range(1, 50):
        put_back(unfinished, output)
        code = killed(further, _options(small, output, "ship"))
        cleaned = clean(str(output))
        found = (tree(output), tree(job_folder(output)))
        assert found in states, "the job that comes next completes what is pending before it writes its own"
        assert not cleaned.incomplete
        if code == 0:
            break
    assert found == states[2]


def _options(source: Path, output: Path, label: str) -> ConvertOptions:
    return ConvertOptions(str(source), str(output), "imagenet", labels=(label,), overwrite=True, workers=1)


@pytest.fixture
def left(small: Path, tmp_path: Path) -> Path:
    """An output that a killed job was to make."""
    dies(ConvertOptions(str(small), str(tmp_path / "a" / "out"), "parquet", images_per_batch=10, workers=1), 3)
    return tmp_path / "a" / "out"


def test_list_tells_what_clean_removes_and_changes_nothing(left: Path, command: Command) -> None:
    before = lines(left.parent)
    code, out, err = command("clean", left, "--list")
    assert (code, err) == (0, "")
    assert out.startswith("would remove ")
    assert lines(left.parent) == before
    listed = json.loads(command("clean", left, "--list", "--json")[1])
    assert lines(left.parent) == before
    code, out, err = command("clean", left, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == listed
    assert sum(found["files"] for found in listed["found"]) == len(before)
    assert sum(found["bytes"] for found in listed["found"]) == sum(len(data) for _, _, data in before.values())
    assert not list(left.parent.iterdir())
    assert command("clean", left) == (0, f"nothing to clean at {left}\n", "")


def test_clean_keeps_what_others_put_there(left: Path, command: Command) -> None:
    folder = job_folder(left)
    for name in (
        "notes.txt",
        "work-notes/today",
        "of.mine.removed/file",
        "work-0123456789abcdef.bak",
        "files-mine.jsonl",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    before = {name for name in snapshot(folder) if not name.startswith("work-") and name != "lock"}
    before |= {"work-notes/today", "work-0123456789abcdef.bak"}
    assert command("clean", left)[0] == 0
    assert set(snapshot(folder)) == before


def test_clean_of_what_is_not_ours_changes_nothing(small: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small, tmp_path / "data")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken.beam_cifar").write_text("mine")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "own.beam_cifar").mkdir()
    (tmp_path / "own.beam_cifar" / "data_batch_1").write_text("mine")
    before = snapshot(tmp_path)
    for name in ("data", "file", "link", "nothing", "no/such/folder", "own"):
        code, out, err = command("clean", tmp_path / name)
        assert (code, err) == (0, "")
        assert out.startswith("nothing to clean at ")
        assert snapshot(tmp_path) == before
    code, out, err = command("clean", tmp_path / "taken")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert snapshot(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file", "link", "taken.beam_cifar", "own.beam_cifar"}


def test_clean_of_a_complete_output_changes_nothing(small: Path, tmp_path: Path, command: Command) -> None:
    quickly(small, tmp_path / "out")
    before = snapshot(tmp_path)
    assert command("clean", tmp_path / "out") == (0, f"nothing to clean at {tmp_path / 'out'}\n", "")
    assert snapshot(tmp_path) == before


def test_clean_is_refused_while_a_job_runs(small: Path, tmp_path: Path, command: Command) -> None:
    with storage.hold(storage.JobFolder(str(tmp_path / "out"))):
        for flags in ([], ["--list"]):
            code, out, err = command("clean", tmp_path / "out", *flags)
            assert (code, out, err.count("\n")) == (4, "", 1)
            assert f"another job (process {os.getpid()}) is writing to it" in err


def test_a_manifest_that_waits_and_is_damaged_is_a_leftover(small: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small, tmp_path / "out")
    folder = storage.JobFolder(str(tmp_path / "out"))
    os.makedirs(folder.path)
    for content in ("{}", "", "[1]", '{"files": 3}'):
        Path(folder.pending_manifest).write_text(content)
        code, out, err = command("clean", tmp_path / "out")
        assert (code, out[:8]) == (0, "removed ")
        assert "has no manifest" in err
        assert tree(tmp_path / "out") == tree(small)
        os.makedirs(folder.path, exist_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_a_running_job_is_left_alone_and_cleaned_up_when_it_was_killed(
    mode: str, tmp_path: Path, command: Command
) -> None:
    from beam_cifar import make_sample

    make_sample(str(tmp_path / "in"), kind="cifar10", images=20_000, seed=0)
    arguments = ["convert", "-i", "in", "-f", "parquet", "-o", "out", "--direct_num_workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "beam_cifar", *arguments, f"--direct_running_mode={mode}"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out.beam_cifar/work-*/scratch/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        code, _, err = command("clean", tmp_path / "out")
        assert code == 4
        assert f"another job (process {process.pid}) is writing to it" in err
        with pytest.raises(OutputError):
            clean(str(tmp_path / "out"), remove=False)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "out.beam_cifar").exists()
    assert command("clean", tmp_path / "out")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_job_can_be_resumed_until_it_is_cleaned_up(left: Path, small: Path) -> None:
    clean(str(left))
    summary = converted(small, left, "parquet", images_per_batch=10, resume=True)
    assert not [note for note in summary.notices if note.startswith("resumed")]
