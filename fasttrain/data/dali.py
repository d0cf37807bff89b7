"""The DALI loader: one pipeline definition that runs on a GPU or on a CPU.

The parameters of every augmentation come from the plan through `external_source`, a whole batch
as one contiguous array, so DALI's own generators are never used and no Python runs per picture.
This file holds the only DALI import.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from torch.utils.dlpack import from_dlpack

from fasttrain.config import Cutout
from fasttrain.data.affine import Size
from fasttrain.data.augment import Transform, mirror_border
from fasttrain.data.colour import matrices, measure_all
from fasttrain.data.dali_inputs import NEEDED, input_names, parameters
from fasttrain.data.loader import Pictures, as_tensors, fits, mixing_of
from fasttrain.data.plan import Batch, Plan, Shard
from fasttrain.data.store import Split, let_go
from fasttrain.data.transfer import to_device

_PREFETCH = 2
_BATCHES_IN_USE = 4  # how far the host may run ahead of a GPU that still reads delivered batches
Array = NDArray[Any]


class DaliLoader:
    """Executes a plan in a DALI pipeline; see `loader.Loader` for the contract.

    Args:
        split: The pictures. A GPU takes them all, where they are few enough beside its memory;
            else each batch is cut out of them and handed to DALI.
        plan: Which of them, in which order, changed how.
        shard: The part of every batch that this rank executes.
        transform: What the plan's draws mean.
        device: Where the pipeline runs.
        threads: Number of DALI's CPU threads.
    """

    name = "dali"
    ahead = _PREFETCH

    def __init__(
        self,
        split: Split,
        plan: Plan,
        shard: Shard,
        transform: Transform,
        device: torch.device,
        threads: int = 2,
    ) -> None:
        self._plan = plan
        self._shard = shard
        self._transform = transform
        self._device = device
        self._statistics = measure_all(split.images) if transform.recolors else None
        self._split, self._on_gpu = split, device.type == "cuda"
        self._images: torch.Tensor | None = None
        if self._on_gpu and fits(split.images.nbytes, device):
            # Then nothing but the plan's numbers crosses the bus.
            self._images = torch.from_numpy(np.array(split.images)).to(device)
            let_go(split.images)
        self._labels = torch.from_numpy(np.asarray(split.labels)).to(device)
        self._steps: Iterator[int] = iter(())
        self._pass = 0
        self._in_flight: deque[tuple[Batch, dict[str, Any]]] = deque()
        self._not_taken: dict[str, Any] = {}
        self._in_use: deque[tuple[object, torch.cuda.Event]] = deque()
        self._size = split.images.shape[1:]
        # Where nothing differs from picture to picture, a batch is one tall picture to DALI: what
        # it does for each picture that it knows of would be three tenths of all the time.
        self._as_one = not input_names(transform)
        self._pipeline: Any = _pipeline(
            self._next_pictures,
            self._next_draws,
            transform,
            (self._size[0], self._size[1]),
            self._on_gpu,
            enable_conditionals=transform.tones,  # what reads the code for them takes 0.2 s
            batch_size=1 if self._as_one else shard.share(plan.batch_size),
            num_threads=max(threads, 1),
            device_id=device.index if self._on_gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        self._pipeline.build()

    def batches(self, first: int, last: int) -> Iterator[Pictures]:
        """Yield this rank's slices of batches `first` to `last - 1`.

        Raises:
            RuntimeError: another pass has begun meanwhile: there is one pipeline for all.
        """
        self._drain()
        self._pass += 1
        this = self._pass
        self._steps = iter(range(first, last))
        self._pipeline.schedule_run()
        for _ in range(first, last):
            if this != self._pass:
                raise RuntimeError("another pass over this loader has begun, which ended this one")
            images = self._take()
            batch, inputs = self._in_flight.popleft()
            self._pipeline.schedule_run()
            indices = to_device(torch.from_numpy(batch.indices), self._device)
            mixing = mixing_of(batch, self._device)
            try:
                yield Pictures(images, self._labels[indices], batch.valid, mixing)
            finally:
                self._keep_while_read((images, inputs))

    def _keep_while_read(self, batch: object) -> None:
        """Hold a delivered batch until the GPU has done what was asked of it so far.

        DALI frees a buffer in the order of its own stream, which knows nothing of the kernels
        that still wait to read it on torch's: the host must not let go of it before. Nor of what
        the batch was made from, for which only torch's stream has waited.
        """
        if not self._on_gpu:
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record()
        self._in_use.append((batch, event))
        if len(self._in_use) > _BATCHES_IN_USE:
            self._in_use[0][1].synchronize()
            self._in_use.popleft()

    def close(self) -> None:
        """End DALI's threads and free its buffers."""
        self._pipeline = None
        self._in_flight.clear()
        self._in_use.clear()

    def _next_pictures(self) -> Any:
        return self._next("pictures")

    def _next_draws(self) -> Any:
        return self._next("draws")

    def _next(self, part: str) -> Any:
        """What DALI asks for before each run, one part after the other.

        DALI reads arrays in place, so they are kept until their batch has come out.
        """
        if not self._not_taken:
            batch = self._plan.batch(next(self._steps), self._shard)
            self._not_taken = self._parts(batch)
            self._in_flight.append((batch, dict(self._not_taken)))
        return self._not_taken.pop(part)

    def _parts(self, batch: Batch) -> dict[str, Any]:
        """The pictures of a batch as DALI takes them, and the parameters in the order it does."""
        drawn = as_tensors(batch.draws)
        pictures = self._look_up(batch, drawn)
        if self._as_one:
            return {"pictures": pictures.reshape(1, -1, *self._size[1:])}
        inputs: dict[str, Array] = dict(batch.draws)
        if self._statistics is not None:
            statistics = self._statistics[torch.from_numpy(batch.indices)]
            inputs["colour"] = matrices(drawn, statistics).numpy()
        return {"pictures": pictures, "draws": parameters(inputs, self._transform, self._size[:2])}

    def _look_up(self, batch: Batch, drawn: dict[str, torch.Tensor]) -> Any:
        """The pictures of a batch, with the changes of tone that are not in DALI as they are meant.

        (B, H, W, 3) uint8 on the device, with a margin where a warp looks beyond the border: DALI
        cannot mirror it.
        """
        if self._images is not None:
            images = self._images[to_device(torch.from_numpy(batch.indices), self._device)]
        else:
            images = to_device(torch.from_numpy(self._split.images[batch.indices]), self._device)
        images = mirror_border(self._transform.tone(images, drawn), self._transform.margin)
        return images if self._on_gpu else images.numpy()

    def _take(self) -> torch.Tensor:
        """The next batch; (B, 3, H, W) in channels-last memory, nothing is copied.

        On a GPU torch's stream waits for it, not the host. The dynamic executor gives every batch
        a buffer of its own, which lives as long as the tensor does on the host (see
        `_keep_while_read`).
        """
        stream = torch.cuda.current_stream(self._device) if self._on_gpu else None
        (output,) = self._pipeline.share_outputs(stream)
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


# Nothing in it is random; without a seed DALI would draw one and say so. With conditionals an
# `if` that asks something DALI computes parts the pictures of a batch.
@pipeline_def(exec_dynamic=True, seed=0)  # type: ignore[untyped-decorator]
def _pipeline(pictures: Any, draws: Any, transform: Transform, size: Size, on_gpu: bool) -> Any:
    """Move, recolour, cover and normalise, in as few passes as DALI allows."""
    images = fn.external_source(
        pictures,
        device="gpu" if on_gpu else "cpu",
        batch=True,
        # On a GPU torch writes and frees them in the order of its own stream.
        no_copy=not on_gpu,
        layout="HWC",
    )
    given = _given(draws, input_names(transform))
    if "warp" in given:
        needed = given.get(NEEDED.format("warp"), transform.warps)
        images = _move(images, given["warp"], needed, list(size))
    if "colour" in given:
        images = _recolor(images, given["colour"], given.get(NEEDED.format("colour"), True))
    for entry in transform.augment:
        if isinstance(entry, Cutout):
            images = fn.erase(
                images,
                anchor=given["cutout"],
                shape=[float(entry.size)] * 2,
                axes=[0, 1],
                fill_value=[float(value) for value in transform.fill],
            )
    return _normalize(images, transform)


def _given(draws: Any, names: list[str]) -> dict[str, Any]:
    """What the pipeline is fed with beside the pictures, by name."""
    if not names:
        return {}
    layouts = [""] * len(names)
    inputs = fn.external_source(
        draws, num_outputs=len(names), batch=True, no_copy=True, layout=layouts
    )
    return {name: inputs[place] for place, name in enumerate(names)}


def _move(images: Any, maps: Any, interpolate: Any, size: list[int]) -> Any:
    """Look every pixel up; between pixels, which takes four times as long, where it is needed."""
    if interpolate:
        moved = _warp(images, maps, types.INTERP_LINEAR, size)
    else:
        moved = _warp(images, maps, types.INTERP_NN, size)
    return moved


def _warp(images: Any, maps: Any, interpolation: Any, size: list[int]) -> Any:
    return fn.warp_affine(
        images, matrix=maps, inverse_map=True, interp_type=interpolation, fill_value=0, size=size
    )


def _recolor(images: Any, maps: Any, needed: Any) -> Any:
    """Change the colours where it is needed."""
    if needed:
        changed = fn.coord_transform(images, MT=maps, dtype=types.UINT8)
        changed = fn.reshape(changed, layout="HWC")  # to DALI they were points, not pictures
    else:
        changed = images
    return changed


def _normalize(images: Any, transform: Transform) -> Any:
    """A raw transform leaves the grey levels as they are."""
    mean, std, dtype = transform.mean, transform.std, types.FLOAT
    if transform.raw:
        mean, std, dtype = (0.0,) * 3, (1.0,) * 3, types.UINT8
    return fn.crop_mirror_normalize(
        images, mean=list(mean), std=list(std), dtype=dtype, output_layout="HWC"
    )
