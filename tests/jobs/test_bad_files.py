"""Files whose structure is wrong: one costs itself alone if bad rows are set aside, else the job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_cifar.errors import InputError
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.survey import find_catalog
from beam_cifar.samples.make import make_sample
from tests.helpers.commands import Command
from tests.helpers.image_trees import contents, converted, encoded, killed, manifest, picture, quickly

ASIDE: dict[str, Any] = {"on_error": "quarantine"}
FORMATS = {
    "cifar": ("cifar", r"truncated: the opcode needs"),
    "parquet": ("parquet", r"not a Parquet file"),
    "webdataset": ("webdataset", r"bytes, but only|without an end-of-archive"),
    "npz": ("npz", r"not an \.npz file"),
    "mnist": ("mnist", r"truncated or damaged"),
    "tfds_parquet": ("tfds", r"not a Parquet file"),
    "tfds_tfrecord": ("tfds", r"the record at byte \d+ is cut"),
    "tfds_array_record": ("tfds", r"expected two or more blocks|is cut after byte"),
    "cifar_binary": ("cifar_binary", r"is \d+ bytes"),
    "mnist_csv": ("mnist_csv", r"expected"),
    "coco": ("coco", r"JSON"),
    "datumaro": ("datumaro", r"JSON"),
    "cvat": ("cvat", r"not valid XML"),
}
"""Formats of several files, with what their reader says of one that is cut."""


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images in six batches."""
    path = tmp_path_factory.mktemp("sample") / "cifar10"
    make_sample(str(path), kind="cifar10", images=60, seed=1)
    return path


def listed(output: Path) -> list[dict[str, Any]]:
    """The list of bad rows and files."""
    text = (output.with_name(output.name + ".beam_cifar") / "quarantine.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def beside(output: Path) -> dict[str, bytes]:
    """The manifest and lists of a job."""
    found = contents(output.with_name(output.name + ".beam_cifar"))
    return {name: data for name, data in found.items() if "inputs" not in name}


def cut_file(sample: Path, folder: Path, target: str) -> tuple[Path, Path, str]:
    """Writes a dataset, and returns its path, that of its first file, which is cut, and the subset of that."""
    source = folder / "in"
    quickly(sample, source, target, save_images=True)
    first = find_catalog(str(source), FORMATS[target][0], str(folder / "index")).files[0]
    lost = Path(first.shown)
    lost.write_bytes(lost.read_bytes()[: lost.stat().st_size // 2 + 1])
    return source, lost, first.subset


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("target", FORMATS)
def test_a_cut_file_costs_itself_alone(tmp_path: Path, sample: Path, target: str, named: bool) -> None:
    source, lost, subset = cut_file(sample, tmp_path, target)
    reader, reason = FORMATS[target]
    name = {"input_format": reader} if named else {}
    with pytest.raises(InputError, match=reason):
        quickly(source, tmp_path / "refused", "npz", **name)
    found = quickly(source, tmp_path / "out", "npz", **ASIDE, **name)
    entries = listed(tmp_path / "out")
    assert found.quarantined == 0
    assert found.read == found.written == sum(n for name, n in found.subsets.items() if name != subset)
    assert found.quarantined_files == len(entries) == manifest(tmp_path / "out")["quarantine"]["files"]
    assert entries[0]["file"] == str(lost)
    assert (entries[0]["row"], entries[0]["stage"]) == (None, "open")
    assert any("set aside, such as" in notice and str(lost) in notice for notice in found.notices)
    quickly(sample, tmp_path / "whole", target, save_images=True)
    kept = tuple(found.subsets)
    assert subset not in kept
    quickly(tmp_path / "whole", tmp_path / "good", "npz", subsets=kept, **name)
    assert contents(tmp_path / "out") == contents(tmp_path / "good")


def test_images_without_their_labels_are_lost_with_them(tmp_path: Path, sample: Path) -> None:
    quickly(sample, tmp_path / "in", "mnist")
    labels = tmp_path / "in" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-20])
    found = quickly(tmp_path / "in", tmp_path / "out", "npz", **ASIDE)
    assert (found.subsets, found.quarantined_files) == ({"train": 50}, 2)
    assert [Path(entry["file"]).name for entry in listed(tmp_path / "out")] == [
        "t10k-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
    ]


def test_a_cut_arrow_file_costs_itself_alone(tmp_path: Path) -> None:
    source, name = tmp_path / "in", "data-00000-of-00001.arrow"
    images = [{"bytes": encoded(picture(n)), "path": f"{n}.png"} for n in range(4)]
    table = pa.table({"image": images, "label": ["cat", "dog"] * 2})
    for split in ("train", "test"):
        (source / split).mkdir(parents=True)
        (source / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": split}))
        with pa.ipc.new_stream(source / split / name, table.schema) as writer:
            writer.write_table(table)
    (source / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    lost = source / "test" / name
    lost.write_bytes(lost.read_bytes()[:2000])
    found = quickly(source, tmp_path / "out", "npz", **ASIDE)
    assert (found.subsets, found.quarantined_files) == ({"train": 4}, 1)
    assert listed(tmp_path / "out")[0]["file"] == str(lost)


def test_labels_are_never_lost_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for split in ("train", "test"):
        np.savez(tmp_path / "in" / f"x_{split}.npz", np.zeros((4, 8, 8, 3), np.uint8))
        np.savez(tmp_path / "in" / f"y_{split}.npz", np.arange(4))
    labels = tmp_path / "in" / "y_test.npz"
    labels.write_bytes(labels.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"y_test.npz: .*not an \.npz file"):
        quickly(tmp_path / "in", tmp_path / "out", "parquet", **ASIDE, input_format="npz")


def test_a_list_of_classes_is_never_lost(tmp_path: Path, sample: Path) -> None:
    source = Path(shutil.copytree(sample, tmp_path / "in"))
    (source / "batches.meta").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"batches.meta: byte 0: not a pickle"):
        quickly(source, tmp_path / "out", "npz", **ASIDE)


def test_files_that_contradict_each_other_are_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, labels in (("train", pa.array(["cat", "dog"])), ("test", pa.array([0, 1]))):
        images = [{"bytes": encoded(picture(n)), "path": f"{n}.png"} for n in range(2)]
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(InputError, match="text in some files, integers in others"):
        quickly(tmp_path / "in", tmp_path / "out", "npz", **ASIDE)


def test_a_file_that_may_not_be_read_is_not_damaged(tmp_path: Path, sample: Path, monkeypatch: Any) -> None:
    source = Path(shutil.copytree(sample, tmp_path / "in"))
    (source / "data_batch_3").unlink()
    (source / "data_batch_3").symlink_to("/proc/self/mem")  # a file whose reading fails, also for root
    with pytest.raises(InputError, match="data_batch_3"):
        quickly(source, tmp_path / "out", "npz", **ASIDE)


def test_a_damaged_row_group_costs_its_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    images = [{"bytes": encoded(picture(n)), "path": f"{n}.png"} for n in range(8)]
    table = pa.table({"image": images, "label": [0, 1] * 4})
    for name in ("train", "test"):
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet", row_group_size=4, compression=None)
    place = pq.ParquetFile(tmp_path / "in" / "train.parquet").metadata.row_group(1).column(0).data_page_offset
    with (tmp_path / "in" / "train.parquet").open("r+b") as file:
        file.seek(place)
        file.write(bytes(40))
    found = quickly(tmp_path / "in", tmp_path / "out", "npz", **ASIDE)
    assert (found.subsets, found.quarantined, found.quarantined_files) == ({"test": 8}, 0, 1)
    assert listed(tmp_path / "out")[0]["reason"].startswith("row group 1: is damaged")


@pytest.mark.parametrize(("limit", "allowed"), [("0", False), ("1", False), ("2", True), ("4%", True), ("3%", False)])
def test_a_lost_file_is_one_error(tmp_path: Path, sample: Path, limit: str, allowed: bool) -> None:
    source, lost, _ = cut_file(sample, tmp_path, "webdataset")
    other = source / "train-000000.tar"
    other.write_bytes(other.read_bytes().replace(b"\x89PNG", b"\x89XXX", 1))
    if allowed:
        found = quickly(source, tmp_path / "out", "parquet", **ASIDE, max_errors=limit)
        assert (found.read, found.written, found.quarantined, found.quarantined_files) == (50, 49, 1, 1)
        assert [entry["row"] for entry in listed(tmp_path / "out")] == [None, 0]
        return
    with pytest.raises(InputError, match=rf"{lost.name}: .* \(at least 1 file and \d of 50 rows (is|are) bad"):
        quickly(source, tmp_path / "out", "parquet", **ASIDE, max_errors=limit)
    assert not (tmp_path / "out").exists()


def test_nothing_but_lost_files(tmp_path: Path, sample: Path) -> None:
    for target, reason in (("npz", "without 6 damaged files, such as"), ("cifar", "6 files that cannot be read were")):
        quickly(sample, tmp_path / target, target, save_images=True)
        for path in (tmp_path / target).iterdir():
            if path.name != "batches.meta":
                path.write_bytes(b"damaged")
        with pytest.raises(InputError, match=reason):
            quickly(tmp_path / target, tmp_path / "out", "parquet", **ASIDE, input_format=target)


def test_a_lost_file_in_an_archive(tmp_path: Path, sample: Path) -> None:
    source, lost, _ = cut_file(sample, tmp_path, "parquet")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    found = quickly(Path(packed), tmp_path / "out", "npz", **ASIDE)
    assert (found.subsets, found.quarantined_files) == ({"train": 50}, 1)
    assert listed(tmp_path / "out")[0]["file"].endswith(f"packed.zip!/data/{lost.name}")


def test_the_same_bytes_from_any_runner_and_after_a_kill(tmp_path: Path, sample: Path) -> None:
    for target in ("cifar", "parquet"):
        folder = tmp_path / target
        source, _, _ = cut_file(sample, folder, target)
        for workers in (1, 4):
            converted(source, folder / str(workers), "npz", **ASIDE, workers=workers)
            assert contents(folder / "1") == contents(folder / str(workers))
            assert beside(folder / "1") == beside(folder / str(workers))
        asked = ConvertOptions(str(source), str(folder / "out"), "npz", **ASIDE, workers=1)
        assert killed(5, asked)
        assert not (folder / "out.beam_cifar" / "manifest.json").exists()
        quickly(source, folder / "out", "npz", **ASIDE, resume=True)
        assert contents(folder / "out") == contents(folder / "1")
        assert beside(folder / "out") == beside(folder / "1")


def test_a_file_that_was_mended_is_another_job(tmp_path: Path, sample: Path) -> None:
    source, lost, subset = cut_file(sample, tmp_path, "parquet")
    quickly(source, tmp_path / "out", "npz", **ASIDE)
    quickly(sample, tmp_path / "whole", "parquet")
    shutil.copy(tmp_path / "whole" / lost.relative_to(source), lost)
    found = quickly(source, tmp_path / "out", "npz", **ASIDE, resume=True, overwrite=True)
    assert (subset in found.subsets, found.quarantined_files) == (True, 0)
    assert not (tmp_path / "out.beam_cifar" / "quarantine.jsonl").exists()


def test_on_the_command_line(tmp_path: Path, sample: Path, command: Command) -> None:
    source, lost, _ = cut_file(sample, tmp_path, "npz")
    asked = ("convert", "-i", source, "-f", "parquet", "-o", tmp_path / "out", "--on-error", "quarantine")
    code, _, told = command(*asked, "--max-errors", "0")
    assert code == 3
    assert f"{lost}: is damaged" in told.splitlines()[-1]
    code, out, _ = command(*asked)
    assert code == 0
    assert "without 1 input file that cannot be read" in out
    assert command("report", tmp_path / "out", "-o", tmp_path / "page.html")[0] == 0
    assert "set aside 1 input file that could not be read" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_more_bad_rows_than_any_file_may_have_are_set_aside_if_most_are_good(tmp_path: Path) -> None:
    labels = np.arange(30_000) % 5  # 0 to 4, of which two are outside
    images = np.zeros((30_000, 1, 1, 3), np.uint8)
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", images=images, labels=labels, label_names=np.array(["cat", "dog", "fox"]))
    found = quickly(tmp_path / "in", tmp_path / "out", "parquet", **ASIDE)
    assert (found.written, found.quarantined, found.quarantined_files) == (18_000, 12_000, 0)
    assert [entry["row"] for entry in listed(tmp_path / "out")] == [n for n in range(30_000) if n % 5 > 2]
