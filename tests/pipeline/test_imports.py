"""Who uses the package finds logging, warnings, signals, environment and imports as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import beam_cifar
from tests.helpers import ROOT

# Runs statements one after the other in a process that has loaded nothing yet, and prints what each of them changed.
CHANGES = """
import json, locale, logging, os, random, signal, sys, threading, warnings
import numpy

def state():
    return {
        "logging": (logging.root.manager.disable, logging.root.level, logging.basicConfig, logging.lastResort),
        "handlers": list(logging.root.handlers),
        # Beam 2.72 asks IPython whether it runs, which adds a filter of its own.
        "warnings": ([each for each in warnings.filters if "IPython" not in str(each[2])], warnings.showwarning),
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        # A library that others need too, and that stays where it is; ours never stay.
        "imports": [each for each in sys.meta_path if type(each).__name__ != "_SixMetaPathImporter"] + sys.path_hooks,
        "path": list(sys.path),
        "random": (random.getstate(), numpy.random.get_state()[1].tolist()),
        "hooks": (sys.excepthook, threading.excepthook, sys.displayhook, sys.getrecursionlimit()),
        "place": (os.getcwd(), locale.setlocale(locale.LC_ALL), os.umask(0o22)),
        "threads": threading.active_count(),
    }

found = {}
os.umask(0o22)
before = state()
for statement in json.loads(sys.argv[1]):
    exec(statement)
    after = state()
    found[statement] = [name for name in before if before[name] != after[name]]
print(json.dumps(found))
"""

# All at the same moment: what one of them sets while it imports, another one must not take for what was there.
AT_ONCE = """
import logging, sys, threading, warnings
import beam_cifar

names = sys.argv[1].split()
together, before = threading.Barrier(len(names)), (logging.root.manager.disable, list(warnings.filters), logging.basicConfig)

def use(name):
    together.wait()
    getattr(beam_cifar, name)

threads = [threading.Thread(target=use, args=(name,)) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert (logging.root.manager.disable, list(warnings.filters), logging.basicConfig) == before
assert not logging.root.handlers
logging.basicConfig(format="ours: %(message)s")
logging.warning("heard")
"""

PANDAS = "import pandas, pyarrow; assert list(pyarrow.array([1, 2]).to_pandas()) == [1, 2]"
JOBS = {
    "convert": "convert(ConvertOptions({source!r}, {folder!r} + '/out', 'parquet', workers=2))",
    "a job that fails": "import contextlib\nwith contextlib.suppress(BeamCifarError): convert(ConvertOptions('no', 'o', 'cifar'))",
    "import_from": "Dataset.import_from({source!r})",
    "export": "Dataset.import_from({source!r}).export({folder!r} + '/two', 'parquet', workers=2)",
    "stats": "stats({source!r}, workers=2)",
    "ReadExamples": "ReadExamples({source!r})",
}


def python(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def changes(statements: list[str], folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(python(CHANGES, json.dumps(statements), folder=folder).stdout)
    return found


def test_no_public_name_changes_the_process_that_imports_it(tmp_path: Path) -> None:
    names = [name for name in beam_cifar.__all__ if name != "__version__"]
    found = changes(["import beam_cifar", *(f"from beam_cifar import {name}" for name in names)], tmp_path)
    assert len(found) == len(names) + 1
    assert not {statement: what for statement, what in found.items() if what}


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(set(beam_cifar._PUBLIC.values())))
def test_no_module_changes_the_process_that_imports_it_first(module: str, tmp_path: Path) -> None:
    name = next(name for name, home in beam_cifar._PUBLIC.items() if home == module)
    found = changes([f"from beam_cifar import {name}", f"import beam_cifar.{module}"], tmp_path)
    assert not any(found.values())


def test_no_job_changes_the_process_that_runs_it(cifar10: Path, tmp_path: Path) -> None:
    jobs = [each.format(source=str(cifar10), folder=str(tmp_path)) for each in JOBS.values()]
    found = changes(["from beam_cifar import *", *jobs, PANDAS], tmp_path)
    assert len(found) == len(jobs) + 2
    # Beam draws from Python's own random numbers when it runs, and not when it is imported.
    assert {what for each in found.values() for what in each} <= {"random"}


def test_threads_that_use_the_package_for_the_first_time_at_once_leave_all_as_it_was(tmp_path: Path) -> None:
    names = ["convert", "ReadExamples", "stats", "compare", "validate", "find_error", "Dataset", "Summary"]
    assert python(AT_ONCE, " ".join(names), folder=tmp_path).stderr == "ours: heard\n"
