"""What a Beam job server can be asked before a job is sent to it."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from beam_cifar.errors import JobError

SECONDS = 10.0
"""How long a job server may take to answer; Beam itself waits five minutes for one that is not there."""


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
            told = service.DescribePipelineOptions(request, timeout=SECONDS)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise JobError(
            f"--job_endpoint {endpoint}: no Beam job server answers there; start it, or correct it"
        ) from error
    return [f"--{option.name}" for option in told.options]
