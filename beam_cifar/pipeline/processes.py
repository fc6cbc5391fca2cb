"""Worker processes of the local runner: they end with their launcher, and a killed one ends the job with one line.

Beam starts them through a shell and watches neither side: workers of a killed launcher go on writing, and a launcher
waits for what a killed worker would have sent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from google.protobuf import json_format, text_format

from beam_cifar.data.resources import require
from beam_cifar.errors import JobError

GB = 1 << 30
URN = "beam_cifar:environment:process:v1"
AGAIN = 0.2
"""Seconds between answers to what the runner asks a worker that has ended."""


@dataclass
class _Workers:
    """The worker processes of one job, and why the first of them ended, if it did so by itself."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    lost: JobError | None = None

    def lose(self, code: int) -> None:
        """Ends all workers because one of them has ended."""
        self.lost = self.lost or _lost(code)
        for process in self.processes:
            process.kill()


_JOBS: dict[bytes, _Workers] = {}
"""By the payload of their environment: Beam passes nothing else on to its workers' handlers."""


class LocalRunner(fn_runner.FnApiRunner):
    """Beam's local runner, with the worker processes of this module."""

    def run_via_runner_api(self, pipeline_proto: Any, options: Any) -> Any:
        """Runs a pipeline. Raises `JobError` if a worker process was killed, or no threads can be had."""
        direct = options.view_as(DirectOptions)
        if direct.direct_running_mode == "in_memory":
            require(threads=8, advice="raise the limit")
        else:
            # Two workers have 57 threads, of 8 MB of stack and up to 64 MB of heap each. The runner waits for ever for
            # one that could not be started.
            count = direct.direct_num_workers
            require(space=GB, threads=16 + 24 * count, advice="use --workers 1, or raise the limit")
        job, found = uuid.uuid4().bytes, _Workers()
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.urn, environment.payload = URN, job
        _JOBS[job] = found
        try:
            return super().run_via_runner_api(pipeline_proto, options)
        except Exception as error:
            if found.lost:
                raise found.lost from error
            raise
        finally:
            del _JOBS[job]


@worker_handlers.WorkerHandler.register_environment(URN, bytes)
class _WorkerProcess(worker_handlers.GrpcWorkerHandler):
    """One worker process."""

    def __init__(self, job: bytes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._workers, self._stopped = _JOBS[job], threading.Event()

    def start_worker(self) -> None:
        # As `sdk_worker_main` reads them.
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.control_api_service_descriptor()),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        command = [sys.executable, "-m", "beam_cifar.pipeline.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environment})
        self._workers.processes.append(self._process)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._stopped.set()
        if self.control_conn._futures_by_id:  # the job has failed elsewhere, and nobody wants the rest
            self._process.kill()
        super().close()

    def stop_worker(self) -> None:
        self._watcher.join()

    def _watch(self) -> None:
        """Waits for the process to end; unless it was stopped, answers for it until it is."""
        with self._process:
            code = self._process.wait()
        if self._stopped.is_set():
            return
        self._workers.lose(code)
        answer = beam_fn_api_pb2.InstructionResponse(error=str(self._workers.lost))
        while not self._stopped.wait(AGAIN):
            for future in list(self.control_conn._futures_by_id.values()):
                future.set(answer)


def _lost(code: int) -> JobError:
    if code >= 0:
        return JobError(f"a worker process ended by itself, with exit code {code}; pass -v to see what it printed")
    why = ", probably because memory ran out; use fewer --workers" if code == -signal.SIGKILL else ""
    return JobError(f"a worker process was killed by signal {-code}{why}")
