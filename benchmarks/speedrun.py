"""A public speedrun, from a copy of its own repository, as a rival of ours.

    python -m benchmarks.speedrun SCRIPT             a contestant of `benchmarks turns`
    python -m benchmarks.speedrun SCRIPT --seed 0    one run, for `benchmarks accuracy --rival`

SCRIPT is `airbench94_muon.py` or `airbench96_faster.py` of KellerJordan/cifar10-airbench,
`cifar10_speedrun.py` of hiverge/cifar10-speedrun, or `runners/recipes/e1.py` of
fulcrumresearch/cifar-10-speedrun. Nothing in it is edited. It compiles as it says, gets warm and
trains with our seeds on our copy of the pictures. Its accuracy and seconds are those it prints
itself; the last one has no clock (`hooked`).

Without a GPU `airbench94_muon.py` trains, too: in bfloat16, as halves are slow on CPUs, compiled
without tuning, and with the host's clock in place of the GPU's. It gets warm by eight steps in
place of a whole run. On any machine the process keeps the memory it frees, as ours does.
"""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import click
import torch
from torch._dynamo.utils import counters

from benchmarks import hooked, host
from fasttrain import memory
from fasttrain.config import Data
from fasttrain.data import sources
from fasttrain.errors import FasttrainError, UserError
from fasttrain.files import check_writable, write_bytes

Run = Callable[[int | str], dict[str, float] | None]
"""Trains once; `"warmup"` in place of a number is what the scripts call a run for nothing.

What it returns is what the script came to, where that does not print it itself.
"""

_PICTURES = Path("cifar10")  # where the scripts look for them
_CLOCKS = ("time_seconds", "total_time_seconds")  # as the scripts name it


def load(script: Path) -> ModuleType:
    """Import a script, which trains only where it is the main program.

    Raises:
        UserError: it is none, or fails.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise UserError(f"{script} is no Python script")
    module = sys.modules[script.stem] = importlib.util.module_from_spec(spec)  # for torch.compile
    # One of them reads its own source by the name of the program.
    with patch.object(sys, "argv", [str(script)]):
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise UserError(f"{script} cannot be imported: {error}") from error
    return module


def prepare(script: ModuleType) -> Run:
    """Build and compile the networks of a script as its main program does; what trains them.

    Raises:
        UserError: it is none of those that are known, or cannot train on this machine.
    """
    if not hooked.fits(script) and not any(
        hasattr(script, name) for name in ("CifarNet", "train_proxy")
    ):
        raise UserError(f"{script.__file__} is none of the speedruns that are known here")
    if not torch.cuda.is_available():
        return host.prepare(script)
    if hooked.fits(script):
        return hooked.prepare(script, _PICTURES)
    if hasattr(script, "train_proxy"):
        return partial(_filtered, script, _three_networks(script))
    network = script.CifarNet().cuda().to(memory_format=torch.channels_last)
    network.compile(mode="max-autotune")
    return partial(_plain, script, network)


def _plain(script: ModuleType, network: torch.nn.Module, run: int | str) -> None:
    script.main(run, network)


def _three_networks(script: ModuleType) -> list[Any]:
    """A small one that chooses pictures, and one with and one without a whitening bias to learn."""
    small, learns, fixed = (script.make_net(script.hyp[name]) for name in ("proxy", "net", "net"))
    for network in (small, fixed):
        network[0].bias.requires_grad = False
    return [torch.compile(each, mode="max-autotune") for each in (small, learns, fixed)]


def _filtered(script: ModuleType, networks: list[Any], run: int | str) -> None:
    script.main(run, script.hyp, *networks)


@contextmanager
def _listening(script: ModuleType) -> Iterator[dict[str, float]]:
    """Hear what a run prints at its end, where the scripts hand over all their variables."""
    heard: dict[str, float] = {}

    def listen(variables: dict[str, Any], is_final_entry: bool) -> None:
        if is_final_entry:
            heard["accuracy"] = float(variables["tta_val_acc"])
            heard["seconds"] = float(next(variables[key] for key in _CLOCKS if key in variables))

    # One of them prints nothing.
    with patch.object(script, "print_training_details", listen, create=True):
        yield heard


def train(script: ModuleType, run: Run, seed: int) -> dict[str, float]:
    """Train once; accuracy as a share, and seconds on the script's own clock.

    `graphs` says how many torch compiled meanwhile: in a fair run none.

    Raises:
        UserError: the script never said what it has reached.
    """
    gc.collect()  # now, not within the run, as for ours
    before = _graphs()
    random.seed(seed)  # of which one of them draws the seeds it gives torch
    torch.manual_seed(seed)
    with _listening(script) as heard, redirect_stdout(sys.stderr):
        heard.update(run(seed) or {})
    if not heard:
        raise UserError(f"{script.__file__} ended a run without a word")
    return {**heard, "graphs": _graphs() - before}


def _graphs() -> int:
    """How many torch has compiled so far."""
    return int(counters["stats"]["unique_graphs"])


def write_pictures(folder: Path) -> None:
    """Put CIFAR-10 where and as the scripts look for it: `cifar10/train.pt` and `test.pt`."""
    target = folder / _PICTURES
    if all((target / f"{split}.pt").exists() for split in ("train", "test")):
        return
    store = sources.open_dataset(Data(dataset="cifar10"))
    target.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", store.train), ("test", store.test)):
        # In no order of classes: the scripts look at the first few thousand to whiten with.
        order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
        content = {
            "images": torch.tensor(split.images)[order],  # (N, 32, 32, 3) uint8
            "labels": torch.tensor(split.labels).long()[order],
            "classes": list(store.classes),
        }
        whole = io.BytesIO()
        torch.save(content, whole)
        write_bytes(target / f"{name}.pt", whole.getvalue())


def serve(script: ModuleType, seed: int | None) -> None:
    """Get warm, then train with one seed, or say `ready` and train with all that are read."""
    run = prepare(script)
    with _listening(script), redirect_stdout(sys.stderr):
        run(host.WARM_UP)
    if seed is not None:
        print(json.dumps(train(script, run, seed)), flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(train(script, run, int(line))), flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--seed", type=int, help="Train once, with this seed.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/speedrun"),
    show_default=True, help="Where it works: the pictures lie there, as it wants them.",
)  # fmt: skip
def main(script: Path, seed: int | None, folder: Path) -> None:
    """Train as SCRIPT does, once for every seed on standard input."""
    try:
        check_writable(folder)
        write_pictures(folder)
        memory.keep_freed()
        path = script.resolve()
        os.chdir(folder)
        serve(load(path), seed)
    except FasttrainError as error:
        click.echo(f"benchmarks.speedrun: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
