"""A training job on the cluster, and what it leaves behind."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from fasttrain.observe import journal
from tests.distributed.endings import ENDLESS
from tests.distributed.launching import ROOT
from tests.slurm.cluster import Cluster

STEPS = 600
SETTINGS = {
    **ENDLESS,
    "data": {**ENDLESS["data"], "validation": 10_000 - 12 * 150},
    "train": {**ENDLESS["train"], "epochs": STEPS // 150},
}


class Job:
    """One submitted job; `folder` is where it was submitted, `run` is its run's."""

    def __init__(self, cluster: Cluster, folder: Path, number: str, run: str | None) -> None:
        self._cluster, self.folder, self.number = cluster, folder, number
        self.run = folder / (run or f"runs/fasttrain-{number}")

    @property
    def log(self) -> str:
        file = self.folder / f"fasttrain-{self.number}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def shown(self, key: str) -> str:
        """What `scontrol show job` says of it, such as its `JobState`."""
        about = self._cluster.run("scontrol", "--oneliner", "show", "job", self.number)
        found = re.search(rf"(?:^|\s){key}=(\S*)", about)
        assert found is not None, about
        return found[1]

    def limit(self, minutes: int) -> None:
        """Have its time end so many minutes after now, or a little earlier."""
        hours, passed, _ = (int(part) for part in self.shown("RunTime").split(":"))
        limit = hours * 60 + passed + minutes
        self._cluster.run("scontrol", "update", f"JobId={self.number}", f"TimeLimit={limit}")

    def wait_until_trained(self, steps: int = 50) -> None:
        self._cluster.wait_until(lambda: self.steps() >= steps, lambda: self.log)

    def wait_until_said(self, words: str) -> None:
        self._cluster.wait_until(lambda: words in self.log, lambda: self.log)

    def wait_until_ended(self) -> str:
        """Until it has left the queue; return its last state."""
        squeue = ("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", self.number)
        going = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "PREEMPTED")
        self._cluster.wait_until(
            lambda: self._cluster.run(*squeue).strip() not in going, lambda: self.log
        )
        return self.shown("JobState")

    def steps(self) -> int:
        """The last step that the journal holds."""
        records = journal.read(self.run / "metrics.jsonl")
        return records[-1]["step"] if records else 0

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, by rank."""
        found = {}
        for process in psutil.process_iter():
            try:
                if str(self.folder) == process.cwd() and "fasttrain" in process.cmdline()[:4]:
                    found[int(process.environ()["RANK"])] = process
            except (OSError, KeyError, psutil.Error):
                continue
        return [found[rank] for rank in sorted(found)]

    @contextmanager
    def held(self) -> Iterator[list[psutil.Process]]:
        """Hold training still in its middle, whatever the speed of the machine; yield the ranks.

        What is sent to them meanwhile arrives at the end.
        """
        self.wait_until_trained()
        ranks = self.ranks()
        assert len(ranks) == 2
        for rank in ranks:
            rank.suspend()
        try:
            yield ranks
        finally:
            for rank in ranks:
                try:
                    rank.send_signal(signal.SIGCONT)
                except psutil.NoSuchProcess:
                    continue


def submit(
    cluster: Cluster,
    folder: Path,
    *settings: str,
    options: tuple[str, ...] = (),
    run: str | None = None,
) -> Job:
    """Submit the project's own script as a user does, for two nodes."""
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(json.dumps(SETTINGS))  # JSON is YAML, too
    if not (folder / "launch").exists():
        (folder / "launch").symlink_to(ROOT / "launch")
    number = cluster.run(
        "sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", *options,
        "launch/slurm/train.sbatch", "run.yaml", *settings,
        cwd=folder, VENV=sys.prefix, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT),
        **({"RUN_DIR": run} if run else {}),
    ).strip()  # fmt: skip
    return Job(cluster, folder, number, run)


def end(run: Path) -> dict[str, Any]:
    """All by which two runs are the same: weights, and every loss with its batches."""
    records = journal.read(run / "metrics.jsonl")
    outcome = json.loads((run / "outcome.json").read_text())
    return {
        "outcome": (outcome["outcome"], outcome["exit_code"]),
        "finished": (run / "result.json").exists(),
        "weights": (run / f"checkpoints/step-{STEPS:08}/model.safetensors").read_bytes(),
        "journal": [
            (one["step"], one["loss"], one["batches"]) for one in records if one["kind"] == "train"
        ],
    }
