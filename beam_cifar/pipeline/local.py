"""Beam's local runner, and the only place that reaches into it: what it gets wrong is put right here."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner
from apache_beam.runners.worker import data_plane
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

from beam_cifar.errors import JobError
from beam_cifar.pipeline.processes import LocalRunner

LAST_BUNDLE = 5.0
"""Seconds that threads of a failed job get to end: at their next write they are refused."""

_running = 0
_COUNTING = threading.Lock()


class _Connection(worker_handlers.ControlConnection):
    """The launcher's connection to a worker, on which nobody waits for an answer once the worker has ended.

    Beam's waits forever: a failed job left a thread with all that it held, and a job whose worker was killed hung.
    """

    _ended = False

    def _read(self) -> None:
        try:
            super()._read()
        finally:
            self._ended = True
            for future in list(self._futures_by_id.values()):
                future.abort(self._lost())

    def push(self, request: Any) -> Any:
        future = super().push(request)
        if self._ended and future is not None:
            future.abort(self._lost())
        return future

    def _lost(self) -> JobError:
        return JobError(
            "a worker ended before its work was done; it may have been killed, for example when memory ran out; "
            "nothing was published; run the job again, with fewer --workers if memory is short"
        )


class _Channels(data_plane.GrpcClientDataChannelFactory):
    """The data channels of a worker, none of which is opened once the worker has ended: nobody would answer it.

    A bundle may still start then, if the job failed elsewhere: it left three threads, and the server's end took 10 s.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ended, self._opening = False, threading.Lock()

    def create_data_channel_from_url(self, *arguments: Any, **named: Any) -> Any:
        with self._opening:
            if self._ended:
                raise RuntimeError("the worker has ended")
            return super().create_data_channel_from_url(*arguments, **named)

    def close(self) -> None:
        with self._opening:
            self._ended = True
            super().close()


def local_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """Returns Beam's runner in this process and its workers.

    Beam's DirectRunner first tries to download another engine, and uses this one only if that fails. It is pinned
    here so that jobs run the same everywhere and need no network. Created this way, it also passes the options to
    worker processes.
    """
    # Every second (1000) a Beam thread flushes the data streams of the server and of worker threads, while another
    # thread writes to them without a lock: see docs/beam-timed-flush.md. 0 turns that off. It is set in Beam's module
    # because the server has no option for it, and `FnApiRunner.run_pipeline` replaces the environment that would pass
    # it to the workers.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    worker_handlers.ControlConnection = _Connection
    data_plane.GrpcClientDataChannelFactory = _Channels
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return LocalRunner(provision_info=info)


class SafeRunner(PipelineRunner):
    """The same runner for pipelines of users, named by `--runner`; see `beam_cifar.beam.local_options`."""

    def run_pipeline(self, pipeline: Any, options: PipelineOptions) -> Any:
        """Runs a pipeline, and waits for its end."""
        return local_runner(options).run_pipeline(pipeline, options)


def loses_elements(pipeline: Any) -> bool:
    """Returns whether a pipeline will run on Beam's own local runner with several workers and its flush by a timer."""
    several = pipeline.options.view_as(DirectOptions).direct_running_mode != "in_memory"
    return (
        several
        and type(pipeline.runner).__name__ in ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner")
        and bool(worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
    )


@contextmanager
def threads_ended() -> Iterator[None]:
    """Context for a local job: ends the threads that it took from Beam's pool, which keeps them until the process ends.

    The pool has no way to do that; a thread that is still at its bundle, after a failure elsewhere, is waited for.
    """
    global _running
    pool = shared_unbounded_instance()
    before = set(pool._workers)  # of the caller's own pipelines
    with _COUNTING:
        _running += 1
    try:
        yield
    finally:
        with _COUNTING:
            _running -= 1
        deadline = time.monotonic() + LAST_BUNDLE
        while any(thread.is_alive() for thread in set(pool._workers) - before):
            try:
                # Those that are not idle may be at work for another job of this process.
                idle = pool._idle_worker_queue.get(timeout=0 if _running else max(0, deadline - time.monotonic()))
            except queue.Empty:
                break
            idle.shutdown()
            idle.join()
