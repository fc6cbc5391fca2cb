"""What a job on a cluster needs beside Beam: the flags that its job server knows, and an end together with us."""

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
"""How long an interrupted job may take to end on its cluster."""

ANSWER_SECONDS = 10.0
"""How long a job server may take to answer; Beam itself waits five minutes for one that is not there."""

ENDED = ("FINISHED", "CANCELED", "FAILED")


def server_flags(options: PipelineOptions) -> list[str] | None:
    """The flags that the job server of `--job_endpoint` knows; None where there is none to ask.

    Raises:
        JobError: it does not answer.
    """
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
            f"--job_endpoint {endpoint}: no Beam job server answers there; start it, or correct it"
        ) from error
    return [f"--{option.name}" for option in told.options]


@contextmanager
def cancelled_with_us(result: PipelineResult, options: PipelineOptions) -> Iterator[None]:
    """While a job is waited for: an interrupt ends it as well; without this it would go on, and publish.

    It returns when the cluster says that the job has ended, so that what it has staged can be removed.
    """
    try:
        yield
    except KeyboardInterrupt:
        with suppress(Exception):  # whatever is not there any more needs no cancelling
            cancel_on_flink(result, options)
        with suppress(Exception):
            result.cancel()
            _wait(lambda: PipelineState.is_terminal(result.state))
        raise


def cancel_on_flink(result: PipelineResult, options: PipelineOptions) -> None:
    """Cancels a job by Flink's REST interface, if `--flink_master` says where that is.

    Beam's job server calls a batch job cancelled at once, and leaves it running on Flink.
    """
    master = options.view_as(FlinkRunnerOptions).flink_master
    # The job server appends an id to the name under which Flink lists the job.
    name = str(getattr(result, "_job_id", "")).rpartition("_")[0]
    # "[auto]" and "[local]" name no cluster that could be asked.
    if not name or master.startswith("["):
        return
    base = master if "://" in master else f"http://{master}"
    for job in _ask(f"{base}/jobs/overview")["jobs"]:
        if job["name"] == name and job["state"] not in ENDED:
            url = f"{base}/jobs/{job['jid']}"
            _ask(f"{url}?mode=cancel", "PATCH")
            _wait(lambda url=url: _ask(url)["state"] in ENDED)
    # Workers outlive the job for as long as they are kept for the next one, and finish what they are at.
    time.sleep(options.view_as(PortableOptions).environment_cache_millis / 1000 + 1)


def _ask(url: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        return json.load(answer)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + CANCEL_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
