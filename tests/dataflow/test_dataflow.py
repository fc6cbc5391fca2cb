"""Dataflow, as far as it goes without it: jobs are translated, by Beam's own runner, and what it would send is read."""

from __future__ import annotations

import base64
import bz2
import functools
import json
import os
import pickletools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from beam_cifar import ConvertOptions, ReadExamples, WriteExamples, convert, make_sample
from beam_cifar.analysis import reading as one_reading
from beam_cifar.analysis.tally import Asked
from beam_cifar.errors import UsageError
from beam_cifar.filters.selection import Selection
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.options import Input
from beam_cifar.pipeline import convert as line
from beam_cifar.pipeline import each_block as measurement
from beam_cifar.pipeline.runners import pipeline_options
from beam_cifar.planning.cut import reading_tasks
from beam_cifar.planning.plan import Origin
from beam_cifar.planning.summaries import learn_parents
from beam_cifar.planning.survey import find_catalog, survey
from tests.helpers import ROOT

DEPLOY = ROOT / "deploy" / "dataflow"
IMAGE = "images.example.com/my-project/beam-cifar:1"
PLACE = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=us-central1",
    "--temp_location=gs://my-bucket/tmp",
]
FLAGS = [*PLACE, "--dry_run=True", f"--sdk_container_image={IMAGE}"]
# Whatever asked the network would fail at once; no credentials are found.
OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    "GCE_METADATA_HOST": "127.0.0.1:9",
    "GOOGLE_APPLICATION_CREDENTIALS": "",
}
MAX_GRAPH = 10 << 20
BEAMS_OWN = re.compile(r"(Parts|Copies|SpreadParts|SpreadCopies)(/|$)")


def offline(home: Path) -> dict[str, str]:
    return {**os.environ, **OFFLINE, "HOME": str(home)}


def translated(source: Path, output: Path, *flags: str, **options: Any) -> Any:
    """Beam's job, with the pipeline as it would be sent to Dataflow."""
    _, result = line.translate(ConvertOptions(str(source), str(output), "parquet", **options), [*FLAGS, *flags])
    return result.job


@pytest.fixture
def job(cifar10: Path, tmp_path: Path) -> Any:
    """A job that selects, renames and resizes."""
    chosen: dict[str, Any] = {"labels": ("cat", "dog"), "remaps": ("cat:dog",), "resize": (16, 16)}
    return translated(cifar10, tmp_path / "out", **chosen)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What pipelines return that are run from now on."""
    seen: list[Any] = []
    run = beam.Pipeline.run

    def remembered(pipeline: beam.Pipeline, *arguments: Any) -> Any:
        seen.append(run(pipeline, *arguments))
        return seen[-1]

    monkeypatch.setattr(beam.Pipeline, "run", remembered)
    return seen


def pardos(proto: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, transform and payload of every ParDo."""
    for transform in proto.components.transforms.values():
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            yield transform.unique_name, transform, payload


def names(proto: Any) -> set[str]:
    return {transform.unique_name for transform in proto.components.transforms.values()}


def block_collections(proto: Any) -> list[str]:
    """Ids of the collections that `BlockCoder` guards."""
    coders = {key for key, coder in proto.components.coders.items() if b"BlockCoder$" in coder.spec.payload[:40]}
    return [key for key, each in proto.components.pcollections.items() if each.coder_id in coders]


def fused(proto: Any) -> list[set[str]]:
    """Names of the transforms of each stage, fused by the rules that all runners share."""
    copy = beam_runner_api_pb2.Pipeline.FromString(proto.SerializeToString())
    _, stages = translations.create_and_optimize_stages(
        copy,
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.expand_gbk,
            translations.sink_flattens,
            translations.greedily_fuse,
        ],
        known_runner_urns=frozenset([common_urns.primitives.FLATTEN.urn, common_urns.primitives.GROUP_BY_KEY.urn]),
    )
    return [{transform.unique_name for transform in stage.transforms} for stage in stages]


def test_a_dry_run_says_that_nothing_was_run_and_touches_nothing(cifar10: Path, run: Any, tmp_path: Path) -> None:
    arguments = ["-i", cifar10, "-f", "parquet", "-o", tmp_path / "new/out", *FLAGS]
    done = run("convert", *arguments, env=offline(tmp_path))
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert re.fullmatch(r"translated the job for Dataflow, without running it: 2 tasks, [0-9,]+ bytes\n", done.stdout)
    assert not list(tmp_path.iterdir())
    told = run("convert", *arguments, "--json", env=offline(tmp_path))
    assert json.loads(told.stdout)["translated"] is True


def test_a_dry_run_notes_what_would_keep_the_job_from_running(cifar10: Path, run: Any, tmp_path: Path) -> None:
    done = run("convert", "-i", cifar10, "-f", "parquet", "-o", "out", *PLACE, "--dry_run=True", env=offline(tmp_path))
    assert done.returncode == 0
    assert f"{cifar10}: DataflowRunner workers cannot access local paths; use gs://" in done.stderr
    assert "lack beam_cifar; pass an image that has it with --sdk_container_image" in done.stderr


def test_local_paths_are_refused_before_anything_is_planned(cifar10: Path, run: Any, tmp_path: Path) -> None:
    done = run("convert", "-i", cifar10, "-f", "parquet", "-o", "out", *PLACE, env=offline(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"beam-cifar: error: {cifar10}: DataflowRunner workers cannot access local paths; use gs://\n"
    )


def test_a_dry_run_refuses_what_the_job_would(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(Exception, match="exists and is not empty"):
        translated(cifar10, tmp_path / "out")
    assert translated(cifar10, tmp_path / "out", overwrite=True).proto_pipeline
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--dry_run=True"], "--dry_run: not supported by the local runner; use --plan"),
        (["--dry_run=True", "--runner=FlinkRunner"], "--dry_run: not supported by FlinkRunner; use --plan"),
        ([*PLACE[:1], *PLACE[2:]], "needs --project"),
        (PLACE[:3], "needs --temp_location=gs://BUCKET/FOLDER, found None"),
        ([*PLACE[:3], "--temp_location=gs://x/tmp"], "needs --temp_location=gs://BUCKET/FOLDER, found 'gs://x/tmp'"),
        ([*PLACE, "--staging_location=/tmp/here"], "needs --staging_location=gs://BUCKET/FOLDER"),
        ([*PLACE, "--worker=2"], "unknown flag --worker"),
        ([*PLACE, "--runner=DataflowRuner"], "--runner DataflowRuner"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(flags: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline_options(flags, None, ["--workers"])
    assert str(caught.value).startswith(expected) or expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_call_that_would_wait_for_a_dry_run_is_refused(cifar10: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing would run, so there is no output to return"):
        convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet"), FLAGS)
    with pytest.raises(UsageError, match="needs --dry_run"):
        line.translate(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet"), PLACE)
    assert not list(tmp_path.iterdir())


def test_the_steps_have_their_names(job: Any) -> None:
    steps = {name for name in names(job.proto_pipeline) if "/" not in name and not name.startswith("ref_")}
    assert steps == {
        *("Parts", "SpreadParts", "ReadBlocks", "SelectRows", "RemapLabels", "Pixels1-resize", "EncodeImages"),
        *("WriteBlocks", "AllParts", "Publish"),
    }


def test_blocks_stay_in_one_stage(job: Any) -> None:
    proto = job.proto_pipeline
    stages = [stage for stage in fused(proto) if any("ReadBlocks" in name for name in stage)]
    assert len(stages) == 1
    for step in ("SelectRows", "RemapLabels", "Pixels1-resize", "EncodeImages", "WriteBlocks", "Publish/KeyByShard"):
        assert any(name.startswith(step) for name in stages[0]), step
    assert not any(name.startswith("Publish/Finish") for name in stages[0])


def test_nothing_but_plain_steps_takes_blocks(job: Any) -> None:
    """No GroupByKey, Reshuffle, Flatten, side input, state or second consumer between reading and writing."""
    proto = job.proto_pipeline
    blocks = block_collections(proto)
    assert len(blocks) == 5
    plain = {name: (transform, payload) for name, transform, payload in pardos(proto)}
    for collection in blocks:
        leaves = [
            each.unique_name
            for each in proto.components.transforms.values()
            if collection in each.inputs.values() and not each.subtransforms
        ]
        assert len(leaves) == 1
        transform, payload = plain[leaves[0]]
        assert len(transform.inputs) == 1
        assert not [*payload.side_inputs, *payload.state_specs, *payload.timer_family_specs]
    environments = {plain[name][0].environment_id for name in plain}
    assert len(environments) == 1, "a resource hint gives a step an environment of its own"


def test_workers_can_load_every_step(job: Any, tmp_path: Path) -> None:
    """In a process that knows nothing of this one, and without the command line's modules."""
    found = {}
    for name, _, payload in pardos(job.proto_pipeline):
        found[name] = base64.b64encode(payload.do_fn.payload).decode()
        raw = bz2.decompress(base64.b64decode(payload.do_fn.payload))
        texts = [str(argument) for _, argument, _ in pickletools.genops(raw) if isinstance(argument, str)]
        assert not [text for text in texts if "__main__" in text], name
        if not BEAMS_OWN.match(name):
            assert "_make_skeleton_class" not in texts, f"{name}: a class travels by value"
    (tmp_path / "steps.json").write_text(json.dumps(found))
    program = """
import base64, json, sys
from apache_beam.internal import pickler
for name, text in json.load(open("steps.json")).items():
    pickler.loads(base64.b64decode(text))
assert not [name for name in sys.modules if name.startswith("beam_cifar.cli")], "workers need the command line"
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_program_that_was_started_is_not_sent(job: Any) -> None:
    (environment,) = job.proto_pipeline.components.environments.values()
    assert environment.urn == common_urns.environments.DOCKER.urn
    assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
    staged = [
        beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(each.role_payload).staged_name
        for each in environment.dependencies
    ]
    assert staged == ["submission_environment_dependencies.txt"]


def test_options_reach_the_description_of_the_workers(cifar10: Path, tmp_path: Path) -> None:
    """Every option of docs/dataflow.md, as Beam writes it down for Dataflow."""
    from apache_beam.runners.dataflow.internal import apiclient

    flags = [
        *("--machine_type=n2-standard-4", "--max_num_workers=20", "--num_workers=2", "--disk_size_gb=50"),
        *(
            "--number_of_worker_harness_threads=1",
            "--no_use_public_ips",
            "--subnetwork=regions/us-central1/subnetworks/s",
        ),
        "--service_account_email=beam-cifar@my-project.iam.gserviceaccount.com",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
    ]
    job = translated(cifar10, tmp_path / "out", *flags)
    made = apiclient.Environment(
        proto_pipeline_staged_url="gs://my-bucket/tmp/pipeline.pb",
        packages=[],
        options=job.options,
        environment_version="8",
        proto_pipeline=job.proto_pipeline,
    ).proto
    (pool,) = made.worker_pools
    assert (pool.machine_type, pool.num_workers, pool.disk_size_gb) == ("n2-standard-4", 2, 50)
    assert pool.autoscaling_settings.max_num_workers == 20
    assert pool.num_threads_per_worker == 1
    assert pool.ip_configuration.name == "WORKER_IP_PRIVATE"
    assert pool.subnetwork == "regions/us-central1/subnetworks/s"
    assert [image.container_image for image in pool.sdk_harness_container_images] == [IMAGE]
    assert made.service_account_email == "beam-cifar@my-project.iam.gserviceaccount.com"
    assert "use_multiple_sdk_containers" in made.experiments


def test_the_job_grows_little_with_the_input(tmp_path: Path) -> None:
    """Dataflow refuses a job of more than 10 MB."""
    make_sample(str(tmp_path / "small"), kind="cifar10", images=12, seed=1)
    sizes = {}
    for files in (60, 600):
        folder = tmp_path / f"of-{files}"
        folder.mkdir()
        (folder / "batches.meta").hardlink_to(tmp_path / "small/batches.meta")
        for number in range(1, files + 1):
            (folder / f"data_batch_{number}").hardlink_to(tmp_path / "small/data_batch_1")
        proto = translated(folder, tmp_path / "out").proto_pipeline
        sizes[files] = proto.ByteSize()
    assert sizes[60] < 50_000
    assert (sizes[600] - sizes[60]) / 540 < 150, "bytes a file; 70,000 files of 150 bytes are what Dataflow takes"


def test_pipelines_over_single_images_translate(cifar10: Path, tmp_path: Path, results: list[Any]) -> None:
    source = ReadExamples(str(cifar10))
    pipeline = beam.Pipeline(argv=[*FLAGS, "--no_save_main_session"])
    _ = pipeline | source | WriteExamples(str(tmp_path / "out"), "parquet", source.labels)
    pipeline.run()
    result = results[-1]
    proto = result.job.proto_pipeline
    expected = {"Write/KeepExamples", "Write/parquet/WriteParts", "Write/parquet/Publish"}
    assert {f"WriteExamples/{name}" for name in expected} <= names(proto)
    assert len(block_collections(proto)) == 1
    stages = [stage for stage in fused(proto) if any("ReadBlocks" in name for name in stage)]
    assert len(stages) == 1
    assert any(name.startswith("ReadExamples/Explode") for name in stages[0])


def test_the_pipeline_of_stats_translates(cifar10: Path, tmp_path: Path, results: list[Any]) -> None:
    found = survey(str(cifar10), None, (), str(tmp_path))
    labels = learn_parents(find_catalog(str(cifar10), None, str(tmp_path)), found.summaries)
    files = tuple(summary.file for summary in found.summaries)
    source = SourceSettings((Origin("cifar", labels),), files, Selection(labels.names))
    settings = one_reading.TallySettings(source, labels, Asked(), str(tmp_path / "tallies"))
    tally = functools.partial(one_reading.write_tally, settings=settings)
    measurement.for_each_block(
        tally, reading_tasks(found.summaries), source, pipeline_options(FLAGS, None), settings.guard
    )
    result = results[-1]
    assert {"ReadBlocks", "TallyBlocks"} <= {name.partition("/")[0] for name in names(result.job.proto_pipeline)}
    assert not (tmp_path / "tallies").exists()


def test_stats_and_diff_do_not_run_there(cifar10: Path) -> None:
    with (
        pytest.raises(UsageError, match="does not support DataflowRunner"),
        one_reading.measured(Input(str(cifar10)), Asked(), beam_options=FLAGS),
    ):
        pass


def parameters() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "metadata.json").read_text())["parameters"]
    return found


def test_the_templates_metadata_is_what_dataflow_reads() -> None:
    """By the service's own message types: an unknown field or type is refused."""
    from google.cloud.dataflow_v1beta3.types import TemplateMetadata

    read = TemplateMetadata.from_json((DEPLOY / "metadata.json").read_text(), ignore_unknown_fields=False)
    assert read.name == "beam_cifar"
    assert all(each.name and each.label and each.help_text for each in read.parameters)
    for each in parameters():
        example = each["helpText"].rpartition("Example: ")[2]
        for pattern in each.get("regexes", ()):
            assert re.fullmatch(pattern, example), each["name"]


def test_the_launcher_takes_what_the_template_gives(cifar10: Path, tmp_path: Path) -> None:
    given = {
        **{"input_path": str(cifar10), "output_dir": str(tmp_path / "out"), "output_format": "parquet"},
        **{"sdk_container_image": IMAGE, "arguments": "--label cat --remap 'cat:a pet'"},
        "number_of_worker_harness_threads": "1",
    }
    assert set(given) == {each["name"] for each in parameters()}
    flags = [f"--{name}={value}" for name, value in given.items()] + [*PLACE, "--job_name=j", "--dry_run=True"]
    launcher = [sys.executable, str(DEPLOY / "launcher.py"), *flags]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, env=offline(tmp_path), timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"launcher: {tmp_path / 'out'}: 2 tasks" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_launcher_ends_with_one_line(tmp_path: Path) -> None:
    flags = ["--input_path=/nowhere", f"--output_dir={tmp_path / 'out'}", "--output_format=parquet", *FLAGS]
    launcher = [sys.executable, str(DEPLOY / "launcher.py"), *flags]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, env=offline(tmp_path), timeout=120)
    assert done.returncode == 3
    assert "launcher: error: /nowhere: no such file or directory\n" in done.stderr


def docker_lines() -> list[list[str]]:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]


def test_what_the_image_is_made_of_is_there_and_not_ignored() -> None:
    top = DEPLOY.parent.parent
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for word, *rest in docker_lines():
        if word == "COPY" and not rest[0].startswith("--from"):
            for path in rest[:-1]:
                assert (top / path).exists(), path
                assert path in kept, path


def test_the_image_has_the_tested_versions_and_only_beams_own_start() -> None:
    from apache_beam import __version__ as version

    lines = docker_lines()
    assert ["FROM", f"apache/beam_python3.11_sdk:{version}"] in lines
    assert f"apache-beam=={version}" in (DEPLOY.parent.parent / "requirements-dataflow.txt").read_text()
    assert lines[-1] == ["ENTRYPOINT", "[/opt/apache/beam/boot]"]
    assert not [line for line in lines if line[0] == "CMD"]


def test_every_option_of_the_page_is_one_that_beam_knows(cifar10: Path, tmp_path: Path) -> None:
    page = (DEPLOY.parent.parent / "docs/dataflow.md").read_text()
    table = page.partition("## Options")[2].partition("\n## ")[0]
    flags = re.findall(r"^\| `--([a-z_]+)", table, re.MULTILINE)
    assert len(flags) > 10
    known = pipeline_options(FLAGS, None).get_all_options(drop_default=False)
    turned = {"no_use_public_ips": "use_public_ips"}
    assert [flag for flag in flags if turned.get(flag, flag) not in known] == []
