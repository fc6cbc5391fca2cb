"""What a killed publish left is completed or undone first, whoever comes next: every state of a job folder."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, convert, storage
from beam_cifar.errors import OutputError
from beam_cifar.jobs.clean import clean
from beam_cifar.storage.recovery import is_ours
from tests.helpers.commands import Command
from tests.helpers.faults import COMPLETE, dies, job_folder, names_beside
from tests.helpers.image_trees import batch, quickly, write_cifar
from tests.helpers.reading import tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input `in`, and outputs of it: `old`, `new` and `next`."""
    folder = tmp_path_factory.mktemp("made")
    write_cifar(folder / "in", {"train": batch([f"{row}.png" for row in range(9)], [row % 3 for row in range(9)])})
    for name, label in (("old", "cat"), ("new", "dog"), ("next", "ship")):
        quickly(folder / "in", folder / name, "parquet", labels=(label,))
    return folder


def state(output: Path) -> tuple[dict[str, str], dict[str, str]]:
    return tree(output) if output.exists() else {}, tree(job_folder(output)) if job_folder(output).exists() else {}


STATES = [
    facts
    for facts in itertools.product(("-", "old", "new", "another"), *[("-", "there")] * 4)
    if "there" in facts  # something lies beside the output
]
NAMES = ("replaced", "manifest.json", "manifest.pending.json", "manifest.replaced.json")


def left_by_a_kill(facts: tuple[str, ...]) -> str:
    """Which output has to be there after `clean`, whole and with its manifest: "old", "new", "" or "another"."""
    output, replaced, manifest, pending, old_manifest = (fact != "-" and fact for fact in facts)
    if output == "another":
        return "another"
    if not output:
        return "old" if replaced else ""
    return str(output) if manifest or (output == "new" and pending) or (old_manifest and not replaced) else "?"


def plant(made: Path, output: Path, facts: tuple[str, ...]) -> None:
    """Makes the state of a job that was to replace `old` by `new`; a manifest is that of the output."""
    there, *others = facts
    folder = job_folder(output)
    folder.mkdir()
    if there == "another":
        output.mkdir()
        (output / "precious").write_text("data")
    elif there != "-":
        shutil.copytree(made / there, output)
    beside = {
        "replaced": made / "old",
        "manifest.json": made / f"{there if there in ('old', 'new') else 'old'}.beam_cifar" / "manifest.json",
        "manifest.pending.json": made / "new.beam_cifar" / "manifest.json",
        "manifest.replaced.json": made / "old.beam_cifar" / "manifest.json",
    }
    for name, fact in zip(NAMES, others, strict=True):
        if fact != "-":
            copy: Callable[[Path, Path], object] = shutil.copytree if beside[name].is_dir() else shutil.copy
            copy(beside[name], folder / name)


def is_possible(facts: tuple[str, ...]) -> bool:
    """Whether a kill leaves such a state: manifests are set aside before outputs, and their own comes last."""
    output, replaced, manifest, pending, old_manifest = facts
    if output == "old":
        return replaced == "-" and (manifest, old_manifest) in (("there", "-"), ("-", "there"))
    if output == "new":
        return "there" in (manifest, pending) and (replaced, old_manifest) != ("-", "there")
    return output == "-" and (replaced, manifest, old_manifest) == ("there", "-", "there")


@pytest.mark.parametrize("facts", STATES, ids="/".join)
def test_settling_leaves_one_whole_output_and_twice_is_as_once(
    facts: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    plant(made, output, facts)
    listed = clean(str(output), remove=False)
    cleaned = clean(str(output))
    assert (listed.completed, listed.incomplete, listed.found) == (cleaned.completed, cleaned.incomplete, cleaned.found)
    found, expected = state(output), left_by_a_kill(facts)
    if expected == "another":
        assert found[0].keys() == {"precious"}
    elif expected != "?":
        assert found[0] == (state(made / expected)[0] if expected else {})
    if is_possible(facts):
        beside = state(made / expected)[1]["manifest.json"]
        assert found[1] == {"manifest.json": beside}
    # What nobody can tell apart is kept.
    assert facts[1] == "-" or "old" in (facts[0], expected) or expected == "new" or (output.parent / "out").exists()
    assert clean(str(output)).found == ()
    assert state(output) == found


@pytest.mark.parametrize("facts", [facts for facts in STATES if is_possible(facts)], ids="/".join)
@pytest.mark.parametrize("verb", ["convert", "save", "resume", "plain", "clean"])
def test_a_different_job_first_settles_what_is_pending(
    verb: str, facts: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    """Killed after its own pending manifest, before any rename: the output before is whole, with its manifest."""
    output = tmp_path / "out"
    plant(made, output, facts)
    expected = state(made / left_by_a_kill(facts))
    moves: list[tuple[str, str]] = []
    if verb == "clean":
        clean(str(output))
    elif verb == "plain":
        with pytest.raises(OutputError, match="is not empty"):
            quickly(made / "in", output, "parquet", labels=("ship",))
    else:
        # `save` overwrites as `convert` does; a killed publish renames nothing before it has settled.
        with storage.hold(storage.JobFolder(str(output))):
            moves = storage.pending_moves(storage.JobFolder(str(output)))
        quickly(made / "in", output, "parquet", labels=("ship",), overwrite=True, resume=verb == "resume")
        expected = state(made / "next")
    assert moves == []
    clean(str(output))
    found = state(output)
    assert found[0] == expected[0]
    assert found[1]["manifest.json"] == expected[1]["manifest.json"]


def options(made: Path, output: Path, label: str, **more: object) -> ConvertOptions:
    return ConvertOptions(str(made / "in"), str(output), "parquet", labels=(label,), workers=1, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", ["lock", "index/", "work-0123456789abcdef.01234567.removed/", "manifest.pending.json"])
def test_the_same_command_after_a_kill_in_the_last_clean_up_is_done_and_cleans_up(
    left: str, made: Path, tmp_path: Path, command: Command
) -> None:
    output = tmp_path / "out"
    arguments = ("convert", "-i", made / "in", "-f", "parquet", "-o", output)
    assert command(*arguments)[0] == 0
    before = state(output)
    assert command(*arguments)[0] == 4
    folder = job_folder(output)
    if left.endswith("/"):
        (folder / left).mkdir()
    else:
        (folder / left).write_text("{}")
    other = command(*arguments, "--label=dog")
    assert other[0] == 4, "a different job is refused, and leaves all as it is"
    assert (folder / left).exists() or left in ("lock", "manifest.pending.json")
    (folder / "lock").touch()
    assert command(*arguments)[0] == 0
    assert state(output) == before
    assert names_beside(output) == COMPLETE
    assert command(*arguments)[0] == 4


def test_what_another_job_left_is_not_removed_by_a_plain_command(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert(options(made, output, "cat"))
    dies(options(made, output, "dog", overwrite=True, resume=True), 1)
    before = names_beside(output)
    with pytest.raises(OutputError, match="is not empty"):
        convert(options(made, output, "cat"))
    assert set(names_beside(output)) == set(before) - {"lock"}


REPLACED: dict[str, Callable[[Path, Path], object]] = {
    "cp -p": lambda good, bad: os.replace(shutil.copy2(good, bad.with_name("copy")), bad),
    "cp -p over it": lambda good, bad: shutil.copy2(good, bad),
    "the same time": lambda good, bad: os.utime(shutil.copy(good, bad), ns=(0, good.stat().st_mtime_ns)),
}


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.parametrize("resume", [True, False])
def test_an_input_replaced_by_one_of_the_same_size_and_an_older_time_is_not_done(
    how: str, resume: bool, tmp_path: Path
) -> None:
    for seed, name in enumerate(("in", "good")):
        write_cifar(tmp_path / name, {"train": batch(["a", "b"], [0, 1], seed)})
    good, bad = tmp_path / "good" / "train", tmp_path / "in" / "train"
    os.utime(good, ns=(10**18, 10**18))
    if how == "the same time":
        os.utime(bad, ns=(10**18, 10**18))
    assert good.stat().st_size == bad.stat().st_size
    quickly(tmp_path / "good", tmp_path / "right", "parquet")
    quickly(tmp_path / "in", tmp_path / "out", "parquet")
    old = tree(tmp_path / "out")
    assert old != tree(tmp_path / "right")
    REPLACED[how](good, bad)
    (job_folder(tmp_path / "out") / "lock").touch()  # as if its clean-up had been killed
    with pytest.raises(OutputError, match="is not empty"):
        quickly(tmp_path / "in", tmp_path / "out", "parquet", resume=resume)
    quickly(tmp_path / "in", tmp_path / "out", "parquet", resume=resume, overwrite=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "right")


def test_an_output_with_another_byte_is_not_that_of_its_manifest(tmp_path: Path) -> None:
    source, output = write_cifar(tmp_path / "in", {"train": batch(["a.png"], [0])}), tmp_path / "out"
    quickly(source, output, "parquet")
    manifest = (tmp_path / "out.beam_cifar" / "manifest.json").read_bytes()
    assert is_ours(str(output), manifest)
    file = next(output.rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)  # of the same size
    assert not is_ours(str(output), manifest)
