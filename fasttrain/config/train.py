"""The training of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fasttrain.config.fields import (
    AutoCount,
    Duration,
    MinutesField,
    Real,
    Section,
    StepsField,
    Whole,
)
from fasttrain.config.optim import Ema

Tta = Literal["none", "flip", "shift"]


class Resize(Section):
    """Smaller pictures until some moment of the run."""

    scale: Real = Field(gt=0, lt=1)
    """What their sides are multiplied by, then rounded."""
    until: StepsField
    """When it ends, counted from the start of the run; each entry ends after the one before."""


class Train(Section):
    """How long, in which arithmetic, how often to look, and what to do when it goes wrong.

    Going back behind a bad batch is Chowdhery et al., "PaLM", arXiv 2204.02311, section 5.1;
    `training.views` has the looks of `tta`.
    """

    epochs: Whole = Field(10, ge=1)
    """How often the training pictures are gone through."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`cuda` is an NVIDIA GPU; `auto` takes it where there is one, else the CPU."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16` computes the network in bfloat16 where that is precise enough; weights stay fp32. A
    GPU without it is refused; a CPU without it imitates it, and is faster with `fp32`. On a GPU
    that has TF32, `fp32` is that."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile makes code for steps, evaluations and the loader `resident`, which
    takes a while ahead of the first. `auto` does where a C++ compiler and Python's header files
    are there."""
    cuda_graphs: Literal["auto"] | bool = "auto"
    """Whether a whole step is handed to the GPU as one piece, not kernel by kernel. `auto` does
    where it can be done: compiled, one process, `accumulate` 1, with memory to spare."""
    channels_last: bool = True
    """Whether the network's weights lie in memory with their channels last, as pictures do."""
    deterministic: bool = False
    """Whether only algorithms run that give the same bits every time, which are slower. On CPUs
    runs of as many processes and threads are the same to the bit without it."""
    accumulate: AutoCount = 1
    """In how many parts a step takes its batch: more need less memory, and batch norm takes each
    for a batch. `auto` is 1, but with `model.ghost_batch` on a CPU parts of one or a few of
    those, which changes no result but for rounding."""
    clip_norm: Real | None = Field(None, gt=0)
    """The largest norm of all gradients together; larger ones are scaled down to it. null: none."""
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    """Weight that is taken from the true class and spread over all classes."""
    # torch keeps 8 graphs of a function.
    resize: tuple[Resize, ...] = Field((), max_length=6)
    """Smaller pictures first: the entries in turn, and whole pictures after the last."""
    tta: Tta = "none"
    """How an evaluation looks at a picture: `none` once; `flip` also at its mirror image; `shift`
    also at both moved by a pixel to either corner, which count half."""
    ema: Ema | None = None
    """Averaged weights, which are evaluated in place of the trained ones; `{}` takes the defaults.
    null: none."""
    log_every: StepsField = Duration(value=50, unit="steps")
    """How often loss, rate and speed are written to the journal; after each epoch they are, too."""
    evaluate_every: StepsField = Duration(value=1, unit="epochs")
    """How often the `data.validation` pictures are scored; at the end they are, too, and the test
    set only then."""
    exchange: Literal["fp32", "bf16"] = "fp32"
    """The arithmetic in which gradients are summed over the processes: `bf16` sends half as many
    bytes, for slow networks."""
    processes: Whole | None = Field(None, ge=1)
    """How many processes the launcher must have started: a run of another number is refused. null:
    any number will do."""
    on_divergence: Literal["stop", "skip", "rollback"] = "stop"
    """What follows a loss or gradient that is not a finite number: `stop` the run; `skip` the
    update of that step, but stop where ten or more in a row, and all between two log entries,
    were skipped; `rollback` to all of the newest checkpoint and go on behind the bad batch."""
    rollbacks: Whole = Field(3, ge=1, le=100)
    """How often a run may go back with `on_divergence=rollback`; then it stops."""
    watchdog: MinutesField | None = Duration(value=30, unit="min")
    """How long nothing may happen before a process is taken for hung and ends; it must be longer
    than compiling takes. One process alone may be halted for four times as long. null: for
    ever."""
