"""What a run ran on: versions, hardware, commit, launch."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fasttrain.launcher import usable_cores

PACKAGES = ("fasttrain", "torch", "torchvision", "nvidia-dali-cuda130", "accelerate", "wandb")
_LAUNCH = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def describe() -> dict[str, Any]:
    """Return what identifies this machine, these versions and this command; no secrets."""
    return {
        "command": command(),
        "commit": commit(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": usable_cores(),
        "gpus": gpus(),
        "launch": {name: os.environ[name] for name in _LAUNCH if name in os.environ},
    }


def command() -> str:
    """Return the command line of this process, without the folder of its program."""
    program = Path(sys.argv[0])
    name = [program.name] if program.stem != "__main__" else ["python", "-m", program.parent.name]
    return shlex.join([*name, *sys.argv[1:]])


def installed_version(package: str) -> str | None:
    """Return a package's version, or `None` where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def gpus() -> list[str]:
    """Return the names of the NVIDIA GPUs that torch sees."""
    import torch  # here: who only looks at a run need not wait for it

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def commit() -> str | None:
    """Return the commit of the source tree this package runs from, `+` when it was changed."""
    source = Path(__file__)
    try:
        # Installed, it may lie in another project's tree.
        _git(source.parent, "ls-files", "--error-unmatch", source.name)
        return _git(source.parent, "describe", "--always", "--dirty=+", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    output = subprocess.run(  # noqa: S603 - fixed words and our own folder
        command, capture_output=True, text=True, timeout=5, check=True
    )
    return output.stdout.strip()
