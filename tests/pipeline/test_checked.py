"""What crosses the runner: every damaged element is an error, and never another value."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import apache_beam as beam
import pytest
from apache_beam.coders import registry
from apache_beam.runners.worker import data_plane

from beam_cifar import ConvertOptions, ReadExamples, WriteExamples, convert
from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import LabelTable, remap_table
from beam_cifar.errors import JobError
from beam_cifar.formats.contract.types import ExportOptions, SinkOptions
from beam_cifar.jobs.accounts import PartInfo, ShardInfo
from beam_cifar.jobs.settings import PublishSettings, SinkSettings
from beam_cifar.pipeline.arrivals import Arrival, LaidOut
from beam_cifar.pipeline.errors import CarriedError, find_error
from beam_cifar.planning.plan import Segment, Spill, Task
from beam_cifar.storage import JobFolder
from tests.helpers.image_trees import contents, quickly, write_tree
from tests.helpers.processes import until

PART = PartInfo(
    0, 1, 1, 99, "ab" * 32, Counter({("train", 3): 5}), bad_rows=(BadRow("f", 1, "train", "decode", "no", 3),)
)
LABELS = LabelTable(("cat",))
SINK = SinkSettings("parquet", (), SinkOptions(LABELS, ExportOptions()), JobFolder("/out", "job", run="run"))
KINDS = {
    Task: Task(1, 2, 3, (Segment(0, 0, 3, 0, 3),)),
    PartInfo: PART,
    ShardInfo: ShardInfo(0, 1, 99, "cd" * 32, (PART,)),
    PublishSettings: PublishSettings(SINK, remap_table(LABELS, []), None, {"a": 1}, overwrite=False),
    Arrival: Arrival("ab" * 16, 99),
    LaidOut: LaidOut(None, None, SINK.folder, (Spill(0, 1, 2),), ()),  # type: ignore[arg-type]
}
"""Whatever crosses the runner in a job, and in a pipeline that writes examples."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_damaged_element_is_never_another_value(kind: type) -> None:
    coder, value = registry.get_coder(kind), KINDS[kind]
    whole = coder.encode(value)
    assert coder.decode(whole) == value
    flipped = (whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole)))
    cut = (whole[:at] for at in range(len(whole)))
    others = (
        whole + b"\0",
        whole[1:],
        whole + whole,
        bytes(len(whole)),
        bytes(12),
        whole[:12] + whole[:12] + whole[12:],
    )
    for damaged in (*flipped, *cut, *others):
        with pytest.raises(CarriedError) as caught:
            coder.decode(damaged)
        known = find_error(caught.value)
        assert isinstance(known, JobError)
        assert str(known).startswith("an element was damaged between workers")


def test_everything_that_is_grouped_has_that_coder(cifar10: Path, tmp_path: Path) -> None:
    read = ReadExamples(str(cifar10))
    pipeline = beam.Pipeline()
    _ = pipeline | read | WriteExamples(str(tmp_path / "out"), "parquet", read.labels)
    components = pipeline.to_runner_api().components

    def leaves(coder: str) -> Iterator[str]:
        found = components.coders[coder]
        for component in found.component_coder_ids:
            yield from leaves(component)
        if not found.component_coder_ids:
            names = re.findall(rb"[A-Za-z_]+Coder", found.spec.payload)
            yield names[0].decode() if names else found.spec.urn

    grouped = [each for each in components.transforms.values() if each.spec.urn == "beam:transform:group_by_key:v1"]
    found = [set(leaves(components.pcollections[name].coder_id)) for each in grouped for name in each.inputs.values()]
    assert len(found) == 5
    for coders in found:
        # The key, and beside a task when a Reshuffle saw it: neither becomes part of the output.
        beside = {"beam:coder:varint:v1", "FastPrimitivesCoder", "bPaneInfoCoder"}
        assert coders - beside in ({"CheckedCoder"}, {"_PlacedCoder"})


Change = Callable[[bytes], bytes]


@contextmanager
def sent(change: Change) -> Iterator[None]:
    """Context in which all data between the runner and its workers is changed on its way."""
    create = data_plane.ClosableOutputStream.create

    def changing(close: Change, flush: Change, limit: int) -> data_plane.ClosableOutputStream:
        return create(lambda data: close(change(data)), lambda data: flush(change(data)), limit)

    with mock.patch.object(data_plane.ClosableOutputStream, "create", staticmethod(changing)):
        yield


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def run(source: Path, output: Path) -> bool:
    """Whether the job says that it is done."""
    with suppress(JobError):
        convert(ConvertOptions(str(source), str(output), "parquet", workers=2, overwrite=True))
        return True
    return False


@pytest.mark.parametrize("change", [flipped, lambda data: b"", lambda data: data + data], ids=["flip", "lost", "twice"])
@pytest.mark.parametrize("place", [3, pytest.param(6, marks=pytest.mark.slow), 10])
def test_a_job_whose_data_is_damaged_fails_or_is_right(
    place: int, change: Change, cifar10: Path, tmp_path: Path
) -> None:
    write_tree(tmp_path / "out", {"old": b"old"})
    old = contents(tmp_path / "out")
    seen: list[bytes] = []

    def once(data: bytes) -> bytes:
        seen.append(data) if data else None
        return change(data) if data and len(seen) == place else data

    threads = threading.active_count()
    with sent(once):
        done = run(cifar10, tmp_path / "out")
    assert until(lambda: threading.active_count() == threads, 5)
    assert len(seen) >= place
    if done:
        quickly(cifar10, tmp_path / "right", "parquet")
        assert contents(tmp_path / "out") == contents(tmp_path / "right")
    else:
        assert contents(tmp_path / "out") == old
        assert not (tmp_path / "out.beam_cifar").exists()
