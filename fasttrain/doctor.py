"""`fasttrain doctor`: what will be used on this machine, and what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from rich.table import Table
from rich.text import Text

from fasttrain.compiler import missing_for_compile
from fasttrain.config import Config, Data
from fasttrain.data import loader, sources
from fasttrain.data.store import cache_folder
from fasttrain.errors import FasttrainError, UserError
from fasttrain.files import check_writable
from fasttrain.launcher import usable_cores
from fasttrain.observe import environment
from fasttrain.runtime import cpu_imitates_bf16

Finding = tuple[bool, str]  # whether it is as it should be, and what was found


def examine() -> Table:
    """Check everything a run needs; one row each, with the mend where something is missing."""
    checks: dict[str, Callable[[], Finding]] = {
        "packages": _packages,
        "device": _device,
        "precision": _precision,
        "compiler": _compiler,
        "loader": _loader,
        "data": _data,
        "cache": _cache,
        "disk": _disk,
        "tracking": _tracking,
        "processes": _processes,
    }
    table = Table(title="fasttrain doctor", title_justify="left", show_header=False)
    for name, check in checks.items():
        good, found = check()
        mark = "[green]ok[/green]" if good else "[yellow]look[/yellow]"
        table.add_row(mark, name, Text(found))  # a path may look like markup
    return table


def _packages() -> Finding:
    versions = {name: environment.installed_version(name) for name in environment.PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    shown = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    return not missing, shown


def _device() -> Finding:
    names = environment.gpus()
    if names:
        return True, f"{len(names)} x {names[0]}"
    return True, f"CPU: {environment.processor()}, {usable_cores()} cores; torch sees no NVIDIA GPU"


def _precision() -> Finding:
    if torch.cuda.is_available():
        good = torch.cuda.is_bf16_supported(including_emulation=False)
        return good, "bf16" if good else "this GPU has no bf16: train.precision=fp32"
    if cpu_imitates_bf16():
        return True, "bf16 without hardware: train.precision=fp32 is faster"
    return True, "bf16 in hardware"


def _compiler() -> Finding:
    missing = missing_for_compile()
    if missing is None:
        return True, "torch.compile can be used"
    return False, f"steps run uncompiled: torch.compile needs {missing}"


def _loader() -> Finding:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, reason = loader.choose("auto", device)
    return True, f"auto takes {name} ({reason})"


def _data() -> Finding:
    try:
        found = sources.find_here(Data())
    except FasttrainError as error:
        return False, str(error)
    if found is None:
        return False, "cifar10 is not here: a run would download it; or set FASTTRAIN_DATA"
    return True, f"cifar10 is in {os.environ.get('FASTTRAIN_DATA') or 'the cache'}"


def _cache() -> Finding:
    folder = cache_folder()
    try:
        check_writable(folder)
    except UserError as error:
        return False, f"{error} with FASTTRAIN_CACHE"
    stores = sorted(path.name for path in folder.glob("stores/*-*") if path.is_dir())
    return True, f"{folder}: {', '.join(stores) or 'no prepared data sets yet'}"


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return free > 1, f"{free:.0f} GB free here"


def _tracking() -> Finding:
    try:  # what it looks for may be what is missing
        from fasttrain.observe import wandb
    except ModuleNotFoundError as error:
        return False, f"W&B cannot be used: {error.name} is missing; track.wandb=disabled works"
    mode = Config().track.wandb
    key = "a key is configured" if wandb.has_key() else "no key: track.wandb=offline works without"
    return True, f"W&B is {mode} unless a recipe says otherwise; {key}"


def _processes() -> Finding:
    world = os.environ.get("WORLD_SIZE")
    return True, f"{world} processes, by a launcher" if world else "one, without a launcher"
