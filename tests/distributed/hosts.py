"""Two hosts on one machine: network namespaces with names of their own, joined by one cable."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributed.launching import ROOT

MULTI_NODE = ROOT / "launch" / "accelerate" / "multi_node.yaml"
PORT = 29500
_TOOLS = ("ip", "unshare", "hostname", "taskset")


@dataclass(frozen=True)
class Host:
    """One of the two.

    Attributes:
        name: Of the host, its namespace and its end of the cable.
        address: Of its end.
        number: 0 or 1.
    """

    name: str
    address: str
    number: int

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs `words` on this host, which has one core."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]
        return on_cores(["ip", "netns", "exec", self.name, *named, *words], self.number)


def on_cores(command: Sequence[str], *numbers: int) -> list[str]:
    """The command, on some of this machine's cores: how many there are decides the rounding."""
    cores = sorted(os.sched_getaffinity(0))
    chosen = {str(cores[number % len(cores)]) for number in numbers}
    return ["taskset", "--cpu-list", ",".join(sorted(chosen)), *command]


@dataclass(frozen=True)
class Hosts:
    """Both."""

    one: Host
    other: Host

    def plug(self, joined: bool) -> None:
        """Cut the link, or join it again."""
        state = "up" if joined else "down"
        _ip("-n", self.one.name, "link", "set", self.one.name, state)

    def launched(self, *words: str) -> list[str]:
        """A command that launches `words` on both, and ends with 0 when both do."""
        started = []
        for host in (self.one, self.other):
            launch = host.command([*_launcher(host, self.one.address), *words])
            variable = f"GLOO_SOCKET_IFNAME={host.name}"
            started.append(
                f"{variable} {shlex.join(launch)} > {host.name}.txt 2>&1 & p{len(started)}=$!"
            )
        script = "\n".join([*started, "wait $p0; a=$?", "wait $p1; b=$?", "exit $((a | b))"])
        return ["sh", "-c", script]


def _launcher(host: Host, main: str) -> list[str]:
    return [
        str(Path(sys.executable).parent / "accelerate"), "launch",
        "--config_file", str(MULTI_NODE), "--num_processes", "2",
        "--machine_rank", str(host.number),
        "--main_process_ip", main, "--main_process_port", str(PORT),
    ]  # fmt: skip


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make them, and take them away; skips the test where that is not possible."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")
    base = f"ft{os.getpid() % 10_000_000}"  # an interface's name has at most 15 letters
    one, other = Host(f"{base}a", "10.77.0.1", 0), Host(f"{base}b", "10.77.0.2", 1)
    try:
        _make(one, other)
        tried = subprocess.run(one.command(["true"]), capture_output=True, text=True, check=False)
        if tried.returncode:
            raise OSError(tried.stderr.strip())
        yield Hosts(one, other)
    except OSError as error:
        pytest.skip(f"no right to make network namespaces: {error}")
    finally:
        for host in (one, other):  # its end of the cable goes with it
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)


def _make(one: Host, other: Host) -> None:
    for host in (one, other):
        _ip("netns", "add", host.name)
    ends = ("netns", one.name, "type", "veth", "peer", "name", other.name, "netns", other.name)
    _ip("link", "add", one.name, *ends)
    for host in (one, other):
        _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.name)
        for device in ("lo", host.name):
            _ip("-n", host.name, "link", "set", device, "up")
