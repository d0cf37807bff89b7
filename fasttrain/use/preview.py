"""A contact sheet of what the model will see: the same pictures as several epochs show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fasttrain.config import Config
from fasttrain.data import sources
from fasttrain.data.augment import Transform
from fasttrain.data.loader import Pictures, choose, make_loader
from fasttrain.data.mixing import mix
from fasttrain.data.plan import Batch, Plan, Shard
from fasttrain.data.randomness import Ints
from fasttrain.data.store import Store
from fasttrain.errors import UserError
from fasttrain.files import write_output
from fasttrain.training import parts
from fasttrain.training.resizing import Matrices, Resizer, resize

_TILE, _GAP, _MARGIN, _LINE = 96, 4, 90, 18  # pixels of the sheet; the first is aimed at
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_FONT, _FONT_SIZE = "mpl-data/fonts/ttf/DejaVuSans.ttf", 12


class Excerpt(Plan):
    """A few pictures of another plan, with all that it has in store for them, as one small batch.

    Each is followed by its partner, so that they are mixed as they will be.

    Args:
        plan: The plan of a run.
        pictures: Positions in the store's split, of pictures that every epoch looked at shows.
    """

    def __init__(self, plan: Plan, pictures: Ints) -> None:
        self._plan = plan
        self._pictures = pictures
        self.batch_size = 2 * len(pictures)
        self.steps_per_epoch = 1
        self._kept: dict[int, Batch] = {}

    def epoch(self, epoch: int) -> Batch:
        """The rows of these pictures and of their partners, by turns; kept: they are few.

        A loader may ask for every picture, and finding it takes a look at the whole epoch.
        """
        if epoch not in self._kept:
            self._kept[epoch] = self._cut_out(epoch)
        return self._kept[epoch]

    def _cut_out(self, epoch: int) -> Batch:
        whole = self._plan.epoch(epoch)
        order = np.argsort(whole.indices)
        own = order[np.searchsorted(whole.indices, self._pictures, sorter=order)]
        # The last row of an odd batch has no partner, but such a batch is never mixed either.
        partners = np.minimum(own ^ 1, len(whole.indices) - 1)
        rows = np.stack([own, partners], axis=1).ravel()
        draws = {name: values[rows] for name, values in whole.draws.items()}
        return Batch(whole.indices[rows], draws, len(rows))


def preview(config: Config, path: Path, pictures: int, epochs: int) -> None:
    """Draw `pictures` training pictures as the first `epochs` epochs show them, one to a row.

    They come through the run's own loader, and are mixed and made smaller as the first step of an
    epoch does it; smaller ones are enlarged to the tile of whole ones.

    Args:
        config: The run.
        path: The PNG to write.
        pictures: Number of rows.
        epochs: Number of columns, after one with the pictures as they are stored.

    Raises:
        UserError: the data cannot be used, or the file not be written.
    """
    on_gpu = config.train.device != "cpu" and torch.cuda.is_available()
    store = sources.open_dataset(config.data)
    device = torch.device("cuda" if on_gpu else "cpu")
    write_output(path, sheet(config, store, device, pictures, epochs))


def sheet(config: Config, store: Store, device: torch.device, pictures: int, epochs: int) -> bytes:
    """The PNG that `preview` writes; arguments and errors likewise."""
    plan = parts.training_plan(config, store)
    chosen = _shown_by_all(plan, epochs)[:pictures]
    if not len(chosen):
        raise UserError(f"no picture is shown in each of {epochs} epochs; choose fewer")
    steps, train = plan.steps_per_epoch, config.train
    resizer = Resizer(train.resize, store.size, steps, steps * train.epochs, device)
    smaller = [resizer(epoch * steps) for epoch in range(epochs)]
    columns = _deliver(config, store, Excerpt(plan, chosen), smaller, device)
    stored = store.train.images[chosen]
    names = [store.classes[label] for label in store.train.labels[chosen]]
    titles = ["stored", *[f"epoch {epoch + 1}" for epoch in range(epochs)]]
    content = BytesIO()
    _draw([stored, *columns], names, titles).save(content, "PNG")
    return content.getvalue()


def _shown_by_all(plan: Plan, epochs: int) -> Ints:
    """The pictures that no epoch drops with its short last batch, in the first one's order."""
    first = plan.epoch(0).indices
    kept = np.ones(len(first), dtype=bool)
    for epoch in range(1, epochs):
        kept &= np.isin(first, plan.epoch(epoch).indices)
    return first[kept]


def _deliver(
    config: Config,
    store: Store,
    plan: Excerpt,
    smaller: Sequence[Matrices | None],
    device: torch.device,
) -> list[NDArray[np.uint8]]:
    """For each epoch the pictures, (rows, H, W, 3), or as small as it has them."""
    name, _ = choose(config.data.loader, device, math.prod(store.train.images.shape[:3]))
    transform = Transform(config.data.augment, store.mean, store.std, raw=True)
    loader = make_loader(
        name, store.train, plan, Shard(), transform, device, compile=False, workers=0
    )
    batches = loader.batches(0, len(smaller))
    columns = [_shown(batch, by) for batch, by in zip(batches, smaller, strict=True)]
    loader.close()
    return columns


def _shown(batch: Pictures, smaller: Matrices | None) -> NDArray[np.uint8]:
    """A batch as the model gets it, without the partners, in grey levels."""
    images: Tensor = batch.images.float()
    if batch.mixing is not None:
        images = mix(images, batch.mixing)
    images = images[::2]
    if smaller is not None:
        images = resize(images, smaller)
    return images.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _draw(columns: list[NDArray[np.uint8]], rows: list[str], titles: list[str]) -> Image.Image:
    """The sheet: a column for each title, a row for each name; all tiles have one size."""
    _, *stored, _ = columns[0].shape
    scale = max(1, round(_TILE / max(stored)))  # whole, so that a stored pixel is always a square
    height, width = (side * scale for side in stored)
    font = _font()
    margin = max(_MARGIN, *(2 * _GAP + math.ceil(font.getlength(name)) for name in rows))
    across = max(width, *(math.ceil(font.getlength(title)) for title in titles))
    down, right = height + _GAP, across + _GAP
    size = (margin + right * len(titles) + _GAP, _LINE + down * len(rows) + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(rows):
        pen.text((_GAP, _LINE + down * row + height // 2), name, _INK, font, anchor="lm")
    for column, (title, images) in enumerate(zip(titles, columns, strict=True)):
        left = margin + right * column
        pen.text((left + across // 2, _LINE // 2 + 1), title, _INK, font, anchor="mm")
        for row, image in enumerate(images):
            tile = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + (across - width) // 2, _LINE + down * row))
    return sheet


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """matplotlib's, which has the letters of most alphabets; Pillow's own has few."""
    matplotlib = find_spec("matplotlib")  # of the extra `report`
    if matplotlib is not None and matplotlib.origin is not None:
        with suppress(OSError):
            return ImageFont.truetype(Path(matplotlib.origin).parent / _FONT, _FONT_SIZE)
    return ImageFont.load_default(_FONT_SIZE)
