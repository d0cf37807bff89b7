"""`fasttrain doctor --distributed`: do the processes of a launch reach each other, and fit?"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from fasttrain.config import Config, Duration, Train
from fasttrain.data import sources
from fasttrain.errors import LostPeerError, UserError
from fasttrain.launcher import check_processes
from fasttrain.observe.environment import installed_version
from fasttrain.runtime import Runtime
from fasttrain.training import agreement, parts
from fasttrain.training.agreement import Member
from fasttrain.watchdog import Watchdog

_DALI = "nvidia-dali-cuda130"
_SIZES = (1 << 16, 1 << 20, 1 << 24)  # bytes that are summed over the ranks
_REPEATS = 3
_SLOW_NETWORK = 100e6  # bytes/s: less than a Gigabit Ethernet carries
_SLOW_RANK = 0.5  # of the others' median
_CLOCKS_APART = 5.0  # seconds: the ages of heartbeats are told by other machines' clocks


@dataclass(frozen=True)
class Seen:
    """What one rank is and found.

    Attributes:
        member: What a run compares, too.
        device: Its name.
        backend: What carries sums.
        python: Version; likewise `torch` and `dali`.
        compiles: Whether steps are compiled.
        speed: Multiply-adds a second of a matrix product, in thousand millions.
        clock: Unix seconds, taken by all at about the same time.
        right: Whether every sum over the ranks was right.
        rates: Bytes/s of such a sum, for each size.
    """

    member: Member
    device: str
    backend: str
    python: str
    torch: str
    dali: str | None
    compiles: bool
    speed: float
    clock: float
    right: bool
    rates: list[float]


def examine(config: Config | None, timeout: float) -> tuple[Table | None, str | None]:
    """Look at all ranks from each of them.

    Args:
        config: Settings whose content, and whose data, are compared, too.
        timeout: Seconds that may pass without an answer.

    Returns:
        A table for the main rank to show; and what keeps a run from going on, in one line, on one
        rank of each machine, on the others an empty one.

    Raises:
        UserError: there is no launcher, or the others do not answer.
    """
    if not {"WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & set(os.environ):
        raise UserError(
            "doctor --distributed looks at the processes of a launch: start it with accelerate "
            "launch --config_file launch/accelerate/cpu.yaml -m fasttrain doctor --distributed, "
            "with the options of your run"
        )
    with tempfile.TemporaryDirectory() as aside:
        stacks = Path(aside) / "stacks.txt"
        with Watchdog(timeout + 5, stacks, lambda _: _give_up(timeout), halts=False) as watchdog:
            try:
                return _examine(config, timeout, watchdog)
            except LostPeerError as error:
                raise UserError(str(error)) from error


def _give_up(timeout: float) -> None:
    rank = os.environ.get("RANK", "0")
    line = f"fasttrain (rank {rank}): no answer from the other processes within {timeout:.0f} s"
    mend = "--timeout waits longer, where a data set is still being prepared"
    print(f"{line}; {mend}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(UserError.exit_code)


def _examine(
    config: Config | None, timeout: float, watchdog: Watchdog
) -> tuple[Table | None, str | None]:
    base = config.train if config else Train(precision="fp32")
    waits = Duration(value=timeout / 60, unit="min")
    runtime = Runtime(base.model_copy(update={"watchdog": waits}))
    # When the first rank leaves, its launcher ends the others, and one is still to say why.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with runtime.explain_losses():
            check_processes(base.processes, "train.processes", runtime.world)
            watchdog.alive()
            seen = runtime.collect(_look(config, runtime, watchdog.alive))
            wrong = _wrong(config, runtime, seen)
    finally:
        runtime.close()
    table = _table(seen, _warnings(seen)) if runtime.is_main else None
    return table, wrong if wrong is None or runtime.is_first_here else ""


def _look(config: Config | None, runtime: Runtime, alive: Callable[[], None]) -> Seen:
    data = problem = None
    if config is not None:
        try:
            parts.check_world(config, runtime.world)
            data = sources.open_dataset(config.data).digest
        except UserError as error:
            problem = str(error)
    speed = _speed(runtime)
    found = []
    for size in _SIZES:
        alive()
        found.append(_sum(runtime, size))
    clock = time.time()  # the last sum has brought them together
    gpu = runtime.device.type == "cuda"
    return Seen(
        agreement.member(runtime, config, data, problem=problem),
        torch.cuda.get_device_name(runtime.device) if gpu else f"cpu ({platform.machine()})",
        runtime.backend,
        platform.python_version(),
        torch.__version__,
        installed_version(_DALI),
        runtime.compile,
        speed,
        clock,
        all(right for right, _ in found),
        [rate for _, rate in found],
    )


def _sum(runtime: Runtime, size: int) -> tuple[bool, float]:
    """Whether a sum of `size` bytes over the ranks is right, and its bytes/s, by the median."""
    pattern = torch.arange(size // 4, device=runtime.device, dtype=torch.float32) % 1024
    expected = pattern * runtime.world + sum(range(runtime.world))
    right, seconds = True, []
    for _ in range(1 + _REPEATS):  # the first one opens connections
        values = pattern + runtime.rank
        runtime.synchronize()
        start = time.perf_counter()
        runtime.sum(values)
        runtime.synchronize()
        seconds.append(time.perf_counter() - start)
        right = right and torch.equal(values, expected)
    return right, size / statistics.median(seconds[1:])


def _speed(runtime: Runtime) -> float:
    side = 4096 if runtime.device.type == "cuda" else 512
    matrix = torch.ones(side, side, device=runtime.device)
    best = float("inf")
    for _ in range(5):
        runtime.synchronize()
        start = time.perf_counter()
        matrix @ matrix
        runtime.synchronize()
        best = min(best, time.perf_counter() - start)
    return side**3 / best / 1e9


def _wrong(config: Config | None, runtime: Runtime, seen: list[Seen]) -> str | None:
    """What a run could not go on with; every rank calls it."""
    bad = [one.member for one in seen if not one.right]
    if bad:
        return f"sums over the ranks come out wrong on rank {bad[0].rank} ({bad[0].host})"
    if len({one.torch for one in seen}) > 1:
        return f"the ranks have different versions of torch: {_each(seen, lambda one: one.torch)}"
    return agreement.differing(runtime, [one.member for one in seen], config)


def _warnings(seen: list[Seen]) -> list[str]:
    """What makes a run slow, or odd."""
    found = []
    for what, value in _KINDS.items():
        if len({value(one) for one in seen}) > 1:
            found.append(f"ranks differ in {what}: {_each(seen, value)}")
    usual = statistics.median(one.speed for one in seen)
    for one in seen:
        if one.speed < _SLOW_RANK * usual:
            share = one.speed / usual
            found.append(
                f"rank {one.member.rank} on {one.member.host} computes {share:.0%} of what the "
                "others do, and all wait for it"
            )
    slowest = min(one.rates[-1] for one in seen)
    if len(seen) > 1 and slowest < _SLOW_NETWORK:
        found.append(
            f"sums go at {_rate(slowest)} only: is that the right network? GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME choose one"
        )
    apart = max(one.clock for one in seen) - min(one.clock for one in seen)
    if apart > _CLOCKS_APART:
        found.append(f"the clocks are {apart:.0f} s apart: ages of heartbeats will be wrong")
    return found


_KINDS: dict[str, Callable[[Seen], Any]] = {
    "Python": lambda one: one.python,
    "DALI": lambda one: one.dali,
    "device": lambda one: one.device,
    "backend": lambda one: one.backend,
    "torch.compile": lambda one: "used" if one.compiles else "not used",
}


def _each(seen: list[Seen], value: Callable[[Seen], Any]) -> str:
    return agreement.name_each([one.member for one in seen], [value(one) for one in seen])


def _table(seen: list[Seen], warnings: list[str]) -> Table:
    """One row a rank; below, the sums and what was noticed."""
    table = Table(title="fasttrain doctor", title_justify="left", caption_justify="left")
    for name in (
        "rank", "host", "device", "backend", "python", "torch", "fasttrain", "DALI",
        "config", "data", "GMAC/s",
    ):  # fmt: skip
        table.add_column(name, overflow="fold")
    for one in seen:
        about = one.member
        cells = (
            about.rank, about.host, one.device, one.backend, one.python, one.torch,
            about.fasttrain, one.dali or "none", about.config or "", about.data or "",
            f"{one.speed:,.0f}",
        )  # fmt: skip
        table.add_row(*map(str, cells))
    lines = [f"look: {warning}" for warning in warnings]
    if len(seen) > 1:
        slowest = [min(one.rates[at] for one in seen) for at in range(len(_SIZES))]
        rates = (
            f"{size >> 10:,} KiB at {_rate(rate)}"
            for size, rate in zip(_SIZES, slowest, strict=True)
        )
        right = "right" if all(one.right for one in seen) else "WRONG"
        lines.insert(0, f"sums over {len(seen)} ranks: {right}; {', '.join(rates)}")
    table.caption = "\n".join(lines)
    return table


def _rate(bytes_a_second: float) -> str:
    return f"{bytes_a_second / 1e6:,.1f} MB/s"
