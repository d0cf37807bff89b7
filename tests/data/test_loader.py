"""Which loader a run gets."""

from __future__ import annotations

import pytest
import torch

from fasttrain.data import loader
from fasttrain.data.loader import choose
from fasttrain.errors import UserError

CPU = torch.device("cpu")


def test_what_is_configured_is_taken() -> None:
    for name in ("dali", "resident", "reference"):
        assert choose(name, CPU, pixels=10**15) == (name, "as configured")


def test_auto_is_the_fastest_while_the_pictures_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader, "_memory", lambda _: 3200)
    assert choose("auto", CPU, pixels=100)[0] == "resident"
    assert choose("auto", CPU, pixels=101)[0] == "dali"


def test_without_dali_auto_is_resident_and_dali_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "find_spec", lambda _: None)
    assert choose("auto", CPU, pixels=10**15)[0] == "resident"
    with pytest.raises(UserError, match=r"data\.loader=dali: DALI is not installed"):
        choose("dali", CPU)
