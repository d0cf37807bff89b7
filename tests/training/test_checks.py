"""What is legal but odd is said."""

from __future__ import annotations

import platform

import pytest
import torch

from fasttrain.config import Config
from fasttrain.runtime import cpu_imitates_bf16
from fasttrain.training.checks import oddities, of_precision, of_slices


@pytest.mark.parametrize(
    ("machine", "avx", "amx", "imitates"),
    [
        ("x86_64", False, False, True),
        ("x86_64", True, False, False),
        ("x86_64", False, True, False),
        ("aarch64", False, False, False),
    ],
)
def test_a_cpu_without_bf16_is_known(
    machine: str, avx: bool, amx: bool, imitates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert cpu_imitates_bf16() is imitates


def test_imitated_bf16_is_said_to_be_slow() -> None:
    (line,) = of_precision("bf16", imitated=True)
    assert "train.precision=fp32" in line
    assert of_precision("fp32", imitated=True) == []
    assert of_precision("bf16", imitated=False) == []


@pytest.mark.parametrize(("until", "odd"), [("90%", False), ("100%", True), ("30epochs", True)])
def test_a_run_that_never_sees_whole_pictures_is_odd(until: str, odd: bool) -> None:
    train = {"epochs": 10, "resize": [{"scale": 0.5, "until": until}]}
    lines = oddities(Config.model_validate({"train": train}), steps_per_epoch=7)
    assert [f"until {until}," in line for line in lines] == [True] * odd


def test_a_batch_that_leaves_each_process_little_is_odd() -> None:
    (line,) = of_slices(128, 32)
    assert "all 32 processes together: each takes 4 pictures" in line
    assert "choose 512 or more" in line
    assert of_slices(128, 8) == of_slices(4, 1) == []
