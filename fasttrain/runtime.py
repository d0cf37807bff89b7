"""The only room that knows Accelerate: devices, ranks, the launch environment.

Accelerate finds the device and joins the ranks. Its wrappers for optimisers, schedules and loaders
are left out: they cost more than 100 microseconds a step, and ours need no wrapping. So is that of
a forward pass for its precision, which ties compiled code to one run: `autocast` is torch's.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DDPCommunicationHookType, broadcast_object_list
from torch import Tensor, nn

from fasttrain import launcher, memory
from fasttrain.compiled import user_decides
from fasttrain.compiler import settle
from fasttrain.config import Train
from fasttrain.errors import UserError
from fasttrain.peers import check_launch, explained, lost, not_joined, part
from fasttrain.vote import Vote

T = TypeVar("T")

_EXCHANGES = {
    "fp32": DDPCommunicationHookType.NO,
    "bf16": DDPCommunicationHookType.BF16,
}
_FOR_EVER = timedelta(days=7)  # where no watchdog was wanted
_WATCHDOG_FIRST = timedelta(seconds=2)  # it leaves the stacks of a rank that waits for another


class Runtime:
    """Where this process runs, and how it talks to the others.

    Attributes:
        device: The device of this rank.
        rank: This process among `world` ones, over all machines.
        world: Number of ranks.
        is_first_here: Whether this is the rank that speaks for its machine.
        bf16: Whether a forward pass runs in bfloat16 where that is precise enough.
        compile: Whether the step is compiled.

    Raises:
        UserError: the device is not there or lacks the precision, or fewer processes run than
            were asked for, or the launcher has not said where the others are.
        LostPeerError: the others did not answer in time.
    """

    def __init__(self, train: Train) -> None:
        if train.deterministic:  # cuBLAS reads it when CUDA starts
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        _check_gpus(train)
        check_launch()
        self._put_back = _global_settings()
        launcher.follow_launcher()
        self._timeout = _FOR_EVER
        if train.watchdog:
            self._timeout = timedelta(minutes=train.watchdog.value) + _WATCHDOG_FIRST
        with explained(not_joined):
            self._accelerator = _join(train, self._timeout)
        self.device: torch.device = self._accelerator.device
        self.bf16 = train.precision == "bf16"
        memory.keep_freed()
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_first_here: bool = self._accelerator.is_local_main_process
        try:
            self.compile = settle(train.compile)
            launcher.check_processes(_asked_of_launcher(), "the launcher's options", self.world)
        except UserError:
            self.close()
            raise
        settle_torch(train)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run folder and talks to the user."""
        return self.rank == 0

    @property
    def backend(self) -> str:
        """What carries sums from rank to rank."""
        return str(dist.get_backend()) if self.world > 1 else "none"

    def explain_losses(self) -> AbstractContextManager[None]:
        """Turn what torch says when other ranks are gone into a `LostPeerError` of one line."""
        return explained(lost)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Place a module on the device, joined over the ranks."""
        with warnings.catch_warnings():  # Accelerate knows the setting by its older name only
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            prepared: nn.Module = self._accelerator.prepare_model(module)
        return prepared

    def no_sync(self, module: nn.Module) -> AbstractContextManager[Any]:
        """A context whose backward passes keep their gradients on this rank.

        Args:
            module: What `prepare` returned.
        """
        if self.world == 1:  # there is nobody to share them with
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def autocast(self) -> torch.autocast:
        """The context in which a forward pass runs in this run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place; every rank gets the result."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """The tensor of every rank, by rank; all have one shape."""
        if self.world == 1:
            return [values]
        every = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(every, values)
        return every

    def collect(self, value: T) -> list[T]:
        """A small value of every rank, by rank, on every rank."""
        if self.world == 1:
            return [value]
        every: list[Any] = [None] * self.world
        dist.all_gather_object(every, value)
        return every

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the main rank's buffers, such as the running statistics of batch norm."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def on_main(self, decide: Callable[[], T]) -> T:
        """Let the main rank decide; every rank gets its answer, or raises its `UserError`."""
        answer: T | UserError | None = None
        if self.is_main:
            try:
                answer = decide()
            except UserError as error:
                answer = error
        if self.world > 1:
            answer = broadcast_object_list([answer])[0]
        if isinstance(answer, UserError):
            raise answer
        return cast(T, answer)

    def smallest(self, value: Tensor) -> Tensor:
        """The smallest value of any rank, in place."""
        if self.world > 1:
            dist.all_reduce(value, op=dist.ReduceOp.MIN)
        return value

    def vote(self) -> Vote:
        """A way to agree with the other ranks; all of them call this, and then vote as often."""
        return Vote(self.world, self._timeout)

    def uses_graphs(self, train: Train) -> bool:
        """Whether a step is recorded and handed to the GPU as one piece, a CUDA graph.

        Args:
            train: Its `accumulate` is a number (`parts.in_parts`).

        Raises:
            UserError: that is wanted, and cannot be done.
        """
        can = self.device.type == "cuda" and self.compile and self.world == 1
        can = can and train.accumulate == 1  # parts are for batches that memory is scarce for
        if train.cuda_graphs is True and not can:
            raise UserError(
                "train.cuda_graphs=true: it takes one process on a GPU, a compiled step and "
                "train.accumulate=1; choose train.cuda_graphs=auto"
            )
        return can and train.cuda_graphs is not False

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Leave the process group and torch's settings as they were: others may follow here."""
        self._put_back()
        memory.give_back()
        if self.world > 1:
            part(self._accelerator.end_training)
        else:
            self._accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)


def _join(train: Train, timeout: timedelta) -> Accelerator:
    """Find this rank's device, and the other ranks."""
    data_parallel = DistributedDataParallelKwargs(
        broadcast_buffers=False,  # they are shared before they are used: `share_buffers`
        gradient_as_bucket_view=True,
        comm_hook=_EXCHANGES[train.exchange],
    )
    return Accelerator(
        cpu=train.device == "cpu" or not torch.cuda.is_available(),
        mixed_precision="no",  # see `autocast`
        dynamo_backend="no",  # fasttrain compiles by itself
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout), data_parallel],
    )


def settle_torch(train: Train) -> None:
    """Settle what torch keeps for the whole process: threads, precision, choice of kernels."""
    _limit_threads()
    torch.set_float32_matmul_precision("highest" if train.deterministic else "high")
    with user_decides():  # it imports the compiler
        torch.use_deterministic_algorithms(train.deterministic)
    torch.backends.cudnn.benchmark = not train.deterministic


def _global_settings() -> Callable[[], None]:
    """What brings those of torch's settings back that a run changes for the whole process."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark

    def put_back() -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        with user_decides():
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark

    return put_back


def cpu_imitates_bf16() -> bool:
    """Whether bfloat16 on this CPU is put together from other instructions, and slower than fp32.

    Known of x86 only; others are taken to have it.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _limit_threads() -> None:
    """Share the cores among this machine's ranks, unless the user has decided.

    Launchers set the variable, too: to 1, where nobody has.
    """
    decided = os.environ.get("OMP_NUM_THREADS")
    if decided is None or (launcher.is_launched() and decided == "1"):
        torch.set_num_threads(max(1, launcher.usable_cores() // launcher.local_world()))


def _check_gpus(train: Train) -> None:
    """Refuse what this machine's GPUs cannot do, before Accelerate meets it."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "train.device=cuda: torch sees no NVIDIA GPU here; "
            "check the driver with nvidia-smi, or choose train.device=auto"
        )
    if train.device == "cpu" or not torch.cuda.is_available():
        return
    ranks, gpus = launcher.local_world(), torch.cuda.device_count()
    if ranks > gpus:
        raise UserError(
            f"{ranks} processes were started here, but there are {gpus} GPUs; start as many "
            "processes as GPUs, or choose train.device=cpu"
        )
    if train.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"train.precision=bf16: {torch.cuda.get_device_name()} has no bfloat16; "
            "choose train.precision=fp32"
        )


def _asked_of_launcher() -> int | None:
    """The number of processes that `accelerate launch` was told to start, if it started us."""
    from accelerate.commands.config.config_args import default_config_file

    return launcher.processes_asked_for(Path(default_config_file))
