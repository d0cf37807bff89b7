"""`fasttrain model`: what a network is made of, and what training it costs."""

from __future__ import annotations

import torch
from rich.table import Table

from fasttrain.config import Config
from fasttrain.data.outline import Outline
from fasttrain.models.summary import Summary, summarize
from fasttrain.training.parts import count_training
from fasttrain.training.resizing import Resizer


def describe(config: Config, data: Outline) -> Table:
    """The layers of a run's network as a table; the cost of the whole run stands below it.

    Raises:
        UserError: pooling leaves no pixels, or the batches do not fit the data set.
    """
    summary = summarize(config.model, data.classes, data.size)
    table = Table(title=f"{config.name}: {config.model.family}", title_justify="left")
    for heading in ("layer", "kind"):
        table.add_column(heading, overflow="fold")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in summary.layers:
        shape = " x ".join(map(str, layer.shape))
        table.add_row(
            layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.multiply_adds:,}"
        )
    table.add_section()
    table.add_row("in all", "", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    table.caption, table.caption_justify = _cost(config, data, summary), "left"
    return table


def _cost(config: Config, data: Outline, summary: Summary) -> str:
    """The operations of all training steps; a last short batch of an epoch is not trained on."""
    train, batch = config.train, config.data.batch_size
    steps = count_training(config, data.pictures) // batch
    resizer = Resizer(train.resize, data.size, steps, steps * train.epochs, torch.device("cpu"))
    resizer.check(config.model)
    parts, flops = [], 0
    for size, count in resizer.phases():
        pictures = count * batch
        seen = summary if size == data.size else summarize(config.model, data.classes, size)
        flops += seen.training_flops(pictures)
        parts.append(f"{seen.multiply_adds:,} x {pictures:,} pictures of {size[0]} x {size[1]}")
    work = " + ".join(parts)
    return f"training: 3 x 2 multiply-adds x ({work}) = {flops / 1e15:.3g} PFLOP"
