"""Many jobs in one process: none leaves a thread, a descriptor or memory behind, whether it ends well or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beam_cifar.pipeline import local
from tests.helpers import ROOT
from tests.helpers.image_trees import quickly

MANY = """
import gc, json, os, sys, threading
from pathlib import Path
from beam_cifar import ConvertOptions, Dataset, convert

source, folder, conversions, saves = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def figures(what, done):
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps([what, done, resident, len(os.listdir("/proc/self/fd")), threading.active_count()]), flush=True)

for number in range(conversions):
    target = ("parquet", "imagenet")[number % 2]
    convert(ConvertOptions(str(source), str(folder / "out"), target, overwrite=True, workers=2))
    if (number + 1) % (conversions // 10) == 0:
        figures("conversions", number + 1)
Dataset.import_from(source).export(folder / "saved", "cifar", save_images=True)
for number in range(saves):
    dataset = Dataset.import_from(folder / "saved")
    item = next(iter(dataset))
    dataset.remove(item.id, item.subset)
    dataset.put(item)
    dataset.save(save_images=True, workers=2)
    del dataset
    if (number + 1) % (saves // 10) == 0:
        figures("saves", number + 1)
"""

FAILED_AND_FINISHED = """
import json, os, sys, threading
from beam_cifar import ConvertOptions, convert
from beam_cifar.errors import InputError
from tests.helpers.processes import until

good, damaged, folder = sys.argv[1:]
for number in range(10):
    try:
        convert(ConvertOptions(damaged, f"{folder}/bad", "cifar", save_images=True, workers=2))
    except InputError as error:
        assert "damaged" in str(error)
    else:
        raise AssertionError("a damaged image was read")
    convert(ConvertOptions(good, f"{folder}/good{number}", "parquet", workers=2))
    until(lambda: threading.active_count() == 1, 5)
    print(json.dumps([threading.active_count(), len(os.listdir("/proc/self/fd"))]), flush=True)
"""


def test_a_bundle_that_starts_after_its_worker_has_ended_opens_nothing() -> None:
    threads, channels = threading.active_count(), local._Channels(worker_id="worker")
    channels.close()
    with pytest.raises(RuntimeError, match="the worker has ended"):
        channels.create_data_channel_from_url("localhost:1")
    assert threading.active_count() == threads


@pytest.mark.slow
def test_10_failed_and_10_finished_jobs_leave_no_thread_and_no_descriptor(cifar10: Path, tmp_path: Path) -> None:
    quickly(cifar10, tmp_path / "damaged", "imagenet")
    image = sorted((tmp_path / "damaged").rglob("*.png"))[-1]
    image.write_bytes(image.read_bytes()[:60] + b"....")

    command = [sys.executable, "-c", FAILED_AND_FINISHED, *(str(cifar10), str(tmp_path / "damaged"), str(tmp_path))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # what other tests leave is not in a process of its own
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    first, *later = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert first[0] == 1  # the main thread; some libraries keep open what they once needed
    assert len(later) == 9
    assert set(later) == {first}


@pytest.mark.large
def test_many_conversions_and_saves_take_no_more_than_the_first_ones(cifar10: Path, tmp_path: Path) -> None:
    jobs = int(os.environ.get("BEAM_CIFAR_MANY_JOBS", "10"))  # docs/trust.md has the figures of 50
    command = [sys.executable, "-c", MANY, str(cifar10), str(tmp_path), str(10 * jobs), str(4 * jobs // 10 * 10)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print(*found, sep="\n")
    assert len(found) == 20
    _, _, resident, descriptors, threads = found[0]
    for _, _, later, *others in found[1:]:
        assert later < resident + (40 << 20)
        assert others[0] <= descriptors + 4  # channels of the last job may still be closing
        assert others[1] == threads
    assert found[-1][3] == descriptors
