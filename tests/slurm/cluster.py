"""A Slurm cluster of two nodes on this machine, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
NODES = ("n1", "n2")
PATIENCE = 150  # seconds: a guard against a hang, and no measure of speed

# Two of the lines make tests quick: a requeued job waits for cred_expire, and for the scheduler.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 Gres=gpu:2
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why there can be no cluster here, or `None`."""
    absent = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
    if absent:
        return f"{', '.join(absent)} missing: apt-get install slurm-wlm munge"
    return "Slurm's daemons need root" if os.geteuid() else None


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


class Cluster:
    """The daemons and the user's commands.

    Args:
        folder: Where all of it lives; a short path, since it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "PATH": _path(),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "FASTTRAIN_CACHE": str(folder / "cache"),
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[Cluster]:
        """Start the daemons, and end them and all jobs in any case."""
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        self.folder.joinpath("slurm.conf").write_text(
            CONFIG.format(folder=self.folder, host=host, ports=_free_ports(3), nodes=NODES)
        )
        # GPUs in name only: by them a job decides how many processes it starts.
        devices = "".join(f"Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
        self.folder.joinpath("gres.conf").write_text(devices)
        try:
            parts = ("key-file", "socket", "pid-file", "log-file", "seed-file")
            at = [f"--{part}={self.folder}/munge.{part.partition('-')[0]}" for part in parts]
            self.run("munged", "--force", *at)
            self.run("slurmctld", "-c")
            for node in NODES:
                self.run("slurmd", "-N", node)
            self.wait_until(lambda: self._idle() == len(NODES))
            yield self
        finally:
            self._stop()

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> str:
        """Run one of Slurm's commands; return what it printed."""
        ended = subprocess.run(
            words, cwd=cwd, env={**self._environment, **environment}, check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def wait_until(self, happened: Callable[[], bool], about: Callable[[], str] = str) -> None:
        """Wait; after `PATIENCE` fail with what `about` says and the controller's log."""
        end = time.monotonic() + PATIENCE
        while not happened():
            log = self.folder / "slurmctld.log"
            assert time.monotonic() < end, about() + log.read_text()[-3000:]
            time.sleep(0.1)

    def _idle(self) -> int:
        return self.run("sinfo", "--noheader", "--Node", "--partition=low", "-o", "%T").count(
            "idle"
        )

    def _stop(self) -> None:
        with contextlib.suppress(AssertionError):
            self.run("scancel", "--user=root", "--signal=KILL")
            self.run("scancel", "--user=root")
            self.run("scontrol", "shutdown")
        for file in (*self.folder.glob("*.pid"), self.folder / "munge.pid"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                daemon = psutil.Process(int(file.read_text()))
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except psutil.TimeoutExpired:
                    daemon.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
