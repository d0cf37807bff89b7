"""The cluster that the tests share, and the run that nothing disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.jobs import end, submit


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")).running() as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    job = submit(cluster, tmp_path_factory.mktemp("undisturbed"))
    assert job.wait_until_ended() == "COMPLETED", job.log
    return {**end(job.run), "job": job}
