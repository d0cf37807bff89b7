"""What a model draws while it trains, dropout masks and the like, from `(seed, step, rank)` alone.

torch draws from a hidden generator whose state depends on everything that ran before. It is
seeded anew at every step, so a run that is resumed, in a fresh process, draws what the
undisturbed one drew. Compiled graphs take their seeds from the same generator.
"""

from __future__ import annotations

import hashlib

import torch

_RANKS = 1 << 10  # torch's CPU generator keeps 32 bits of a seed: 4 million steps of 1024 ranks
_ODD = 0x9E3779B97F4A7C15  # odd, so that multiplying by it permutes numbers of any bit width


class Randomness:
    """Seeds torch's generators for a step.

    It takes about a microsecond and never waits for the device, so it is done for every model:
    `torch.manual_seed`, which looks at every kind of device, takes about a hundred.

    Args:
        seed: The run's seed.
        rank: This process among those of the run.
        device: Where the model is.
    """

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        self._rank = rank
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # it makes the generators
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._key = int.from_bytes(hashlib.blake2b(b"%d" % seed, digest_size=8).digest(), "little")

    def seed(self, step: int) -> None:
        """Seed the generators of this rank for step number `step`."""
        number = (step * _RANKS + self._rank) * _ODD + self._key
        for generator in self._generators:
            generator.manual_seed(number % 2**64)
