"""Jobs killed from outside at random moments of their lives, on this machine and on a Flink cluster (`make test-faults`)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import clusters
from tests.helpers.cluster_kills import KINDS, cluster_work, survive
from tests.helpers.kills import WORKS, Case, Samples, kill_and_finish, spread

IMAGES, ON_CLUSTER = 6_000, 20_000


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples.make(tmp_path_factory.mktemp("samples"), IMAGES)


@pytest.mark.parametrize("work", WORKS)
def test_a_killed_job_leaves_a_whole_output_or_none_and_ends_as_undisturbed(
    work: str, samples: Samples, tmp_path: Path
) -> None:
    case = Case.make(WORKS[work], samples, tmp_path / "case")
    for moments in spread(2, random.Random(work)):
        kill_and_finish(case, moments)


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[clusters.Cluster, Case]]:
    """A cluster, and a job that was run on it undisturbed."""
    with clusters.running() as cluster:
        place = tmp_path_factory.mktemp("cluster")
        samples = Samples.make(place, ON_CLUSTER)
        yield cluster, Case.make(cluster_work(cluster), samples, place / "case")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_on_a_cluster_survives(kind: str, on_cluster: tuple[clusters.Cluster, Case]) -> None:
    cluster, case = on_cluster
    for parts in (1, case.parts // 2):
        survive(kind, cluster, case, parts)
