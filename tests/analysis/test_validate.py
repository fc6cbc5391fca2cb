"""`beam-cifar validate`: every fault is found, counted and named, and faults alone decide."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_cifar import LabelTable, Validation, stats, validate
from beam_cifar.analysis.reading import measured
from beam_cifar.analysis.tally import Asked
from beam_cifar.analysis.validate import Finding, validated
from beam_cifar.errors import InputError
from beam_cifar.jobs import serial
from beam_cifar.options import Input
from tests.helpers.commands import Command, Run
from tests.helpers.image_trees import batch, encoded, picture, write_cifar, write_tree
from tests.helpers.tables import documented_fields


@pytest.fixture(autouse=True)
def plainly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads without a runner where the runner is not the point."""
    if "beam" not in request.fixturenames:
        monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)


def findings(path: Path) -> dict[str, Finding]:
    """What is found in a set, by check; one of each is expected."""
    found = validate(str(path)).findings
    made = {finding.check: finding for finding in found}
    assert len(made) == len(found)
    return made


def faults(found: Validation) -> list[tuple[str, str, int]]:
    """Check, severity and count of all that is wrong."""
    return [(f.check, f.severity, f.count) for f in found.findings if f.severity in ("warning", "error")]


def write_cifar100(folder: Path, batches: dict[str, tuple[Sequence[int], Sequence[int | None]]]) -> Path:
    """A CIFAR-100 directory; of each batch the fine and the coarse labels."""
    folder.mkdir()
    meta = {"fine_label_names": ["cat", "dog", "ship"], "coarse_label_names": ["pets", "ships"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=4))
    for seed, (name, (fine, coarse)) in enumerate(batches.items()):
        content = batch([f"{name}{n}" for n in range(len(fine))], list(fine), seed=seed)
        content |= {"fine_labels": content.pop("labels"), "coarse_labels": list(coarse)}
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))
    return folder


def test_a_sound_set_is_valid(cifar100: Path, command: Command) -> None:
    found = validate(str(cifar100))
    assert faults(found) == []
    assert (found.is_valid(strict=True), found.rows) == (True, 2407)
    code, out, err = command("validate", cifar100, "--strict")
    assert (code, err, out.splitlines()[-1]) == (0, "", "valid: 0 errors, 0 warnings")
    assert "ok       superclasses 100 classes with rows have one superclass each" in out


def test_labels_outside_the_table_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    content = batch([f"{n}.png" for n in range(20)], [0, 1] + [9] * 12 + [2] * 6)
    path = write_cifar(tmp_path / "set", {"train": content})
    found = validate(str(path))
    assert faults(found)[0] == ("rows", "error", 12)
    assert found.rows == 8
    rows = findings(path)["rows"]
    assert len(rows.examples) == 10
    assert rows.examples[0] == f"{path}/train: row 2: label 9 is outside the label table, which has 3 classes (0 to 2)"


def test_bad_rows_of_all_blocks_and_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_cifar.data.block.MAX_ROWS", 3)
    batches = {name: batch([f"{n}" for n in range(10)], [9, *[1] * 8, 9], seed=n) for n, name in enumerate("ab")}
    found = findings(write_cifar(tmp_path / "set", batches))["rows"]
    assert (found.count, [example.split(": ")[1] for example in found.examples]) == (4, ["row 0", "row 9"] * 2)


def damaged_images() -> dict[str, bytes]:
    """Image files that cannot be decoded, each in its own way."""
    png, jpeg = encoded(picture(1)), encoded(picture(1), "JPEG")
    flipped = bytearray(png)
    flipped[60] ^= 255
    return {
        "a bit of a PNG is turned.png": bytes(flipped),
        "a PNG is cut short.png": png[:-20],
        "no image at all.png": b"hello",
        "empty.png": b"",
        "a JPEG is cut short.jpg": jpeg[: len(jpeg) // 2],
        "no scan.jpg": jpeg[: jpeg.index(b"\xff\xda") + 8] + b"\xff\xd9",
        "16 bits a sample.png": encoded16(),
    }


def encoded16() -> bytes:
    """A gray PNG of 16 bits."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(file, "PNG")
    return file.getvalue()


def test_damaged_images_are_found_and_the_others_still_read(tmp_path: Path) -> None:
    spoilt = damaged_images()
    good = {f"{n}.png": encoded(picture(n)) for n in range(5)}
    path = write_tree(tmp_path / "tree", {f"cat/{name}": content for name, content in {**good, **spoilt}.items()})
    found = validate(str(path))
    assert faults(found) == [("rows", "error", 7)]
    assert found.rows == 5
    told = "\n".join(findings(path)["rows"].examples)
    for name in spoilt:
        assert name.rpartition(".")[0] in told, name


@pytest.mark.parametrize("name", damaged_images())
def test_only_validation_goes_on_after_a_damaged_image(name: str, tmp_path: Path) -> None:
    path = write_tree(tmp_path / "tree", {f"cat/{name}": damaged_images()[name], "dog/1.png": encoded(picture(1))})
    with pytest.raises(InputError, match="cat"):
        stats(str(path))
    assert faults(validate(str(path)))[0] == ("rows", "error", 1)


def test_a_subset_of_nothing_but_bad_rows_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(encoded(picture(0)))
    for name, text in {"synsets": "cat", "train": "a.png 0", "test": "b.png 7"}.items():
        (tmp_path / f"{name}.txt").write_text(f"{text}\n")
    found = findings(tmp_path)["rows"]
    assert (found.severity, found.count) == ("error", 1)


def test_a_file_that_cannot_be_read_costs_only_itself(cifar10: Path, tmp_path: Path, command: Command) -> None:
    import shutil

    path = Path(shutil.copytree(cifar10, tmp_path / "set"))
    content = (path / "data_batch_3").read_bytes()
    (path / "data_batch_3").write_bytes(content[: len(content) // 2])
    found = validate(str(path))
    assert faults(found) == [("files", "error", 1)]
    assert found.rows == 1203 - 201
    assert "data_batch_3: byte" in findings(path)["files"].examples[0]
    code, _, err = command("validate", path)
    assert (code, err) == (5, f"beam-cifar: error: {path}: is not valid: 1 error, 0 warnings\n")


def test_one_image_with_two_labels_is_an_error(tmp_path: Path) -> None:
    content = batch(["a.png", "b.png", "c.png"], [0, 1, 2])
    content["data"][2] = content["data"][0]
    path = write_cifar(tmp_path / "set", {"train": content})
    found = validate(str(path))
    assert faults(found) == [("duplicates", "warning", 1), ("conflicts", "error", 1)]
    assert findings(path)["conflicts"].examples == (f"{path}/train row 0 'a' (cat), {path}/train row 2 'c' (ship)",)


def test_images_that_repeat_are_warnings_and_strict_makes_them_count(tmp_path: Path, command: Command) -> None:
    first, second = batch(list("abc"), [0, 1, 2], seed=1), batch(list("def"), [0, 1, 2], seed=2)
    first["data"][1], first["labels"][1] = first["data"][0], 0
    second["data"][2], second["labels"][2] = first["data"][2], 2
    path = write_cifar(tmp_path / "set", {"train": first, "test": second})
    found = validate(str(path))
    assert faults(found) == [("duplicates", "warning", 1), ("leaks", "warning", 1)]
    assert findings(path)["duplicates"].examples == ("train: 1 row", f"{path}/train row 0 'a' (cat), {path}/train row 1 'b' (cat)")  # fmt: skip
    assert findings(path)["leaks"].examples[0] == "train: 1 row with an image of test"
    assert (found.is_valid(), found.is_valid(strict=True)) == (True, False)
    code, out, err = command("validate", path, "--strict")
    assert (code, out.splitlines()[-1]) == (5, "not valid: 0 errors, 2 warnings")
    assert err.count("\n") == 1
    assert command("validate", path)[0] == 0


def test_superclasses_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "set", {"train": ([0, 1, 2], [0, 0, 1]), "test": ([0, 1, 2], [0, 1, 1])})
    found = findings(path)["superclasses"]
    assert (found.severity, found.count) == ("error", 1)
    assert found.examples == (f"class 'dog' has superclass 'ships' in {path}/test row 1, 'pets' in {path}/train row 1",)
    within = write_cifar100(tmp_path / "within", {"train": ([0, 1, 1], [0, 0, 1])})
    files = findings(within)["files"]
    assert (files.severity, files.count) == ("error", 1)
    assert "class 'dog' has superclass 'pets'" in files.examples[0]


def test_a_class_without_superclass_is_a_warning(tmp_path: Path) -> None:
    path = write_cifar100(tmp_path / "set", {"train": ([0, 1, 2], [0, None, 1])})
    found = findings(path)["superclasses"]
    assert (found.severity, found.examples) == ("warning", ("class 'dog'",))


def test_rows_without_image_or_label_are_warnings(tmp_path: Path) -> None:
    content = {"labels": [0, 1, 2, None], "filenames": list("abcd")}
    path = write_cifar(tmp_path / "set", {"train": content})
    assert faults(validate(str(path))) == [("images", "warning", 4), ("labels", "warning", 1)]
    assert findings(path)["labels"].examples == (f"{path}/train row 3 'd'",)


def test_sizes_that_differ_are_told(tmp_path: Path) -> None:
    shapes = [(8, 8), (8, 8), (9, 8)]
    path = write_tree(tmp_path / "tree", {f"cat/{n}.png": encoded(picture(n, *each)) for n, each in enumerate(shapes)})
    found = findings(path)["sizes"]
    assert (found.severity, found.count, found.examples) == ("info", 2, ("8 x 8: 2 images", "9 x 8: 1 image"))


def test_names_that_repeat_are_warnings(tmp_path: Path) -> None:
    path = write_cifar(tmp_path / "set", {"train": batch(["a.png", "a.png", "b.png"], [0, 1, 2])})
    assert faults(validate(str(path))) == [("ids", "warning", 1)]
    with measured(Input(str(path)), Asked(ids=True, tolerant=True)) as found:
        again = validated(replace(found, labels=LabelTable(("cat", "dog", "cat", " "))))
    assert faults(again) == [("table", "warning", 2), ("ids", "warning", 1), ("classes", "warning", 1)]
    assert again.findings[0].examples == ("class 'cat' is there 2 times", "class 3 has no name")


def test_ids_that_repeat_between_files_of_a_subset_are_warnings(tmp_path: Path) -> None:
    path = write_cifar(
        tmp_path / "set", {name: batch(["a.png", "b.png"], [0, 1], seed=n) for n, name in enumerate("tu")}
    )
    assert findings(path)["ids"].severity == "ok"
    with measured(Input(str(path)), Asked(ids=True, tolerant=True)) as found:
        one = tuple(replace(each, file=replace(each.file, subset="t")) for each in found.summaries)
        ids = next(each for each in validated(replace(found, summaries=one)).findings if each.check == "ids")
    assert (ids.severity, ids.count, ids.examples) == ("warning", 2, (f"{path}/u row 0 'a'", f"{path}/u row 1 'b'"))


def test_a_rare_class_is_a_warning_from_ten_times_on(tmp_path: Path) -> None:
    def balance(rows: int) -> Finding:
        content = batch([f"{n}" for n in range(rows + 1)], [0] * rows + [1])
        return findings(write_cifar(tmp_path / str(rows), {"train": content}, ["cat", "dog"]))["balance"]

    assert (balance(1).severity, balance(9).severity, balance(10).severity) == ("ok", "info", "warning")
    assert balance(12).text == "the largest class (cat) has 12 times the rows of the smallest (dog)"


def test_what_no_reader_knows_is_bad_input(tmp_path: Path, command: Command) -> None:
    write_tree(tmp_path / "set", {"notes.md": b"nothing"})
    code, out, err = command("validate", tmp_path / "set")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "no known format" in err


def test_json_has_all_of_it(tmp_path: Path, command: Command) -> None:
    path = write_cifar(tmp_path / "set", {"train": batch(["a", "b"], [0, 7])})
    code, out, _ = command("validate", path, "--json")
    facts: dict[str, Any] = json.loads(out)
    assert (code, facts["valid"], facts["errors"], facts["rows"]) == (5, False, 1, 1)
    rows = next(finding for finding in facts["findings"] if finding["check"] == "rows")
    assert (rows["severity"], rows["count"], len(rows["examples"])) == ("error", 1, 1)
    assert [key for key in (*facts, *rows) if f"`{key}`" not in documented_fields("validate")] == []


@pytest.mark.slow
def test_beam_gives_the_same(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, beam: None) -> None:
    files = {f"cat/{name}": content for name, content in damaged_images().items()}
    path = write_tree(tmp_path / "tree", {**files, "dog/1.png": encoded(picture(1))})
    done = run("validate", path, "--json", "--workers", "2")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    monkeypatch.setattr("beam_cifar.analysis.reading.for_each_block", serial.for_each_block)
    found = validate(str(path))
    told = [
        tuple(each[name] for name in ("check", "severity", "count")) for each in json.loads(done.stdout)["findings"]
    ]
    assert told == [(f.check, f.severity, f.count) for f in found.findings]
