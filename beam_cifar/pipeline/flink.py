"""Support for jobs on a cluster: the flags that a job server knows, and cancelling a job on interrupt."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_cifar.errors import JobError

CANCEL_SECONDS = 60.0
"""How long to wait for an interrupted job to end on its cluster."""

ANSWER_SECONDS = 10.0
"""How long to wait for a job server to answer; Beam itself waits five minutes if there is none."""

ENDED = ("FINISHED", "CANCELED", "FAILED")


def server_flags(options: PipelineOptions) -> list[str] | None:
    """Returns the flags that the job server knows, or None if there is no server to ask. Raises `JobError`."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return None
    import grpc  # type: ignore[import-untyped]
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    try:
        with grpc.insecure_channel(endpoint) as channel:
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            request = beam_job_api_pb2.DescribePipelineOptionsRequest()
            told = service.DescribePipelineOptions(request, timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise JobError(
            f"--job_endpoint {endpoint}: no Beam job server is responding; start it, or correct the address"
        ) from error
    return [f"--{option.name}" for option in told.options]


@contextmanager
def cancelled_with_us(result: PipelineResult, options: PipelineOptions) -> Iterator[None]:
    """Cancels the job if an interrupt arrives while waiting for it; otherwise it would continue, and publish.

    It returns when the cluster reports that the job has ended, so that its staged files can be removed.
    """
    try:
        yield
    except KeyboardInterrupt:
        with suppress(Exception):  # a job or cluster that is gone needs no cancelling
            cancel_on_flink(result, options)
        with suppress(Exception):
            result.cancel()
            _wait(lambda: PipelineState.is_terminal(result.state))
        raise


def cancel_on_flink(result: PipelineResult, options: PipelineOptions) -> None:
    """Cancels a job through Flink's REST API, if `--flink_master` gives its address.

    Beam's job server reports a batch job as cancelled at once, but leaves it running on Flink.
    """
    master = options.view_as(FlinkRunnerOptions).flink_master
    # The job server's id is the name under which Flink lists the job, plus a suffix.
    name = str(getattr(result, "_job_id", "")).rpartition("_")[0]
    # "[auto]" and "[local]" are not addresses of a cluster.
    if not name or master.startswith("["):
        return
    base = master if "://" in master else f"http://{master}"
    for job in _ask(f"{base}/jobs/overview")["jobs"]:
        if job["name"] == name and job["state"] not in ENDED:
            url = f"{base}/jobs/{job['jid']}"
            _ask(f"{url}?mode=cancel", "PATCH")
            _wait(lambda url=url: _ask(url)["state"] in ENDED)
    # Workers outlive the job while they are cached for the next one, and finish their current work.
    time.sleep(options.view_as(PortableOptions).environment_cache_millis / 1000 + 1)


def _ask(url: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        return json.load(answer)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + CANCEL_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
