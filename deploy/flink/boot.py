"""Starts a worker without a container: the command for the PROCESS environment of Beam's portable runners.

The runner calls `boot.py --id=ID --provision_endpoint=HOST:PORT`. It asks that endpoint what to do, installs the
packages sent by the client (`--setup_file`, `--extra_package`, `--requirements_file`), and becomes Beam's own worker.
The file is self-contained: it needs a Python with Beam, but not this package, which may come with the job.
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
"""Names that Beam's stager gives to the files from `--setup_file` and the other flags."""

FOLDER_VARIABLE = "BEAM_CIFAR_BOOT_DIR"
KEPT_SECONDS = 3600


def main(argv: Sequence[str] | None = None) -> None:
    """Becomes the worker process; never returns."""
    parser = argparse.ArgumentParser(prog="boot.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--id", required=True, help="id of the worker")
    parser.add_argument("--provision_endpoint", required=True, help="HOST:PORT of the runner's provision service")
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
    """Makes Beam's protobuf modules importable without importing Beam, which takes seconds; the worker imports it."""
    spec = importlib.util.find_spec("apache_beam")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit(f"boot.py: {sys.executable} has no apache_beam; install the same version as the client")
    package = types.ModuleType("apache_beam")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["apache_beam"] = package


def provision(endpoint: str, worker: str) -> Any:
    """Returns what the runner says about the job: endpoints, options, and files sent by the client."""
    import grpc  # type: ignore[import-untyped]
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return service.GetProvisionInfo(request, metadata=[("worker_id", worker)], timeout=60).info


def environment(info: Any, worker: str) -> dict[str, str]:
    """Returns the environment variables that configure Beam's worker."""
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


# --- packages sent by the client -------------------------------------------------------------------------------------


def staged_packages(info: Any, worker: str) -> dict[str, bytes]:
    """Returns the files to install, by name; empty if there is nothing to install."""
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
            if name.startswith("submission_environment"):  # a list of packages, only for the log
                continue
            wanted = beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
            found[name] = b"".join(answer.data for answer in service.GetArtifact(wanted, **told))
    return found if found.keys() & {WORKFLOW, REQUIREMENTS, EXTRA_PACKAGES} else {}


def _staged_name(artifact: Any) -> str:
    from apache_beam.portability.api import beam_runner_api_pb2

    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
    return os.path.basename(str(payload.staged_name))


def installed(packages: dict[str, bytes]) -> str:
    """Returns the folder of a virtual environment with the packages added; workers with equal packages share it."""
    home = os.environ.get(FOLDER_VARIABLE) or os.path.join(tempfile.gettempdir(), f"beam_cifar-boot-{os.getuid()}")
    os.makedirs(home, mode=0o700, exist_ok=True)
    status = os.lstat(home)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SystemExit(f"boot.py: {home} is not a folder owned by this user; set {FOLDER_VARIABLE} to one that is")
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
    # A shared lock, held as long as the worker lives: exec keeps the process and its descriptors.
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock, True)
    return folder


def remove_old(home: str) -> None:
    """Removes environments that no worker has used for an hour."""
    for entry in os.listdir(home):
        folder = os.path.join(home, entry)
        if not re.fullmatch(r"[0-9a-f]{24}", entry) or not os.path.isdir(folder):
            continue  # not one of ours
        with suppress(OSError), open(folder + ".lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.path.getmtime(folder) > KEPT_SECONDS:
                # The lock file stays: another worker may be waiting for it.
                shutil.rmtree(folder)


def install(packages: dict[str, bytes], folder: str) -> None:
    """Creates an environment that can import everything from this one, and installs packages in it."""
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
        # First the packages sent, whatever versions are installed already; then only missing dependencies.
        subprocess.run([*pip, "--ignore-installed", "--no-deps", *files], check=True)
        subprocess.run([*pip, *files], check=True)
    with open(os.path.join(folder, "complete"), "w"):
        pass


def can_build() -> bool:
    """Returns whether the installed setuptools can build wheels; if not, pip downloads one that can."""
    try:
        major = int(version("setuptools").split(".")[0])
    except (PackageNotFoundError, ValueError):
        return False
    return major >= 77


if __name__ == "__main__":
    if not __package__:
        # Run as a script: files next to it must not shadow modules.
        del sys.path[0]
    main()
