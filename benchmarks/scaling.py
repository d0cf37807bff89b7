"""What more processes bring: images/s, bytes sent, and what that lets expect of a cluster.

Every process has one thread, a core for it, and the same share of the batch (weak scaling). Bytes
are those that crossed this machine's loopback while it trained; other traffic there would be
counted, too.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil
from rich.table import Table

from benchmarks.record import Outcome, put
from fasttrain.config import load
from fasttrain.errors import UserError
from fasttrain.observe import journal
from fasttrain.observe.folder import RunFolder

_LAUNCH = Path(__file__).parent.parent / "launch" / "accelerate" / "cpu.yaml"
_FLOAT = 4  # bytes of a gradient's element


@dataclass(frozen=True)
class Way:
    """So many processes, which exchange gradients in that arithmetic."""

    processes: int
    exchange: Literal["fp32", "bf16"] = "fp32"

    @property
    def name(self) -> str:
        """As it stands in tables."""
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return processes if self.exchange == "fp32" else f"{processes}, {self.exchange} gradients"

    @property
    def element(self) -> int:
        """Bytes of a gradient's element on its way."""
        return _FLOAT if self.exchange == "fp32" else 2


@dataclass(frozen=True)
class Link:
    """What one GPU can send, to its neighbours in a machine and to other machines.

    Attributes:
        name: What it is.
        inside: Bytes/s, each way, within a machine of eight.
        between: Bytes/s, each way, between machines.
        latency: Seconds for a message between machines.
    """

    name: str
    inside: float
    between: float
    latency: float


# Each way and GPU: NVLink 4 in a machine; one 400 Gbit/s adapter for each GPU, or one of 100 Gbit/s
# Ethernet for eight.
LINKS = (
    Link("NVLink and 8 x 400 Gbit/s InfiniBand", 450e9, 50e9, 5e-6),
    Link("NVLink and 1 x 100 Gbit/s Ethernet", 450e9, 12.5e9 / 8, 30e-6),
)
_IN_MACHINE = 8
_REACHED = 0.8  # of a link's speed: what large all-reduces reach in practice
_BACKWARD = 2 / 3  # of a step: while it lasts gradients are sent


def ring_bytes(gradient: int, world: int) -> float:
    """What every process of a ring all-reduce sends at least: 2 (n - 1) / n of the gradient.

    Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 69, 2009.
    """
    return 2 * (world - 1) / world * gradient


def expected_efficiency(step: float, gradient: int, world: int, link: Link) -> float:
    """Throughput of `world` GPUs over `world` times that of one, 0 to 1.

    Assumes one ring over all GPUs whose slowest link sets the pace; sending that goes on beside
    two thirds of a step, its backward pass, and delays the step by the rest; the same share of the
    batch on every GPU; no stragglers.

    Args:
        step: Seconds of one GPU's step.
        gradient: Bytes.
        world: GPUs.
        link: How they are joined.
    """
    if world == 1:
        return 1.0
    pace, wait = (link.inside, 0.0) if world <= _IN_MACHINE else (link.between, link.latency)
    machines = -(-world // _IN_MACHINE)
    sending = ring_bytes(gradient, world) / (_REACHED * pace) + 2 * (machines - 1) * wait
    return step / (step + max(0.0, sending - _BACKWARD * step))


def measure(
    config: Path, overrides: tuple[str, ...], processes: int, quick: bool, link: str | None = None
) -> Outcome:
    """Train for an epoch with 1 to that many processes in turn, several times over.

    With several, gradients go from one to the other as they are, and at half the bytes. A slow
    link can be tried on one machine, as root: `unshare -n` gives a network of one's own, and
    `tc qdisc add dev lo root tbf rate 100mbit burst 256kb latency 400ms` slows its loopback.
    """
    repetitions = 1 if quick else 5
    settings = load(config, overrides)
    share = settings.data.batch_size
    ways = [Way(1), *(Way(n, how) for n in range(2, processes + 1) for how in ("fp32", "bf16"))]
    runs: dict[str, list[float]] = {way.name: [] for way in ways}
    details: list[dict[str, Any]] = []
    for repetition in range(repetitions):
        for way in ways:
            result, sent = _train(config, overrides, way, share)
            runs[way.name].append(result["images_per_second"])
            gradient = way.element * result["parameters"]
            details.append(
                {
                    "repetition": repetition,
                    "way": way.name,
                    "processes": way.processes,
                    "parameters": result["parameters"],
                    "step_seconds": way.processes * share / result["images_per_second"],
                    "bytes_per_step": sent / way.processes,
                    "least_bytes_per_step": ring_bytes(gradient, way.processes),
                }
            )
    return Outcome(
        title=f"{settings.name}, processes of one thread, {share} pictures each"
        + (f", over {link}" if link else ""),
        unit="images/s",
        runs=runs,
        baseline=ways[0].name,
        settings=settings.model_dump(mode="json"),
        details=details,
    )


def _train(
    config: Path, overrides: tuple[str, ...], way: Way, share: int
) -> tuple[dict[str, Any], float]:
    """An epoch on this machine's processors: its result, and the bytes all sent in a step."""
    world = way.processes
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(_LAUNCH),
              "--num_processes", str(world), "--main_process_port", "0", "-m"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        command = [
            sys.executable, *(launch if world > 1 else ["-m"]), "fasttrain", "train", str(config),
            *overrides, f"data.batch_size={world * share}", f"train.exchange={way.exchange}",
            "train.epochs=1", "train.device=cpu", "train.log_every=5steps",
            "data.validation=0", "checkpoint.every=100%", "--run-dir", str(run.path),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FASTTRAIN_REPORT": "0"}
        with on_cores(world):
            trainer = subprocess.Popen(command, env=environment)  # noqa: S603 - our own command
        with trainer:
            sent = _bytes_per_step(run, trainer)
        if trainer.returncode:
            raise UserError(f"a run with {world} processes failed; what it said stands above")
        result: dict[str, Any] = json.loads(run.result.read_text())
        return result, sent


@contextmanager
def on_cores(number: int) -> Iterator[None]:
    """Confine what is started meanwhile to so many cores.

    Ranks share what they may use between them, whatever OMP_NUM_THREADS says: so each has one.
    """
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every, key=lambda core: (_is_second(core), core))[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _is_second(core: int) -> bool:
    """Whether it is another thread of a core with a smaller number, such as 1 of "0-1"."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    return siblings.exists() and not siblings.read_text().startswith(str(core))


def _bytes_per_step(run: RunFolder, trainer: subprocess.Popen[bytes]) -> float:
    """From the journal's first line on training to its last."""
    seen: list[tuple[int, int]] = []
    while trainer.poll() is None:
        lines = [one for one in journal.read(run.journal) if one["kind"] == "train"]
        if lines and (not seen or lines[-1]["step"] != seen[-1][0]):
            seen.append((lines[-1]["step"], _loopback()))
        time.sleep(0.05)
    if len(seen) < 2:
        return math.nan
    (first, before), (last, after) = seen[0], seen[-1]
    return (after - before) / (last - first)


def _loopback() -> int:
    """Bytes that crossed the loopback since the machine's start."""
    counters = psutil.net_io_counters(pernic=True)
    return counters["lo"].bytes_sent


def show_cluster(outcome: Outcome, step: float | None = None) -> None:
    """Print bytes against the least that a ring can do with, and what links allow to expect.

    Args:
        outcome: What `measure` found.
        step: Seconds of a GPU's step; by default what a step took here on one process.
    """
    details = outcome.details or []
    for way in dict.fromkeys(one["way"] for one in details if one["processes"] > 1):
        same = [one for one in details if one["way"] == way]
        sent, least = (median(one[key] for one in same)
                       for key in ("bytes_per_step", "least_bytes_per_step"))  # fmt: skip
        print(f"{way}: each sends {sent:,.0f} bytes a step, {sent / least:.3f} times "
              f"the least that a ring all-reduce can do with, {least:,.0f}")  # fmt: skip
    alone = [one for one in details if one["processes"] == 1]
    step = step or median(one["step_seconds"] for one in alone)
    gradient = _FLOAT * alone[0]["parameters"]
    table = Table(title=f"expected efficiency: a step of {1000 * step:.1f} ms, {gradient:,} bytes "
                  "of gradient", title_justify="left")  # fmt: skip
    table.add_column("GPUs", justify="right")
    for link in LINKS:
        table.add_column(link.name, justify="right")
    for world in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        shares = [f"{expected_efficiency(step, gradient, world, link):.1%}" for link in LINKS]
        table.add_row(str(world), *shares)
    put(table)
