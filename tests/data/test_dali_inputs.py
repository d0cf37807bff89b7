"""What DALI is told of each picture."""

from __future__ import annotations

import numpy as np
import pytest

from fasttrain.config import Augmentation, ColorJitter, Crop, Cutout, Flip, Rotation, TrivialAugment
from fasttrain.data.augment import Transform
from fasttrain.data.dali_inputs import NEEDED, input_names, parameters
from fasttrain.data.plan import TrainingPlan
from fasttrain.data.trivial import Op

MEAN, STD = (125.3, 122.95, 113.9), (62.99, 62.1, 66.7)
MOVING = {Op.SHEAR_X, Op.SHEAR_Y, Op.ROTATE}  # TrivialAugment shifts by whole pixels
IDENTITY = np.eye(3, 4, dtype=np.float32)


def told(*augment: Augmentation) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The pipeline's inputs for a large batch, and TrivialAugment's draws."""
    transform = Transform(augment, MEAN, STD)
    batch = TrainingPlan(np.arange(600), 600, 3, augment, (32, 32)).batch(0)
    drawn = batch.draws["trivial_augment"]
    changes = np.isin(drawn[:, 0], [Op.BRIGHTNESS, Op.COLOR]) & (drawn[:, 1] != 0)
    colour = np.where(changes[:, None, None], np.float32(0.5), IDENTITY)
    found = parameters({**batch.draws, "colour": colour}, transform, (32, 32))
    return dict(zip(input_names(transform), found, strict=True)), drawn


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_only_what_looks_between_pixels_is_interpolated(mode: str) -> None:
    inputs, drawn = told(TrivialAugment(), Crop(padding=4, mode=mode), Flip(), Cutout())
    moves = np.isin(drawn[:, 0], list(MOVING)) & (drawn[:, 1] != 0)
    assert np.array_equal(inputs[NEEDED.format("warp")], moves)
    assert 0 < moves.mean() < 0.3


def test_a_rotation_besides_lets_all_be_interpolated() -> None:
    inputs, _ = told(TrivialAugment(), Rotation(degrees=20))
    assert inputs[NEEDED.format("warp")].all()


def test_only_what_changes_its_colours_is_recoloured() -> None:
    inputs, drawn = told(TrivialAugment(), Crop())
    changes = np.isin(drawn[:, 0], [Op.BRIGHTNESS, Op.COLOR]) & (drawn[:, 1] != 0)
    assert np.array_equal(inputs[NEEDED.format("colour")], changes)


@pytest.mark.parametrize(
    "augment", [(Rotation(), Crop()), (Crop(), Flip()), (ColorJitter(),), (Cutout(),), ()]
)
def test_without_trivial_augment_all_pictures_are_alike_to_dali(
    augment: tuple[Augmentation, ...],
) -> None:
    assert not any("needed" in name for name in input_names(Transform(augment, MEAN, STD)))
