"""The same job on a real Flink cluster: JobManager, two TaskManagers, Beam's job server."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import clusters
import pytest
from clusters import PROJECT, Cluster, wait_for
from conftest import Run

from beam_cifar.sample import make_sample

pytestmark = pytest.mark.cluster

ANIMALS = ("--filter", '/item[annotation/label="dog" or annotation/label="cat" or annotation/label="ship"]')
JOBS = {
    "parquet": ("-f", "parquet"),
    "cifar": ("-f", "cifar", "--", "--save-images"),
    "cifar-selected": ("-f", "cifar", *ANIMALS, "--remap", "dog:pet", "--remap", "cat:pet", "--", "--save-images"),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with clusters.running() as found:
        yield found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60,000 images, as many as CIFAR-10 has."""
    return sample(tmp_path_factory, 60_000)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory, 3_000)


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """After every test no job runs on the cluster, and no worker."""
    yield
    assert wait_for(lambda: not cluster.active_jobs()), cluster.jobs()
    assert wait_for(lambda: not cluster.workers()), cluster.workers()


def sample(factory: pytest.TempPathFactory, images: int) -> Path:
    path = factory.mktemp("sample") / f"cifar10-{images}"
    make_sample(str(path), kind="cifar10", images=images, seed=1)
    return path


def arguments(source: Path, out: Path, what: tuple[str, ...], flags: list[str]) -> list[str]:
    """A command line; flags of Beam come before the `--` that a job may have."""
    end = what.index("--") if "--" in what else len(what)
    return ["convert", "-i", str(source), "-o", str(out), *what[:end], *flags, *what[end:]]


def assert_equal_trees(found: Path, expected: Path) -> None:
    """Outputs and the folders beside them hold the same files, byte for byte."""
    for suffix in ("", ".beam_cifar"):
        here, there = (Path(f"{path}{suffix}") for path in (found, expected))
        names = [sorted(str(path.relative_to(base)) for path in base.rglob("*")) for base in (here, there)]
        assert names[0] == names[1]
        files = [name for name in names[0] if (here / name).is_file()]
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


@pytest.mark.parametrize("name", JOBS)
def test_files_equal_those_of_a_local_run_at_any_parallelism(
    name: str, cluster: Cluster, large: Path, run: Run, tmp_path: Path
) -> None:
    local = run(*arguments(large, tmp_path / "local", JOBS[name], []))
    assert local.returncode == 0, local.stderr
    for parallelism in (1, 2):
        out = tmp_path / f"flink-{parallelism}"
        done = run(*arguments(large, out, JOBS[name], cluster.flags(parallelism)))
        assert done.returncode == 0, done.stderr
        assert_equal_trees(out, tmp_path / "local")


def test_folders_of_images_equal_those_of_a_local_run(cluster: Cluster, small: Path, run: Run, tmp_path: Path) -> None:
    assert run("convert", "-i", small, "-f", "imagenet", "-o", "local").returncode == 0
    done = run("convert", "-i", small, "-f", "imagenet", "-o", "flink", *cluster.flags())
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "flink", tmp_path / "local")


def test_flink_runner_starts_a_job_server_of_its_own(cluster: Cluster, small: Path, run: Run, tmp_path: Path) -> None:
    assert run("convert", "-i", small, "-f", "parquet", "-o", "local").returncode == 0
    done = run("convert", "-i", small, "-f", "parquet", "-o", "flink", *cluster.flink_runner_flags(1))
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "flink", tmp_path / "local")


def test_two_jobs_at_once_do_not_meet(cluster: Cluster, small: Path, run: Run, tmp_path: Path) -> None:
    assert run("convert", "-i", small, "-f", "parquet", "-o", "local").returncode == 0
    started = [start("convert", "-i", small, "-f", "parquet", "-o", tmp_path / n, *cluster.flags(1)) for n in "ab"]
    for name, process in zip("ab", started, strict=True):
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        assert_equal_trees(tmp_path / name, tmp_path / "local")


def test_code_that_is_sent_along_is_what_runs(cluster: Cluster, small: Path, run: Run, tmp_path: Path) -> None:
    """The workers' Python has Beam, and not this package."""
    wheel, boot = build_wheel(tmp_path), bare_boot(tmp_path)
    env = {"BEAM_CIFAR_BOOT_DIR": str(tmp_path / "boot")}
    command = ("convert", "-i", small, "-f", "parquet", "-o")
    assert run(*command, "local").returncode == 0
    done = run(*command, "out", *cluster.flags(1, boot, env), f"--extra_package={wheel}")
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "out", tmp_path / "local")
    done = run(*command, "by-setup", *cluster.flags(1, boot, env), f"--setup_file={copied_project(tmp_path)}/setup.py")
    assert done.returncode == 0, done.stderr
    assert_equal_trees(tmp_path / "by-setup", tmp_path / "local")


def test_a_damaged_image_comes_back_as_its_line(cluster: Cluster, small: Path, run: Run, tmp_path: Path) -> None:
    assert run("convert", "-i", small, "-f", "imagenet", "-o", "folder").returncode == 0
    image = sorted((tmp_path / "folder").rglob("*.png"))[1500]
    image.write_bytes(image.read_bytes()[:200])
    done = run("convert", "-i", "folder", "-f", "cifar", "-o", "out", *cluster.flags(1), "--", "--save-images")
    assert_one_line(done, 3, image.name, "cut short")
    assert_nothing_of(tmp_path / "out")


def test_input_that_workers_cannot_open_comes_back_as_its_line(
    cluster: Cluster, small: Path, run: Run, tmp_path: Path
) -> None:
    """The launcher sees a file that the workers do not: one behind its own /proc entry."""
    batch = small / "data_batch_2"
    with batch.open("rb") as file:
        folder = tmp_path / "set"
        folder.mkdir()
        for path in small.iterdir():
            os.link(path, folder / path.name)
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
        ("--job_endpoint=127.0.0.1:1", 1, "no Beam job server answers"),
    ],
)
def test_wrong_flags_are_one_line(
    flag: str, exit_code: int, told: str, cluster: Cluster, small: Path, run: Run, tmp_path: Path
) -> None:
    done = run("convert", "-i", small, "-f", "parquet", "-o", "out", *cluster.flags(1), flag)
    assert_one_line(done, exit_code, told)
    assert_nothing_of(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_client_cancels_the_job_and_leaves_nothing(
    number: signal.Signals, cluster: Cluster, large: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "out", set(cluster.jobs())
    process = start("convert", "-i", large, "-f", "imagenet", "-o", out, *cluster.flags())
    try:
        assert wait_for(lambda: list(tmp_path.glob("out.beam_cifar/work-*/scratch/*"))), cluster.jobs()
        process.send_signal(number)
        _, said = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "beam-cifar: error: interrupted"
    assert [state for job, state in cluster.jobs().items() if job not in before] == ["CANCELED"]
    assert wait_for(lambda: not cluster.workers())
    assert_nothing_of(out)


def test_stop_ends_workers_in_the_middle_of_a_job(large: Path, tmp_path: Path) -> None:
    with clusters.started(CLUSTER_TASKMANAGERS=1) as own:
        process = start("convert", "-i", large, "-f", "imagenet", "-o", tmp_path / "out", *own.flags(1))
        try:
            assert wait_for(lambda: list(tmp_path.glob("out.beam_cifar/work-*/scratch/*")))
            workers = own.workers()
            assert workers
            taskmanager = own.taskmanagers()["taskmanager-1"]
            assert own.stop().returncode == 0
            assert not any(is_alive(pid) for pid in (*workers, taskmanager))
            process.communicate(timeout=90)
            assert process.returncode == 1
        finally:
            process.kill()


def test_a_port_in_use_is_one_line_and_nothing_is_started(cluster: Cluster, tmp_path: Path) -> None:
    port = cluster.job_endpoint.rpartition(":")[2]
    ports = dict(zip(clusters.PORTS, map(str, clusters.free_ports(4)), strict=True))
    settings = {**os.environ, **ports, "CLUSTER_RUN": str(tmp_path), "CLUSTER_JOB_PORT": port}
    done = clusters.script("start", settings)
    assert done.returncode == 1
    assert done.stderr == (
        f"cluster.sh: port {port} is in use; end what listens there, or set CLUSTER_JOB_PORT to a free one\n"
    )
    assert not list(tmp_path.glob("*.pid"))


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "beam_cifar", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def copied_project(folder: Path) -> Path:
    """The files that a source distribution is made of, so that building leaves nothing in the project."""
    copy = folder / "project"
    if not copy.exists():
        copy.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "beam_cifar", "*.py", "*.md",
             "*.txt", "*.toml", "MANIFEST.in", "LICENSE"],
            cwd=PROJECT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if name.startswith(("tests/", "benchmarks/")) or not (PROJECT / name).exists():
                continue
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((PROJECT / name).read_bytes())
    return copy


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, copied_project(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("beam_cifar-*.whl"))


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
    boot.write_bytes((PROJECT / "beam_cifar" / "boot.py").read_bytes())
    program = folder / "boot.sh"
    program.write_text(f'#!/bin/sh\nexec "{python}" "{boot}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_the_cluster_file_says_what_runs(cluster: Cluster) -> None:
    assert len(cluster.taskmanagers()) == json.loads((cluster.folder / "cluster.json").read_text())["taskmanagers"]
    assert cluster.rest("/overview")["taskmanagers"] == len(cluster.taskmanagers())
