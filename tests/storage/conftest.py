"""The object stores that tests of this folder run on."""

from __future__ import annotations

import pytest

from tests.helpers.object_stores import ALL, S3, S3Server, Server, fake_gcs_server, minio_server, moto_server

__all__ = ["fake_gcs_server", "minio_server", "moto_server"]


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=S3)
def s3(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found
