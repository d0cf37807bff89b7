"""The contact sheet shows what the run's own plan and loader make of a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.config import Config, Train
from fasttrain.data import sources
from fasttrain.data.augment import Transform
from fasttrain.data.loader import as_tensors
from fasttrain.data.mixing import mix
from fasttrain.data.store import Split, Store
from fasttrain.errors import UserError
from fasttrain.training import parts
from fasttrain.training.resizing import matrices, resize
from fasttrain.use import preview as preview_module
from fasttrain.use.preview import Excerpt, preview

RECIPE = ["trivial_augment", "crop", "flip", "cutout", "mixup", "cutmix"]
TILE, LEFT, TOP, STEP = 96, 90, 18, 100  # of the sheet


@pytest.fixture
def config() -> Config:
    data = {"batch_size": 6, "validation": 0, "augment": RECIPE}
    return Config.model_validate({"seed": 4, "data": data, "train": {"device": "cpu"}})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    split = Split(images, np.arange(20) % 2)
    small = Store(
        "small",
        tmp_path,
        ("ant", "bee"),
        split,
        split,
        (120.0,) * 3,
        (60.0,) * 3,
        "0" * 16,
        "1" * 16,
    )
    monkeypatch.setattr(sources, "open_dataset", lambda *_: small)
    return small


def test_an_excerpt_has_the_draws_of_its_pictures_and_of_their_partners(
    config: Config, store: Store
) -> None:
    plan = parts.training_plan(config, store)
    pictures = plan.epoch(0).indices[[3, 4]]
    excerpt = Excerpt(plan, pictures)
    for epoch in range(3):
        whole, part = plan.epoch(epoch), excerpt.batch(epoch)
        if not np.isin(pictures, whole.indices).all():
            continue
        rows = [int(np.flatnonzero(whole.indices == picture)[0]) for picture in pictures]
        expected = [rows[0], rows[0] ^ 1, rows[1], rows[1] ^ 1]
        assert part.indices.tolist() == whole.indices[expected].tolist()
        for name, values in whole.draws.items():
            assert np.array_equal(part.draws[name], values[expected])


def test_a_tile_is_what_the_model_will_see(config: Config, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    preview(config, path, pictures=3, epochs=2)
    sheet = np.asarray(Image.open(path))
    plan = parts.training_plan(config, store)
    shown = [index for index in plan.epoch(0).indices if index in plan.epoch(1).indices][:3]
    for row, index in enumerate(shown):
        assert np.array_equal(tile(sheet, row, 0), store.train.images[index])
        for epoch in range(2):
            step, place = divmod(int(np.flatnonzero(plan.epoch(epoch).indices == index)[0]), 6)
            batch = plan.batch(epoch * plan.steps_per_epoch + step)
            stored = torch.from_numpy(store.train.images[batch.indices])
            transform = Transform(config.data.augment, store.mean, store.std, raw=True)
            images = transform.apply(stored, as_tensors(batch.draws)).float()
            mixed = mix(images, torch.from_numpy(batch.draws["mixing"]))[place]
            off = tile(sheet, row, 1 + epoch) - mixed.permute(1, 2, 0).numpy()
            assert abs(off).max() <= 1.01


def test_a_tile_is_as_small_as_the_model_will_see_it(
    config: Config, store: Store, tmp_path: Path
) -> None:
    del store
    resized = {"device": "cpu", "epochs": 3, "resize": [{"scale": 0.5, "until": "50%"}]}
    train = Train.model_validate(resized)
    sheets = []
    for name, shown in (("whole", config), ("small", config.model_copy(update={"train": train}))):
        preview(shown, tmp_path / f"{name}.png", pictures=3, epochs=3)
        sheets.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    whole, small = sheets
    for row in range(3):
        for column in (0, 3):  # as they are stored, and in the last epoch
            assert np.array_equal(tile(small, row, column), tile(whole, row, column))
        for column in (1, 2):  # the second is so in its first half, and shown as it begins
            pictures = torch.from_numpy(tile(whole, row, column)).permute(2, 0, 1)[None]
            (expected,) = resize(pictures, matrices((16, 16), (8, 8))).permute(0, 2, 3, 1).numpy()
            off = tile(small, row, column) - expected.repeat(2, 0).repeat(2, 1)
            assert abs(off).max() <= 1.01


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """A tile of the sheet at its own size, 16 x 16."""
    top, left = TOP + STEP * row, LEFT + STEP * column
    return sheet[top + 3 : top + TILE : 6, left + 3 : left + TILE : 6].astype(np.float32)


@pytest.mark.parametrize(
    ("size", "scale"), [((28, 28), 3), ((64, 64), 2), ((24, 48), 2), ((64, 16), 2), ((200, 9), 1)]
)
def test_tiles_show_whole_pixels_in_their_proportions(
    size: tuple[int, int], scale: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, *size, 3), dtype=np.uint8)
    split = Split(images, np.arange(6) % 2)
    other = dataclasses.replace(
        store, classes=("a class of a very long name", "bee"), train=split, test=split
    )
    monkeypatch.setattr(sources, "open_dataset", lambda *_: other)
    data = {"batch_size": 6, "validation": 0, "augment": ["flip"]}
    config = Config.model_validate({"data": data, "train": {"device": "cpu"}})
    preview(config, tmp_path / "sheet.png", pictures=6, epochs=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height, width = (side * scale for side in size)
    for row, index in enumerate(parts.training_plan(config, other).epoch(0).indices):
        top = TOP + row * (height + 4)
        enlarged = images[index].repeat(scale, 0).repeat(scale, 1)
        places = [
            left
            for left in range(90, sheet.shape[1] - width)
            if np.array_equal(sheet[top : top + height, left : left + width], enlarged)
        ]
        assert places  # as it is stored, and perhaps again where it is not flipped


@pytest.mark.parametrize("name", ["Bären", "Löwen", "κύκνος", "медведь"])
def test_names_are_drawn_with_their_own_letters(name: str) -> None:
    pytest.importorskip("matplotlib")
    font = preview_module._font()
    unknown = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != unknown for letter in name)


def test_without_matplotlib_names_are_drawn_in_pillows_font(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preview_module, "find_spec", lambda _: None)
    assert preview_module._font().getlength("ship") > 0


def test_a_sheet_that_cannot_be_written_is_the_users_to_mend(
    config: Config, store: Store, tmp_path: Path
) -> None:
    del store
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        preview(config, tmp_path / "file" / "sheet.png", pictures=1, epochs=1)
