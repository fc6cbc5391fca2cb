"""Ctrl-C in a program that uses the library: the interrupt reaches the program, and nothing half-written stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

# The interrupt comes when the job has written its nth file, so that it depends on no clock.
INTERRUPTED = """
import json, os, signal, sys, threading
from pathlib import Path
from beam_cifar import BeamCifarError, ConvertOptions, Dataset, convert
from beam_cifar.storage import staging
from tests.helpers.processes import until

what, source, output, workers, nth = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])

def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

def job():
    if what == "convert":
        convert(ConvertOptions(source, str(output), "imagenet", workers=workers, overwrite=True))
    else:
        dataset = Dataset.import_from(output)
        item = next(iter(dataset))
        dataset.remove(item.id, item.subset).save(save_images=True, workers=workers)

Dataset.import_from(source).export(output, "cifar", save_images=True, workers=1)
old, seen, commit = contents(output), [], staging.StagedFile.commit

def interrupting(file):
    seen.append(file)
    if len(seen) == nth:
        os.kill(os.getpid(), signal.SIGINT)
    commit(file)

staging.StagedFile.commit = interrupting
threads = threading.active_count()
try:
    job()
    ended = "done"
except KeyboardInterrupt:
    ended = "KeyboardInterrupt"
except BeamCifarError as error:
    ended = repr(error)
new = contents(output)
beside = sorted(path.name.split("-")[0] for path in Path(f"{output}.beam_cifar").iterdir())
staging.StagedFile.commit = commit
job()  # what is left of the first one does not stop the next
until(lambda: threading.active_count() == threads, 5)
print(json.dumps([ended, new == old, beside, threading.active_count() - threads, contents(output) != old]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("what", ["convert", "save"])
def test_an_interrupt_reaches_the_program_and_the_output_stays(
    what: str, workers: int, nth: int, cifar10: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", INTERRUPTED, what, str(cifar10), str(tmp_path / "out"), str(workers), str(nth)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["KeyboardInterrupt", True, ["inputs", "manifest.json"], 0, True]
