"""The same job on a real Flink cluster: JobManager, two TaskManagers, Beam's job server."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
import pytest

from beam_cifar import Example, ReadExamples, WriteExamples, make_sample
from tests.helpers import ROOT, clusters
from tests.helpers.clusters import Cluster, wait_for
from tests.helpers.commands import Run
from tests.helpers.object_stores import ELSEWHERE, S3Server, moto_server
from tests.helpers.reading import tree
from tests.pipeline.test_dead_letters import check_damaged, make_damaged

__all__ = ["moto_server"]

Local = Callable[[str, str], Path]

ANIMALS = ("--filter", '/item[annotation/label="dog" or annotation/label="cat" or annotation/label="ship"]')
JOBS = {
    "parquet": ("-f", "parquet"),
    "cifar": ("-f", "cifar", "--", "--save-images"),
    "cifar-selected": ("-f", "cifar", *ANIMALS, "--remap", "dog:pet", "--remap", "cat:pet", "--", "--save-images"),
    "imagenet": ("-f", "imagenet"),
}
SIZES = {"small": 3_000, "middle": 30_000, "large": 60_000}
"""Images of the samples; CIFAR-10 has as many as the large one."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Errors of the data come back after all restarts.
    with clusters.running(CLUSTER_RESTART_ATTEMPTS=1, CLUSTER_RESTART_DELAY="2 s") as found:
        yield found


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the samples that are named in `SIZES`."""
    folder = tmp_path_factory.mktemp("samples")
    for name, images in SIZES.items():
        make_sample(str(folder / name), kind="cifar10", images=images, seed=1)
    return folder


@pytest.fixture(scope="module")
def local(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """What local runs write, by sample and name of the job, each once."""
    folder = tmp_path_factory.mktemp("local")

    def converted(source: str, job: str) -> Path:
        out = folder / f"{source}-{job}"
        if not out.exists():
            command = arguments(samples / source, out, JOBS[job], [])
            subprocess.run([sys.executable, "-m", "beam_cifar", *command], check=True, capture_output=True)
        return out

    return converted


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """After every test no job runs on the cluster, and no worker; what a failed one left does not harm the next."""
    yield
    try:
        assert wait_for(lambda: not cluster.active_jobs(), 20), cluster.jobs()
        assert wait_for(lambda: not cluster.workers(), 20), cluster.workers()
    finally:
        cluster.cancel_all()


def arguments(source: object, out: object, what: tuple[str, ...], flags: list[str]) -> list[str]:
    """A command line; flags of Beam come before the `--` that a job may have."""
    end = what.index("--") if "--" in what else len(what)
    return ["convert", "-i", str(source), "-o", str(out), *what[:end], *flags, *what[end:]]


def assert_equal_trees(found: Path, expected: Path) -> None:
    """Outputs and the folders beside them hold the same files, byte for byte."""
    for suffix in ("", ".beam_cifar"):
        here, there = (Path(f"{path}{suffix}") for path in (found, expected))
        names = [sorted(str(path.relative_to(base)) for path in base.rglob("*")) for base in (here, there)]
        assert names[0] == names[1]
        files = [name for name in names[0] if (here / name).is_file() and not name.startswith("inputs-")]
        assert files
        assert filecmp.cmpfiles(here, there, files, shallow=False)[1:] == ([], [])


def assert_one_line(done: subprocess.CompletedProcess[str], exit_code: int, *told: str) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("beam-cifar: note:")]
    assert done.returncode == exit_code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("beam-cifar: error: ")
    for text in told:
        assert text in lines[0]


def assert_nothing_of(out: Path) -> None:
    assert [path.name for path in out.parent.glob(f"{out.name}*")] == []


@pytest.mark.parametrize(
    ("source", "job", "parallelism"),
    [("large", "parquet", 1), ("large", "parquet", 2), ("large", "cifar", 2), ("middle", "cifar-selected", 2),
     ("small", "imagenet", 2)],
)  # fmt: skip
def test_files_equal_those_of_a_local_run(
    source: str, job: str, parallelism: int, cluster: Cluster, samples: Path, local: Local, run: Run, tmp_path: Path
) -> None:
    done = run(*arguments(samples / source, tmp_path / "out", JOBS[job], cluster.flags(parallelism)))
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "out", local(source, job))


def test_flink_runner_starts_a_job_server_of_its_own(
    cluster: Cluster, samples: Path, local: Local, run: Run, tmp_path: Path
) -> None:
    done = run("convert", "-i", samples / "small", "-f", "parquet", "-o", "out", *cluster.flink_runner_flags(1))
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "out", local("small", "parquet"))


def test_two_jobs_at_once_do_not_meet(cluster: Cluster, samples: Path, local: Local, tmp_path: Path) -> None:
    jobs = [arguments(samples / "small", tmp_path / name, JOBS["parquet"], cluster.flags(1)) for name in "ab"]
    with started(*jobs[0]) as first, started(*jobs[1]) as second:
        for process in (first, second):
            _, said = process.communicate(timeout=180)
            assert process.returncode == 0, said
    for name in "ab":
        assert_equal_trees(tmp_path / name, local("small", "parquet"))


@pytest.mark.parametrize("told_by", ["flags", "environment"])
def test_s3_to_s3_reads_each_input_once_and_writes_what_a_local_run_writes(
    told_by: str, cluster: Cluster, samples: Path, local: Local, moto_server: S3Server, run: Run, tmp_path: Path
) -> None:
    """Workers find the store by Beam's flags alone, or by variables alone that `--environment_config` sets for them."""
    bucket = moto_server.make_bucket()
    moto_server.upload_tree(samples / "middle", f"{bucket}/in")
    with moto_server.behind_proxy() as (server, proxy):
        if told_by == "flags":
            flags, environment = [*cluster.flags(2), *server.beam_flags], without_stores(server)
        else:
            flags, environment = cluster.flags(2, env=server.environment), server.programs_environment()
        done = run(*arguments(f"{bucket}/in", f"{bucket}/out", JOBS["parquet"], flags), env=environment)
        assert done.returncode == 0, done.stderr
        read = proxy.by_object("GET")
    print(proxy.describe())
    for path in (samples / "middle").glob("*_batch*"):
        assert read[f"{bucket}/in/{path.name}"].received <= 1.1 * path.stat().st_size
    moto_server.download_tree(f"{bucket}/out", tmp_path / "out")
    moto_server.download_tree(f"{bucket}/out.beam_cifar", tmp_path / "out.beam_cifar")
    assert_equal_trees(tmp_path / "out", local("middle", "parquet"))
    assert moto_server.pending_uploads(bucket) == []


@pytest.mark.parametrize("sent_by", ["--extra_package", "--setup_file"])
def test_code_that_is_sent_along_is_what_runs(
    sent_by: str, cluster: Cluster, samples: Path, local: Local, run: Run, tmp_path: Path
) -> None:
    """The workers' Python has Beam, and not this package."""
    project = copied_project(tmp_path)
    sent = f"{project}/setup.py" if sent_by == "--setup_file" else build_wheel(project, tmp_path)
    env = {"BEAM_CIFAR_BOOT_DIR": str(tmp_path / "boot")}
    flags = [*cluster.flags(1, bare_boot(tmp_path), env), f"{sent_by}={sent}"]
    done = run(*arguments(samples / "small", tmp_path / "out", JOBS["parquet"], flags))
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "out", local("small", "parquet"))


def test_a_damaged_image_comes_back_as_its_line(cluster: Cluster, local: Local, run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(local("small", "imagenet"), tmp_path / "folder")
    image = sorted(folder.rglob("*.png"))[1500]
    image.write_bytes(image.read_bytes()[:200])
    done = run("convert", "-i", "folder", "-f", "cifar", "-o", "out", *cluster.flags(1), "--", "--save-images")
    assert_one_line(done, 3, image.name, "truncated")
    assert_nothing_of(tmp_path / "out")


def test_input_that_workers_cannot_open_comes_back_as_its_line(
    cluster: Cluster, samples: Path, run: Run, tmp_path: Path
) -> None:
    """The launcher sees a file that the workers do not: one behind its own /proc entry."""
    folder = shutil.copytree(samples / "small", tmp_path / "set", copy_function=os.link)
    batch = samples / "small" / "data_batch_2"
    with batch.open("rb") as file:
        (folder / batch.name).unlink()
        (folder / batch.name).symlink_to(f"/proc/self/fd/{file.fileno()}")
        done = run("convert", "-i", folder, "-f", "parquet", "-o", "out", *cluster.flags(1), pass_fds=[file.fileno()])
    assert_one_line(done, 3, "data_batch_2")
    assert_nothing_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("flag", "exit_code", "told"),
    [
        ("--parallelizm=2", 2, "did you mean --parallelism"),
        ("--parallelism=two", 2, "--parallelism"),
        ("--execution_mode_for_batch=BOTH", 1, "BOTH"),
        ("--object_reuze", 2, "did you mean --object_reuse"),
        ("--no_such_thing=1", 2, "unknown flag --no_such_thing"),
        ("--job_endpoint=127.0.0.1:1", 1, "no Beam job server is responding"),
    ],
)
def test_wrong_flags_are_one_line(
    flag: str, exit_code: int, told: str, cluster: Cluster, samples: Path, run: Run, tmp_path: Path
) -> None:
    done = run("convert", "-i", samples / "small", "-f", "parquet", "-o", "out", *cluster.flags(1), flag)
    assert_one_line(done, exit_code, told)
    assert_nothing_of(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_client_cancels_the_job_and_leaves_nothing(
    number: signal.Signals, cluster: Cluster, samples: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "out", set(cluster.jobs())
    with started(*arguments(samples / "large", out, JOBS["imagenet"], cluster.flags())) as process:
        assert wait_for(lambda: list(tmp_path.glob("out.beam_cifar/work-*/tree/*"))), cluster.jobs()
        process.send_signal(number)
        _, said = process.communicate(timeout=90)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "beam-cifar: error: interrupted"
    assert [state for job, state in cluster.jobs().items() if job not in before] == ["CANCELED"]
    assert wait_for(lambda: not cluster.workers())
    assert_nothing_of(out)


def test_stop_ends_workers_in_the_middle_of_a_job(samples: Path, tmp_path: Path) -> None:
    with clusters.started(CLUSTER_TASKMANAGERS=1) as own:
        command = arguments(samples / "large", tmp_path / "out", JOBS["imagenet"], own.flags(1))
        with started(*command) as process:
            assert wait_for(lambda: list(tmp_path.glob("out.beam_cifar/work-*/tree/*")))
            workers = own.workers()
            assert workers
            taskmanager = own.taskmanagers()["taskmanager-1"]
            assert own.stop().returncode == 0
            assert not any(is_alive(pid) for pid in (*workers, taskmanager))
            process.communicate(timeout=90)
            assert process.returncode == 1


def test_a_port_in_use_is_one_line_and_nothing_is_started(cluster: Cluster, tmp_path: Path) -> None:
    port = cluster.job_endpoint.rpartition(":")[2]
    ports = dict(zip(clusters.PORTS, map(str, clusters.free_ports(4)), strict=True))
    settings = {**os.environ, **ports, "CLUSTER_RUN": str(tmp_path), "CLUSTER_JOB_PORT": port}
    done = clusters.script("start", settings)
    assert done.returncode == 1
    assert done.stderr == (
        f"cluster.sh: port {port} is in use; stop what listens there, or set CLUSTER_JOB_PORT to a free port\n"
    )
    assert not list(tmp_path.glob("*.pid"))


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process that ends with the test."""
    line = [sys.executable, "-m", "beam_cifar", *command]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def copied_project(folder: Path) -> Path:
    """The files that a source distribution is made of, so that building leaves nothing in the project."""
    copy = folder / "project"
    copy.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "beam_cifar", "*.py", "*.md",
         "*.txt", "*.toml", "MANIFEST.in", "LICENSE"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def build_wheel(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(project)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("beam_cifar-*.whl"))


def without_stores(server: S3Server) -> dict[str, str]:
    """The environment of a program that is told of no store."""
    return {name: value for name, value in os.environ.items() if name not in {*ELSEWHERE, *server.environment}}


def bare_boot(folder: Path) -> str:
    """A boot program whose Python sees the libraries that are installed here, and not this package."""
    python = folder / "bare" / "bin" / "python"
    venv.create(folder / "bare", symlinks=True)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (place,) = (folder / "bare").glob("lib/python*/site-packages")
    (place / "libraries.pth").write_text("\n".join(libraries) + "\n")
    found = subprocess.run([python, "-c", "import apache_beam, beam_cifar"], capture_output=True, text=True, cwd=folder)
    assert "No module named 'beam_cifar'" in found.stderr
    boot = folder / "boot.py"
    boot.write_bytes((ROOT / "deploy" / "flink" / "boot.py").read_bytes())
    program = folder / "boot.sh"
    program.write_text(f'#!/bin/sh\nexec "{python}" "{boot}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_the_cluster_file_says_what_runs(cluster: Cluster) -> None:
    assert len(cluster.taskmanagers()) == json.loads((cluster.folder / "cluster.json").read_text())["taskmanagers"]
    assert cluster.rest("/overview")["taskmanagers"] == len(cluster.taskmanagers())


def test_a_pipeline_of_ones_own_sets_bad_rows_aside_and_writes_several_formats(
    cluster: Cluster, samples: Path, local: Local, tmp_path: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    check_damaged(make_damaged(tmp_path / "damaged"), tmp_path, beam.Pipeline(argv=cluster.flags()))
    source = ReadExamples(samples / "middle")
    with beam.Pipeline(argv=cluster.flags()) as line:
        _ = line | source | WriteExamples(tmp_path / "both", ["parquet", "imagenet"], source.labels)
    for name in ("parquet", "imagenet"):
        assert tree(tmp_path / "both" / name) == tree(local("middle", name))


class _FailsOnce(beam.DoFn):
    """Hands examples on; the first worker that gets to the given row fails there, once."""

    def __init__(self, marker: Path, row: int) -> None:
        self._marker, self._row, self._rows = str(marker), row, 0

    def process(self, example: Example) -> Iterator[Example]:
        self._rows += 1
        if self._rows == self._row:
            try:
                os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                raise RuntimeError("this worker ends here, once")
        yield example


def test_a_step_that_fails_once_and_is_run_again_writes_nothing_twice(
    cluster: Cluster, samples: Path, local: Local, tmp_path: Path
) -> None:
    source = ReadExamples(samples / "middle")
    with beam.Pipeline(argv=cluster.flags(2)) as line:
        failing = line | source | beam.ParDo(_FailsOnce(tmp_path / "failed", 1_000))
        _ = failing | WriteExamples(tmp_path / "out", "parquet", source.labels)
    assert (tmp_path / "failed").exists()
    assert tree(tmp_path / "out") == tree(local("middle", "parquet"))
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.beam_cifar"]
