"""Settings of object stores from Beam's pipeline options, which reach workers as well as the launcher."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from beam_cifar import storage


def use_options(options: PipelineOptions | None = None) -> None:
    """Has stores reached as pipeline options say.

    Args:
        options: of the job; None for those that Beam gives its own file systems, which is what a worker has.
    """

    def settings(scheme: str) -> Mapping[str, Any]:
        found = options or FileSystems._pipeline_options
        return {} if found is None else SETTINGS[scheme](found)

    storage.use_settings(settings)


def _of_s3(options: PipelineOptions) -> Mapping[str, Any]:
    """Arguments of boto3's client for those of the flags `--s3_...` that were given."""
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
    """Credentials as Beam finds them, impersonation included; none for an emulator."""
    given = options.view_as(GoogleCloudOptions)
    if os.environ.get("STORAGE_EMULATOR_HOST") or not given.impersonate_service_account:
        return {"project": given.project} if given.project else {}
    from apache_beam.internal.gcp.auth import get_service_credentials

    found = get_service_credentials(options)
    return {"credentials": found.get_google_auth_credentials(), "project": given.project}


SETTINGS = {"s3": _of_s3, "gs": _of_gcs}
"""What the flags of each store of `beam_cifar.storage.stores.CLIENTS` mean to its library."""

use_options()
