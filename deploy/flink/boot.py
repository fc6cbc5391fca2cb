"""Starts a worker where no container does: what the PROCESS environment of Beam's portable runners runs.

The runner calls `boot.py --id=ID --provision_endpoint=HOST:PORT`. It asks that endpoint what to do, installs what the
client has sent along (`--setup_file`, `--extra_package`, `--requirements_file`), and becomes Beam's own worker. The
file stands alone: it needs a Python with Beam, not this package, which may come with the job.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

WORKER = "apache_beam.runners.worker.sdk_worker_main"
WORKFLOW = "workflow.tar.gz"
REQUIREMENTS = "requirements.txt"
EXTRA_PACKAGES = "extra_packages.txt"
"""Names that Beam's stager gives to what `--setup_file` and the others stand for."""

FOLDER_VARIABLE = "BEAM_CIFAR_BOOT_DIR"
KEPT_SECONDS = 3600


def main(argv: Sequence[str] | None = None) -> None:
    """Never returns: the process becomes the worker."""
    parser = argparse.ArgumentParser(prog="boot.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--id", required=True, help="of the worker")
    parser.add_argument("--provision_endpoint", required=True, help="HOST:PORT that says what to do")
    arguments, _ = parser.parse_known_args(argv)
    _without_beam()
    info = provision(arguments.provision_endpoint, arguments.id)
    os.environ.update(environment(info, arguments.id))
    python = sys.executable
    if packages := staged_packages(info, arguments.id):
        folder = installed(packages)
        python = os.path.join(folder, "bin", "python")
        os.environ["SEMI_PERSISTENT_DIRECTORY"] = folder
    os.execv(python, [python, "-m", WORKER])


def _without_beam() -> None:
    """Lets the messages of Beam be imported without Beam itself, which takes seconds, and is imported by the worker."""
    spec = importlib.util.find_spec("apache_beam")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit(f"boot.py: {sys.executable} has no apache_beam; install it, in the version of the client")
    package = types.ModuleType("apache_beam")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["apache_beam"] = package


def provision(endpoint: str, worker: str) -> Any:
    """What the runner says of the job: endpoints, options and files that were sent along."""
    import grpc  # type: ignore[import-untyped]
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return service.GetProvisionInfo(request, metadata=[("worker_id", worker)], timeout=60).info


def environment(info: Any, worker: str) -> dict[str, str]:
    """The variables by which Beam's worker is told."""
    from google.protobuf import json_format

    told = {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options, indent=None),
        "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(info.control_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.HasField("status_endpoint"):
        told["STATUS_API_SERVICE_DESCRIPTOR"] = _descriptor(info.status_endpoint)
    return told


def _descriptor(endpoint: Any) -> str:
    from apache_beam.portability.api import endpoints_pb2
    from google.protobuf import text_format

    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=endpoint.url)))


# --- what was sent along ----------------------------------------------------------------------------------------------


def staged_packages(info: Any, worker: str) -> dict[str, bytes]:
    """The files that were sent to be installed, by name; empty if there is nothing to install."""
    if not info.dependencies:
        return {}
    import grpc
    from apache_beam.portability.api import beam_artifact_api_pb2, beam_artifact_api_pb2_grpc

    endpoint = info.artifact_endpoint.url
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        told = {"metadata": [("worker_id", worker)], "timeout": 600}
        request = beam_artifact_api_pb2.ResolveArtifactsRequest(artifacts=info.dependencies)
        found = {}
        for artifact in service.ResolveArtifacts(request, **told).replacements:
            name = _staged_name(artifact)
            if name.startswith("submission_environment"):  # a list for the log
                continue
            wanted = beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
            found[name] = b"".join(answer.data for answer in service.GetArtifact(wanted, **told))
    return found if found.keys() & {WORKFLOW, REQUIREMENTS, EXTRA_PACKAGES} else {}


def _staged_name(artifact: Any) -> str:
    from apache_beam.portability.api import beam_runner_api_pb2

    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
    return os.path.basename(str(payload.staged_name))


def installed(packages: dict[str, bytes]) -> str:
    """The folder of an environment that has the packages on top of this one's; workers with equal ones share it."""
    home = os.environ.get(FOLDER_VARIABLE) or os.path.join(tempfile.gettempdir(), f"beam_cifar-boot-{os.getuid()}")
    os.makedirs(home, mode=0o700, exist_ok=True)
    status = os.lstat(home)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SystemExit(f"boot.py: {home} is not a folder of this user's; set {FOLDER_VARIABLE} to one")
    remove_old(home)
    digest = hashlib.sha256(f"{sys.executable}{sys.version}".encode())
    for name in sorted(packages):
        digest.update(name.encode() + b"\0" + hashlib.sha256(packages[name]).digest())
    folder = os.path.join(home, digest.hexdigest()[:24])
    lock = os.open(folder + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not os.path.exists(os.path.join(folder, "complete")):
        install(packages, folder)
    os.utime(folder)
    # Held, shared, for as long as the worker lives: the process stays the same.
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)
    return folder


def remove_old(home: str) -> None:
    """Removes environments that no worker uses, and none has used for an hour."""
    for entry in os.listdir(home):
        folder = os.path.join(home, entry)
        if not re.fullmatch(r"[0-9a-f]{24}", entry) or not os.path.isdir(folder):
            continue  # not one of ours
        with suppress(OSError), open(folder + ".lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.path.getmtime(folder) > KEPT_SECONDS:
                # The lock stays: another worker may wait for it.
                shutil.rmtree(folder)


def install(packages: dict[str, bytes], folder: str) -> None:
    """Makes an environment that sees what this one has, and installs packages in it."""
    shutil.rmtree(folder, ignore_errors=True)
    staged = os.path.join(folder, "staged")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    os.makedirs(staged)
    for name, content in packages.items():
        with open(os.path.join(staged, name), "wb") as file:
            file.write(content)
    python = os.path.join(folder, "bin", "python")
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    seen = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    with open(os.path.join(place, "seen.pth"), "w") as file:
        file.write("\n".join(seen) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    if can_build():
        pip.append("--no-build-isolation")
    if REQUIREMENTS in packages:
        subprocess.run([*pip, "--find-links", staged, "-r", os.path.join(staged, REQUIREMENTS)], check=True)
    listed = packages.get(EXTRA_PACKAGES, b"").decode().splitlines()
    files = [os.path.join(staged, name) for name in (*listed, WORKFLOW) if name in packages]
    if files:
        # First what was sent, whatever version is there already; then only what it needs and is missing.
        subprocess.run([*pip, "--ignore-installed", "--no-deps", *files], check=True)
        subprocess.run([*pip, *files], check=True)
    with open(os.path.join(folder, "complete"), "w"):
        pass


def can_build() -> bool:
    """Whether the setuptools that are here can make wheels; if not, pip gets some that can."""
    try:
        major = int(version("setuptools").split(".")[0])
    except (PackageNotFoundError, ValueError):
        return False
    return major >= 77


if __name__ == "__main__":
    if not __package__:
        # Run as a file: modules beside it are no modules of their own.
        del sys.path[0]
    main()
