"""Object store settings from Beam's pipeline options, which reach both the workers and the launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from beam_cifar import storage


def use_options(options: PipelineOptions | None = None) -> None:
    """Makes object stores use the settings in pipeline options.

    Args:
        options: options of the job; default: those that Beam gives to its own file systems, as on a worker.
    """

    def settings(scheme: str) -> Mapping[str, Any]:
        found = options or FileSystems._pipeline_options
        return {} if found is None else SETTINGS[scheme](found)

    storage.use_settings(settings)


def _of_s3(options: PipelineOptions) -> Mapping[str, Any]:
    """Returns arguments for boto3's client from those `--s3_...` flags that were passed."""
    given = options.view_as(S3Options)
    named = {
        "aws_access_key_id": given.s3_access_key_id,
        "aws_secret_access_key": given.s3_secret_access_key,
        "aws_session_token": given.s3_session_token,
        "endpoint_url": given.s3_endpoint_url,
        "region_name": given.s3_region_name,
        "api_version": given.s3_api_version,
        "verify": given.s3_verify,
        "use_ssl": False if given.s3_disable_ssl else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _of_gcs(options: PipelineOptions) -> Mapping[str, Any]:
    """Returns credentials as Beam finds them, including impersonation; none for an emulator."""
    given = options.view_as(GoogleCloudOptions)
    if os.environ.get("STORAGE_EMULATOR_HOST") or not given.impersonate_service_account:
        return {"project": given.project} if given.project else {}
    from apache_beam.internal.gcp.auth import get_service_credentials

    found = get_service_credentials(options)
    return {"credentials": found.get_google_auth_credentials(), "project": given.project}


SETTINGS = {"s3": _of_s3, "gs": _of_gcs}
"""Functions that turn pipeline options into client settings, for each store in `storage.stores.CLIENTS`."""

use_options()
