"""A job that was killed goes on where it was: finished parts are kept, and the output is the one of an undisturbed job."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import BeamCifarError, ConvertOptions, make_sample
from beam_cifar.errors import InputError, OutputError
from beam_cifar.jobs.accounts import PartInfo, decode_part
from beam_cifar.options import Input
from beam_cifar.pipeline import write as sink
from beam_cifar.steps.registry import make_step
from tests.helpers.commands import Command
from tests.helpers.faults import accounts, dies, is_interrupted, job_folder, snapshot
from tests.helpers.image_trees import (
    batch,
    converted,
    encoded,
    killed,
    picture,
    set_part_bytes,
    write_cifar,
    write_tree,
)
from tests.helpers.reading import tree

NAMES = ("cat", "dog", "ship")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five batches and a test batch of 12 rows each."""
    return small_set(tmp_path_factory.mktemp("small") / "in")


def small_set(folder: Path, seed: int = 0) -> Path:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {
        name: batch([f"{name}_{row}.png" for row in range(12)], [row % 3 for row in range(12)], seed + number)
        for number, name in enumerate(names)
    }
    return write_cifar(folder, batches, NAMES)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Shard and part of everything that is written in this process from now on."""
    made = []
    write_account = sink.write_account  # type: ignore[attr-defined]

    def noting(info: PartInfo, settings: Any) -> None:
        made.append((info.shard, info.part))
        write_account(info, settings)

    monkeypatch.setattr(sink, "write_account", noting)
    return made


def options(source: Path, output: Path, target: str, **more: Any) -> ConvertOptions:
    return ConvertOptions(str(source), str(output), target, **{"workers": 1, **more})


def kept(output: Path) -> list[tuple[int, int]]:
    """Shard and part of the finished parts of a job that did not end."""
    return [(int(path.stem[:6]), int(path.stem[7:])) for path in accounts(output)]


def as_undisturbed(output: Path, right: Path) -> bool:
    """Whether an output, its manifest and what else lies beside it are those of another one."""
    return tree(output) == tree(right) and tree(job_folder(output)) == tree(job_folder(right))


WORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {"images_per_batch": 10}),
    "imagenet": ("imagenet", {}),
    "mnist, joined": ("mnist", {"resize": (28, 28)}),
    "cifar, joined": ("cifar", {"save_images": True, "labels": ("dog", "ship")}),
    "a selection": ("webdataset", {"labels": ("dog",), "remaps": ("dog:fox",), "images_per_batch": 5}),
    "a filter": ("parquet", {"filter": '/item[annotation/label="cat"]', "images_per_batch": 4}),
    "random_split": (
        "cifar",
        {
            "steps": (make_step("random_split", {"splits": {"train": 0.7, "test": 0.3}, "seed": 1}),),
            "images_per_batch": 20,
        },
    ),
    "a merge": ("parquet", {"images_per_batch": 11, "on_clash": "suffix"}),
}
PART_BYTES = 9000


@pytest.mark.parametrize(
    "work",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("a selection", "a filter") else name for name in WORKS],
)
def test_finished_parts_of_a_killed_job_are_kept(
    work: str, small: Path, tmp_path: Path, written: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, more = WORKS[work]
    part_bytes = PART_BYTES if "joined" in work else None
    if part_bytes:
        set_part_bytes(monkeypatch, target, part_bytes)
    if work == "a merge":
        more = {**more, "merged": (Input(str(small)),)}
    converted(small, tmp_path / "right", target, **more)
    every = sorted(written)
    assert len(every) > 3
    dies(options(small, tmp_path / "out", target, **more), 2, part_bytes)
    finished, before = kept(tmp_path / "out"), snapshot(job_folder(tmp_path / "out"))
    assert len(finished) == 2
    written.clear()
    summary = converted(small, tmp_path / "out", target, resume=True, **more)
    assert sorted([*finished, *written]) == every
    assert f"resumed: 2 of {len(every)} parts were already finished" in summary.notices
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")
    # What lay in the staged tree is the very file that was published.
    staged = {name.partition("/tree/")[2]: file for name, file in before.items() if "/tree/" in name}
    published = snapshot(tmp_path / "out")
    assert sum(published[name] == file for name, file in staged.items()) >= (0 if part_bytes else 2)


def test_copies_of_files_are_kept(cifar10: Path, tmp_path: Path, written: list[tuple[int, int]]) -> None:
    dies(options(cifar10, tmp_path / "out", "cifar", save_images=True), 4)
    written.clear()
    converted(cifar10, tmp_path / "out", "cifar", save_images=True, resume=True)
    assert len(written) == 2
    assert tree(tmp_path / "out").items() <= tree(cifar10).items()


def test_a_job_from_an_archive_goes_on(cifar10_archive: Path, tmp_path: Path, written: list[tuple[int, int]]) -> None:
    converted(cifar10_archive, tmp_path / "right", "imagenet")
    dies(options(cifar10_archive, tmp_path / "out", "imagenet"), 3)
    written.clear()
    converted(cifar10_archive, tmp_path / "out", "imagenet", resume=True)
    assert len(written) == 3
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


def test_a_job_may_be_killed_again_and_go_on_with_other_workers(
    small: Path, tmp_path: Path, written: list[tuple[int, int]]
) -> None:
    converted(small, tmp_path / "right", "imagenet", workers=3)
    again = options(small, tmp_path / "out", "imagenet", resume=True)
    for done in (1, 2, 4):
        dies(again, done - len(kept(tmp_path / "out")))
        assert len(kept(tmp_path / "out")) == done
    written.clear()
    converted(small, tmp_path / "out", "imagenet", resume=True, workers=2)
    assert len(written) == 2
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


def test_without_resume_a_killed_job_starts_anew(small: Path, tmp_path: Path, written: list[tuple[int, int]]) -> None:
    dies(options(small, tmp_path / "out", "imagenet"), 2)
    converted(small, tmp_path / "out", "imagenet")
    assert len(written) == 6
    assert not list(job_folder(tmp_path / "out").glob("work-*"))


MORE: dict[str, dict[str, Any]] = {"parquet": {"images_per_batch": 10}, "imagenet": {}, "mnist": {"resize": (28, 28)}}


@pytest.fixture(scope="module")
def begun(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs that died with two parts finished, by format; and what they would have made, as `right-FORMAT`."""
    folder = tmp_path_factory.mktemp("begun")
    for target, more in MORE.items():
        part_bytes = PART_BYTES if target == "mnist" else None
        with pytest.MonkeyPatch.context() as patch:
            if part_bytes:
                set_part_bytes(patch, target, part_bytes)
            dies(options(small, folder / target, target, **more), 2, part_bytes)
            converted(small, folder / f"right-{target}", target, **more)
        (folder / f"{target}.beam_cifar" / "lock").unlink()
    return folder


@pytest.fixture(params=["imagenet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("parquet", "mnist"))])
def interrupted(
    request: pytest.FixtureRequest, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, Path]:
    """Format, output and work folder of a copy of one of them."""
    if request.param == "mnist":
        set_part_bytes(monkeypatch, "mnist", PART_BYTES)
    shutil.copytree(begun / f"{request.param}.beam_cifar", tmp_path / "out.beam_cifar")
    [work] = (tmp_path / "out.beam_cifar").glob("work-*")
    return request.param, tmp_path / "out", work


def a_file_of_the_first_part(target: str, work: Path) -> Path:
    part = decode_part(first_account(target, work).read_bytes())
    if target == "imagenet":
        listing = work / "parts" / f"{part.shard:06d}-{part.part:06d}"
        return work / "tree" / str(json.loads(listing.read_text().splitlines()[0])["path"])
    files = [path for path in work.rglob("*") if path.is_file() and path.parent.name != "accounts"]
    [found] = [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() == part.sha256]
    return found


def first_account(target: str, work: Path) -> Path:
    return sorted((work / "accounts").iterdir())[0]


def a_listing(target: str, work: Path) -> Path:
    return sorted((work / "parts").iterdir())[0] if target == "imagenet" else a_file_of_the_first_part(target, work)


def begun_note(target: str, work: Path) -> Path:
    return work / "begun.json"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def take_that_of_another_part(path: Path) -> None:
    path.write_bytes(sorted(path.parent.iterdir())[1].read_bytes())


def count_a_row_more(path: Path) -> None:
    facts, digest = json.loads(path.read_bytes())
    counts = {**json.loads(facts), "read": [[*key, n + 1] for *key, n in json.loads(facts)["read"]]}
    path.write_text(json.dumps([json.dumps(counts), digest]))


def nothing_that_is_expected(path: Path) -> None:
    path.write_text('["neither", {"an": "account"}]')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "damage", "lost"),
    [
        (a_file_of_the_first_part, truncate, 1),
        (a_file_of_the_first_part, change, 1),
        (a_file_of_the_first_part, lengthen, 1),
        (a_file_of_the_first_part, os.unlink, 1),
        (first_account, truncate, 1),
        (first_account, empty, 1),
        (first_account, os.unlink, 1),
        (first_account, take_that_of_another_part, 1),
        (first_account, count_a_row_more, 1),
        (first_account, nothing_that_is_expected, 1),
        (a_listing, truncate, 1),
        (a_listing, os.unlink, 1),
        (begun_note, os.unlink, 2),
        (begun_note, truncate, 2),
        (begun_note, nothing_that_is_expected, 2),
    ],
)
def test_a_part_that_is_damaged_is_made_anew(
    which: Callable[[str, Path], Path],
    damage: Callable[[Path], None],
    lost: int,
    interrupted: tuple[str, Path, Path],
    small: Path,
    begun: Path,
    written: list[tuple[int, int]],
) -> None:
    target, output, work = interrupted
    damage(which(target, work))
    summary = converted(small, output, target, resume=True, **MORE[target])
    note = next((note for note in summary.notices if note.startswith("resumed")), "resumed: 0")
    assert note.startswith(f"resumed: {2 - lost}")
    assert as_undisturbed(output, begun / f"right-{target}")
    assert len(written) >= 2 + lost


def test_what_another_version_has_begun_is_not_mixed_with_this_one(
    interrupted: tuple[str, Path, Path], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, output, work = interrupted
    before = snapshot(work)
    monkeypatch.setattr("beam_cifar.jobs.prepare.libraries", lambda: {"pillow": "1.0"})
    with pytest.raises(OutputError, match="this program or a library"):
        converted(small, output, target, resume=True, **MORE[target])
    assert snapshot(work) == before


@pytest.mark.parametrize("flags", [["--resize=28x28", "--label=dog"], ["--resize=28x28", "--remap=dog:fox"]])
def test_another_job_is_refused_and_harms_nothing(
    flags: list[str], interrupted: tuple[str, Path, Path], small: Path, command: Command
) -> None:
    target, output, _ = interrupted
    before = snapshot(output.parent)
    code, out, err = command("convert", "-i", small, "-f", target, "-o", output, "--resume", *flags)
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert "omit --resume to start over" in err
    assert snapshot(output.parent) == before


def touch_later(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def other_pixels(path: Path) -> None:
    content = pickle.loads(path.read_bytes())
    content["data"] = 255 - content["data"]
    path.write_bytes(pickle.dumps(content, protocol=4))


@pytest.mark.parametrize("changed", [touch_later, other_pixels, lengthen])
def test_a_changed_input_is_refused_and_harms_nothing(changed: Callable[[Path], None], tmp_path: Path) -> None:
    source = small_set(tmp_path / "in")
    dies(options(source, tmp_path / "out", "imagenet"), 2)
    (job_folder(tmp_path / "out") / "lock").unlink()
    before = snapshot(job_folder(tmp_path / "out"))
    changed(source / "data_batch_2")
    with pytest.raises(BeamCifarError) as refused:
        converted(source, tmp_path / "out", resume=True)
    assert refused.value.exit_code == (3 if changed is lengthen else 4)  # more bytes than a pickle has are bad input
    assert snapshot(job_folder(tmp_path / "out")) == before


def test_files_of_an_input_that_has_changed_do_not_stay_when_the_note_of_the_start_is_lost(tmp_path: Path) -> None:
    source = small_set(tmp_path / "in")
    dies(options(source, tmp_path / "out", "imagenet"), 5)
    [note] = job_folder(tmp_path / "out").glob("work-*/begun.json")
    note.unlink()
    small_set(tmp_path / "other", seed=100)
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, source / path.name)
    converted(source, tmp_path / "right")
    converted(source, tmp_path / "out", resume=True)
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


def test_a_complete_output_of_the_same_job_is_done(small: Path, tmp_path: Path) -> None:
    first = converted(small, tmp_path / "out")
    before = snapshot(tmp_path)
    for overwrite in (False, True):
        summary = converted(small, tmp_path / "out", resume=True, overwrite=overwrite)
        assert "an earlier run already finished this job; nothing left to do" in summary.notices
        assert (summary.written, summary.labels) == (first.written, first.labels)
        assert snapshot(tmp_path) == before


def test_a_complete_output_of_another_job_is_refused_unless_it_may_be_replaced(small: Path, tmp_path: Path) -> None:
    converted(small, tmp_path / "out", labels=("dog",))
    converted(small, tmp_path / "right")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="is not empty"):
        converted(small, tmp_path / "out", resume=True)
    assert snapshot(tmp_path) == before
    converted(small, tmp_path / "out", resume=True, overwrite=True)
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


@pytest.mark.parametrize("lost", ["dog", "."])
def test_an_output_of_which_something_is_gone_is_not_taken_for_complete(lost: str, small: Path, tmp_path: Path) -> None:
    converted(small, tmp_path / "right")
    converted(small, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / lost, ignore_errors=True)
    if lost != ".":
        with pytest.raises(OutputError, match="is not empty"):
            converted(small, tmp_path / "out", resume=True)
        shutil.rmtree(tmp_path / "out")
    converted(small, tmp_path / "out", resume=True)
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


@pytest.fixture
def with_a_bad_image(tmp_path: Path) -> Path:
    """A folder of 3 classes in which one image is damaged."""
    files = {f"{name}/{name}_{row}.png": encoded(picture(row)) for name in NAMES for row in range(40)}
    files["ship/ship_39.png"] = files["ship/ship_39.png"][:-40]
    return write_tree(tmp_path / "in", files)


def test_a_job_that_fails_keeps_its_parts_for_the_next_try(
    with_a_bad_image: Path, tmp_path: Path, written: list[tuple[int, int]]
) -> None:
    more: dict[str, Any] = {"images_per_batch": 20, "resume": True}
    for _ in range(2):
        with pytest.raises(InputError, match=r"ship_39.png"):
            converted(with_a_bad_image, tmp_path / "out", "parquet", **more)
    assert len(set(written)) == len(written) == len(accounts(tmp_path / "out")) > 0
    assert not (tmp_path / "out").exists()
    (with_a_bad_image / "ship" / "ship_39.png").write_bytes(encoded(picture(39)))
    before = snapshot(job_folder(tmp_path / "out"))
    with pytest.raises(OutputError, match="omit --resume to start over"):
        converted(with_a_bad_image, tmp_path / "out", "parquet", **more)
    assert snapshot(job_folder(tmp_path / "out")) == before
    converted(with_a_bad_image, tmp_path / "out", "parquet", images_per_batch=20)
    converted(with_a_bad_image, tmp_path / "right", "parquet", images_per_batch=20)
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


def test_a_job_that_fails_without_resume_leaves_nothing(with_a_bad_image: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        converted(with_a_bad_image, tmp_path / "out", "parquet", images_per_batch=20)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_job_that_is_refused_before_it_begins_leaves_nothing(
    small: Path, cifar10_archive: Path, tmp_path: Path
) -> None:
    for source, labels in ((small, ("dgo",)), (cifar10_archive, ("dgo",)), (tmp_path, ())):
        with pytest.raises(BeamCifarError):
            converted(source, tmp_path / "a" / "out", resume=True, labels=labels)
        assert not list(tmp_path.iterdir())


def test_an_interrupted_job_keeps_its_parts_with_resume_only(
    small: Path, tmp_path: Path, written: list[tuple[int, int]]
) -> None:
    is_interrupted(options(small, tmp_path / "out", "imagenet"), 2)
    assert not list(tmp_path.iterdir())
    is_interrupted(options(small, tmp_path / "out", "imagenet", resume=True), 2)
    assert len(accounts(tmp_path / "out")) == 2
    converted(small, tmp_path / "out", resume=True)
    assert len(written) == 4
    converted(small, tmp_path / "right")
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")


@pytest.fixture(params=[False, True], ids=["new", "overwrite"])
def killed_in_publish(request: pytest.FixtureRequest, small: Path, tmp_path: Path) -> ConvertOptions:
    """A job, not yet run, whose output is there in an older state or not."""
    if request.param:
        converted(small, tmp_path / "old", labels=("dog",))
    return options(small, tmp_path / "out", "imagenet", overwrite=request.param)


@pytest.mark.slow
def test_a_publish_killed_before_any_step_is_completed_by_resuming(
    killed_in_publish: ConvertOptions, small: Path, tmp_path: Path
) -> None:
    converted(small, tmp_path / "right")
    for step in range(1, 50):
        for name in ("out", "out.beam_cifar"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            if killed_in_publish.overwrite:
                shutil.copytree(tmp_path / name.replace("out", "old"), tmp_path / name)
        if killed(step, killed_in_publish) == 0:
            break
        converted(small, tmp_path / "out", resume=True, overwrite=killed_in_publish.overwrite)
        assert as_undisturbed(tmp_path / "out", tmp_path / "right")
    assert step > 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_ctrl_c_keeps_the_finished_parts_when_resume_is_given(mode: str, tmp_path: Path) -> None:
    make_sample(str(tmp_path / "in"), kind="cifar10", images=12_000, seed=0)
    command = [sys.executable, "-m", "beam_cifar", "convert", "-i", "in", "-f", "parquet", "-o", "out", "--resume"]
    flags = ["--images-per-batch=500", f"--direct_running_mode={mode}", "--direct_num_workers=2"]
    process = subprocess.Popen([*command, *flags], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not accounts(tmp_path / "out") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "beam-cifar: error: interrupted\n")
    [work] = job_folder(tmp_path / "out").iterdir()
    assert work.name.startswith("work-")
    count = len(accounts(tmp_path / "out"))
    done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    verb = "was" if count == 1 else "were"
    assert f"note: resumed: {count} of 24 parts {verb} already finished" in done.stderr
    converted(tmp_path / "in", tmp_path / "right", "parquet", images_per_batch=500)
    assert as_undisturbed(tmp_path / "out", tmp_path / "right")
