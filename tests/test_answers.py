"""The figures that follow from a model's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasttrain import answers
from fasttrain.answers import BINS, Answers, interval
from fasttrain.errors import UserError


def build(
    label: list[int], predicted: list[int], confidence: list[float], rank: list[int] | None = None
) -> Answers:
    right = np.equal(label, predicted)
    return Answers(
        np.array(label),
        np.array(predicted),
        np.array(confidence, dtype=np.float32),
        np.where(right, 0, 1) if rank is None else np.array(rank),
        np.arange(len(label), dtype=np.float32),
    )


@pytest.fixture
def four() -> Answers:
    return build([0, 0, 1, 2], [0, 1, 1, 1], [0.9, 0.8, 0.7, 0.95], rank=[0, 1, 0, 6])


def test_shares(four: Answers) -> None:
    assert (four.count, four.accuracy, four.mean_loss) == (4, 0.5, 1.5)
    assert (four.top(1), four.top(2), four.top(5), four.top(7)) == (0.5, 0.75, 0.75, 1.0)


def test_by_class(four: Answers) -> None:
    assert four.confusion(4).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert four.per_class(4) == [0.5, 1.0, 0.0, None]


def test_the_most_confident_mistakes_come_first(four: Answers) -> None:
    assert four.mistakes(9).tolist() == [3, 1]
    assert four.mistakes(1).tolist() == [3]


def test_reliability_bins_hold_every_picture_once() -> None:
    found = build([0] * 5, [0, 0, 1, 0, 1], [1.0, 0.999, 0.5, 0.0, 0.5]).reliability()
    assert found[:, 0].sum() == 5
    assert found[-1].tolist() == pytest.approx([2, 0.9995, 1.0])
    assert found[BINS // 2].tolist() == [2, 0.5, 0.0]


def test_calibration_error_by_hand() -> None:
    """Ten answers at 80 %: all right is off by 20 points, eight of them right by none."""
    assert build([0] * 10, [0] * 10, [0.8] * 10).calibration_error() == pytest.approx(0.2)
    assert build([0] * 10, [0] * 8 + [1] * 2, [0.8] * 10).calibration_error() == pytest.approx(
        0.0, abs=1e-6
    )


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        (0.5, 10, 0.2366, 0.7634),  # the published example of ten throws
        (0.0, 10, 0.0, 0.2775),
        (1.0, 10, 0.7225, 1.0),
        (0.94, 10_000, 0.93518, 0.94448),
    ],
)
def test_wilsons_interval(share: float, count: int, low: float, high: float) -> None:
    assert interval(share, count) == pytest.approx((low, high), abs=1e-4)


def test_an_interval_holds_shares_alone() -> None:
    assert all(interval(0.0, count)[0] >= 0 for count in range(1, 100))
    assert all(interval(1.0, count)[1] <= 1 for count in range(1, 100))


def test_what_is_saved_is_read_back(four: Answers, tmp_path: Path) -> None:
    four.save(tmp_path / "answers.npz")
    read = answers.load(tmp_path / "answers.npz")
    assert read.rank.tolist() == four.rank.tolist()
    assert read.confidence.tolist() == four.confidence.tolist()


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04cut off"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "answers.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"answers\.npz: not whole"):
        answers.load(tmp_path / "answers.npz")


def test_whichever_byte_is_damaged_it_is_one_line(four: Answers, tmp_path: Path) -> None:
    path = tmp_path / "answers.npz"
    four.save(path)
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            answers.load(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(whole) / 20
