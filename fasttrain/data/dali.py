"""The DALI loader: one pipeline definition that runs on a GPU or on a CPU.

The parameters of every augmentation come from the plan through `external_source`, a whole batch
as one contiguous array, so DALI's own generators are never used and no Python runs per picture.
This file holds the only DALI import.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from torch.utils.dlpack import from_dlpack

from fasttrain.config import Crop, Cutout
from fasttrain.data.augment import Transform
from fasttrain.data.colour import matrices, measure_all
from fasttrain.data.loader import Pictures, as_tensors, mixing_of
from fasttrain.data.plan import Batch, Plan, Shard
from fasttrain.data.store import Split

_PREFETCH = 2
_BATCHES_IN_USE = 4  # how far the host may run ahead of a GPU that still reads delivered batches
_MOVES = ("crop", "flip", "vertical_flip")  # geometry in whole pixels
Array = NDArray[Any]


class DaliLoader:
    """Executes a plan in a DALI pipeline; see `loader.Loader` for the contract.

    Args:
        split: The pictures; each batch is cut out of them and handed to DALI.
        plan: Which of them, in which order, changed how.
        shard: The part of every batch that this rank executes.
        transform: What the plan's draws mean.
        device: Where the pipeline runs.
        threads: Number of DALI's CPU threads.
    """

    name = "dali"

    def __init__(
        self,
        split: Split,
        plan: Plan,
        shard: Shard,
        transform: Transform,
        device: torch.device,
        threads: int = 2,
    ) -> None:
        self._split = split
        self._plan = plan
        self._shard = shard
        self._transform = transform
        self._device = device
        self._statistics = measure_all(split.images) if transform.recolors else None
        self._labels = torch.from_numpy(np.asarray(split.labels)).to(device)
        self._steps: Iterator[int] = iter(())
        self._in_flight: deque[tuple[Batch, list[Array]]] = deque()
        self._in_use: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
        self._size = split.images.shape[1:]
        # Where nothing differs from picture to picture, a batch is one tall picture to DALI: what
        # it does for each picture that it knows of would be three tenths of all the time.
        self._as_one = not _input_names(transform)
        on_gpu = device.type == "cuda"
        self._pipeline = _pipeline(
            self._next_inputs,
            transform,
            (self._size[0], self._size[1]),
            on_gpu,
            batch_size=1 if self._as_one else plan.batch_size // shard.world,
            num_threads=max(threads, 1),
            device_id=(device.index or 0) if on_gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        self._pipeline.build()

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`."""
        self._drain()
        self._steps = iter(range(first, last))
        self._pipeline.schedule_run()
        for _ in range(first, last):
            images = self._take()
            batch, _inputs = self._in_flight.popleft()
            self._pipeline.schedule_run()
            indices = torch.from_numpy(batch.indices).to(self._device, non_blocking=True)
            mixing = mixing_of(batch, self._device)
            yield Pictures(images, self._labels[indices], batch.valid, mixing)
            self._keep_while_read(images)

    def _keep_while_read(self, images: torch.Tensor) -> None:
        """Hold a delivered batch until the GPU has done what was asked of it so far.

        DALI frees a buffer in the order of its own stream, which knows nothing of the kernels
        that still wait to read it on torch's: the host must not let go of it before.
        """
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record()
        self._in_use.append((images, event))
        if len(self._in_use) > _BATCHES_IN_USE:
            self._in_use[0][1].synchronize()
            self._in_use.popleft()

    def close(self) -> None:
        """End DALI's threads and free its buffers."""
        self._in_flight.clear()
        del self._pipeline

    def _next_inputs(self) -> list[Array]:
        """What DALI asks for before each run.

        DALI reads the arrays in place, so they are kept until their batch has come out.
        """
        batch = self._plan.batch(next(self._steps), self._shard)
        images = self._split.images[batch.indices]
        inputs = _inputs(images, batch, self._transform, self._statistics)
        if self._as_one:
            inputs = [inputs[0].reshape(1, -1, *self._size[1:])]
        self._in_flight.append((batch, inputs))
        return inputs

    def _take(self) -> torch.Tensor:
        """Wait for the next batch; (B, 3, H, W) in channels-last memory, nothing is copied.

        The dynamic executor gives every batch a buffer of its own, which lives as long as the
        tensor does on the host (see `_keep_while_read`).
        """
        (output,) = self._pipeline.share_outputs()
        images: torch.Tensor = from_dlpack(output.as_tensor())
        self._pipeline.release_outputs()
        return images.view(-1, *self._size).permute(0, 3, 1, 2)

    def _drain(self) -> None:
        """Take back what an unfinished pass left in flight, so that the next one starts clean."""
        self._steps = iter(())
        while self._in_flight:
            self._take()
            self._in_flight.popleft()
        self._pipeline.schedule_run()  # meets the end of the steps: only then can it be reset
        self._pipeline.reset()


def _input_names(transform: Transform) -> list[str]:
    """What the pipeline is fed with beside the pictures, in order."""
    names = [str(entry.name) for entry in transform.augment]
    moves = ["warp"] if transform.warps else [name for name in names if name in _MOVES]
    colour = ["colour"] if transform.recolors else []
    return [*moves, *colour, *[name for name in names if name == "cutout"]]


def _inputs(
    images: NDArray[np.uint8], batch: Batch, transform: Transform, statistics: torch.Tensor | None
) -> list[Array]:
    """The batch's arrays in the order of the pipeline's inputs: pictures, then parameters."""
    inputs: dict[str, Array] = dict(batch.draws)
    drawn = as_tensors(batch.draws)
    # A few rows at a time, and equalisation is not in DALI as it is meant: done here.
    images = transform.tone(torch.from_numpy(images), drawn).numpy()
    if statistics is not None:
        inputs["colour"] = matrices(drawn, statistics[torch.from_numpy(batch.indices)]).numpy()
    margin = transform.margin
    if margin:
        # DALI cannot mirror a border, so the margin is put on here and only cut there.
        images = np.pad(images, ((0, 0), *[(margin, margin)] * 2, (0, 0)), mode="reflect")
    for entry in transform.augment:
        match entry:
            case Crop(padding=padding) if not transform.warps:
                inputs["crop"] = inputs["crop"] + np.int32(margin - padding)
            case Cutout(size=side):
                inputs["cutout"] = (inputs["cutout"] - np.int32(side // 2)).astype(np.float32)
    return [images, *[inputs[name] for name in _input_names(transform)]]


# Nothing in it is random; without a seed DALI would draw one and say so.
@pipeline_def(exec_dynamic=True, seed=0)  # type: ignore[untyped-decorator]
def _pipeline(source: Any, transform: Transform, size: tuple[int, int], on_gpu: bool) -> Any:
    """Move, recolour and normalise in as few passes as DALI allows, then cover."""
    names = _input_names(transform)
    images, *inputs = fn.external_source(
        source,
        num_outputs=1 + len(names),
        batch=True,
        no_copy=True,
        layout=["HWC", *[""] * len(names)],
    )
    given = dict(zip(names, inputs, strict=True))
    images = _move(images.gpu() if on_gpu else images, given, size)
    if "colour" in given:
        images = fn.coord_transform(images, MT=given["colour"], dtype=types.UINT8)
        images = fn.reshape(images, layout="HWC")  # to DALI they were points, not pictures
    images = _mirror_and_normalize(images, given.get("flip", 0), transform)
    for entry in transform.augment:
        if isinstance(entry, Cutout):
            images = fn.erase(
                images,
                anchor=given["cutout"],
                shape=[float(entry.size)] * 2,
                axes=[0, 1],
                fill_value=_fill(transform),
            )
    return images


def _move(images: Any, given: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """All geometry but mirroring left to right in whole pixels, which is free further on."""
    if "warp" in given:
        return fn.warp_affine(
            images,
            matrix=given["warp"],
            inverse_map=True,
            interp_type=types.INTERP_LINEAR,
            fill_value=0,
            size=list(size),
        )
    if "crop" in given:
        images = fn.slice(
            images,
            start=given["crop"],
            shape=list(size),
            axes=[0, 1],
            out_of_bounds_policy="pad",
            fill_values=0,
        )
    if "vertical_flip" in given:
        images = fn.flip(images, horizontal=0, vertical=given["vertical_flip"])
    return images


def _mirror_and_normalize(images: Any, mirror: Any, transform: Transform) -> Any:
    """One operator for both; with a raw transform it leaves the grey levels as they are."""
    mean, std, dtype = transform.mean, transform.std, types.FLOAT
    if transform.raw:
        mean, std, dtype = (0.0,) * 3, (1.0,) * 3, types.UINT8
    return fn.crop_mirror_normalize(
        images, mirror=mirror, mean=list(mean), std=list(std), dtype=dtype, output_layout="HWC"
    )


def _fill(transform: Transform) -> list[float]:
    """The colour of a cut-out square, in the units that pictures have at that point."""
    if transform.raw:
        return [float(value) for value in transform.fill]
    channels = zip(transform.fill, transform.mean, transform.std, strict=True)
    return [(value - mean) / std for value, mean, std in channels]
