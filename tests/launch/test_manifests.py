"""Manifests, scripts and the container's recipe: valid, and in agreement with fasttrain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubeflow_trainer_api.models as trainer
import kubernetes_validate
import pytest
import yaml

from fasttrain.config import Train
from fasttrain.errors import DivergedError, StoppedError, UserError
from tests.distributed.launching import ROOT

LAUNCH = ROOT / "launch"
KUBERNETES = ("1.31", "1.37")  # the first that has all we use, and the newest that is published
SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch")])


def read(name: str) -> dict[str, dict[str, Any]]:
    """The documents of a manifest by their kind."""
    documents = yaml.safe_load_all((LAUNCH / "kubernetes" / name).read_text())
    return {document["kind"]: document for document in documents}


def runtime_job() -> dict[str, Any]:
    """What the TrainingRuntime starts, as a Job of its own."""
    runtime = read("trainjob.yaml")["TrainingRuntime"]
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]},
        "spec": job["template"]["spec"],
    }  # fmt: skip


JOBS = {"plain": read("job.yaml")["Job"], "trainer": runtime_job()}


def of_pod(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_follow_the_published_schemas(version: str) -> None:
    documents = [*yaml.safe_load_all((LAUNCH / "kubernetes/storage.yaml").read_text())]
    for document in (*documents, *read("job.yaml").values(), runtime_job()):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_key_is_noticed() -> None:
    job = read("job.yaml")["Job"]
    of_pod(job)["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("kind", ["TrainingRuntime", "TrainJob"])
def test_the_trainer_knows_every_key(kind: str) -> None:
    """Its published classes drop what they do not know."""
    document = read("trainjob.yaml")[kind]
    model = getattr(trainer, f"TrainerV1alpha1{kind}")
    assert model.from_dict(document).to_dict() == document
    document["spec"]["numNode"] = 1
    assert model.from_dict(document).to_dict() != document


@pytest.mark.parametrize("name", JOBS)
def test_exit_codes_mean_what_fasttrain_means(name: str) -> None:
    fail, ignore, disrupted = JOBS[name]["spec"]["podFailurePolicy"]["rules"]
    (container,) = of_pod(JOBS[name])["containers"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["values"] == [UserError.exit_code, DivergedError.exit_code]
    assert ignore["action"] == disrupted["action"] == "Ignore"
    assert ignore["onExitCodes"]["values"] == [StoppedError.exit_code]
    for rule in (fail, ignore):
        assert rule["onExitCodes"]["containerName"] == container["name"]
    assert of_pod(JOBS[name])["restartPolicy"] == "Never"  # a failure policy works with no other


@pytest.mark.parametrize("name", JOBS)
def test_there_is_time_for_a_checkpoint_and_for_a_slow_step(name: str) -> None:
    pod = of_pod(JOBS[name])
    (container,) = pod["containers"]
    granted = int(variables(container)["PET_SHUTDOWN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] >= granted + 30
    assert granted >= 60
    *script, minutes = container["livenessProbe"]["exec"]["command"]
    assert Train().watchdog is not None
    assert int(minutes) > Train().watchdog.value
    for words in (script, container["command"]):
        assert words[0] == "bash"
        assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("name", JOBS)
def test_every_mounted_volume_is_there(name: str) -> None:
    pod = of_pod(JOBS[name])
    (container,) = pod["containers"]
    claims = {
        one["metadata"]["name"]
        for one in yaml.safe_load_all((LAUNCH / "kubernetes/storage.yaml").read_text())
    }
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes.keys()
    claimed = [one["persistentVolumeClaim"] for one in pod["volumes"] if "emptyDir" not in one]
    assert {one["claimName"] for one in claimed} == claims
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_the_pods_of_the_plain_job_find_each_other() -> None:
    job, service = JOBS["plain"], read("job.yaml")["Service"]
    name = job["metadata"]["name"]
    assert of_pod(job)["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]  # the first is not ready before the others
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    (container,) = of_pod(job)["containers"]
    given = variables(container)
    assert given["MASTER_ADDR"] == f"{name}-0.{service['metadata']['name']}"
    assert job["spec"]["completionMode"] == "Indexed"
    assert int(given["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(given["PROCESSES"]) == container["resources"]["limits"]["nvidia.com/gpu"]


def test_the_trainjob_uses_the_runtime_and_all_gpus() -> None:
    documents = read("trainjob.yaml")
    runtime, spec = documents["TrainingRuntime"], documents["TrainJob"]["spec"]
    assert spec["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert spec["runtimeRef"]["kind"] == runtime["kind"]
    limits = spec["trainer"]["resourcesPerNode"]["limits"]
    assert spec["trainer"]["numProcPerNode"] == limits["nvidia.com/gpu"]
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    # The trainer fills in the container, and the job, of these names only.
    assert (job["name"], container["name"]) == ("node", "node")
    step = job["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"]
    assert step == "trainer"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    for tool in (["bash", "-n"], [Path(sys.executable).parent / "shellcheck"]):
        ended = subprocess.run([*tool, script], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_container_recipe_is_sound_and_copies_what_is_there() -> None:
    recipe = LAUNCH / "container" / "Dockerfile"
    hadolint = Path(sys.executable).parent / "hadolint"
    ended = subprocess.run([hadolint, recipe], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()}
    copies = [line.split() for line in recipe.read_text().splitlines() if line[:4] == "COPY"]
    for name in [name for words in copies for name in words[1:-1]]:
        assert (ROOT / name).exists()
        assert name in kept, f"{name} is not in the build's context"
