"""Ranks that do not run the same thing on the same data refuse to begin, and say what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fasttrain.config import Config
from fasttrain.errors import UserError
from fasttrain.observe.folder import RunFolder
from fasttrain.runtime import Runtime
from fasttrain.training import agreement
from fasttrain.training.agreement import Member

MINE = Config()
ALIKE = Member(0, "h0", "1.0", agreement.digest(MINE), "data0")


class Ranks:
    """Stands in for the runtime of one of two ranks: what the other one tells is known."""

    def __init__(self, *others: object, rank: int = 0) -> None:
        self._others, self.rank, self.world = list(others), rank, 2
        self.is_main = self.is_first_here = rank == 0

    def collect(self, mine: object) -> list[Any]:
        both = [mine, self._others.pop(0)]
        return both if self.is_main else both[::-1]

    def on_main(self, decide: Any) -> Any:
        return decide()


def differing(other: Member, config: Config = MINE) -> str | None:
    ranks = cast(Runtime, Ranks(agreement._shared(config)))
    return agreement.differing(ranks, [ALIKE, replace(other, rank=1, host="h1")], MINE)


def test_ranks_that_are_alike_go_on() -> None:
    assert differing(ALIKE) is None


def test_what_differs_is_named_with_who_has_it() -> None:
    assert differing(replace(ALIKE, fasttrain="1.1")) == (
        "the ranks have different versions of fasttrain: 1.0 on rank 0 (h0), 1.1 on rank 1 (h1)"
    )
    found = differing(replace(ALIKE, data="data1"))
    assert found == "the ranks have different data: data0 on rank 0 (h0), data1 on rank 1 (h1)"
    other = Config.model_validate({"seed": 5, "optim": {"lr": 0.5}})
    assert differing(replace(ALIKE, config=agreement.digest(other)), other) == (
        "the ranks have different settings: optim.lr is 0.01 on rank 0 (h0), 0.5 on rank 1 (h1); "
        "seed is 0 on rank 0 (h0), 5 on rank 1 (h1)"
    )


def test_why_one_has_no_data_comes_first() -> None:
    found = differing(replace(ALIKE, data=None, problem="data.path=/x is not there"))
    assert found == "rank 1 on h1: data.path=/x is not there"


def test_a_machine_may_have_its_data_in_another_place() -> None:
    here = {"data": {"path": "/here", "workers": 9}, "track": {"metrics_port": 1}}
    assert agreement.digest(Config.model_validate(here)) == agreement.digest(MINE)


def check(folder: RunFolder, other: Member, rank: int = 0, resume: bool = True) -> list[str]:
    said: list[str] = []
    ranks = cast(Runtime, Ranks(other, agreement._shared(MINE), rank=rank))
    agreement.check(ranks, MINE, folder, "data0", None, resume, said.append)
    return said


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def other() -> Member:
    mine = agreement.member(cast(Runtime, Ranks()), MINE, "data0")
    return replace(mine, rank=1, host="h1")


def save(folder: RunFolder) -> None:
    saved = folder.checkpoints / "step-00000012" / "state.pt"
    saved.parent.mkdir(parents=True)
    saved.touch()


def test_a_folder_that_all_machines_see_leaves_no_token(folder: RunFolder, other: Member) -> None:
    (folder.path / ".shared-of-a-killed-process").touch()
    assert check(folder, other) == []
    assert list(folder.path.iterdir()) == []


def test_one_that_is_not_shared_is_refused_where_checkpoints_are_to_be_read(
    folder: RunFolder, other: Member
) -> None:
    blind = replace(other, sees=False)
    (line,) = check(folder, blind)  # there are none yet
    assert line.startswith(f"warning: {folder.path} is not shared with h1: ")
    save(folder)
    assert len(check(folder, blind, resume=False)) == 1
    with pytest.raises(UserError, match="is not shared with h1, where its"):
        check(folder, blind)


def test_a_refusal_is_said_once_on_a_machine(folder: RunFolder, other: Member) -> None:
    odd = replace(other, data="data1")
    with pytest.raises(UserError, match=r"different data: .*; every rank needs the same$"):
        check(folder, odd)
    with pytest.raises(UserError) as silent:
        check(folder, odd, rank=1)
    assert (str(silent.value), silent.value.exit_code) == ("", 2)
