"""The local runner: within a notebook, and with bundles that take longer than a second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import data_plane

from beam_cifar.errors import UsageError
from beam_cifar.pipeline.runners import make_runner, parsed_options, pipeline_options
from beam_cifar.pipeline.stores import SETTINGS
from beam_cifar.storage import stores
from beam_cifar.storage.paths import SCHEMES

WITHOUT_PANDAS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""

# Two jobs and a measurement, as cells would start them; `done` names what they imported for nothing.
CELL = """
import os, sys
import apache_beam as beam
from apache_beam.utils.interactive_utils import is_in_ipython
from beam_cifar import Dataset, stats
assert is_in_ipython()
numbered = beam.pipeline.alter_label_if_ipython
for workers in (1, 2):
    summary = Dataset.import_from(sys.argv[1]).export("out", "parquet", workers=workers, overwrite=True)
    assert summary.written == 1203, summary
assert stats("out").images == 1203
assert beam.pipeline.alter_label_if_ipython is numbered
assert not any(name.startswith("beam-pipeline-temp") for name in os.listdir(os.environ["TMPDIR"]))
print("done", sorted({"apache_beam.dataframe", "apache_beam.runners.interactive"} & set(sys.modules)))
"""

# What Jupyter's kernel is to Beam: a shell that cells are sent to, with an `IPKernelApp` among its settings.
KERNEL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config({"IPKernelApp": {}}))
from apache_beam.utils.interactive_utils import is_in_notebook
assert is_in_notebook()
shell.run_cell(CELL).raise_error()
"""

# Values of 4 kB that are slow to pickle: the sleep within an element lets Beam's timer at the half-written stream.
SLOW_VALUES = """
import resource, time
from dataclasses import dataclass
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to
from beam_cifar.pipeline.runners import make_runner, pipeline_options

@dataclass(frozen=True)
class Value:
    number: int
    names: tuple[str, ...]

    def __reduce__(self):
        time.sleep(0.002)
        return Value, (self.number, self.names)

def value(number):
    return number % 50, Value(number, tuple(f"{number:06d}-{place:09d}" for place in range(256)))

def whole(group):
    return all((group[0], each) == value(each.number) for each in group[1]), len(group[1])

options = pipeline_options(["--direct_running_mode=multi_threading"], 2)
with beam.Pipeline(runner=make_runner(options), options=options) as line:
    numbers = line | beam.Create(range(3000), reshuffle=False) | beam.Reshuffle()
    groups = numbers | beam.Map(value) | beam.GroupByKey() | "Whole" >> beam.Map(whole)
    assert_that(groups, equal_to([(True, 60)] * 50))
"""


def python(*arguments: str | Path, folder: Path) -> str:
    environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("before", ["", WITHOUT_PANDAS], ids=["pandas as installed", "no pandas"])
def test_jobs_run_in_ipython(before: str, cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(before + CELL)
    assert "done []" in python("-m", "IPython", "--colors=nocolor", "cell.py", cifar10, folder=tmp_path)


@pytest.mark.parametrize("before", ["", WITHOUT_PANDAS], ids=["pandas as installed", "no pandas"])
def test_jobs_run_in_a_notebook(before: str, cifar10: Path, tmp_path: Path) -> None:
    assert "done []" in python("-c", f"CELL = {CELL!r}\n{before}\n{KERNEL}", cifar10, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("pandas", ["pandas<3", "pandas>=3"])
def test_jobs_run_in_ipython_with_any_pandas(pandas: str, cifar10: Path, tmp_path: Path) -> None:
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "other"),
        pandas,
    ]
    if (installed := subprocess.run(install, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"{pandas} cannot be installed here: {installed.stderr[-300:]}")
    first = "import sys\nsys.path.insert(0, 'other')\nimport pandas\nassert pandas.__file__.split('/')[-3] == 'other'\n"
    (tmp_path / "cell.py").write_text(first + CELL)
    assert "done []" in python("-m", "IPython", "--colors=nocolor", "cell.py", cifar10, folder=tmp_path)


def test_elements_that_are_slow_to_write_arrive_whole(tmp_path: Path) -> None:
    """With Beam's flush by a timer this ends in a MemoryError, each time."""
    python("-c", SLOW_VALUES, folder=tmp_path)


def test_no_data_stream_is_flushed_by_a_timer() -> None:
    """Fails where Beam takes the limit from elsewhere than the constant that `make_runner` sets."""
    limits = set()
    stream = data_plane._GrpcDataChannel.output_stream

    def noted(channel: data_plane.DataChannel, *arguments: str) -> data_plane.ClosableOutputStream:
        made = stream(channel, *arguments)
        limits.add((type(channel).__name__, type(made).__name__))
        return made

    options = pipeline_options(["--direct_running_mode=multi_threading"], 2)
    with (
        mock.patch.object(data_plane._GrpcDataChannel, "output_stream", noted),
        beam.Pipeline(runner=make_runner(options), options=options) as line,
    ):
        _ = line | beam.Create([1, 2], reshuffle=False) | beam.Reshuffle() | beam.Map(lambda number: number)
    worker, server = "GrpcClientDataChannel", "_GrpcDataChannel"
    assert limits == {(side, "SizeBasedBufferingClosableOutputStream") for side in (worker, server)}


def test_beam_has_the_constant_that_is_changed_and_its_default_is_known(tmp_path: Path) -> None:
    """A release of Beam with another default, or without one, needs another look at docs/beam-timed-flush.md."""
    program = """
from beam_cifar import convert
from apache_beam.runners.portability.fn_api_runner import worker_handlers
print(worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
from beam_cifar.pipeline.runners import make_runner, pipeline_options
make_runner(pipeline_options([], 2))
print(worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
"""
    assert python("-c", program, folder=tmp_path).split() == ["1000", "0"]


@pytest.mark.parametrize("runner", [[], ["--runner=FlinkRunner"], ["--direct_running_mode=multi_processing"]])
def test_the_flush_by_a_timer_cannot_be_switched_on(runner: list[str]) -> None:
    flags = [*runner, "--experiments=data_buffer_time_limit_ms=1000"]
    for given in (flags, PipelineOptions(flags)):
        with pytest.raises(UsageError, match=r"^--experiments data_buffer_time_limit_ms=1000: .* loses elements"):
            parsed_options(given, None)
    parsed_options(["--experiments=data_buffer_time_limit_ms=0", "--experiments=other"], None)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_test_that_runs_away_fails_before_the_machine_does() -> None:
    with pytest.raises(MemoryError):
        bytearray(13 << 30)


@pytest.mark.parametrize("step", ["read", "write", "publish", "each_block"])
def test_a_worker_that_loads_one_step_reaches_object_stores_as_the_flags_say(step: str, tmp_path: Path) -> None:
    """A worker imports what its steps need, and nothing else of a job."""
    program = f"""
import warnings
warnings.simplefilter("ignore")
import beam_cifar.pipeline.{step}
from beam_cifar.storage import stores
assert stores._settings.__module__ == "beam_cifar.pipeline.stores"
"""
    python("-c", program, folder=tmp_path)


def test_the_source_alone_guards_its_blocks(tmp_path: Path) -> None:
    program = """
import warnings
warnings.simplefilter("ignore")
import beam_cifar.pipeline.read
from apache_beam import coders
from beam_cifar.data.block import Block
assert type(coders.registry.get_coder(Block)).__name__ == "BlockCoder"
"""
    python("-c", program, folder=tmp_path)


def test_every_store_has_a_client_and_settings() -> None:
    assert SCHEMES.keys() == stores.CLIENTS.keys() == SETTINGS.keys()
