"""`launch/slurm/train.sbatch` under a real Slurm: one run, whatever happens to its job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import NODES, Cluster
from tests.slurm.jobs import STEPS, Job, end, submit

pytestmark = pytest.mark.slurm


def assert_ended_as(undisturbed: dict[str, Any], job: Job, restarts: int) -> None:
    assert job.wait_until_ended() == "COMPLETED", job.log
    assert int(job.shown("Restarts")) == restarts, job.log
    ended = end(job.run)
    assert ended == {key: undisturbed[key] for key in ended}
    # The last epoch, once; of one that took long, as where the run was held, the log says more.
    last = f"epoch {STEPS // 150}/{STEPS // 150}  loss"
    lines = [line for line in job.log.splitlines() if line.startswith(last)]
    assert ["validation: " in line for line in lines].count(True) == 1, job.log


def test_a_plain_job_trains_on_two_nodes(cluster: Cluster, undisturbed: dict[str, Any]) -> None:
    job = undisturbed["job"]
    assert undisturbed["outcome"] == ("complete", 0)
    assert undisturbed["finished"]
    assert len(undisturbed["journal"]) == STEPS // 5
    assert json.loads((job.run / "environment.json").read_text())["launch"]["WORLD_SIZE"] == "2"
    again = submit(cluster, job.folder, run=str(job.run.relative_to(job.folder)))
    assert again.wait_until_ended() == "COMPLETED", again.log
    assert "is complete: nothing is left to do" in again.log


def test_a_requeued_job_goes_on(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path)
    with job.held():
        cluster.run("scontrol", "requeue", job.number)
    assert_ended_as(undisturbed, job, restarts=1)
    assert "goes on at step" in job.log


def test_a_job_at_its_time_limit_requeues_itself(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path, options=("--signal=B:USR1@20",))
    with job.held():
        job.limit(minutes=2)
        job.wait_until_said("the time is nearly up")
    job.wait_until_said("back into the queue")
    job.limit(minutes=60)  # the next start's: no second end on a slow machine
    assert_ended_as(undisturbed, job, restarts=1)
    assert "goes on at step" in job.log


def test_a_preempted_job_requeues_itself(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path)
    with job.held():
        cluster.run(
            "sbatch", "--partition=high", "--nodes=2", "--exclusive", "--wrap=true", cwd=tmp_path,
        )  # fmt: skip
        cluster.wait_until(lambda: job.shown("PreemptTime") != "None", lambda: job.log)
    job.wait_until_said("back into the queue")
    assert_ended_as(undisturbed, job, restarts=1)
    assert "goes on at step" in job.log


def test_a_cancelled_job_stays_so_and_its_run_can_go_on(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path, run="run")
    with job.held():
        cluster.run("scancel", job.number)
    assert job.wait_until_ended() == "CANCELLED"
    assert job.shown("Restarts") == "0"
    assert json.loads((job.run / "outcome.json").read_text())["outcome"] == "stopped"
    again = submit(cluster, tmp_path, run="run")
    assert_ended_as(undisturbed, again, restarts=0)
    assert "goes on at step" in again.log


def test_of_two_jobs_for_one_run_one_is_refused(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    first = submit(cluster, tmp_path, run="run")
    with first.held():
        second = submit(cluster, tmp_path, run="run")
        assert second.wait_until_ended() == "FAILED"
    assert (second.shown("ExitCode"), second.shown("Restarts")) == ("2:0", "0")
    assert "another process works on this run" in second.log
    assert_ended_as(undisturbed, first, restarts=0)


@pytest.mark.parametrize(
    ("setting", "option", "code", "said"),
    [
        ("data.batch_size=13", "--gpus-per-node=2", 2, "cannot be divided among 4 processes"),
        ("optim.lr=1e30", "--nodes=1", 3, "diverged"),
    ],
)
def test_what_would_end_in_the_same_way_is_not_tried_again(
    setting: str, option: str, code: int, said: str, cluster: Cluster, tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path, setting, options=(option,))
    assert job.wait_until_ended() == "FAILED"
    assert (job.shown("ExitCode"), job.shown("Restarts")) == (f"{code}:0", "0")
    assert said in job.log
    assert "a crash" not in job.log


@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_rank_was_killed_the_same_job_goes_on(
    rank: int, cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path)
    with job.held() as ranks:
        ranks[rank].kill()
    assert_ended_as(undisturbed, job, restarts=0)
    assert "a crash (exit code 1)" in job.log
    assert "goes on at step" in job.log


def test_a_job_that_lost_a_node_goes_on(
    cluster: Cluster, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path)
    node = f"NodeName={NODES[1]}"
    with job.held():
        cluster.run("scontrol", "update", node, "State=DOWN", "Reason=test")
    cluster.wait_until(lambda: job.shown("JobState") == "PENDING", lambda: job.log)
    cluster.run("scontrol", "update", node, "State=RESUME")
    assert_ended_as(undisturbed, job, restarts=1)
    assert "goes on at step" in job.log
