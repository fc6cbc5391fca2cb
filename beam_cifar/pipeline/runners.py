"""Selects the Beam runner of a job and its options."""

from __future__ import annotations

import difflib
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, TypeAlias

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineResult, PipelineRunner, create_runner

from beam_cifar import storage
from beam_cifar.errors import UsageError
from beam_cifar.options import ConvertOptions, check_workers
from beam_cifar.pipeline.flink import server_flags
from beam_cifar.pipeline.local import SafeRunner, local_runner, threads_ended
from beam_cifar.pipeline.stores import use_options

ParsedOptions: TypeAlias = PipelineOptions
BeamOptions: TypeAlias = Sequence[str] | PipelineOptions
"""Beam's own options, as flags or parsed."""

LOCAL_RUNNERS = ("direct", "directrunner", "fnapirunner", "switchingdirectrunner", "saferunner")
DATAFLOW_RUNNERS = ("dataflow", "dataflowrunner", "testdataflowrunner")
MAX_DEFAULT_WORKERS = 4
_BUILDING = threading.Lock()


def pipeline_options(flags: Sequence[str], workers: int | None, own_flags: Sequence[str] = ()) -> PipelineOptions:
    """Returns Beam's options, parsed from the flags that are not ours; object stores use them from now on.

    Args:
        flags: flags from the command line.
        workers: number of local workers; default: chosen by `default_workers`.
        own_flags: our own flags, suggested when one is misspelt.

    Raises:
        UsageError: a flag is unknown to us and to Beam, `workers` is used with a runner that is not local, or the
            runner does not support a dry run.
    """
    check_workers(workers)
    with _one_line_refusals():
        options = PipelineOptions(list(flags))
    _refuse_timed_flush(options)
    use_options(options)
    runner = options.view_as(StandardOptions).runner
    local = is_local(options)
    server = None if local else server_flags(options)
    if local:
        _refuse_nearly_ours(flags, own_flags)
    _refuse_unknown(options, flags, own_flags, server or (), strict=local or server is not None)
    if is_dry_run(options) and not is_dataflow(options):
        raise UsageError(f"--dry_run: not supported by {runner or 'the local runner'}; use --plan to print the plan")
    if not local:
        try:
            # Beam itself would find this out only when the pipeline runs, after the dataset has been scanned.
            create_runner(str(runner))
        except (ValueError, ImportError, AttributeError) as error:
            raise UsageError(f"--runner {runner}: {str(error).splitlines()[0]}") from error
        if workers is not None:
            raise UsageError(f"--workers is for local runners; {runner} has its own options, such as --parallelism")
        if not _given(flags, "--save_main_session"):
            # Workers can import all they need. By default Dataflow would pickle the main program.
            options.view_as(SetupOptions).save_main_session = False
        if is_dataflow(options):
            _check_dataflow(options)
        return options
    direct = options.view_as(DirectOptions)
    if _given(flags, "--direct_num_workers"):
        if workers is not None:
            raise UsageError("--workers and --direct_num_workers mean the same; pass only one of them")
        if direct.direct_num_workers < 0:
            raise UsageError(f"--direct_num_workers must be at least 0, found {direct.direct_num_workers}")
        direct.direct_num_workers = direct.direct_num_workers or _cores()
    else:
        direct.direct_num_workers = workers or default_workers()
    if not _given(flags, "--direct_running_mode"):
        direct.direct_running_mode = _running_mode(direct.direct_num_workers)
    return options


def parsed_options(beam_options: BeamOptions, workers: int | None) -> PipelineOptions:
    """Returns Beam's options in parsed form; object stores use them from now on."""
    if not isinstance(beam_options, PipelineOptions):
        return pipeline_options(beam_options, workers)
    _refuse_timed_flush(beam_options)
    use_options(beam_options)
    return beam_options


def _refuse_timed_flush(options: PipelineOptions) -> None:
    """Raises `UsageError` for the experiment that makes Beam's workers lose elements; see docs/beam-timed-flush.md."""
    for experiment in options.view_as(DebugOptions).experiments or ():
        name, _, limit = experiment.partition("=")
        if name == "data_buffer_time_limit_ms" and limit.strip() != "0":
            raise UsageError(f"--experiments {experiment}: Beam's flush by a timer loses elements; leave it out")


def local_flags(workers: int | None) -> list[str]:
    """Returns flags for pipelines of users on this machine. Raises `UsageError`."""
    check_workers(workers)
    count = workers or default_workers()
    return [
        f"--runner={SafeRunner.__module__}.{SafeRunner.__name__}",
        f"--direct_num_workers={count}",
        f"--direct_running_mode={_running_mode(count)}",
    ]


def is_local(options: PipelineOptions) -> bool:
    """Returns whether the job runs on this machine, in the runner that `make_runner` creates."""
    name = options.view_as(StandardOptions).runner
    return name is None or name.rsplit(".", 1)[-1].lower() in LOCAL_RUNNERS


def is_dataflow(options: PipelineOptions) -> bool:
    """Returns whether the job runs on Google Cloud Dataflow, whose workers cannot see local folders."""
    name = options.view_as(StandardOptions).runner
    return name is not None and name.rsplit(".", 1)[-1].lower() in DATAFLOW_RUNNERS


def is_dry_run(options: PipelineOptions) -> bool:
    """Returns whether the pipeline is only translated, not run. To Beam, any value of the flag means yes."""
    return bool(options.view_as(TestOptions).dry_run)


def make_runner(options: PipelineOptions) -> PipelineRunner | str:
    """Returns the runner object of a local job, or the name of another runner."""
    return local_runner(options) if is_local(options) else str(options.view_as(StandardOptions).runner)


def run_pipeline(
    build: Callable[[beam.Pipeline], Any], options: PipelineOptions, guard: storage.Guard
) -> PipelineResult:
    """Starts a pipeline on the runner named in its options; works in notebooks too, with any version of pandas.

    The local runner returns when the job is done, and no thread of it is left then.

    Args:
        build: adds the steps to an empty pipeline.
        options: Beam's own options, as returned by `pipeline_options`.
        guard: the job's permission to write, which ends with a failure or an interrupt.
    """
    folder = storage.TemporaryFolder()  # Beam's own name does not say which process it belongs to
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    os.rmdir(pipeline.local_tempdir)
    pipeline.local_tempdir = folder.name
    try:
        with threads_ended() if is_local(options) else nullcontext():
            try:
                with _apart_from_notebook():
                    build(pipeline)
                return pipeline.run()
            except BaseException:
                guard.end()  # other threads of the job are still at their bundles
                raise
    finally:
        # In IPython, Beam leaves this folder to its interactive modules, which do not know this pipeline.
        shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)


@contextmanager
def _apart_from_notebook() -> Iterator[None]:
    """Context for building a pipeline: stops Beam from prefixing step names with the number of the notebook cell.

    In IPython, Beam imports its interactive modules for that, which takes a second, needs pandas and fails with
    pandas 3. There is no option to turn it off, so the function is replaced for the moment; the user's own pipelines
    on Beam's interactive runner are not affected.
    """
    with _BUILDING:
        numbered = beam.pipeline.alter_label_if_ipython
        beam.pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
        try:
            yield
        finally:
            beam.pipeline.alter_label_if_ipython = numbered


def default_workers() -> int:
    """Returns the number of cores available to us, at most four: threads share one interpreter lock."""
    return min(MAX_DEFAULT_WORKERS, _cores())


def _check_dataflow(options: PipelineOptions) -> None:
    """Raises `UsageError` for options that Beam reports in a page or not at all: with no bucket, it creates one."""
    cloud = options.view_as(GoogleCloudOptions)
    if not cloud.project:
        raise UsageError("DataflowRunner needs --project, the Google Cloud project to bill for the job")
    for name in ("temp_location", "staging_location"):
        place = getattr(cloud, name)
        if not re.fullmatch(r"gs://[a-z0-9][-_a-z0-9.]+[a-z0-9]/.+", place or "") and (
            place or name == "temp_location"
        ):
            raise UsageError(f"DataflowRunner needs --{name}=gs://BUCKET/FOLDER, found {place!r}")


def obstacles(options: ConvertOptions, beam_options: PipelineOptions) -> list[str]:
    """Returns why Dataflow workers would fail, after minutes of start-up: local paths, or code they do not have."""
    if not is_dataflow(beam_options):
        return []
    found = local_paths([*(each.path for each in options.input.leaves), options.output_dir])
    setup = beam_options.view_as(SetupOptions)
    if not (beam_options.view_as(WorkerOptions).sdk_container_image or setup.setup_file or setup.extra_packages):
        found.append("DataflowRunner workers lack beam_cifar; pass an image that has it with --sdk_container_image")
    return found


def local_paths(paths: Iterable[str]) -> list[str]:
    """Returns why Dataflow workers would fail at paths that they cannot see."""
    wrong = "DataflowRunner workers cannot access local paths; use gs://"
    return [f"{path}: {wrong}" for path in paths if not storage.is_url(path)]


def _running_mode(workers: int) -> str:
    # Threads, because encoders release the interpreter lock and processes take seconds to start.
    return "in_memory" if workers == 1 else "multi_threading"


def _cores() -> int:
    # `os.cpu_count` ignores the CPU affinity of this process, which not every platform reports.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runs_here(pipeline: beam.Pipeline) -> bool:
    """Returns whether a pipeline's workers see the temporary files of this process, as far as its runner says."""
    runner = type(pipeline.runner).__name__.lower()
    here = runner in (*LOCAL_RUNNERS, "localrunner", "bundlebaseddirectrunner", "prismrunner")
    return here or pipeline.options.view_as(PortableOptions).environment_type == "LOOPBACK"


@contextmanager
def _one_line_refusals() -> Iterator[None]:
    """Turns argparse's exit, with its pages of usage, into a `UsageError` with the line that says what is wrong."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit:
        line = (said.getvalue().strip().splitlines() or ["invalid Beam option"])[-1]
        raise UsageError(line.partition("error: ")[2] or line) from None


def _given(flags: Sequence[str], name: str) -> bool:
    return any(flag == name or flag.startswith(name + "=") for flag in flags)


def _refuse_nearly_ours(flags: Sequence[str], own_flags: Sequence[str]) -> None:
    """Raises `UsageError` for a flag such as Dataflow's --labels: a local runner would take it and select nothing."""
    for name in (flag.split("=", 1)[0] for flag in flags):
        if name not in own_flags and (near := difflib.get_close_matches(name, own_flags, n=1, cutoff=0.9)):
            raise UsageError(f"unknown flag {name}; did you mean {near[0]}?")


def _refuse_unknown(
    options: PipelineOptions, flags: Sequence[str], own_flags: Sequence[str], server: Collection[str], *, strict: bool
) -> None:
    """Raises `UsageError` for unknown flags, which Beam only warns about; if not `strict`, only for likely typos."""
    known = [*own_flags, *server]
    unknown: list[str] = []

    def look(parser: Any) -> None:
        known.extend(name for action in parser._actions for name in action.option_strings)
        unknown.extend(parser.parse_known_args(list(flags))[1])

    with _one_line_refusals():
        # Unknown flags are retained only so that Beam does not warn about them.
        options.get_all_options(add_extra_args_fn=look, retain_unknown_options=True)
    for flag in unknown:
        name = flag.split("=", 1)[0]
        if name in server:
            continue
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.8)
        if not name.startswith("-"):
            if strict:
                raise UsageError(f"unexpected argument {flag!r}; see beam-cifar convert --help")
        elif near or strict:
            hint = f"; did you mean {' or '.join(near)}?" if near else "; see beam-cifar convert --help"
            raise UsageError(f"unknown flag {name}{hint}")
